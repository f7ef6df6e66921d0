"""`generate`: check the arguments, encode, then search or sample. Source: open_clip.coca_model.CoCa.generate."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from mindspore import Tensor

from mindone_coca.errors import InputError
from mindone_coca.generation.beam_search import beam_search
from mindone_coca.generation.engine import DecodeEngine
from mindone_coca.generation.sampling import sample
from mindone_coca.model.base import ImageTextModel, as_tensor
from mindone_coca.model.coca_pytorch.decoding import PARALLEL_CELLS
from mindone_coca.model.coca_pytorch.model import ParallelCoCa

SOT_TOKEN_ID, EOT_TOKEN_ID = 49406, 49407
GENERATION_TYPES = ("beam_search", "top_k", "top_p")
StoppingCriterion = Callable[[np.ndarray, Any], Any]


@dataclass(frozen=True)
class GenerationConfig:
    """The checked arguments of one call, as the search and the sampler read them."""

    seq_len: int
    max_seq_len: int
    min_seq_len: int
    pad_id: int
    end_ids: tuple[int, ...]
    repetition_penalty: float
    fixed_output_length: bool
    stopping_criteria: tuple[StoppingCriterion, ...] | None
    return_scores: bool
    # beam search
    num_beams: int
    num_beam_groups: int
    diversity_penalty: float
    normalize_scores: bool
    length_penalty: float
    num_return_sequences: int
    # sampling
    generation_type: str
    temperature: float
    top_k: int
    top_p: float

    @property
    def max_length(self) -> int | None:
        """The length that ends generation; None if only the caller's criteria do."""
        if self.stopping_criteria is None:
            return self.seq_len
        return next((m for c in self.stopping_criteria if (m := getattr(c, "max_length", None)) is not None), None)

    def longest_run(self, prompt_length: int, limit: int) -> int:
        """The most tokens that will be run at once; the last of a caption never is."""
        longest = limit if self.max_length is None else max(self.max_length - 1, prompt_length, 1)
        return min(longest, self.max_seq_len if self.generation_type != "beam_search" else longest, limit)

    def check_position(self, length: int, limit: int) -> None:
        """Only the caller's own stopping criteria can lead past the position table."""
        if length > limit:
            raise InputError(f"stopping_criteria: did not end within the {limit} positions of this model; stop earlier")

    def should_stop(self, ids: np.ndarray) -> bool:
        """Whether every row of ids (rows, length) is at the limit, or meets one of the caller's criteria."""
        if self.stopping_criteria is None:
            return ids.shape[1] >= self.seq_len
        flags = np.zeros(len(ids), bool)
        for criterion in self.stopping_criteria:
            flags = flags | np.asarray(criterion(ids, None), bool)
        return bool(flags.all())


