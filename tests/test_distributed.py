"""Two processes under msrun give one process's weights."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from mindone_coca.weights.load import parameter_entries
from mindone_coca.weights.save import save_weights
from tests.models import from_reference, relative_difference
from tests.reference import random_reference
from tests.training.runs import TINY, read_weights, train, train_here, write_config

pytestmark = pytest.mark.graphs

CAPTIONS = ("one", "a scan of a handwritten number one", "two two two", "a five", "this is, it seems, a seven maybe")


@dataclass(frozen=True)
class Alone:
    """The config of a run, and the weights that one process makes of it."""

    config: Path
    weights: dict[str, np.ndarray]


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Alone:
    folder = tmp_path_factory.mktemp("alone")
    # all weights drawn: where one starts at 0, the sum of ten updates is all there is to compare, and Adam turns
    # rounding in small gradients into visible differences of these
    start = from_reference(random_reference(TINY), TINY)
    save_weights(folder / "start.safetensors", parameter_entries(start))
    model = {"checkpoint": str(folder / "start.safetensors")}
    config = write_config(folder, model=model, optim={"lr": 1e-4})
    rows = ["filepath,title"]
    rows += [f'images/{i:04d}.png,"{CAPTIONS[i % len(CAPTIONS)]}"' for i in range(96)]  # of very unequal length
    (folder / "digits" / "train.csv").write_text("\n".join(rows) + "\n")
    train_here(config, f"output.dir={folder / 'one'}", "train.batch_size=8")
    return Alone(config, read_weights(folder / "one" / "final.safetensors"))


@pytest.fixture(scope="module")
def together(alone) -> Path:
    """A folder with the same run by two processes, in whole batches and in micro-batches: these two trainings come one
    after another in the same processes, which start once."""
    folder = alone.config.parent
    runs = [
        [f"output.dir={folder / f'two_{parts}'}", f"train.batch_size={4 // parts}", f"train.accumulate_steps={parts}"]
        for parts in (1, 2)
    ]
    script = folder / "both.py"
    script.write_text(
        f"import sys\nimport train\nfor run in {runs!r}:\n    assert train.main([*sys.argv[1:], *run]) == 0\n"
    )
    train(alone.config, workers=2, script=script)
    return folder


@pytest.mark.parametrize("parts", [1, 2])
def test_two_processes_give_one_process_s_weights(alone, together, parts):
    one, two = alone.weights, read_weights(together / f"two_{parts}" / "final.safetensors")
    width = {"visual": TINY["vision_cfg"]["width"], "text": 16, "text_decoder": 16}
    assert one.keys() == two.keys()
    worst = {}
    for name in one:
        ours, theirs = two[name], one[name]
        if name.endswith("in_proj_bias"):  # key biases have no gradient but rounding, which Adam amplifies
            part = width[name.split(".")[0]] if "attn_pool" not in name else TINY["embed_dim"]
            ours, theirs = (np.delete(x, np.s_[part : 2 * part]) for x in (ours, theirs))
        worst[name] = relative_difference(ours, theirs)
    name = max(worst, key=worst.get)
    assert worst[name] < 1e-6, (name, worst[name])
