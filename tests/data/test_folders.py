"""Folders as people have them: with a folder for each class, or with caption files beside the pictures."""

import csv
import json

import pytest

from mindone_coca.data.labels import known_label
from mindone_coca.data.samples import BadSample
from mindone_coca.media_files import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from tests.data.cases import captions, refused, table
from tests.data.training_samples import jpeg, open_one, write_images, write_tar


def test_class_folders_pass_over_what_nobody_put_there(tmp_path, caplog):
    for name in ("cat", "cat/.ipynb_checkpoints", "dog", ".ipynb_checkpoints", "__MACOSX/cat"):
        write_images(tmp_path / name, 2)
    (tmp_path / "dog" / "._00.jpg").write_bytes(b"x")
    (tmp_path / "dog" / "notes.txt").write_bytes(b"x")
    for suffix in (".jfif", ".HEIC", ".avif", ".3gp"):
        (tmp_path / "cat" / f"x{suffix}").write_bytes(jpeg(5))
    source = open_one(str(tmp_path))
    assert [labels for [labels] in captions(source)] == ["cat"] * 6 + ["dog"] * 2
    assert f"{tmp_path}: 8 files read; passed over 2 files: 1 .txt, 1 hidden" in caplog.text


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
    known_forms = {"0.0": "0", "1.": "1", "2.0": "2.0", "2": "2.0", "3.0": "3.0", "1.5": "1.5", "one.0": "one.0"}
    for label, known in known_forms.items():
        assert known_label(label, names) == known
    (folder / "names.json").write_text(json.dumps(names))
    with open(folder / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows([("filepath", "label"), ("00.jpg", 0.0), ("01.jpg", 1.0), ("02.jpg", 7.0)])
    settings = {"path": str(folder / "labels.csv"), "label_key": "label", "label_names": str(folder / "names.json")}
    source = open_one({**settings, "label_template": ["a {}"]})
    assert [source[0].captions, source[1].captions] == [["a zero"], ["a one"]]
    with pytest.raises(BadSample, match=r"its label '7\.0' has no name; add it to label_names"):
        source[2]


@pytest.mark.parametrize("name", ["null", "NaN", '" "', "{}"])
def test_names_of_labels_that_are_none(folder, name):
    (folder / "names.json").write_text(f'{{"0": "zero", "1": {name}}}')
    settings = {"path": table(folder, "filepath,label", "00.jpg,0"), "label_key": "label"}
    message = refused({**settings, "label_names": str(folder / "names.json")})
    assert "names.json: no name for the labels 1" in message or "a text is wanted, not a JSON object" in message
