"""The notebooks of examples/ run, and print what stands in them."""

import contextlib
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.captioners import shared_models

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))


def code_cells(path: Path) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def printed_then(cell: dict[str, Any]) -> str:
    """What a cell printed when the notebook was written."""
    return "".join("".join(output["text"]) for output in cell["outputs"] if output["output_type"] == "stream")


@pytest.fixture(scope="module")
def one_model() -> Iterator[None]:
    """Both have the demo model, whose graphs are compiled once."""
    with shared_models():
        yield


def test_there_are_two_and_none_failed_when_it_was_written():
    assert [path.stem for path in NOTEBOOKS] == ["caption_a_video", "search_a_folder"]
    outputs = [output for path in NOTEBOOKS for cell in code_cells(path) for output in cell["outputs"]]
    assert outputs and all(output["output_type"] in ("stream", "execute_result") for output in outputs)
    pictures = [output["data"] for output in outputs if output["output_type"] == "execute_result"]
    assert len(pictures) == 2 and all("image/png" in data for data in pictures)


@pytest.mark.graphs
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, one_model, monkeypatch, tmp_path):
    """As Jupyter does, in the folder of the notebooks, cell by cell with one set of names."""
    monkeypatch.chdir(EXAMPLES)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    names: dict[str, Any] = {}
    for number, cell in enumerate(code_cells(path)):
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile("".join(cell["source"]), f"{path.name}, cell {number}", "exec"), names)
        assert printed.getvalue() == printed_then(cell), f"{path.name}, cell {number}"
