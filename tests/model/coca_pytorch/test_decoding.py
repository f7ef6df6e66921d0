"""Captions of coca-pytorch's family by the cached engine, against an uncached loop over coca-pytorch's logits."""

from functools import cache

import numpy as np
import pytest

from mindone_coca.errors import InputError
from tests.parallel_models import SMALL, from_reference, make_inputs, random_reference
from tests.reference import torch

pytestmark = pytest.mark.graphs

START, END, PAD, NEVER = 88, 89, 0, 1
IDS = {"sot_token_id": START, "eos_token_id": END}
GREEDY = {"generation_type": "top_k", "top_k": 1, "min_seq_len": 1}
CONFIG = {**SMALL, "dim": 48, "heads": 4, "unimodal_depth": 2, "multimodal_depth": 2}


@cache
def pair():
    """A model whose captions differ and end early now and then.

    With tied embeddings a random model repeats its last token: so what the layers add is made larger, and end and
    padding are favoured a little.
    """
    reference = random_reference(CONFIG, seed=3, logit_std=0.5)
    with torch.no_grad():
        for name, value in reference.named_parameters():
            if name.endswith(("attn_out.weight", "ff_out.1.weight", "to_out.weight", "ff.2.weight")):
                value.mul_(1 if "img_encoder" in name else 10 if ".1.fn.to_out" in name else 4)
        reference.to_logits[0].gamma[0], reference.to_logits[0].beta[0] = 0, 1  # a constant channel
        reference.token_emb.weight[:, 0] = 0
        reference.token_emb.weight[END, 0], reference.token_emb.weight[PAD, 0] = 3.7, 3.2
        reference.token_emb.weight[NEVER, 0] = -50
    return reference, from_reference(reference, CONFIG)


def images(count: int, seed: int = 0) -> np.ndarray:
    # a colour for each, so that captions differ
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((count, 3, 16, 16)) + 3 * rng.standard_normal((count, 3, 1, 1))
    return noise.astype(np.float32)


def reference_greedy(pictures: np.ndarray, seq_len: int, prompt: np.ndarray | None = None) -> np.ndarray:
    """The likeliest next token over and over; rows that ended grow padding, the last place is an end token."""
    reference, _ = pair()
    ids = torch.full((len(pictures), 1), START) if prompt is None else torch.from_numpy(prompt)
    with torch.no_grad():
        tokens = reference.img_encoder(torch.from_numpy(pictures))
        while ids.shape[1] < seq_len:
            ended = (ids[:, -1:] == END) | (ids[:, -1:] == PAD)
            if ended.all():
                break
            following = reference(ids, image_tokens=tokens)[:, -1:].argmax(-1)
            if ids.shape[1] == seq_len - 1:
                following[:] = END
            ids = torch.cat((ids, torch.where(ended, PAD, following)), 1)
    return ids.numpy()


def test_100_greedy_captions():
    _, model = pair()
    captions, early, full, by_padding = set(), 0, 0, 0
    for seed in range(5):
        pictures = images(20, seed)
        want = reference_greedy(pictures, 36)
        ours = model.generate(pictures, seq_len=36, **GREEDY, **IDS).asnumpy()
        np.testing.assert_array_equal(ours, want, f"seed {seed}")
        captions.update(map(tuple, want))
        lengths = [[*row, END].index(END) for row in want.tolist()]
        early += sum(length != 35 for length in lengths)
        full += sum(length == 35 for length in lengths)
        by_padding += sum(END not in row for row in want.tolist())
    print(len(captions), early, full, by_padding)
    assert len(captions) >= 50 and full >= 50 and early - by_padding >= 5 and by_padding >= 5


@pytest.mark.slow
def test_prompts_are_continued():
    _, model = pair()
    pictures = images(3, 7)
    prompt = np.array([[START, 5, 9, 5], [START, 3, PAD, 4], [START, 11, 12, 13]])
    ours = model.generate(pictures, prompt, seq_len=36, **GREEDY, **IDS).asnumpy()
    np.testing.assert_array_equal(ours, reference_greedy(pictures, 36, prompt))


