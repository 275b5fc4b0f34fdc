# Vidette. `make run` or `make run SOURCE=…` builds and starts it; `make test` proves it. Everything else is called by these.

SOURCE ?=
MODEL ?= minicpm-o-4.5
CARGO ?= cargo
CUDA ?= auto
PYTHON ?= python3

# Your own settings, if there are any (.env.example shows them).
-include .env
export

# CMake does not see cargo's -j.
export CMAKE_BUILD_PARALLEL_LEVEL ?= $(shell nproc)
# Few malloc arenas: GStreamer's threads fragment many of them (docs/PERFORMANCE.md).
export MALLOC_ARENA_MAX ?= 2

BUILD_PACKAGES = cmake clang libclang-dev g++ make pkg-config ccache \
	libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev
RUN_PACKAGES = gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-libav \
	espeak-ng
MODEL_PACKAGES = python3-venv python3-pip
TEST_PACKAGES = libgstrtspserver-1.0-dev gstreamer1.0-plugins-ugly vlc-bin vlc-plugin-base ffmpeg chromium faketime
# Only where there is no node yet: other packagings of it bring npm along, and would collide with Debian's.
PAGE_PACKAGES = nodejs npm
# Fonts that the demo model's training draws with, those of its evaluation, and what makes GStreamer's clips.
DEMO_PACKAGES = python3-venv python3-pip ffmpeg gstreamer1.0-tools gstreamer1.0-x fonts-dejavu-core fonts-liberation2 \
	fonts-freefont-ttf fonts-lato fonts-inconsolata fonts-open-sans fonts-roboto-unhinted fonts-noto-core

.PHONY: help run build test check docs setup setup-test setup-node page-vendor tiny-model pull bench bench-check soak soak-audio soak-engine deny dist check-dockerfile eval-demo demo-clips fuzz clean livekit livekit-keys

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

run: build ## Watch SOURCE (rtsp://…, http://…, a file, a device, test:ball; the demo clip if none) and serve the page
	./target/release/vidette run $(if $(SOURCE),"$(SOURCE)")

build: setup page-vendor ## Build target/release/vidette, and its CUDA backend where there is nvcc (CUDA=0: not even then)
	$(CARGO) build --release --locked
	@if [ "$(CUDA)" != 0 ] && command -v "$${CUDACXX:-nvcc}" >/dev/null; then CARGO="$(CARGO)" scripts/build-backend.sh cuda; fi

test: setup-test tiny-model page-vendor tests/web/node_modules/.package-lock.json ## Everything that a machine without a GPU can test
	CARGO="$(CARGO)" scripts/run-tests.sh

check: setup-test ## Format, lints and documents, as a reviewer wants them
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) clippy --locked --no-default-features --lib -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items
	@if command -v cargo-deny >/dev/null; then scripts/deny.sh; else echo "cargo-deny is not installed: licences and advisories were not checked"; fi
	@if command -v hadolint >/dev/null; then hadolint Dockerfile; else echo "hadolint is not installed: the Dockerfile was not linted"; fi

deny: ## Licences, sources and known vulnerabilities of all dependencies (ADVISORY_DB=… takes a clone of RustSec's database)
	scripts/deny.sh

docs: ## Write the table of options and .env.example anew
	UPDATE_DOCS=1 $(CARGO) test --locked --lib config::

pull: build ## Download MODEL
	./target/release/vidette pull $(MODEL)

bench: setup-test tiny-model ## Figures of docs/PERFORMANCE.md that need no GPU
	$(CARGO) bench --locked --bench engine --bench program --bench speech --bench wall

bench-check: build ## Fails when frames encoded once and a kept prompt no longer pay (a ratio within one run)
	./target/release/vidette bench --random tiny --streams 0 --looks 20 --at-least 1.5

soak-audio: build tiny-model ## Ten minutes of the voice: losses, timing, memory (SECONDS=60 for a short run)
	$(PYTHON) scripts/soak_audio.py --seconds $(or $(SECONDS),600)

# 50 kills, 50 failed assertions of ggml's, 50 hangs; some ten minutes.
soak-engine: setup-test tiny-model ## The engine killed, aborted and hung 50 times each: figures of docs/RELIABILITY.md
	SOAK_ENGINE=kill,abort,stop,hang $(CARGO) test --locked --test supervision a_crash_or_a_hang -- --nocapture

# The second run is a build that leaks: a soak that does not see it would show nothing.
soak: build tiny-model ## Hours among dying cameras and clients that stall: memory, threads, files (SECONDS=300 for a short run)
	$(PYTHON) scripts/soak.py --seconds $(or $(SECONDS),28800) --strike-every $(or $(STRIKE_EVERY),0)
	$(CARGO) build --release --locked --features leak-on-purpose --target-dir target/leak
	$(PYTHON) scripts/soak.py --binary target/leak/release/vidette --expect-leak --csv soak-leak.csv --seconds $(or $(SECONDS),1800)

dist: build ## dist/vidette-….tar.gz with licences and an SBOM
	CARGO="$(CARGO)" scripts/dist.sh

