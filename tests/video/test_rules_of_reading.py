"""Orientation, pixel shape, bit depth and formats: told by the content, by one rule for all."""

import struct
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mindone_coca.errors import InputError
from mindone_coca.video.frames import read_frames
from mindone_coca.video.media import Encoded
from mindone_coca.video.pictures import PictureRules
from tests.video.clips import run_ffmpeg
from tests.video.whole import iter_frames, probe

CASES = Path(__file__).parent / "cases"
AS_OPEN_CLIP = PictureRules(exif_orientation=False, scale_deep=False)


def draw(path: Path, *options: str) -> Path:
    source = ["-f", "lavfi", "-i", "testsrc2=size=128x96:rate=5:duration=1"]
    run_ffmpeg(*source, "-c:v", "libx264", "-qp", "0", *options, path)
    return path


def difference(first: np.ndarray, second: np.ndarray) -> float:
    return np.abs(first.astype(float) - second).mean()


# pixel shape


def test_a_dvd_shows_the_same_pictures_as_square_pixels():
    wide, square = (read_frames(CASES / name)[0].image for name in ("dvd1.mpg", "square1.mpg"))
    assert wide.size == (341, 192) and (probe(CASES / "dvd1.mpg").width, probe(CASES / "dvd1.mpg").height) == wide.size
    assert difference(np.asarray(wide), np.asarray(square.resize(wide.size))) < 6


@pytest.mark.parametrize(
    "suffix, shape, size",
    [
        ("mp4", "4/3", (171, 96)),
        ("mkv", "16/11", (186, 96)),
        ("ts", "8/9", (128, 108)),
        ("mov", "1/2", (128, 192)),
        ("mp4", "1", (128, 96)),
    ],
)
def test_the_side_that_was_squeezed_is_widened(tmp_path, suffix, shape, size):
    path = draw(tmp_path / f"clip.{suffix}", "-vf", f"setsar={shape}")
    [frame] = read_frames(path)
    assert frame.image.size == size
    square = draw(tmp_path / f"square.{suffix}", "-vf", "setsar=1")
    assert difference(frame.rgb, np.asarray(read_frames(square)[0].image.resize(frame.image.size))) < 8


@pytest.mark.parametrize("shape, size", [("4/3", (96, 171)), ("2/3", (144, 128)), ("2", (96, 256))])
def test_rotation_and_pixel_shape_together(tmp_path, shape, size):
    """Pixels are wide as stored, so what is widened stands upright after a quarter turn."""
    stored = draw(tmp_path / "stored.mp4", "-vf", f"setsar={shape}")
    turned = tmp_path / "turned.mp4"
    run_ffmpeg("-display_rotation", "90", "-i", stored, "-c", "copy", turned)
    [frame], [lying] = read_frames(turned), read_frames(stored)
    assert frame.image.size == size
    np.testing.assert_array_equal(np.rot90(lying.rgb), frame.rgb)


# orientation


def with_orientation(orientation: object, image_format: str) -> bytes:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = BytesIO()
    image.save(data, image_format, exif=exif)
    return data.getvalue()


def expected_turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """From EXIF's own table: which sides of the picture the stored first row and first column are."""
    turns = {1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud}
    turns |= {5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a, -1)}
    turns |= {7: lambda a: np.rot90(a, 2).swapaxes(0, 1), 8: lambda a: np.rot90(a, 1)}
    return turns.get(orientation, turns[1])(pixels)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", [*range(1, 10), 0])
def test_exif_orientation_turns_unless_the_rule_says_no(image_format, orientation):
    data = with_orientation(orientation, image_format)
    stored = np.asarray(Image.open(BytesIO(data)).convert("RGB"))
    source = Encoded(data, "picture")
    np.testing.assert_array_equal(read_frames(source)[0].rgb, expected_turn(stored, orientation))
    np.testing.assert_array_equal(read_frames(source, rules=AS_OPEN_CLIP)[0].rgb, stored)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_is_turned_once(orientation):
    """Pillow turns it, whatever the rule; so it does for open_clip."""
    stored = np.asarray(Image.open(BytesIO(with_orientation(1, "TIFF"))))
    source = Encoded(with_orientation(orientation, "TIFF"), "picture")
    for rules in (PictureRules(), AS_OPEN_CLIP):
        np.testing.assert_array_equal(read_frames(source, rules=rules)[0].rgb, expected_turn(stored, orientation))


