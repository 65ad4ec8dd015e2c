//! Manifests that the tests of the directory source and of the offline commands share.
#![allow(dead_code, reason = "each test crate uses a part of it")]

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

pub const ALICE_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN0c65IXbYJopM4gdh1iHRcyC3ch7c/a7PJdB/HvM+Pj";
pub const TERMINAL_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJFBCkMYZfxxcBZuI1abBI+L2m+ENJjvvMSEc/2pyiFE";
pub const HOST_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBIDT4wDVmkF5hLgbxL4XpZJftZqW+3L5MBlMM4L1oxd";
pub const RELAY_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINGvZ0aHeWhg6/8lsLuK5RkA+Mt4CBFFTNnyOH5rb30L";

pub const MESH: &str = "apiVersion: tidegate.dev/v1alpha1
kind: Mesh
metadata: {name: prod, namespace: support}
spec:
  domain: support.example.com
  tenants: {from: Same}
  maxPolicyAge: 5m
";

pub fn relay(name: &str) -> String {
    format!(
        "apiVersion: tidegate.dev/v1alpha1
kind: Relay
metadata: {{name: {name}, namespace: support}}
spec:
  meshRef: {{name: prod}}
  replicas: 1
  listeners: [{{port: 5938}}, {{port: 80}}]
"
    )
}

pub fn user() -> String {
    format!(
        "apiVersion: tidegate.dev/v1alpha1
kind: LoginUser
metadata: {{name: alice, namespace: support}}
spec:
  publicKeys: [{ALICE_KEY}]
"
    )
}

pub fn terminal() -> String {
    format!(
        "apiVersion: tidegate.dev/v1alpha1
kind: Terminal
metadata: {{name: kiosk-17, namespace: support}}
spec:
  publicKeys: [{TERMINAL_KEY}]
  hostKeys: [{HOST_KEY}]
  services: [{{name: ssh, port: 2222, listenPort: 20017}}, {{name: web, port: 443}}]
"
    )
}

/// A window of alice on kiosk-17, open on 23 November 2026 from 08:00 to 10:00 UTC.
pub fn window(name: &str, case: &str) -> String {
    format!(
        "apiVersion: tidegate.dev/v1alpha1
kind: SupportWindow
metadata: {{name: {name}, namespace: support}}
spec:
  case: {{number: \"{case}\"}}
  users: {{names: [alice]}}
  terminals: {{names: [kiosk-17]}}
  services: [ssh]
  schedule:
    once: {{start: 2026-11-23T09:00:00+01:00, end: 2026-11-23T11:00:00+01:00}}
  consent: NotRequired
"
    )
}

/// A directory of manifests: a Mesh, a Relay, alice, kiosk-17 and a window `berlin`.
pub struct Manifests(pub TempDir);

impl Manifests {
    pub fn new() -> Self {
        let manifests = Self(tempfile::tempdir().unwrap());
        manifests.write("mesh.yaml", MESH);
        manifests.write("relay.yaml", &relay("eu"));
        manifests.write("people/alice.yaml", &user());
        manifests.write("terminals/kiosk-17.yaml", &terminal());
        manifests.write("windows/berlin.yaml", &window("berlin", "48213"));
        manifests
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.at(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub fn remove(&self, name: &str) {
        fs::remove_file(self.at(name)).unwrap();
    }
}
