#!/usr/bin/env bash
# `decide`, one changed window and the memory of 100,000 windows, as a table: scripts/bench-policy.sh
# [PART OF A NAME]. Time is the processor's, so that it may be run beside other work. Built as released,
# but for the optimisation across crates, which takes longer than all the rest.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo bench --locked --profile tested -p tidegate-policy -p tidegate-crds --bench policy --bench apply -- "$@" 2>/dev/null |
    awk '
        /^memory: / { print; next }
        # A long name has its times on the next line.
        /time: +\[/ {
            name = $0
            sub(/ *time:.*/, "", name)
            if (name == "") name = before
            sub(/.*time: +\[/, "")
            split($0, at, " ")
            printf "%-64s %10s %s\n", name, at[3], at[4]
            next
        }
        NF && !/change:.*%/ { before = $0; sub(/ +$/, "", before) }'
