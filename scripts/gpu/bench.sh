#!/bin/sh
# `vidette bench` at full size on an NVIDIA GPU, in one call of at most ten minutes: writes MiniCPM-o 4.5 with random
# weights to a temporary folder, measures, and leaves the table (bench-*.txt) and all figures (bench-*.json) in $OUT.
#   [OUT=FOLDER] [QUANTS="Q4_K_M F16"] [STREAMS=1,2,4] [WATCH=64,96] [MODEL=PATH] [MODELS=FOLDER] [LIMIT=SECONDS] bench.sh [FOLDER]
# MODELS keeps the models that are made. With several GPUs, CUDA_VISIBLE_DEVICES chooses one.
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
packaged='import glob, site; print(*(d for s in site.getsitepackages() for d in glob.glob(s + "/nvidia/*/lib")))'
for libraries in /usr/local/cuda*/lib64 /usr/local/cuda*/targets/*/lib $(python3 -c "$packaged" 2>/dev/null || true); do
    if [ -d "$libraries" ]; then LD_LIBRARY_PATH="$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"; fi
done
export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:-}"

nvidia-smi >"$out/nvidia-smi.txt" 2>&1 || echo "nvidia-smi: not there, or it fails; no power will be told" >&2
card=$(nvidia-smi --id="${CUDA_VISIBLE_DEVICES:-0}" --query-gpu=name --format=csv,noheader 2>/dev/null || true)
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

# A small model first: a plugin that can't be used is found out in seconds.
"$work/vidette" bench --random tiny --looks 1 --streams 0 --log warn --json "$work/first.json" >/dev/null
if grep -q '"device": "cpu"' "$work/first.json" && [ -z "${ALLOW_CPU:-}" ]; then
    echo "the GPU was not used: $(cd "$work" && ldd backends/libggml-cuda.so | grep 'not found')" >&2
    exit 1
fi

# Ten minutes for all, less what unpacking takes.
ends=$(($(date +%s) + ${LIMIT:-560}))
measured() {
    name=$1
    shift
    limit=$((ends - $(date +%s)))
    [ "$limit" -gt 20 ] || { echo "no time left for $name" >&2; return 0; }
    echo "== $name on ${card:-no card}"
    # Figures are written step by step, so that an end by time loses none.
    # shellcheck disable=SC2086
    timeout "$limit" "$work/vidette" bench "$@" --looks "${LOOKS:-20}" --seconds "${seconds:-${SECONDS_EACH:-8}}" $limits \
        --log "${log:-warn}" --json "$out/bench-$name.json" >"$out/bench-$name.txt" 2>"$out/bench-$name.log" ||
        echo "ended with $?; see bench-$name.log" >&2
    [ -n "${log:-}" ] || cat "$out/bench-$name.log"
    cat "$out/bench-$name.txt"
}

if [ -n "${MODEL:-}" ]; then
    measured model --model "$MODEL" --streams "$streams"
else
    first=yes
    for quant in ${QUANTS:-Q4_K_M}; do
        dir=${MODELS:-$work}/model-$quant
        mkdir -p "$dir"
        model="--random minicpm-o-4.5 --quant $quant --dir $dir"
        # shellcheck disable=SC2086
        measured "random-$quant" $model --streams "$([ $first ] && echo "$streams" || echo 0)"
        if [ $first ]; then
            # Many streams at the pace of a watch; the memory of one stream with a long context; and what answering one
            # at a time would do, on the same machine.
            # shellcheck disable=SC2086
            {
                measured "random-$quant-16-every-2s" $model --streams 16 --period 2 --ours-only
                seconds=${WATCH_SECONDS:-20}
                measured "random-$quant-every-10s" $model --streams "${WATCH:-64}" --period 10 --ours-only
                seconds=
                log=debug  # what each buffer takes
                measured "random-$quant-8k" $model --streams 0 --slots 1 --context-tokens 8192 --ours-only
                log=
                measured "random-$quant-one-at-a-time" $model --streams 4,16 --parallel 1 --ours-only
            }
        fi
        first=
        [ -n "${MODELS:-}" ] || rm -rf "$dir"
    done
fi
[ -n "$(ls "$out"/bench-*.json 2>/dev/null)" ]
