#!/bin/sh
# Do the voice's tests see the mistakes that are easily made? Makes one after the other in src/speech/minicpm, runs the
# tests of the voice, and puts the file back. Ends with 1 when a mistake was not seen. Some minutes; needs `make tiny-model`.
#   mutations.sh [WORD IN A MISTAKE'S NAME]
set -eu
cd "$(dirname "$0")/../.."
folder=src/speech/minicpm
[ -z "$(git status --porcelain -- $folder)" ] || { echo "$folder has changes that are not committed" >&2; exit 2; }
trap 'git checkout -q -- $folder' EXIT
unseen=0
# mistake NAME FILE SED-EXPRESSION
mistake() {
    case "$1" in *"${only:-}"*) ;; *) return 0 ;; esac
    sed -i -E "$3" "$folder/$2"
    if git diff --quiet -- "$folder/$2"; then echo "CAN'T BE MADE ANY MORE: $1"; unseen=1; return 0; fi
    if ! cargo test --locked --lib --no-run >/dev/null 2>&1; then
        echo "DOES NOT COMPILE: $1"; unseen=1
    elif cargo test --locked --lib speech::minicpm >target/mutation.log 2>&1; then
        echo "NOT SEEN: $1"; unseen=1
    else
        echo "seen: $1 ($(grep -cE '^test .* FAILED$' target/mutation.log) tests)"
    fi
    git checkout -q -- "$folder/$2"
}
only=${1:-}
mistake "guidance 0.6 for 0.7" flow.rs 's/^pub const GUIDANCE: f32 = 0\.7;/pub const GUIDANCE: f32 = 0.6;/'
mistake "gates of convolution and feed-forward exchanged" flow.rs 's/y, m, at \+ 8\)/y, m, at + 55)/; s/y, m, at \+ 5\)/y, m, at + 8)/; s/at \+ 55/at + 5/'
mistake "the flow's time one step late" flow.rs 's/times\(steps\)\.into_iter\(\)\.take\(steps\)/times(steps).into_iter().skip(1).take(steps)/'
mistake "relative positions off by one" encoder.rs 's/let relative = keys as f64 - 1\.0 - at as f64;/let relative = keys as f64 - at as f64;/'
mistake "repetitions are rewarded" sampler.rs 's/\*x < 0\.0 \{ \*x \* alpha \} else \{ \*x \/ alpha \}/*x < 0.0 { *x \/ alpha } else { *x * alpha }/'
mistake "a repetition counts once" sampler.rs 's/powi\(count\)/powi(count.min(1))/'
mistake "two codes are kept and not three" sampler.rs 's/keep: 3 /keep: 2 /'
mistake "the first code is filtered" sampler.rs 's/if history\.is_empty\(\) \{/if history.len() > 1_000_000 {/'
mistake "a chunk goes before its successor is known" chunks.rs 's/self\.tokens\.len\(\) > CHUNK;/self.tokens.len() >= CHUNK;/'
exit $unseen
