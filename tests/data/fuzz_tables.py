"""Damaged tables. The writer is our own, so that it knows in which line everything stands."""

import random
from dataclasses import dataclass
from pathlib import Path

from tests.data.mutants import Mutant, Pictures, some_places


@dataclass
class Dialect:
    """How a table is written."""

    separator: str
    line_end: str
    encoding: str
    quote_all: bool
    caption_first: bool
    extra: bool  # a column more, of no use

    @classmethod
    def draw(cls, rng: random.Random, encodings: tuple[str, ...] = ("utf-8", "utf-8-sig", "utf-16", "be")) -> "Dialect":
        return cls(
            rng.choice(",,\t;|"),
            rng.choice(["\n", "\r\n", "\r"]),
            rng.choice(encodings),
            rng.random() < 0.3,
            rng.random() < 0.3,
            rng.random() < 0.3,
        )

    def cell(self, text: str) -> str:
        if self.quote_all or any(sign in text for sign in ('"', self.separator, "\n", "\r")):
            return '"' + text.replace('"', '""') + '"'
        return text

    def columns(self, name: str, caption: str, extra: str = "x") -> list[str]:
        cells = [caption, name] if self.caption_first else [name, caption]
        return [*cells, extra] if self.extra else cells

    def line(self, name: str, caption: str) -> str:
        return self.separator.join(map(self.cell, self.columns(name, caption)))

    def write(self, path: Path, lines: list[str], end: bool = True) -> Path:
        text = self.line_end.join(lines) + (self.line_end if end else "")
        if self.encoding == "be":
            path.write_bytes(b"\xfe\xff" + text.encode("utf-16-be"))
        else:
            path.write_bytes(text.encode(self.encoding))
        return path


class Table:
    """A whole table: its lines, of which each is a row, and the samples in it."""

    def __init__(self, rng: random.Random, pictures: Pictures, unusual: float = 0.4, **options) -> None:
        self.rng, self.pictures = rng, pictures
        self.dialect = Dialect.draw(rng, **options)
        self.rows = pictures.rows(rng, unusual)
        header = self.dialect.columns("filepath", "title", "notes")
        self.lines = [self.dialect.separator.join(header)]
        self.lines += [self.dialect.line(pictures.name(number), caption) for number, caption in self.rows]
        self.samples = [pictures.sample(*row) for row in self.rows]
        self.settings = {"path": str(pictures.folder / "list.csv")}
        if rng.random() < 0.3:
            self.settings |= {"separator": self.dialect.separator}

    def mutant(self, **expected) -> Mutant:
        self.dialect.write(Path(self.settings["path"]), self.lines, self.rng.random() < 0.7)
        expected = {"samples": self.samples, **expected}
        return Mutant(self.settings, **{**expected, "samples": expected["samples"] or None})

    def without(self, places: list[int]) -> list:
        return [sample for place, sample in enumerate(self.samples) if place not in places]


def kind_intact(rng, pictures):
    return Table(rng, pictures).mutant()


def kind_rows_moved(rng, pictures):
    """Lines dropped, said twice or in another order."""
    table = Table(rng, pictures)
    order = [rng.randrange(len(table.rows)) for _ in table.rows]
    table.lines = [table.lines[0], *(table.lines[1 + place] for place in order)]
    return table.mutant(samples=[table.samples[place] for place in order])


def kind_blank_lines(rng, pictures):
    table = Table(rng, pictures)
    for _ in range(rng.randrange(1, 5)):
        blank = rng.choice(["", "  ", table.dialect.separator, table.dialect.separator * 4])
        table.lines.insert(rng.randrange(1, len(table.lines) + 1), blank)
    return table.mutant()


def kind_lines_within_captions(rng, pictures):
    table = Table(rng, pictures)
    for place in some_places(rng, len(table.rows)):
        number, caption = table.rows[place]
        caption += table.dialect.line_end + rng.choice(["and on", "more, of it; here"])
        table.lines[1 + place] = table.dialect.line(pictures.name(number), caption)
        table.samples[place] = pictures.sample(number, caption)
    return table.mutant()


def kind_quote_opened(rng, pictures):
    """The quote of a caption is never closed, or by the opening quote of a later row."""
    table = Table(rng, pictures)
    place = rng.choice([rng.randrange(len(table.rows)), len(table.rows) - 1])
    number, caption = table.rows[place]
    dialect, opened = table.dialect, '"' + caption.replace('"', "")
    table.lines[1 + place] = dialect.separator.join(dialect.columns(pictures.name(number), opened))
    return table.mutant(samples=None, words=[f"line {2 + place}:", "a quote is opened here"])


def kind_quote_opened_after_lines(rng, pictures):
    """The same below captions of several lines, so that rows and lines have other numbers."""
    table = Table(rng, pictures)
    place, number = 1, table.rows[0][0]
    table.lines[1] = table.dialect.line(pictures.name(number), "one\ntwo\nthree")
    table.dialect.line_end = "\n"
    table.lines[1 + place] = table.dialect.separator.join(
        table.dialect.columns(pictures.name(table.rows[place][0]), '"open')
    )
    return table.mutant(samples=None, words=["line 5:", "a quote is opened here"])


def kind_separator_in_caption(rng, pictures):
    """Nobody quoted it, so rows have more columns than the header."""
    table = Table(rng, pictures)
    places = some_places(rng, len(table.rows))
    for place in places:
        number = table.rows[place][0]
        caption = f"one{table.dialect.separator} two"
        table.lines[1 + place] = table.dialect.separator.join(table.dialect.columns(pictures.name(number), caption))
    words = [f"line {2 + place}: {3 + table.dialect.extra} columns where the header has" for place in places]
    return table.mutant(samples=table.without(places), refused=len(places), words=words)


