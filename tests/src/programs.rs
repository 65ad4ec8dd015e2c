//! The programs under test. A variable names one that is there; otherwise cargo builds it, once per
//! test program.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use crate::process::Proc;

/// A build with a cold cache on a busy machine.
const BUILD: Duration = Duration::from_mins(40);

/// Which build of the relay a test wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    Debug,
    /// Debug with the fail points.
    FailPoints,
    /// As released but for the optimisation across crates (profile `tested`); linked dynamically, so
    /// that libfaketime can be put before libc.
    Release,
}

/// `tidegate-relay`: `TIDEGATE_RELAY`, `TIDEGATE_RELAY_FAILPOINTS` or `TIDEGATE_RELAY_RELEASE`.
pub fn relay(build: Build) -> PathBuf {
    static BUILT: [OnceLock<PathBuf>; 3] = [OnceLock::new(), OnceLock::new(), OnceLock::new()];
    let (slot, variable, arguments): (_, _, &[&str]) = match build {
        Build::Debug => (&BUILT[0], "TIDEGATE_RELAY", &[]),
        Build::FailPoints => {
            (&BUILT[1], "TIDEGATE_RELAY_FAILPOINTS", &["--features", "failpoints"])
        }
        Build::Release => (&BUILT[2], "TIDEGATE_RELAY_RELEASE", &["--profile", "tested"]),
    };
    let make = || {
        let built = cargo("tidegate-relay", arguments);
        let profile = if build == Build::Release { "tested" } else { "debug" };
        let built = built.join(profile).join("tidegate-relay");
        if build == Build::Release {
            return built;
        }
        // Both debug builds leave the same name behind.
        let kept = built.with_file_name(format!("tidegate-relay-{}", std::process::id()));
        std::fs::copy(&built, &kept).expect("a copy of the relay");
        kept
    };
    named(slot, variable, make)
}

/// `tidegate-operator`: `TIDEGATE_OPERATOR`.
pub fn operator() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let make = || cargo("tidegate-operator", &[]).join("debug/tidegate-operator");
    named(&BUILT, "TIDEGATE_OPERATOR", make)
}

/// `kubectl-tidegate`: `TIDEGATE_CLI`.
pub fn cli() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let make = || cargo("tidegate-cli", &[]).join("debug/kubectl-tidegate");
    named(&BUILT, "TIDEGATE_CLI", make)
}

/// The folder with the images of this tree, as archives: `TIDEGATE_IMAGES`.
pub fn images() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let make = || {
        let images = target().join("images");
        let mut build = Command::new(checkout().join("scripts/image.sh"));
        build.args(["--profile", "dev"]).arg(&images).env("CARGO_TARGET_DIR", target());
        Proc::run("image.sh", &mut build, BUILD).ok();
        images
    };
    named(&BUILT, "TIDEGATE_IMAGES", make)
}

/// The checkout that the tests are of.
pub fn checkout() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn named(slot: &OnceLock<PathBuf>, variable: &str, make: impl FnOnce() -> PathBuf) -> PathBuf {
    slot.get_or_init(|| std::env::var_os(variable).map_or_else(make, PathBuf::from)).clone()
}

/// Builds a package into the target directory that this test came from, and returns that.
fn cargo(package: &str, arguments: &[&str]) -> PathBuf {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .current_dir(checkout())
        .args(["build", "--quiet", "--locked", "-p", package, "--target-dir"])
        .arg(target())
        .args(arguments);
    Proc::run("cargo build", &mut command, BUILD).ok();
    target()
}

/// target/debug/deps/embedded_x-0123 → target
fn target() -> PathBuf {
    let this = std::env::current_exe().expect("this program's path");
    this.ancestors().nth(3).expect("a target directory").to_owned()
}
