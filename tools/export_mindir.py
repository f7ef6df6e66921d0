#!/usr/bin/env python
"""Write a model as three MINDIR graphs of fixed shapes, for GraphCell or MindSpore Lite.

    python tools/export_mindir.py -c configs/coca_vit-l-14.yaml --model_path models/coca_model.ckpt --target mindir/

- image_encoder: images -> normalised features, the image tokens, and their keys and values for the decoder;
- text_encoder: ids padded to the context -> normalised features;
- decode_step: one token for every row. The key/value caches travel as inputs and outputs and start as zeros; a prompt
  is fed token by token. `ids` holds the tokens so far (free places: any), `position` the place of the newest, `parents`
  the row each row continues, for beam search.

manifest.json beside them lists each graph's file, its inputs and outputs in order, the tokens and the image
preprocessing. The folder appears when all is written. Exit code 2: bad usage, config or weights, told in one line.
"""

import argparse
import dataclasses
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import mindspore as ms
from mindspore import Tensor, nn, ops

from mindone_coca.cli.common import run_cli
from mindone_coca.config import DTYPES, CLIPTextCfg, PreprocessCfg
from mindone_coca.errors import InputError
from mindone_coca.factory import create_model, find_config_and_weights
from mindone_coca.generation.engine import TokenStep
from mindone_coca.generation.generate import EOT_TOKEN_ID, SOT_TOKEN_ID, engine_of
from mindone_coca.model.open_clip.model import CoCa, normalize

MANIFEST = "manifest.json"


class ImageEncoder(nn.Cell):
    """Images (B, 3, H, W) -> features (B, E), tokens (B, K, D), and their keys and values (2 layers, B, H, K, d)."""

    def __init__(self, model: CoCa) -> None:
        super().__init__(auto_prefix=False)  # the model's cells are only borrowed: their parameters keep their names
        self.visual = model.visual
        self.blocks = model.text_decoder.cross_attn

    def construct(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features, tokens = self.visual(images)
        keys_values = ()
        for block in self.blocks:
            keys_values += block.attn.project_key_value(block.ln_1_kv(tokens))
        return normalize(features), tokens, ops.stack(keys_values, 0)


class TextEncoder(nn.Cell):
    """Ids (B, T) -> features (B, E)."""

    def __init__(self, model: CoCa) -> None:
        super().__init__(auto_prefix=False)
        self.text = model.text

    def construct(self, text: Tensor) -> Tensor:
        return normalize(self.text(text)[0])


class DecodeStep(nn.Cell):
    """`TokenStep` with the images' keys and values in one tensor and the position as (1,), which Lite prefers to ()."""

    def __init__(self, model: CoCa) -> None:
        super().__init__(auto_prefix=False)
        self.step = TokenStep(model)
        self.blocks = model.text_decoder.cross_attn

    def construct(
        self, ids: Tensor, position: Tensor, parents: Tensor, unimodal: Tensor, multimodal: Tensor, cross: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        keys_values = ops.unstack(cross, 0)
        parts = ()
        index = 0
        for block in self.blocks:
            query_weight = block.attn.in_proj_weight[: block.attn.width].astype(cross.dtype)
            parts += (query_weight, keys_values[index], keys_values[index + 1])
            index += 2
        return self.step(ids, position.reshape(()), parents, unimodal, multimodal, *parts)


def graphs_of(model: CoCa, batch_size: int, beams: int, cache_length: int) -> dict[str, tuple]:
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
        **caches,
        "cross": cross,
    }
    step_outputs = {"logits": zeros(rows, text.vocab_size, dtype=ms.float32), **caches}
    return {
        "image_encoder": (ImageEncoder(model), image_inputs, image_outputs),
        "text_encoder": (TextEncoder(model), text_inputs, {"text_features": features}),
        "decode_step": (DecodeStep(model), step_inputs, step_outputs),
    }


def describe(tensors: dict[str, Tensor]) -> list[dict]:
    return [{"name": name, "shape": list(t.shape), "dtype": str(t.dtype).lower()} for name, t in tensors.items()]


def export_graph(folder: Path, name: str, cell: nn.Cell, inputs: dict[str, Tensor], outputs: dict[str, Tensor]) -> dict:
    """Write one graph into the folder; returns its entry in the manifest."""
    cell.set_train(False)
    ms.export(cell, *inputs.values(), file_name=str(folder / name), file_format="MINDIR")
    # above 1 GB MindSpore writes the weights apart and calls the graph's own file so
    [file] = [file for file in (f"{name}.mindir", f"{name}_graph.mindir") if (folder / file).is_file()]
    return {"file": file, "inputs": describe(inputs), "outputs": describe(outputs)}


def export_model(
    model: CoCa, preprocess: PreprocessCfg, target: Path, batch_size: int, beams: int, cache_length: int
) -> None:
    """Write all graphs and the manifest into the new folder `target`. Raises InputError."""
    if not isinstance(model, CoCa):
        raise InputError("family: only open_clip's CoCa can be exported, not coca-pytorch's")
    engine = engine_of(model)
    if not engine.cacheable:
        raise InputError("text_cfg: no_causal_mask: such a decoder has no cache; only causal models can be exported")
    if cache_length > engine.limit:
        raise InputError(f"--cache_length {cache_length}: this model has {engine.limit} positions; lower it to that")
    if target.exists():
        raise InputError(f"{target}: exists already; remove it or choose another --target")
    folder = target.with_name(f".{target.name}.partial{os.getpid()}")
    try:
        folder.mkdir(parents=True)
        graphs = {
            name: export_graph(folder, name, *parts)
            for name, parts in graphs_of(model, batch_size, beams, cache_length).items()
        }
        manifest = {
            "graphs": graphs,
            "tokens": {"start": SOT_TOKEN_ID, "end": EOT_TOKEN_ID, "pad": model.pad_id},
            "context_length": model.text.context_length,
            "preprocess": dataclasses.asdict(preprocess),
            "mindspore": ms.__version__,
        }
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        os.rename(folder, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("-c", "--config", help="model config; may be left out if one lies beside the weights")
    add("--model_path", help="weights file or folder (default: the config's checkpoint, else models/coca_model.*)")
    add("--target", type=Path, required=True, help="folder to make")
    add("--batch_size", type=positive, default=1, help="images, and texts, at a time (default 1)")
    add("--beams", type=positive, default=1, help="rows of the decode step for each image (default 1)")
    add("--cache_length", type=positive, default=32, help="tokens a caption may have (default 32)")
    add("--dtype", choices=DTYPES, default="float32", help="of weights and activations (default float32)")
    options = parser.parse_args(arguments)

    def run() -> None:
        if options.target.exists():
            raise InputError(f"{options.target}: exists already; remove it or choose another --target")
        config, weights = find_config_and_weights(options.config, options.model_path)
        model = create_model(config, weights, options.dtype)
        shape = options.batch_size, options.beams, options.cache_length
        export_model(model, config.preprocess, options.target, *shape)

    return run_cli(run)


if __name__ == "__main__":
    sys.exit(main())
