"""The table of wrong changes fits the code, so that it is mended together with it and not when it is next used."""

import ast
from dataclasses import replace

import pytest

from tools.mutate import ROOT, misfits
from tools.mutations import MUTATIONS, Mutation


def test_what_does_not_fit_is_named():
    assert misfits(MUTATIONS) == []
    other = [replace(MUTATIONS[0], file="nowhere.py"), replace(MUTATIONS[0], old="no such text")]
    assert [line.rpartition(": ")[2] for line in misfits(other)] == ["no such file", "no such text"]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.what)
def test_the_changed_file_is_python_and_its_tests_are_there(mutation: Mutation):
    text = (ROOT / mutation.file).read_text()
    changed = ast.dump(ast.parse(text.replace(mutation.old, mutation.new)))
    assert changed != ast.dump(ast.parse(text))
    for node_id in mutation.tests:
        file, _, name = node_id.partition("::")
        functions = {node.name for node in ast.parse((ROOT / file).read_text()).body if hasattr(node, "name")}
        assert name.partition("[")[0] in functions
