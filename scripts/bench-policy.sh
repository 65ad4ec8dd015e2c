#!/usr/bin/env bash
# `decide`, one changed window and the memory of 100,000 windows, as a table: scripts/bench-policy.sh
# [--build | PART OF A NAME]. It fails where a figure is over what is wanted of it. Time is the processor's,
# so that it may be run beside other work, but for what the relay does with a directory. Built as released,
# but for the optimisation across crates, which takes longer than all the rest; --build does that alone.
set -euo pipefail
cd "$(dirname "$0")/.."

benches=(cargo bench --locked --profile tested -p tidegate-policy -p tidegate-crds -p tidegate-relay
    --bench policy --bench apply --bench directory)
if [[ ${1:-} == --build ]]; then
    "${benches[@]}" --no-run
    exit
fi
said=$(mktemp)
trap 'rm -f "$said"' EXIT
"${benches[@]}" -- "$@" >"$said" 2>"$said.err" || {
    cat "$said" "$said.err" >&2
    rm -f "$said.err"
    exit 1
}
rm -f "$said.err"

awk '
    # Microseconds.
    function scaled(number, unit) {
        if (unit == "ps") return number / 1e6
        if (unit == "ns") return number / 1e3
        if (unit == "ms") return number * 1e3
        return unit == "s" ? number * 1e6 : number
    }
    function row(name, number, unit,   most, verdict) {
        most = 0
        # Two that more windows bring together than any admission needs: docs/limits.md says so.
        if (name ~ /^decide: / && name !~ /all windows admit|both, by 1,000/) most = 10
        if (name ~ /^change: /) most = 10000
        verdict = most == 0 ? "" : scaled(number, unit) < most ? "met" : "MISSED"
        if (verdict == "MISSED") missed++
        most = most == 0 ? "" : most == 10 ? "10 us" : "10 ms"
        printf "| %-66s | %9s %-2s | %-6s | %-6s |\n", name, number, unit, most, verdict
        rows++
    }
    BEGIN {
        printf "| %-66s | %12s | %-6s | %-6s |\n", "100,000 windows", "figure", "wanted", ""
        print "|---|---|---|---|"
    }
    { gsub(/\302\265s|\316\274s/, "us") }
    /^memory: / { memory[++memories] = $0; next }
    # The name and the figure of what is no criterion bench.
    /^(start|change): .*\t/ { split($0, part, "\t"); split(part[2], at, " "); row(part[1], at[1], at[2]); next }
    # A long name has its times on the next line; the one in the middle is the estimate.
    /time: +\[/ {
        name = $0
        sub(/ *time:.*/, "", name)
        if (name == "") name = before
        sub(/.*time: +\[/, "")
        split($0, at, " ")
        row(name, at[3], at[4])
        next
    }
    NF && !/change:.*%/ { before = $0; sub(/ +$/, "", before) }
    END {
        for (n = 1; n <= memories; n++) print memory[n]
        if (rows + memories == 0) { print "bench-policy.sh: nothing has such a name"; exit 2 }
        if (missed) { print "bench-policy.sh: " missed " over what is wanted"; exit 1 }
    }' "$said"
