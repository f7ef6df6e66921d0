"""Damaged JSON: an object a line, lists of objects, COCO's captions."""

import json
import random
from pathlib import Path
from typing import Any

from tests.data.mutants import Mutant, Pictures, some_places

NO_CAPTION = [None, float("nan"), "", "  ", [], [None, float("nan"), ""]]


class Rows:
    """Objects with a picture and a caption each, or several captions, and the samples in them."""

    def __init__(self, rng: random.Random, pictures: Pictures, keys: tuple[str, str] = ("filepath", "title")) -> None:
        self.rng, self.pictures, self.keys = rng, pictures, keys
        self.rows: list[Any] = []
        self.samples = []
        for number, caption in pictures.rows(rng):
            captions = [caption, "and again"][: rng.randrange(1, 3)]
            self.rows.append({keys[0]: pictures.name(number), keys[1]: captions if len(captions) > 1 else caption})
            self.samples.append(pictures.sample(number, *captions))
        self.places = some_places(rng, len(self.rows))

    def without(self) -> list:
        return [sample for place, sample in enumerate(self.samples) if place not in self.places]

    def refused(self, what: str = "line", **words) -> dict[str, Any]:
        """What is expected when the rows at `places` cannot be used."""
        return {
            "samples": self.without() or None,
            "refused": len(self.places),
            "words": [f"{what} {1 + place}" for place in self.places],
            **words,
        }

    def as_lines(self, **expected) -> Mutant:
        lines = [json.dumps(row, ensure_ascii=self.rng.random() < 0.5) for row in self.rows]
        return self.write_lines(lines, **expected)

    def write_lines(self, lines: list[str], encoding: str | None = None, **expected) -> Mutant:
        path = self.pictures.folder / "list.jsonl"
        text = self.rng.choice(["\n", "\r\n"]).join(lines) + self.rng.choice(["", "\n"])
        path.write_bytes(text.encode(encoding or self.rng.choice(["utf-8", "utf-8-sig", "utf-16"])))
        return Mutant({"path": str(path)}, **{"samples": self.samples, **expected})

    def as_list(self, **expected) -> Mutant:
        path = self.pictures.folder / self.rng.choice(["list.json", "list.jsonl"])
        text = json.dumps(self.rows, indent=self.rng.choice([None, 1]))
        path.write_bytes(text.encode(self.rng.choice(["utf-8", "utf-8-sig", "utf-16"])))
        return Mutant({"path": str(path)}, **{"samples": self.samples, **expected})

    def lines_or_list(self, what: dict[str, Any] | None = None) -> Mutant:
        return self.as_lines(**(what or {})) if self.rng.random() < 0.5 else self.as_list(**(what or {}))


def kind_intact(rng, pictures):
    return Rows(rng, pictures).lines_or_list()


def kind_lavis(rng, pictures):
    rows = Rows(rng, pictures, ("image", "caption"))
    mutant = rows.as_list()
    path = Path(mutant.settings["path"])
    mutant.settings["path"] = str(path.rename(path.with_suffix(".json")))
    return mutant


def kind_lines_in_a_json_file(rng, pictures):
    mutant = Rows(rng, pictures).as_lines()
    path = Path(mutant.settings["path"])
    mutant.settings["path"] = str(path.rename(path.with_suffix(".json")))
    return mutant


def kind_no_caption(rng, pictures):
    rows = Rows(rng, pictures)
    for place in rows.places:
        rows.rows[place]["title"] = rng.choice(NO_CAPTION)
        rows.samples[place] = (rows.samples[place][0], [], rows.samples[place][2])
    return rows.lines_or_list()


def kind_caption_is_no_text(rng, pictures):
    rows = Rows(rng, pictures)
    for place in rows.places:
        rows.rows[place]["title"] = rng.choice([{}, {"en": "a dog"}, [["a"]], [{"raw": "a"}], "half \ud83d"])
    if rng.random() < 0.5:
        return rows.as_list(**rows.refused("item"))
    return rows.write_lines([json.dumps(row) for row in rows.rows], **rows.refused())


def kind_no_picture(rng, pictures):
    rows = Rows(rng, pictures)
    for place in rows.places:
        rows.rows[place]["filepath"] = rng.choice([None, float("nan"), "", {}, [], "a\0b", "\udc00"])
    return rows.write_lines([json.dumps(row) for row in rows.rows], **rows.refused())


def kind_field_missing(rng, pictures):
    rows = Rows(rng, pictures)
    for place in rows.places:
        del rows.rows[place][rng.choice(rows.keys)]
    return rows.as_lines(**rows.refused())


def kind_no_object(rng, pictures):
    rows = Rows(rng, pictures)
    for place in rows.places:
        rows.rows[place] = rng.choice([3, "text", True, ["a.jpg", "text"] if place else 7])
    return rows.as_lines(**rows.refused())


def kind_lines_damaged(rng, pictures):
    rows = Rows(rng, pictures)
    lines = [json.dumps(row) for row in rows.rows]
    for place in rows.places:
        line = lines[place]
        cut, deep = line[: rng.randrange(1, len(line))], '{"a":' * 100000
        lines[place] = rng.choice([cut, line + "}", line + line, line[1:], deep, line.replace('"', "'")])
    return rows.write_lines(lines, **rows.refused())


def kind_blank_lines(rng, pictures):
    rows = Rows(rng, pictures)
    lines = [json.dumps(row) for row in rows.rows]
    for _ in range(3):
        lines.insert(rng.randrange(len(lines) + 1), rng.choice(["", "  "]))
    return rows.write_lines(lines)


