//! Every input that fuzzing has found worth keeping, through the function that it was found with; and
//! each of them cut short, and with single bytes changed.

use std::path::PathBuf;

use tidegate_transport::fuzz::TARGETS;

#[test]
fn the_corpora_are_survived() {
    for (name, target) in TARGETS {
        let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let files = std::fs::read_dir(&directory)
            .unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        let mut count = 0;
        for file in files {
            let input = std::fs::read(file.unwrap().path()).unwrap();
            target(&input);
            for at in (0..input.len()).step_by(input.len().div_ceil(20).max(1)) {
                for change in [1, 0x80] {
                    let mut changed = input.clone();
                    changed[at] ^= change;
                    target(&changed);
                }
                target(&input[..at]);
            }
            count += 1;
        }
        assert!(count > 4, "the corpus of {name} has {count} inputs");
    }
}
