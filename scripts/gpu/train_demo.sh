#!/bin/sh
# Trains the demo model in the background and shows how it goes for a while; call it again to look or to go on.
#   train_demo.sh FOLDER SECONDS-TO-WATCH [options of train.py]
# Leaves weights.pt (half precision, in pieces of 15 MB) and the log in $OUT when the training is over.
set -u
cd "$(dirname "$0")/../demo-model" || exit 1
folder=$1; watch=$2; shift 2
mkdir -p "$folder"
if [ ! -e "$folder/pid" ] || ! kill -0 "$(cat "$folder/pid")" 2>/dev/null; then
    if [ $# -gt 0 ]; then
        PYTHONUNBUFFERED=1 setsid nohup python3 train.py --out "$folder" "$@" >>"$folder/log" 2>&1 &
        echo $! >"$folder/pid"
    fi
fi
end=$(($(date +%s) + watch))
while [ "$(date +%s)" -lt "$end" ] && kill -0 "$(cat "$folder/pid")" 2>/dev/null; do sleep 2; done
nvidia-smi --query-gpu=utilization.gpu,memory.used --format=csv,noheader
tail -n 45 "$folder/log"
if [ -e "$folder/weights.pt" ]; then
    split -b 15000000 "$folder/weights.pt" "$OUT/weights.pt."
fi
cp "$folder/log" "$OUT/log"
