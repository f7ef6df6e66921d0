"""Tables as people have them: read right, or refused in one line that says how to fix them."""

import pytest

from tests.data.cases import AS_WRITTEN, captions, refused, rows, table
from tests.data.training_samples import open_one


@pytest.mark.parametrize("separator", [",", "\t", ";"])
@pytest.mark.parametrize("place", [0, 1, 3])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_quote_that_is_never_closed(folder, separator, place, end):
    lines = rows(separator)
    lines[place] = lines[place].replace(separator, separator + '"')
    message = refused(table(folder, f"filepath{separator}title", *lines, end=end))
    assert f"list.csv: line {place + 2}: a quote is opened here" in message


@pytest.mark.parametrize(
    "lines, line",
    [
        (['00.jpg,"a circle', "01.jpg,a square", '02.jpg,"red, blue"', "03.jpg,a ring"], 2),  # closed by another's
        (['"00.jpg","a circle"', '"01.jpg","a square', '"02.jpg","a dog"', '"03.jpg","a ring"'], 3),  # all in quotes
        (['00.jpg,"two', 'lines"', "01.jpg,a square", '02.jpg,"open', "03.jpg,x"], 5),  # below one of two lines
        (['00.jpg,"a circle', "01.jpg,a square", '02.jpg,5 inches"', "03.jpg,a ring"], 2),  # closed by an inch
        (['00.jpg,"a ""circle', "01.jpg,a square"], 2),
    ],
)
def test_a_quote_that_other_rows_close(folder, lines, line):
    assert f"list.csv: line {line}: a quote is opened here" in refused(table(folder, "filepath,title", *lines))


def test_quotes_that_are_right(folder):
    lines = ['00.jpg,"a ""circle"""', '01.jpg,a "square"', '02.jpg,"one, two\nlines, here"', '03.jpg,5" pipe']
    source = open_one(table(folder, "filepath,title", *lines))
    assert captions(source) == [['a "circle"'], ['a "square"'], ["one, two\nlines, here"], ['5" pipe']]


@pytest.mark.parametrize(
    "line, said",
    [
        ("01.jpg,an orange star, a green square and a red square", "3 columns where the header has 2; put a text that"),
        ("01.jpg,a, b, c, d", "5 columns where"),
        ("01.jpg", "1 of the header's 2 columns"),
    ],
)
def test_rows_with_more_or_fewer_columns_than_the_header(folder, caplog, line, said):
    lines = rows()
    lines[1] = line
    path = table(folder, "filepath,title", *lines)
    message = refused(path)
    assert f"list.csv: line 3: {said}" in message and "1 of 4 rows cannot be used" in message
    assert "data.max_bad_share 0.05" in message
    source = open_one(path, max_bad_share=0.25)
    assert captions(source) == [AS_WRITTEN[0], *AS_WRITTEN[2:]]
    assert "list.csv: 3 rows read; 1 row refused (" in caplog.text and "line 3" in caplog.text


def test_blank_columns_at_the_end_and_blank_lines_are_no_mistake(folder):
    lines = [f"{line},,," for line in rows()]
    assert captions(open_one(table(folder, "filepath,title", *lines, "", ",,,,", "  "))) == AS_WRITTEN


@pytest.mark.parametrize("separator", [";", "|", "\t", ","])
def test_the_separator_is_taken_from_the_header(folder, separator):
    lines = [f"{number:02}.jpg{separator}a,b" if separator != "," else rows()[number] for number in range(4)]
    expected = AS_WRITTEN if separator == "," else [["a,b"]] * 4
    assert captions(open_one(table(folder, f"filepath{separator}title", *lines))) == expected


def test_the_separator_that_a_setting_gives_is_another(folder):
    path = table(folder, "filepath;title", *rows(";"))
    assert "parted by ';', not by ','; set separator (data.separator)" in refused({"path": path, "separator": ","})
    assert "must be one character" in refused({"path": path, "separator": ";;"})
    assert captions(open_one({"path": table(folder, "filepath\ttitle", *rows("\t")), "separator": r"\t"})) == AS_WRITTEN
    path = table(folder, "sep=;", "filepath;title", *rows(";"))
    assert captions(open_one(path)) == AS_WRITTEN
    assert captions(open_one({"path": path, "separator": ";"})) == AS_WRITTEN


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "utf-32"])
@pytest.mark.parametrize("end", ["\r\n", "\r", "\n"])
def test_text_by_its_mark(folder, encoding, end):
    """As Excel saves "Unicode text": UTF-16 with tabs."""
    lines = [*rows("\t")[:3], "03.jpg\té 東京"]
    path = table(folder, "filepath\ttitle", *lines, encoding=encoding, end=end)
    assert captions(open_one(path)) == [*AS_WRITTEN[:3], ["é 東京"]]
    big = folder / "big.csv"
    big.write_bytes(b"\xfe\xff" + (folder / "list.csv").read_bytes().decode(encoding).encode("utf-16-be"))
    assert captions(open_one(str(big)))[3] == ["é 東京"]


def test_text_in_another_encoding(folder):
    path = table(folder, "filepath,title", *rows()[:2], "02.jpg,café", encoding="latin-1")
    assert "list.csv: line 4 is not UTF-8 (byte 0xE9)" in refused(path) and "iconv" in refused(path)
    path = table(folder, "filepath,title", *rows(), encoding="utf-16-le")
    assert "UTF-16 without its mark" in refused(path)


@pytest.mark.parametrize("line", ["x" * 200_000, "x" * 2_000_000, '"' + "x" * 2_000_000, "a," * 500_000])
def test_a_file_that_is_no_table(folder, line):
    message = refused(table(folder, line, *rows()))
    assert "list.csv: " in message
    path = table(folder, "filepath,title", *rows()[:1], line)
    assert "list.csv: line 3: " in refused(path)
