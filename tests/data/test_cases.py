"""Tables, lists and shards as people have them: read right, or refused in one line that says how to mend them."""

import csv
import json
import logging
import tarfile

import pytest

from mindone_coca.data.labels import known_label
from mindone_coca.data.samples import BadSample
from mindone_coca.errors import InputError
from mindone_coca.media_files import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from tests.data.fuzz_shards import END, member
from tests.data.training_samples import jpeg, open_one, write_images, write_tar

CAPTIONS = ["three triangles", "a blue square left of a red one", "a circle", "one ring"]


@pytest.fixture
def folder(tmp_path):
    write_images(tmp_path, len(CAPTIONS))
    return tmp_path


def table(folder, *lines: str, name="list.csv", encoding="utf-8", end="\n") -> str:
    (folder / name).write_bytes((end.join(lines) + end).encode(encoding))
    return str(folder / name)


def rows(separator=",") -> list[str]:
    return [f"{number:02}.jpg{separator}{caption}" for number, caption in enumerate(CAPTIONS)]


def captions(source) -> list[list[str]]:
    return [list(source[number].captions) for number in range(len(source))]


def refused(settings, **data) -> str:
    with pytest.raises(InputError) as caught:
        open_one(settings, **data)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 2000
    return message


AS_WRITTEN = [[caption] for caption in CAPTIONS]


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
    assert captions(open_one(table(folder, "sep=;", "filepath;title", *rows(";")))) == AS_WRITTEN


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


def test_nan_is_no_caption(folder, caplog):
    values = ["NaN", "null", '""', '["one", null, NaN, " "]']
    lines = [f'{{"filepath": "{number:02}.jpg", "title": {value}}}' for number, value in enumerate(values)]
    source = open_one(table(folder, *lines, name="list.jsonl"))
    assert captions(source) == [[], [], [], ["one"]]
    assert "list.jsonl: 4 rows read; 3 of them without a caption" in caplog.text
    # pandas writes what is missing as nothing, so these letters are a caption
    assert captions(open_one(table(folder, "filepath,title", "00.jpg,nan", "01.jpg,"))) == [["nan"], []]


def test_a_json_list_of_objects_is_read(folder):
    rows = [{"image": f"{n:02}.jpg", "caption": text, "image_id": n} for n, text in enumerate(CAPTIONS)]
    assert captions(open_one(table(folder, json.dumps(rows), name="lavis.json"))) == AS_WRITTEN
    ours = [{"filepath": row["image"], "title": [row["caption"], "again"]} for row in rows]
    for name in ("ours.json", "ours.jsonl"):  # also where an object a line is expected
        path = table(folder, json.dumps(ours, indent=1), name=name)
        assert captions(open_one(path)) == [[caption, "again"] for caption in CAPTIONS]
    lines = [json.dumps(row) for row in ours]
    assert captions(open_one(table(folder, *lines, name="lines.json")))[0] == [CAPTIONS[0], "again"]
    path = table(folder, json.dumps([{"file": "00.jpg", "text": "x"}]), name="other.json")
    assert "'filepath', which image_key asks for, is not in it" in refused(path)
    assert captions(open_one({"path": path, "image_key": "file", "caption_key": "text"})) == [["x"]]


@pytest.mark.parametrize("image_form, note_form", [(int, str), (str, int), (float, str), (int, float)])
def test_coco_ids_match_as_numbers_and_as_text(folder, image_form, note_form):
    content = {
        "images": [{"id": image_form(number), "file_name": f"{number:02}.jpg"} for number in range(4)],
        "annotations": [{"image_id": note_form(n), "caption": caption} for n, caption in enumerate(CAPTIONS)],
    }
    source = open_one(table(folder, json.dumps(content), name="coco.json"))
    assert captions(source) == AS_WRITTEN and source[2].image_id == image_form(2)


def test_coco_ids_that_do_not_match(folder, caplog):
    content = {
        "images": [{"id": number, "file_name": f"{number:02}.jpg"} for number in range(4)],
        "annotations": [{"image_id": f"{n:012}", "caption": caption} for n, caption in enumerate(CAPTIONS)],
    }
    message = refused(table(folder, json.dumps(content), name="coco.json"))
    assert "images have 0, 1, 2 and 1 more, annotations image_id 000000000000" in message
    content["annotations"][1]["image_id"] = 1
    assert captions(open_one(table(folder, json.dumps(content), name="coco.json"))) == [[CAPTIONS[1]]]
    assert "no annotation for 3 images: 00.jpg, 02.jpg, 03.jpg; no image for the annotations of" in caplog.text


def shard(folder, *members: tuple[str, bytes], end=END) -> str:
    (folder / "x.tar").write_bytes(b"".join(member(*pair) for pair in members) + end)
    return str(folder / "x.tar")


