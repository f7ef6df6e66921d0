"""Text files by their byte order mark, and values of their fields."""

import codecs
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from typing import Any, TextIO

from mindone_coca.errors import InputError
from mindone_coca.places import Place, open_binary

# UTF-32's mark begins with UTF-16's, so it is tried first.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def encoding_of(head: bytes) -> str:
    """The encoding that a file's first bytes tell, UTF-8 where they tell none."""
    return next((name for mark, name in _MARKS if head.startswith(mark)), "utf-8-sig")


def decode(content: bytes) -> str:
    """Text by its byte order mark. Raises UnicodeDecodeError."""
    return content.decode(encoding_of(content[:4]))


@contextmanager
def open_text(path: Place) -> Iterator[TextIO]:
    """A text file by its byte order mark, line ends as they are. Raises InputError for what is no such text."""
    with open_binary(path) as file:
        encoding = encoding_of(file.read(4))
        file.seek(0)
        try:
            yield TextIOWrapper(file, encoding, newline="")
        except UnicodeError as error:
            raise InputError(_not_text(path, encoding, error)) from error


def _not_text(path: Place, encoding: str, error: UnicodeError) -> str:
    if encoding != "utf-8-sig":
        return f"{path}: it begins as {encoding.upper()} and is not ({error}); save it as UTF-8"
    with open_binary(path) as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError as found:
                byte = line[found.start]
                return (
                    f"{path}: line {number} is not UTF-8 (byte 0x{byte:02X}); save the file as UTF-8, or convert it, "
                    "as by iconv -f LATIN1 -t UTF-8"
                )
    return f"{path}: not UTF-8 ({error}); save it as UTF-8"


def parse_json(text: str | bytes) -> Any:
    """The value in a JSON text. Raises ValueError, also for values that are nested too deep."""
    try:
        return json.loads((decode(text) if isinstance(text, bytes) else text).strip())
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at character {error.pos + 1:,}") from None
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def is_missing(value: object) -> bool:
    """Whether a field holds nothing: null, or NaN as pandas writes it into JSON."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def as_captions(value: object) -> list[str]:
    """The captions in a field that holds a text, a number (a class label), or a list of these.

    Blank ones, null and NaN are no captions. Raises ValueError for what is no text.
    """
    values = value if isinstance(value, list) else [value]
    texts = (as_text(item) for item in values if not is_missing(item))
    return [text for text in texts if text]


def as_text(value: object) -> str:
    """A field's text or number as text, without blanks around it; nothing for null and NaN. Raises ValueError."""
    if is_missing(value):
        return ""
    if isinstance(value, (dict, list)):
        raise ValueError(f"a text is wanted, not a JSON {'object' if isinstance(value, dict) else 'list'}")
    text = str(value).strip()
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:  # JSON can hold such halves
            raise ValueError("half of a surrogate pair is no text") from None
    return text


def as_path(value: object) -> str:
    """The path in a field; nothing for null and NaN. Raises ValueError for what can be no path."""
    path = as_text(value)
    if "\0" in path:
        raise ValueError("a path holds no NUL")
    return path
