# shellcheck shell=bash disable=SC2034,SC2154 # variables are shared between files
# What all commands share: words to the user, waiting, and the folder that is a cluster.
#
# DIR/cluster.env   what `up` decided, as shell variables
# DIR/kubeconfig    the administrator's, with certificates inline
# DIR/audit.log     who did what, one JSON event a line
# DIR/components/NAME/{run,pid,log}
# DIR/pki, DIR/etcd, DIR/nodes/N

# The folder of the scripts.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() {
    echo "$*" >&2
}

die() {
    say "$(basename "$0"): $*"
    exit 1
}

# wait_until WHAT SECONDS COMMAND...: looks again every 50 ms; complains of WHAT at the deadline.
wait_until() {
    local what=$1 until=$((SECONDS + $2))
    shift 2
    until "$@" >/dev/null 2>&1; do
        if ((SECONDS > until)); then
            say "waited in vain for: $what"
            return 1
        fi
        sleep 0.05
    done
}

# is_cluster DIR: whether `up` made it.
is_cluster() {
    [[ -f $1/cluster.env ]]
}

# open_cluster DIR: reads what `up` decided.
open_cluster() {
    is_cluster "$1" || die "'$1' is no cluster; tests/cluster/up --dir '$1' makes one"
    dir=$(cd "$1" && pwd)
    # shellcheck source=/dev/null
    source "$dir/cluster.env"
}

# remember NAME...: keeps variables for later commands.
remember() {
    local name
    for name in "$@"; do
        printf '%s=%q\n' "$name" "${!name}" >>"$dir/cluster.env"
    done
}

# admin ARG...: kubectl as the cluster's administrator.
admin() {
    "$dir/bin/kubectl" --kubeconfig "$dir/kubeconfig" "$@"
}
