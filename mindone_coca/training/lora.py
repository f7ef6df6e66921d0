"""LoRA in a training run: which layers get an adapter, what else is trained, and the numbers that dropout draws by."""

import re
from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn

from mindone_coca.distributed import Ranks
from mindone_coca.errors import InputError
from mindone_coca.model.adapters import DRAW, Adapter, SeededDropout, insert
from mindone_coca.model.attention import MultiheadAttention
from mindone_coca.model.base import ImageTextModel
from mindone_coca.model.families import family_of
from mindone_coca.model.family import ADAPTER_SIDES, FamilyConfig
from mindone_coca.training.optim import Optimizer, matches
from mindone_coca.training.progress import say
from mindone_coca.training.settings import LoraConfig, TrainConfig
from mindone_coca.typed_mapping import nearest
from mindone_coca.weights.adapters import OUT_PROJ_TIMES, AdapterFolder, LowRank, merged, scale_of, write_adapters
from mindone_coca.weights.formats.entry import Entry
from mindone_coca.weights.names import HEAD

Places = list[tuple[nn.Cell, str]]  # cells and which of their weights


def is_adapter(name: str) -> bool:
    """Whether a parameter, by its name, is an adapter's."""
    return name.endswith(ADAPTER_SIDES)


def scaling(config: LoraConfig) -> float:
    """What an adapter's product is multiplied by."""
    return scale_of(config.alpha, config.rank, config.use_rslora)


class Draws:
    """The numbers that the masks of dropout follow from: another for each update, micro-batch and device, the same
    again in a run that goes on."""

    def __init__(self, seed: int, rank: int) -> None:
        self.seed, self.rank = seed, rank
        self.number = Parameter(Tensor(0, ms.int32), name=DRAW, requires_grad=False)
        self.updates = Parameter(Tensor(0.0, ms.float32), name="lora.updates", requires_grad=False)

    def take(self, part: int) -> None:
        """Draw for micro-batch number `part` of an update: in each of its passes the same."""
        words = (self.seed, int(self.updates.asnumpy()), self.rank, part)
        drawn = np.random.SeedSequence(words).generate_state(1)[0]
        self.number.set_data(Tensor(int(drawn % (2**31 - 1)) + 1, ms.int32))

    def end(self) -> None:
        """After an update: nothing is dropped until the next."""
        self.updates.set_data(Tensor(float(self.updates.asnumpy()) + 1, ms.float32))
        self.number.set_data(Tensor(0, ms.int32))


class NoDraws(Draws):
    """Where nothing is dropped."""

    def take(self, part: int) -> None: ...

    def end(self) -> None: ...


class Lora:
    """The adapters of a run, inserted into a model of which all else is frozen, but what is trained beside them.

    Args:
        root: the model, or the classifier around it, whose head stays as it is.
        keep_open: leave trainable what is so now, but for the layers that get an adapter.
        unused: patterns of parameters that the losses do not depend on, which get none.
        base: the weights of the model, for the adapters' config.
        seed, rank: for dropout.
    Raises:
        InputError: a pattern of `targets` that no layer matches.
    """

    def __init__(
        self,
        root: nn.Cell,
        model: ImageTextModel,
        config: LoraConfig,
        *,
        keep_open: bool,
        unused: Sequence[str] = (),
        base: str | None = None,
        seed: int = 0,
        rank: int = 0,
    ) -> None:
        self.config, self.base = config, base
        self.draws = Draws(seed, rank) if config.dropout else NoDraws(seed, rank)
        layers = {name: places for name, places in linear_layers(root).items() if not matches(name + ".", unused)}
        chosen = _choose(layers, model, config.targets)
        if not keep_open:
            for parameter in model.get_parameters():
                parameter.requires_grad = False
        self.adapters: list[Adapter] = []
        for name in chosen:
            packed = any(weight == "in_proj_weight" for _, weight in layers[name])
            in_attention = any(isinstance(cell, MultiheadAttention) for cell, _ in layers[name])
            for cell, weight in layers[name]:
                for parameter in cell.get_parameters(expand=False):
                    parameter.requires_grad = False
                dropout = None
                if config.dropout and not in_attention:
                    dropout = SeededDropout(config.dropout, self.draws.number, len(self.adapters))
                times = OUT_PROJ_TIMES if packed and weight == "weight" else 1.0
                adapter = Adapter(getattr(cell, weight), config.rank, times * scaling(config), dropout)
                insert(cell, weight, adapter)
                self.adapters.append(adapter)
        model.tag((model.config, config, keep_open))
        self.trained = {parameter.name for parameter in root.trainable_params()}

    def export(self, folder: Path, model_config: FamilyConfig, weights: dict[str, Entry]) -> dict[str, Entry]:
        """Write the adapters, and what was trained beside them, for peft and `--lora`; a head is not among them.

        Returns:
            The weights with the adapters merged.
        """
        config, family = self.config, family_of(model_config)
        trained = {n: e for n, e in weights.items() if n in self.trained and not n.startswith(HEAD)}
        settings = {
            "r": config.rank,
            "lora_alpha": config.alpha,
            "lora_dropout": config.dropout,
            "use_rslora": config.use_rslora,
        }
        own = [name for name in write_adapters(folder, family, trained, settings, self.base) if is_adapter(name)]
        if own:
            say(f"{folder}: {len(own)} matrices, such as {own[0]}, are for --lora alone: peft has no place for them")
        pairs = {}
        for adapter in self.adapters:
            a, b = (weights[adapter.weight_name + suffix] for suffix in ADAPTER_SIDES)
            pairs[adapter.weight_name] = LowRank(a, b, adapter.scale)
        base = {name: entry for name, entry in weights.items() if not is_adapter(name)}
        return merged(base, [AdapterFolder(folder, pairs)], lambda name: name, "float32")


