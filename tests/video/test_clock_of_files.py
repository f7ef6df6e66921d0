"""The clock in real files: joined, held, variable; stretches show what is on the screen at their middles."""

from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import scenedetect
from PIL import Image

from mindone_coca.errors import InputError
from mindone_coca.video import file as video_file
from mindone_coca.video.file import VideoFile
from mindone_coca.video.frames import read_frames, read_shot
from mindone_coca.video.segments import iter_segments
from tests.video.clips import run_ffmpeg
from tests.video.whole import probe

CASES = Path(__file__).parent / "cases"
COLOURS = ["red", "lime", "blue", "white", "black"]


def draw(path: Path, colour: str, seconds: float, *options: str) -> bytes:
    source = f"color={colour}:size=64x48:rate=10:duration={seconds}"
    run_ffmpeg("-f", "lavfi", "-i", source, "-c:v", "libx264", "-preset", "ultrafast", *options, path)
    return path.read_bytes()


def shown(source, seconds=None):
    return [(shot.start, shot.end, shot.frames[0].index) for shot in iter_segments(source, seconds)]


def approximately(rows):
    return [pytest.approx(row, abs=1e-3) for row in rows]


@pytest.mark.parametrize("suffix", ["ts", "mpg"])
@pytest.mark.parametrize("starts", [(0, 0, 0), (5, 0, 0), (3600, 1800, 0)])
def test_recordings_put_together_go_on_from_the_end_before(tmp_path, suffix, starts):
    """The clock of each recording starts where it likes."""
    codec = ["-c:v", "mpeg2video"] if suffix == "mpg" else []
    parts = [
        draw(tmp_path / f"{number}.{suffix}", colour, 2, *codec, "-output_ts_offset", str(start))
        for number, (colour, start) in enumerate(zip(["red", "lime", "blue"], starts))
    ]
    path = tmp_path / "joined.data"
    path.write_bytes(b"".join(parts))
    info = probe(path)
    assert (info.times[1:] > info.times[:-1]).all() and info.frame_count == 60
    assert info.duration == pytest.approx(6, abs=1e-3)
    start = info.times[0]
    assert shown(path, 2) == approximately([(start + 2 * i, start + 2 * i + 2, 20 * i + 10) for i in range(3)])
    assert [frame.index for frame in read_frames(path, "multi_frames", 4)] == [0, 20, 39, 59]


def test_scenes_of_joined_files_cover_all(tmp_path):
    clip = (CASES / "clip.ts").read_bytes()
    path = tmp_path / "joined.ts"
    path.write_bytes(draw(tmp_path / "red.ts", "red", 4) + clip)
    shots = shown(path)
    assert shots[0][:2] == pytest.approx((0, 4), abs=0.01) and shots[-1][1] == pytest.approx(8, abs=0.01)
    assert all(before[1] == after[0] for before, after in pairwise(shots))


@pytest.mark.parametrize("seeking", [True, False])
def test_every_stretch_of_a_slideshow_shows_its_slide(seeking, monkeypatch):
    if not seeking:
        monkeypatch.setattr(VideoFile, "_packet_index", None)
    path = CASES / "slideshow.mp4"
    assert shown(path, 5) == approximately([(5 * i, 5 * i + 5, i) for i in range(5)])
    assert [index for *_, index in shown(path, 4)] == [0, 1, 2, 2, 3, 4]
    assert [index for *_, index in shown(path, 2)] == [0, 0, 1, 1, 1, 2, 2, 3, 3, 3, 4, 4, 4]


@pytest.mark.parametrize("name", ["slideshow.mp4", "slides.gif", "recording.mkv"])
def test_scenes_of_frames_that_stay_are_those_of_the_same_at_a_constant_rate(tmp_path, name):
    """As PySceneDetect finds them in what a screen shows, a picture every tenth of a second."""
    path = CASES / name if name == "slideshow.mp4" else tmp_path / name
    if name == "slides.gif":
        pictures = [Image.new("RGB", (64, 48), colour) for colour in COLOURS]
        pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=[700, 1000, 2000, 800, 3000])
    elif name == "recording.mkv":  # two pictures that stay, between them half a second of motion
        stays = "color=red:size=64x48:rate=10:duration=3[a];testsrc2=size=64x48:rate=10:duration=0.5[b];"
        stays += "color=white:size=64x48:rate=10:duration=2[c];[a][b][c]concat=n=3,mpdecimate"
        run_ffmpeg("-filter_complex", stays, "-fps_mode", "vfr", "-c:v", "libx264", path)
    run_ffmpeg("-i", path, "-vf", "fps=10", "-c:v", "libx264", "-qp", "0", tmp_path / "constant.mp4")
    detector = scenedetect.AdaptiveDetector(min_scene_len=6)  # 0.6 seconds
    want = scenedetect.detect(str(tmp_path / "constant.mp4"), detector, start_in_scene=True)
    assert len(want) == (2 if name == "recording.mkv" else 5)
    found = shown(path)
    assert [start for start, *_ in found] == pytest.approx([start.seconds for start, _ in want], abs=0.11)
    assert found[-1][1] == pytest.approx(probe(path).duration)


@pytest.mark.parametrize("seeking", [True, False])
def test_the_last_frame_lasts_as_long_as_its_packet(seeking, monkeypatch):
    if not seeking:
        monkeypatch.setattr(VideoFile, "_packet_index", None)
    path = CASES / "hold.mp4"
    assert probe(path).duration == pytest.approx(20.04)
    assert shown(path, 5) == approximately([(0, 5, 1), (5, 10, 1), (10, 15, 1), (15, 20.04, 1)])
    assert shown(path) == approximately([(0, 20.04, 1)])
    assert read_shot(path).end == pytest.approx(20.04)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov"])
