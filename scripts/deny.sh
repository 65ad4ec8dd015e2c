#!/usr/bin/env bash
# What the dependencies may be: bans, licences and sources, by deny.toml. cargo-deny itself is kept
# in the user's cache between runs. Its advisory database cannot be fetched in CI.
set -euo pipefail
cd "$(dirname "$0")/.."

version=0.20.2
tools=${XDG_CACHE_HOME:-$HOME/.cache}/tidegate/tools
deny=$tools/bin/cargo-deny
if [[ $("$deny" --version 2>/dev/null) != "cargo-deny $version" ]]; then
    # A target directory of its own, so that it does not fill the project's.
    CARGO_TARGET_DIR=$tools/target cargo install --quiet --locked --version "$version" --root "$tools" cargo-deny
    rm -rf "$tools/target"
fi
# Also what only other platforms need: it reads all of them, and asks nobody.
cargo fetch --quiet --locked
"$deny" --locked --offline check bans licenses sources
