"""Two workers against one, and a source that answers late: `python benchmarks/scale.py [--clips 240]`.

Each worker is held to one core, the tiny model captions pictures of 640 x 480. A rate is of the second half of a run's
files, by the times at which they enter the journal, so that starting and compiling do not count.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
MODEL = ["-c", "configs/coca_tiny.yaml", "--seq_len", "20", "--frame_type", "middle"]
LATE = 0.2  # seconds


class Late(SimpleHTTPRequestHandler):
    """Files, of ranges too, each answer after `LATE` seconds."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        time.sleep(LATE)
        content = Path(self.translate_path(self.path)).read_bytes()
        start, end, status = 0, len(content), 200
        if wanted := self.headers.get("Range"):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, end, status = int(first), min(int(last) + 1, len(content)), 206
        self.send_response(status)
        self.send_header("Content-Length", str(end - start))
        self.send_header("Accept-Ranges", "bytes")
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
        self.end_headers()
        if body:
            self.wfile.write(content[start:end])

    def log_message(self, *_: object) -> None:
        pass


def hold_to_cores(driver: psutil.Process, stop: threading.Event) -> None:
    """Each worker to a core of its own, the driver and Ray to those that are left, if there are any."""
    cores = sorted(psutil.Process().cpu_affinity())
    held: dict[int, int] = {}
    while not stop.is_set():
        for process in driver.children(recursive=True):
            try:
                if process.pid not in held and (process.cmdline() or [""])[0].startswith("ray::Worker"):
                    held[process.pid] = cores[len(held) % len(cores)]
                    process.cpu_affinity([held[process.pid]])
            except psutil.Error:
                continue
        time.sleep(0.05)


def worker_seconds(driver: psutil.Process) -> float:
    """Of processors, that the workers of a run have had."""
    found = 0.0
    for process in driver.children(recursive=True):
        try:
            if (process.cmdline() or [""])[0].startswith("ray::Worker"):
                found += process.cpu_times().user + process.cpu_times().system
        except psutil.Error:
            continue
    return found


def rate(folder: Path, count: int, inputs: list[str], *more: str) -> tuple[float, float]:
    """Of the second half of a run: files a second, and seconds of a processor for each file."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "inference.py", *MODEL, "--output_dir", str(folder), *more, "--video_path", *inputs]
    driver = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    stop = threading.Event()
    holder = threading.Thread(target=hold_to_cores, args=(psutil.Process(driver.pid), stop))
    holder.start()
    journal, half, lines, used = folder / "journal" / "0-of-1.jsonl", None, 0, 0.0
    while driver.poll() is None or lines < count:
        lines = journal.read_bytes().count(b"\n") - 1 if journal.exists() else 0
        if half is None and lines >= count // 2:
            half = lines, time.perf_counter(), worker_seconds(psutil.Process(driver.pid))
        if half is not None:
            used = max(used, worker_seconds(psutil.Process(driver.pid)))
        if lines >= count:
            break
        if driver.poll() not in (None, 0):
            raise SystemExit(f"the run ended with exit code {driver.returncode}")
        time.sleep(0.01)
    assert half is not None
    found = (lines - half[0]) / (time.perf_counter() - half[1])
    driver.wait()
    stop.set()
    holder.join()
    return found, (used - half[2]) / (lines - half[0])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clips", type=int, default=240)
    count = parser.parse_args().clips
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "in").mkdir()
        for number in range(count):
            Image.effect_noise((640, 480), 10 + number % 90).convert("RGB").save(folder / f"in/{number:04}.jpg")
        local = [str(folder / "in")]
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Late, directory=str(folder / "in")))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        (folder / "late.txt").write_text(
            "".join(f"http://127.0.0.1:{server.server_port}/{number:04}.jpg\n" for number in range(count))
        )
        one = max(
            rate(folder / f"one-{threads}", count, local, "--ray", "--ray_workers", "1", "--num_workers", threads)
            for threads in ("1", "2")
        )
        two = rate(folder / "two", count, local, "--ray", "--ray_workers", "2")
        late = rate(folder / "late", count, [str(folder / "late.txt")], "--ray", "--ray_workers", "1")
        server.shutdown()
    print(f"one worker on a core, its best number of threads: {one[0]:.2f} files/s, {one[1]:.3f} s of it a file")
    times = two[0] / one[0]
    print(f"two workers on a core each: {two[0]:.2f} files/s, {two[1]:.3f} s a file; {times:.2f} times as many")
    print(f"two workers, were the cores theirs alone: {2 * one[1] / two[1]:.2f} times as many")
    share = late[0] / one[0]
    print(f"one worker, answers after {LATE:g} s: {late[0]:.2f} files/s, {share:.2f} of its rate on local files")


if __name__ == "__main__":
    main()
