# Vidette in a container. Models are never in the image: they are mounted (compose.yaml).
#
#   docker build -t vidette .                                          # CPU
#   docker build -t vidette \
#       --build-arg BUILD_BASE=nvidia/cuda:12.8.1-devel-ubuntu24.04 \
#       --build-arg BASE=nvidia/cuda:12.8.1-runtime-ubuntu24.04 .      # NVIDIA
#
# Both bases are Debian 12, or both are Ubuntu 24.04: the program is linked against the build stage's libraries.
ARG BUILD_BASE=debian:12
ARG BASE=debian:12-slim

FROM ${BUILD_BASE} AS build
ARG TARGET_CPU=""
# Which NVIDIA cards it computes on, where the base has nvcc: Turing to Blackwell.
ARG CUDA_ARCHITECTURES="75;80;86;89;90;100;120"
ARG RUST_VERSION=1.95.0
ENV DEBIAN_FRONTEND=noninteractive CARGO_HOME=/usr/local/cargo RUSTUP_HOME=/usr/local/rustup \
    PATH=/usr/local/cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates curl \
        cmake clang libclang-dev g++ make pkg-config ccache libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev \
        nodejs npm \
    && rm -rf /var/lib/apt/lists/*
RUN curl --proto '=https' --tlsv1.2 -sSf -o /tmp/rustup-init \
        "https://static.rust-lang.org/rustup/dist/$(uname -m)-unknown-linux-gnu/rustup-init" \
    && chmod +x /tmp/rustup-init \
    && /tmp/rustup-init -y --no-modify-path --profile minimal --default-toolchain "${RUST_VERSION}" \
    && rm /tmp/rustup-init
WORKDIR /src
COPY . .
# The page's LiveKit client (vendor/VENDOR.md), which becomes part of the program.
RUN npm ci --prefix vendor --omit=peer --ignore-scripts --no-audit --no-fund
# Without TARGET_CPU it runs on any machine of its kind; x86-64-v3 (AVX2) lets a model on the CPU use more of it.
RUN RUSTFLAGS="${TARGET_CPU:+-C target-cpu=${TARGET_CPU}}" cargo build --release --locked \
    && strip -o /vidette target/release/vidette
# The program finds its GPU backends in the folder beside it; without nvcc it stays empty.
RUN mkdir /backends \
    && if command -v nvcc >/dev/null; then CUDA_ARCHITECTURES="${CUDA_ARCHITECTURES}" scripts/build-backend.sh cuda /backends; fi

FROM ${BASE}
ENV DEBIAN_FRONTEND=noninteractive
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
        gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-libav espeak-ng \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --groups video --home-dir /var/lib/vidette --create-home vidette \
    && mkdir -p /models /media
COPY --from=build /vidette /usr/local/bin/vidette
COPY --from=build /backends /usr/local/bin/backends
# Everything that is written lies in /var/lib/vidette (what is kept) and /tmp (what is not): the rest may be read-only.
ENV MODELS_DIR=/models MEDIA_DIR=/media STATE_DIR=/var/lib/vidette XDG_CACHE_HOME=/tmp \
    SERVER_HOST=0.0.0.0 SERVER_PORT=8199 MALLOC_ARENA_MAX=2
USER 10001
WORKDIR /var/lib/vidette
EXPOSE 8199
# Live means that a restart would not help; a model that is still loading, or a camera that is away, is no reason for one.
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s --retries=3 CMD ["vidette", "health"]
ENTRYPOINT ["vidette"]
CMD ["run"]
