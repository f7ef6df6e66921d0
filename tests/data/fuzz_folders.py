"""Folders of classes and folders with caption files, with what else people have in them."""

import random
from pathlib import Path

from tests.data.mutants import Mutant, Pictures, some_places

HIDDEN = ["._00.jpg", ".DS_Store", ".hidden.png"]
HIDDEN_FOLDERS = [".ipynb_checkpoints", "__MACOSX", ".git"]
OTHERS = ["notes.pdf", "list.csv", "Thumbs.db", "README", "a.PDF"]
SUFFIXES = [".jpg", ".JPG", ".jfif", ".jpe", ".heic", ".avif", ".3gp", ".ts", ".jp2", ".tif", ".mts"]


def add_others(rng: random.Random, pictures: Pictures, folders: list[Path], into: list[Path]) -> dict[str, int]:
    """Write hidden and other files; -> what is passed over."""
    counts: dict[str, int] = {}
    for name in rng.sample(HIDDEN, rng.randrange(3)):
        (rng.choice(into) / name).write_bytes(pictures.bytes[0])
        counts["hidden"] = counts.get("hidden", 0) + 1
    for name in rng.sample(OTHERS, rng.randrange(4)):
        (rng.choice(into) / name).write_bytes(b"x")
        kind = Path(name).suffix.lower() or "without suffix"
        counts[kind] = counts.get(kind, 0) + 1
    for name in rng.sample(HIDDEN_FOLDERS, rng.randrange(3)):
        folder = rng.choice(folders) / name
        folder.mkdir()
        (folder / "00.jpg").write_bytes(pictures.bytes[0])
    return counts


def kind_classes(rng, pictures):
    root = pictures.folder / "classes"
    labels = sorted(rng.sample(["cat", "red_dog", "ß", "n01", "a b"], rng.randrange(2, 5)))
    found = []
    for label in labels:
        (root / label / "deeper").mkdir(parents=True)
        for number in some_places(rng, 8):
            name = f"{label}/{rng.choice(['', 'deeper/'])}{number}{rng.choice(SUFFIXES)}"
            (root / name).write_bytes(pictures.bytes[number])
            found.append((root / name, (name, [label], pictures.bytes[number])))
    passed_over = add_others(rng, pictures, [root, root / labels[0]], [root / label for label in labels])
    if rng.random() < 0.3:
        (root / "stray.jpg").write_bytes(pictures.bytes[0])
        passed_over["in no class's folder"] = 1
    return Mutant({"path": str(root)}, [sample for _, sample in sorted(found)], passed_over=passed_over)


def kind_no_classes(rng, pictures):
    return Mutant({"path": str(pictures.folder / "img")}, None, words=["CLASS/IMAGE.jpg", "caption_extension"])


def captioned(rng: random.Random, pictures: Pictures) -> tuple[Path, list[tuple[Path, str]]]:
    """Pictures at several depths -> the folder, and each picture with a caption for it."""
    root = pictures.folder / "captioned"
    (root / "sub/deeper").mkdir(parents=True)
    found = []
    for number, caption in pictures.rows(rng):
        path = root / rng.choice(["", "sub", "sub/deeper"]) / f"{number:02}.x{rng.choice(SUFFIXES)}"
        path.write_bytes(pictures.bytes[number])
        found.append((path, caption))
    return root, sorted(found)


def caption_of(path: Path, extension: str) -> Path:
    return path.with_name(path.name.rpartition(".")[0] + extension)


def written(rng: random.Random, path: Path, text: str) -> None:
    path.write_bytes(text.encode(rng.choice(["utf-8", "utf-8-sig", "utf-16"])))


def kind_captions_beside(rng, pictures):
    """A caption is the whole text, or each line; some pictures have none, some captions no picture."""
    root, found = captioned(rng, pictures)
    extension, lines = rng.choice([".txt", ".caption"]), rng.random() < 0.5
    without = set(some_places(rng, len(found)))
    samples = []
    for place, (path, caption) in enumerate(found):
        if place in without:
            continue
        texts = [" ".join(caption.split()), "and again"][: rng.randrange(1, 3)]
        beside = caption_of(path, rng.choice([extension, extension.upper()]))
        written(rng, beside, rng.choice(["\n", "\r\n"]).join(texts))
        name = str(path.relative_to(root))
        samples.append((name, texts if lines else [" ".join(texts)], path.read_bytes()))
    written(rng, root / f"alone{extension}", "no picture")
    passed_over = add_others(rng, pictures, [root, root / "sub"], [root, root / "sub"])
    settings = {"path": str(root), "caption_extension": extension.removeprefix(rng.choice(["", "."]))}
    if lines:
        settings["caption_lines"] = True
    words = [str(found[min(without)][0])] + (["alone"] if samples else [])
    return Mutant(settings, samples or None, refused=len(without), words=words, passed_over=passed_over)


def kind_captions_damaged(rng, pictures):
    root, found = captioned(rng, pictures)
    places, bad, samples = some_places(rng, len(found)), set(), []
    for place, (path, caption) in enumerate(found):
        text = caption.encode() if place not in places else rng.choice([b"", b" \n\n ", b"caf\xe9"])
        caption_of(path, ".txt").write_bytes(text)
        captions = [" ".join(caption.split())] if place not in places else []
        samples.append((path.name, captions, path.read_bytes()))
        bad |= {place} if text == b"caf\xe9" else set()
    mutant = Mutant({"path": str(root), "caption_extension": ".txt"}, samples, bad=bad)
    return mutant


def kind_wrong_extension(rng, pictures):
    root, found = captioned(rng, pictures)
    for path, caption in found:
        written(rng, caption_of(path, ".txt"), caption)
    extension = rng.choice([".jpg", ".caption"])
    words = ["caption_extension"] if extension == ".jpg" else [f"has no {extension} file beside it"]
    refused = 0 if extension == ".jpg" else len(found)
    return Mutant({"path": str(root), "caption_extension": extension}, None, refused=refused, words=words)