def generate(
    model: ImageTextModel,
    image: Tensor | np.ndarray | None,
    text: Tensor | np.ndarray | Sequence | None = None,
    seq_len: int = 30,
    max_seq_len: int = 77,
    temperature: float = 1.0,
    generation_type: str = "beam_search",
    top_p: float = 0.1,
    top_k: int = 1,
    pad_token_id: int | None = None,
    eos_token_id: int | Sequence[int] | None = None,
    sot_token_id: int | None = None,
    num_beams: int = 6,
    num_beam_groups: int = 3,
    min_seq_len: int = 5,
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
    seed: int | None = None,
    uniforms: Iterable[float] | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Caption images, token for token as open_clip 3.3.0.

    Args:
        image: (B, 3, H, W); may be None when image_embs is given.
        text: prompt to continue, (B, P) ids, or (P,) for all images alike; None starts from the start token.
        seq_len: longest caption in tokens, start and end token included.
        max_seq_len: sampling sees the last max_seq_len tokens only; where that window slides, positions restart.
        generation_type: `beam_search`, `top_k` or `top_p`.
        temperature: divides the scores before sampling.
        top_p: keep the likeliest tokens that together reach this probability. top_k: keep the k likeliest.
        pad_token_id, eos_token_id, sot_token_id: by default the model's pad_id and CLIP's tokens.
        num_beams, num_beam_groups: beams in all, and into how many equal groups. Without a diversity_penalty all groups
            find the same, so only one is run.
        min_seq_len: no end token before this many tokens, the start token included.
        stopping_criteria: callables (ids (rows, length) as an array, None) -> one flag for each row, or one for all;
            they replace the length limit, and generation ends when every row meets one of them. A criterion's
            `max_length` attribute, if it has one, bounds the result of beam search as in transformers.
        repetition_penalty: > 1 makes tokens that have come less likely.
        fixed_output_length: pad the result to seq_len.
        image_embs: (B, K, D), the tokens of images encoded before (`model(image)["image_embs"]`).
        diversity_penalty: lowers a token's score for each beam of an earlier group that chose it in the same step.
        normalize_scores: add log-probabilities instead of logits: the textbook beam search.
        length_penalty: exponent of the length that a beam's score is divided by.
        num_return_sequences: best beams to return for each image; rows i * n to i * n + n - 1 are image i's.
        return_scores: also return each caption's mean token log-probability (rows,), end token included, prompt not.
        seed: makes sampling reproducible. uniforms: numbers in [0, 1) to sample by, one for each unfinished row and
            step in order; instead of a seed.
    Returns:
        ids (B * num_return_sequences, L) int32, (L,) for one image with a 1-D prompt; with return_scores also the
        scores.
    Raises:
        InputError: arguments that contradict each other or the model, by name.
    """
    if stopping_criteria is not None:
        stopping_criteria = tuple(stopping_criteria)
    end_ids = _token_ids(eos_token_id, EOT_TOKEN_ID)
    config = GenerationConfig(
        seq_len=seq_len, max_seq_len=max_seq_len, min_seq_len=min_seq_len,
        pad_id=model.pad_id if pad_token_id is None else int(pad_token_id), end_ids=end_ids,
        repetition_penalty=float(repetition_penalty), fixed_output_length=fixed_output_length,
        stopping_criteria=stopping_criteria, return_scores=return_scores, num_beams=num_beams,
        num_beam_groups=num_beam_groups, diversity_penalty=float(diversity_penalty), normalize_scores=normalize_scores,
        length_penalty=float(length_penalty), num_return_sequences=num_return_sequences,
        generation_type=generation_type, temperature=float(temperature), top_k=top_k, top_p=float(top_p),
    )  # fmt: skip
    if image is None and image_embs is None:
        raise InputError("image: give images or image_embs")
    image = None if image_embs is not None else model.check_images(as_tensor(image))
    image_embs = None if image_embs is None else _check_image_tokens(as_tensor(image_embs, model.visual.dtype), model)
    batch = (image if image_embs is None else image_embs).shape[0]
    if batch == 0:
        raise InputError("image: give at least one")
    prompt = _prompt(text, batch, _token_ids(sot_token_id, SOT_TOKEN_ID)[0])
    engine = engine_of(model)
    _check(config, prompt, engine)
    if image_embs is None:
        image_embs = as_tensor(engine.encode(image), model.visual.dtype)
    if generation_type == "beam_search":
        ids, scores = beam_search(engine, image_embs, prompt, config)
    else:
        ids, scores = sample(engine, image_embs, prompt, config, _uniform_source(seed, uniforms))
    if fixed_output_length and ids.shape[1] < seq_len:
        ids = np.pad(ids, ((0, 0), (0, seq_len - ids.shape[1])), constant_values=config.pad_id)
    if batch == 1 and text is not None and np.ndim(text) == 1 and len(ids) == 1:
        ids = ids[0]
    ids = Tensor(ids.astype(np.int32))
    return (ids, Tensor(scores.astype(np.float32))) if return_scores else ids


def engine_of(model: ImageTextModel) -> DecodeEngine:
    """The model's engine, built at its first use."""
    if model.decode_engine is None and isinstance(model, ParallelCoCa):
        model.decode_engine = DecodeEngine(model, PARALLEL_CELLS)
    elif model.decode_engine is None:
        model.decode_engine = DecodeEngine(model)
    return model.decode_engine


def _token_ids(given: Any, default: int) -> tuple[int, ...]:
    """One or several ids, as an int, a sequence, an array or a tensor."""
    if given is None:
        return (default,)
    if isinstance(given, Tensor):
        given = given.asnumpy()
    return tuple(int(i) for i in np.atleast_1d(given))


def _check_image_tokens(image_embs: Tensor, model: ImageTextModel) -> Tensor:
    width = model.text_decoder.width
    if image_embs.ndim != 3 or image_embs.shape[1] == 0 or image_embs.shape[2] != width:
        raise InputError(f"image_embs: must have shape (B, K, {width}), got {tuple(image_embs.shape)}")
    return image_embs


def _prompt(text: Any, batch: int, start_id: int) -> np.ndarray:
    """The ids to start from, (B, P)."""
    if text is None:
        return np.full((batch, 1), start_id, np.int64)
    text = text.asnumpy() if isinstance(text, Tensor) else np.asarray(text)
    if text.ndim == 1:
        text = np.repeat(text[None], batch, 0)
    if text.ndim != 2 or text.shape[0] != batch or text.shape[1] == 0 or not np.issubdtype(text.dtype, np.integer):
        raise InputError(f"text: must be ids (P,) or ({batch}, P), got {text.dtype} {text.shape}")
    return text.astype(np.int64)


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


def _check(config: GenerationConfig, prompt: np.ndarray, engine: DecodeEngine) -> None:
    """Refuse by name what cannot be run. Raises InputError."""

    def require(holds: bool, message: str) -> None:
        if not holds:
            raise InputError(message)

    vocab_size, limit = engine.model.text.vocab_size, engine.limit
    require(
        config.generation_type in GENERATION_TYPES,
        f"generation_type: must be one of {', '.join(GENERATION_TYPES)}, got {config.generation_type!r}",
    )
    require(
        config.seq_len > config.min_seq_len,
        f"seq_len: {config.seq_len} must be larger than min_seq_len {config.min_seq_len}; raise it, or lower the other",
    )
    require(config.max_seq_len > 0, f"max_seq_len: must be positive, got {config.max_seq_len}")
    require(config.repetition_penalty > 0, f"repetition_penalty: must be positive, got {config.repetition_penalty}")
    named = {"text or sot_token_id": prompt, "eos_token_id": config.end_ids, "pad_token_id": config.pad_id}
    for name, ids in named.items():
        outside = [i for i in np.ravel(ids) if not 0 <= i < vocab_size]
        require(not outside, f"{name}: must lie in [0, {vocab_size}), the model's vocabulary, got {outside[:1]}")
    beams = config.generation_type == "beam_search"
    longest = max(prompt.shape[1], 1 if config.stopping_criteria is not None else config.seq_len - 1)
    seen = longest if beams else min(longest, config.max_seq_len)
    name = "text" if prompt.shape[1] >= longest else "seq_len"
    require(
        seen <= limit,
        f"{name}: {longest if name == 'text' else config.seq_len} tokens need {seen} positions, but this model has "
        f"{limit}; shorten {name}" + ("" if beams or name == "text" else " or lower max_seq_len"),
    )
    if beams:
        require(config.num_beams >= 1, f"num_beams: must be at least 1, got {config.num_beams}")
        require(
            1 <= config.num_beam_groups <= config.num_beams and config.num_beams % config.num_beam_groups == 0,
            f"num_beam_groups: {config.num_beam_groups} must divide num_beams {config.num_beams}",
        )
        require(
            config.diversity_penalty >= 0, f"diversity_penalty: must not be negative, got {config.diversity_penalty}"
        )
        require(
            config.diversity_penalty == 0 or config.num_beam_groups > 1,
            "diversity_penalty: needs num_beam_groups above 1, it acts between groups",
        )
        distinct = config.num_beams if config.diversity_penalty else config.num_beams // config.num_beam_groups
        require(
            1 <= config.num_return_sequences <= distinct,
            f"num_return_sequences: must be 1 to {distinct}, the beams that differ, got {config.num_return_sequences}; "
            "raise num_beams, or set num_beam_groups to 1 or a diversity_penalty",
        )
        require(
            max(2, 1 + len(config.end_ids)) * config.num_beams < vocab_size,
            f"num_beams: {config.num_beams} is too many for a vocabulary of {vocab_size}",
        )
    else:
        require(config.temperature > 0, f"temperature: must be positive, got {config.temperature}")
        require(config.top_k >= 1, f"top_k: must be at least 1, got {config.top_k}")
        require(0 <= config.top_p <= 1, f"top_p: must lie in [0, 1], got {config.top_p}")
        require(
            config.num_return_sequences == 1, "num_return_sequences: only beam_search returns several; repeat images"
        )
