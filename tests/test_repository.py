"""What lies beside the code for those who come to it: forms for issues, the citation, the documents' environment."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
FORMS = [path for path in sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")) if path.stem != "config"]


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_a_form_asks_for_the_report_of_check_device(path):
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= form.keys()
    [device] = [part for part in form["body"] if part.get("id") == "device"]
    assert "check_device.py" in device["attributes"]["description"]
    assert device.get("validations", {}).get("required", False) == (path.stem != "wish")


def test_the_citation_names_what_is_needed():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors", "version", "date-released", "license"} <= citation.keys()
    assert f"- {citation['date-released']}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_contributing_is_short():
    assert len((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()) <= 30


def test_every_extra_is_looked_for_on_aarch64():
    project, makefile = (ROOT / "pyproject.toml").read_text("utf-8"), (ROOT / "Makefile").read_text("utf-8")
    extras = project.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    requirements = re.findall(r'^\w+ = \["(.*)"\]$', extras, re.MULTILINE)
    check = makefile.partition("\ncheck-aarch64:")[2].partition("\n\n")[0]
    assert len(requirements) == extras.count(" = ") == 4
    assert [name for name in requirements if f'"{name} -c' not in check] == []
    assert '"-r requirements.txt -c' in check


def test_the_documents_environment_is_pinned_whole():
    lines = (ROOT / "requirements-docs.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert pins and all(line.count("==") == 1 for line in pins)
    assert any(line.startswith("mkdocs-material==") for line in pins)
    assert "make docs\n" in (ROOT / ".ci/run").read_text(encoding="utf-8")
