"""Attack the page for a while, as one user uploads photos: that user is answered, and the memory stays in its bound.

    python tests/reliability/load_page.py
    python tests/reliability/load_page.py --seconds 120

Starts tools/web.py with the released nets and attacks it on the loopback addresses 127.0.0.2 to 127.0.0.6: connections that
never finish their headers, uploads of one byte, photos without pause under changing X-Forwarded-For, paths of 5,000 digits,
JPEGs of 100 megapixels. Exits with 1 where the user at 127.0.0.7 was not answered, the flood got more than its rate, a path
was not answered with 404, a large JPEG was not answered, or the memory rose above the bound.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import io
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import watching

ROOT = Path(__file__).resolve().parents[2]
BOUND = 2_500  # MB that the server may have held: docs/predict.md says 2 GB for a photo, and there are the nets
LEFT = 1_500  # MB that it may hold at the end
PATIENCE = 60  # seconds for an answer, on a busy computer


class Attack:
    """The clients, each in a thread, until `over`; `seen` counts what they were answered."""

    def __init__(self, port: int, photo: bytes, large: bytes):
        self.port, self.photo, self.large = port, photo, large
        self.over = threading.Event()
        self.seen: Counter = Counter()
        self.slowest = 0.0

    def run(self, seconds: float) -> None:
        clients = (self.idle, self.slow, self.flood, self.paths, self.large_photos, self.user)
        threads = [threading.Thread(target=client) for client in clients]
        for thread in threads:
            thread.start()
        self.over.wait(seconds)
        self.over.set()
        for thread in threads:
            thread.join(2 * PATIENCE)
            if thread.is_alive():
                self.seen["a client that never ended"] += 1

    def ask(self, source: str, method: str, path: str, body=None, **headers) -> int:
        """Status of a request from an own address; 0 where the connection broke."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE, source_address=(source, 0))
        try:
            connection.request(method, path, body, {"Content-Type": "application/octet-stream", **headers})
            response = connection.getresponse()
            response.read()
            return response.status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    def held(self, source: str, count: int, request: bytes) -> None:
        """Keep so many connections open that have sent this much of a request, opening closed ones anew each second."""
        held: list = []
        while not self.over.is_set():
            for connection in list(held):
                connection.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    try:
                        closed = not connection.recv(4096)
                    except ConnectionError:
                        closed = True
                    if closed:
                        held.remove(connection)
                        connection.close()
            while len(held) < count:
                with contextlib.suppress(OSError):
                    held.append(socket.create_connection(("127.0.0.1", self.port), timeout=5, source_address=(source, 0)))
                    held[-1].sendall(request)
            self.over.wait(1)
        for connection in held:
            connection.close()

    def idle(self) -> None:
        self.held("127.0.0.2", 110, b"POST /predict HTTP/1.1\r\nHost: localhost\r\nX-")

    def slow(self) -> None:
        head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/octet-stream\r\nContent-Length: 9000\r\n\r\nx"
        self.held("127.0.0.3", 20, head)

    def flood(self) -> None:
        number = 0
        while not self.over.is_set():
            number += 1
            status = self.ask("127.0.0.4", "POST", "/predict", self.photo, **{"X-Forwarded-For": f"10.0.{number // 250}.{number % 250}"})
            self.seen["flood", status] += 1
            self.over.wait(0.05)

    def paths(self) -> None:
        while not self.over.is_set():
            self.seen["path", self.ask("127.0.0.5", "GET", "/examples/" + "7" * 5000)] += 1
            self.over.wait(0.5)

    def large_photos(self) -> None:
        while not self.over.is_set():
            self.seen["large", self.ask("127.0.0.6", "POST", "/predict", self.large)] += 1

    def user(self) -> None:
        while not self.over.is_set():
            started = time.monotonic()
            self.seen["user", self.ask("127.0.0.7", "POST", "/predict", self.photo)] += 1
            self.slowest = max(self.slowest, time.monotonic() - started)
            self.over.wait(2)


def check(seen: Counter, seconds: float, peak: float, left: float, said: str = "") -> list:
    """What is wrong, a line each. said: the server's stderr."""
    wrong = [f"{who} was answered with {status or 'nothing'} ({count} times)"
             for (who, status), count in sorted(entry for entry in seen.items() if isinstance(entry[0], tuple))
             if status not in {"user": (200,), "path": (404,), "large": (200,), "flood": (200, 429)}[who]]
    wrong += [f"no answer to {who}" for who in ("user", "path", "large", "flood") if not any(key[0] == who for key in seen)]
    wrong += [str(key) for key in seen if isinstance(key, str)]
    most = 10 + seconds + PATIENCE  # at once, then one a second, and the last ones may come late
    if seen["flood", 200] > most:
        wrong.append(f"one address had {seen['flood', 200]} photos answered in {seconds:.0f} s")
    if "concurrency limit" in said:
        wrong.append("attackers took all connections")
    if peak > BOUND:
        wrong.append(f"the server held {peak:.0f} MB, more than {BOUND}")
    if left > LEFT:
        wrong.append(f"the server still held {left:.0f} MB at the end, more than {LEFT}")
    return wrong


def photographs() -> tuple:
    """(a photo with one face, a JPEG of 100 megapixels with the same face in a corner)."""
    from PIL import Image
    from skimage import data

    face = Image.fromarray(data.astronaut())
    sheet = Image.new("RGB", (10_000, 10_000), (90, 120, 150))
    sheet.paste(face.resize((2000, 2000)))
    return tuple(jpeg(image) for image in (face, sheet))


def jpeg(image) -> bytes:
    content = io.BytesIO()
    image.save(content, "JPEG", quality=90)
    return content.getvalue()


def peak(pid: int) -> float:
    """MB that a process held at most."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[1]) / 1000


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="default: %(default)s")
    seconds = parser.parse_args(argv).seconds
    photo, large = photographs()
    command = [sys.executable, str(ROOT / "tools" / "web.py"), "--port", "0", "--engine", "torch"]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              env={**os.environ, "OMP_NUM_THREADS": "2"})  # fmt: skip
    try:
        started = re.match(r"http://127\.0\.0\.1:(\d+)/", server.stdout.readline())
        if started is None:
            return watching.verdict(["tools/web.py did not start"])
        attack = Attack(int(started[1]), photo, large)
        attack.run(seconds)
        most, left = peak(server.pid), watching.resident(server.pid)
    finally:
        server.terminate()
        said = server.communicate(timeout=30)[1]
    counts = ", ".join(f"{key[0]} {key[1]}: {count}" for key, count in sorted(attack.seen.items(), key=str) if isinstance(key, tuple))
    print(f"{seconds:.0f} s of attacks; {counts}; the user waited {attack.slowest:.1f} s at most; {most:.0f} MB at most, {left:.0f} MB "
          "at the end")
    return watching.verdict(check(attack.seen, seconds, most, left, said))


if __name__ == "__main__":
    raise SystemExit(main())
