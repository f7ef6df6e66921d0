"""Class labels as captions: the paper (section 3.2) trains on labels and alt-text alike, both as text."""

import json
from collections.abc import Iterable
from pathlib import Path

from mindone_coca.data.samples import IMAGE_SUFFIXES, VIDEO_SUFFIXES, PackedRows, Sample, Source, existing_file
from mindone_coca.errors import InputError


class Labelled:
    """A source whose captions are class labels, turned into sentences: one caption for each template.

    `templates` are sentences with {} for the class, `prefix` goes before each, `names` maps labels to names of
    classes (a label that is not in it stands for itself).
    """

    def __init__(self, source: Source, templates: list[str], prefix: str = "", names: dict[str, str] | None = None):
        for template in templates:
            if "{}" not in template:
                raise InputError(f"label_template {template!r}: put {{}} where the class goes")
        if not templates:
            raise InputError("label_template: the list is empty; leave it out to use the labels as they are")
        self._source, self._names = source, names or {}
        self._sentences = [prefix + template for template in templates]

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Sample:
        sample = self._source[index]
        names = [self._names.get(label, label) for label in sample.captions]
        captions = [sentence.replace("{}", name) for sentence in self._sentences for name in names]
        return Sample(sample.name, captions, sample.content)


def read_label_names(path: str) -> dict[str, str]:
    """The JSON object {label: name} in a file."""
    file = existing_file(path)
    try:
        names = json.loads(file.read_bytes())
    except ValueError as error:
        raise InputError(f"{file}: not JSON ({error})") from error
    if not isinstance(names, dict):
        raise InputError(f"{file}: label_names wants a JSON object such as {{'n02123045': 'tabby cat'}}")
    return {str(label): str(name) for label, name in names.items()}


def folder_names(classes: Iterable[str]) -> dict[str, str]:
    """Names of classes by their folders' names."""
    return {label: label.replace("_", " ") for label in classes}


class ClassFolders:
    """A folder with one folder per class, images or videos at any depth in it; the label is the folder's name."""

    def __init__(self, root: Path):
        classes = sorted(folder for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith("."))
        self.classes = [folder.name for folder in classes]
        self._files = PackedRows(
            (str(file), label)
            for label, folder in enumerate(classes)
            for file in sorted(folder.rglob("*"))
            if file.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES and file.is_file()
        )
        if not len(self._files):
            raise InputError(f"{root}: no images in folders in it; the layout is {root.name}/CLASS/IMAGE.jpg")

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Sample:
        file, label = self._files[index]
        return Sample(file, [self.classes[label]], Path(file))
