"""open_clip's CoCa as graphs of fixed shapes for deployment; `conversion.export` says what they are for."""

from typing import TYPE_CHECKING

import mindspore as ms
from mindspore import Tensor, nn, ops

from mindone_coca.generation.scores import BeamCandidates, Sampler
from mindone_coca.model.base import Graphs
from mindone_coca.model.open_clip.config import CLIPTextCfg
from mindone_coca.model.open_clip.decoding import TokenStep
from mindone_coca.tensors import normalize

if TYPE_CHECKING:
    from mindone_coca.model.open_clip.model import CoCa


class ImageEncoder(nn.Cell):
    """Images (B, 3, H, W) -> features (B, E), tokens (B, K, D), and their keys and values (2 layers, B, H, K, d)."""

    def __init__(self, model: "CoCa") -> None:
        super().__init__(auto_prefix=False)  # the model's cells are only borrowed: their parameters keep their names
        self.visual = model.visual
        self.blocks = model.text_decoder.cross_attn

    def construct(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features, tokens = self.visual(images)
        keys_values: tuple[Tensor, ...] = ()
        for block in self.blocks:
            keys_values += block.attn.project_key_value(block.ln_1_kv(tokens))
        return normalize(features), tokens, ops.stack(keys_values, 0)


class TextEncoder(nn.Cell):
    """Ids (B, T) -> features (B, E)."""

    def __init__(self, model: "CoCa") -> None:
        super().__init__(auto_prefix=False)
        self.text = model.text

    def construct(self, text: Tensor) -> Tensor:
        return normalize(self.text(text)[0])


class AddAtPosition(nn.Cell):
    """Keys or values (R, H, L, d), 0 at the new position, with the new ones (R, H, d) there: a `TokenStep.write` for
    graphs without parameters that change."""

    def construct(self, cached: Tensor, new: Tensor, position: Tensor) -> Tensor:
        slot = (ops.arange(0, cached.shape[2], 1) == position)[:, None].astype(new.dtype)  # (L, 1)
        return cached + slot * new[:, :, None]


class DecodeStep(nn.Cell):
    """`TokenStep` as a pure function, with all keys and values of images in one tensor, those of each decoder in
    another, and the position as (1,), which Lite prefers to (); and the choice of the next tokens, by the cell that
    `generate` chooses with.

    Each row (R,) has its parent's place in the caches, which come back with rows reordered and the position written.
    `forbidden` (V,) is -inf at ids that may not come now, else 0.

    Args:
        choose: a cell of `generation.scores` that uses no setting but the first.
    """

    def __init__(self, model: "CoCa", choose: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.step, self.choose = TokenStep(model, AddAtPosition()), choose
        self.blocks = model.text_decoder.cross_attn
        self.layers = len(model.text.transformer.resblocks)

    def construct(
        self,
        ids: Tensor,
        position: Tensor,
        parents: Tensor,
        forbidden: Tensor,
        unimodal: Tensor,
        multimodal: Tensor,
        cross: Tensor,
    ) -> tuple[Tensor, ...]:
        keys_values = ops.unstack(cross, 0)
        parts: tuple[Tensor, ...] = ()
        index = 0
        for block in self.blocks:
            parts += (block.attn.query_weight(cross.dtype), keys_values[index], keys_values[index + 1])
            index += 2
        cached = ops.unstack(ops.gather(unimodal, parents, 1), 0) + ops.unstack(ops.gather(multimodal, parents, 1), 0)
        past = (ops.arange(0, ids.shape[1], 1) <= position).astype(ms.int32) - 1  # (L,): 0 where a row's own, else -1
        lineage = ops.tile(past[None, None], (ids.shape[0], 1, 1))  # every row has slots of its own
        output = self.step(ids, position.reshape(()), lineage, cached, *parts)
        written = output[1:]
        unused = (ops.ones((), ms.float32),) * (self.choose.settings - 1)
        chosen = self.choose(output[0], ids, forbidden, *unused)
        return (*chosen, ops.stack(written[: 2 * self.layers], 0), ops.stack(written[2 * self.layers :], 0))


Outputs = dict[str, tuple[tuple[int, ...], ms.Type]]


def token_choice(beams: int, vocab_size: int) -> tuple[nn.Cell, Outputs]:
    """The cell that chooses next tokens, and of its outputs, by name, what follows the rows in their shapes, and type:
    of one beam the likeliest token, of several the candidates that beam search asks for."""
    if beams == 1:
        return Sampler(1, False, False), {"tokens": ((), ms.int32)}
    count = min(2 * beams, vocab_size)
    outputs: Outputs = {"scores": ((count,), ms.float32), "tokens": ((count,), ms.int32)}
    return BeamCandidates(count, False, False, False), outputs


def export_graphs(model: "CoCa", batch_size: int, beams: int, cache_length: int) -> Graphs:
    """Each graph's name -> its cell, its inputs and its outputs, by name and as zeros of their shapes and types."""
    vision, text, multimodal = model.config.vision_cfg, model.config.text_cfg, model.config.multimodal_cfg
    rows, width = batch_size * beams, multimodal.width
    if vision.attentional_pool:
        count = vision.attn_pooler_queries - int(vision.attentional_pool is True)  # true keeps one for the feature
    else:
        count = vision.grid_hw[0] * vision.grid_hw[1]

    def zeros(*shape: int, dtype: ms.Type = model.visual.dtype) -> Tensor:
        return ops.zeros(shape, dtype)

    def cache(cfg: CLIPTextCfg) -> Tensor:
        return zeros(2 * cfg.layers, rows, cfg.heads, cache_length, width // cfg.heads)

    features = zeros(batch_size, model.config.embed_dim, dtype=ms.float32)
    caches = {"unimodal": cache(text), "multimodal": cache(multimodal)}
    cross = zeros(2 * multimodal.layers, batch_size, multimodal.heads, count, width // multimodal.heads)
    image_inputs = {"images": zeros(batch_size, 3, *vision.image_hw, dtype=ms.float32)}
    image_outputs = {"image_features": features, "image_embs": zeros(batch_size, count, width), "cross": cross}
    text_inputs = {"text": zeros(batch_size, text.context_length, dtype=ms.int32)}
    step_inputs = {
        "ids": zeros(rows, cache_length, dtype=ms.int32),
        "position": zeros(1, dtype=ms.int32),
        "parents": zeros(rows, dtype=ms.int32),
        "forbidden": zeros(text.vocab_size, dtype=ms.float32),
        **caches,
        "cross": cross,
    }
    choose, chosen = token_choice(beams, text.vocab_size)
    step_outputs = {name: zeros(rows, *shape, dtype=dtype) for name, (shape, dtype) in chosen.items()}
    return {
        "image_encoder": (ImageEncoder(model), image_inputs, image_outputs),
        "text_encoder": (TextEncoder(model), text_inputs, {"text_features": features}),
        "decode_step": (DecodeStep(model, choose), step_inputs, {**step_outputs, **caches}),
    }