def kind_column_missing(rng, pictures):
    table = Table(rng, pictures)
    places = some_places(rng, len(table.rows))
    for place in places:
        number, caption = table.rows[place]
        cells = table.dialect.columns(pictures.name(number), caption)
        del cells[rng.randrange(len(cells))]
        table.lines[1 + place] = table.dialect.separator.join(map(table.dialect.cell, cells))
    return table.mutant(samples=table.without(places), refused=len(places), words=[f"line {2 + places[0]}: "])


def kind_cut(rng, pictures):
    """Cut in the last row that is left: in its first column, it is no row; in its last one, it is a shorter one."""
    table = Table(rng, pictures, unusual=0.0)
    table.dialect.quote_all = False
    place = rng.randrange(len(table.rows))
    number, caption = table.rows[place]
    caption = caption.replace(",", "").replace(";", "")
    cells = table.dialect.columns(pictures.name(number), caption)
    whole = table.dialect.separator.join(cells)
    table.lines[1 + place] = whole
    cut = rng.randrange(1, len(whole))
    table.lines = [*table.lines[: 1 + place], whole[:cut]]
    left = whole[:cut].split(table.dialect.separator)
    samples = table.samples[:place]
    if len(left) < len(cells):
        words = [f"line {2 + place}: "]
        return table.mutant(samples=samples, refused=1, words=words)
    if table.dialect.extra:
        samples.append(pictures.sample(number, caption))
    elif table.dialect.caption_first:
        samples.append((left[1], [caption], b""))  # of which the file is not there
        if not left[1]:
            return table.mutant(samples=samples[:-1], refused=1, words=["has no filepath"])
    else:
        samples.append(pictures.sample(number, *filter(None, [left[1].strip()])))
    if place == 0 and table.dialect.caption_first and not table.dialect.extra:
        return table.mutant(samples=None, words=["does not exist"])  # no file of the list is there
    return table.mutant(samples=samples)


def kind_caption_emptied(rng, pictures):
    table = Table(rng, pictures)
    for place in some_places(rng, len(table.rows)):
        number = table.rows[place][0]
        table.lines[1 + place] = table.dialect.line(pictures.name(number), rng.choice(["", " "]))
        table.samples[place] = pictures.sample(number)
    return table.mutant()


def kind_letters_nan(rng, pictures):
    table = Table(rng, pictures)
    place = rng.randrange(len(table.rows))
    table.lines[1 + place] = table.dialect.line(pictures.name(table.rows[place][0]), "nan")
    table.samples[place] = pictures.sample(table.rows[place][0], "nan")
    return table.mutant()


def kind_picture_emptied(rng, pictures):
    table = Table(rng, pictures)
    places = some_places(rng, len(table.rows))
    for place in places:
        table.lines[1 + place] = table.dialect.line("", table.rows[place][1])
    words = [f"line {2 + place} has no filepath" for place in places]
    return table.mutant(samples=table.without(places), refused=len(places), words=words)


def kind_wrong_byte(rng, pictures):
    """Bytes of a file in Latin-1, or of a UTF-8 one cut within a letter."""
    table = Table(rng, pictures, encodings=("utf-8",))
    place = rng.randrange(len(table.rows))
    table.dialect.line_end = rng.choice(["\n", "\r\n"])
    table.lines[1 + place] = table.dialect.line(pictures.name(table.rows[place][0]), "caf@")
    mutant = table.mutant(samples=None, words=[f"line {2 + place} is not UTF-8", "iconv"])
    path = Path(mutant.settings["path"])
    path.write_bytes(path.read_bytes().replace(b"caf@", b"caf" + rng.choice([b"\xe9", b"\xc3", b"\xff"])))
    return mutant


def kind_nul(rng, pictures):
    table = Table(rng, pictures)
    place = rng.randrange(len(table.rows))
    table.lines[1 + place] = table.lines[1 + place][:-1] + "\0"
    return table.mutant(samples=None, words=[f"line {2 + place} holds NUL"])


def kind_utf16_without_mark(rng, pictures):
    table = Table(rng, pictures, unusual=0.0, encodings=("utf-8",))
    mutant = table.mutant(samples=None, words=["UTF-16 without its mark"])
    path = Path(mutant.settings["path"])
    path.write_bytes(path.read_bytes().decode().encode(rng.choice(["utf-16-le", "utf-16-be"])))
    return mutant


def kind_header(rng, pictures):
    """A column is missing, or there twice."""
    table = Table(rng, pictures)
    column = rng.choice(["filepath", "title"])
    if rng.random() < 0.5:
        table.lines[0] = table.lines[0].replace(column, rng.choice(["", "x", column.upper() + "S", column + "_"]))
        return table.mutant(samples=None, words=[repr(column)])
    table.lines[0] += table.dialect.separator + column
    return table.mutant(samples=None, words=[repr(column), "2 times"])


def kind_other_separator(rng, pictures):
    table = Table(rng, pictures)
    wrong = rng.choice(sorted(set(",\t;|") - {table.dialect.separator}))
    table.settings["separator"] = wrong
    return table.mutant(samples=None, words=[f"parted by {table.dialect.separator!r}, not by {wrong!r}", "data.sep"])


def kind_too_long(rng, pictures):
    table = Table(rng, pictures)
    place = rng.randrange(len(table.rows))
    table.lines[1 + place] = table.dialect.line(pictures.name(table.rows[place][0]), "long " * 210000)
    return table.mutant(samples=None, words=[f"line {2 + place}: ", "more than 1,048,576 characters"])


def kind_nothing(rng, pictures):
    table = Table(rng, pictures)
    table.lines = rng.choice([[], ["", " "], table.lines[:1]])
    return table.mutant(samples=None, words=["no samples in it" if table.lines[:1] and table.lines[0] else "empty"])
