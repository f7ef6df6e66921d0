"""The demo model's world: one caption for each scene, nothing held out in training, files as train.py reads them."""

import csv
import functools
import io
import itertools
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mindone_coca.data.loader import open_data
from mindone_coca.data.settings import DataConfig
from mindone_coca.model.families import load_model_config
from mindone_coca.model.open_clip.family import OPEN_CLIP
from mindone_coca.preprocess.tokenizer import Tokenizer
from mindone_coca.preprocess.transforms import create_train_transforms
from mindone_coca.video.frames import read_frames

sys.path.insert(0, str(Path(__file__).parents[1] / "examples/demo"))

import demo_drawing
import demo_scenes
import make_demo_data
import make_style_data
from demo_scenes import COLOURS, SHAPES, Shape, describe

REPOSITORY = Path(__file__).parents[1]
TOOL = REPOSITORY / "examples/demo/make_demo_data.py"
SMALL, LARGE = 7.0, 13.0


def scenes(count: int, held_out: bool) -> list[list[Shape]]:
    return [scene(number, held_out) for number in range(count)]


@functools.cache
def scene(number: int, held_out: bool) -> list[Shape]:
    return demo_scenes.sample_scene(np.random.default_rng(number), held_out)


@pytest.mark.parametrize(
    "shapes, caption",
    [
        ([("red", "circle", 30, 30, LARGE)], "a large red circle"),
        ([("orange", "star", 30, 30, SMALL)], "a small orange star"),
        ([("green", "star", 10, 10, SMALL), ("green", "star", 50, 40, SMALL)], "two small green stars"),
        (
            [("green", "cross", 10, 10, SMALL), ("green", "cross", 50, 40, SMALL), ("green", "cross", 9, 50, SMALL)],
            "three small green crosses",
        ),
        # the larger first, wherever it stands
        (
            [("red", "circle", 30, 15, LARGE), ("blue", "square", 32, 50, SMALL)],
            "a large red circle above a small blue square",
        ),
        (
            [("blue", "square", 32, 15, SMALL), ("red", "circle", 30, 48, LARGE)],
            "a large red circle below a small blue square",
        ),
        (
            [("blue", "square", 12, 30, SMALL), ("red", "circle", 45, 25, LARGE)],
            "a large red circle right of a small blue square",
        ),
        # of one size: the upper or left one first
        (
            [("blue", "square", 50, 30, SMALL), ("red", "circle", 15, 35, SMALL)],
            "a small red circle left of a small blue square",
        ),
        (
            [("blue", "square", 30, 50, SMALL), ("blue", "circle", 35, 15, SMALL)],
            "a small blue circle above a small blue square",
        ),
        # the pair first
        (
            [("white", "ring", 15, 32, LARGE), ("black", "cross", 50, 22, SMALL), ("black", "cross", 51, 42, SMALL)],
            "two small black crosses right of a large white ring",
        ),
        (
            [("green", "star", 52, 30, SMALL), ("orange", "ring", 10, 31, SMALL), ("blue", "star", 31, 33, SMALL)],
            "an orange ring and a blue star and a green star",
        ),
    ],
)
def test_captions(shapes, caption):
    shapes = [Shape(*shape) for shape in shapes]
    assert describe(shapes) == caption
    assert describe(shapes[::-1]) == caption


@pytest.mark.parametrize(
    "shapes",
    [
        [("red", "circle", 30, 30, 10.0)],
        [("red", "circle", 15, 15, SMALL), ("blue", "square", 45, 45, SMALL)],  # neither beside nor above
        [("red", "circle", 20, 30, SMALL), ("blue", "square", 34, 30, SMALL)],  # they touch
        [("red", "circle", 20, 30, SMALL), ("red", "circle", 45, 30, LARGE)],
        [("red", "star", 10, 10, SMALL), ("blue", "star", 12, 30, SMALL), ("green", "star", 11, 50, SMALL)],
        [("red", "star", 30, 8, SMALL), ("red", "star", 30, 56, SMALL), ("blue", "ring", 30, 32, SMALL)],
    ],
)
def test_unclear_scenes_have_no_caption(shapes):
    with pytest.raises(ValueError):
        describe([Shape(*shape) for shape in shapes])


def looks_of(caption: str) -> list[tuple[str, str, str]]:
    """The (size, colour, shape) that a caption names; three kinds side by side are small ones."""
    singular = {plural: name for name, plural in SHAPES.items()} | {name: name for name in SHAPES}
    words = caption.split()
    return [
        (words[i - 1] if words[i - 1] in demo_scenes.SIZES else "small", word, singular[words[i + 1]])
        for i, word in enumerate(words)
        if word in COLOURS
    ]


