#!/usr/bin/env bash
# Builds the programs in the forms that the tests run, and the tests.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}
target=$(mkdir -p "$target" && cd "$target" && pwd)

# The clock tests step the time of what is optimised as released; it is linked dynamically for them.
optimised_and_images() {
    cargo build --locked --profile tested --package tidegate-relay --bin tidegate-relay
    if command -v buildah >/dev/null; then
        scripts/image.sh --profile dev "$target/images"
    fi
}
# Beside the debug builds: they have folders of their own, and each is a chain of crates that leaves
# processors idle.
said=$(mktemp)
set -m
optimised_and_images >"$said" 2>&1 &
building=$!
set +m
trap '[[ -z $building ]] || kill -- "-$building" 2>/dev/null || true; rm -f "$said"' EXIT

# Both debug builds leave the same name behind: the one with fail points is put aside.
cargo build --locked --workspace --bin tidegate-relay --features tidegate-relay/failpoints
cp --remove-destination "$target/debug/tidegate-relay" "$target/debug/tidegate-relay-failpoints"
cargo build --locked --workspace --bins
cp --remove-destination "$target/debug/tidegate-relay" "$target/debug/tidegate-relay-tested"
cargo test --locked --workspace --no-run

code=0
wait "$building" || code=$?
building=''
cat "$said"
exit "$code"
