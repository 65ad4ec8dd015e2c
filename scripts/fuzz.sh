#!/usr/bin/env bash
# Fuzzes what strangers, manifests and damaged files reach: scripts/fuzz.sh SECONDS [TARGET...]; so many
# seconds for each of the targets of crds/fuzz, relay/fuzz, ssh/fuzz and transport/fuzz. With `--keep` in
# front what they find worth keeping is merged into the corpus there. `--build` instead of the rest only
# builds them.
#
# TIDEGATE_SEED is where its random numbers begin. Without it they begin with `--keep` anywhere, on top of
# what earlier runs found; else with 1 and the corpus alone, so that CI does the same each time.
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
seconds=${1:?usage: scripts/fuzz.sh --build | [--keep] SECONDS [TARGET...]}
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
# relay/fuzz and crds/fuzz are one workspace, which builds once what both stand on. With --target, so that
# what runs while it is built has no coverage.
for crate in ssh transport relay; do
    RUSTFLAGS="${flags[*]}" CARGO_TARGET_DIR=$target cargo build --locked --release \
        --manifest-path "$crate/fuzz/Cargo.toml" --workspace --target "$host" --bins
done
[[ $seconds != --build ]] || exit 0
# Of the whole workspace, as the tests are built: for one package alone cargo would compile other forms
# of what it stands on.
cargo build --quiet --locked --workspace --example fuzz_seeds
"${target%/fuzz}/debug/examples/fuzz_seeds" "$target/seeds"

[[ $keep == yes ]] && seed=$((RANDOM << 15 | RANDOM)) || seed=1
# libFuzzer's has 32 bits, and 0 is none.
seed=$((${TIDEGATE_SEED:-$seed} & 0x7fffffff))
pids=()
# In memory, where there is room for files in it: a disk's syncs would leave `state` and `audit` some tens of
# inputs a second.
scratch=$(mktemp -d -p "$([[ -w /dev/shm ]] && echo /dev/shm || echo "${TMPDIR:-/tmp}")")
export TMPDIR=$scratch
trap '[[ ${#pids[@]} -eq 0 ]] || { kill "${pids[@]}"; wait "${pids[@]}"; } 2>/dev/null || true; rm -rf "$scratch"' EXIT

# start NAME: begins to fuzz this target.
start() {
    local work=$target/corpus/$1 artifacts=$target/artifacts/$1/ kept=(*/fuzz/corpus/"$1")
    [[ $keep == yes ]] || rm -rf "$work"
    mkdir -p "$work" "$artifacts" "$target/seeds/$1"
    "$target/$host/release/$1" -seed="$seed" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -verbosity=1 \
        -print_final_stats=1 -artifact_prefix="$artifacts" "$work" "${kept[0]}" "$target/seeds/$1" \
        >"$work.log" 2>&1 &
    pids+=("$!")
}

# report NAME PID: waits for it and says what came of it.
report() {
    local log=$target/corpus/$1.log
    wait "$2" || {
        tail -60 "$log" >&2
        echo "fuzz.sh: $1 fails; its input is in $target/artifacts/$1/" >&2
        exit 1
    }
    echo "--- $1, $seconds s, TIDEGATE_SEED=$seed"
    sed -n 's/^stat::number_of_executed_units: */executed: /p; s/^stat::average_exec_per_sec: */per second: /p' "$log"
    grep -E ' (DONE|INITED) ' "$log" || true
}

# By the code that is reached, not by how often: some hundreds of small files.
keep() {
    local merged kept=(*/fuzz/corpus/"$1")
    merged=$(mktemp -d)
    "$target/$host/release/$1" -set_cover_merge=1 -use_counters=0 -max_len=2048 "$merged" "${kept[0]}" "$target/seeds/$1" \
        "$target/corpus/$1" >/dev/null 2>&1
    rm -f "${kept[0]}/"*
    cp "$merged"/* "${kept[0]}/"
    rm -r "$merged"
}

# As many at once as there are processors: each computes all the time.
lanes=$(nproc)
for ((first = 0; first < ${#targets[@]}; first += lanes)); do
    batch=("${targets[@]:first:lanes}") pids=()
    for name in "${batch[@]}"; do
        start "$name"
    done
    for n in "${!batch[@]}"; do
        report "${batch[n]}" "${pids[n]}"
        [[ -z $keep ]] || keep "${batch[n]}"
    done
    pids=()
done
