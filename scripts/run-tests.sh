#!/bin/sh
# Runs all tests, the program's and the page's, and ends with one summary of them: "N passed, N failed, N skipped".
# With arguments (for cargo test) the page's are left out.
set -u
cd "$(dirname "$0")/.." || exit 1
log=$(mktemp)
trap 'rm -f "$log" "$log.rc"' EXIT
echo 0 >"$log.rc"
{ ${CARGO:-cargo} test --locked --no-fail-fast --lib --bins --tests "$@" 2>&1 || echo $? >"$log.rc"; } | tee "$log"
if [ $# -eq 0 ]; then
    # One file after the other: each starts programs and a browser.
    for file in tests/web/*.test.mjs; do
        echo "     Running $file"
        { node --test --test-reporter=spec "$file" 2>&1 || echo $? >"$log.rc"; } | tee -a "$log"
    done
fi
# What node calls cancelled did not pass. A file that node can't run at all counts as one that failed.
awk '/^test result:/ { for (i = 1; i < NF; i++) { if ($(i+1) ~ /^passed/) p += $i; if ($(i+1) ~ /^failed/) f += $i; if ($(i+1) ~ /^ignored/) s += $i } }
     /^ℹ pass [0-9]/ { p += $3 } /^ℹ (fail|cancelled) [0-9]/ { f += $3 } /^ℹ (skipped|todo) [0-9]/ { s += $3 }
     END { printf "\n%d passed, %d failed, %d skipped\n", p, f, s }' "$log"
exit "$(cat "$log.rc")"
