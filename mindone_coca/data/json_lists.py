"""Rows in JSON: an object a line, a list of objects, and COCO's captions."""

from collections.abc import Iterator, Mapping
from typing import Any

from mindone_coca.account import Account, number_of, some, some_of
from mindone_coca.data.samples import require_key
from mindone_coca.data.tables import ListRow
from mindone_coca.data.text import as_captions, as_path, open_text, parse_json
from mindone_coca.errors import InputError
from mindone_coca.places import Place

CocoRow = tuple[str, list[str], int | str]  # file name, captions, image id


def first_json(path: Place) -> tuple[str, bool]:
    """The first character of a JSON file, and whether a whole value other than COCO's stands in the first line."""
    with open_text(path) as file:
        line = ""
        while not line.strip() and (line := file.readline(1 << 20)):
            pass
        more = bool(file.read(1))
    try:
        value = parse_json(line)
    except ValueError:
        return line.strip()[:1], False
    return line.strip()[:1], more and isinstance(value, dict) and not {"images", "annotations"} & set(value)


def jsonl_rows(path: Place, fields: Mapping[str, str], account: Account) -> Iterator[ListRow]:
    """The objects of a file with one JSON object a line, or of one JSON list; arguments as in table_rows."""
    if first_json(path)[0] == "[":
        yield from json_rows(path, read_json_list(path), fields, account)
        return
    with open_text(path) as file:
        for number, line in enumerate(file, 1):
            where = f"{path}: line {number}"
            try:
                row = parse_json(line) if line.strip() else None
            except ValueError as error:
                account.refuse(f"{where} is not JSON ({error})")
                continue
            if line.strip():
                yield from _row(where, row, fields, account)


def json_rows(path: Place, items: list[Any], fields: Mapping[str, str], account: Account) -> Iterator[ListRow]:
    """The objects among the items of the JSON list that a file holds, as LAVIS has them."""
    for number, row in enumerate(items, 1):
        yield from _row(f"{path}: item {number}", row, fields, account)


def read_json_list(path: Place) -> list[Any]:
    """The list in a JSON file. Raises InputError."""
    rows = _read(path, "JSON")
    if not isinstance(rows, list):
        other = "jsonl or coco" if isinstance(rows, dict) else "another"
        raise InputError(f"{path}: not a JSON list of objects; set format to {other}, or leave it out")
    return rows


def _row(where: str, row: Any, fields: Mapping[str, str], account: Account) -> Iterator[ListRow]:
    """The row, if it is an object with the fields; otherwise it is refused."""
    if not isinstance(row, dict):
        account.refuse(f"{where} is not a JSON object")
        return
    try:
        for field, setting in fields.items():
            require_key(field, row, where, setting)
    except InputError as error:
        account.refuse(str(error))
    else:
        yield where, row


def coco_rows(path: Place, account: Account) -> list[CocoRow]:
    """The images of COCO's captions: `images` with id and file_name, `annotations` with image_id and caption.

    An id is the same whether it is written as a number or as text. Images without an annotation (the test lists have
    such) are no samples; annotations without an image say nothing. Both are counted.
    """
    content = _read(path, "a COCO captions file")
    if isinstance(content, list):
        raise InputError(f"{path}: not a COCO captions file but a list; set format to json, or leave it out")
    for key in ("annotations", "images"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise InputError(
                f"{path}: not a COCO captions file: it has no list {key!r}; see the setting format for others"
            )
    captions = _coco_captions(path, content["annotations"], account)
    rows: list[CocoRow] = []
    seen: dict[str, str] = {}
    without: list[str] = []
    for number, image in enumerate(content["images"]):
        where = f"{path}: images[{number}]"
        try:
            name, image_id = as_path(_field(image, "file_name")), _field(image, "id")
            key = _id(image_id)
            if not name:
                raise ValueError("its file_name is empty")
        except ValueError as error:
            account.refuse(f"{where}: {error}")
            continue
        if key in seen:
            if seen[key] != name:
                account.refuse(f"{where} has the id {image_id!r} of another image, {seen[key]}; give it its own")
            continue
        seen[key] = name
        if key in captions:
            rows.append((name, captions[key], image_id))
        else:
            without.append(name)
    unknown = [key for key in captions if key not in seen]
    if captions and not rows and not account.refused:
        raise InputError(
            f"{path}: no image has an id that the annotations name: images have {some_of(list(seen), 3) or 'none'}, "
            f"annotations image_id {some_of(unknown, 3)}"
        )
    if without:
        account.notes.append(f"no annotation for {number_of(len(without), 'image')}: {some(without, len(without))}")
    if unknown:
        account.notes.append(f"no image for the annotations of image_id {some_of(unknown, 3)}")
    return rows


def _coco_captions(path: Place, annotations: list[Any], account: Account) -> dict[str, list[str]]:
    """The captions by image id."""
    captions: dict[str, list[str]] = {}
    for number, note in enumerate(annotations):
        try:
            texts = as_captions(_field(note, "caption"))
            captions.setdefault(_id(_field(note, "image_id")), []).extend(texts)
        except ValueError as error:
            account.refuse(f"{path}: annotations[{number}]: {error}")
    return captions


def _field(item: Any, key: str) -> Any:
    """A field of an object in COCO's lists. Raises ValueError."""
    if not isinstance(item, dict):
        raise ValueError("it is not an object")
    if key not in item:
        raise ValueError(f"it has no {key!r}")
    return item[key]


def _id(value: Any) -> str:
    """An image id as text: 7, 7.0 and "7" are the same one. Raises ValueError."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f"an id is a number or a text, not {value!r}")
    return str(value)


def _read(path: Place, what: str) -> Any:
    try:
        return parse_json(path.read_bytes())
    except ValueError as error:  # that it is not UTF-8 too
        raise InputError(f"{path}: not {what} ({error})") from error
