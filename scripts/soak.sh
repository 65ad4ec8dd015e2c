#!/usr/bin/env bash
# A relay under a thousand terminals, staff that come and go and hostile peers, for half an hour or as long as
# is said, and a verdict: docs/soak.md.
#   scripts/soak.sh [30m] [arguments of tests/examples/soak.rs, such as --terminals 100]
# TIDEGATE_RELAY_RELEASE names an optimised relay that is there.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}
cargo build --quiet --locked --workspace --example soak
if [[ -z ${TIDEGATE_RELAY_RELEASE-} ]]; then
  cargo build --quiet --locked --profile tested --package tidegate-relay --bin tidegate-relay
  export TIDEGATE_RELAY_RELEASE=$target/tested/tidegate-relay
fi

# As many terminals are as many descriptors in the relay and in the program.
ulimit -n "$(ulimit -Hn)"
exec "$target/debug/examples/soak" --out "$target/soak" "$@"
