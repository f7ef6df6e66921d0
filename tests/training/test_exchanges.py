"""What devices exchange in training: gradients in few buckets, and one length of labels."""

import json
import re
import sys
from collections import Counter

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from mindone_coca import device, distributed
from mindone_coca.batch_sizes import WHOLE_CONTEXT
from mindone_coca.distributed import MOST_BUCKETS, Ranks, SumTogether, bucket_bounds
from mindone_coca.errors import InputError
from mindone_coca.losses import caption_labels
from mindone_coca.model.families import load_model_config
from mindone_coca.model.open_clip.config import ModelConfig
from mindone_coca.model.open_clip.shapes import state_shapes
from mindone_coca.training.labels import CaptionLabels
from mindone_coca.training.optim import AdamW
from mindone_coca.training.settings import LossConfig, OptimConfig
from mindone_coca.training.step import TrainStep
from tests.models import CONFIGS, from_reference, one_layer
from tests.reference import random_reference
from tests.test_launcher import cluster_of_two, start_together
from tests.training.reference_training import make_batch

# A step's exchanges besides the gradients', as a slow test counts them in a graph; float16 has one more.
OTHERS = {"AllReduce": 3, "AllGather": 4}


def test_buckets_hold_every_tensor_once_and_in_order():
    rng = np.random.default_rng(0)
    for count in (1, 5, 400):
        sizes = (2 ** rng.uniform(0, 26, count)).astype(int).tolist()
        bounds = bucket_bounds(sizes)
        assert [n for first, last in bounds for n in range(first, last)] == [*range(count)]
        assert len(bounds) <= MOST_BUCKETS + 1


def test_vit_l_14_exchanges_its_773_gradients_in_few_buckets():
    config = load_model_config("coca_vit-l-14")
    assert isinstance(config, ModelConfig)
    sizes = [int(np.prod(shape)) for shape in state_shapes(config).values()]
    assert len(sizes) == 773 and len(bucket_bounds(sizes)) + sum(OTHERS.values()) + 1 <= 20


COUNT = """
from math import prod
import numpy as np
from mindspore import Tensor
from mindspore.communication import init
from mindone_coca import create_model, device
from mindone_coca.distributed import Ranks, SumTogether, bucket_bounds
from mindone_coca.model.families import load_model_config
from mindone_coca.model.open_clip.shapes import state_shapes
from mindone_coca.training import optim
from mindone_coca.training.optim import AdamW, as_scalar
from mindone_coca.training.settings import LossConfig, OptimConfig
from mindone_coca.training.step import TrainStep

LARGE = load_model_config("coca_vit-l-14")
NARROW = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 14, "patch_size": 7, "layers": LARGE.vision_cfg.layers, "width": 12, "head_width": 4,
                   "attentional_pool": True, "attn_pooler_heads": 2, "attn_pooler_queries": 3},
    "text_cfg": {"context_length": 8, "vocab_size": 32, "width": 8, "heads": 2, "layers": LARGE.text_cfg.layers,
                 "embed_cls": True},
    "multimodal_cfg": {"context_length": 8, "width": 8, "heads": 2, "layers": LARGE.multimodal_cfg.layers},
}

def open_clip_name(name):
    for ours in ("gamma", "embedding_table"):
        name = name.replace(f".{ours}", ".weight")
    return name.replace(".beta", ".bias")

device.configure()
init()
model, ranks = create_model(NARROW), Ranks(0, 2)
true = state_shapes(LARGE)
true_sizes = [prod(true.get(p.name) or true[open_clip_name(p.name)]) for p in model.trainable_params()]
# buckets of the tensors that those of the true sizes would have
bounds = bucket_bounds(true_sizes)
SumTogether.__init__.__globals__["bucket_bounds"] = lambda sizes: bounds
optimizer = AdamW(model, OptimConfig(), ranks)
assert [p.name for p in optimizer.parameters] == [p.name for p in model.trainable_params()]
step = TrainStep(model, LossConfig(), optimizer, ranks)
text = np.ones((2, 8), np.int32)
inputs = np.zeros((2, 3, 14, 14), np.float32), text, text[:, 1:]
step.whole.compile(*map(Tensor, inputs), as_scalar(0.1))
print(len(bounds), len(optimizer.parameters))
"""