@pytest.mark.parametrize("name", ["exif_text_number.jpg", "exif_bad.jpg"])
def test_exif_with_damaged_fields_turns_by_the_orientation_alone(name):
    stored = np.asarray(Image.open(CASES / name).convert("RGB"))
    np.testing.assert_array_equal(read_frames(CASES / name)[0].rgb, np.rot90(stored, -1))


def jpeg_with_exif(body: bytes) -> bytes:
    data = BytesIO()
    Image.new("RGB", (8, 6), "red").save(data, "JPEG")
    segment = b"Exif\0\0" + body
    return data.getvalue()[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data.getvalue()[2:]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense of all kinds",
        b"MM\0\x2a\0\0\0\x08\0\x05",  # the table is cut off
        b"MM\0\x2a\xff\xff\xff\xff",  # the table lies outside
        b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x026\0\0\0\0\0\0\0",  # a text
        b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x05\0\0\0\x01\xff\0\0\0\0\0\0\0",  # a fraction that lies outside
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of damaged EXIF
def test_exif_that_cannot_be_read_turns_nothing(body):
    [frame] = read_frames(Encoded(jpeg_with_exif(body), "photo.jpg"))
    assert frame.image.size == (8, 6)


# bit depth


def ramp() -> np.ndarray:
    return np.linspace(0, 65535, 64 * 16).reshape(16, 64).astype(np.uint16)


def deep_picture(kind: str) -> bytes:
    values = ramp()
    data = BytesIO()
    if kind == "pgm":
        return b"P5 64 16 65535\n" + values.astype(">u2").tobytes()
    image = {
        "png": lambda: Image.fromarray(values),
        "tiff": lambda: Image.fromarray(values),
        "tiff of integers": lambda: Image.fromarray(values.astype(np.int32) * 100, "I"),
        "tiff of floats": lambda: Image.fromarray(values.astype(np.float32) / 65535),
    }[kind]()
    image.save(data, kind.split()[0].upper())
    return data.getvalue()


@pytest.mark.parametrize("kind", ["png", "tiff", "pgm", "tiff of integers", "tiff of floats"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_pictures_of_more_than_8_bits_are_scaled_to_8(kind):
    source = Encoded(deep_picture(kind), "deep")
    [frame] = read_frames(source)
    assert frame.image.mode == "L"
    assert difference(frame.rgb[:, :, 0], ramp() / 257) < 0.6
    [kept] = read_frames(source, rules=AS_OPEN_CLIP)
    assert kept.image.mode in ("I;16", "I", "F")


def test_a_tiff_of_12_bits_is_scaled_by_its_depth():
    """Two pixels of 12 bits, packed: 4095 and 2048."""
    tags = [(256, 3, 1, 2), (257, 3, 1, 1), (258, 3, 1, 12), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 122)]
    tags += [(277, 3, 1, 1), (278, 3, 1, 1), (279, 4, 1, 3)]
    table = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    data = b"II\x2a\0\x08\0\0\0" + struct.pack("<H", len(tags)) + table + bytes(4)
    data += bytes(122 - len(data)) + b"\xff\xf8\x00"
    [frame] = read_frames(Encoded(data, "twelve.tiff"))
    assert frame.rgb[0, :, 0].tolist() == [255, 128]


# formats


def test_a_heic_of_tiles_is_read_whole():
    [frame] = read_frames(CASES / "IMG_0001.HEIC")
    assert frame.image.size == (384, 384)
    corners = [frame.rgb[y : y + 192, x : x + 192].mean(axis=(0, 1)) for y in (0, 192) for x in (0, 192)]
    assert min(difference(a, b) for n, a in enumerate(corners) for b in corners[:n]) > 1  # four tiles that differ


@pytest.mark.parametrize("orientation", [1, 3, 6, 7])
def test_a_heic_is_turned_once(orientation):
    heif = pytest.importorskip("pillow_heif")
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[:32, :48] = 255
    exif, data = Image.Exif(), BytesIO()
    exif[0x0112] = orientation
    heif.from_pillow(Image.fromarray(pixels)).save(data, quality=90, exif=exif.tobytes())
    [frame] = read_frames(Encoded(data.getvalue(), "photo.heic"))
    assert difference(frame.rgb, expected_turn(pixels, orientation)) < 8


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"mif1"])
def test_a_heic_without_its_library_is_refused_by_name_with_the_way_out(monkeypatch, brand):
    monkeypatch.setattr("mindone_coca.video.pictures.find_spec", lambda name: None)
    data = (CASES / "IMG_0001.HEIC").read_bytes()
    with pytest.raises(InputError, match=r"^IMG_0001\.HEIC: .*pip install pillow-heif.*convert") as raised:
        read_frames(Encoded(data[:8] + brand + data[12:], "IMG_0001.HEIC"))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM"])
