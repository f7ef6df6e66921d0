"""Four pictures with a caption each, written as people write them, and what a reader makes of it."""

import pytest

from mindone_coca.errors import InputError
from tests.data.training_samples import open_one

CAPTIONS = ["three triangles", "a blue square left of a red one", "a circle", "one ring"]
AS_WRITTEN = [[caption] for caption in CAPTIONS]


def table(folder, *lines: str, name="list.csv", encoding="utf-8", end="\n") -> str:
    (folder / name).write_bytes((end.join(lines) + end).encode(encoding))
    return str(folder / name)


def rows(separator=",") -> list[str]:
    return [f"{number:02}.jpg{separator}{caption}" for number, caption in enumerate(CAPTIONS)]


def captions(source) -> list[list[str]]:
    return [list(source[number].captions) for number in range(len(source))]


def refused(settings, **data) -> str:
    with pytest.raises(InputError) as caught:
        open_one(settings, **data)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 2000
    return message