@pytest.mark.slow
def test_exchanges_of_vit_l_14_counted_in_its_graph(tmp_path, monkeypatch):
    """All layers and parameters, narrow, in buckets by their true sizes, as one of two devices compiles it. One
    process alone: nothing is exchanged, the graph is compiled only. Of it the last form is written, 60 MB."""
    (tmp_path / "count.py").write_text(COUNT)
    monkeypatch.setenv("MS_DEV_SAVE_GRAPHS", "1")
    monkeypatch.setenv("MS_DEV_DUMP_IR_PASSES", "validate")
    monkeypatch.setenv("MS_DEV_SAVE_GRAPHS_PATH", str(tmp_path / "graphs"))
    roles = [{**role, "MS_WORKER_NUM": "1"} for role in cluster_of_two()[:2]]
    roles[0]["MS_DEV_SAVE_GRAPHS"] = "0"
    scheduler, worker = start_together([sys.executable, "count.py"], tmp_path, roles, timeout=3000)
    assert scheduler[0] == worker[0] == 0, worker
    buckets, tensors = map(int, worker[1].split())
    [graph] = (tmp_path / "graphs").rglob("*_validate_*.ir")
    found = Counter(re.findall(r"= (?:PrimFunc_)?(AllReduce|AllGather|ReduceScatter|AllToAll)\(", graph.read_text()))
    assert tensors == 773 and found == Counter({**OTHERS, "AllReduce": OTHERS["AllReduce"] + buckets})
    assert found.total() <= 20


class Doubled(nn.Cell):
    """An exchange with another device that has the same tensors."""

    def construct(self, x: Tensor) -> Tensor:
        return x + x


@pytest.mark.graphs
def test_sums_are_each_tensor_s_own(monkeypatch):
    device.ensure_configured()
    monkeypatch.setattr(distributed, "BUCKET_NUMBERS", 10)
    shapes = [(2, 3), (), (4, 1, 2), (1,), (9,), (3,)]
    together = SumTogether(Ranks(), shapes)
    assert together.bounds == [(0, 3), (3, 5), (5, 6)]
    together.exchange = Doubled()
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    for array, summed in zip(arrays, together(tuple(Tensor(array) for array in arrays)), strict=True):
        assert summed.shape == array.shape
        np.testing.assert_array_equal(summed.asnumpy(), 2 * array)


def captions(*lengths: int, context: int = 64) -> np.ndarray:
    return (np.arange(context)[None] < np.array(lengths)[:, None]).astype(np.int32) * 7


class LongestElsewhere(Ranks):
    """Two devices, of which the other one has a caption of 40 tokens."""

    asked = 0

    def highest(self, number: int) -> int:
        type(self).asked += 1
        return max(number, 40)


def test_labels_are_as_long_as_the_longest_of_all_devices_needs():
    ranks = LongestElsewhere(0, 2)
    assert CaptionLabels(ranks)(captions(4, 3)).shape == (2, 47) == caption_labels(captions(40, 3)).shape
    assert CaptionLabels(ranks)(captions(50, 3)).shape == (2, 63)
    assert CaptionLabels(Ranks())(captions(4, 3)).shape == (2, 3)
    given = CaptionLabels(ranks, [42, 10])
    assert given(captions(4, 3)).shape == (2, 41) and given(captions(43)).shape == (1, 63)
    assert given.of(64) == [10, 42, 64] and given.of(32) == [10, 32] and CaptionLabels(ranks).of(64) == []
    asked = LongestElsewhere.asked
    assert CaptionLabels(ranks, [64])(captions(4)).shape == (1, 63)
    assert CaptionLabels(ranks, [WHOLE_CONTEXT])(captions(4)).shape == (1, 63)
    assert LongestElsewhere.asked == asked  # there is nothing to agree on
    with pytest.raises(InputError, match=r"data\.label_lengths"):
        CaptionLabels(ranks, [1, 8])


@pytest.mark.graphs
def test_given_lengths_are_compiled_before_the_first_step_in_order(monkeypatch):
    config = one_layer(CONFIGS["base"])
    model = from_reference(random_reference(config), config)
    step = TrainStep(model, LossConfig(), AdamW(model, OptimConfig(), Ranks()), Ranks(), label_lengths=[4, 8])
    shapes = []

    class Recorded:
        """Stands for the compiled step."""

        def compile(self, *inputs: Tensor) -> None:
            shapes.append(("compiled", inputs[2].shape))

        def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
            shapes.append(("run", inputs[2].shape))
            return (ms.Tensor(0.0),) * 5

    step.whole = Recorded()
    images, text = make_batch(config, 2, longest=6)
    for _ in range(2):
        step.run([(images, text)], 1e-3)
    compiled = [("compiled", (2, 3)), ("compiled", (2, 7)), ("compiled", (2, 15))]
    assert shapes == [*compiled, ("run", (2, 7)), ("run", (2, 7))], json.dumps(shapes)
