//! `kubectl-tidegate`: parses the command line and calls `run`.

fn main() {}
