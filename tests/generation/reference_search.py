"""Beam search without a cache over open_clip's logits and transformers' own scorer and processors.

open_clip's loop ignores a prompt and has no diversity penalty, log-softmax, length penalty or several results; this one
has them, and is itself held against open_clip's generate where both can run.
"""

import numpy as np
from transformers import (
    BeamSearchScorer,
    HammingDiversityLogitsProcessor,
    LogitsProcessorList,
    MinLengthLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
)

from tests.generation.pairs import Pair
from tests.reference import torch


def reference_search(
    pair: Pair,
    images: np.ndarray,
    prompt: np.ndarray | None = None,
    *,
    seq_len: int = 30,
    min_seq_len: int = 5,
    num_beams: int = 6,
    num_beam_groups: int = 3,
    repetition_penalty: float = 1.0,
    diversity_penalty: float = 0.0,
    normalize_scores: bool = False,
    length_penalty: float = 1.0,
    num_return_sequences: int = 1,
    eos_token_id: tuple[int, ...] | None = None,
) -> np.ndarray:
    """The same arguments as `generate`, 2 beams or more -> ids (B * num_return_sequences, L)."""
    reference, batch, size = pair.reference, len(images), num_beams // num_beam_groups
    end = torch.tensor(eos_token_id or (pair.end,))
    if prompt is None:
        prompt = np.full((batch, 1), pair.start)
    scorer = BeamSearchScorer(
        batch,
        num_beams,
        torch.device("cpu"),
        length_penalty=length_penalty,
        num_beam_groups=num_beam_groups,
        num_beam_hyps_to_keep=num_return_sequences,
    )
    processors = LogitsProcessorList([MinLengthLogitsProcessor(min_seq_len, end)])
    processors.append(RepetitionPenaltyLogitsProcessor(repetition_penalty))
    if diversity_penalty:
        processors.append(HammingDiversityLogitsProcessor(diversity_penalty, num_beams, num_beam_groups))
    ids = torch.from_numpy(prompt).repeat_interleave(num_beams, 0)
    totals = torch.full((batch, num_beam_groups, size), -1e9)
    totals[..., 0] = 0
    with torch.no_grad():
        latent, embs = reference._encode_image(torch.from_numpy(images).repeat_interleave(num_beams, 0))
        while True:
            logits = reference(None, ids, image_latent=latent, image_embs=embs, output_labels=False)["logits"][:, -1]
            if normalize_scores:
                logits = torch.log_softmax(logits, -1)
            chosen = torch.zeros(len(ids), dtype=torch.long)
            grown = torch.zeros(len(ids), ids.shape[1] + 1, dtype=torch.long)
            all_rows = torch.arange(len(ids)).view(batch, num_beam_groups, size)
            for group in range(num_beam_groups):
                rows = all_rows[:, group].flatten()
                scores = processors(ids[rows], logits[rows], current_tokens=chosen, beam_group_idx=group)
                vocab_size = scores.shape[1]
                sums = (scores + totals[:, group].reshape(-1, 1)).view(batch, size * vocab_size)
                best, flat = sums.topk(max(2, 1 + len(end)) * size, dim=1)
                step = scorer.process(
                    ids[rows], best, flat % vocab_size, flat // vocab_size, pair.pad, end, group_index=group
                )
                totals[:, group] = step["next_beam_scores"].view(batch, size)
                chosen[rows] = step["next_beam_tokens"]
                grown[rows] = torch.cat((ids[rows][step["next_beam_indices"]], chosen[rows, None]), 1)
            ids = grown
            if scorer.is_done or ids.shape[1] >= seq_len:
                break
    finished = scorer.finalize(ids, totals.flatten(), None, None, seq_len, pair.pad, end)
    return finished["sequences"].numpy()
