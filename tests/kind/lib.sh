# shellcheck shell=bash disable=SC2034 # variables are shared between files
# What up and down share: kind itself, and doing or only saying.

version=v0.33.0
cluster=${TIDEGATE_KIND:-tidegate}
dry=false
if [[ ${1:-} == --dry-run ]]; then
    dry=true
elif [[ $# -gt 0 ]]; then
    echo "usage: $(basename "$0") [--dry-run]" >&2
    exit 2
fi

# act COMMAND...: does it, or says it with --dry-run.
act() {
    if [[ $dry == true ]]; then
        printf '%q ' "$@"
        echo
    else
        "$@"
    fi
}

# Where kind is, installed from its module if it is not there in this version.
find_kind() {
    tools=${XDG_CACHE_HOME:-$HOME/.cache}/tidegate/tools/kind-$version
    kind=$tools/kind
    if [[ ! -x $kind ]]; then
        act env "GOBIN=$tools" go install "sigs.k8s.io/kind@$version"
    fi
}

# kind makes its nodes of containers.
find_engine() {
    local engine
    for engine in docker podman; do
        if "$engine" info >/dev/null 2>&1; then
            export KIND_EXPERIMENTAL_PROVIDER=$engine
            return
        fi
    done
    if [[ $dry == false ]]; then
        echo "Neither docker nor podman runs here; tests/cluster/up needs neither" >&2
        exit 1
    fi
}
