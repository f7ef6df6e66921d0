"""Two workers against one, and a source that answers late: `python benchmarks/scale.py [--clips 1000]`.

Each worker is held to one core, the tiny model captions pictures of 640 x 480. A rate is of the steady part of a run,
by the times at which files enter the journal, so that starting and compiling do not count. Run it on a quiet machine.
"""

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
MODEL = ["-c", "configs/coca_tiny.yaml", "--seq_len", "20", "--frame_type", "middle"]
LATE = 0.2  # seconds
FROM, TO = 0.4, 0.95  # of the files: before, workers start; after, they have no more work
DIFFERENT = 40  # pictures; the others are copies


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


def family(*roots: psutil.Process) -> Iterator[psutil.Process]:
    """Processes with all that they started."""
    for root in roots:
        try:
            yield from (root, *root.children(recursive=True))
        except psutil.Error:  # it has ended
            continue


def is_worker(process: psutil.Process) -> bool:
    return (process.cmdline() or [""])[0].startswith("ray::Worker")


def hold_to_cores(roots: Sequence[psutil.Process], stop: threading.Event) -> None:
    """Each worker to a core of its own; the driver and Ray may use all."""
    cores = sorted(psutil.Process().cpu_affinity())
    held: dict[int, int] = {}
    while not stop.is_set():
        for process in family(*roots):
            try:
                if process.pid not in held and is_worker(process):
                    held[process.pid] = cores[len(held) % len(cores)]
                    process.cpu_affinity([held[process.pid]])
            except psutil.Error:
                continue
        time.sleep(0.05)


@contextmanager
def cluster_of_a_core() -> Iterator[tuple[str, psutil.Process]]:
    """A Ray cluster that has one core, so that its worker runs one thread for it. Gives its address and process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--num-cpus=1"]
    command += [f"--port={port}", "--include-dashboard=false", f"--object-store-memory={128 << 20}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_worker_niceness": "0", "RAY_AUTH_MODE": "disabled"}
    ray = psutil.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield f"127.0.0.1:{port}", ray
    finally:
        ray.terminate()
        ray.wait()


def wait_for_port(address: str) -> None:
    host, port = address.split(":")
    while True:
        try:
            return socket.create_connection((host, int(port)), 1).close()
        except OSError:
            time.sleep(0.2)


def seconds_used(driver: psutil.Process, *more: psutil.Process) -> dict[str, float]:
    """Of processors, by whom: the driver, its workers, and what else it started, which is Ray's."""
    used = dict.fromkeys(("driver", "workers", "Ray"), 0.0)
    for process in family(driver, *more):
        try:
            kind = "driver" if process.pid == driver.pid else "workers" if is_worker(process) else "Ray"
            used[kind] += process.cpu_times().user + process.cpu_times().system
        except psutil.Error:
            continue
    return used


@dataclass
class Measured:
    """The steady part of a run: files a second, and seconds of a processor for each file, by whom."""

    rate: float
    used: dict[str, float]

    def line(self) -> str:
        parts = ", ".join(f"{who} {1000 * seconds:.1f}" for who, seconds in self.used.items())
        return f"{self.rate:.2f} files/s; ms of a core a file: {parts}"


def measure(
    folder: Path,
    count: int,
    inputs: list[str],
    *more: str,
    cores: Sequence[int] = (),
    ray: Sequence[psutil.Process] = (),
) -> Measured:
    """A run over all inputs, seen from `FROM` of its files to `TO`.

    Args:
        cores: all that it may use, where it is one process; else workers have one each.
        ray: the processes of a cluster that was there before.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    if cores:
        environment["OMP_NUM_THREADS"] = str(len(cores))
    command = [sys.executable, "inference.py", *MODEL, "--output_dir", str(folder), *more, "--video_path", *inputs]
    driver = psutil.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    if cores:
        driver.cpu_affinity(list(cores))
    stop = threading.Event()
    holder = threading.Thread(target=hold_to_cores, args=((driver, *ray), stop))
    if not cores:
        holder.start()
    journal, first = folder / "journal" / "0-of-1.jsonl", None
    try:
        while True:
            lines = journal.read_bytes().count(b"\n") - 1 if journal.exists() else 0
            if first is None and lines >= FROM * count:
                first = lines, time.perf_counter(), seconds_used(driver, *ray)
            if first is not None and lines >= TO * count:
                seconds, files = time.perf_counter() - first[1], lines - first[0]
                now = seconds_used(driver, *ray)
                return Measured(files / seconds, {who: (now[who] - first[2][who]) / files for who in now})
            if driver.poll() not in (None, 0):
                raise SystemExit(f"the run ended with exit code {driver.returncode}")
            time.sleep(0.02)
    finally:
        driver.wait()
        stop.set()
        if not cores:
            holder.join()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clips", type=int, default=1000)
    count = parser.parse_args().clips
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "in").mkdir()
        for number in range(count):
            target = folder / f"in/{number:04}.jpg"
            if number < DIFFERENT:
                Image.effect_noise((640, 480), 10 + 2 * number).convert("RGB").save(target)
            else:
                shutil.copy(folder / f"in/{number % DIFFERENT:04}.jpg", target)
        local = [str(folder / "in")]
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Late, directory=str(folder / "in")))
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        (folder / "late.txt").write_text(
            "".join(f"http://127.0.0.1:{server.server_port}/{number:04}.jpg\n" for number in range(count))
        )
        runs = {
            f"one process on a core, {threads} reading": measure(
                folder / f"plain-{threads}", count, local, "--num_workers", threads, cores=[0]
            )
            for threads in ("1", "2")
        }
        for threads in ("1", "2"):
            with cluster_of_a_core() as (address, ray):
                wait_for_port(address)
                runs[f"one worker on a core, {threads} reading"] = measure(
                    folder / f"one-{threads}", count, local, "--ray", address, "--num_workers", threads, ray=[ray]
                )
        one = max(runs.values(), key=lambda run: run.rate)
        worker = max((run for name, run in runs.items() if "worker" in name), key=lambda run: run.rate)
        two = runs["two workers on a core each"] = measure(folder / "two", count, local, "--ray", "--ray_workers", "2")
        with cluster_of_a_core() as (address, ray):
            wait_for_port(address)
            late = runs[f"one worker, answers after {LATE:g} s"] = measure(
                folder / "late", count, [str(folder / "late.txt")], "--ray", address, ray=[ray]
            )
        server.shutdown()
    for name, run in runs.items():
        print(f"{name}: {run.line()}")
    print(f"two workers: {two.rate / one.rate:.2f} times as many as the best of one")
    print(f"late answers: {late.rate / worker.rate:.2f} of the best rate of one worker on local files")


if __name__ == "__main__":
    main()
