#!/usr/bin/env python3
"""Listens to Vidette's voice for a long time and says what came of it.

Starts the program with the voice on and the tiny random model of the tests, whose nonsense never ends, and two listeners: one that reads as a player does,
and one that reads nothing until it is cut off, again and again. At the end: how much sound came against the clock, the
longest wait for a piece of it, what was lost, how long words took to be heard, and memory at the beginning and the end.
Fails when the healthy listener lost a sample or the sums do not add up. Needs nothing but Python and a built program.
"""

import argparse
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.request

BYTES_PER_SECOND = 48_000 * 2


def get(address, path):
    with urllib.request.urlopen(f"http://{address}{path}", timeout=20) as answer:
        return answer.read()


def status(address):
    return json.loads(get(address, "/api/status"))


def resident_kib(address):
    """Of the program and its engine's process."""
    return status(address)["process"]["memory_bytes"] / 1024


class Listener(threading.Thread):
    """Reads the sound as it comes."""

    def __init__(self, address):
        super().__init__(daemon=True)
        self.answer = urllib.request.urlopen(f"http://{address}/api/audio-stream", timeout=20)
        self.number = int(self.answer.headers["X-Audio-Listener"])
        self.bytes, self.longest_wait, self.loud = 0, 0.0, 0
        self.done = False

    def run(self):
        last = None
        while not self.done:
            piece = self.answer.read(1920)
            if not piece:
                return
            now = time.monotonic()
            self.longest_wait = max(self.longest_wait, now - last if last else 0)
            last = now
            self.bytes += len(piece)
            self.loud += any(piece)


class Sloth(threading.Thread):
    """Asks for the sound and reads nothing, until it is cut off; then again."""

    def __init__(self, address):
        super().__init__(daemon=True)
        self.host, self.port = address.rsplit(":", 1)
        self.cut_off = 0

    def run(self):
        while True:
            try:
                with socket.socket() as sock:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                    sock.connect((self.host, int(self.port)))
                    sock.sendall(b"GET /api/audio-stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
                    # The other end says by a reset that it gave up; only then is anything read.
                    while not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                        time.sleep(0.2)
                    self.cut_off += 1
            except OSError:
                time.sleep(1)


class Events(threading.Thread):
    """What is told of the sound."""

    def __init__(self, address):
        super().__init__(daemon=True)
        self.answer = urllib.request.urlopen(f"http://{address}/api/stream", timeout=60)
        self.phases, self.first, self.utterances = {}, [], 0

    def run(self):
        event = None
        for line in self.answer:
            line = line.decode().strip()
            if line.startswith("event: "):
                event = line[7:]
            elif line.startswith("data: ") and event == "speech":
                speech = json.loads(line[6:])
                self.phases[speech["phase"]] = self.phases.get(speech["phase"], 0) + 1
                if speech["phase"] == "begun":
                    self.first.append(speech["first_audio_ms"])
            elif line.startswith("data: ") and event == "utterance":
                self.utterances += not json.loads(line[6:])["skipped"]


def start(program, more):
    command = [program, "run", "test:ball@320x240", "--model-path", "gguf/tiny-random", "--change-threshold", "0"]
    command += ["--temperature", "2", "--max-tokens", "16", "--server-port", "0", "--enable-tts", *more]
    environment = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "TMPDIR", "XDG_RUNTIME_DIR")}
    environment["MALLOC_ARENA_MAX"] = "2"
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    for line in child.stderr:
        found = re.search(r"open http://([^/]+)/", line)
        if found:
            threading.Thread(target=lambda: [None for _ in child.stderr], daemon=True).start()
            return child, found.group(1)
    sys.exit("the program did not start")


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--program", default="target/release/vidette")
    arguments.add_argument("--seconds", type=float, default=600)
    arguments.add_argument("more", nargs="*", help="further arguments of the program, after --")
    options = arguments.parse_args()
    child, address = start(options.program, options.more)
    try:
        while status(address)["voice"]["state"] == "loading":
            time.sleep(0.1)
        sys.exit(soak(child, address, options.seconds))
    finally:
        child.terminate()
        child.wait(20)


def soak(child, address, seconds):
    events, listener, sloth = Events(address), Listener(address), Sloth(address)
    events.start()
    listener.start()
    sloth.start()
    time.sleep(min(10, seconds / 4))
    memory, bytes_before, begun = resident_kib(address), listener.bytes, time.monotonic()
    time.sleep(seconds)
    got, passed = listener.bytes - bytes_before, time.monotonic() - begun
    memory_after = resident_kib(address)
    voice = status(address)["voice"]
    own = next(one for one in voice["audience"] if one["listener"] == listener.number)
    sums = all(one["offered"] == one["sent"] + one["dropped"] + one["queued"] for one in voice["audience"])
    metrics = get(address, "/metrics").decode()
    metric = lambda name: int(re.search(rf"vidette_{name}_total{{[^}}]*}} (\d+)", metrics + f"vidette_{name}_total{{}} 0").group(1))
    share = got / (passed * BYTES_PER_SECOND)
    print(f"{passed:.1f} s by this script's clock, {got / BYTES_PER_SECOND:.1f} s of sound: {(share - 1) * 100:+.3f} %")
    print(f"longest wait for 20 ms of it: {listener.longest_wait * 1000:.0f} ms; frames with sound: {listener.loud}")
    print(f"healthy listener: {own['sent']} samples sent, {own['dropped']} dropped; sums add up: {sums}")
    print(f"stalled listeners: {sloth.cut_off} cut off, {metric('audio_samples_dropped')} samples dropped")
    print(f"utterances written: {events.utterances}; sound: {events.phases}")
    if events.first:
        ordered = sorted(events.first)
        print(
            "newest frame's capture to first sample, ms: median "
            f"{statistics.median(ordered):.0f}, 95 % {ordered[int(len(ordered) * 0.95)]:.0f}, most {ordered[-1]:.0f}"
        )
    print(f"resident memory: {memory / 1024:.1f} MiB, {memory_after / 1024:.1f} MiB at the end")
    return 0 if sums and own["dropped"] == 0 and abs(share - 1) < 0.01 else 1


if __name__ == "__main__":
    main()
