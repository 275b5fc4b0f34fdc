#!/usr/bin/env python3
"""Runs Vidette for a long time among all that goes wrong, and says whether it keeps anything.

One camera that dies and comes back, viewers of video, text and status, one who reads nothing until it is cut off, and a new
instruction now and then; the tiny random model looks all the while. Memory, threads and open files of the program and of
its engine's process (a child of its own, told apart by when it was started) are sampled from /proc into a CSV file.

The verdict is on the second half: a line through the medians of twenty blocks of samples, and its standard error from what
the blocks' medians leave over, made wider where neighbouring blocks still go together. Something GROWS when its slope is
above the bar; it is flat when the slope and two standard errors are below; between them the run was too short to tell.
`--expect-leak` turns the verdict round, for a build that leaks on purpose in both processes: a test that can't fail shows
nothing. `--strike-every` kills the engine's process now and then. `--judge FILE` judges a CSV file of an earlier run.
Needs Python, ffmpeg and a built program (`make soak`). Exit codes: 0 flat, 1 it grows or something failed, 3 too short to tell.
"""

import argparse
import csv
import json
import os
import re
import signal
import socket
import statistics
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
    """Memory in KiB, threads, open files; None for a process that is gone or dying."""
    try:
        with open(f"/proc/{pid}/status") as file:
            text = file.read()
        memory, threads = re.search(r"VmRSS:\s+(\d+)", text), re.search(r"Threads:\s+(\d+)", text)
        return (int(memory.group(1)), int(threads.group(1)), len(os.listdir(f"/proc/{pid}/fd"))) if memory else None
    except OSError:
        return None


def engine_of(pid):
    """The engine's process: its id and when it was started (ticks since boot), which no later one has too."""
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as file:
                for child in file.read().split():
                    with open(f"/proc/{child}/cmdline", "rb") as words:
                        if b"engine-child" not in words.read():
                            continue
                    with open(f"/proc/{child}/stat") as stat:
                        return int(child), int(stat.read().rsplit(")", 1)[1].split()[19])
    except OSError:
        pass  # gone between two looks
    return None


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


def slope(runs, blocks=20):
    """Growth and its standard error in KiB an hour, from runs of (seconds, KiB); a run is one process's.

    Samples of a second hang together, so their number says nothing about the error: the line goes through the medians of
    blocks long against that, with a height of its own for each run. None where there are too few blocks."""
    length = sum(run[-1][0] - run[0][0] for run in runs) / blocks or 1.0
    points = []
    for run in runs:
        parts, last = {}, max(0, int((run[-1][0] - run[0][0]) / length) - 1)
        for t, m in run:
            parts.setdefault(min(int((t - run[0][0]) / length), last), []).append((t, m))
        medians = [(statistics.mean(t for t, _ in part), statistics.median(m for _, m in part)) for part in parts.values()]
        if len(medians) > 2:
            points.append(medians)
    count = sum(map(len, points))
    if count - len(points) < 4:
        return None
    centred = []
    for medians in points:
        mean_t, mean_m = (statistics.mean(p[i] for p in medians) for i in (0, 1))
        centred.append([(t - mean_t, m - mean_m) for t, m in medians])
    over = sum(t * t for run in centred for t, _ in run)
    rise = sum(t * m for run in centred for t, m in run) / over
    left = [[m - rise * t for t, m in run] for run in centred]
    squares = sum(x * x for run in left for x in run)
    error = (squares / (count - len(points) - 1) / over) ** 0.5
    together = sum(x * y for run in left for x, y in zip(run, run[1:])) / squares if squares else 0.0
    together = min(max(together, 0.0), 0.9)
    return 3600 * rise, 3600 * error * ((1 + together) / (1 - together)) ** 0.5


