#!/usr/bin/env bash
# Builds the programs in the forms that the tests run, then runs all tests, some side by side.
# Arguments go to `cargo test`, which then runs them one after the other.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/programs.sh
target=$(cd "${CARGO_TARGET_DIR:-target}" && pwd)
export TIDEGATE_RELAY=$target/debug/tidegate-relay-tested
export TIDEGATE_RELAY_FAILPOINTS=$target/debug/tidegate-relay-failpoints
export TIDEGATE_RELAY_RELEASE=$target/tested/tidegate-relay
export TIDEGATE_OPERATOR=$target/debug/tidegate-operator
export TIDEGATE_CLI=$target/debug/kubectl-tidegate
if command -v buildah >/dev/null; then
    export TIDEGATE_IMAGES=$target/images
fi
# All that is drawn at random hangs on one number, the same each time. The long recipes draw another.
export TIDEGATE_SEED=${TIDEGATE_SEED:-48213}
# tests/draw hands it on; this is for a property that goes without.
export PROPTEST_RNG_SEED=${PROPTEST_RNG_SEED:-$TIDEGATE_SEED}
echo "TIDEGATE_SEED=$TIDEGATE_SEED PROPTEST_RNG_SEED=$PROPTEST_RNG_SEED"
if [[ $# -gt 0 ]]; then
    exec cargo test --locked --workspace --no-fail-fast "$@"
fi

# Test programs that need most of the machine, or a quiet one: one after the other, and last.
alone=(embedded_budget embedded_crowd embedded_hostile)
# Those that hold something to a second: beside one another, but beside nothing that computes much.
timed=(cluster_fleet api_claims embedded_limits embedded_soak embedded_clock embedded_main_job embedded_cut
    embedded_races)
# Of all others, those that take longest, which begin first.
long=(cluster_harness api_operator_policy api_operator_core embedded_policy embedded_sentences
    tidegate_relay api_relay_source api_manifests embedded_clients cli_cluster embedded_onetime)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Seconds that one test program may take, several times what the longest does.
most=1200

# name, folder of its package, test program
cargo test --locked --workspace --no-run --message-format=json 2>"$work/built" |
    sed -n 's/.*"manifest_path":"\([^"]*\)\/Cargo\.toml","target":{[^}]*"name":"\([^"]*\)".*"profile":{[^}]*"test":true.*"executable":"\([^"]*\)".*/\2 \1 \3/p' \
        >"$work/programs" || { cat "$work/built" >&2 && exit 1; }
[[ -s $work/programs ]] || { echo "cargo names no test programs" >&2 && exit 1; }

# run NAME FOLDER PROGRAM: its output in one piece when it has ended, and a line in `failed` if it did.
run() {
    local begun=$SECONDS out=$work/out.$BASHPID code=0
    (cd "$2" && CARGO_MANIFEST_DIR=$2 exec timeout --foreground --kill-after 10 "$most" "$3") >"$out" 2>&1 </dev/null || code=$?
    {
        flock 7
        echo "     Running $1 (${3#"$target/"}) took $((SECONDS - begun)) s"
        cat "$out"
        if [[ $code -ne 0 ]]; then
            echo "error: $1 failed (exit code $code)"
            echo "$1" >>"$work/failed"
        fi
        echo "$1" >>"$work/ended"
    } 7>"$work/lock"
    rm "$out"
}

# side_by_side LANES: the programs that standard input lists, as many at once.
side_by_side() {
    local lanes=$1 running=0 program
    while read -ra program; do
        if [[ $running -eq $lanes ]]; then
            wait -n || true
            running=$((running - 1))
        fi
        run "${program[@]}" &
        running=$((running + 1))
    done
    wait
}

# named NAME…: the lines of `programs` with one of these names, in this order; every name is there.
named() {
    local name
    for name; do
        grep "^$name " "$work/programs" || { echo "test.sh: no test program is named $name" >&2 && return 1; }
    done
}

named "${long[@]}" >"$work/long"
named "${timed[@]}" >"$work/timed"
named "${alone[@]}" >"$work/alone"
sort "$work/programs" >"$work/all"
sort "$work/long" "$work/timed" "$work/alone" | comm -13 - "$work/all" >"$work/short"
# Each program in a group of its own, so that an end from outside ends them and nothing else.
set -m
end_all() {
    trap - INT TERM
    local group
    for group in $(jobs -p); do
        kill -- "-$group" 2>/dev/null || true
    done
    exit 1
}
trap end_all INT TERM
cat "$work/short" >>"$work/long"
side_by_side 2 <"$work/long"
side_by_side 2 <"$work/timed"
side_by_side 1 <"$work/alone"
# For nothing rustdoc reads every crate anew.
if git grep -qE '^( *//[/!])? *```' -- '*.rs' ssh/STATES.md; then
    cargo test --locked --workspace --doc --no-fail-fast || echo "the examples in the docs" >>"$work/failed"
fi

if [[ $(wc -l <"$work/ended") -ne $(wc -l <"$work/programs") ]]; then
    echo "of these programs only some came to an end:" >&2
    cut -d ' ' -f 1 "$work/programs" >&2
    exit 1
fi
if [[ -s $work/failed ]]; then
    echo "Failed: $(sort "$work/failed" | paste -sd ' ')" >&2
    exit 1
fi
