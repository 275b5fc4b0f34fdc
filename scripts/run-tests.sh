#!/bin/sh
# Runs all tests and ends with one summary of them: "N passed, N failed, N skipped".
set -u
cd "$(dirname "$0")/.." || exit 1
log=$(mktemp)
trap 'rm -f "$log" "$log.rc"' EXIT
{ ${CARGO:-cargo} test --locked --no-fail-fast --lib --bins --tests "$@" 2>&1; echo $? >"$log.rc"; } | tee "$log"
awk '/^test result:/ { for (i = 1; i < NF; i++) { if ($(i+1) ~ /^passed/) p += $i; if ($(i+1) ~ /^failed/) f += $i; if ($(i+1) ~ /^ignored/) s += $i } }
     END { printf "\n%d passed, %d failed, %d skipped\n", p, f, s }' "$log"
exit "$(cat "$log.rc")"
