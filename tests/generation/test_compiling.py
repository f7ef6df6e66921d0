"""Graphs compile once for each bucket of rows and lengths; work is done for unfinished captions only, once an image."""

import mindspore.common.api
import numpy as np
import pytest

from mindone_coca import batch_sizes
from mindone_coca.generation.graphs import StepGraph
from mindone_coca.model.open_clip.vision import VisionTransformer

pytestmark = pytest.mark.graphs

TWO_BEAMS = {"num_beams": 2, "num_beam_groups": 1}
TOP_P = {"generation_type": "top_p", "top_p": 0.9}


@pytest.fixture
def compiled(monkeypatch) -> list[str]:
    """The names of the cells whose graphs are compiled during the test."""
    names: list[str] = []
    executor = type(mindspore.common.api._cell_graph_executor)
    compile_graph = executor.compile

    def counting(self, cell, *args, **kwargs):
        phase, is_new = compile_graph(self, cell, *args, **kwargs)
        if is_new:
            names.append(type(cell).__name__)
        return phase, is_new

    monkeypatch.setattr(executor, "compile", counting)
    return names


@pytest.fixture
def rows_run(monkeypatch) -> list[int]:
    """The rows of every token step."""
    rows: list[int] = []
    run = StepGraph.__call__

    def counting(self, ids, *args):
        rows.append(ids.shape[0])
        return run(self, ids, *args)

    monkeypatch.setattr(StepGraph, "__call__", counting)
    return rows


def test_a_whole_caption_compiles_no_more_than_a_short_one(base, compiled):
    """With beams of a size that no other test uses, so that something is left to compile."""
    five = {"num_beams": 5, "num_beam_groups": 1, "min_seq_len": 4}
    base.ours(base.images(1), seq_len=5, **five)
    assert sorted(name for name in compiled if name.endswith("Graph")) == ["PromptGraph", "StepGraph"]
    compiled.clear()
    assert base.ours(base.images(1), seq_len=33, **{**five, "min_seq_len": 32}).shape == (1, 33)
    assert compiled == []


def test_nothing_compiles_again(base, compiled):
    for batch in (1, 2, 4):  # warm up: rows in powers of two, prompts of 1 and of 2 to 8, none of them ending early
        for prompt in (None, base.prompt(batch, 5)):
            for options in (TWO_BEAMS, TOP_P):
                base.ours(base.images(batch), prompt, min_seq_len=9, seq_len=10, pad_token_id=1, **options)
    compiled.clear()
    shapes = set()
    for seed, batch in enumerate((1, 2, 3, 4, 3, 2, 1)):
        for prompt in (None, base.prompt(batch, 2 + seed, seed)):
            # by a seed, else the lengths of samples are now and then all the same
            for options in (TWO_BEAMS, {**TOP_P, "seed": seed}, {"num_beams": 6, "num_beam_groups": 3}):
                ours = base.ours(base.images(batch, seed), prompt, seq_len=12 + 3 * seed, min_seq_len=seed, **options)
                shapes.add(ours.shape)
    for value in (0.5, 0.7, 0.9):
        base.ours(base.images(1), generation_type="top_p", temperature=value, top_p=1 - value)
    assert len(shapes) > 10
    assert compiled == []


def test_finished_captions_stop_costing(base, rows_run):
    images = base.images(4, seed=3)
    captions = base.ours(images, uniforms=np.random.default_rng(6).random(200), **TOP_P)
    lengths = np.array(
        [next((i for i, token in enumerate(row) if token in (base.end, base.pad)), len(row)) for row in captions]
    )
    assert len(set(lengths)) == 4, "choose images whose captions differ in length"
    # the token at position t is run for the rows that did not end before it, in one of few sizes
    unfinished = [(lengths > t).sum() for t in range(1, captions.shape[1] - 1)]
    assert rows_run == [batch_sizes.padded(n) for n in unfinished if n] and len(set(rows_run)) > 1


def test_finished_images_stop_costing_beams(base, rows_run):
    images = base.images(5, seed=5)
    together = base.ours(images, **TWO_BEAMS)
    first = list(rows_run)
    steps = []
    for image in images:
        rows_run.clear()
        base.ours(image[None], **TWO_BEAMS)
        assert set(rows_run) == {2}
        steps.append(len(rows_run))
    assert len(together) == 5 and len(set(steps)) > 1, "choose images whose searches differ in length"
    going_on = [sum(t < n for n in steps) for t in range(max(steps))]
    assert first == [2 * batch_sizes.padded(n) for n in going_on] and len(set(first)) > 1


def test_groups_without_a_penalty_are_run_once(base, rows_run):
    base.ours(base.images(1), num_beams=6, num_beam_groups=3)
    assert set(rows_run) == {2}


def test_an_image_is_encoded_once(base, monkeypatch):
    encoded = []
    encode = VisionTransformer.__call__

    def counting(self, images):
        encoded.append(images.shape[0])
        return encode(self, images)

    monkeypatch.setattr(VisionTransformer, "__call__", counting)
    base.ours(base.images(3), **TWO_BEAMS)
    assert sum(encoded) == 3


def test_calls_of_any_size_compile_few_graphs(base, compiled):
    """What 1, 3, 8 and 5 images need, with beams of a size that no other test uses."""
    three = {"num_beams": 3, "num_beam_groups": 1, "seq_len": 12}
    for batch in (1, 3, 8, 5):
        base.ours(base.images(batch, seed=batch), **three)
    counts = {name: compiled.count(name) for name in ("PromptGraph", "StepGraph", "VisionTransformer")}
    assert counts["PromptGraph"] == counts["StepGraph"] == 3 and counts["VisionTransformer"] <= 2


def test_many_images_are_captioned_in_parts(base, rows_run):
    images = base.images(19, seed=8)
    together = base.ours(images, **TWO_BEAMS)
    assert max(rows_run) == 2 * batch_sizes.captioned_at_once()[-1]
    for image, caption in zip(images[::6], together[::6]):
        alone = base.ours(image[None], **TWO_BEAMS)[0]
        np.testing.assert_array_equal(caption[: len(alone)], alone)
        assert (caption[len(alone) :] == base.pad).all()
