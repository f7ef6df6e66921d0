"""From a document's pieces to what is done with each: run, run with less to do, or checked without running."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.documents.checkout import Checkout
from tests.documents.reading import ROOT, Piece, documents, read_pieces

How = Callable[[Checkout, Piece], None]


@dataclass(frozen=True)
class Section:
    """How the pieces under one heading are tried.

    Attributes:
        pieces: what is done with the piece that holds these words; of several that fit, the longest words count.
        prepare: makes what a reader has by himself, such as his own videos.
        needs: sections that are tried before this one, such as "docs/train.md: Data".
    """

    pieces: Mapping[str, How]
    prepare: Callable[[Checkout], None] | None = None
    needs: tuple[str, ...] = ()

    def words_for(self, piece: Piece) -> str | None:
        """The words of `pieces` that stand for a piece; None if there are none."""
        fitting = [words for words in self.pieces if all(word in piece.text for word in words.split())]
        return max(fitting, key=len, default=None)


def read_documents(root: Path = ROOT) -> dict[str, list[Piece]]:
    """All pieces by section, in the order of the documents."""
    sections: dict[str, list[Piece]] = {}
    for path in documents(root):
        for piece in read_pieces(path, path.relative_to(root).as_posix()):
            sections.setdefault(piece.section, []).append(piece)
    return sections


def unaccounted(shown: Mapping[str, list[Piece]], table: Mapping[str, Section]) -> list[str]:
    """What stands in the documents and not in the table, and the other way round, each in a line."""
    wrong = []
    for name, pieces in shown.items():
        section = table.get(name, Section({}))
        used = [section.words_for(piece) for piece in pieces]
        wrong += [
            f"{name}: there is a {piece.kind} that no test runs: {piece.text}"
            for piece, words in zip(pieces, used)
            if words is None
        ]
        wrong += [f"{name}: nothing there has the words {words!r}" for words in section.pieces if words not in used]
    return wrong + [f"{name}: there is no such section with anything to run" for name in table if name not in shown]


class Walk:
    """Tries sections in a checkout, each once, those that it needs before it."""

    def __init__(self, checkout: Checkout, shown: Mapping[str, list[Piece]], table: Mapping[str, Section]) -> None:
        self.checkout, self.shown, self.table = checkout, shown, table
        self.done: set[str] = set()

    def section(self, name: str) -> None:
        if name in self.done:
            return
        self.done.add(name)  # also where it fails: those that need it go on with what it has left
        section = self.table.get(name, Section({}))
        for needed in section.needs:
            self.section(needed)
        if section.prepare:
            section.prepare(self.checkout)
        for piece in self.shown[name]:
            words = section.words_for(piece)
            assert words is not None, f"{name}: there is a {piece.kind} that no test runs: {piece.text}"
            section.pieces[words](self.checkout, piece)


def run(more: str = "", prints: str = "", **instead: str) -> How:
    """Run a command; its standard output must match `prints`.

    Args:
        more: words to add to it, which leave less to do.
        prints: a regular expression for all of its output; any output will do without.
        instead: what stands here for words of the command, such as `FOLDER`.
    """

    def how(checkout: Checkout, piece: Piece) -> None:
        printed = checkout.run(f"{replaced(piece.text, instead)} {more}")
        assert re.fullmatch(prints or "(?s).*", printed), f"{piece.text} printed:\n{printed}"

    return how


def check(**instead: str) -> How:
    """Let the program's own parser read a command, and look for the files that it names."""
    return lambda checkout, piece: checkout.check(replaced(piece.text, instead))


def recipe(**less: str) -> How:
    """The commands that a target of make starts: those of the programs in `less` run with these words added, which
    leave less to do, and the others are checked."""

    def how(checkout: Checkout, piece: Piece) -> None:
        commands = checkout.recipe(piece.text.removeprefix("make "))
        assert commands, f"{piece.text} starts none of our programs"
        for command in commands:
            if program := next((program for program in less if f"{program}.py " in command), None):
                checkout.run(f"{command} {less[program]}")
            else:
                checkout.check(command)

    return how


def replaced(text: str, instead: Mapping[str, str]) -> str:
    for word, other in instead.items():
        assert word in text, f"{word} does not stand in: {text}"
        text = text.replace(word, other)
    return text
