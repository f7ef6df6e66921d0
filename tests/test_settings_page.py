"""docs/settings.md is what the dataclasses say, all of them, and each setting says what it means."""

import dataclasses
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

import make_settings_page

from mindone_coca.tasks.settings import TaskTrainConfig


def test_the_page_is_fresh():
    assert make_settings_page.PAGE.read_text() == make_settings_page.page(), "python tools/make_settings_page.py"


def test_no_section_is_left_out():
    sections = {spec.name for spec in dataclasses.fields(TaskTrainConfig)} - {"task"}
    assert sections == make_settings_page.SECTIONS.keys()


def test_every_setting_says_what_it_means():
    parts = [part for parts in make_settings_page.PARTS.values() for part in parts.values()]
    classes = [*make_settings_page.SECTIONS.values(), *parts]
    silent = [
        f"{cls.__name__}.{name}"
        for cls in classes
        for name, said in make_settings_page.comments(cls).items()
        if not said
    ]
    assert silent == []


@dataclasses.dataclass
class Example:
    """Of comments."""

    # above,
    # in two lines
    first: int = 1
    second: int = 2  # behind
    third: dict = dataclasses.field(default_factory=lambda: {"#": 1})


def test_comments_above_and_behind():
    said = make_settings_page.comments(Example)
    assert said == {"first": "above, in two lines", "second": "behind", "third": ""}


def test_a_target_elsewhere(tmp_path):
    target = tmp_path / "settings.md"
    assert make_settings_page.main(["--target", str(target)]) == 0
    assert target.read_text() == make_settings_page.page()