check-dockerfile: dist ## The Dockerfile's own steps in a clean Debian root, without Docker (needs root)
	scripts/check-dockerfile.sh dist/vidette-*/bin/vidette

# The first half's exit code must not keep the second half from running.
eval-demo: build .venv-demo/ready ## Scores of the demo model, through the program (LIMIT=5 for a short run)
	@cd scripts/demo-model && ../../.venv-demo/bin/python evaluate.py $(if $(LIMIT),--limit $(LIMIT)); first=$$?; \
	../../.venv-demo/bin/python steering.py $(if $(LIMIT),--limit $(LIMIT)) && exit $$first

demo-clips: .venv-demo/ready ## Draw the fixed clips of tests/demo_model.rs anew
	cd scripts/demo-model && ../../.venv-demo/bin/python fixed_clips.py ../../tests/data/demo

fuzz: ## Ten minutes of fuzzing for each reader of outsiders' input (needs cargo-fuzz and a nightly toolchain)
	cd fuzz && for target in gguf_header source config instruction body; do \
		cargo +nightly fuzz run $$target -- -max_total_time=$(or $(SECONDS),600) || exit 1; done

# For tests: MiniCPM-o file sets with random weights, about 3 MB each, whose answers mean nothing. The second one says
# that it is the demo model; the third can speak.
TINY = gguf/tiny-random
TINY_LAST = vision/MiniCPM-o-4_5-vision-F16.gguf
TINY_VOICE = voices/other.gguf
tiny-model: $(TINY)/$(TINY_LAST) $(TINY)/demo/$(TINY_LAST) $(TINY)/speaking/$(TINY_VOICE)

$(TINY)/$(TINY_LAST): scripts/make_tiny_model.py .venv/ready
	.venv/bin/python scripts/make_tiny_model.py --out $(TINY)
	@touch $@

$(TINY)/demo/$(TINY_LAST): scripts/make_tiny_model.py .venv/ready
	.venv/bin/python scripts/make_tiny_model.py --demo --out $(TINY)/demo
	@touch $@

$(TINY)/speaking/$(TINY_VOICE): scripts/make_tiny_model.py $(addprefix scripts/tts/,make_tiny_voice.py make_voice.py layout.py) \
		.venv/ready
	.venv/bin/python scripts/make_tiny_model.py --out $(TINY)/speaking
	.venv/bin/python scripts/tts/make_tiny_voice.py --out $(TINY)/speaking
	.venv/bin/python scripts/tts/make_voice.py --model $(TINY)/speaking --arrays $(TINY)/speaking/voices/other.npz --out $@
	@touch $@

.venv/ready: scripts/requirements.txt
	@scripts/install-packages.sh $(MODEL_PACKAGES)
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check -r scripts/requirements.txt
	@touch $@

.venv-demo/ready: scripts/demo-model/requirements.txt
	@scripts/install-packages.sh $(DEMO_PACKAGES)
	$(PYTHON) -m venv .venv-demo
	.venv-demo/bin/pip install --quiet --disable-pip-version-check -r scripts/demo-model/requirements.txt
	@touch $@

setup:
	@scripts/install-packages.sh $(BUILD_PACKAGES) $(RUN_PACKAGES)
	@scripts/install-rust.sh

setup-test: setup setup-node
	@scripts/install-packages.sh $(TEST_PACKAGES)
	@scripts/livekit-server.sh

setup-node:
	@command -v node >/dev/null && command -v npm >/dev/null || scripts/install-packages.sh $(PAGE_PACKAGES)

# The page's third-party code (vendor/VENDOR.md), which cargo takes into the program. Without it, as without a network,
# the program is built all the same, and its page says that it has no webcam.
page-vendor: | setup-node
	@if [ ! -e vendor/node_modules/.package-lock.json ] || [ vendor/package-lock.json -nt vendor/node_modules/.package-lock.json ]; then \
		(cd vendor && npm ci --omit=peer --ignore-scripts --no-audit --no-fund && touch node_modules/.package-lock.json) || \
		{ rm -rf vendor/node_modules; echo "The page's LiveKit client could not be fetched: this build has no webcam in the browser." >&2; }; \
	fi

# What the page's tests need, as the lock file has it; the browser is the system's.
tests/web/node_modules/.package-lock.json: tests/web/package-lock.json | setup-test
	cd tests/web && npm ci --no-audit --no-fund
	@touch $@

livekit-keys: ## Make a key and a secret for LiveKit, into .env
	@scripts/livekit-keys.sh

livekit: ## Start a LiveKit server on this machine with the keys of .env (built with Go the first time)
	@scripts/livekit-server.sh
	@test -n "$$LIVEKIT_API_KEY" || { echo "there are no keys in .env: make livekit-keys"; exit 1; }
	@LIVEKIT_KEYS="$$LIVEKIT_API_KEY: $$LIVEKIT_API_SECRET" exec target/tools/livekit-server --config config/livekit.yaml

clean: ## Remove what was built (models stay)
	$(CARGO) clean
	rm -rf .venv .venv-demo vendor/node_modules tests/web/node_modules $(TINY)
