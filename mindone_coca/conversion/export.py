"""A model as MINDIR graphs of fixed shapes, for GraphCell or MindSpore Lite, with a manifest beside them."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import mindspore as ms
from mindspore import Tensor, nn

from mindone_coca.config import PreprocessCfg
from mindone_coca.errors import InputError
from mindone_coca.files import atomic_folder
from mindone_coca.generation.settings import EOT_TOKEN_ID, SOT_TOKEN_ID
from mindone_coca.model.base import ImageTextModel
from mindone_coca.waiting import Wait

MANIFEST = "manifest.json"
# What MindSpore Lite's converter_lite is told by --configFile. Without it all becomes float16. The 310P has products in
# float16 alone: there the types that the graph asks for are kept where the product has them.
CONVERTER_CONFIGS = {
    "converter_a2.cfg": "[ascend_context]\nprecision_mode=enforce_origin\n",
    "converter_310p.cfg": "[ascend_context]\nprecision_mode=preferred_fp32\n",
}


def describe(tensors: dict[str, Tensor]) -> list[dict]:
    return [{"name": name, "shape": list(t.shape), "dtype": str(t.dtype).lower()} for name, t in tensors.items()]


def export_graph(folder: Path, name: str, cell: nn.Cell, inputs: dict[str, Tensor], outputs: dict[str, Tensor]) -> dict:
    """Write one graph into the folder; returns its entry in the manifest."""
    cell.set_train(False)
    with Wait(f"exporting {name}"):
        ms.export(cell, *inputs.values(), file_name=str(folder / name), file_format="MINDIR")
    # above 1 GB MindSpore writes the weights apart and calls the graph's own file so
    [file] = [file for file in (f"{name}.mindir", f"{name}_graph.mindir") if (folder / file).is_file()]
    return {"file": file, "inputs": describe(inputs), "outputs": describe(outputs)}


def export_model(
    model: ImageTextModel,
    preprocess: PreprocessCfg,
    target: Path,
    batch_sizes: Sequence[int],
    beams: int,
    cache_length: int,
) -> None:
    """Write all graphs and the manifest into the new folder `target`; of several batch sizes into a folder within for
    each, `batch_4` and so on. Raises InputError."""
    engine = model.decode_engine
    if not engine.cacheable:
        raise InputError("text_cfg: no_causal_mask: such a decoder has no cache; only causal models can be exported")
    if cache_length > engine.limit:
        raise InputError(f"--cache_length {cache_length}: this model has {engine.limit} positions; lower it to that")
    if target.exists():
        raise InputError(f"{target}: exists already; remove it or choose another --target")
    with atomic_folder(target) as folder:
        for batch_size in batch_sizes:
            place = folder if len(batch_sizes) == 1 else folder / f"batch_{batch_size}"
            place.mkdir(exist_ok=True)
            cells = model.export_graphs(batch_size, beams, cache_length)
            manifest = {
                "graphs": {name: export_graph(place, name, *parts) for name, parts in cells.items()},
                "batch_size": batch_size,
                "beams": beams,
                "tokens": {"start": SOT_TOKEN_ID, "end": EOT_TOKEN_ID, "pad": model.pad_id},
                "context_length": model.text.context_length,
                "preprocess": dataclasses.asdict(preprocess),
                "mindspore": ms.__version__,
            }
            (place / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
            for name, text in CONVERTER_CONFIGS.items():
                (place / name).write_text(text, encoding="utf-8")
