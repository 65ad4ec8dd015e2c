//! Writes what fuzzing begins with: `fuzz_seeds DIRECTORY` puts `DIRECTORY/TARGET/seed-N`.

use std::path::PathBuf;

use tidegate_ssh_client::fuzz::{TARGETS, seeds};

fn main() {
    let directory = PathBuf::from(std::env::args().nth(1).expect("a directory"));
    for (target, _) in TARGETS {
        let directory = directory.join(target);
        std::fs::create_dir_all(&directory).expect("a directory");
        for (number, seed) in seeds(target).into_iter().enumerate() {
            std::fs::write(directory.join(format!("seed-{number}")), seed).expect("a file");
        }
    }
}
