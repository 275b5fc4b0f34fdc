"""The program as the evaluation uses it: `vidette ask --batch -`, kept running, started anew when it dies.

Not here: what is asked and what is right (`evaluate.py`), running streams (`steering.py`).
"""

import json
import os
import queue
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image

# How long one answer may take, seconds; the first one waits for the model to load as well.
PATIENCE = 180
# Nothing of the caller's own settings may change the answers.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH")}
# How many questions are handed over before an answer must come.
AHEAD = 8


class Asker:
    """Answers requests (dictionaries as `vidette ask --batch` takes them, without `id`) in order."""

    def __init__(self, binary, model, options=()):
        self.command = [str(binary), "ask", "--batch", "-", "--model-path", str(model), *options]
        self.process, self.deaths = None, 0

    def start(self):
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
                                        env=ENVIRONMENT)  # fmt: skip
        self.lines = queue.Queue(maxsize=4096)
        process, lines = self.process, self.lines

        def read():
            for line in process.stdout:
                lines.put(line)
            lines.put(None)

        threading.Thread(target=read, daemon=True).start()

    def stop(self):
        if self.process:
            self.process.stdin.close()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
            self.process = None

    def ask(self, requests):
        """One reply for each request. A request that kills the program twice is answered with an error."""
        replies, sent, killed_by = [], 0, {}
        while len(replies) < len(requests):
            if self.process is None or self.process.poll() is not None:
                self.start()
                sent = len(replies)
            try:
                while sent < len(requests) and sent - len(replies) < AHEAD:
                    self.process.stdin.write(json.dumps(requests[sent] | {"id": sent}) + "\n")
                    sent += 1
                self.process.stdin.flush()
                line = self.lines.get(timeout=PATIENCE)
            except (BrokenPipeError, queue.Empty):
                line = None
            if line is None:
                self.process.kill()
                self.process.wait()
                self.process = None
                self.deaths += 1
                at = len(replies)
                killed_by[at] = killed_by.get(at, 0) + 1
                if self.deaths > 20:
                    raise SystemExit("the program dies again and again: " + " ".join(self.command))
                if killed_by[at] >= 2:
                    replies.append({"id": at, "error": {"code": "died", "message": "the program died"}})
                continue
            reply = json.loads(line)
            if reply["id"] != len(replies):
                raise SystemExit(f"the answers are out of order: {line}")
            replies.append(reply)
        return replies


class Folder:
    """Pictures on their way to the program; deleted when they have been used."""

    def __init__(self, path):
        self.path = Path(path)
        self.path.mkdir(parents=True, exist_ok=True)
        for old in self.path.glob("*.png"):
            old.unlink()
        self.count = 0

    def save(self, pictures):
        """Paths of the pictures; those that are the same object are one file."""
        known, names = {}, []
        for picture in pictures:
            if id(picture) not in known:
                self.count += 1
                path = self.path / f"{self.count:06}.png"
                Image.fromarray(np.ascontiguousarray(picture)).save(path, compress_level=1)
                known[id(picture)] = str(path)
            names.append(known[id(picture)])
        return names

    def clear(self):
        for old in self.path.glob("*.png"):
            old.unlink()


def elapsed(since):
    return f"{time.monotonic() - since:.0f} s"
