#!/usr/bin/env python3
"""Runs Vidette for a long time among all that goes wrong, and says whether it keeps anything.

One camera that dies and comes back, viewers of video, text and status, one who reads nothing until it is cut off, and a new
instruction now and then; the tiny random model looks all the while. Memory, threads and open files are sampled from /proc
into a CSV file. The verdict is on the second half, of which the top and bottom twentieth of the samples are left out: the
slope of a line through them. `--expect-leak` turns the verdict round, for a build that leaks on purpose: a test that can't
fail shows nothing. Needs Python, ffmpeg and a built program (`make soak`).
"""

import argparse
import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def request(address, path, body=None):
    data = json.dumps(body).encode() if body is not None else None
    head = {"Content-Type": "application/json"} if body is not None else {}
    ask = urllib.request.Request(f"http://{address}{path}", data=data, headers=head)
    with urllib.request.urlopen(ask, timeout=20) as answer:
        return answer.read()


def held(pid):
    with open(f"/proc/{pid}/status") as file:
        text = file.read()
    memory = int(re.search(r"VmRSS:\s+(\d+)", text).group(1))
    threads = int(re.search(r"Threads:\s+(\d+)", text).group(1))
    return memory, threads, len(os.listdir(f"/proc/{pid}/fd"))


class Camera(threading.Thread):
    """ffmpeg as an HTTP-MJPEG camera, killed and started anew for as long as this runs."""

    def __init__(self, port, period):
        super().__init__(daemon=True)
        self.port, self.period, self.child, self.losses, self.done = port, period, None, 0, threading.Event()

    def run(self):
        command = ["ffmpeg", "-loglevel", "quiet", "-re", "-f", "lavfi", "-i", "testsrc=size=320x240:rate=10",
                   "-c:v", "mjpeg", "-f", "mpjpeg", "-listen", "1", f"http://127.0.0.1:{self.port}/camera"]
        while not self.done.is_set():
            self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
            self.done.wait(self.period)
            self.child.kill()
            self.child.wait()
            self.losses += 1

    def stop(self):
        self.done.set()
        self.join()


def reader(address, path, pause, done):
    """A client that comes again whenever it is cut off; `pause` seconds between its reads."""
    host, port = address.split(":")
    while not done.is_set():
        try:
            with socket.create_connection((host, int(port)), timeout=20) as s:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                s.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
                while not done.is_set() and s.recv(65536):
                    done.wait(pause)
        except OSError:
            done.wait(0.5)


def slope(samples):
    """KiB an hour, by least squares over (seconds, KiB), without the top and bottom twentieth."""
    by_size = sorted(samples, key=lambda s: s[1])
    cut = len(by_size) // 20
    kept = by_size[cut: len(by_size) - cut] or by_size
    mean_t = sum(t for t, _ in kept) / len(kept)
    mean_m = sum(m for _, m in kept) / len(kept)
    over = sum((t - mean_t) ** 2 for t, _ in kept)
    return 3600 * sum((t - mean_t) * (m - mean_m) for t, m in kept) / over if over else 0.0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--binary", default=os.path.join(ROOT, "target/release/vidette"))
    parser.add_argument("--seconds", type=float, default=8 * 3600)
    parser.add_argument("--camera-period", type=float, default=60, help="seconds between the camera's deaths")
    parser.add_argument("--instruct-every", type=float, default=30)
    parser.add_argument("--bar", type=float, default=None,
                        help="most KiB an hour; by default 1024 from two hours on, and much wider for shorter runs, in which the warm-up weighs more")
    parser.add_argument("--expect-leak", action="store_true", help="succeed only when growth is found")
    parser.add_argument("--csv", default="soak.csv")
    options = parser.parse_args()
    bar = options.bar if options.bar is not None else 1024 * max(1.0, 7200 / options.seconds) ** 1.5

    port = free_port()
    camera = Camera(port, options.camera_period)
    camera.start()
    env = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "TMPDIR")} | {"MALLOC_ARENA_MAX": "2"}
    log = tempfile.TemporaryFile("w+")
    program = subprocess.Popen(
        [options.binary, "run", f"http://127.0.0.1:{port}/camera", "--server-port", "0", "--threads", "1",
         "--model-path", os.path.join(ROOT, "gguf/tiny-random"), "--max-tokens", "16", "--capture-fps", "5",
         "--change-threshold", "0", "--reconnect-delay", "0.2", "--max-reconnect-delay", "1"],
        stderr=log, stdout=subprocess.DEVNULL, env=env)
    done = threading.Event()
    try:
        address, until = None, time.monotonic() + 60
        while address is None:
            log.seek(0)
            found = re.search(r"open http://([^/\s]+)/", log.read())
            address = found and found.group(1)
            if program.poll() is not None or time.monotonic() > until:
                log.seek(0)
                sys.exit(f"the program did not start:\n{log.read()}")
            time.sleep(0.1)
        clients = [("/api/mjpeg", 0), ("/api/stream", 0), ("/api/mjpeg", 0.2), ("/api/mjpeg", 1e9)]
        for path, pause in clients:
            threading.Thread(target=reader, args=(address, path, pause, done), daemon=True).start()
        begun, samples, orders = time.monotonic(), [], 0
        with open(options.csv, "w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["seconds", "rss_kib", "threads", "files"])
            while (now := time.monotonic() - begun) < options.seconds:
                if program.poll() is not None:
                    log.seek(0)
                    sys.exit(f"the program ended with {program.returncode}:\n{log.read()[-4000:]}")
                sample = (now, *held(program.pid))
                samples.append(sample)
                table.writerow([round(now, 1), *sample[1:]])
                if now > (orders + 1) * options.instruct_every:
                    orders += 1
                    request(address, "/api/instruction", {"instruction": f"Say what is number {orders}."})
                    request(address, "/api/status")
                    request(address, "/metrics")
                time.sleep(min(1.0, options.seconds / 60))
        status = json.loads(request(address, "/api/status"))
    finally:
        done.set()
        camera.stop()
        program.send_signal(signal.SIGINT)
        try:
            code = program.wait(15)
        except subprocess.TimeoutExpired:
            program.kill()
            code = "none, and had to be killed"

    half = [s for s in samples if s[0] > options.seconds / 2]
    growth = slope([(t, m) for t, m, _, _ in half])
    third = max(1, len(half) // 3)
    spread = {name: (max(s[i] for s in half[:third]), max(s[i] for s in half[-third:]))
              for name, i in (("threads", 2), ("files", 3))}
    print(f"{options.seconds:.0f} s, {camera.losses} losses of the camera, {status['source']['reconnects']} reconnects, "
          f"{status['commentary']['looks']} looks, {orders} instructions; ended with {code}")
    print(f"memory: {samples[0][1]} KiB at the start, {half[0][1]} at half time, {samples[-1][1]} at the end; "
          f"second half {growth:+.0f} KiB an hour (bar {bar:.0f})")
    for name, (early, late) in spread.items():
        print(f"{name}: at most {early} early in the second half, {late} late")
    grows = growth > bar or any(late > early + 2 for early, late in spread.values())
    if options.expect_leak:
        print("the leak was seen" if grows else "THE LEAK WAS NOT SEEN: this soak would show nothing")
        sys.exit(0 if grows else 1)
    print("it GROWS" if grows else "nothing grows")
    sys.exit(1 if grows or code != 0 else 0)


if __name__ == "__main__":
    main()
