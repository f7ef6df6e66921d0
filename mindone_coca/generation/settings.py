"""How to caption: the options that people choose, and the checked arguments of one call of `generate`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from mindone_coca.errors import InputError
from mindone_coca.typed_mapping import Default, at_most, option

SOT_TOKEN_ID, EOT_TOKEN_ID = 49406, 49407  # CLIP's
GenerationType = Literal["beam_search", "top_k", "top_p"]
StoppingCriterion = Callable[[np.ndarray, Any], Any]
SEQ_LEN, MIN_SEQ_LEN = Default(30), Default(5)  # open_clip's


@dataclass(frozen=True)
class GenerationOptions:
    """The arguments of `generate` that programs offer, with its defaults; `generate` says more of each."""

    generation_type: GenerationType = "beam_search"
    seq_len: int = option(SEQ_LEN, "longest caption in tokens, start and end included")
    max_seq_len: int = option(77, "sampling sees the last tokens only")
    min_seq_len: int = option(MIN_SEQ_LEN, "no end before this many tokens")
    temperature: float = 1.0
    top_p: float = 0.1
    top_k: int = option(1, "1 is greedy")
    num_beams: int = option(6, "in num_beam_groups groups")
    num_beam_groups: int = option(3, "1 when only --num_beams is given")
    repetition_penalty: float = 1.0
    fixed_output_length: bool = option(False, "pad to seq_len (the text is the same)")
    pad_token_id: int | None = None
    eos_token_id: int | None = None
    sot_token_id: int | None = None
    diversity_penalty: float = option(0.0, "between beam groups, which are alike without it")
    normalize_scores: bool = option(False, "textbook beam search: add log-probabilities, not logits")
    length_penalty: float = 1.0
    num_return_sequences: int = option(1, "captions of each image, highest rank_score first")
    seed: int | None = option(None, "makes sampling reproducible")


def fitting(arguments: Mapping[str, Any], limit: int) -> dict[str, Any]:
    """Arguments of `generate` for a model with that many positions: lengths that are defaults ask no more than it has.

    Those that were given stay as they are, also where they will be refused. The last token of a caption needs no
    position. A sampler whose window is no longer than the model has room for all lengths.
    """
    samples = arguments.get("generation_type", "beam_search") != "beam_search"
    if samples and arguments.get("max_seq_len", limit + 1) <= limit:
        limit = max(SEQ_LEN, limit)
    most = {"seq_len": limit + 1, "min_seq_len": limit}
    return {name: at_most(value, most[name]) if name in most else value for name, value in arguments.items()}


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

    @property
    def images_are_independent(self) -> bool:
        """Whether an image's caption is the same whatever is captioned with it: random numbers are drawn a step for
        all images, and criteria judge all of them."""
        drawn = self.generation_type == "top_p" or (self.generation_type == "top_k" and self.top_k > 1)
        return not drawn and self.stopping_criteria is None

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


def check_generation(config: GenerationConfig, prompts: Sequence[np.ndarray], vocab_size: int, limit: int) -> None:
    """Refuse by name what cannot be run from prompts, each (P,), with that many positions. Raises InputError."""

    def require(holds: bool, message: str) -> None:
        if not holds:
            raise InputError(message)

    require(
        config.generation_type in get_args(GenerationType),
        f"generation_type: must be one of {', '.join(get_args(GenerationType))}, got {config.generation_type!r}",
    )
    require(
        config.seq_len > config.min_seq_len,
        f"seq_len: {config.seq_len} must be larger than min_seq_len {config.min_seq_len}; lower min_seq_len, or raise "
        "seq_len where the model has room",
    )
    require(config.max_seq_len > 0, f"max_seq_len: must be positive, got {config.max_seq_len}")
    require(config.repetition_penalty > 0, f"repetition_penalty: must be positive, got {config.repetition_penalty}")
    named = [("text or sot_token_id", f" in row {row}", prompt) for row, prompt in enumerate(prompts)]
    for name, place, ids in [*named, ("eos_token_id", "", config.end_ids), ("pad_token_id", "", [config.pad_id])]:
        outside = [i for i in ids if not 0 <= i < vocab_size]
        require(not outside, f"{name}: must lie in [0, {vocab_size}), the model's vocabulary, got {outside[:1]}{place}")
    beams = config.generation_type == "beam_search"
    longest_prompt = max(len(prompt) for prompt in prompts)
    longest = max(longest_prompt, 1 if config.stopping_criteria is not None else config.seq_len - 1)
    seen = longest if beams else min(longest, config.max_seq_len)
    name = "text" if longest_prompt >= longest else "seq_len"
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
