#!/usr/bin/env bash
# Fuzzes what strangers, manifests and damaged files reach: scripts/fuzz.sh SECONDS [TARGET...]; so many
# seconds for each of the targets of crds/fuzz, relay/fuzz, ssh/fuzz and transport/fuzz. With `--keep` in front what they find worth keeping is
# merged into the corpus there.
#
# libFuzzer with coverage by the stable compiler: the flags are those that cargo-fuzz gives with
# `-s none`; sanitizers need a nightly one, and would watch over unsafe code, of which these have none.
set -euo pipefail
cd "$(dirname "$0")/.."

keep=''
if [[ ${1:-} == --keep ]]; then
    keep=yes
    shift
fi
seconds=${1:?usage: scripts/fuzz.sh [--keep] SECONDS [TARGET...]}
shift
targets=("$@")
[[ $# -gt 0 ]] || targets=(version packets kexinit auth channels sniffer proxy websocket manifests state audit)

root=$PWD
target=${CARGO_TARGET_DIR:-$root/target}
target=$(mkdir -p "$target" && cd "$target" && pwd)/fuzz
host=$(rustc -vV | sed -n 's/^host: //p')
flags=(-Cpasses=sancov-module -Ccodegen-units=1 -Clink-dead-code --cfg fuzzing)
for option in level=4 inline-8bit-counters pc-table trace-compares; do
    flags+=("-Cllvm-args=-sanitizer-coverage-$option")
done
cargo run --quiet --locked -p tidegate-ssh-client --example fuzz_seeds -- "$target/seeds"
# With --target, so that what runs while it is built has no coverage.
for crate in ssh transport crds relay; do
    RUSTFLAGS="${flags[*]}" CARGO_TARGET_DIR=$target cargo build --locked --release \
        --manifest-path "$crate/fuzz/Cargo.toml" --target "$host" --bins
done

for name in "${targets[@]}"; do
    kept=(*/fuzz/corpus/"$name")
    mkdir -p "$target/seeds/$name"
    work=$target/corpus/$name
    artifacts=$target/artifacts/$name/
    mkdir -p "$work" "$artifacts"
    echo "--- $name, $seconds s"
    "$target/$host/release/$name" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -verbosity=1 \
        -print_final_stats=1 -artifact_prefix="$artifacts" "$work" "${kept[0]}" "$target/seeds/$name" \
        >"$work.log" 2>&1 || {
        tail -60 "$work.log" >&2
        echo "fuzz.sh: $name fails; its input is in $artifacts" >&2
        exit 1
    }
    sed -n 's/^stat::number_of_executed_units: */executed: /p; s/^stat::average_exec_per_sec: */per second: /p' "$work.log"
    grep -E ' (DONE|INITED) ' "$work.log" || true
    if [[ $keep == yes ]]; then
        # By the code that is reached, not by how often: some hundreds of small files.
        merged=$(mktemp -d)
        "$target/$host/release/$name" -set_cover_merge=1 -use_counters=0 -max_len=2048 "$merged" "${kept[0]}" "$target/seeds/$name" "$work" \
            >/dev/null 2>&1
        rm -f "${kept[0]}/"*
        cp "$merged"/* "${kept[0]}/"
        rm -r "$merged"
    fi
done
