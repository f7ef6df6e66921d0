"""What README and the other documents show: commands, blocks of Python and YAML, and the names of options and files."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "models/README.md",
    "benchmarks/README.md",
    "assets/README.md",
    "examples/README.md",
    "docs/*.md",
)
PROGRAMS = ("python", "pip", "make", "msrun", "mindone-coca", "pytest", "converter_lite", "pre-commit", "echo")
SHELL = ("sh", "bash", "shell", "console")
SCRIPT = re.compile(r"[\w/]+\.py")


@dataclass(frozen=True)
class Piece:
    """Something that a document shows under a heading.

    Attributes:
        kind: `command`, `python`, `yaml` or `text`.
        text: of a command one line, without its continuations and comment.
        comment: what stands behind a command's `#`.
    """

    document: str
    heading: str
    kind: str
    text: str
    comment: str = ""

    @property
    def section(self) -> str:
        return f"{self.document}: {self.heading}"


def documents(root: Path = ROOT) -> list[Path]:
    return [path for pattern in DOCUMENTS for path in sorted(root.glob(pattern))]


def read_pieces(path: Path, name: str) -> list[Piece]:
    """All pieces of a Markdown file, in its order; `name` is what it is called in them."""
    pieces: list[Piece] = []
    for heading, language, text in _parts(path.read_text(encoding="utf-8")):
        if language is None:
            pieces += [Piece(name, heading, "command", span) for span in inline_code(text) if is_command(span)]
        elif language in ("", *SHELL):
            commands = list(logical_lines(text))
            if language or (commands and is_command(commands[0][0])):
                pieces += [Piece(name, heading, "command", *command) for command in commands]
            else:
                pieces.append(Piece(name, heading, "text", text))
        else:
            pieces.append(Piece(name, heading, language, text))
    return pieces


def _parts(text: str) -> Iterator[tuple[str, str | None, str]]:
    """Heading, language (None outside of fences) and text of each stretch of a document."""
    heading, language, lines = "", None, []
    for line in text.splitlines():
        fence = re.match(r"```\s*(\w*)", line)
        title = re.match(r"#+ (.*)", line) if language is None else None
        if not fence and not title:
            lines.append(line)
            continue
        yield heading, language, "\n".join(lines)
        lines = []
        if title:
            heading, lines = title[1], [title[1]]
        elif fence:
            language = fence[1] if language is None else None
    assert language is None, f"{heading}: a block without its end"
    yield heading, None, "\n".join(lines)


def inline_code(text: str) -> list[str]:
    """What stands in single backticks, also over the end of a line."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]


def is_command(text: str) -> bool:
    """A program with something behind it."""
    words = text.split()
    return len(words) > 1 and (words[0] in PROGRAMS or SCRIPT.fullmatch(words[0]) is not None)


def logical_lines(text: str) -> Iterator[tuple[str, str]]:
    """The commands of a block with their comments; lines that are nothing but a comment are left out."""
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        command, _, comment = re.sub(r"(^|\s+)#\s", "\0", line, count=1).partition("\0")
        if command.strip():
            yield command.strip(), comment.strip()


def inline_names(path: Path) -> list[str]:
    """The inline code of a document that is no command."""
    text = path.read_text(encoding="utf-8")
    parts = [part for _, language, part in _parts(text) if language is None]
    return [span for part in parts for span in inline_code(part) if not is_command(span)]
