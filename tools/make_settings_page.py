#!/usr/bin/env python
"""Write docs/settings.md, the page of all settings of a training, from the dataclasses that read them.

    python tools/make_settings_page.py [--target docs/settings.md]

What a setting means is the comment at its field. Exit code 2: bad usage, or a file that cannot be written.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for a checkout that is not installed

from mindone_coca.interrupts import watch_signals

watch_signals(__name__)  # before the imports that take long

import ast
import dataclasses
import inspect
import textwrap
import types
import typing
from collections.abc import Sequence

from mindone_coca.cli.common import Parser, run_cli
from mindone_coca.data.settings import DataConfig, SourceConfig
from mindone_coca.files import atomic_path
from mindone_coca.preprocess.augment import AugmentConfig
from mindone_coca.tasks.settings import HeadConfig
from mindone_coca.tasks.spec import Task
from mindone_coca.training.settings import (
    DeviceConfig,
    LoraConfig,
    LossConfig,
    ModelSection,
    OptimConfig,
    OutputConfig,
    RunConfig,
)

PAGE = Path(__file__).resolve().parents[1] / "docs" / "settings.md"
SECTIONS: dict[str, type] = {
    "model": ModelSection,
    "data": DataConfig,
    "optim": OptimConfig,
    "loss": LossConfig,
    "train": RunConfig,
    "output": OutputConfig,
    "device": DeviceConfig,
    "head": HeadConfig,
}
HEAD = """# Settings of a training

Made from the sources by `python tools/make_settings_page.py`; a test says when it is no longer theirs.

A training config is a YAML or JSON file of these sections. On the command line any setting follows as
`dotted.key=value`, the value in YAML, and wins over the file. A key that does not exist is refused by name. What is
without a default must be given.

`task`, beside the sections, is `coca`, the default, or a downstream task:
{tasks}.
"""
PARTS: dict[str, dict[str, type]] = {
    "data": {
        "Keys of a source, each of `data.train` and `data.val`": SourceConfig,
        "Keys of `data.augment`": AugmentConfig,
    },
    "train": {"Keys of `train.lora`": LoraConfig},
}


def comments(cls: type) -> dict[str, str]:
    """What stands at each field of a dataclass: the comment lines above it, or the comment behind it."""
    lines = textwrap.dedent(inspect.getsource(cls)).splitlines()
    [tree] = ast.parse("\n".join(lines)).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for node in tree.body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        above: list[str] = []
        for line in reversed(lines[: node.lineno - 1]):
            if not line.strip().startswith("#"):
                break
            above.insert(0, line.strip().removeprefix("# "))
        last = lines[(node.end_lineno or node.lineno) - 1]
        behind = last.encode()[node.end_col_offset or 0 :].decode().strip().removeprefix("# ")
        found[node.target.id] = " ".join([*above, behind]).strip().replace("None", "null")
    return found


def kind(hint: typing.Any) -> str:
    """A type in words."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return kind(next(part for part in parts if part is not types.NoneType))
    if origin is typing.Literal:
        return ", ".join(f"`{part}`" for part in parts)
    if origin is tuple:
        return f"{len(parts)} of: {kind(parts[0])}"
    if origin is list:
        return f"list of: {kind(parts[0])}"
    if dataclasses.is_dataclass(hint):
        return "a mapping, see below"
    names = {str: "text", int: "integer", float: "number", bool: "true or false", typing.Any: "see above"}
    return names[hint]


def default(spec: dataclasses.Field) -> str:
    """A field's default as YAML has it."""
    if spec.default_factory is not dataclasses.MISSING:
        value: object = spec.default_factory()
    elif spec.default is dataclasses.MISSING:
        return "none: must be given"
    else:
        value = spec.default
    if value is None:
        return "`null`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, (list, tuple)):
        return f"`{list(value)}`"
    return "empty text" if value == "" else f"`{value}`"


def table(cls: type, prefix: str) -> list[str]:
    """A table of a dataclass's fields, a line each."""
    said, hints = comments(cls), typing.get_type_hints(cls)
    lines = ["| setting | meaning | value | default |", "|---|---|---|---|"]
    for spec in dataclasses.fields(cls):
        cells = f"`{prefix}{spec.name}`", said[spec.name], kind(hints[spec.name]), default(spec)
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |")
    return lines


def intro(cls: type) -> list[str]:
    """A dataclass's own docstring, if it has one, as a paragraph."""
    text = inspect.cleandoc(cls.__doc__ or "")
    return [] if text.startswith(f"{cls.__name__}(") else [text.replace("None", "null"), ""]


def page() -> str:
    """The whole page."""
    tasks = ", ".join(f"`{task}`" for task in typing.get_args(Task))
    lines = [HEAD.format(tasks=tasks)]
    for name, cls in SECTIONS.items():
        lines += [f"## `{name}`", "", *intro(cls), *table(cls, f"{name}."), ""]
        for title, part in PARTS.get(name, {}).items():
            lines += [f"### {title}", "", *intro(part), *table(part, ""), ""]
    return "\n".join(lines).rstrip() + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(__doc__)
    parser.add_argument("--target", type=Path, default=PAGE, help="the page (default docs/settings.md)")
    arguments = parser.parse_args(argv)

    def write() -> None:
        with atomic_path(arguments.target) as partial:
            partial.write_text(page(), encoding="utf-8")

    return run_cli(write)


if __name__ == "__main__":
    sys.exit(main())
