"""Small wrong changes, each with the tests that must fail for it: the table of tools/mutate.py.

`old` is a part of a line that stands in the file exactly once, so that a change of the code is noticed here.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """In `file`, `old` becomes `new`; all of `tests`, pytest's node ids, must fail then."""

    what: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


BEAM = "tests/generation/test_beam.py"
SCORES = "tests/generation/test_scores.py"
OPTIM = "tests/training/test_optim.py"
STEP = "tests/training/test_step.py"
FULL_LENGTH = "tests/generation/test_arguments.py::test_captions_as_long_as_the_model_goes[40]"
JOURNAL = "tests/collection/test_journal.py"

MUTATIONS = (
    # text and losses
    Mutation(
        "the legacy text mask without its shift by one",
        "mindone_coca/model/open_clip/text.py",
        "ops.concat((first, hidden), 1)[:, None, None, :]",
        "ops.concat((hidden, first), 1)[:, None, None, :]",
        ("tests/model/open_clip/test_parity.py::test_text_features_and_embeddings[base]",),
    ),
    Mutation(
        "caption labels not shifted",
        "mindone_coca/losses.py",
        "return text[:, 1 : -(-longest // step) * step]",
        "return text[:, : -(-longest // step) * step - 1]",
        (f"{STEP}::test_labels_end_after_the_longest_caption",),
    ),
    Mutation(
        "caption loss summed over padding too",
        "mindone_coca/losses.py",
        "return cast(labels != self.pad_id, ms.float32), labels",
        "return cast(labels == labels, ms.float32), labels",
        ("tests/test_losses.py::test_padding_alone_is_nothing",),
    ),
    Mutation(
        "caption loss averaged over padding too",
        "mindone_coca/losses.py",
        "return total(cast(labels != pad_id, ms.float32))",
        "return total(cast(labels == labels, ms.float32))",
        (f"{STEP}::test_labels_that_count_are_no_padding",),
    ),
    Mutation(
        "on several devices, every device takes the first one's captions for its own",
        "mindone_coca/losses.py",
        "(_product(weight, all_text) - 2 * text)",
        "(_product(weight, all_text) - 2 * all_text[: text.shape[0]])",
        ("tests/test_losses.py::test_two_devices_have_the_gradient_of_one_batch",),
    ),
    # optimiser and steps
    Mutation(
        "logit_scale not clamped",
        "mindone_coca/training/optim.py",
        "ops.clamp(self.logit_scale, 0.0, MAX_LOGIT_SCALE)",
        "self.logit_scale + 0.0",
        (f"{OPTIM}::test_temperature_stays_below_its_limit",),
    ),
    Mutation(
        "weight decay applied to norms and biases",
        "mindone_coca/training/optim.py",
        "return len(shape) > 1 and not",
        "return True or not",
        (f"{OPTIM}::test_weight_decay_groups_are_open_clips[odd_sizes]",),
    ),
    Mutation(
        "the moving average's decay turned round",
        "mindone_coca/training/optim.py",
        "(1.0 - self.ema_decay) * good",
        "self.ema_decay * good",
        (f"{OPTIM}::test_moving_average",),
    ),
    Mutation(
        "the loss scale not halved after an overflow",
        "mindone_coca/training/optim.py",
        "(0.5 + 0.5 * good)",
        "(1.0 + 0.0 * good)",
        (f"{OPTIM}::test_overflow_leaves_everything_and_halves_the_scale",),
    ),
    Mutation(
        "warm-up starts at a rate of 0",
        "mindone_coca/training/optim.py",
        "config.lr * (step + 1) / config.warmup_steps",
        "config.lr * step / config.warmup_steps",
        (f"{OPTIM}::test_schedule_is_open_clips",),
    ),
    Mutation(
        "layer decay counts one block too many",
        "mindone_coca/model/base.py",
        "self._tower_blocks[tower] - 1 - int(block[1])",
        "self._tower_blocks[tower] - int(block[1])",
        (f"{OPTIM}::test_layer_multipliers",),
    ),
    Mutation(
        "the temperature's gradient added up over micro-batches, not averaged",
        "mindone_coca/training/step.py",
        "scale_grad / parts)",
        "scale_grad)",
        (f"{STEP}::test_accumulated_gradient_is_the_large_batch_s[config2]",),
    ),
    # generation
    Mutation(
        "beam search allows the end token before min_seq_len",
        "mindone_coca/generation/beam_search.py",
        "forbidden[length < config.min_seq_len]",
        "forbidden[False]",
        ("tests/generation/test_beam_search.py::test_no_search_ends_before_min_seq_len",),
    ),
    Mutation(
        "sampling allows the end token before min_seq_len",
        "mindone_coca/generation/sampling.py",
        "forbidden[window.shape[1] < config.min_seq_len]",
        "forbidden[False]",
        (FULL_LENGTH,),
    ),
    Mutation(
        "beam scores divided by the length without the start token",
        "mindone_coca/generation/beam.py",
        "length = self.tokens.shape[1] + 1  #",
        "length = self.tokens.shape[1]  #",
        (f"{BEAM}::test_a_group_advances_as_transformers_scorer",),
    ),
    Mutation(
        "end tokens past the group size end a caption too",
        "mindone_coca/generation/beam.py",
        "elif rank < self.size:",
        "elif rank <= self.size:",
        (f"{BEAM}::test_a_group_advances_as_transformers_scorer",),
    ),
    Mutation(
        "a token written to the next slot of the cache",
        "mindone_coca/generation/cache.py",
        "first[:, 2:] + position",
        "first[:, 2:] + position + 1",
        (FULL_LENGTH,),
    ),
    Mutation(
        "a row sees its own past in the cache, not that of the beam it continues",
        "mindone_coca/generation/session.py",
        "self.lineage[slot][parents[image]]",
        "self.lineage[slot]",
        (FULL_LENGTH,),
    ),
    Mutation(
        "top-p keeps one token too few",
        "mindone_coca/generation/scores.py",
        "ops.maximum(scores.shape[1] - dropped, 1)",
        "ops.maximum(scores.shape[1] - dropped - 1, 1)",
        (f"{SCORES}::test_top_p_keeps_what_transformers_keeps[0.9]",),
    ),
    Mutation(
        "repetition penalty once for each occurrence",
        "mindone_coca/generation/scores.py",
        "return ops.tensor_scatter_elements(logits, ids, seen, 1)",
        'return ops.tensor_scatter_elements(logits, ids, seen - ops.gather_elements(logits, 1, ids), 1, "add")',
        (f"{SCORES}::test_penalties[False-1.3]",),
    ),
    # layers
    Mutation(
        "the attention mask subtracted",
        "mindone_coca/kernels/cpu.py",
        "scores = scores + tile_to(mask, scores.shape)",
        "scores = scores - tile_to(mask, scores.shape)",
        ("tests/model/test_layers.py::test_attend_matches_torch_with_a_mask",),
    ),
    Mutation(
        "the constant of GELU by sigmoid rounded",
        "mindone_coca/model/layers.py",
        "ops.sigmoid(ops.mul(x, 1.702))",
        "ops.sigmoid(ops.mul(x, 1.7))",
        ("tests/model/test_layers.py::test_activation_and_its_gradient[gelu_by_sigmoid-QuickGELU-2001]",),
    ),
    # weights
    Mutation(
        "key and value swapped in one pooler's packed weights",
        "mindone_coca/conversion/convert.py",
        "return result.reshape(shape)",
        "swap = name == 'visual.attn_pool.attn.in_proj_weight'; "
        "return (result.reshape(3, -1)[[0, 2, 1]] if swap else result).reshape(shape)",
        ("tests/conversion/test_convert.py::test_round_trip_is_bit_exact[packed_pooler-float32]",),
    ),
    Mutation(
        "position embeddings resized without antialiasing",
        "mindone_coca/conversion/resize.py",
        "stretch = max(scale, 1.0)",
        "stretch = 1.0",
        ("tests/conversion/test_convert.py::test_position_resizing[--patch_grid-2x4-new1]",),
    ),
    # inputs and collections
    Mutation(
        "a truncated text without its end token",
        "mindone_coca/preprocess/tokenizer.py",
        "ids[-1] = self.eot_token_id",
        "pass",
        ("tests/preprocess/test_tokenizer.py::test_rows_equal_open_clip[16]",),
    ),
    Mutation(
        "the middle frame taken as the first of two halves",
        "mindone_coca/video/frames.py",
        "return [count // 2]",
        "return [(count - 1) // 2]",
        ("tests/video/test_frames.py::test_the_middle_of_an_even_number_is_the_second_half_s_first",),
    ),
    Mutation(
        "shards of work start one group late",
        "mindone_coca/collection/plan.py",
        "return groups[shard.index :: shard.count]",
        "return groups[shard.index + 1 :: shard.count]",
        ("tests/collection/test_inputs.py::test_groups_depend_on_the_set_alone_and_shards_divide_them",),
    ),
    Mutation(
        "the journal's lines not forced to the disk",
        "mindone_coca/collection/journal.py",
        "os.fsync(self._file.fileno())",
        "pass",
        (f"{JOURNAL}::test_lines_are_on_the_disk_each_second",),
    ),
    Mutation(
        "a torn line left in the journal",
        "mindone_coca/collection/journal.py",
        "self._file.truncate(end)",
        "pass",
        (f"{JOURNAL}::test_a_torn_line_is_taken_away",),
    ),
    # many machines and long lists
    Mutation(
        "a group that a worker died with shares the next one with others",
        "mindone_coca/collection/jobs.py",
        "if idle and self._suspects:",
        "if self._suspects:",
        ("tests/collection/test_jobs.py::test_a_group_that_a_worker_died_with_goes_to_one_that_has_nothing_else",),
    ),
    Mutation(
        "a request that fails is not tried again",
        "mindone_coca/storage.py",
        "if attempt == TRIES - 1 or",
        "if attempt == 0 or",
        ("tests/test_storage.py::test_requests_are_tried_again_and_then_named_without_secrets",),
    ),
    Mutation(
        "the journal sent before the outputs that it counts",
        "mindone_coca/collection/mirror.py",
        "_JOURNAL in path.relative_to",
        "_JOURNAL not in path.relative_to",
        ("tests/test_storage.py::test_what_the_journal_says_is_there",),
    ),
    Mutation(
        "similarities that depend on the part that a row stands in",
        "mindone_coca/collection/search.py",
        'np.einsum("nd,d->n", features, query)',
        "features @ query",
        ("tests/collection/test_long_list.py::test_a_query_finds_the_same_in_any_parts",),
    ),
    Mutation(
        "a part marked whole before all of its lines are done",
        "mindone_coca/collection/parts.py",
        "if self.done.count(self._list.lines_of(part)) < self._files[part]:",
        "if self.done.count(self._list.lines_of(part)) < self._files[part] - 1:",
        ("tests/collection/test_long_list.py::test_a_part_is_whole_with_its_last_line",),
    ),
)
