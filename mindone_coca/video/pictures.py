"""Pictures and animations through Pillow: told by their content, upright, with 8 bits a channel."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO

import numpy as np
from PIL import ExifTags, Image, ImageSequence, UnidentifiedImageError

from mindone_coca.errors import InputError
from mindone_coca.video.clock import Clock, Timeline
from mindone_coca.video.media import DecodedFrame, Encoded

# Named, because Pillow would also claim MPEG streams. Only these may hold an animation; TIFF's frames are pages.
_IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
_ANIMATION_FORMATS = ("GIF", "WEBP", "PNG", "AVIF")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_DEFAULT_DELAY = 0.1  # seconds; what viewers use for animations that give none
_BITS_PER_SAMPLE = 258  # TIFF's tag
_MOTION_JPEG_HEAD = 1 << 22  # bytes that hold the first picture and the start of the second
_END_AND_START_OF_JPEG = b"\xff\xd9\xff\xd8\xff"

# EXIF's orientation -> how the stored picture is turned to stand upright
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class PictureRules:
    """How still pictures are read. open_clip's numbers want both False.

    Attributes:
        exif_orientation: turn a picture as its EXIF data says.
        scale_deep: scale pictures of more than 8 bits to 8; else they keep their mode, which the transform clips.
    """

    exif_orientation: bool = True
    scale_deep: bool = True


DEFAULT_RULES = PictureRules()


class PictureFile:
    """A picture (one frame that lasts no time) or an animation; a FrameSource."""

    def __init__(self, source: Encoded, image: Image.Image, rules: PictureRules) -> None:
        self._source, self._image, self._rules = source, image, rules
        self._timeline: Timeline | None = None
        with _naming(source):
            self.is_animation = image.format in _ANIMATION_FORMATS and getattr(image, "is_animated", False)

    def timeline(self) -> Timeline:
        if not self.is_animation:
            return Timeline(np.zeros(1), 0.0)
        if self._timeline is None:
            clock = Clock()
            with _naming(self._source):
                for _ in self._animation(clock):
                    pass
            self._timeline = clock.timeline()
        return self._timeline

    def readable_timeline(self) -> tuple[Timeline, InputError | None]:
        return self.timeline(), None

    def frames(self) -> Iterator[DecodedFrame]:
        with _naming(self._source):
            if self.is_animation:
                yield from self._animation(Clock())
            else:
                self._image.load()
                yield DecodedFrame(0, 0.0, self._image)

    def at(self, indices: Sequence[int]) -> Iterator[DecodedFrame]:
        wanted = set(indices)
        for frame in self.frames():
            if frame.index in wanted:
                yield frame
                if frame.index == max(wanted):
                    return

    def pick(self, choose: Callable[[int], Sequence[int]]) -> list[DecodedFrame]:
        return list(self.at(choose(len(self.timeline().times))))

    def image(self, frame: DecodedFrame) -> Image.Image:
        with _naming(self._source):
            if self.is_animation:
                return frame.picture.convert("RGB")
            image = _scaled(frame.picture) if self._rules.scale_deep else frame.picture
            return _turned(image, _orientation(self._image)) if self._rules.exif_orientation else image

    def _animation(self, clock: Clock) -> Iterator[DecodedFrame]:
        time = 0.0
        # what a PNG shows where animations are not understood may be no part of the animation
        skipped = 1 if self._image.info.get("default_image") else 0
        for number, shown in enumerate(ImageSequence.Iterator(self._image)):
            if number < skipped:
                continue
            shown.load()  # some formats know a frame's delay only then
            delay = shown.info.get("duration", 0) / 1000 or _DEFAULT_DELAY
            # a copy, because Pillow draws the next frame into the same picture
            yield DecodedFrame(number - skipped, clock.add(time, delay), shown.copy())
            time += delay
        self._timeline = clock.timeline()


def open_picture(source: Encoded, rules: PictureRules) -> PictureFile | None:
    """The picture or animation, not decoded yet; None if it is of none of the known formats."""
    try:
        with Image.open(source.for_pillow(), formats=_IMAGE_FORMATS) as image:
            kind = image.format
    except UnidentifiedImageError:
        if not _is_heif(source):
            return None
        _register_heif(source)
        kind = "HEIF"
    except Exception as error:  # as in _naming
        raise _unreadable(source, error) from error
    stored = Encoded(source.read(), source.name)
    if kind == "JPEG" and is_motion_jpeg(stored.head):
        return None
    with _naming(source):
        image = Image.open(stored.for_pillow(), formats=("HEIF",) if kind == "HEIF" else _IMAGE_FORMATS)
    return PictureFile(source, image, rules)


def is_motion_jpeg(head: Callable[[int], bytes]) -> bool:
    """Whether a file that gives its first bytes by `head(size)` is a row of JPEG pictures of one size: a video, of
    which Pillow sees the first picture only.

    Cameras, too, put a second picture behind the first, a preview or a map of depths; those are smaller.
    """
    if head(3) != _END_AND_START_OF_JPEG[2:]:
        return False
    data = head(_MOTION_JPEG_HEAD)
    end = data.find(_END_AND_START_OF_JPEG)
    if end < 0:
        return False
    try:
        sizes = [Image.open(BytesIO(part), formats=["JPEG"]).size for part in (data[: end + 2], data[end + 2 :])]
    except (OSError, SyntaxError):  # what follows is no picture
        return False
    return sizes[0] == sizes[1]


def _is_heif(source: Encoded) -> bool:
    head = source.head(12)
    return head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS


def _register_heif(source: Encoded) -> None:
    """Let Pillow read HEIC. FFmpeg would give one of the tiles that such a picture is made of."""
    if find_spec("pillow_heif") is None:
        raise InputError(
            f"{source.name}: HEIC pictures need the library pillow-heif; install it (pip install pillow-heif) or "
            "convert the picture to JPEG"
        )
    from pillow_heif import register_heif_opener

    register_heif_opener()


@contextmanager
def _naming(source: Encoded) -> Iterator[None]:
    """Turn errors of Pillow into ones that name the file."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # on damaged data Pillow's readers raise nearly anything, IndexError for one
        raise _unreadable(source, error) from error


def _unreadable(source: Encoded, error: Exception) -> InputError:
    return InputError(f"{source.name}: cannot be read as an image ({error}); is the file complete?")


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation; 1, upright, where the data holds none that can be read."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged EXIF data raises nearly anything, and says nothing of the picture, which is whole
        return 1
    return orientation if isinstance(orientation, int) else 1


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    if orientation not in _TURNS:
        return image
    image = image.transpose(_TURNS[orientation])
    image.info.pop("exif", None)  # or others would turn it again
    return image


def _scaled(image: Image.Image) -> Image.Image:
    """A picture of more than 8 bits as one of 8; others as they are.

    White is the largest number of the stored depth. Integers of 32 bits and floats name no white: it is the least of
    1 (floats only), 255 and 65535 that no value exceeds, else the largest value.
    """
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.nan_to_num(np.asarray(image).astype(np.float64), posinf=0, neginf=0)
    if image.mode.startswith("I;"):
        tags = getattr(image, "tag_v2", {})
        bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]
        white = float(2**bits - 1)
    else:
        whites = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
        white = next((white for white in whites if values.max() <= white), values.max())
    return Image.fromarray(np.rint(np.clip(values / white, 0, 1) * 255).astype(np.uint8))
