#!/bin/sh
# The voice on an NVIDIA GPU, in one run of some minutes: the stages against the reference, the real-time factor of each
# alone and beside a language model that writes, the first sound after the first text, and the GPU's memory; and what each
# way of using the GPU brings, turn by turn: kept computations, 16-bit matrices and caches, products of 32-bit floats
# instead of TF32.
#   bench_speech.sh [FOLDER]
# SPEECH_PARTS are those that are wanted, of "tests alone beside"; SPEECH_SHORT=1 leaves out the comparisons of ways.
# FOLDER holds a voice with the published widths and a language model of them; what is not there is written (18 GB, some
# minutes; random weights). SPEECH_BESIDE names another language model's folder, such as the published one; SPEECH_SET
# another voice's.
# Needs the CUDA backend in target/release/backends (`scripts/build-backend.sh cuda`) and Rust, or programs built elsewhere
# with a folder `backends` beside them: SPEECH_TESTS (the library's tests, as `cargo test --release --lib --no-run` leaves
# them) and SPEECH_BENCH (`cargo bench --bench speech --no-run`). And Python with numpy and gguf for what is to be written.
set -u
cd "$(dirname "$0")/../.."
folder=${1:-/tmp/speech-full}
set=${SPEECH_SET:-$folder}
beside=${SPEECH_BESIDE:-$folder}
python=${PYTHON:-python3}
mkdir -p "$folder"
writers=
if [ ! -e "$set/token2wav-gguf/prompt_cache.gguf" ]; then
    $python scripts/tts/make_golden.py --out "$set" --full --half --chunks 6 &
    writers=$!
fi
if [ ! -e "$beside/vision" ]; then
    $python scripts/make_tiny_model.py --out "$beside" --full &
    writers="$writers $!"
fi
tests() { if [ -n "${SPEECH_TESTS:-}" ]; then "$SPEECH_TESTS" "$@"; else cargo test --release --locked --lib -- "$@"; fi; }
bench() { if [ -n "${SPEECH_BENCH:-}" ]; then "$SPEECH_BENCH" --bench; else cargo bench --locked --bench speech; fi; }

memory() { nvidia-smi --id="${CUDA_VISIBLE_DEVICES:-0}" --query-gpu=memory.used --format=csv,noheader,nounits | head -1; }
log=$(mktemp)
while sleep 0.5; do memory; done >"$log" 2>/dev/null &
watching=$!
trap 'kill $watching; rm -f "$log"' EXIT
peak() { echo "GPU memory: $(sort -n "$log" | tail -1) MiB at most in $1 (before: $idle MiB)"; : >"$log"; }
idle=$(memory)

say() { echo; echo "== $* [$(date -u +%T)]"; }
export SPEECH_GPU=1 NO_COLOR=1
compare() {
    # All figures of a run that fails are wanted, too.
    tests speech::minicpm::tests --nocapture --test-threads=1 2>&1 |
        grep -E '^(stages|chunk|test |speaker|conditions|logits|the whole|.* is more than|thread|test result)|CUDA error|GGML_ASSERT'
}
wanted() { case " ${SPEECH_PARTS:-tests alone beside} " in *" $1 "*) true ;; *) false ;; esac; }
# with "NAME=VALUE ..." FUNCTION
with() { (for each in $1; do export "${each?}"; done; shift; "$@"); }
if wanted tests; then
    say "CPU and GPU agree: the narrow set against the reference, as the program uses the GPU"
    compare
fi
[ -z "$writers" ] || wait $writers
export SPEECH_SET="$set"
if wanted tests && [ -e "$set/golden.gguf" ]; then
    say "the published widths, as the program uses the GPU"
    compare
    say "the published widths, products of 32-bit floats"
    with "NVIDIA_TF32_OVERRIDE=0 SPEECH_HALF=0" compare
fi
: >"$log"
if wanted alone; then
    say "the voice alone, as the program uses the GPU"
    bench
    peak "the voice alone"
    if [ -z "${SPEECH_SHORT:-}" ]; then
        say "the voice alone, nothing kept and nothing warmed up"
        with "SPEECH_KEEP=0" bench
        peak "the voice alone, nothing kept"
        say "the voice alone, matrices and caches of 32 bits"
        with "SPEECH_HALF=0" bench
        peak "the voice alone, 32 bits"
        say "the voice alone, matrices and caches of 32 bits, products of 32-bit floats"
        with "SPEECH_HALF=0 NVIDIA_TF32_OVERRIDE=0" bench
        say "the voice alone, as the program uses the GPU, once more"
        bench
    fi
fi
if wanted beside; then
    export SPEECH_ONLY=beside SPEECH_BESIDE="$beside"
    : >"$log"
    say "the voice beside a language model"
    bench
    peak "voice and language model"
    if [ -z "${SPEECH_SHORT:-}" ]; then
        say "the voice beside a language model, nothing kept and nothing warmed up"
        with "SPEECH_KEEP=0" bench
        peak "voice and language model, nothing kept"
    fi
    unset SPEECH_ONLY SPEECH_BESIDE
fi
if command -v nsys >/dev/null; then
    say "kernels of the voice alone"
    nsys profile -o "$folder/voice" --force-overwrite true "${SPEECH_BENCH:?nsys needs SPEECH_BENCH}" --bench
    nsys stats --report cuda_gpu_kern_sum --format csv "$folder/voice.nsys-rep" | head -20
fi
