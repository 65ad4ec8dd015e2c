# shellcheck shell=bash
# Sourced by .ci/run in the checkout that is to be checked: goes on in a copy of it that stays in the
# user's cache, beside what cargo built of it. Sets CARGO_TARGET_DIR, and `checked`: a file to touch
# when nothing is built there any more.
#
# To cargo every file of a fresh clone is new. In the copy, git writes only the files that differ from
# those of the run before, so cargo compiles their crates and what hangs on these.

clone=$PWD
kept=${XDG_CACHE_HOME:-$HOME/.cache}/tidegate
mkdir -p "$kept/target" "$kept/checkout"
# One run at a time: another's files must not change under its build. Steps do not inherit it.
exec 9>"$kept/checkout.lock"
flock --wait 7200 9 || { echo "another run has held $kept/checkout.lock for two hours" >&2 && exit 1; }
export CARGO_TARGET_DIR=$kept/target
checked=$kept/target/.checked

refreshed() (
    cd "$kept/checkout" || return
    rm -f .git/index.lock .git/shallow.lock
    [[ -z $(git -C "$clone" status --porcelain) ]] && git init --quiet &&
        git -c maintenance.auto=false fetch --quiet --no-tags --depth 1 "file://$clone" HEAD &&
        git -c advice.detachedHead=false checkout --quiet --force --detach FETCH_HEAD &&
        git clean -ffdxq
)
if refreshed; then
    cd "$kept/checkout" || exit
else
    # Slower by what the workspace takes to compile, and as true.
    echo "the kept checkout cannot follow this one, with its changes; all of it is compiled" >&2
fi

# What somebody else built here, or a run that was killed, may be of other files and yet be younger
# than these.
if [[ ! -e $checked || -n $(find "$CARGO_TARGET_DIR" -path '*/.fingerprint/*' -newer "$checked" -print -quit) ]]; then
    git ls-files -z | xargs -0 touch --no-create
fi

# Old forms of our own crates pile up, and with new versions other people's: 28 GB at most are kept.
too_much() { [[ $(du -sm "$CARGO_TARGET_DIR" | cut -f1) -gt 28000 ]]; }
if too_much; then
    for which in "" --profile=tested --release "--target=$(uname -m)-unknown-linux-gnu"; do
        cargo clean --quiet --locked --workspace ${which:+"$which"}
    done
    ! too_much || rm -rf "$CARGO_TARGET_DIR"
    mkdir -p "$CARGO_TARGET_DIR"
fi