def open_lora(
    root: nn.Cell, model: ImageTextModel, config: TrainConfig, ranks: Ranks, unused: Sequence[str]
) -> Lora | None:
    """The adapters that `train.lora` asks for; root, unused: see `Lora`. None where it asks for none."""
    lora, seed = config.train.lora, config.train.seed
    if lora is None:
        return None
    keep_open = bool(config.train.freeze)
    return Lora(
        root, model, lora, keep_open=keep_open, unused=unused, base=config.model.checkpoint, seed=seed, rank=ranks.rank
    )


def weights_of(root: nn.Cell) -> list[Parameter]:
    """The parameters of a model or classifier that are weights, those of adapters among them."""
    return [parameter for parameter in root.get_parameters() if parameter.name != DRAW]


def state_of(
    weights: Sequence[Parameter], optimiser: Optimizer, lora: Lora | None, rounded: Container[str]
) -> list[Parameter]:
    """What a checkpoint holds: the weights and the optimizer's state; with adapters none of the frozen weights, and
    never those of them that are `rounded`, by name: they are read from model.checkpoint again."""
    if lora is None:
        return [*(p for p in weights if p.name not in rounded), *optimiser.state()]
    return [*optimiser.parameters, *optimiser.state(), *([lora.draws.updates] if lora.config.dropout else [])]


def linear_layers(root: nn.Cell) -> dict[str, Places]:
    """What can be a target, by name: a linear layer, or an attention layer with its output projection."""
    attention: dict[str, Places] = {}
    others: dict[str, Places] = {}
    for _, cell in root.cells_and_names():
        places = [(cell, name) for name in getattr(cell, "adapted", ()) if hasattr(cell, name)]
        for place in places:
            found = attention if isinstance(cell, MultiheadAttention) else others
            name = getattr(*place).name.rpartition(".")[0]
            if place not in found.setdefault(name, []):
                found[name].append(place)
    for name, places in attention.items():
        places += others.pop(f"{name}.out_proj")
    return {**attention, **others}


def _choose(layers: dict[str, Places], model: ImageTextModel, patterns: Sequence[str] | None) -> list[str]:
    """The names of the layers that get an adapter. Raises InputError."""
    if patterns is None:
        return [name for name in layers if model.in_block(name)]
    for pattern in patterns:
        if not any(matches(name, [pattern]) for name in layers):
            known = [*layers, *dict.fromkeys(_general(layers))]
            hint = nearest(pattern, known) or f"; they are such as {', '.join(known[-3:])}"
            raise InputError(f"train.lora.targets: {pattern!r} matches no layer{hint}")
    return [name for name in layers if matches(name, patterns)]


def _general(layers: Iterable[str]) -> Iterator[str]:
    """Patterns that somebody may have meant: of a layer in all blocks, and in all towers."""
    for name in layers:
        yield re.sub(r"\.\d+\.", ".*.", name)
        yield "*." + name.rpartition(".")[2]
