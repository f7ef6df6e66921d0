"""Pictures small enough to stand in a page."""

import base64
from io import BytesIO

from PIL import Image


def thumbnail(image: Image.Image, width: int) -> str:
    """A JPEG in base64, at most `width` pixels wide and twice as high."""
    small = image.convert("RGB")
    small.thumbnail((width, 2 * width), Image.Resampling.BICUBIC)
    encoded = BytesIO()
    small.save(encoded, "JPEG", quality=80)
    return base64.b64encode(encoded.getvalue()).decode()
