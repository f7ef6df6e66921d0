"""Frame reading against sequential decoding by the ffmpeg program, an independent build."""

import math
import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from mindone_coca.errors import InputError
from mindone_coca.video.file import VideoFile
from mindone_coca.video.frames import read_frames
from tests.video.clips import CLIPS, REAL_CLIPS, make_clips, reference_frames, reference_times, run_ffmpeg
from tests.video.whole import iter_frames, probe

# Decoding from a keyframe must do for these: their packets tell the frames exactly.
SEEKABLE = [
    "one_gop.mp4",
    "open_gop.mp4",
    "open_gop.ts",
    "b_frames.mkv",
    "hevc.mp4",
    "ten_bit.mp4",
    "vp9.webm",
    "prores.mov",
    "edit_list.mp4",
    "no_edit_list.mp4",
    "fragments.mp4",
    "variable_rate.mp4",
    "rotate_90.mp4",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    make_clips(folder)
    return folder


@pytest.fixture(params=[*CLIPS, *REAL_CLIPS], ids=lambda clip: Path(clip).name)
def clip(request, folder) -> Path:
    return folder / request.param


def assert_frames_equal(frames, reference):
    for frame in frames:
        np.testing.assert_array_equal(frame.rgb, reference[frame.index], err_msg=f"frame {frame.index}")


def expected_spread(count, wanted):
    if wanted >= count:
        return list(range(count))
    return [math.floor(i * (count - 1) / (wanted - 1) + 0.5) for i in range(wanted)]


@pytest.mark.graphs
def test_frames_equal_sequential_decoding(clip):
    reference = reference_frames(clip)
    count = len(reference)
    frames = list(iter_frames(clip))
    assert [frame.index for frame in frames] == list(range(count))
    assert_frames_equal(frames, reference)

    (middle,) = read_frames(clip)
    assert middle.index == count // 2
    assert_frames_equal([middle], reference)
    for wanted in [1, 16] if clip in REAL_CLIPS else [1, 2, 3, 16, 1000]:
        several = read_frames(clip, "multi_frames", wanted)
        assert [frame.index for frame in several] == ([count // 2] if wanted == 1 else expected_spread(count, wanted))
        assert_frames_equal(several, reference)
        assert [frame.time for frame in several] == pytest.approx([frames[frame.index].time for frame in several])
    assert [frame.index for frame in read_frames(clip, "mutil_frames", 16)] == expected_spread(count, 16)

    info = probe(clip)
    assert (info.height, info.width) == reference.shape[1:3] and info.frame_count == count
    assert info.times.tolist() == pytest.approx([frame.time for frame in frames])


@pytest.mark.graphs
def test_times_equal_the_ffmpeg_programs(clip):
    if clip.suffix in (".avi", ".h264"):  # no time stamps inside: a constant rate
        expected, last = [index / 25 for index in range(75)], 1 / 25
    else:
        expected, last = reference_times(clip)
    info = probe(clip)
    assert info.times.tolist() == pytest.approx(expected, abs=1e-6)
    assert info.duration == pytest.approx(expected[-1] + last - expected[0], abs=1e-6)


@pytest.mark.parametrize("name", SEEKABLE)
def test_a_few_frames_are_read_without_decoding_all(folder, name, monkeypatch):
    """Every frame is reached from the keyframe before it, and equals sequential decoding."""
    path = folder / name
    reference = reference_frames(path)
    decode_all = VideoFile.frames

    def only_the_first(video):
        yield next(decode_all(video))
        raise AssertionError("decoded on from the start of the file")

    monkeypatch.setattr(VideoFile, "frames", only_the_first)
    video = VideoFile(path)
    for index in range(len(reference)):
        (frame,) = video.pick(lambda count, index=index: [index])
        np.testing.assert_array_equal(video.rgb(frame), reference[index])
    assert_frames_equal(read_frames(path, "multi_frames", 5), reference)


def test_a_picture_size_that_changes_within_the_file(folder):
    large, small = reference_frames(folder / "open_gop.ts"), reference_frames(folder / "small.ts")
    frames = list(iter_frames(folder / "two_sizes.ts"))
    assert len(frames) == len(large) + len(small)
    np.testing.assert_array_equal(frames[0].rgb, large[0])
    np.testing.assert_array_equal(frames[-1].rgb, small[-1])
    last = read_frames(folder / "two_sizes.ts", "multi_frames", 2)[-1]
    np.testing.assert_array_equal(last.rgb, small[-1])


def test_rotation_is_applied(folder):
    upright, turned = probe(folder / "one_gop.mp4"), probe(folder / "rotate_90.mp4")
    assert (upright.width, upright.height) == (turned.height, turned.width) == (130, 98)


def test_frame_counts_that_lie(folder, tmp_path):
    for name in ["mjpeg.avi", "mpeg4.avi"]:
        data = bytearray((folder / name).read_bytes())
        header = data.index(b"avih") + 8
        data[header + 16 : header + 20] = (7).to_bytes(4, "little")  # dwTotalFrames
        stream = data.index(b"strh") + 8
        data[stream + 32 : stream + 36] = (9999).to_bytes(4, "little")  # dwLength
        (tmp_path / name).write_bytes(data)
        assert probe(tmp_path / name).frame_count == 75
        assert read_frames(tmp_path / name)[0].index == 37
    data = bytearray((folder / "b_frames.mkv").read_bytes())
    duration = data.index(b"\x44\x89\x88") + 3  # Duration, a double
    data[duration : duration + 8] = np.array(9e6, ">f8").tobytes()
    (tmp_path / "long.mkv").write_bytes(data)
    assert probe(tmp_path / "long.mkv").frame_count == 75 and probe(tmp_path / "long.mkv").duration == pytest.approx(3)


@pytest.mark.parametrize(
    "name", ["b_frames.mkv", "vp9.webm", "open_gop.ts", "mjpeg.avi", "sorenson.flv", "fragments.mp4"]
)
@pytest.mark.parametrize("part", [0.5, 0.8])
def test_of_a_cut_streaming_file_the_frames_that_decode_count(folder, tmp_path, name, part):
    data = (folder / name).read_bytes()
    cut = tmp_path / name
    cut.write_bytes(data[: int(len(data) * part)])
    reference = reference_frames(cut)
    assert 10 < len(reference) < 75
    frames = list(iter_frames(cut))
    assert len(frames) == probe(cut).frame_count == len(reference)
    assert_frames_equal(frames[:-1], reference)  # of the last one half is missing, and is filled up somehow
    (middle,) = read_frames(cut)
    assert middle.index == len(reference) // 2
    assert_frames_equal([middle], reference)


def test_damage_within_a_file(folder, tmp_path):
    data = bytearray((folder / "b_frames.mkv").read_bytes())
    data[len(data) // 3 : len(data) // 3 + 900] = bytes(900)
    path = tmp_path / "damaged.mkv"
    path.write_bytes(data)
    frames = list(iter_frames(path))
    assert 10 < len(frames) <= 75
    intact = reference_frames(folder / "b_frames.mkv")
    np.testing.assert_array_equal(frames[0].rgb, intact[0])
    for frame in read_frames(path, "multi_frames", 3):
        assert frame.rgb.shape == (98, 130, 3)


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "call", [read_frames, probe, lambda path: list(iter_frames(path))], ids=["read", "probe", "iter"]
)
def test_unusable_files_are_refused_by_name(folder, tmp_path, call, capfd):
    whole = (folder / "one_gop.mp4").read_bytes()
    moov_first = (folder / "moov_first.mp4").read_bytes()
    photo = tmp_path / "cover.jpg"
    Image.effect_noise((60, 60), 50).save(photo)
    images = [Image.effect_noise((30, 20), spread) for spread in (10, 50, 90)]
    images[0].save(tmp_path / "animation.gif", save_all=True, append_images=images[1:])
    animation = (tmp_path / "animation.gif").read_bytes()
    cover = tmp_path / "cover.mp3"
    sound = ["-f", "lavfi", "-i", "sine=duration=1"]
    run_ffmpeg(*sound, "-i", photo, "-map", "0", "-map", "1", "-disposition:v", "attached_pic", cover)
    headless = bytearray(whole)
    headless[headless.index(b"mdat") + 4 : headless.index(b"moov") - 4] = bytes(
        headless.index(b"moov") - headless.index(b"mdat") - 8
    )
    cases = [
        (tmp_path / "missing.mp4", "no such file"),
        (tmp_path, "not a file"),
        (write(tmp_path / "empty.mp4", b""), r"is empty \(0 bytes\)"),
        (write(tmp_path / "text.mp4", b"This is no video.\n" * 50), "cannot be read as video or image"),
        (write(tmp_path / "notes.txt", b"This is no video.\n" * 50), r"cannot be read as video|is a text file"),
        (write(tmp_path / "noise.mkv", np.random.default_rng(0).bytes(5000)), "cannot be read"),
        (write(tmp_path / "cut.mp4", whole[: len(whole) // 2]), "is the file complete"),
        (write(tmp_path / "cut_moov_first.mp4", moov_first[: len(moov_first) // 2]), "is cut short; it has"),
        (write(tmp_path / "cut_by_one.mp4", moov_first[:-1]), "is cut short; it has"),
        (write(tmp_path / "zeros.mp4", headless), "no video frame that can be decoded"),
        (folder / "audio.mp4", "has no video stream"),
        (cover, "has no video stream"),
        (write(tmp_path / "cut.jpg", photo.read_bytes()[:-300]), r"cannot be read as an image .*complete"),
        (write(tmp_path / "cut.gif", animation[:-20]), r"cannot be read as an image .*complete"),
        (write(tmp_path / "cut_head.jpg", photo.read_bytes()[:50]), r"cannot be read as an image .*complete"),
    ]
    capfd.readouterr()
    for path, words in cases:
        with pytest.raises(InputError, match=words) as raised:
            call(path)
        assert str(raised.value).startswith(f"{path}: ") and "\n" not in str(raised.value)
    assert capfd.readouterr() == ("", "")  # the libraries print nothing of their own


def test_a_real_clip_cut_in_half_is_refused(tmp_path):
    data = REAL_CLIPS[0].read_bytes()
    with pytest.raises(InputError, match=r"bikes\.mp4: cannot be read as video or image .*is the file complete"):
        read_frames(write(tmp_path / "bikes.mp4", data[: len(data) // 2]))


def test_a_read_error_in_the_middle_is_told(folder, monkeypatch):
    class BrokenDisk:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def demux(self, stream):
            raise av.error.OSError(5, "Input/output error")
            yield

    video = VideoFile(folder / "one_gop.mp4")
    monkeypatch.setattr(video, "_open", lambda: (BrokenDisk(), None))
    with pytest.raises(InputError, match=r"one_gop\.mp4: cannot be read beyond its first 0 frames: Input/output error"):
        next(video.frames())


@pytest.mark.parametrize(
    "arguments, words", [(("first",), "middle, multi_frames"), (("multi_frames", 0), "at least 1")]
)
def test_wrong_arguments_are_refused(folder, arguments, words):
    with pytest.raises(InputError, match=words):
        read_frames(folder / "one_gop.mp4", *arguments)


def test_metadata_in_another_encoding(folder, tmp_path):
    run_ffmpeg("-i", folder / "one_frame.mp4", "-c", "copy", "-metadata", "title=ABCDEFGH", tmp_path / "latin.mp4")
    data = (tmp_path / "latin.mp4").read_bytes()
    assert b"ABCDEFGH" in data
    path = write(tmp_path / "latin.mp4", data.replace(b"ABCDEFGH", "Äquators".encode("latin-1")))
    assert len(read_frames(path)) == 1


def test_names_with_special_characters(folder, tmp_path):
    path = write(tmp_path / "http: a%20b#ü😀,100%.mp4", (folder / "one_frame.mp4").read_bytes())
    assert read_frames(str(path))[0].image.size == (130, 98)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tiff", "gif", "ppm", "jp2", "mp4"])
def test_a_still_image_is_a_video_of_one_frame(tmp_path, suffix):
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 41, 3), dtype=np.uint8))
    path = tmp_path / f"photo.{suffix}"
    photo.save(path, format="PNG" if suffix == "mp4" else None)
    for frames in [read_frames(path), read_frames(path, "multi_frames", 16), list(iter_frames(path))]:
        assert [(frame.index, frame.time) for frame in frames] == [(0, 0.0)]
        np.testing.assert_array_equal(frames[0].rgb, np.asarray(Image.open(path).convert("RGB")))
    info = probe(path)
    assert (info.width, info.height, info.frame_count, info.duration) == (41, 30, 1, 0.0)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "1", "CMYK"])
def test_a_still_image_keeps_its_mode(tmp_path, mode):
    image = Image.new("RGB", (8, 6), "red").convert(mode)
    path = tmp_path / ("image.tiff" if mode == "CMYK" else "image.png")
    image.save(path)
    (frame,) = read_frames(path)
    assert frame.image.mode == mode and frame.rgb.shape == (6, 8, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    stored = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }[orientation](pixels)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.png"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif)
    np.testing.assert_array_equal(read_frames(path)[0].rgb, pixels)
    assert (probe(path).width, probe(path).height) == (8, 6)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_an_animation_is_a_video(tmp_path, suffix):
    colours = ["red", "lime", "blue", "white", "black"]
    images = [Image.new("RGB", (12, 9), colour) for colour in colours]
    path = tmp_path / f"animation.{suffix}"
    lossless = {"lossless": True} if suffix == "webp" else {}
    images[0].save(path, save_all=True, append_images=images[1:], duration=[100, 200, 50, 40, 90], **lossless)
    frames = list(iter_frames(path))
    for frame, image in zip(frames, images, strict=True):
        np.testing.assert_array_equal(frame.rgb, np.asarray(image))
    assert [frame.time for frame in frames] == pytest.approx([0, 0.1, 0.3, 0.35, 0.39])
    assert [frame.index for frame in read_frames(path)] == [2]
    assert [frame.index for frame in read_frames(path, "multi_frames", 3)] == [0, 2, 4]
    assert probe(path).frame_count == 5


@pytest.mark.parametrize("count", [2, 4])
def test_the_middle_of_an_even_number_is_the_second_half_s_first(tmp_path, count):
    images = [Image.new("RGB", (12, 9), (60 * number, 0, 0)) for number in range(count)]
    images[0].save(tmp_path / "even.gif", save_all=True, append_images=images[1:], duration=100)
    assert [frame.index for frame in read_frames(tmp_path / "even.gif")] == [count // 2]


def test_pages_of_a_tiff_are_no_video(tmp_path):
    pages = [Image.new("L", (5, 5), value) for value in (10, 20, 30)]
    pages[0].save(tmp_path / "pages.tiff", save_all=True, append_images=pages[1:])
    (frame,) = iter_frames(tmp_path / "pages.tiff")
    assert frame.rgb[0, 0, 0] == 10


@pytest.mark.graphs
def test_memory_does_not_grow_with_the_number_of_frames(tmp_path):
    code = (
        "import resource, sys; from mindone_coca.video.frames import read_frames\n"
        "from tests.video.whole import iter_frames, probe\n"
        "count = sum(1 for _ in iter_frames(sys.argv[1])); assert probe(sys.argv[1]).frame_count == count\n"
        "read_frames(sys.argv[1]); print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    peaks = []
    for seconds in (1, 16):
        path = tmp_path / f"{seconds}.mp4"
        run_ffmpeg(
            "-f", "lavfi", "-i", f"testsrc2=size=960x540:rate=25:duration={seconds}", "-preset", "ultrafast", path
        )
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        done = subprocess.run(
            [sys.executable, "-c", code, path], env=environment, capture_output=True, text=True, check=True
        )
        count, peak = map(int, done.stdout.split())
        assert count == 25 * seconds
        peaks.append(peak / 1024)
    assert peaks[1] - peaks[0] < 100  # MiB; the 375 further frames are 556 MiB
