"""Rows of the downstream tasks: what a batch holds, the labels' order, and mistakes in lists."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from mindone_coca.data.settings import DataConfig
from mindone_coca.errors import InputError
from mindone_coca.preprocess.tokenizer import Tokenizer
from mindone_coca.preprocess.transforms import create_train_transforms, create_transforms
from mindone_coca.tasks.data import open_task_data
from tests.data.test_training_videos import frame_numbers, write_video

TOKENIZER = Tokenizer()
BYTES = ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))  # mean and std with which values are bytes


@pytest.fixture
def folder(tmp_path):
    """Seven pictures, number n evenly grey of value 10 n."""
    for number in range(7):
        Image.new("RGB", (8, 8), (10 * number,) * 3).save(tmp_path / f"{number}.png")
    return tmp_path


def write(path, columns, rows):
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows))
    else:
        with open(path, "w", newline="") as file:
            csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",").writerows([columns, *rows])
    return str(path)


def open_it(source, task, *, training=False, labels=None, data=None, **options):
    transform = create_train_transforms(8, *BYTES) if training else create_transforms(8, *BYTES)
    config = DataConfig(train=source, val=source, **{"num_workers": 0, **(data or {})})
    defaults = {"batch_size": 3, "context_length": 10, "seed": 4}
    return open_task_data(
        config, task, TOKENIZER, transform, labels=labels, training=training, **{**defaults, **options}
    )


def values(batch):
    """The grey of each picture, (B, n)."""
    return np.round(batch.images.mean(axis=(-1, -2, -3))).astype(int).tolist()


def joined(batches, field):
    return [item for batch in batches for item in getattr(batch, field)]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
def test_classification(folder, suffix):
    rows = [(f"{number}.png", ["cat", "dog", "ant"][number % 3]) for number in range(7)]
    data = open_it(write(folder / f"list.{suffix}", ("filepath", "label"), rows), "classification")
    batches = list(data.epoch(0))
    assert data.labels == ["ant", "cat", "dog"] and len(data) == len(batches) == 3
    assert [batch.images.shape for batch in batches] == [(3, 1, 3, 8, 8), (3, 1, 3, 8, 8), (1, 1, 3, 8, 8)]
    assert all(batch.text is None and batch.images.dtype == np.float32 for batch in batches)
    assert [value for batch in batches for value in values(batch)] == [[10 * number] for number in range(7)]
    assert joined(batches, "labels") == [1, 2, 0, 1, 2, 0, 1] and batches[0].labels.dtype == np.int32
    assert joined(batches, "answers") == [[label] for _, label in rows]
    assert [name.rpartition("/")[2] for name in joined(batches, "names")] == [name for name, _ in rows]


def test_labels_that_are_numbers_go_by_value_and_may_have_names(folder):
    rows = [(f"{number}.png", number + 4) for number in range(7)]
    path = write(folder / "list.csv", ("filepath", "label"), rows)
    assert open_it(path, "classification").labels == ["4", "5", "6", "7", "8", "9", "10"]
    (folder / "names.json").write_text(json.dumps({"4": "four"}))
    data = open_it({"path": path, "label_names": str(folder / "names.json")}, "classification")
    assert data.labels == ["10", "5", "6", "7", "8", "9", "four"]
    assert next(iter(data.epoch(0))).labels.tolist() == [6, 1, 2]


def test_classes_in_folders(folder):
    for number in range(7):
        (folder / "all" / ["red_car", "bus"][number % 2]).mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.png").rename(folder / "all" / ["red_car", "bus"][number % 2] / f"{number}.png")
    data = open_it(str(folder / "all"), "classification")
    assert data.labels == ["bus", "red car"]
    batches = list(data.epoch(0))
    assert joined(batches, "labels") == [0, 0, 0, 1, 1, 1, 1]
    assert [value for batch in batches for value in values(batch)] == [[10], [30], [50], [0], [20], [40], [60]]


def test_questions_and_the_commonest_answer(folder):
    rows = [
        {"filepath": "0.png", "question": "what is it?", "answers": ["b", "a", {"answer": "a"}, "c", "c", "a"]},
        {"filepath": "1.png", "question": "how many?", "answer": "b"},
        {"filepath": "2.png", "question": "which one?", "answers": ["c"]},
        {"filepath": "3.png", "question": "and then?", "answer": "a"},
    ]
    path = folder / "list.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    data = open_it(str(path), "vqa", max_labels=2)
    batches = list(data.epoch(0))
    assert data.labels == ["a", "b"] and joined(batches, "labels") == [0, 1, -1, 0]
    assert batches[0].answers == [["a", "a", "a", "c", "c", "b"], ["b"], ["c"]]
    assert batches[0].sentences == ["what is it?", "how many?", "which one?"]
    assert batches[0].text.tolist() == TOKENIZER(batches[0].sentences, context_length=10).tolist()
    assert batches[0].images.shape == (3, 1, 3, 8, 8)
    assert open_it(str(path), "vqa", labels=["b"]).labels == ["b"]


def test_two_pictures_and_a_sentence(folder):
    rows = [(f"{n}.png", f"{n + 1}.png", f"sentence {n}", str(n % 2 == 0)) for n in range(5)]
    data = open_it(write(folder / "list.csv", ("left", "right", "sentence", "label"), rows), "nlvr2")
    batch = next(iter(data.epoch(0)))
    assert data.labels == ["False", "True"] and batch.labels.tolist() == [1, 0, 1]
    assert batch.images.shape == (3, 2, 3, 8, 8) and values(batch) == [[0, 10], [10, 20], [20, 30]]
    assert batch.sentences == ["sentence 0", "sentence 1", "sentence 2"]
    assert [part.rpartition("/")[2] for part in batch.names[1].split(", ")] == ["1.png", "2.png"]


def test_both_pictures_of_a_row_get_the_same_crop(folder):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    for name in ("0.png", "1.png"):
        Image.fromarray(pixels).save(folder / name)
    path = write(folder / "list.csv", ("left", "right", "sentence", "label"), [("0.png", "1.png", "same", "yes")] * 3)
    data = open_it(path, "nlvr2", training=True)
    seen = []
    for epoch in range(3):
        [batch] = data.epoch(epoch)
        seen += [images.tobytes() for images in batch.images[:, 0]]
        assert batch.images[:, 0].tobytes() == batch.images[:, 1].tobytes()
    assert len(set(seen)) == 9


def test_pictures_are_never_mirrored(folder):
    """Left and right are what some questions ask for."""
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:, :16] = 255
    Image.fromarray(pixels).save(folder / "0.png")
    path = write(folder / "list.csv", ("filepath", "sentence", "label"), [("0.png", "left is white", "yes")] * 6)
    data = open_it(path, "entailment", training=True)
    for epoch in range(5):
        for batch in data.epoch(epoch):
            assert (batch.images[..., :3].mean((1, 2, 3, 4)) > 230).all()
            assert (batch.images[..., -3:].mean((1, 2, 3, 4)) < 25).all()


@pytest.fixture
def clips(tmp_path):
    write_video(tmp_path / "long.mp4")  # 20 frames
    write_video(tmp_path / "short.mp4", frames=2)
    rows = [("long.mp4", "up"), ("short.mp4", "down"), ("long.mp4", "up")]
    return write(tmp_path / "list.csv", ("filepath", "label"), rows)


def test_frames_of_videos(clips):
    several = {"frame_type": "multi_frames", "num_frames": 3}
    [batch] = open_it(clips, "video_classification", data=several).epoch(0)
    assert batch.labels.tolist() == [1, 0, 1]
    assert frame_numbers(batch.images) == [[0, 10, 19], [0, 0, 1], [0, 10, 19]]
    [batch] = open_it(clips, "video_classification").epoch(0)
    assert frame_numbers(batch.images) == [[10], [1], [10]]


def test_views_lie_between_one_another(clips):
    several = {"frame_type": "multi_frames", "num_frames": 3}
    [batch] = open_it(clips, "video_classification", data=several, views=2).epoch(0)
    assert batch.images.shape == (3, 6, 3, 8, 8)
    assert frame_numbers(batch.images)[0] == [0, 8, 15, 4, 11, 19]


@pytest.fixture
def numbered(folder):
    rows = [(f"{number % 7}.png", f"number {number}", str(number % 2)) for number in range(22)]
    return write(folder / "list.csv", ("filepath", "sentence", "label"), rows)


def assert_same(batches, expected):
    assert len(batches) == len(expected)
    for one, other in zip(batches, expected, strict=True):
        for field in ("images", "text", "labels"):
            assert getattr(one, field).tobytes() == getattr(other, field).tobytes()
        assert (one.names, one.sentences, one.answers) == (other.names, other.sentences, other.answers)


def test_an_epoch_depends_on_seed_and_epoch_only(numbered):
    whole = list(open_it(numbered, "entailment", training=True).epoch(1))
    assert len(whole) == 7  # of 3; one sample is left out
    assert_same(list(open_it(numbered, "entailment", training=True).epoch(1, 3)), whole[3:])
    again = open_it(numbered, "entailment", training=True, data={"num_workers": 2})
    assert_same(list(again.epoch(1)), whole)
    assert joined(again.epoch(2), "sentences") != joined(whole, "sentences")
    ranks = [
        list(open_it(numbered, "entailment", training=True, batch_size=1, rank=rank, world_size=3).epoch(1))
        for rank in range(3)
    ]
    for number, batch in enumerate(whole):
        assert [rank[number].sentences[0] for rank in ranks] == batch.sentences


@pytest.mark.parametrize("num_workers", [0, 2])
def test_validation_leaves_no_sample_out(numbered, num_workers):
    options = {"batch_size": 4, "world_size": 2, "data": {"num_workers": num_workers}}
    ranks = [list(open_it(numbered, "entailment", rank=rank, **options).epoch(0)) for rank in range(2)]
    assert [len(batch.names) for batch in ranks[0]] == [4, 4, 4] and [len(batch.names) for batch in ranks[1]] == [
        4,
        4,
        2,
    ]
    said = joined([batch for pair in zip(*ranks, strict=True) for batch in pair], "sentences")
    assert said == [f"number {number}" for number in range(22)]
    few = [list(open_it(numbered, "entailment", rank=rank, batch_size=22, world_size=2).epoch(0)) for rank in range(2)]
    assert [len(batches) for batches in few] == [1, 0]


def test_unreadable_samples_are_replaced_and_counted(folder):
    rows = [(f"{number}.png", number % 2) for number in range(7)]
    path = write(folder / "list.csv", ("filepath", "label"), rows)
    (folder / "2.png").write_bytes(b"no picture")
    data = open_it(path, "classification", data={"max_bad_share": 0.3})
    batches = list(data.epoch(0))
    assert [value for batch in batches for value in values(batch)] == [[0], [10], [30], [30], [40], [50], [60]]
    assert joined(batches, "labels") == [0, 1, 1, 1, 0, 1, 0]
    assert [name.rpartition("/")[2] for name in data.bad_samples] == ["2.png"]
    with pytest.raises(InputError, match="cannot be read"):
        list(open_it(path, "classification", data={"max_bad_share": 0.1}).epoch(0))


@pytest.mark.parametrize(
    "task, columns, row, message",
    [
        ("classification", ("filepath", "class"), ("0.png", "a"), "'label', which task classification asks for"),
        ("nlvr2", ("left", "rihgt", "sentence", "label"), ("0.png", "1.png", "a", "b"), "did you mean 'rihgt'"),
        ("vqa", ("filepath", "sentence", "answer"), ("0.png", "a", "b"), "'question', which task vqa asks for"),
        ("entailment", ("filepath", "sentence", "label"), ("0.png", "", "b"), "line 2 has no sentence"),
        ("classification", ("filepath", "label"), ("0.png", " "), "line 2 has no label"),
        ("classification", ("filepath", "label"), ("nothing.png", "a"), "nothing.png does not exist"),
    ],
)
def test_mistakes_in_lists(folder, task, columns, row, message):
    path = write(folder / "list.csv", columns, [row])
    with pytest.raises(InputError, match=message) as caught:
        open_it(path, task)
    assert "list.csv" in str(caught.value) and "\n" not in str(caught.value)


def test_mistakes_in_json_lines(folder):
    path = folder / "list.jsonl"
    for row, task, message in (
        ({"filepath": "0.png", "question": "who?"}, "vqa", "line 1 has neither answer nor answers"),
        ({"filepath": "0.png", "question": "who?", "answers": []}, "vqa", "line 1 has no answers"),
        ({"filepath": "0.png", "label": ["a"]}, "classification", "line 1: label is a list"),
    ):
        path.write_text(json.dumps(row))
        with pytest.raises(InputError, match=message):
            open_it(str(path), task)


def test_answers_that_are_none(folder):
    """null and NaN are no answers, never the texts "None" and "nan"."""
    path = folder / "list.jsonl"
    path.write_text(
        '{"filepath": "0.png", "question": "who?", "answers": ["a", null, NaN, {"answer": null}, "a", "b"]}'
    )
    [batch] = open_it(str(path), "vqa").epoch(0)
    assert batch.answers == [["a", "a", "b"]]
    path.write_text('{"filepath": "0.png", "label": NaN}')
    with pytest.raises(InputError, match="line 1 has no label"):
        open_it(str(path), "classification")


def test_rows_that_cannot_be_used_are_counted(folder, caplog):
    path = folder / "list.csv"
    path.write_text("filepath,label\n0.png,cat\n1.png,dog,x\n2.png,\n3.png,cat\n")
    data = open_it(str(path), "classification", data={"max_bad_share": 0.5})
    assert data.rows_refused == 2 and data.labels == ["cat"]
    assert joined(data.epoch(0), "answers") == [["cat"]] * 2
    assert "list.csv: 2 rows read; 2 rows refused" in caplog.text and "line 4 has no label" in caplog.text


def test_mistakes_in_settings(folder):
    path = write(folder / "list.csv", ("filepath", "label"), [("0.png", "cat"), ("1.png", "dgo")])
    several = {"frame_type": "multi_frames"}
    for call, message in (
        (
            lambda: open_it(path, "classification", labels=["cat", "dog"]),
            "'dgo' is none of the 2 classes; did you mean",
        ),
        (lambda: open_it(path, "classify"), "task: 'classify' is none of"),
        (lambda: open_it(str(folder / "none.csv"), "classification"), "none.csv: no such file"),
        (lambda: open_it({"path": path, "caption_key": "a"}, "classification"), "caption_key says nothing about"),
        (lambda: open_it({"path": path, "format": "coco"}, "vqa"), "a coco source has no rows for task vqa"),
        (lambda: open_it(path, "classification", data=several), "multi_frames is for task video_classification"),
        (lambda: open_it(path, "video_classification", views=2), "views: more than one needs"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
