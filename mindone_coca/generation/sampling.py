"""Sampling, top-k (greedy by default) or top-p, one token a step for every unfinished row."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from mindspore import Tensor

from mindone_coca.generation.engine import DecodeEngine
from mindone_coca.generation.graphs import scalar
from mindone_coca.generation.scores import Sampler, forbidden_rows, forced_row
from mindone_coca.generation.session import DecodeSession

if TYPE_CHECKING:
    from mindone_coca.generation.settings import GenerationConfig

LARGEST_UNIFORM = np.float32(1 - 2**-24)  # the largest float32 below 1


def sample(
    engine: DecodeEngine,
    image_embs: Tensor,
    prompt: np.ndarray,
    config: "GenerationConfig",
    uniforms: Callable[[int], np.ndarray],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sample captions for image tokens (B, K, D) from prompts (B, P).

    A row is finished once its last token is an end token or padding; finished rows grow padding until all are. The
    token that fills the length limit is an end token.

    Args:
        uniforms: gives the next n uniform numbers; one is drawn for each unfinished row and unforced step.
    Returns:
        ids (B, L), their mean token log-probabilities, and NaN for what beam search ranks by.
    """
    vocab_size = engine.vocab_size
    top_k = min(config.top_k, vocab_size) if config.generation_type == "top_k" else None
    sampler = engine.scorer(Sampler, top_k, config.return_scores, config.repetition_penalty != 1)
    forbidden = forbidden_rows(vocab_size, config.end_ids)
    fixed = scalar(config.repetition_penalty), scalar(config.temperature), scalar(config.top_p)
    session = DecodeSession(engine, image_embs, 1, config.longest_run(prompt.shape[1], engine.limit), sampler)

    ids = prompt
    log_probs, generated = np.zeros(len(ids)), np.zeros(len(ids), np.int64)
    same_row = np.zeros(1, np.int64)
    while True:
        window = ids[:, -config.max_seq_len :]
        config.check_position(window.shape[1], engine.limit)
        unfinished = np.flatnonzero(~np.isin(ids[:, -1], (*config.end_ids, config.pad_id)))
        column = np.full(len(ids), config.pad_id)
        forced = window.shape[1] + 1 == config.seq_len
        if len(unfinished) and forced and not config.return_scores:
            column[unfinished] = config.end_ids[0]  # whatever the model says
        elif len(unfinished):
            if window.shape[1] < ids.shape[1]:
                session.drop_cache()
            rows = {i: window[i : i + 1] for i in unfinished}
            places, row_count = session.place(rows)
            places = np.concatenate([places[i] for i in unfinished])
            uniform = np.zeros(row_count, np.float32)
            if forced:
                row = forced_row(vocab_size, config.end_ids[0])
            else:
                row = forbidden[window.shape[1] < config.min_seq_len]
                uniform[places] = np.minimum(uniforms(len(unfinished)).astype(np.float32), LARGEST_UNIFORM)
            output = session.run(rows, dict.fromkeys(rows, same_row), (row, *fixed, Tensor(uniform)))
            column[unfinished] = output[0][places]
            if config.return_scores:
                log_probs[unfinished] += output[1][places]
            generated[unfinished] += 1
        elif not config.fixed_output_length:
            break
        ids = np.concatenate((ids, column[:, None]), 1)
        if config.should_stop(ids):
            break
    return ids, log_probs / np.maximum(generated, 1), np.full(len(ids), np.nan)
