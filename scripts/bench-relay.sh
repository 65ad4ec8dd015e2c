#!/usr/bin/env bash
# Measures this relay against OpenSSH's sshd as the relay, in one run, and both against what no relay can
# do without: throughput, processor time, dials, idle memory, channel opens, the cut; near and far.
#   scripts/bench-relay.sh [--dev] [arguments of tests/examples/bench_relay, such as --short or --only transfer]
# --dev: the measuring program's debug build, which takes less to make. The relay is a release build always;
# TIDEGATE_RELAY_RELEASE names one that is there.
set -euo pipefail
cd "$(dirname "$0")/.."

profile=(--release) built=release
if [[ ${1-} == --dev ]]; then
  profile=() built=debug
  shift
fi
target=${CARGO_TARGET_DIR:-target}
cargo build --quiet --locked "${profile[@]}" -p tidegate-tests --example bench_relay
if [[ -z ${TIDEGATE_RELAY_RELEASE-} ]]; then
  cargo build --quiet --locked --release -p tidegate-relay --bin tidegate-relay
  export TIDEGATE_RELAY_RELEASE=$target/release/tidegate-relay
fi

# 10,000 idle terminals are as many descriptors in the relay and in the program.
ulimit -n "$(ulimit -Hn)"
exec "$target/$built/examples/bench_relay" "$@"