def pairs(prefix="", first=0) -> list[tuple[str, bytes]]:
    return [
        pair
        for number, caption in enumerate(CAPTIONS, first)
        for pair in ((f"{prefix}{number:05}.jpg", jpeg(number)), (f"{prefix}{number:05}.txt", caption.encode()))
    ]


def test_a_key_that_is_there_twice_is_two_samples(folder):
    members = pairs()
    twice = [(name.replace("00001", "00000").replace("00003", "00002"), content) for name, content in members]
    source = open_one(shard(folder, *twice))
    assert captions(source) == AS_WRITTEN and source[1].read() == jpeg(1)
    names = [source[number].name.rpartition(":")[2] for number in range(4)]  # evaluation tells samples by their names
    assert names == ["00000.jpg", "00000 (2).jpg", "00002.jpg", "00002 (2).jpg"] and source[1].suffix == ".jpg"


def test_a_key_whose_files_are_unclear_is_refused_by_name(folder):
    members = [("00000.txt", b"of another picture"), *pairs()]
    message = refused(shard(folder, *members))
    assert "x.tar:00000.txt: its key is there 2 times, with different files" in message
    assert captions(open_one(shard(folder, *members), max_bad_share=0.5)) == AS_WRITTEN[1:]


def test_members_of_a_sample_need_not_follow_each_other(folder):
    source = open_one(shard(folder, *sorted(pairs("./"), key=lambda pair: pair[0][-3:])))
    assert captions(source) == AS_WRITTEN and [source[n].read() for n in range(4)] == [jpeg(n) for n in range(4)]
    both = sorted(pairs(), key=lambda pair: pair[0][-3:])
    again = open_one(shard(folder, *both, *both))  # two such shards in one
    assert captions(again) == AS_WRITTEN * 2


def test_what_macos_and_notebooks_add_to_a_shard_is_passed_over(folder, caplog):
    members = pairs("./") + pairs("__MACOSX/") + pairs(".ipynb_checkpoints/")
    members += [(name.replace("./", "./._"), b"x" * 163) for name, _ in pairs("./")] + [(".DS_Store", b"x")]
    with caplog.at_level(logging.INFO):
        assert captions(open_one(shard(folder, *members))) == AS_WRITTEN
    assert "4 samples read; passed over 25 files: 25 hidden" in caplog.text


def test_keys_with_dots_are_said_in_a_few_examples(folder):
    members = [(f"img.{number:05}.{suffix}", b"x") for number in range(3000) for suffix in ("jpg", "txt")]
    message = refused(shard(folder, *members))
    assert "00000.jpg, 00000.txt, 00001.jpg" in message and "and 5,990 more" in message and "first dot" in message


def test_folders_and_links_in_a_shard(folder, caplog):
    content = b"".join(member(*pair) for pair in pairs()) + member("d", kind=tarfile.DIRTYPE)
    content += member("d/a.jpg", kind=tarfile.LNKTYPE, target="00002.jpg") + member("d/a.txt", b"the same")
    content += member("d/b.jpg", kind=tarfile.SYMTYPE, target="a.jpg")
    (folder / "x.tar").write_bytes(content + END)
    source = open_one(str(folder / "x.tar"))
    assert captions(source) == [*AS_WRITTEN, ["the same"]] and source[4].read() == jpeg(2)
    assert "passed over 1 file: 1 linked" in caplog.text


def test_shards_put_together_are_read_whole(folder):
    first, second = (b"".join(member(*pair) for pair in pairs(first=first)) + END * 10 for first in (0, 100))
    (folder / "x.tar").write_bytes(first + second)
    assert captions(open_one(str(folder / "x.tar"))) == AS_WRITTEN * 2


def test_a_shard_damaged_in_the_middle(folder):
    path = shard(folder, *pairs())
    content = bytearray((folder / "x.tar").read_bytes())
    at = content.index(b"00002.jpg")
    content[at + 2] ^= 1
    (folder / "x.tar").write_bytes(content)
    assert f"damaged or cut short, at byte {at:,}" in refused(path)


def test_a_shard_cut_between_members_is_told(folder, caplog):
    assert captions(open_one(shard(folder, *pairs()[:4], end=b""))) == AS_WRITTEN[:2]
    assert "the end mark of tar files is missing; was it cut short?" in caplog.text


def test_a_damaged_index_is_made_anew(folder):
    settings = {"path": shard(folder, *pairs()), "index_dir": str(folder / "index")}
    open_one(settings)
    [saved] = (folder / "index").iterdir()
    whole = saved.read_bytes()
    for content in (whole[:100], b"[]", b'{"state": 1}'):
        saved.write_bytes(content)
        assert captions(open_one(settings)) == AS_WRITTEN
        assert saved.read_bytes() == whole


