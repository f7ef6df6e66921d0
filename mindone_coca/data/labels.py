"""Class labels as captions: the paper (section 3.2) trains on labels and alt-text alike, both as text."""

import re
from collections.abc import Iterable, Mapping

from mindone_coca.account import some_of
from mindone_coca.data.samples import BadSample, Sample, Source, existing_file
from mindone_coca.data.text import as_text, parse_json
from mindone_coca.errors import InputError


class Labelled:
    """A source whose captions are class labels, turned into sentences: one caption for each template.

    `templates` are sentences with {} for the class, `prefix` goes before each, `names` maps labels to names of
    classes. A label that is not in it stands for itself, unless it is a number: then the sample is a bad one.
    """

    def __init__(self, source: Source, templates: list[str], prefix: str = "", names: dict[str, str] | None = None):
        for template in templates:
            if "{}" not in template:
                raise InputError(f"label_template {template!r}: put {{}} where the class goes")
        if not templates:
            raise InputError("label_template: the list is empty; leave it out to use the labels as they are")
        self._source, self._names, self.account = source, names or {}, source.account
        self._sentences = [prefix + template for template in templates]

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Sample:
        sample = self._source[index]
        labels = [known_label(label, self._names) for label in sample.captions]
        if self._names and (unnamed := [label for label in labels if label not in self._names and is_number(label)]):
            raise BadSample(sample.name, f"its label {unnamed[0]!r} has no name; add it to label_names")
        names = [self._names.get(label, label) for label in labels]
        captions = [sentence.replace("{}", name) for sentence in self._sentences for name in names]
        return Sample(sample.name, captions, sample.content)


def read_label_names(path: str) -> dict[str, str]:
    """The JSON object {label: name} in a file."""
    file = existing_file(path)
    try:
        names = parse_json(file.read_bytes())
    except ValueError as error:
        raise InputError(f"{file}: not JSON ({error})") from error
    if not isinstance(names, dict):
        raise InputError(f"{file}: label_names wants a JSON object such as {{'n02123045': 'tabby cat'}}")
    try:
        texts = {label: as_text(name) for label, name in names.items()}
    except ValueError as error:
        raise InputError(f"{file}: {error}") from error
    if blank := [label for label, name in texts.items() if not name]:
        raise InputError(f"{file}: no name for the labels {some_of(blank)}; give them one or take them out")
    return texts


def folder_names(classes: Iterable[str]) -> dict[str, str]:
    """Names of classes by their folders' names."""
    return {label: label.replace("_", " ") for label in classes}


def is_number(label: str) -> bool:
    """Whether a label is a number, which is no name of a class."""
    return re.fullmatch(r"[-+]?\d+(\.\d*)?", label) is not None


def known_label(label: str, names: Mapping[str, str]) -> str:
    """The label as `names` has it: "7.0", as pandas writes a column in which some rows have no number, is "7"."""
    whole = re.fullmatch(r"([-+]?\d+)(?:\.0*)?", label)
    forms = (label, whole.group(1), f"{whole.group(1)}.0") if whole else (label,)
    return next((form for form in forms if form in names), label)