def direction_of(caption: str) -> str | None:
    if " above " in caption or " below " in caption:
        return "vertical"
    return "horizontal" if " of " in caption or " and " in caption else None


def held_out_of(caption: str) -> set[tuple[str, ...]]:
    """The combinations in a caption that training never shows."""
    looks = looks_of(caption)
    neighbours = {(*sorted((a[2], b[2])), direction_of(caption)) for a, b in itertools.pairwise(looks)}
    colours = set(itertools.combinations(sorted({look[1] for look in looks}), 2))
    return demo_scenes.HELD_OUT_COLOURS & colours | demo_scenes.HELD_OUT_RELATIONS & neighbours


@pytest.mark.graphs
def test_training_shows_every_word_and_nothing_held_out():
    captions = [describe(shapes) for shapes in scenes(5000, held_out=False)]
    assert not any(held_out_of(caption) for caption in captions)
    seen = Counter(look for caption in captions for look in looks_of(caption))
    assert len(seen) == 2 * len(COLOURS) * len(SHAPES) and min(seen.values()) > 10
    for text in ("above", "below", "left of", "right of", "two", "three", "large", "small", " and "):
        assert sum(text in caption for caption in captions) > 100, text


@pytest.mark.graphs
def test_every_held_out_scene_has_an_unseen_combination():
    captions = [describe(shapes) for shapes in scenes(1000, held_out=True)]
    shown = [held_out_of(caption) for caption in captions]
    assert all(shown) and len(set(captions)) > 500
    assert set().union(*shown) == demo_scenes.HELD_OUT_COLOURS | demo_scenes.HELD_OUT_RELATIONS


def test_held_out_combinations_are_of_known_words():
    for colours in demo_scenes.HELD_OUT_COLOURS:
        assert list(colours) == sorted(colours) and set(colours) <= set(COLOURS)
    for *names, direction in demo_scenes.HELD_OUT_RELATIONS:
        assert names == sorted(names) and set(names) <= set(SHAPES) and direction in ("vertical", "horizontal")


def test_captions_fit_the_model_and_generation():
    config = load_model_config(REPOSITORY / "configs" / "coca_tiny.yaml")
    ids = Tokenizer()(sorted({describe(s) for s in scenes(2000, held_out=False)}), context_length=77)
    lengths = (ids != 0).sum(1)
    # no end token comes before the fifth token by default, and 30 tokens are the longest by default
    assert lengths.min() >= 6 and lengths.max() <= 16 < config.text_cfg.context_length
    assert min(config.text_cfg.context_length, config.multimodal_cfg.context_length) >= 29
    assert 2 * sum(math.prod(shape) for shape in OPEN_CLIP.shapes(config).values()) <= 40e6


def test_shapes_are_apart_inside_and_drawn_where_they_stand():
    for number, shapes in enumerate(scenes(200, held_out=False)):
        left, top, right, bottom = demo_scenes.bounds(shapes)
        assert min(left, top) >= demo_scenes.MARGIN - 1e-9 and max(right, bottom) <= 64 - demo_scenes.MARGIN + 1e-9
        for i, a in enumerate(shapes):
            for b in shapes[:i]:
                assert math.dist((a.x, a.y), (b.x, b.y)) > a.radius + b.radius + 1
        grey = Image.new("RGB", (256, 256), (128, 128, 128))
        demo_drawing.draw_shapes(grey, shapes)
        pixels = np.asarray(grey).astype(int)
        for shape in shapes:
            offset = 0.77 * shape.radius if shape.name == "ring" else 0
            at = pixels[round(shape.y * 4 - 0.5), round((shape.x + offset) * 4 - 0.5)]
            assert np.abs(at - shape.rgb).max() <= 2, (number, shape)
        covered = (pixels != 128).any(2).sum() / 16
        assert 0.15 < covered / sum(4 * s.radius**2 for s in shapes) < 0.8


def test_the_seed_decides_everything():
    first = [make_demo_data.make_image(7, "train", i) for i in range(20)]
    assert first == [make_demo_data.make_image(7, "train", i) for i in range(20)]
    for other in (
        [make_demo_data.make_image(8, "train", i) for i in range(20)],
        [make_demo_data.make_image(7, "val", i) for i in range(20)],
    ):
        assert not {image for image, _ in first} & {image for image, _ in other}
    assert Image.open(io.BytesIO(first[0][0])).size == (64, 64)


