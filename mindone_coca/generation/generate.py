"""`generate`: check the arguments, encode, then search or sample. Source: open_clip.coca_model.CoCa.generate."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice
from typing import Any, Protocol

import numpy as np
from mindspore import Tensor, ops

from mindone_coca import batch_sizes
from mindone_coca.argument_names import names_arguments
from mindone_coca.errors import InputError
from mindone_coca.generation.beam_search import beam_search
from mindone_coca.generation.engine import DecodeEngine
from mindone_coca.generation.prompts import by_length, in_order, read_prompts
from mindone_coca.generation.sampling import sample
from mindone_coca.generation.settings import (
    EOT_TOKEN_ID,
    MIN_SEQ_LEN,
    SEQ_LEN,
    SOT_TOKEN_ID,
    GenerationConfig,
    StoppingCriterion,
    check_generation,
    fitting,
)
from mindone_coca.tensors import as_tensor


class Captioning(Protocol):
    """What `generate` asks of a model."""

    pad_id: int
    decode_engine: DecodeEngine

    def check_images(self, images: Tensor | np.ndarray) -> Tensor:
        """Images (B, 3, H, W) as a tensor. Raises InputError for what is none."""


@names_arguments
def generate(
    model: Captioning,
    image: Tensor | np.ndarray | None,
    text: Tensor | np.ndarray | Sequence | None = None,
    seq_len: int = SEQ_LEN,
    max_seq_len: int = 77,
    temperature: float = 1.0,
    generation_type: str = "beam_search",
    top_p: float = 0.1,
    top_k: int = 1,
    pad_token_id: int | None = None,
    eos_token_id: int | Sequence[int] | None = None,
    sot_token_id: int | Sequence[int] | None = None,
    num_beams: int = 6,
    num_beam_groups: int = 3,
    min_seq_len: int = MIN_SEQ_LEN,
    stopping_criteria: Iterable[StoppingCriterion] | None = None,
    repetition_penalty: float = 1.0,
    fixed_output_length: bool = False,
    *,
    image_embs: Tensor | np.ndarray | None = None,
    diversity_penalty: float = 0.0,
    normalize_scores: bool = False,
    length_penalty: float = 1.0,
    num_return_sequences: int = 1,
    return_scores: bool = False,
    return_rank_scores: bool = False,
    seed: int | None = None,
    uniforms: Iterable[float] | None = None,
) -> Tensor | tuple[Tensor, ...]:
    """Caption images, token for token as open_clip 3.3.0.

    Args:
        image: (B, 3, H, W); may be None when image_embs is given.
        text: prompt to continue, ids (B, P), or (P,) for all images alike; None starts from the start token. The
            tokenizer's own output will do: a prompt ends before its first end token, or, without one, before the
            padding (pad_token_id) at its end. So rows may be of unequal length, also as a list of lists: each is
            continued as it would be alone, and the result is padded at the right.
        seq_len: longest caption in tokens, start and end token included. The default, as that of min_seq_len, is less
            where the model has fewer positions; what is given is refused there.
        max_seq_len: sampling sees the last max_seq_len tokens only; where that window slides, positions restart.
        generation_type: `beam_search`, `top_k` or `top_p`.
        temperature: divides the scores before sampling.
        top_p: keep the likeliest tokens that together reach this probability. top_k: keep the k likeliest.
        pad_token_id, eos_token_id, sot_token_id: by default the model's pad_id and CLIP's tokens.
        num_beams, num_beam_groups: beams in all, and into how many equal groups. Without a diversity_penalty all groups
            find the same, so only one is run.
        min_seq_len: no end token before this many tokens, the start token included.
        stopping_criteria: callables (ids (rows, length) as an array, None) -> one flag for each row, or one for all;
            they replace the length limit, and generation ends when every row meets one of them; rows whose prompts
            differ in length are judged apart. A criterion's `max_length` attribute, if it has one, bounds the result of
            beam search as in transformers.
        repetition_penalty: > 1 makes tokens that have come less likely.
        fixed_output_length: pad the result to seq_len.
        image_embs: (B, K, D), the tokens of images encoded before (`model(image)["image_embs"]`).
        diversity_penalty: lowers a token's score for each beam of an earlier group that chose it in the same step.
        normalize_scores: add log-probabilities instead of logits: the textbook beam search.
        length_penalty: exponent of the length that a beam's score is divided by.
        num_return_sequences: best beams to return for each image; rows i * n to i * n + n - 1 are image i's.
        return_scores: also return each caption's mean token log-probability (rows,), end token included, prompt not.
        return_rank_scores: also return what beam search orders an image's captions by, best first (rows,): the sum of
            the tokens' logits (log-probabilities with normalize_scores) over length ** length_penalty. NaN of samples.
        seed: makes sampling reproducible. uniforms: numbers in [0, 1) to sample by, one for each unfinished row and
            step in order; instead of a seed. Prompts of unequal length take their numbers one length after another,
            the shortest first.
    Returns:
        ids (B * num_return_sequences, L) int32, (L,) for one image with a 1-D prompt; with return_scores also the
        scores, with return_rank_scores also those.
    Raises:
        InputError: arguments that contradict each other or the model, by name. One that does not exist is a TypeError
            too.
    """
    if stopping_criteria is not None:
        stopping_criteria = tuple(stopping_criteria)
    end_ids = _token_ids(eos_token_id, EOT_TOKEN_ID)
    engine = model.decode_engine
    lengths = {"seq_len": seq_len, "min_seq_len": min_seq_len, "max_seq_len": max_seq_len}
    lengths = fitting({**lengths, "generation_type": generation_type}, engine.limit)
    seq_len, min_seq_len = lengths["seq_len"], lengths["min_seq_len"]
    config = GenerationConfig(
        seq_len=seq_len,
        max_seq_len=max_seq_len,
        min_seq_len=min_seq_len,
        pad_id=model.pad_id if pad_token_id is None else int(pad_token_id),
        end_ids=end_ids,
        repetition_penalty=float(repetition_penalty),
        fixed_output_length=fixed_output_length,
        stopping_criteria=stopping_criteria,
        return_scores=return_scores,
        num_beams=num_beams,
        num_beam_groups=num_beam_groups,
        diversity_penalty=float(diversity_penalty),
        normalize_scores=normalize_scores,
        length_penalty=float(length_penalty),
        num_return_sequences=num_return_sequences,
        generation_type=generation_type,
        temperature=float(temperature),
        top_k=top_k,
        top_p=float(top_p),
    )
    if image is None and image_embs is None:
        raise InputError("image: give images or image_embs")
    if image_embs is None:
        given = image = model.check_images(image)
    else:
        given = image_embs = _image_tokens(image_embs, engine)
    batch = given.shape[0]
    if batch == 0:
        raise InputError("image: give at least one")
    start_id = _token_ids(sot_token_id, SOT_TOKEN_ID)[0]
    prompts, flat = read_prompts(text, batch, start_id, end_ids, config.pad_id)
    check_generation(config, prompts, engine.vocab_size, engine.limit)
    if image_embs is None:
        image_embs = as_tensor(engine.encode(image), engine.dtype)
    if generation_type == "beam_search":
        run = beam_search
    else:
        run = partial(sample, uniforms=_uniform_source(seed, uniforms))
    parts = []
    most = batch_sizes.captioned_at_once()[-1] if config.images_are_independent else batch
    with engine.lock:
        for rows, prompt in by_length(prompts, most):
            embs = image_embs if len(rows) == batch else ops.gather(image_embs, Tensor(rows.astype(np.int32)), 0)
            parts.append((rows, run(engine, embs, prompt, config)))
    ids, scores, rank_scores = in_order(parts, config.num_return_sequences, config.pad_id)
    if fixed_output_length and ids.shape[1] < seq_len:
        ids = np.pad(ids, ((0, 0), (0, seq_len - ids.shape[1])), constant_values=config.pad_id)
    if flat and len(ids) == 1:
        ids = ids[0]
    asked = [scores] * return_scores + [rank_scores] * return_rank_scores
    ids = Tensor(ids.astype(np.int32))
    return (ids, *(Tensor(values.astype(np.float32)) for values in asked)) if asked else ids


def _token_ids(given: Any, default: int) -> tuple[int, ...]:
    """One or several ids, as an int, a sequence, an array or a tensor."""
    if given is None:
        return (default,)
    if isinstance(given, Tensor):
        given = given.asnumpy()
    return tuple(int(i) for i in np.atleast_1d(given))


def _image_tokens(image_embs: Tensor | np.ndarray, engine: DecodeEngine) -> Tensor:
    image_embs = as_tensor(image_embs, engine.dtype)
    if image_embs.ndim != 3 or image_embs.shape[1] == 0 or image_embs.shape[2] != engine.width:
        raise InputError(f"image_embs: must have shape (B, K, {engine.width}), got {tuple(image_embs.shape)}")
    return image_embs


def _uniform_source(seed: int | None, uniforms: Iterable[float] | None) -> Callable[[int], np.ndarray]:
    """A function that gives the next n uniform numbers."""
    if uniforms is None:
        return np.random.default_rng(seed).random
    if seed is not None:
        raise InputError("seed and uniforms: give one of them")
    stream = iter(uniforms)

    def take(count: int) -> np.ndarray:
        drawn = [float(u) for u in islice(stream, count)]
        if len(drawn) < count or not all(0 <= u < 1 for u in drawn):
            raise InputError("uniforms: needs numbers in [0, 1), one for each unfinished row and step; they ran out")
        return np.array(drawn)

    return take
