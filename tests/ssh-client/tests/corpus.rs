//! Every input that fuzzing has found worth keeping, through the function that it was found with; and
//! each of them with single bytes changed.

use std::path::PathBuf;

use tidegate_ssh_client::fuzz::{TARGETS, seeds};

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let directory =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../ssh/fuzz/corpus").join(target);
    let mut files: Vec<_> = std::fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).expect("a file")).collect()
}

#[test]
fn the_corpora_are_survived() {
    for (name, target) in TARGETS {
        let inputs = corpus(name);
        assert!(inputs.len() > 4, "the corpus of {name} has {} inputs", inputs.len());
        for input in &inputs {
            target(input);
        }
    }
}

#[test]
fn what_real_clients_send_is_survived_with_any_byte_changed() {
    for (name, target) in TARGETS {
        for seed in seeds(name) {
            target(&seed);
            let step = seed.len().div_ceil(100).max(1);
            for at in (0..seed.len()).step_by(step) {
                for change in [1, 0x80, 0xff] {
                    let mut changed = seed.clone();
                    changed[at] ^= change;
                    target(&changed);
                }
                target(&seed[..at]);
            }
        }
    }
}
