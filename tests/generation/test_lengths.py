"""A default never asks for more tokens than a model has positions; what was given is refused there."""

import inspect

import mindspore as ms
import numpy as np
import pytest

from mindone_coca.errors import InputError
from mindone_coca.generation.generate import generate
from mindone_coca.generation.settings import MIN_SEQ_LEN, SEQ_LEN, fitting
from mindone_coca.model.open_clip.model import CoCa
from mindone_coca.typed_mapping import Default, at_most
from tests.models import make_config

IDS = {"sot_token_id": 118, "eos_token_id": 119, "pad_token_id": 0}


def test_only_defaults_give_way():
    assert at_most(Default(30), 9) == 9 and type(at_most(Default(30), 9)) is int
    assert at_most(Default(30), 77) == 30 and at_most(30, 9) == 30


@pytest.mark.parametrize(
    ("given", "limit", "fitted"),
    [
        ({}, 76, (30, 5)),
        ({}, 8, (9, 5)),
        ({}, 3, (4, 3)),
        ({"seq_len": 30}, 8, (30, 5)),
        ({"seq_len": 4}, 3, (4, 3)),
        ({"min_seq_len": 5}, 3, (4, 5)),
        ({"generation_type": "top_k"}, 8, (9, 5)),
        ({"generation_type": "top_k", "max_seq_len": 8}, 8, (30, 5)),  # its window slides on
        ({"generation_type": "top_k", "max_seq_len": 3}, 3, (30, 5)),
        ({"max_seq_len": 8}, 8, (9, 5)),  # no window in beam search
    ],
)
def test_fitting(given, limit, fitted):
    found = fitting({"seq_len": SEQ_LEN, "min_seq_len": MIN_SEQ_LEN, "max_seq_len": 77} | given, limit)
    assert (found["seq_len"], found["min_seq_len"]) == fitted
    assert found.keys() - given.keys() <= {"seq_len", "min_seq_len", "max_seq_len"}


def test_the_signature_is_open_clip_s():
    parameters = inspect.signature(generate).parameters
    assert (parameters["seq_len"].default, parameters["min_seq_len"].default) == (30, 5)


def short_model(context: int) -> CoCa:
    ms.set_seed(3)
    lengths = {"layers": 1, "context_length": context}
    return CoCa(**make_config(vision={"layers": 1}, text=lengths, multimodal=lengths))


@pytest.mark.parametrize(
    ("context", "given", "lengths"),
    [
        (8, {}, (9, 5)),
        (3, {}, (4, 3)),
        (8, {"generation_type": "top_k"}, (9, 5)),
        (8, {"generation_type": "top_k", "max_seq_len": 8}, (30, 5)),
        (8, {"generation_type": "top_k", "max_seq_len": 8, "seq_len": 50}, (50, 5)),
        (40, {}, (30, 5)),
    ],
)
def test_what_a_model_is_asked_for(monkeypatch, context, given, lengths):
    model, asked = short_model(context), []

    def search(engine, image_embs, prompt, config, **_):
        asked.append((config.seq_len, config.min_seq_len))
        return prompt[:, :1], np.zeros(1), np.zeros(1)

    for name in ("beam_search", "sample"):
        monkeypatch.setattr(f"mindone_coca.generation.generate.{name}", search)
    model.generate(None, image_embs=np.zeros((1, 8, 32), np.float32), **IDS, **given)
    assert asked == [lengths]


@pytest.mark.parametrize("kind", [{}, {"generation_type": "top_k"}])
def test_what_was_given_is_refused(kind):
    with pytest.raises(InputError, match=r"^seq_len: 30 tokens need 29 positions, but this model has 8"):
        short_model(8).generate(None, image_embs=np.zeros((1, 8, 32), np.float32), seq_len=30, **IDS, **kind)
