//! `tidegate-operator`: parses the command line and calls `run`.

fn main() {}
