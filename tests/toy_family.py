"""A third family, as small as one can be; it shares names with open_clip's, so no table may hold those of several."""

from dataclasses import dataclass, field

import mindspore as ms
import torch
from mindspore import nn, ops
from mindspore.common.initializer import Normal

from mindone_coca.config import Dtype, PatchGrid, PreprocessCfg
from mindone_coca.generation.cache import WriteInPlace, hidden_slots
from mindone_coca.generation.engine import DecodeCells
from mindone_coca.model.base import ImageTextModel
from mindone_coca.model.family import Family, FamilyConfig
from mindone_coca.model.layers import new_parameter


@dataclass
class ToyConfig(PatchGrid, FamilyConfig):
    width: int
    vocab_size: int = 49408
    image_size: int = 16
    patch_size: int = 8
    context_length: int = 12
    pad_id: int = 0
    family: str = "toy"
    cast_dtype: Dtype | None = None
    checkpoint: str | None = None
    preprocess: PreprocessCfg = field(default_factory=lambda: PreprocessCfg(size=16))
    training_length = property(lambda self: self.context_length + 1)


class Visual(nn.Cell):
    def __init__(self, cfg):
        super().__init__()
        self.dtype, self.image_hw, self.grid, self.patch = ms.float32, cfg.image_hw, cfg.grid_hw, cfg.patch_size
        self.weight = new_parameter(Normal(0.05), (3 * cfg.patch_size**2, cfg.width), ms.float32, "weight")

    def construct(self, images):
        (rows, columns), size = self.grid, self.patch
        x = images.reshape(-1, 3, rows, size, columns, size).transpose(0, 2, 4, 1, 3, 5)
        tokens = ops.matmul(x.reshape(-1, rows * columns, 3 * size * size), self.weight)
        return tokens.mean(1), tokens


class Text(nn.Cell):
    def __init__(self, cfg):
        super().__init__()
        self.dtype, self.vocab_size, self.context_length, self.causal = ms.float32, cfg.vocab_size, 77, True
        self.table = new_parameter(Normal(1.0), (cfg.vocab_size, cfg.width), ms.float32, "table")

    def construct(self, ids):
        count = ops.arange(1, ids.shape[1] + 1, 1).astype(ms.float32)[None, :, None]
        x = ops.CumSum()(ops.gather(self.table, ids, 0), 1) / count
        return x[:, -1], x


class Decoder(nn.Cell):
    def __init__(self, cfg):
        super().__init__()
        self.width, self.out = cfg.width, new_parameter(Normal(1.0), (cfg.width, cfg.vocab_size), ms.float32, "out")

    def projection(self):
        return self.out

    def hidden(self, image_embs, text_embs):
        return ops.sigmoid(text_embs + image_embs.mean(1, keep_dims=True))

    def construct(self, image_embs, text_embs):
        return ops.matmul(self.hidden(image_embs, text_embs), self.out)


class Cross(nn.Cell):
    def construct(self, image_embs):
        return (image_embs,)


class Prompt(nn.Cell):
    def __init__(self, model):
        super().__init__(auto_prefix=False)
        self.text, self.decoder = model.text, model.text_decoder

    def construct(self, ids, length, image_embs):
        x = ops.gather(self.text.table, ids, 0)[:, None]
        return ops.gather(self.decoder(image_embs, self.text(ids)[1]), length - 1, 1), x, x


class Step(Prompt):
    def __init__(self, model):
        super().__init__(model)
        self.write = WriteInPlace()

    def construct(self, ids, position, lineage, cached, image_embs):
        images, beams, length = lineage.shape
        new = ops.gather(self.text.table, ops.gather(ids, position, 1), 0)[:, None]  # (R, 1, d)
        tokens = self.write(cached[0], new, position)[:, 0]  # (B, slots, d)
        seen = (hidden_slots(lineage) == 0).astype(ms.float32).reshape(images, beams, beams * length)
        x = (ops.BatchMatMul()(seen, tokens) / (position + 1).astype(ms.float32)).reshape(images * beams, 1, -1)
        return (self.decoder(ops.repeat_interleave(image_embs, beams, 0), x)[:, 0],)


class ToyModel(ImageTextModel):
    family, text_reads_all, pools_frames, logit_bias = "toy", False, False, None
    block_names, input_names = ("layers",), frozenset(("table",))

    def __init__(self, cfg):
        super().__init__()
        self.config, self.pad_id, self.context_length = cfg, cfg.pad_id, cfg.context_length
        self.visual, self.text, self.text_decoder = Visual(cfg), Text(cfg), Decoder(cfg)
        self.logit_scale = new_parameter(Normal(0.1), (), ms.float32, "logit_scale")
        self.tag(cfg)

    def decode_cells(self):
        return DecodeCells(Cross(), Prompt(self), Step(self), [(1, self.config.width)])

    def unused_parameters(self, caption_weight, contrastive_weight):
        return ["logit_scale"] * (not contrastive_weight) + ["text_decoder.*"] * (not caption_weight)


def run_original(config, state, image, text):
    """The same in torch."""
    w, size, unit = {k: torch.from_numpy(v) for k, v in state.items()}, config.patch_size, torch.nn.functional.normalize
    x = torch.nn.functional.unfold(torch.from_numpy(image), size, stride=size).transpose(1, 2) @ w["visual.patches"]
    y = w["text.token_embedding.weight"][torch.from_numpy(text).long()].cumsum(1)
    y = y / torch.arange(1, text.shape[1] + 1)[None, :, None]
    logits = torch.sigmoid(y + x.mean(1, keepdim=True)) @ w["text_decoder.text_projection"]
    outputs = {"image_features": unit(x.mean(1)), "text_features": unit(y[:, -1]), "logits": logits}
    return {name: value.numpy() for name, value in outputs.items()}


def shapes(cfg):
    tables = {"text.token_embedding.weight": (cfg.vocab_size, cfg.width), "logit_scale": ()}
    projection = {"text_decoder.text_projection": (cfg.width, cfg.vocab_size)}
    return tables | projection | {"visual.patches": (3 * cfg.patch_size**2, cfg.width)}


def infer(found):
    vocab_size, width = found["text.token_embedding.weight"]
    return {"width": width, "vocab_size": vocab_size, "patch_size": int((found["visual.patches"][0] // 3) ** 0.5)}


NAMES = [("logit_scale", "logit_scale"), ("text.token_embedding.weight", "text.table")]
NAMES += [("visual.patches", "visual.weight"), ("text_decoder.text_projection", "text_decoder.out")]
MARKER = NAMES[1][0]
TOY = Family("toy", "toy", ToyConfig, ToyModel, NAMES, MARKER, shapes, infer, "nothing", run_original, "toy.pt")