def test_a_video_of_one_frame_lasts_as_long_as_it(tmp_path, suffix):
    path = tmp_path / f"one.{suffix}"
    run_ffmpeg("-f", "lavfi", "-i", "color=red:size=64x48:rate=1/10:duration=10", "-c:v", "libx264", path)
    info = probe(path)
    assert (info.frame_count, info.duration) == (1, pytest.approx(10))
    assert shown(path, 5) == approximately([(0, 5, 0), (5, 10, 0)])


def test_a_variable_rate(tmp_path):
    """Frames at 0, 0.1, 3, 3.1, 9: the holds between belong to the frames before them."""
    path = tmp_path / "variable.mkv"
    source = ["-f", "lavfi", "-i", "testsrc2=size=64x48:rate=10:duration=9.1"]
    kept = "select='eq(n,0)+eq(n,1)+eq(n,30)+eq(n,31)+eq(n,90)'"
    run_ffmpeg(*source, "-vf", kept, "-fps_mode", "vfr", "-c:v", "libx264", path)
    assert probe(path).times.tolist() == pytest.approx([0, 0.1, 3, 3.1, 9], abs=1e-3)
    assert [index for *_, index in shown(path, 2)] == [1, 2, 3, 3, 3]
    assert [index for *_, index in shown(path, 1)] == [1, 1, 1, 3, 3, 3, 3, 3, 3]


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "avif"])
def test_an_animation_is_a_video(tmp_path, suffix):
    images = [Image.new("RGB", (12, 9), colour) for colour in COLOURS]
    path = tmp_path / "animation.data"
    options = {"lossless": True} if suffix == "webp" else {}
    delays = [70, 3000, 50, 1010, 5000]
    images[0].save(path, suffix.upper(), save_all=True, append_images=images[1:], duration=delays, **options)
    info = probe(path)
    assert info.times.tolist() == pytest.approx([0, 0.07, 3.07, 3.12, 4.13]) and info.duration == pytest.approx(9.13)
    parts = list(iter_segments(path, 2))
    assert [part.frames[0].index for part in parts] == [1, 1, 4, 4, 4]
    assert parts[-1].frames[0].rgb.max() < 5 and parts[-1].end == pytest.approx(9.13)


def test_scenes_of_an_animation(tmp_path):
    """Two stills that stay for 2 s each, among flickering noise that makes the cut stand out."""
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(a, a + 20, (36, 64, 3), dtype=np.uint8)) for a in [20] * 20 + [220] * 20]
    images[0].save(tmp_path / "two.gif", save_all=True, append_images=images[1:], duration=100)
    assert [shot[:2] for shot in shown(tmp_path / "two.gif")] == approximately([(0, 2), (2, 4)])


def test_what_only_other_viewers_show_is_no_frame_of_an_animation(tmp_path):
    images = [Image.new("RGB", (12, 9), colour) for colour in COLOURS]
    path = tmp_path / "animation.png"
    images[0].save(path, save_all=True, append_images=images[1:], duration=500, default_image=True)
    assert probe(path).frame_count == 4 and probe(path).duration == pytest.approx(2)
    assert read_frames(path)[0].rgb[0, 0].tolist() == [255, 255, 255]


def test_a_file_read_in_part_gives_the_stretches_before_the_error(monkeypatch):
    path, decode = CASES / "clip.ts", VideoFile._decode

    def breaks_off(video, clock):
        for frame in decode(video, clock):
            yield frame
            if frame.index == 49:
                raise InputError(f"{path}: cannot be read beyond its first 50 frames")

    monkeypatch.setattr(VideoFile, "_packet_index", None)
    monkeypatch.setattr(VideoFile, "_decode", breaks_off)
    shots, segments = [], iter_segments(path, 1)
    with pytest.raises(InputError, match="beyond its first 50"):
        for shot in segments:
            shots.append((shot.start, shot.end, shot.frames[0].index))
    assert shots == approximately([(0, 1, 12), (1, 2, 37)])


def test_fewer_frames_than_the_packets_promise(monkeypatch):
    """The last frame that can be decoded stays on the screen."""
    decode = VideoFile._decode

    def breaks_off(video, clock):
        return (frame for frame in decode(video, clock) if frame.index < 20)

    def seek(video, packet_index, wanted):
        raise video_file._IndexMismatch
        yield

    monkeypatch.setattr(VideoFile, "_decode", breaks_off)
    monkeypatch.setattr(VideoFile, "_seek_and_decode", seek)
    assert [index for *_, index in shown(CASES / "clip.ts", 1)] == [12, 19, 19, 19]
    assert [index for *_, index in shown(CASES / "clip.ts", 2)] == [19, 19]


def test_a_matroska_file_of_few_frames_keeps_its_times(tmp_path):
    """FFmpeg finds no start time in it, since it takes more frames to tell in which order they are stored."""
    path = tmp_path / "few.mkv"
    source = ["-f", "lavfi", "-i", "testsrc2=size=64x48:rate=10:duration=4"]
    run_ffmpeg(*source, "-vf", "select='eq(n,0)+eq(n,30)+eq(n,35)'", "-fps_mode", "vfr", "-c:v", "libx264", path)
    with av.open(path) as container:
        assert container.streams.video[0].start_time is None
    assert probe(path).times == pytest.approx([0, 3, 3.5])
    assert [index for *_, index in shown(path, 1)] == [0, 0, 0, 1]
