#!/bin/sh
# Installs a real LiveKit server for the tests, with the ordinary Go client, into target/tools/livekit-server.
# Does nothing when it is there. VIDETTE_LIVEKIT_SERVER names one that is installed elsewhere.
set -eu

cd "$(dirname "$0")/.."
FOLDER=$PWD/target/tools
SERVER=$FOLDER/livekit-server
# Newest first; an older one where the Go that is here is too old for it.
VERSIONS="v1.13.3 v1.11.0 v1.8.4"

if [ -x "$SERVER" ]; then exit 0; fi
if [ -n "${VIDETTE_LIVEKIT_SERVER:-}" ] && [ -x "$VIDETTE_LIVEKIT_SERVER" ]; then exit 0; fi

GO=$(command -v go || true)
if [ -z "$GO" ] && [ -x /usr/local/go/bin/go ]; then GO=/usr/local/go/bin/go; fi
if [ -z "$GO" ]; then
    scripts/install-packages.sh golang-go
    GO=$(command -v go)
fi

mkdir -p "$FOLDER"
for version in $VERSIONS; do
    echo "installing livekit-server $version with $("$GO" version)"
    # A Go that is too old may fetch a newer one by itself, where it knows how to.
    if GOBIN=$FOLDER GOFLAGS="${GOFLAGS:-} -buildvcs=false" GOTOOLCHAIN="${VIDETTE_GOTOOLCHAIN:-auto}" \
        "$GO" install "github.com/livekit/livekit-server/cmd/server@$version"; then
        mv "$FOLDER/server" "$SERVER"
        "$SERVER" --version
        exit 0
    fi
done
echo "livekit-server could not be installed: Go 1.23 or newer and the Go module proxy are needed" >&2
exit 1
