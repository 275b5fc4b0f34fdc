#!/bin/bash
# Runs the Dockerfile's own steps without Docker: in a clean Debian root from debootstrap, in a chroot. As root.
#
#   scripts/check-dockerfile.sh BINARY [FOLDER]         the runtime stage, with a program that was built outside
#   scripts/check-dockerfile.sh --build [FOLDER]        the build stage too (needs the network and much time)
#   SUITE=noble MIRROR=http://archive.ubuntu.com/ubuntu scripts/check-dockerfile.sh BINARY      the same on Ubuntu 24.04
#
# The runtime stage's RUN lines are executed as they stand, its ENV and USER apply, and the program is then started as that
# user in the root, read-only but for /tmp and its home: it has to show a test picture, answer its health check, and end.
# What Docker itself does (layers, ENTRYPOINT, HEALTHCHECK's timing, cap_drop) is not covered.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" -eq 0 ] || { echo "this needs root, for chroot" >&2; exit 1; }
command -v debootstrap >/dev/null || scripts/install-packages.sh debootstrap
build=""
[ "${1:-}" = --build ] && build=yes || binary=${1:?the program to put into the root}
work=${2:-/tmp/vidette-root}
suite=${SUITE:-bookworm}
mirror=${MIRROR:-http://deb.debian.org/debian}

# The RUN commands (continuations joined, comments dropped) of the stage with this number.
runs() {
    awk -v want="$1" '/^FROM /{stage++} stage!=want{next} /^[[:space:]]*#/{next}
        /^RUN /||more{line=$0; sub(/^RUN /,"",line); more=(line ~ /\\$/); sub(/\\$/,"",line); printf "%s%s", line, more?" ":"\n"}' Dockerfile
}
setting() { # the ENV lines of a stage as NAME=VALUE words
    awk -v want="$1" '/^FROM /{stage++} stage!=want{next} /^ENV /||more{line=$0; sub(/^ENV /,"",line); more=(line ~ /\\$/); sub(/\\$/,"",line); print line}' Dockerfile | tr -s ' \n' '\n' | grep '='
}
fresh() {
    if [ ! -e "$work.base/etc/debian_version" ]; then
        debootstrap --variant=minbase "$suite" "$work.base" "$mirror" >"$work.debootstrap.log" 2>&1 || { tail "$work.debootstrap.log"; exit 1; }
    fi
    rm -rf --one-file-system "${1:?}"
    cp -a "$work.base" "$1"
    cp /etc/resolv.conf "$1/etc/resolv.conf"
    # What this machine needs to reach a package mirror.
    [ ! -e /etc/apt/apt.conf.d ] || cp -a /etc/apt/apt.conf.d/. "$1/etc/apt/apt.conf.d/"
    # Ubuntu keeps GStreamer's plugins and espeak-ng in a part of its own, which its images have switched on.
    if grep -q '^ID=ubuntu' "$1/etc/os-release"; then sed -i 's/ main$/ main universe/' "$1/etc/apt/sources.list"; fi
    # It is thrown away: nothing has to reach the disk.
    echo force-unsafe-io >"$1/etc/dpkg/dpkg.cfg.d/unsafe-io"
    mount -t proc proc "$1/proc"
    mounted+=("$1/proc")
    mount --rbind /dev "$1/dev"
    mount --make-rslave "$1/dev"
    mounted+=("$1/dev")
}
mounted=()
running=""
clean_up() {
    [ -z "$running" ] || kill "$running" 2>/dev/null || true
    for at in "${mounted[@]}"; do umount -R "$at" 2>/dev/null || umount -lR "$at" || true; done
}
trap clean_up EXIT

if [ -n "$build" ]; then
    fresh "$work.build"
    mkdir -p "$work.build/src"
    git ls-files -z | xargs -0 cp --parents -t "$work.build/src"
    mapfile -t env < <(setting 1)
    runs 1 | while read -r command; do
        echo "build stage: ${command:0:100}"
        chroot "$work.build" env "${env[@]}" RUST_VERSION=1.95.0 CUDA_ARCHITECTURES= sh -ec "cd /src; $command"
    done
    binary="$work.build/vidette"
fi

fresh "$work"
mapfile -t env < <(setting 2)
runs 2 | while read -r command; do
    echo "runtime stage: ${command:0:100}"
    chroot "$work" env "${env[@]}" sh -ec "$command" >"$work.run.log" 2>&1 || { tail -20 "$work.run.log"; exit 1; }
done
install -m 755 "$binary" "$work/usr/local/bin/vidette"
echo "the root has $(du -sm --one-file-system "$work" | cut -f1) MB; compilers in it: $(chroot "$work" sh -c 'command -v cc gcc clang cargo || echo none')"
if chroot "$work" ldd /usr/local/bin/vidette | grep "not found"; then echo "libraries are missing" >&2; exit 1; fi
user=$(awk '/^USER /{print $2}' Dockerfile)
home=$(awk '/^WORKDIR /{at=$2} END{print at}' Dockerfile)
mount --bind "$work" "$work"
mounted=("$work" "${mounted[@]}")
mount -t tmpfs tmpfs "$work/tmp"
mount -t tmpfs -o "uid=$user" tmpfs "$work$home"
mount -o remount,bind,ro "$work"
inside() { chroot --userspec="$user:$user" "$work" env -i PATH=/usr/local/bin:/usr/bin:/bin HOME="$home" "${env[@]}" ALLOW_NO_TOKEN=true SERVER_PORT=8298 "$@"; }
inside vidette --version
inside vidette check-config
if inside sh -c 'touch /written' 2>/dev/null; then echo "the root can be written" >&2; exit 1; fi
if inside vidette health 2>/dev/null; then echo "health before the start" >&2; exit 1; fi
inside vidette run test:ball >"$work.log" 2>&1 &
running=$!
for _ in $(seq 100); do inside vidette health >/dev/null 2>&1 && break; sleep 0.2; done
inside vidette health
status=""
for _ in $(seq 100); do
    status=$(python3 -c 'import urllib.request as u; print(u.urlopen("http://127.0.0.1:8298/api/status", timeout=5).read().decode())')
    case $status in *'"capture_healthy":true'*) break ;; esac
    sleep 0.2
done
case $status in *'"capture_healthy":true'*) ;; *) echo "no picture: $status" >&2; tail "$work.log"; exit 1 ;; esac
size=$(python3 -c 'import urllib.request as u; print(len(u.urlopen("http://127.0.0.1:8298/api/frame", timeout=5).read()))')
echo "a picture of $size bytes came"
kill -INT "$(pgrep -P "$running" vidette || echo "$running")"
wait "$running" && echo "ended in order"
running=""
