"""Lists of image files with captions: CSV, TSV, JSONL, JSON and COCO."""

from collections.abc import Iterable, Iterator

from mindone_coca.account import Account, shorten
from mindone_coca.data.json_lists import coco_rows, json_rows, jsonl_rows, read_json_list
from mindone_coca.data.samples import PackedRows, Sample
from mindone_coca.data.tables import ListRow, table_rows
from mindone_coca.data.text import as_captions, as_path
from mindone_coca.errors import InputError
from mindone_coca.places import Place, UrlPath, content_of, is_file
from mindone_coca.storage import is_url

LAVIS_KEYS = ("image", "caption")


class FileList:
    """Samples whose images are files: rows of (path relative to `root` or absolute, captions[, image id]).

    `account` is of the list; reading the rows fills it.
    """

    def __init__(self, rows: Iterable[tuple], root: Place, account: Account):
        self._rows, self._root, self.account = PackedRows(_counted(rows, account)), root, account
        if account.read or not account.refused:  # else the account says why there are no rows
            require_files((row[0] for row in self._rows.head(10)), root, account.place)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        path, captions, *image_id = self._rows[index]
        return file_sample(self._root, path, captions, *image_id)


def _counted(rows: Iterable[tuple], account: Account) -> Iterator[tuple]:
    for row in rows:
        account.read += 1
        account.without_caption += not row[1]
        yield row


def file_sample(root: Place, path: str, captions: list[str], image_id: int | str | None = None) -> Sample:
    """The sample in a file, of which the path is a URL, absolute, or starts at `root`."""
    found = file_place(root, path)
    return Sample(str(found), captions, content_of(found), image_id)


def file_place(root: Place, path: str) -> Place:
    """Where a list's file is."""
    return UrlPath(path) if is_url(path) else root / path


def require_files(first_paths: Iterable[str], root: Place, list_file: str | Place) -> None:
    """InputError when there are no paths, or none of them is a file. Of URLs only as many are asked as it takes."""
    paths = [file_place(root, path) for path in first_paths]
    if not paths:
        raise InputError(f"{list_file}: no samples in it")
    if not any(map(is_file, paths)):
        raise InputError(
            f"{list_file}: {shorten(str(paths[0]), 500)} does not exist (nor do the files after it); "
            f"relative paths start at {root}, set image_root to start elsewhere"
        )


def read_table(
    path: Place, image_key: str, caption_key: str, separator: str | None, root: Place, setting: str
) -> FileList:
    """CSV or TSV with a header line, as open_clip reads it: each row is a sample of its own.

    `separator` None: that with which the header has the columns. `setting` is what messages call `caption_key`.
    """
    account = Account(path)
    rows = table_rows(path, {image_key: "image_key", caption_key: setting}, separator, account)
    return FileList(_captioned(rows, image_key, caption_key, account), root, account)


def read_jsonl(path: Place, image_key: str, caption_key: str, root: Place, setting: str) -> FileList:
    """One JSON object a line; the caption field holds a text or a list of texts."""
    account = Account(path)
    rows = jsonl_rows(path, {image_key: "image_key", caption_key: setting}, account)
    return FileList(_captioned(rows, image_key, caption_key, account), root, account)


def read_json(
    path: Place, image_key: str | None, caption_key: str | None, usual: tuple[str, str], root: Place, setting: str
) -> FileList:
    """A JSON list of objects, with fields as in JSONL.

    `image_key` and `caption_key` None: the `usual` ones, or where the first object has not those, LAVIS's.
    """
    account, items = Account(path), read_json_list(path)
    first = next((row for row in items if isinstance(row, dict)), {})
    keys = [lavis if lavis in first and key not in first else key for key, lavis in zip(usual, LAVIS_KEYS)]
    image_key, caption_key = image_key or keys[0], caption_key or keys[1]
    rows = json_rows(path, items, {image_key: "image_key", caption_key: setting}, account)
    return FileList(_captioned(rows, image_key, caption_key, account), root, account)


def read_coco(path: Place, root: Place) -> FileList:
    """COCO's captions, several an image."""
    account = Account(path, "image")
    return FileList(coco_rows(path, account), root, account)


def _captioned(
    rows: Iterable[ListRow], image_key: str, caption_key: str, account: Account
) -> Iterator[tuple[str, list[str]]]:
    for where, row in rows:
        key = image_key
        try:
            path = as_path(row[image_key])
            key = caption_key
            captions = as_captions(row[caption_key])
        except ValueError as error:
            account.refuse(f"{where}: {key}: {error}")
            continue
        if path:
            yield path, captions
        else:
            account.refuse(f"{where} has no {image_key}")
