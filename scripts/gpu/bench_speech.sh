#!/bin/sh
# The voice on an NVIDIA GPU: the stages against the reference, then the real-time factor of each.
#   bench_speech.sh [FOLDER]
# FOLDER holds a set with the published widths; it is written there if it is not (2 GB, minutes; random weights).
# Needs the CUDA toolkit, Rust, and Python with numpy and gguf.
set -eu
cd "$(dirname "$0")/../.."
folder=${1:-/tmp/speech-full}
[ -e "$folder/golden.gguf" ] || ${PYTHON:-python3} scripts/tts/make_golden.py --out "$folder" --full --chunks 3
export SPEECH_GPU=1
echo "== narrow set"
cargo test --release --locked --features cuda --lib speech::minicpm::tests -- --nocapture --test-threads=1 || true
echo "== published widths (matrix products of 32-bit floats may be rounded to TF32: expect 1e-2 where the CPU has 1e-4)"
SPEECH_SET=$folder cargo test --release --locked --features cuda --lib speech::minicpm::tests -- --nocapture --test-threads=1 || true
SPEECH_SET=$folder cargo bench --locked --features cuda --bench speech