def test_prompts_of_unequal_length_are_continued_as_alone():
    _, model = pair()
    pictures = images(3, 7)
    prompts = [[START, 5, 9, 5], [START, 11], [START, 3, PAD, 4]]
    alone = [reference_greedy(pictures[i : i + 1], 20, np.array([row]))[0] for i, row in enumerate(prompts)]
    width = max(map(len, alone))
    want = [[*row, *[PAD] * (width - len(row))] for row in alone]
    ended = [[*row, END, *[PAD] * (12 - len(row))] for row in prompts]  # as the tokenizer gives them
    padded = np.array([[*row, *[PAD] * (4 - len(row))] for row in prompts])
    for text in (prompts, padded, ended):
        ours = model.generate(pictures, text, seq_len=20, **GREEDY, **IDS).asnumpy()
        np.testing.assert_array_equal(ours, want)
    options = {"num_beams": 3, "num_beam_groups": 1, "normalize_scores": True, "return_scores": True, "seq_len": 12}
    ids, scores = (part.asnumpy() for part in model.generate(pictures, ended, **options, **IDS))
    for picture, row, caption, score in zip(pictures, prompts, ids, scores):
        one, value = (part.asnumpy()[0] for part in model.generate(picture[None], [row], **options, **IDS))
        np.testing.assert_array_equal(caption, [*one, *[PAD] * (len(caption) - len(one))])
        np.testing.assert_allclose(score, value, rtol=1e-5)


def beam_search_by_hand(picture: np.ndarray, beams: int, length: int) -> np.ndarray:
    """Textbook beams by summed log-probabilities over captions of one length."""
    reference, _ = pair()
    with torch.no_grad():
        tokens = reference.img_encoder(torch.from_numpy(picture))
        ids, scores = torch.full((1, 1), START), torch.zeros(1)
        while ids.shape[1] < length:
            log_probs = reference(ids, image_tokens=tokens.expand(len(ids), -1, -1))[:, -1].log_softmax(-1)
            best, index = (scores[:, None] + log_probs).flatten().topk(beams)
            ids = torch.cat((ids[index // log_probs.shape[1]], (index % log_probs.shape[1])[:, None]), 1)
            scores = best
    return ids[0].numpy()


@pytest.mark.slow
def test_beam_search_runs_on_the_same_engine():
    _, model = pair()
    pictures = images(3, 11)
    options = {"num_beams": 3, "num_beam_groups": 1, "normalize_scores": True, "seq_len": 9, "eos_token_id": NEVER}
    ours = model.generate(pictures, **options, sot_token_id=START).asnumpy()
    np.testing.assert_array_equal(ours, [beam_search_by_hand(pictures[i : i + 1], 3, 9) for i in range(3)])
    assert len({tuple(row) for row in ours}) == 3


@pytest.mark.slow
def test_scores_and_the_window():
    reference, model = pair()
    pictures = images(2, 5)
    ids, scores = model.generate(pictures, seq_len=8, return_scores=True, **GREEDY, **IDS)
    ids = torch.from_numpy(ids.asnumpy()).long()
    with torch.no_grad():
        log_probs = reference(ids[:, :-1], torch.from_numpy(pictures)).log_softmax(-1)
    for row, tokens, score in zip(log_probs, ids.tolist(), scores.asnumpy()):
        last = next((i for i, token in enumerate(tokens) if token in (END, PAD)), len(tokens) - 1)
        assert abs(np.mean([row[i - 1, tokens[i]] for i in range(1, last + 1)]) - score) < 1e-4
    # beyond the window positions restart, uncached: each token follows from the five before it alone
    slid = model.generate(pictures[:1], seq_len=14, max_seq_len=5, **GREEDY, **IDS).asnumpy()[0].tolist()
    with torch.no_grad():
        for i in range(5, slid.index(END) if END in slid else 13):
            window = torch.tensor([slid[i - 5 : i]])
            assert reference(window, torch.from_numpy(pictures[:1]))[0, -1].argmax() == slid[i]


def test_positions_are_limited_by_the_config():
    _, model = pair()
    with pytest.raises(InputError, match="this model has 40"):
        model.generate(images(1), seq_len=60, **IDS)
    with pytest.raises(InputError, match=r"image_embs: must have shape \(B, K, 48\)"):
        model.generate(None, image_embs=make_inputs(CONFIG).images[:, 0], **IDS)
