"""CSV and TSV files: every row read, or refused with its line."""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO

from mindone_coca.account import Account
from mindone_coca.data.samples import require_key
from mindone_coca.data.text import open_text
from mindone_coca.errors import InputError
from mindone_coca.media_files import is_media
from mindone_coca.places import Place

ListRow = tuple[str, dict[str, Any]]  # where it stands, for messages, and its columns
_LONGEST_ROW = 1 << 20  # characters; a longer one is a quote that is never closed, or no table
_SEPARATORS = "\t,;|"
_LINE_END = re.compile(r"\r\n|\r|\n")
# Text in double quotes, in which a quote is written twice.
_QUOTED = re.compile(r'"[^"]*(?:""[^"]*)*"(?!")')


def table_rows(path: Place, columns: Mapping[str, str], separator: str | None, account: Account) -> Iterator[ListRow]:
    """The rows of a CSV or TSV file with a header line; blank lines are none.

    Args:
        columns: each needed one, the picture's first, with the setting that asks for it.
        separator: None takes the one with which the header line has the columns.
        account: gets the rows that have more or fewer columns than the header.
    Raises:
        InputError: the columns are not there, or a quote is never closed, which may hide any number of rows.
    """
    if separator is not None:
        separator = _as_separator(separator, path)
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_ROW))
    with open_text(path) as file:
        lines = _Lines(file, path)
        try:
            separator = _begin(lines, columns, separator, path)
        except csv.Error as error:
            raise InputError(f"{path}: the first line is not that of a table ({error})") from error
        records = _records(lines, separator, columns)
        header = [name.strip() for name in next(records, (0, []))[1]]
        _check_header(header, columns, separator, path)
        for number, row in records:
            where = f"{path}: line {number}"
            if problem := _column_problem(row, header, separator):
                account.refuse(f"{where}: {problem}")
            else:
                yield where, dict(zip(header, row))


class _Lines:
    """The lines of a file, counted, with those of the record that is being read."""

    def __init__(self, file: TextIO, path: Place) -> None:
        self._file, self.path = file, path
        self.number = 0
        self.begin()
        self._again: list[str] = []

    def __iter__(self) -> "_Lines":
        return self

    def begin(self) -> None:
        """A record begins with the next line."""
        self.record: list[str] = []
        self._length = 0

    def __next__(self) -> str:
        line = self._again.pop() if self._again else next(self._file)
        self.number += 1
        if "\0" in line:
            raise InputError(
                f"{self.path}: line {self.number} holds NUL characters; is it UTF-16 without its mark? Save it as UTF-8"
            )
        self.record.append(line)
        self._length += len(line)
        if self._length > _LONGEST_ROW:
            raise csv.Error(f"it has more than {_LONGEST_ROW:,} characters")
        return line

    def put_back(self, line: str) -> None:
        """Read `line`, which came last, once more."""
        self._again.append(line)
        self.number -= 1


def _begin(lines: _Lines, columns: Mapping[str, str], separator: str | None, path: Place) -> str:
    """Go to the header line. -> the separator."""
    for line in lines:
        if given := re.fullmatch(r"sep=(.)\s*", line):  # as Excel writes and understands it
            separator = separator or given.group(1)
        elif line.strip():
            lines.put_back(line)
            return _separator_of(line, columns) if separator is None else separator
    raise InputError(f"{path}: no header line in it, the file is empty")


def _separator_of(header: str, columns: Mapping[str, str]) -> str:
    """The separator with which the header has most of the columns that are needed; of equal ones the first there."""

    def found(separator: str) -> tuple[int, bool]:
        names = {name.strip() for name in next(csv.reader([header], delimiter=separator))}
        return len(names & set(columns)), separator in header

    return max(_SEPARATORS, key=found)


def _as_separator(separator: str, path: Place) -> str:
    separator = "\t" if separator == r"\t" else separator
    if len(separator) != 1 or separator in '"\r\n':
        raise InputError(f"{path}: separator {separator!r} must be one character, such as ',' or ';', and no quote")
    return separator


def _records(lines: _Lines, separator: str, columns: Mapping[str, str]) -> Iterator[tuple[int, list[str]]]:
    """Each row that is not blank with the number of its first line."""
    reader = csv.reader(lines, delimiter=separator)
    layout: tuple[int, int] | None = None  # the picture's column and the number of columns, once the header is read
    while True:
        first = lines.number + 1
        lines.begin()
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            _check_quotes(lines, first, separator, layout)
            raise InputError(f"{lines.path}: line {first}: cannot be read as a row ({error})") from error
        # The csv module takes the end of the file for the end of a quote, and is content with a row that holds others.
        if any('"' in line for line in lines.record):
            _check_quotes(lines, first, separator, layout)
        if layout is None:
            names = [name.strip() for name in row]
            layout = next((names.index(column) for column in columns if column in names), 0), len(row)
        if any(field.strip() for field in row):
            yield first, row


def _check_quotes(lines: _Lines, first: int, separator: str, layout: tuple[int, int] | None) -> None:
    """Raise InputError with its line when a quote in the record stays open, or took in other rows before it closed."""
    text = "".join(lines.record)
    start = 0
    while start < len(text):
        if text[start] == '"':
            quoted = _QUOTED.match(text, start)
            end = quoted.end() if quoted else len(text)
            swallowed = quoted is not None and _swallowed(quoted.group(), text[end:], separator, layout)
            if quoted is None or swallowed:
                line = first + len(_LINE_END.findall(text[:start]))
                what = "closed only after other rows" if swallowed else "never closed"
                raise InputError(
                    f"{lines.path}: line {line}: a quote is opened here and {what}; close it at the end of its text, "
                    'or take it away (within a quoted text a quote is written twice, "")'
                )
            start = end
        after = text.find(separator, start)
        start = len(text) if after < 0 else after + 1


def _swallowed(quoted: str, rest: str, separator: str, layout: tuple[int, int] | None) -> bool:
    """Whether a quoted text of several lines holds whole rows: it is closed by what was to open the text of another
    row, so that text follows the quote, or a line of it has a picture where rows have it."""
    inner = _LINE_END.split(quoted)[1:]
    if not inner or layout is None:
        return False
    if rest and not rest.startswith((separator, "\r", "\n")):
        return True
    picture, columns = layout
    rows = (line.split(separator) for line in inner)
    return columns > 1 and any(len(row) == columns and is_media(row[picture]) for row in rows)


def _check_header(header: Sequence[str], columns: Mapping[str, str], separator: str, path: Place) -> None:
    for column, setting in columns.items():
        if column not in header:
            better = _separator_of(separator.join(header), columns)
            if better != separator and better in separator.join(header):
                raise InputError(
                    f"{path}: its columns are parted by {better!r}, not by {separator!r}; set separator "
                    f"(data.separator) to {better!r}, or leave it out"
                )
        require_key(column, header, path, setting)
        if header.count(column) > 1:
            raise InputError(f"{path}: the header has the column {column!r} {header.count(column)} times; leave one")


def _column_problem(row: list[str], header: Sequence[str], separator: str) -> str | None:
    """What is wrong with the number of columns. Blank ones at the end may be too many."""
    if len(row) > len(header) and any(field.strip() for field in row[len(header) :]):
        return (
            f"{len(row)} columns where the header has {len(header)}; put a text that holds the separator "
            f'{separator!r} in double quotes ("...")'
        )
    if len(row) < len(header) and any(header[len(row) :]):
        return f"{len(row)} of the header's {len(header)} columns; add the missing {separator!r} and what it parts"
    return None
