#!/bin/sh
# Builds a ggml backend as a plugin from the llama.cpp sources that cargo has, into FOLDER (default:
# target/release/backends, where the program looks).
#   build-backend.sh cuda [FOLDER]
# CUDA_ARCHITECTURES names the cards, in CMake's words: native (this machine's, the default where there is one),
# 89-real (RTX 40), "75;80;86;89;90;100;120" (Turing to Blackwell, for a container). CUDACXX names nvcc.
# BACKEND_SOURCE is the folder of one that ggml does not have.
set -eu
cd "$(dirname "$0")/.."
backend=$1
folder=${2:-target/release/backends}
sources=${LLAMA_CPP:-$(${CARGO:-cargo} metadata --locked --format-version 1 |
    sed -n 's/.*"manifest_path":"\([^"]*llama-cpp-sys-2-[^"]*\)\/Cargo.toml".*/\1/p')/llama.cpp}
[ -d "$sources/ggml" ] || { echo "no llama.cpp sources at $sources; set LLAMA_CPP" >&2; exit 1; }
mkdir -p "$folder"
built=${BUILD_DIR:-target/backends/$backend}
cmake -S packaging/backends -B "$built" -DCMAKE_BUILD_TYPE=Release -DLLAMA_CPP="$sources" -DBACKEND="$backend" \
    ${BACKEND_SOURCE:+-DBACKEND_SOURCE="$BACKEND_SOURCE"} \
    ${CUDA_ARCHITECTURES:+-DCMAKE_CUDA_ARCHITECTURES="$CUDA_ARCHITECTURES"} >"$built.log" 2>&1 ||
    { cat "$built.log" >&2; exit 1; }
cmake --build "$built" --parallel "${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)}"
# Beside it and then moved: a program that is running keeps the old one.
cp "$built/libggml-$backend.so" "$folder/.libggml-$backend.so.new"
strip --strip-unneeded "$folder/.libggml-$backend.so.new"
mv "$folder/.libggml-$backend.so.new" "$folder/libggml-$backend.so"
echo "$folder/libggml-$backend.so: $(du -h "$folder/libggml-$backend.so" | cut -f1)"