def test_a_picture_is_told_by_its_content(tmp_path, image_format):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8))
    for name in ("no_suffix", "wrong.mp4", "wrong.mjpeg"):
        image.save(tmp_path / name, image_format)
        [frame] = read_frames(tmp_path / name)
        assert frame.image.size == (48, 32) and probe(tmp_path / name).duration == 0


@pytest.mark.parametrize("name", ["clip.ts", "phone.3gp", "hold.mp4", "dvd1.mpg"])
def test_a_video_is_told_by_its_content(tmp_path, name):
    data = (CASES / name).read_bytes()
    (tmp_path / "wrong.png").write_bytes(data)
    want = list(iter_frames(CASES / name))
    for source in (tmp_path / "wrong.png", Encoded(data, "member")):
        frames = list(iter_frames(source))
        assert [frame.time for frame in frames] == [frame.time for frame in want]
        np.testing.assert_array_equal(frames[-1].rgb, want[-1].rgb)
        np.testing.assert_array_equal(read_frames(source)[0].rgb, want[len(want) // 2].rgb)


def test_a_row_of_jpeg_pictures_is_a_video_and_a_preview_behind_one_is_not(tmp_path):
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=size=64x48:rate=25:duration=0.4", "-f", "mjpeg", tmp_path / "row.jpg")
    assert probe(tmp_path / "row.jpg").frame_count == 10
    photo, preview = BytesIO(), BytesIO()
    Image.new("RGB", (64, 48), "red").save(photo, "JPEG")
    Image.new("RGB", (16, 12), "red").save(preview, "JPEG")
    [frame] = iter_frames(Encoded(photo.getvalue() + preview.getvalue(), "photo.jpg"))
    assert frame.image.size == (64, 48)


@pytest.mark.parametrize("data", [b"This is no picture.\n" * 50, b"\x89PNG\r\n\x1a\n" + bytes(40), b""])
def test_messages_name_the_file_and_no_addresses(data):
    with pytest.raises(InputError, match=r"^shard\.tar/7\.png: ") as raised:
        read_frames(Encoded(data, "shard.tar/7.png"))
    assert " at 0x" not in str(raised.value) and "BytesIO" not in str(raised.value)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_motion_jpeg_with_exif_data(orientation):
    """FFmpeg hands on EXIF data as a kind of side data that PyAV does not know."""
    picture = with_orientation(orientation, "JPEG")
    stored = np.asarray(Image.open(BytesIO(picture)))
    frames = list(iter_frames(Encoded(picture * 4, "row.mjpeg")))
    assert len(frames) == 4
    assert difference(frames[2].rgb, expected_turn(stored, orientation)) < 30  # the chroma is enlarged in another way


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "tga"])
def test_what_only_its_name_calls_a_picture_is_refused(tmp_path, suffix):
    path = tmp_path / f"bad.{suffix}"
    path.write_bytes(b"no picture at all" * 9)
    with pytest.raises(InputError, match=rf"bad\.{suffix}: cannot be read as .*; is the file complete\?$"):
        read_frames(path)
