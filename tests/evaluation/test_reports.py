"""Report files: what they hold, and that nothing in a file name or answer can break them."""

import json
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from mindone_coca.errors import InputError
from mindone_coca.evaluation.reports import Example, choose_examples, write_report

NASTY = '</script><b onload="x">&amp; $a_b$ \udcff\n'


def picture(colour: str) -> Image.Image:
    return Image.new("RGB", (400, 200), colour)


class Page(HTMLParser):
    """The tags and texts of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)


def test_files_of_a_task_with_classes(tmp_path):
    examples = [
        Example("good.png", [picture("red")], None, "cat", "cat", True, 0.91234),
        Example(NASTY, [picture("red"), picture("blue")], NASTY, NASTY, "<i>", False),
    ]
    counts = np.array([[3, 1, 0], [0, 2, 0], [0, 0, 0]])
    confusion = ["cat", "$x$", NASTY.strip("\n")], counts
    metrics = {"top1": np.float32(0.5), "samples": np.int64(6), "model": "coca"}
    write_report(tmp_path / "out", "classification", metrics, examples, confusion, unreadable=3)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "confusion.png",
        "examples.html",
        "metrics.json",
    ]
    content = json.loads((tmp_path / "out/metrics.json").read_bytes())
    assert content["task"] == "classification"
    assert content["metrics"] == {"top1": 0.5, "samples": 6, "model": "coca"} and content["unreadable"] == 3
    assert content["samples"] == 6
    assert [(c["name"], c["samples"], c["right"], c["accuracy"]) for c in content["per_class"][:2]] == [
        ("cat", 4, 3, 0.75),
        ("$x$", 2, 2, 1.0),
    ]
    assert content["per_class"][2]["accuracy"] is None
    assert content["examples"] == {"shown": 2, "right": 1, "wrong": 1}
    text = (tmp_path / "out/examples.html").read_text(encoding="utf-8")
    page = Page(text)
    assert [attrs.get("class") for tag, attrs in page.tags if tag == "article"] == ["wrong", "right"]  # wrong first
    assert not any(tag in ("i", "b") and attrs for tag, attrs in page.tags) and "<i>" in page.texts
    sources = [attrs["src"] for tag, attrs in page.tags if tag == "img"]
    assert len(sources) == 3 and all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert "http" not in text and "prefers-color-scheme: dark" in text
    assert len(text) < 20_000  # 400 pixels wide pictures were made small


@pytest.mark.parametrize("classes", [2, 40, 1000])
def test_confusion_matrix_of_any_size(tmp_path, classes):
    counts = np.eye(classes, dtype=int)
    counts[0, -1] = 3
    write_report(tmp_path, "t", {}, [], ([f"class number {i}" for i in range(classes)], counts))
    with Image.open(tmp_path / "confusion.png") as image:
        assert 600 < image.height < 3000
        dark = (np.asarray(image.convert("L")) < 80).sum()
    assert dark > 0.5 * classes  # the diagonal is there


def test_captions_have_neither_verdict_nor_matrix(tmp_path):
    write_report(
        tmp_path, "captioning", {"cider": 1.25}, [Example("a", [], None, "one", "two", None, 0.1)], score="CIDEr"
    )
    assert not (tmp_path / "confusion.png").exists()
    page = Page((tmp_path / "examples.html").read_text())
    assert ("article", {"class": ""}) in page.tags
    assert "cider 1.2500" in page.texts and "CIDEr 0.100" in page.texts


@pytest.mark.parametrize("value", [float("nan"), np.float32("inf")])
def test_numbers_that_are_not_finite_are_refused_and_nothing_is_written(tmp_path, value):
    with pytest.raises(InputError, match="metric loss is"):
        write_report(tmp_path / "out", "t", {"loss": value}, [])
    assert not (tmp_path / "out").exists()


def test_choice_of_examples():
    right = np.ones(1000, bool)
    right[::10] = False
    chosen = choose_examples(right, 20)
    assert chosen == sorted(set(chosen)) and len(chosen) == 20
    assert (~right[chosen]).sum() == 10
    assert len(choose_examples(np.zeros(50, bool), 20)) == 20
    assert (~right[choose_examples(right[:30], 20)]).sum() == 3
    assert choose_examples([True, False], 20) == [0, 1]
    assert choose_examples(right, 20) == chosen
