//! Objects that several tests begin with.
#![allow(dead_code, reason = "each test crate uses some of them")]

use serde_json::{Value, json};

pub const KEYS: [&str; 3] = [
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOBZx8GNudT4wBGZ3qbA4EMt1CyfmYJ2HHAdXkxh2Y/d alice",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAWeM//Go868wg/3b6k2nOnHVoKBcU9EBLs1mt5bLc3x",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFAIIYRY7fwsiYzj9JbMpYWCbbluwzZH4xVEuyDuY3Dd kiosk",
];
pub const P256: &str = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBHIXNfEp2RSglz+2r5ZiHTMLGZn8aQ6yNWukfqQHGTH3PRpUd5iW3ZMANlaV3aPbB+ZH+RmzdE2pbFQSVvzH4NE=";
pub const P384: &str = "ecdsa-sha2-nistp384 AAAAE2VjZHNhLXNoYTItbmlzdHAzODQAAAAIbmlzdHAzODQAAABhBMQeLD4KPndv5XtUspoYmHIOV3FoesLvdw4n0KaTt2XKr1ZiVWyb9/MKL4wUnWJaHqGBKj2LqjUKKctumEafMdUfvxRVg4fZsLmX+ww8JrnMNy/2E5fA5dMJeHJaki9SVQ==";
pub const P521: &str = "ecdsa-sha2-nistp521 AAAAE2VjZHNhLXNoYTItbmlzdHA1MjEAAAAIbmlzdHA1MjEAAACFBAFVz8UDazFpp5Jt09Cp+egBIfOHccLhHRttZ5rSae5x+0AXA1S4f1i4E9ZKeER/Sw0P1SfmIiqntLHKl6DUUWdxawDgl+c1soXsbvOJGz5Gw4CN6xndYux5jarRxnHp0QUlIFtinh7+Z8gFI6uXSkIHOMDZ2/WAGCyOjzBbuWCf83xxvg==";
pub const RSA_1024: &str = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQCihxildehFgAg/ilW50ZvCthFZKlo3DOBdVpeUR8OCmNC9aDuxFPVGEIItZ+48v6gZs4a6Da3qeTVZNt4D0Ho6Zq9Fi1Zr2vVg/Gt2goJ9n3LXaYd28FUbNp3YVmS3Ivnj7owiBQziQcR2iWN1LdeaDXtRSmuVSpcKHrmlHNJN+Q==";
pub const RSA_2048: &str = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQDBYqUZsnkyvVdxIDPIpQDoNdondhtXfvq/T8iX9mUOfCIor2DX7+uYvXlC0ZnNJVHsJnOQI64SaVl/ImVX7tNsh8EPWtCVAZLEkKrfdZfeC2dzjWNa9av94v4iblMCk6YW/5HfDina8Hg0NM1A+NlN+nU9Bj2RIF9b6dEdhMVUOjt+pGWMZtgIMh1vObapxehiFMFsF2IRlycb1MgT9XaymeJwMY/AbXoWesSTJLxATLFfpjenEK6qiIjzk5FoTua5jbiq9HgZgAlaXHAeIcLD9NU/bDN/F6Onk//gQ+ozyEv2boTm2+iaYjjhY41eugUUpg/Q89oILbXpa3GpIiU9";

pub fn object(kind: &str, namespace: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "tidegate.dev/v1alpha1", "kind": kind,
        "metadata": {"name": name, "namespace": namespace}, "spec": spec,
    })
}

pub fn mesh() -> Value {
    let selector = json!({"matchLabels": {"tidegate.dev/mesh": "prod"}});
    let tenants = json!({"from": "Selector", "selector": selector});
    object("Mesh", "default", "prod", json!({"domain": "support.example.com", "tenants": tenants}))
}

pub fn relay() -> Value {
    object("Relay", "default", "eu", json!({"meshRef": {"name": "prod"}, "replicas": 1}))
}

pub fn user(namespace: &str, name: &str, key: &str) -> Value {
    object("LoginUser", namespace, name, json!({"publicKeys": [key], "groups": ["tier2"]}))
}

pub fn terminal(namespace: &str, name: &str, key: &str, listen_port: u16) -> Value {
    let service = json!({"name": "ssh", "port": 22, "listenPort": listen_port});
    object("Terminal", namespace, name, json!({"publicKeys": [key], "services": [service]}))
}

pub fn window(namespace: &str, name: &str) -> Value {
    object(
        "SupportWindow",
        namespace,
        name,
        json!({
            "users": {"names": ["alice"]}, "terminals": {"names": ["kiosk-17"]},
            "services": ["ssh"], "consent": "NotRequired",
            "schedule": {"once": {
                "start": "2026-11-23T09:00:00+01:00", "end": "2026-11-23T11:00:00+01:00",
            }},
        }),
    )
}

pub fn namespace(name: &str, mesh: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": name, "labels": {"tidegate.dev/mesh": mesh}},
    })
}