def judge(rows, seconds, bar):
    """What the second half says: lines to print, and for each process "grows", "flat" or "unsure"."""
    half = [row for row in rows if row["seconds"] > seconds / 2]
    verdicts, lines = {}, []
    for name, key, runs in (
        ("program", "", [half]),
        ("engine", "engine_", [[r for r in half if r["engine_start"] == start]
                               for start in dict.fromkeys(r["engine_start"] for r in half if r["engine_start"])]),
    ):
        runs = [run for run in runs if run]
        if not runs:
            lines.append(f"{name}: no samples")
            continue
        # What a new process takes to warm up is no growth.
        warm = [[r for r in run if r["seconds"] > run[0]["seconds"] + 60] for run in runs[1:]]
        found = slope([[(r["seconds"], r[f"{key}rss_kib"]) for r in run] for run in [runs[0], *filter(None, warm)]])
        first, last = runs[0][0], runs[-1][-1]
        memory = f"{first[f'{key}rss_kib']} KiB at half time, {last[f'{key}rss_kib']} at the end"
        if found is None:
            verdicts[name] = "unsure"
            lines.append(f"{name}: {memory}; too few samples for a slope")
        else:
            growth, error = found
            verdicts[name] = "grows" if growth > bar else "flat" if growth + 2 * error <= bar else "unsure"
            lines.append(f"{name}: {memory}; {growth:+.0f} KiB an hour, standard error {error:.0f} (bar {bar:.0f})")
        for what in ("threads", "files"):
            third = max(1, len(half) // 3)
            early, late = (max((r[f"{key}{what}"] for r in part if r[f"{key}{what}"] is not None), default=0)
                           for part in (half[:third], half[-third:]))
            lines.append(f"{name}'s {what}: at most {early} early in the second half, {late} late")
            if late > early + 2:
                verdicts[name] = "grows"
    return lines, verdicts


def conclude(lines, verdicts, expect_leak, failures):
    print("\n".join([*lines, *failures]))
    if expect_leak:
        seen = all(verdicts.get(name) == "grows" for name in ("program", "engine"))
        print("both leaks were seen" if seen else "A LEAK WAS NOT SEEN: this soak would show nothing")
        sys.exit(0 if seen else 1)
    grows = [name for name, verdict in verdicts.items() if verdict == "grows"]
    unsure = [name for name, verdict in verdicts.items() if verdict == "unsure"]
    print(f"it GROWS: {', '.join(grows)}" if grows
          else f"too short to tell by its error: {', '.join(unsure)}" if unsure else "nothing grows")
    sys.exit(1 if grows or failures else 3 if unsure else 0)


COLUMNS = ["seconds", "rss_kib", "threads", "files", "engine_pid", "engine_start", "engine_rss_kib", "engine_threads", "engine_files"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--binary", default=os.path.join(ROOT, "target/release/vidette"))
    parser.add_argument("--seconds", type=float, default=8 * 3600)
    parser.add_argument("--camera-period", type=float, default=60, help="seconds between the camera's deaths")
    parser.add_argument("--instruct-every", type=float, default=30)
    parser.add_argument("--bar", type=float, default=None,
                        help="most KiB an hour; by default 1024 from two hours on, and much wider for shorter runs, in which the warm-up weighs more")
    parser.add_argument("--expect-leak", action="store_true", help="succeed only when growth is found in both processes")
    parser.add_argument("--strike-every", type=float, default=0, help="seconds between kills of the engine's process; 0: never")
    parser.add_argument("--csv", default="soak.csv")
    parser.add_argument("--judge", metavar="FILE", help="judge this CSV file, and run nothing")
    options = parser.parse_args()
    if options.judge:
        with open(options.judge) as file:
            rows = [{k: float(v) if k == "seconds" else int(v) if v else None for k, v in row.items()} for row in csv.DictReader(file)]
        options.seconds = rows[-1]["seconds"]
    bar = options.bar if options.bar is not None else 1024 * max(1.0, 7200 / options.seconds) ** 1.5

    if options.judge:
        conclude(*judge(rows, options.seconds, bar), options.expect_leak, [])
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
        begun, rows, orders, strikes = time.monotonic(), [], 0, 0
        with open(options.csv, "w", newline="") as file:
            table = csv.writer(file)
            table.writerow(COLUMNS)
            while (now := time.monotonic() - begun) < options.seconds:
                own = held(program.pid)
                if program.poll() is not None or own is None:
                    log.seek(0)
                    sys.exit(f"the program ended with {program.wait()}:\n{log.read()[-4000:]}")
                engine = engine_of(program.pid)
                engine_held = engine and held(engine[0])
                sample = [round(now, 1), *own, *(engine + engine_held if engine_held else [None] * 5)]
                rows.append(dict(zip(COLUMNS, sample)))
                table.writerow(sample)
                file.flush()
                if now > (orders + 1) * options.instruct_every:
                    orders += 1
                    request(address, "/api/instruction", {"instruction": f"Say what is number {orders}."})
                    request(address, "/api/status")
                    request(address, "/metrics")
                if options.strike_every and engine_held and now > (strikes + 1) * options.strike_every:
                    strikes += 1
                    os.kill(engine[0], signal.SIGKILL)
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

    engines = list(dict.fromkeys(row["engine_start"] for row in rows if row["engine_start"]))
    print(f"{options.seconds:.0f} s, {camera.losses} losses of the camera, {status['source']['reconnects']} reconnects, "
          f"{status['commentary']['looks']} looks, {orders} instructions, {strikes} kills of the engine; ended with {code}")
    first = next((row["engine_rss_kib"] for row in rows if row["engine_rss_kib"]), "none")
    print(f"at the start: program {rows[0]['rss_kib']} KiB, engine {first} KiB; "
          f"{len(engines)} engine processes in turn")
    failures = [] if code == 0 else [f"it ended with {code}"]
    if len(engines) > strikes + 1:
        failures.append(f"the engine's process was started {len(engines)} times, {strikes + 1} wanted")
    conclude(*judge(rows, options.seconds, bar), options.expect_leak, failures)


if __name__ == "__main__":
    main()
