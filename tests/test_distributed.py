"""Two processes under msrun give one process's weights; so do adapters, which also go on after a kill."""

import re
from pathlib import Path

import numpy as np
import pytest

from mindone_coca.weights.load import parameter_entries
from mindone_coca.weights.save import save_weights
from tests.models import from_reference, relative_difference
from tests.reference import random_reference
from tests.training.runs import TINY, read_weights, start_training, train, train_here, write_config
from tests.training.test_resume import wait_for_step

pytestmark = pytest.mark.graphs

# adapters of the decoder, by the caption loss alone: few and small graphs to compile
ADAPTERS = ["train.lora={rank: 2, targets: [text_decoder.*]}", "loss.contrastive_weight=0", "train.ema_decay=0.9"]
ADAPTERS += ["train.accumulate_steps=2", "optim.schedule=constant"]
CAPTIONS = ("one", "a scan of a handwritten number one", "two two two", "a five", "this is, it seems, a seven maybe")


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    """Of all runs here, in a folder that holds the weights from which they start."""
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
    return config


@pytest.fixture(scope="module")
def alone(config) -> dict[str, np.ndarray]:
    """The weights that one process makes."""
    train_here(config, f"output.dir={config.parent / 'one'}", "train.batch_size=8")
    return read_weights(config.parent / "one" / "final.safetensors")


@pytest.fixture(scope="module")
def adapted(config) -> Path:
    """The same by adapters: the run's folder."""
    train_here(config, *ADAPTERS, f"output.dir={config.parent / 'adapted'}", "train.batch_size=4")
    return config.parent / "adapted"


@pytest.fixture(scope="module")
def together(config) -> Path:
    """A folder with the same runs by two processes, in whole batches and in micro-batches, and by adapters: these
    trainings come one after another in the same processes, which start once."""
    folder = config.parent
    runs = [
        [f"output.dir={folder / f'two_{parts}'}", f"train.batch_size={4 // parts}", f"train.accumulate_steps={parts}"]
        for parts in (1, 2)
    ]
    runs.append([*ADAPTERS, f"output.dir={folder / 'two_adapted'}", "train.batch_size=2"])
    train(config, workers=2, script=several(folder, runs))
    return folder


def several(folder: Path, runs: list[list[str]]) -> Path:
    """A program that makes some runs of one config, each with its settings."""
    script = folder / "several.py"
    script.write_text(
        f"import sys\nimport train\nfor run in {runs!r}:\n    assert train.main([*sys.argv[1:], *run]) == 0\n"
    )
    return script


@pytest.mark.parametrize("parts", [1, 2])
def test_two_processes_give_one_process_s_weights(alone, together, parts):
    one, two = alone, read_weights(together / f"two_{parts}" / "final.safetensors")
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


def test_two_processes_give_one_process_s_adapters(adapted, together):
    one, two = (read_weights(folder / "final.safetensors") for folder in (adapted, together / "two_adapted"))
    start = read_weights(together / "start.safetensors")
    assert one.keys() == two.keys()
    changed = {name for name, value in two.items() if not np.array_equal(value, start[name])}
    assert len(changed) == 8 and all(name.startswith("text_decoder.") for name in changed)
    for name, value in one.items():
        assert relative_difference(two[name], value) < 1e-6, name
    lora = "final_lora/adapter_model.safetensors"
    one, two = (read_weights(folder / lora) for folder in (adapted, together / "two_adapted"))
    for name, value in one.items():
        assert value.any() and relative_difference(two[name], value) < 1e-3, name  # of ten updates, B's from 0 on


@pytest.mark.slow
def test_killed_adapters_go_on_to_the_same_bits(config):
    """By the graphs that the killed run has left, in which frozen weights and dropout's draws are found again."""
    folder = config.parent
    dropout = "train.lora={rank: 2, dropout: 0.3, targets: [text_decoder.*]}"
    run = [*ADAPTERS, dropout, "train.batch_size=4", "output.save_every=1"]
    process = start_training(config, *run, f"output.dir={folder / 'killed'}", "train.max_steps=5000")
    wait_for_step(process, folder / "killed", 3, 0)
    process.kill()
    process.communicate()
    step = max(int(path.stem[5:]) for path in (folder / "killed" / "checkpoints").glob("step_*.safetensors"))
    runs = [[*run, f"output.dir={folder / name}", f"train.max_steps={step + 5}"] for name in ("killed", "whole")]
    said = train(config, script=several(folder, runs))
    assert re.search(rf"killed: goes on from step_0*{step}.safetensors at step {step} of {step + 5}\n", said)
    assert "whole: begins at step 0" in said
    for file in ("final.safetensors", f"checkpoints/step_{step + 5:08d}.safetensors"):
        whole, killed = (read_weights(folder / name / file) for name in ("whole", "killed"))
        assert whole.keys() == killed.keys()
        for name, value in whole.items():
            np.testing.assert_array_equal(killed[name], value, name)
    assert (
        not read_weights(folder / "start.safetensors").keys() & whole.keys()
    )  # a checkpoint holds nothing of the base
