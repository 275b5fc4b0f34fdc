#!/bin/sh
# Makes dist/vidette-VERSION-ARCH.tar.gz: the program (the page is inside), its documents and examples, the licences of
# everything in it, an SBOM, and how to install it; with the GPU backends that `make build` has made, where there are any.
# PROFILE=dev takes the debug build, for tests of this script.
set -eu
cd "$(dirname "$0")/.."
profile="${PROFILE:-release}"
cargo="${CARGO:-cargo}"
if [ "$profile" = dev ]; then folder=debug; else folder=$profile; fi
[ -n "${SKIP_BUILD:-}" ] || $cargo build --profile "$profile" --locked
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
name="vidette-$version-$(uname -m)-linux"
stage="dist/$name"
rm -rf "$stage"
mkdir -p "$stage/bin" "$stage/docs" "$stage/examples"
strip -o "$stage/bin/vidette" "${CARGO_TARGET_DIR:-target}/$folder/vidette"
cp README.md CHANGELOG.md LICENSE SECURITY.md .env.example "$stage/"
cp docs/*.md "$stage/docs/"
[ ! -d "${CARGO_TARGET_DIR:-target}/$folder/backends" ] || cp -r "${CARGO_TARGET_DIR:-target}/$folder/backends" "$stage/bin/"
cp packaging/*.json packaging/*.yaml packaging/systemd/*.service config/livekit.yaml compose.yaml compose.gpu.yaml compose.livekit.yaml "$stage/examples/"
python3 scripts/sbom.py --out "$stage"
packages=$(sed -n '/^RUN_PACKAGES/,/[^\\]$/p' Makefile | sed 's/^RUN_PACKAGES = //; s/\\$//' | tr -s '[:space:]' ' ')
cat >"$stage/INSTALL.txt" <<EOF
Vidette $version. It needs Debian 12, Ubuntu 24.04 or newer, and these packages:

    apt-get install --no-install-recommends $packages

Then copy bin/vidette to /usr/local/bin and start it: vidette run. docs/OPERATION.md tells the rest.
EOF
# The same input makes the same archive.
stamp=$(git log -1 --format=%ct 2>/dev/null || echo 0)
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$stamp" -C dist -cf - "$name" | gzip -9n >"dist/$name.tar.gz"
(cd dist && sha256sum "$name.tar.gz" >"$name.tar.gz.sha256")
echo "dist/$name.tar.gz: $(du -h "dist/$name.tar.gz" | cut -f1)"
