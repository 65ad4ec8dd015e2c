#!/usr/bin/env bash
# Form and lints: rustfmt, clippy, the generated CRDs, shellcheck.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo fmt --all --check
cargo clippy --workspace --all-targets --locked -- -D warnings
# Of the whole workspace again: for one package alone cargo would check other forms of its dependencies.
cargo clippy --workspace --features tidegate-relay/failpoints --all-targets --locked -- -D warnings

if command -v shellcheck >/dev/null; then
    # By their first line: most scripts have no ending in their names.
    mapfile -t scripts < <(git ls-files -z -- ':!:*.rs' |
        xargs -0 awk 'FNR == 1 && /^#(!\/usr\/bin\/env bash|!\/bin\/sh| shellcheck shell=)/ {print FILENAME} {nextfile}')
    shellcheck --external-sources --source-path=SCRIPTDIR:SCRIPTDIR/.. "${scripts[@]}"
elif [[ ${CI:-} == true ]]; then
    echo "shellcheck is missing; scripts/install-test-packages.sh installs it" >&2
    exit 1
else
    echo "LEFT OUT: shellcheck is missing; scripts/install-test-packages.sh installs it" >&2
fi
