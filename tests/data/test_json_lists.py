"""JSON lists as people have them: read right, or refused in one line that says how to fix them."""

import json

import pytest

from mindone_coca.data.settings import DataConfig, SourceConfig
from mindone_coca.tasks.rows import open_task_rows
from tests.data.cases import AS_WRITTEN, CAPTIONS, captions, refused, table
from tests.data.training_samples import open_one


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


def test_another_format_than_the_file_has(folder):
    listed = table(folder, json.dumps([{"filepath": "00.jpg", "title": "x"}]), name="a.json")
    assert "not a COCO captions file but a list; set format to json" in refused({"path": listed, "format": "coco"})
    coco = table(folder, json.dumps({"images": [], "annotations": []}), name="b.json")
    assert "not a JSON list of objects; set format to jsonl or coco" in refused({"path": coco, "format": "json"})
    named = table(folder, json.dumps({"00.jpg": "x"}), name="c.json")
    assert "it has no list 'annotations'" in refused(named)


def test_a_json_list_for_a_task(folder):
    """LAVIS's lists for questions."""
    content = [{"image": f"{n:02}.jpg", "question": "what?", "answer": ["a", "b", "b"]} for n in range(3)]
    path = table(folder, json.dumps([*content, {"image": "00.jpg", "question": "who?"}]), name="vqa.json")
    config = DataConfig(train=path, max_bad_share=0.25)
    source = open_task_rows(SourceConfig(path, image_key="image"), config, "vqa", "data.train")
    assert len(source) == 3 and source[0].answers == ["b", "b", "a"]
    assert "vqa.json: item 4 has neither answer nor answers" in source.account.summary()
