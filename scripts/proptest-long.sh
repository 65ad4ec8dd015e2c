#!/usr/bin/env bash
# All property tests by many cases, from a random seed, which is printed and which TIDEGATE_SEED sets:
#   scripts/proptest-long.sh [TIMES [FOLDER...]]
# TIMES as many cases as usual (20); FOLDER: of some crates alone, such as policy.
set -euo pipefail
cd "$(dirname "$0")/.."

times=20
if [[ ${1:-} =~ ^[0-9]+$ ]]; then
    times=$1
    shift
fi
# tests/draw takes it in units of what proptest has by itself.
export PROPTEST_CASES=$((256 * times))
export TIDEGATE_SEED=${TIDEGATE_SEED:-$((RANDOM << 15 | RANDOM))}
unset PROPTEST_RNG_SEED
echo "TIDEGATE_SEED=$TIDEGATE_SEED"

# The test programs that have properties, by their sources; what else they test is run too.
mapfile -t sources < <(git ls-files -z -- '*.rs' | xargs -0 grep -l '^ *proptest! {')
[[ $# -gt 0 ]] || set -- policy crds ssh operator relay
failed=()
for folder; do
    mapfile -t which < <(printf '%s\n' "${sources[@]}" |
        sed -n "s|^$folder/tests/\(.*\)\.rs\$|--test=\1|p; s|^$folder/src/.*|--lib|p" | sort -u)
    [[ ${#which[@]} -gt 0 ]] || { echo "proptest-long.sh: no property is in $folder/" >&2 && exit 2; }
    cargo test --locked --no-fail-fast -p "tidegate-$folder" "${which[@]}" || failed+=("$folder")
done
if [[ ${#failed[@]} -gt 0 ]]; then
    echo "Failed with TIDEGATE_SEED=$TIDEGATE_SEED: ${failed[*]}" >&2
    exit 1
fi
