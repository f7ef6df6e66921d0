"""Whether a message that a document shows is one that the package prints: a text in the sources has its words."""

import ast
import re
from collections.abc import Iterator
from functools import cache

from tests.documents.reading import ROOT

FEWEST = 12  # letters of a message that stand in the sources as they are


def texts(node: ast.AST) -> list[str | None]:
    """The parts of a text in the sources; None for what is put in when it runs."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.JoinedStr):
        return [part for value in node.values for part in texts(value)]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return [*texts(node.left), *texts(node.right)]
    return [None]


def all_texts() -> Iterator[list[str | None]]:
    for path in sorted((ROOT / "mindone_coca").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Constant, ast.JoinedStr, ast.BinOp)):
                yield texts(node)


@cache
def patterns() -> list[re.Pattern[str]]:
    """One for each text of the package that is long enough to tell anything."""
    found = []
    for parts in all_texts():
        fixed = [part for part in parts if part]
        if sum(map(len, fixed)) >= FEWEST:
            found.append(re.compile("".join(".*" if part is None else re.escape(part) for part in parts)))
    return found


def is_of_sources(line: str) -> bool:
    """Whether a line, without what the programs put around every message, is one of the package's texts."""
    message = line.removeprefix("error: ").removesuffix("; see --help")
    return any(pattern.fullmatch(message) for pattern in patterns())
