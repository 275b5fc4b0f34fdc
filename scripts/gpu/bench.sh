#!/bin/sh
# `vidette bench` at full size on an NVIDIA GPU, in one call of at most ten minutes: writes MiniCPM-o 4.5 with random
# weights to a temporary folder, measures, and leaves the table (bench-*.txt) and all figures (bench-*.json) in $OUT.
#   [OUT=FOLDER] [QUANTS="Q4_K_M F16"] [STREAMS=1,2,4] [MODEL=PATH] bench.sh [FOLDER]
# FOLDER (default: target/gpu) holds the program `vidette` and its plugin `backends/libggml-cuda.so`; either may be
# packed as .xz. Neither Rust nor a network is needed. To make the folder:
#   cargo build --release --locked --no-default-features --features llama
#   scripts/build-backend.sh cuda target/gpu/backends          # CUDA_ARCHITECTURES=90-real for H100 and H200
#   strip -o target/gpu/vidette target/release/vidette
set -eu
cd "$(dirname "$0")/../.."
folder=$(realpath "${1:-target/gpu}")
out=${OUT:-.}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out" "$work/backends"

# Everything is run from the temporary folder: FOLDER may be read-only.
unpacked() {
    if [ -e "$folder/$1" ]; then cp "$folder/$1" "$work/$1"
    elif [ -e "$folder/$1.xz" ]; then xz -dc "$folder/$1.xz" >"$work/$1"
    else echo "$folder/$1 is missing; see the head of $0" >&2; exit 1; fi
}
unpacked vidette
unpacked backends/libggml-cuda.so
chmod +x "$work/vidette"

# Where the toolkit or NVIDIA's Python packages put the CUDA libraries.
for libraries in /usr/local/cuda*/lib64 /usr/local/cuda*/targets/*/lib \
    $(python3 -c 'import site; print(*site.getsitepackages())' 2>/dev/null |
        xargs -n 1 sh -c 'ls -d "$0"/nvidia/*/lib 2>/dev/null' || true); do
    [ -d "$libraries" ] && LD_LIBRARY_PATH="$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
done
export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:-}"

nvidia-smi >"$out/nvidia-smi.txt" 2>&1 || echo "nvidia-smi: not there, or it fails; no power will be told" >&2
card=$(nvidia-smi --id=0 --query-gpu=name --format=csv,noheader 2>/dev/null || true)
# GB/s and dense TFLOP/s in 16 bits, from the makers' data sheets; other cards: set both, or go without floors' times.
case "$card" in
    *H200*) : "${BANDWIDTH:=4800}" "${FLOPS:=989}" ;;
    *H100*PCIe*) : "${BANDWIDTH:=2000}" "${FLOPS:=756}" ;;
    *H100*) : "${BANDWIDTH:=3350}" "${FLOPS:=989}" ;;
    *A100*80GB*) : "${BANDWIDTH:=2000}" "${FLOPS:=312}" ;;
    *"RTX 4090"*) : "${BANDWIDTH:=1008}" "${FLOPS:=165}" ;;
esac
limits=
[ -z "${BANDWIDTH:-}" ] || limits="$limits --bandwidth $BANDWIDTH"
[ -z "${FLOPS:-}" ] || limits="$limits --flops $FLOPS"
streams=${STREAMS:-1,2,4,8,16,32,64}

measured() {
    name=$1
    shift
    echo "== $name on ${card:-no card}"
    # Figures are written step by step, so that an end by time loses none.
    # shellcheck disable=SC2086
    timeout "${LIMIT:-540}" "$work/vidette" bench "$@" --streams "$streams" --looks "${LOOKS:-20}" --seconds 6 $limits \
        --log warn --json "$out/bench-$name.json" >"$out/bench-$name.txt" 2>"$out/bench-$name.log" ||
        echo "ended with $?; see bench-$name.log" >&2
    cat "$out/bench-$name.log" "$out/bench-$name.txt"
}

if [ -n "${MODEL:-}" ]; then
    measured model --model "$MODEL"
else
    for quant in ${QUANTS:-Q4_K_M}; do
        measured "random-$quant" --random minicpm-o-4.5 --quant "$quant" --dir "$work/model-$quant"
        rm -rf "$work/model-$quant"
    done
fi
grep -q '"device": "cpu"' "$out"/bench-*.json 2>/dev/null && { echo "the GPU was not used" >&2; exit 1; }
[ -n "$(ls "$out"/bench-*.json 2>/dev/null)" ]
