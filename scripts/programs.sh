#!/usr/bin/env bash
# Builds the programs in the forms that the tests run, and the tests.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}
target=$(mkdir -p "$target" && cd "$target" && pwd)

# Both debug builds leave the same name behind: the one with fail points is put aside.
cargo build --locked --workspace --bin tidegate-relay --features tidegate-relay/failpoints
cp --remove-destination "$target/debug/tidegate-relay" "$target/debug/tidegate-relay-failpoints"
cargo build --locked --workspace --bins
cp --remove-destination "$target/debug/tidegate-relay" "$target/debug/tidegate-relay-tested"
# The clock tests step the time of what is optimised as released; it is linked dynamically for them.
cargo build --locked --profile tested --package tidegate-relay --bin tidegate-relay
if command -v buildah >/dev/null; then
    scripts/image.sh --profile dev "$target/images"
fi
cargo test --locked --workspace --no-run
