#!/bin/sh
# Writes a fresh LiveKit API key and secret into .env, unless there is a pair already.
set -eu

cd "$(dirname "$0")/.."
if [ -f .env ] && grep -q '^LIVEKIT_API_SECRET=..*' .env; then
    echo ".env has a LIVEKIT_API_SECRET already; remove its line first if it is to be changed" >&2
    exit 1
fi
random() { od -An -N"$1" -tx1 /dev/urandom | tr -d ' \n'; }
umask 077
touch .env
chmod 600 .env
{
    printf 'LIVEKIT_ENABLED=true\n'
    grep -q '^LIVEKIT_URL=' .env || printf 'LIVEKIT_URL=ws://127.0.0.1:7880\n'
    printf 'LIVEKIT_API_KEY=API%s\n' "$(random 6)"
    printf 'LIVEKIT_API_SECRET=%s\n' "$(random 24)"
} >> .env
echo "wrote LIVEKIT_API_KEY and LIVEKIT_API_SECRET into .env; \`make livekit\` starts a server with them"
