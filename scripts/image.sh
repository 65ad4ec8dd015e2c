#!/usr/bin/env bash
# Builds the static programs and their images, as oci-archives:
#   scripts/image.sh [--profile dev|release] [--tag TAG] [DIR]
# DIR/tidegate-relay.tar and DIR/tidegate-operator.tar hold localhost/tidegate-relay:TAG and
# localhost/tidegate-operator:TAG. Load them with `ctr -n k8s.io images import FILE`, or
# `kind load image-archive FILE`. Needs buildah, and no engine.
set -euo pipefail
cd "$(dirname "$0")/.."

profile=release tag='' out='' names=(relay operator)
while [[ $# -gt 0 ]]; do
    case $1 in
    --profile) profile=$2 && shift 2 ;;
    --tag) tag=$2 && shift 2 ;;
    -*)
        echo "usage: $0 [--profile dev|release] [--tag TAG] [DIR]" >&2
        exit 2
        ;;
    *) out=$1 && shift ;;
    esac
done
# The version of the workspace, which the overlay kind names too.
[[ -n $tag ]] || tag=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -1)
target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target"
target=$(cd "$target" && pwd)
out=${out:-$target/images}
mkdir -p "$out"
out=$(cd "$out" && pwd)
if ! command -v buildah >/dev/null; then
    echo "buildah is missing; scripts/install-test-packages.sh installs it" >&2
    exit 1
fi

# Statically against glibc: with --target, so that build scripts and procedural macros, which are
# loaded by the compiler, are still built for the machine as it is. Nothing of the programs goes through
# glibc's name service, which a static program must not: they reach the API server by its address.
triple=$(uname -m)-unknown-linux-gnu
packages=()
for name in "${names[@]}"; do
    packages+=(--package "tidegate-$name" --bin "tidegate-$name")
done
flags=(-C "target-feature=+crt-static" -C "relocation-model=static")
[[ $profile == release ]] || flags+=(-C debuginfo=0 -C strip=symbols)
RUSTFLAGS="${RUSTFLAGS:-} ${flags[*]}" \
    cargo build --locked --profile "$profile" --target "$triple" "${packages[@]}"
folder=$profile
[[ $profile == dev ]] && folder=debug

# vfs and chroot need no rights beyond this user's; its storage is ours alone and goes at the end.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
build=(buildah --root "$work/storage" --runroot "$work/run" --storage-driver vfs)
for name in "${names[@]}"; do
    program=$target/$triple/$folder/tidegate-$name
    if [[ $(head -c 4096 "$program" | grep -c ld-linux) -ne 0 ]]; then
        echo "$program is not static" >&2
        exit 1
    fi
    mkdir "$work/$name"
    cp "$program" "$work/$name/"
    [[ $profile != release ]] || strip --strip-debug "$work/$name/tidegate-$name" 2>/dev/null || true
    image=localhost/tidegate-$name:$tag
    "${build[@]}" bud --isolation chroot --quiet --timestamp 0 --tag "$image" \
        --file "docker/Dockerfile.$name" "$work/$name" >/dev/null
    rm -f "$out/tidegate-$name.tar"
    "${build[@]}" push --quiet "$image" "oci-archive:$out/tidegate-$name.tar:$image" >/dev/null
    echo "$out/tidegate-$name.tar"
done
