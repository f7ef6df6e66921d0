"""MindRecord files: the images' bytes with their captions in MindSpore's own container."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from mindspore.dataset import MindDataset
from mindspore.mindrecord import FileReader, FileWriter

from mindone_coca.account import Account
from mindone_coca.data.samples import BadSample, Sample, Source, require_key
from mindone_coca.data.text import as_captions, parse_json
from mindone_coca.errors import InputError
from mindone_coca.files import reported_writes
from mindone_coca.places import Place

SCHEMA = {"name": {"type": "string"}, "captions": {"type": "string"}, "image": {"type": "bytes"}}
ROWS_AT_ONCE = 256  # written together; bounds the memory of the writer


class MindRecord:
    """The rows of MindRecord files, by default as `write_mindrecord` writes them.

    `caption_key` is a column with a text, a number, or JSON text of a list of texts; `image_key` one of bytes. The
    column `name`, when there is one, gives the name in messages.
    """

    def __init__(self, files: Sequence[Place], image_key: str = "image", caption_key: str = "captions"):
        self._files = [str(file) for file in files]
        columns = _columns(files)
        require_key(image_key, columns, files[0], "image_key")
        require_key(caption_key, columns, files[0], "caption_key")
        if columns[image_key]["type"] != "bytes":
            raise InputError(f"{files[0]}: column {image_key!r} holds no bytes (image_key)")
        self._columns = [image_key, caption_key] + (["name"] if "name" in columns else [])
        self._readers: dict[int, MindDataset] = {}
        self._length = self._open().get_dataset_size()
        self.account = Account(self._files[0])
        self.account.read = self._length

    def _open(self) -> MindDataset:
        return MindDataset(self._files, self._columns, shuffle=False, num_parallel_workers=1)

    def _reader(self) -> MindDataset:
        # A reader has open files, whose positions a forked process would share: each process opens its own.
        process = os.getpid()
        if process not in self._readers:
            self._readers[process] = self._open()
        return self._readers[process]

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_readers": {}}

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Sample:
        image, caption, *name = self._reader()[index]
        name = str(name[0].item()) if name else f"{self._files[0]}, row {index}"
        return Sample(name, _captions(caption.item()), image.tobytes())


def _columns(files: Sequence[Place]) -> dict[str, dict]:
    """The schema of the files: {column: {"type": ...}}."""
    try:
        reader = FileReader([str(file) for file in files], num_consumer=1)
    except RuntimeError as error:
        raise InputError(
            f"{files[0]}: not a MindRecord file with its .db beside it (they can be moved but not renamed)"
        ) from error
    schema = reader.schema()
    reader.close()
    return schema


def _captions(value: object) -> list[str]:
    if isinstance(value, str) and value.startswith("["):
        try:
            return as_captions(parse_json(value))
        except ValueError:
            return as_captions(value)  # a caption that begins with a bracket
    return as_captions(value)


def write_mindrecord(
    source: Source, target: Path, shards: int = 1, show: Callable[[range], Iterable[int]] = iter
) -> tuple[int, list[BadSample]]:
    """Write the samples of `source` with their bytes as they are; -> (number written, those that cannot be read).

    Columns: name (string), captions (string: JSON list), image (bytes). With several shards the files are target0,
    target1, ... (or target00, ... from ten on). Existing files are replaced only when all is written. `show` gives the
    samples' numbers back and shows how far they are.
    """
    written, bad, rows = 0, [], []
    # MindRecord stores its own file name, so it is written under its final name in a folder beside the target.
    with _reported(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{target.name}.", suffix=".partial", dir=target.parent) as folder:
            writer = FileWriter(str(Path(folder, target.name)), shards)
            writer.add_schema(SCHEMA, "images with captions")
            for index in show(range(len(source))):
                try:
                    rows.append(_row(source, index))
                except BadSample as error:
                    bad.append(error)
                if len(rows) == ROWS_AT_ONCE or (rows and index == len(source) - 1):
                    writer.write_raw_data(rows)
                    written, rows = written + len(rows), []
            if not written:
                raise InputError(
                    f"{target}: not written, because none of the {len(source)} samples can be read ({bad[0]})"
                )
            writer.commit()
            for file in Path(folder).iterdir():
                os.replace(file, target.with_name(file.name))
    return written, bad


@contextmanager
def _reported(target: Path) -> Iterator[None]:
    """What the system or MindRecord's writer refuses, as an OutputError."""
    with reported_writes(target):
        try:
            yield
        except RuntimeError as error:
            raise OSError(" ".join(str(error).split())) from error


def _row(source: Source, index: int) -> dict[str, str | bytes]:
    sample = source[index]
    try:
        return {"name": sample.name, "captions": json.dumps(list(sample.captions)), "image": sample.read()}
    except OSError as error:
        raise BadSample(sample.name, str(error)) from error
