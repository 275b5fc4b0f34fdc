#!/bin/sh
# The voice on an NVIDIA GPU, in one run of some minutes: the stages against the reference, the real-time factor of each
# alone and beside a language model that writes, the first sound after the first text, and the GPU's memory.
#   bench_speech.sh [FOLDER]
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
    $python scripts/tts/make_golden.py --out "$set" --full --half --chunks 3 &
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

echo "== CPU and GPU agree: the narrow set against the reference"
SPEECH_GPU=1 tests speech::minicpm::tests --nocapture --test-threads=1
[ -z "$writers" ] || wait $writers
if [ -e "$set/golden.gguf" ]; then
    echo "== published widths (matrix products of 32-bit floats may be rounded to TF32: expect 1e-2 where the CPU has 1e-4)"
    SPEECH_GPU=1 SPEECH_SET=$set tests speech::minicpm::tests --nocapture --test-threads=1
fi
: >"$log"
echo "== the voice alone"
SPEECH_GPU=1 SPEECH_SET=$set bench
peak "the voice alone"
echo "== the voice beside a language model"
SPEECH_GPU=1 SPEECH_SET=$set SPEECH_BESIDE=$beside bench
peak "voice and language model"
if command -v nsys >/dev/null; then
    echo "== kernels of the voice alone"
    nsys profile -o "$folder/voice" --force-overwrite true env SPEECH_GPU=1 SPEECH_SET="$set" "${SPEECH_BENCH:?nsys needs SPEECH_BENCH}" --bench
    nsys stats --report cuda_gpu_kern_sum --format csv "$folder/voice.nsys-rep" | head -20
fi
