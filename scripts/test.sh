#!/usr/bin/env bash
# Builds the programs in the forms that the tests run, then runs all tests.
# Arguments go to `cargo test`.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}
target=$(mkdir -p "$target" && cd "$target" && pwd)

# Both debug builds leave the same name behind: the one with fail points is put aside.
cargo build --locked --workspace --bin tidegate-relay --features tidegate-relay/failpoints
cp --remove-destination "$target/debug/tidegate-relay" "$target/debug/tidegate-relay-failpoints"
cargo build --locked --workspace --bins
cp --remove-destination "$target/debug/tidegate-relay" "$target/debug/tidegate-relay-tested"
# The clock tests step the time of what is released; it is linked dynamically for them.
cargo build --locked --release --package tidegate-relay --bin tidegate-relay

export TIDEGATE_RELAY=$target/debug/tidegate-relay-tested
export TIDEGATE_RELAY_FAILPOINTS=$target/debug/tidegate-relay-failpoints
export TIDEGATE_RELAY_RELEASE=$target/release/tidegate-relay
export TIDEGATE_OPERATOR=$target/debug/tidegate-operator
export TIDEGATE_CLI=$target/debug/kubectl-tidegate
if command -v buildah >/dev/null; then
    scripts/image.sh --profile dev "$target/images"
    export TIDEGATE_IMAGES=$target/images
fi
cargo test --locked --workspace --no-fail-fast "$@"
