#!/bin/sh
# Makes sure that there is a Rust toolchain; rust-toolchain.toml then says which one is used.
set -eu
command -v cargo >/dev/null && exit 0
[ -x "$HOME/.cargo/bin/cargo" ] && { echo "Rust is in $HOME/.cargo/bin: add that to PATH" >&2; exit 1; }
if "$(dirname "$0")/install-packages.sh" rustup && command -v rustup >/dev/null; then
    rustup show active-toolchain >/dev/null 2>&1 || rustup default stable
    exit 0
fi
echo "Rust is needed: install it from https://rustup.rs and call make again." >&2
exit 1
