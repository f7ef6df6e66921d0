"""Captions identical to open_clip's generate, run live: every generation type, with the arguments of both.

300 captions over all arguments and 300 more at batch sizes from 1 to 16; a part of them in the default run.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from tests.generation.pairs import CONFIGS, Pair, get_pair, sample_both
from tests.generation.reference_search import reference_search

pytestmark = pytest.mark.graphs

EXTRAS: tuple[dict[str, Any], ...] = (  # taken in turn by the sampling cases
    {},
    {"repetition_penalty": 1.3},
    {"prompt": 4},
    {"min_seq_len": 12, "seq_len": 24},
    {"fixed_output_length": True},
    {"repetition_penalty": 0.8, "prompt": 3, "seq_len": 17},
    {"pad_token_id": 7},
)
FILTERS = [("top_k", k) for k in (1, 5, 50)] + [("top_p", p) for p in (0.1, 0.5, 0.9)]
SAMPLING = [
    {"generation_type": kind, kind: value, "temperature": temperature, **EXTRAS[(3 * i + j) % len(EXTRAS)]}
    for i, (kind, value) in enumerate(FILTERS)
    for j, temperature in enumerate((0.7, 1.0, 1.5))
]
BEAMS: list[dict[str, Any]] = [
    {},
    {"num_beams": 2, "num_beam_groups": 1, "repetition_penalty": 1.2, "prompt": 4},
    {"num_beams": 4, "num_beam_groups": 2, "min_seq_len": 12, "fixed_output_length": True},
    {"repetition_penalty": 0.7, "seq_len": 12},
    {"num_beams": 4, "num_beam_groups": 1},
    {"num_beams": 10, "num_beam_groups": 5, "seq_len": 21, "pad_token_id": 9},
    {"num_beams": 3, "num_beam_groups": 1, "min_seq_len": 1},
    {"num_beams": 4, "num_beam_groups": 1, "prompt": 7, "seq_len": 20, "repetition_penalty": 1.2},
]
TWO_BEAMS = [case for case in BEAMS if case.get("num_beams", 6) == 2 * case.get("num_beam_groups", 3)]


@dataclass
class Seen:
    """What the compared captions were like, so that a test shows that it covered what it claims."""

    captions: set[tuple[int, ...]] = field(default_factory=set)
    count: int = 0
    early: int = 0
    full: int = 0
    mask_padding_inside: int = 0

    def add(self, pair: Pair, captions: np.ndarray, seq_len: int) -> None:
        for caption in captions:
            length = [*caption, pair.end].index(pair.end)
            self.count += 1
            self.captions.add(tuple(caption))
            self.early += length < seq_len - 1
            self.full += length >= seq_len - 1
            self.mask_padding_inside += pair.config["text_cfg"].get("pad_id", 0) in caption[1 : length - 1]


def compare(pair: Pair, case: dict, batch: int, seed: int, seen: Seen) -> None:
    options = dict(case)
    images = pair.images(batch, seed)
    prompt = pair.prompt(batch, options.pop("prompt"), seed) if "prompt" in options else None
    if "generation_type" in options:
        theirs, ours = sample_both(pair, images, prompt, seed, **options)
    else:
        ours = pair.ours(images, prompt, **options)
        # open_clip's beam search ignores a prompt
        theirs = pair.theirs(images, **options) if prompt is None else reference_search(pair, images, prompt, **options)
    assert ours.dtype == np.int32
    np.testing.assert_array_equal(ours, theirs, f"{case}, batch {batch}, seed {seed}")
    seen.add(pair, ours, options.get("seq_len", 30))


def test_the_loop_with_prompts_agrees_with_open_clip_where_both_run():
    pair = get_pair("base")
    for options in ({}, {"num_beams": 4, "num_beam_groups": 1, "min_seq_len": 9, "repetition_penalty": 1.2}):
        want = pair.theirs(pair.images(5), **options)
        np.testing.assert_array_equal(reference_search(pair, pair.images(5), **options), want)


def test_every_way_of_sampling():
    pair, seen = get_pair("base"), Seen()
    for seed, case in enumerate(SAMPLING):
        compare(pair, case, 1, seed, seen)
    assert len(seen.captions) == seen.count == 18
    assert seen.early >= 5 and seen.full >= 2


def test_beam_search_in_batches():
    pair, seen = get_pair("base"), Seen()
    for seed, case in enumerate(TWO_BEAMS):
        compare(pair, case, 3, seed, seen)
    compare(pair, {}, 8, 0, seen)
    compare(pair, {"generation_type": "top_p", "top_p": 0.9}, 8, 0, seen)
    assert seen.count == 3 * len(TWO_BEAMS) + 16 and len(seen.captions) >= seen.count - 3
    assert seen.early >= 8 and seen.full >= 5 and seen.mask_padding_inside >= 3


@pytest.mark.parametrize(
    "name, options",
    [
        ("odd_sizes", {"num_beams": 2, "num_beam_groups": 1}),
        ("no_class_token", {"num_beams": 2, "num_beam_groups": 1}),
        ("bidirectional", {"generation_type": "top_p", "top_p": 0.9, "seq_len": 16}),
    ],
)
def test_other_models(name, options):
    for seed in (5, 7, 9):
        compare(get_pair(name), {**options, "prompt": 4}, 1, seed, Seen())


@pytest.mark.slow
def test_300_captions_over_all_arguments():
    seen = Seen()
    for number, name in enumerate(CONFIGS):
        for seed, case in enumerate(SAMPLING + 2 * BEAMS):
            compare(get_pair(name), case, 2, 100 * number + seed, seen)
    print(seen.count, len(seen.captions), seen.early, seen.full, seen.mask_padding_inside)
    assert seen.count >= 300 and len(seen.captions) >= 0.9 * seen.count
    assert min(seen.early, seen.full, seen.mask_padding_inside) >= 30


@pytest.mark.slow
def test_300_captions_at_batch_sizes_1_to_16():
    seen = Seen()
    for number, name in enumerate(CONFIGS):
        for batch in (1, 3, 8, 16):
            some = {8: slice(6), 16: slice(2, 7, 2)}.get(batch, slice(8))
            cases = (TWO_BEAMS + SAMPLING[:: 5 - number])[some]
            for seed, case in enumerate(cases):
                compare(get_pair(name), case, batch, 1000 * (number + 1) + seed, seen)
    print(seen.count, len(seen.captions), seen.early, seen.full, seen.mask_padding_inside)
    assert seen.count >= 300 and len(seen.captions) >= 0.9 * seen.count
    assert min(seen.early, seen.full, seen.mask_padding_inside) >= 30
