#!/bin/sh
# Licences, sources, banned crates and known vulnerabilities of everything that the program is built from.
#
#   scripts/deny.sh                    fetches RustSec's database from GitHub
#   ADVISORY_DB=FOLDER scripts/deny.sh takes a clone of it, where GitHub can't be reached
#
# Needs cargo-deny (`cargo install --locked cargo-deny`).
set -eu
cd "$(dirname "$0")/.."
command -v cargo-deny >/dev/null || { echo "cargo-deny is missing: cargo install --locked cargo-deny" >&2; exit 1; }
if [ -z "${ADVISORY_DB:-}" ]; then
    exec cargo deny --locked check
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Where cargo-deny looks for the clone of https://github.com/RustSec/advisory-db.
at="$work/db/advisory-db-3157b0e258782691"
git clone --quiet "$ADVISORY_DB" "$at"
touch "$at/.git/FETCH_HEAD"
sed "s#^\[advisories\\]#[advisories]\ndb-path = \"$work/db\"\nmaximum-db-staleness = \"P365D\"#" deny.toml >"$work/deny.toml"
echo "advisories as of $(git -C "$at" log -1 --format=%cs)"
cargo deny --locked --offline --config "$work/deny.toml" check
