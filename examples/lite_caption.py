#!/usr/bin/env python
"""Caption pictures with exported graphs, through MindSpore Lite or through MindSpore's GraphCell.

    python examples/lite_caption.py --graphs mindir PICTURE... [--runtime graphcell] [--seq_len 30]

All that is known of the model is the manifest that tools/export_mindir.py wrote beside the graphs: of one beam captions
are greedy, of several they are beam search's. Pictures go through in batches of the exported size. Prints a line for
each. MindSpore itself is needed by GraphCell alone. Exit code 2: bad usage, no such graphs or pictures.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for a checkout that is not installed

from mindone_coca.interrupts import watch_signals

watch_signals(__name__)  # before the imports that take long

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from mindone_coca.cli.common import Parser, positive, run_cli
from mindone_coca.config import PreprocessCfg
from mindone_coca.errors import InputError
from mindone_coca.generation.beam import BeamGroup, best_hypotheses
from mindone_coca.preprocess.tokenizer import Tokenizer
from mindone_coca.preprocess.transforms import make_transform
from mindone_coca.video.frames import read_frames

Graph = Callable[[list[np.ndarray]], list[np.ndarray]]


class LiteGraph:
    """A graph in MindSpore Lite, `target` being ascend or cpu. No test ran these lines: Lite does not install where
    the tests run; its calls are those of its documentation, mindspore_lite.Model of 2.10."""

    def __init__(self, path: Path, target: str) -> None:
        import mindspore_lite as lite

        context = lite.Context()
        context.target = [target]
        self.model = lite.Model()
        self.model.build_from_file(str(path), lite.ModelType.MINDIR, context)

    def __call__(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        inputs = self.model.get_inputs()
        for tensor, array in zip(inputs, arrays, strict=True):
            tensor.set_data_from_numpy(array)
        return [tensor.get_data_to_numpy() for tensor in self.model.predict(inputs)]


class CellGraph:
    """A graph in MindSpore's GraphCell, on the device that MindSpore finds."""

    def __init__(self, path: Path) -> None:
        import mindspore as ms

        self.tensor, self.cell = ms.Tensor, ms.nn.GraphCell(ms.load(str(path)))

    def __call__(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        results = self.cell(*[self.tensor(array) for array in arrays])
        return [result.asnumpy() for result in (results if isinstance(results, tuple) else (results,))]


class Graphs:
    """The graphs of an exported folder, called with arrays by their names. Raises InputError for what is none.

    Args:
        load: makes a graph of its file.
    """

    def __init__(self, folder: Path, load: Callable[[Path], Graph]) -> None:
        try:
            self.manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            hint = "give the folder that tools/export_mindir.py made, or that of one of its batch sizes"
            raise InputError(f"{folder}: no manifest.json can be read there; {hint}") from None
        self.folder, self.load, self.loaded = folder, load, dict[str, Graph]()
        self.batch_size, self.beams = self.manifest["batch_size"], self.manifest["beams"]

    def zeros(self, graph: str, name: str) -> np.ndarray:
        """Zeros of an input's shape and type."""
        [item] = [item for item in self.manifest["graphs"][graph]["inputs"] if item["name"] == name]
        return np.zeros(item["shape"], item["dtype"])

    def __call__(self, graph: str, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        entry, arrays = self.manifest["graphs"][graph], []
        if graph not in self.loaded:
            self.loaded[graph] = self.load(self.folder / entry["file"])
        for item in entry["inputs"]:
            array = np.ascontiguousarray(inputs.pop(item["name"]))
            if list(array.shape) != item["shape"] or array.dtype != item["dtype"]:
                raise ValueError(f"{graph}: {item['name']}: {array.dtype} {array.shape} is not {item}")
            arrays.append(array)
        results = self.loaded[graph](arrays)
        return {item["name"]: result for item, result in zip(entry["outputs"], results, strict=True)}


class Decoder:
    """The decode step over a batch of images: its caches, and what may not come yet."""

    def __init__(self, graphs: Graphs, images: np.ndarray, min_seq_len: int) -> None:
        self.graphs, self.min_seq_len = graphs, min_seq_len
        self.cross = graphs("image_encoder", images=images)["cross"]
        self.ids = graphs.zeros("decode_step", "ids")
        self.caches = {name: graphs.zeros("decode_step", name) for name in ("unimodal", "multimodal")}

    def __call__(self, ids: np.ndarray, parents: np.ndarray) -> dict[str, np.ndarray]:
        """Rows so far (R, length), one longer each time, and the row of the last call that each continues (R,) -> what
        may come next."""
        length = ids.shape[1]
        self.ids[:, :length] = ids
        forbidden = self.graphs.zeros("decode_step", "forbidden")
        if length < self.min_seq_len:
            forbidden[self.graphs.manifest["tokens"]["end"]] = -np.inf
        output = self.graphs(
            "decode_step",
            ids=self.ids,
            position=np.array([length - 1], np.int32),
            parents=parents.astype(np.int32),
            forbidden=forbidden,
            cross=self.cross,
            **self.caches,
        )
        self.caches = {name: output[name] for name in self.caches}
        return output


def greedy(graphs: Graphs, decoder: Decoder, seq_len: int) -> list[np.ndarray]:
    """The likeliest token each time -> each image's ids from the start token on, before an end token."""
    tokens = graphs.manifest["tokens"]
    ids = np.full((graphs.batch_size, 1), tokens["start"], np.int32)
    own = np.arange(len(ids))
    ended = np.zeros(len(ids), bool)
    while ids.shape[1] < seq_len - 1 and not ended.all():  # the last place is the end token's
        chosen = np.where(ended, tokens["pad"], decoder(ids, own)["tokens"]).astype(np.int32)
        ids = np.concatenate((ids, chosen[:, None]), 1)
        ended |= np.isin(chosen, (tokens["end"], tokens["pad"]))
    stops = [np.flatnonzero(np.isin(row, (tokens["end"], tokens["pad"]))) for row in ids]
    return [row[: stop[0]] if len(stop) else row for row, stop in zip(ids, stops)]


def beam_search(graphs: Graphs, decoder: Decoder, seq_len: int) -> list[np.ndarray]:
    """Each image's best caption, with open_clip's rules -> its ids from the start token on, before an end token."""
    tokens, beams = graphs.manifest["tokens"], graphs.beams
    start = np.array([tokens["start"]], np.int32)
    groups = [BeamGroup(start, beams, (tokens["end"],), 1.0) for _ in range(graphs.batch_size)]
    for _ in range(seq_len - 1):
        ids = np.concatenate([group.tokens for group in groups]).astype(np.int32)
        parents = np.concatenate([number * beams + group.parents for number, group in enumerate(groups)])
        output = decoder(ids, parents)
        for number, group in enumerate(groups):
            rows = slice(number * beams, (number + 1) * beams)
            scores = output["scores"][rows]
            group.advance(scores, output["tokens"][rows], np.zeros_like(scores), tokens["pad"])
        if all(group.done for group in groups):
            break
    for group in groups:
        group.close()
    return [best_hypotheses([group], 1)[0].tokens for group in groups]


def caption(graphs: Graphs, images: np.ndarray, seq_len: int = 30, min_seq_len: int = 5) -> list[np.ndarray]:
    """Images (N, 3, H, W) -> each one's ids from the start token on, before an end token; start and end token count in
    both lengths. Raises InputError for a `seq_len` beyond the exported caches."""
    longest = graphs.zeros("decode_step", "ids").shape[1]
    if seq_len - 1 > longest:
        raise InputError(f"--seq_len {seq_len}: these graphs have caches for {longest} tokens; {longest + 1} is most")
    captions: list[np.ndarray] = []
    for first in range(0, len(images), graphs.batch_size):
        batch = images[first : first + graphs.batch_size]
        missing = graphs.batch_size - len(batch)
        decoder = Decoder(graphs, np.concatenate((batch, batch[-1:].repeat(missing, 0))), min_seq_len)
        search = greedy if graphs.beams == 1 else beam_search
        captions += search(graphs, decoder, seq_len)[: len(batch)]
    return captions


def read_pictures(graphs: Graphs, paths: Sequence[Path]) -> Iterator[np.ndarray]:
    """Each picture, or a video's middle frame, as the image encoder takes it, (3, H, W)."""
    size = graphs.zeros("image_encoder", "images").shape[2:]
    transform = make_transform((size[0], size[1]), PreprocessCfg(**graphs.manifest["preprocess"]))
    for path in paths:
        yield transform(read_frames(path)[0].image)


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(__doc__)
    parser.add_argument("pictures", nargs="+", type=Path)
    parser.add_argument("--graphs", type=Path, required=True, help="the exported folder, of one batch size")
    parser.add_argument("--runtime", choices=("lite", "graphcell"), default="lite")
    parser.add_argument("--target", default="ascend", help="MindSpore Lite's device (default ascend)")
    parser.add_argument("--seq_len", type=positive, default=30, help="longest caption in tokens (default 30)")
    arguments = parser.parse_args(argv)

    def run() -> None:
        lite = arguments.runtime == "lite"
        load = (lambda path: LiteGraph(path, arguments.target)) if lite else CellGraph
        graphs = Graphs(arguments.graphs, load)
        images = np.stack(list(read_pictures(graphs, arguments.pictures)))
        tokenizer = Tokenizer()
        for path, ids in zip(arguments.pictures, caption(graphs, images, arguments.seq_len)):
            print(f"{path}\t{tokenizer.decode(ids, skip_special_tokens=True).strip()}")

    return run_cli(run)


if __name__ == "__main__":
    sys.exit(main())