def test_class_folders_pass_over_what_nobody_put_there(tmp_path, caplog):
    for name in ("cat", "cat/.ipynb_checkpoints", "dog", ".ipynb_checkpoints", "__MACOSX/cat"):
        write_images(tmp_path / name, 2)
    (tmp_path / "dog" / "._00.jpg").write_bytes(b"x")
    (tmp_path / "dog" / "notes.txt").write_bytes(b"x")
    for suffix in (".jfif", ".HEIC", ".avif", ".3gp"):
        (tmp_path / "cat" / f"x{suffix}").write_bytes(jpeg(5))
    source = open_one(str(tmp_path))
    assert [labels for [labels] in captions(source)] == ["cat"] * 6 + ["dog"] * 2
    assert f"{tmp_path}: 8 files read; passed over 2 files: 1 hidden, 1 .txt" in caplog.text


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".heic", ".avif", ".3gp", ".mts", ".tif", ".jp2", ".y4m"])
def test_one_set_of_suffixes_for_folders_shards_and_inference(tmp_path, suffix):
    from mindone_coca.collection.inputs import list_inputs

    assert suffix in IMAGE_SUFFIXES | VIDEO_SUFFIXES
    (tmp_path / "a" / "cat").mkdir(parents=True)
    (tmp_path / "a" / "cat" / f"x{suffix.upper()}").write_bytes(jpeg(0))
    assert len(open_one(str(tmp_path / "a"))) == 1 and len(list_inputs([str(tmp_path / "a")]).paths) == 1
    path = write_tar(tmp_path / "x.tar", [{f"0{suffix}": jpeg(0), "0.txt": b"x"}])
    assert open_one(str(path))[0].read() == jpeg(0)


def test_a_folder_of_pictures_with_caption_files(tmp_path, caplog):
    write_images(tmp_path, 3)
    write_images(tmp_path / "sub" / "deeper", 2)
    for name, text in {"00": "one\n  text\n", "01": "a\r\n\r\nb\n", "sub/deeper/00": "é", "alone": "x"}.items():
        (tmp_path / f"{name}.txt").write_text(text, encoding="utf-8")
    (tmp_path / "sub" / "deeper" / "01.TXT").write_text("two", encoding="utf-16")
    settings = {"path": str(tmp_path), "caption_extension": ".txt"}
    message = refused(settings)
    assert f"{tmp_path / '02.jpg'} has no .txt file beside it; 1 of 5 files cannot be used" in message
    source = open_one(settings, max_bad_share=0.2)
    assert captions(source) == [["one text"], ["a b"], ["é"], ["two"]] and source[3].read() == jpeg(1)
    assert "4 files read; 1 file refused" in caplog.text
    assert f"no picture beside 1 caption file: {tmp_path / 'alone.txt'}" in caplog.text
    lines = open_one({**settings, "caption_lines": True}, max_bad_share=0.2)
    assert captions(lines)[:2] == [["one", "text"], ["a", "b"]]
    (tmp_path / "00.txt").write_bytes(b"caf\xe9")
    with pytest.raises(BadSample, match=r"its caption file .*00\.txt cannot be read"):
        open_one(settings, max_bad_share=0.2)[0]


def test_settings_of_caption_files(tmp_path):
    write_images(tmp_path, 1)
    path = str(tmp_path)
    assert "set caption_extension, such as .txt" in refused(path)
    assert "set caption_extension too" in refused({"path": path, "caption_lines": True})
    assert "caption_extension: .png is that of pictures" in refused({"path": path, "caption_extension": ".png"})
    assert "label_names" in refused({"path": path, "caption_extension": ".txt", "label_names": "x.json"})
    listed = table(tmp_path, "filepath,title", "00.jpg,x")
    assert "caption_extension says nothing about this csv" in refused({"path": listed, "caption_extension": ".txt"})


def test_labels_that_pandas_wrote_as_floats(folder):
    names = {"0": "zero", "1": "one", "2.0": "two"}
    for label, known in {"0.0": "0", "1.": "1", "2.0": "2.0", "3.0": "3.0", "1.5": "1.5", "one.0": "one.0"}.items():
        assert known_label(label, names) == known
    (folder / "names.json").write_text(json.dumps(names))
    with open(folder / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows([("filepath", "label"), ("00.jpg", 0.0), ("01.jpg", 1.0), ("02.jpg", 7.0)])
    settings = {"path": str(folder / "labels.csv"), "label_key": "label", "label_names": str(folder / "names.json")}
    source = open_one({**settings, "label_template": ["a {}"]})
    assert [source[0].captions, source[1].captions] == [["a zero"], ["a one"]]
    with pytest.raises(BadSample, match=r"its label '7\.0' has no name; add it to label_names"):
        source[2]