def test_videos_move_and_keep_their_caption(tmp_path):
    for number, shapes in enumerate(scenes(60, held_out=True)):
        frames = list(demo_drawing.motion(np.random.default_rng(number), shapes, 25))
        assert frames[12] == shapes
        assert {describe(frame) for frame in frames} == {describe(shapes)}
        assert frames[0] != shapes
        assert all(min(demo_scenes.bounds(f)[:2]) >= 1 and max(demo_scenes.bounds(f)[2:]) <= 63 for f in frames)
    caption = make_demo_data.make_video(0, 3, tmp_path / "a.mp4")
    shapes = demo_scenes.sample_scene(make_demo_data.generator(0, "videos", 3), held_out=True)
    assert caption == describe(shapes)
    [middle] = read_frames(tmp_path / "a.mp4")
    assert middle.index == make_demo_data.VIDEO_FRAMES // 2
    assert_shows(middle.rgb, shapes)


def assert_shows(pixels: np.ndarray, shapes: list[Shape]) -> None:
    scale = len(pixels) / 64
    for shape in shapes:
        offset = 0.77 * shape.radius if shape.name == "ring" else 0
        at = pixels[round(shape.y * scale - 0.5), round((shape.x + offset) * scale - 0.5)]
        assert np.abs(at.astype(int) - shape.rgb).max() <= 25, shape


def test_bundled_video(tmp_path):
    bundled = REPOSITORY / "assets" / "demo.mp4"
    assert bundled.stat().st_size < 300_000
    caption = make_demo_data.write_demo_video(tmp_path / "demo.mp4", 0)
    assert f"> {caption}\n" in (REPOSITORY / "assets" / "README.md").read_text()
    assert len(held_out_of(caption)) == 2
    ours, made = read_frames(bundled, "multi_frames", 9), read_frames(tmp_path / "demo.mp4", "multi_frames", 9)
    for a, b in zip(ours, made, strict=True):
        assert a.index == b.index and np.abs(a.rgb.astype(int) - b.rgb).mean() < 2  # builds of x264 differ
    assert_shows(read_frames(bundled)[0].rgb, make_demo_data.demo_scene())


@pytest.mark.graphs
def test_command_writes_what_training_reads(tmp_path):
    counts = ["--train", "40", "--single", "24", "--held_out", "8", "--videos", "2"]
    command = [sys.executable, TOOL, "--target", tmp_path / "demo", *counts]
    run = subprocess.run([*command, "--workers", "2"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    folder = tmp_path / "demo"
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]
    config = DataConfig(train=str(folder / "train-*.tar"), val=str(folder / "val.csv"), num_workers=0)
    options = {"batch_size": 8, "context_length": 30}
    data = open_data(config, Tokenizer(), create_train_transforms(48), **options)
    batches = list(data.epoch(0))
    assert len(batches) == 5 and batches[0].images.shape == (8, 3, 48, 48) and not data.bad_samples
    expected = [make_demo_data.make_image(0, "train", i)[1] for i in range(40)]
    assert Counter(caption for batch in batches for caption in batch.captions) == Counter(expected)
    for name in ("val", "held_out", "videos"):
        with open(folder / f"{name}.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == (2 if name == "videos" else 8)
        assert all((folder / row["filepath"]).is_file() for row in rows)
        assert all(bool(held_out_of(row["title"])) == (name != "val") for row in rows)

    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 2 and again.stdout == ""
    assert again.stderr == f"error: {folder}: exists already; remove it or choose another --target\n"


def test_an_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(make_demo_data, "write_list", fail)
    with pytest.raises(OSError, match="disk full"):
        make_demo_data.write_data(tmp_path / "demo", 5, 1, 1, 1, 0, 1)
    assert list(tmp_path.iterdir()) == []


def test_the_other_wording_of_the_style_data(tmp_path):
    other = "one big red star over a little yellow ring"
    assert make_style_data.restyled("a large red star above a small yellow ring") == other
    assert make_style_data.restyled("an orange star and a red ring") == "one orange star and a red ring"
    assert make_style_data.restyled("two small red stars below a large ring") == "two little red stars under a big ring"
    target = tmp_path / "style"
    assert make_style_data.main(["--target", str(target), "--train", "3", "--held_out", "2"]) == 0
    for name, pictures in (("train", 3), ("val", 2), ("held_out", 2)):
        with open(target / f"{name}.csv", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == pictures
        first = make_style_data.TRAINED_ON if name == "train" else 0  # the demo model has not seen these
        for number, row in enumerate(rows, first):
            picture, caption = make_demo_data.make_image(0, name, number)
            assert (target / row["filepath"]).read_bytes() == picture
            assert row["title"] == make_style_data.restyled(caption)
    assert make_style_data.main(["--target", str(target)]) == 2