def kind_wrong_byte(rng, pictures):
    rows = Rows(rng, pictures)
    lines = [json.dumps(row) for row in rows.rows]
    place = rows.places[0]
    mutant = rows.write_lines(lines, "utf-8", samples=None, words=[f"line {1 + place} is not UTF-8"])
    content = Path(mutant.settings["path"]).read_bytes().split(b"\n")
    content[place] = content[place].replace(b'{"', b'{"\xe4', 1)
    Path(mutant.settings["path"]).write_bytes(b"\n".join(content))
    return mutant


def kind_list_cut(rng, pictures):
    mutant = Rows(rng, pictures).as_list(samples=None, words=["not JSON"])
    path = Path(mutant.settings["path"])
    text = path.read_bytes()
    text = text.decode("utf-16" if text[:2] == b"\xff\xfe" else "utf-8-sig")
    path.write_text(text[: rng.randrange(1, len(text) - 1)])
    return mutant


class Coco:
    """COCO's captions of some pictures, ids as numbers or texts."""

    def __init__(self, rng: random.Random, pictures: Pictures) -> None:
        self.rng, self.pictures = rng, pictures
        self.rows = pictures.rows(rng)
        forms = [rng.choice([int, str, float]) for _ in range(2)]
        self.images = [{"id": forms[0](number), "file_name": pictures.name(number)} for number, _ in self.rows]
        notes = [{"image_id": forms[1](number), "caption": caption} for number, caption in self.rows]
        self.notes = notes + [{"image_id": note["image_id"], "caption": "again"} for note in notes[:2]]
        self.captions = [[caption] + ["again"] * (place < 2) for place, (_, caption) in enumerate(self.rows)]
        self.places = some_places(rng, len(self.rows))

    def mutant(self, leave_out: bool = False, **expected) -> Mutant:
        path = self.pictures.folder / "captions.json"
        content = {"info": {}, "images": self.images, "annotations": self.notes}
        path.write_text(json.dumps(content, indent=self.rng.choice([None, 1])), encoding="utf-8")
        samples = [
            self.pictures.sample(number, *captions)
            for place, ((number, _), captions) in enumerate(zip(self.rows, self.captions))
            if not (leave_out and place in self.places)
        ]
        return Mutant({"path": str(path)}, **{"samples": samples or None, **expected})


def kind_coco(rng, pictures):
    return Coco(rng, pictures).mutant()


def kind_coco_images_without_captions(rng, pictures):
    coco = Coco(rng, pictures)
    number = len(coco.rows)
    coco.images += [{"id": 1000 + extra, "file_name": "other.jpg"} for extra in range(number)]
    return coco.mutant(words=[f"no annotation for {number} images"])


def kind_coco_images_dropped(rng, pictures):
    coco = Coco(rng, pictures)
    dropped = [str(coco.images[place]["id"]).removesuffix(".0") for place in coco.places]
    coco.images = [image for place, image in enumerate(coco.images) if place not in coco.places]
    words = ["no image has an id"] if not coco.images else ["no image for the annotations of image_id", dropped[0]]
    return coco.mutant(leave_out=True, words=words)


def kind_coco_images_damaged(rng, pictures):
    coco = Coco(rng, pictures)
    for place in coco.places:
        image = coco.images[place]
        coco.images[place] = rng.choice([{"id": image["id"]}, {**image, "file_name": None}, 3, {**image, "id": []}])
    words = [f"images[{place}]" for place in coco.places]
    return coco.mutant(leave_out=True, refused=len(coco.places), words=words)


def kind_coco_annotations_damaged(rng, pictures):
    coco = Coco(rng, pictures)
    for place in coco.places:
        note = coco.notes[place]
        coco.notes[place] = rng.choice([{"image_id": note["image_id"]}, {**note, "caption": {}}, None, "a dog"])
        del coco.captions[place][0]
    left_out = sum(not captions for captions in coco.captions)
    coco.places = [place for place, captions in enumerate(coco.captions) if not captions]
    words = ["annotations["] + ([f"no annotation for {left_out} image"] if left_out else [])
    refused = sum(not isinstance(note, dict) or "caption" not in note or note["caption"] == {} for note in coco.notes)
    return coco.mutant(leave_out=True, refused=refused, words=words)


def kind_coco_an_id_twice(rng, pictures):
    coco = Coco(rng, pictures)
    place = rng.randrange(1, len(coco.rows))
    coco.images[place]["id"] = coco.images[0]["id"]
    coco.places = [place]
    return coco.mutant(leave_out=True, refused=1, words=[f"images[{place}] has the id"])


def kind_coco_other_structure(rng, pictures):
    coco = Coco(rng, pictures)
    mutant = coco.mutant(samples=None, words=["not a COCO captions file"])
    content = json.loads(Path(mutant.settings["path"]).read_bytes())
    key = rng.choice(["images", "annotations"])
    content[key] = rng.choice([None, {}, "x", 5])
    Path(mutant.settings["path"]).write_text(json.dumps(content))
    return mutant


def kind_odd_names(rng, pictures):
    """Names with line ends, very long ones, and a list of which no file is there: messages stay one line."""
    rows = Rows(rng, pictures)
    for row in rows.rows:
        row["filepath"] = rng.choice(["a\nb.jpg", "long" * 5000 + ".jpg", "\x1b[2Jx.jpg"])
    return rows.as_lines(samples=None, words=["list.jsonl", "does not exist", "image_root"])
