"""What all optimizers share, AdamW with torch's arithmetic, parameter groups, and the learning-rate schedule."""

import fnmatch
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from mindone_coca.distributed import Ranks, Sum, SumTogether
from mindone_coca.errors import InputError
from mindone_coca.tensors import cast, total
from mindone_coca.training.overflow import FiniteOnAll
from mindone_coca.training.settings import OptimConfig
from mindone_coca.weights.names import HEAD

MAX_LOGIT_SCALE = math.log(100)  # CLIP's limit of the temperature, as open_clip clamps it
SCALE_START, SCALE_GROWTH_STEPS = 65536.0, 2000.0  # of the fp16 loss: torch.amp.GradScaler's
TINY = 1e-30


def learning_rate(config: OptimConfig, step: int, total_steps: int) -> float:
    """The rate of step `step` (from 0): linear warm-up, then cosine or constant.

    Source: open_clip_train.scheduler.cosine_lr and const_lr, with `end_lr` as the cosine's lower end.
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.lr
    done = (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps)
    return config.end_lr + 0.5 * (1 + math.cos(math.pi * done)) * (config.lr - config.end_lr)


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns, such as `visual.*`, stands for a name."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def freeze(model: nn.Cell, patterns: Sequence[str]) -> None:
    """Stop training the parameters whose names match one of the patterns (`visual.*`, `*ln_*`).

    Raises InputError for a pattern that matches none.
    """
    parameters = model.trainable_params()
    for pattern in patterns:
        matching = [p for p in parameters if matches(p.name, [pattern])]
        if not matching:
            raise InputError(f"train.freeze: {pattern!r} matches no parameter; names are such as {parameters[0].name}")
        for parameter in matching:
            parameter.requires_grad = False


def freeze_matching(model: nn.Cell, patterns: Sequence[str]) -> None:
    """Stop training the parameters whose names match one of the patterns, which may match none."""
    for parameter in model.trainable_params():
        if matches(parameter.name, patterns):
            parameter.requires_grad = False


def has_weight_decay(name: str, shape: Sequence[int]) -> bool:
    """Off for norms, biases, gains and the temperature. Source: open_clip_train.main's `exclude`."""
    return len(shape) > 1 and not re.search(r"(^|\.)(ln_[^.]*\.|.*bias$|gamma$|beta$|logit_scale$)", name)


class Optimizer(nn.Cell):
    """One update of all trainable parameters: gradients summed over devices, unscaled, clipped; a step; EMA; clamp.

    Source: torch.nn.utils.clip_grad_norm_, torch.amp.GradScaler (for float16). The step is a subclass's `move`.

    Args:
        model: has `logit_scale`, `blocks_after` and all parameters to train.
        encoder_rate: factor of the learning rate of all parameters but those of a task's head.
        loss_scaling: multiply the loss by a factor that follows the gradients' range; updates whose gradients
            overflowed on one of the devices (`overflow.FiniteOnAll`) are left out on all.
    """

    def __init__(
        self,
        model: nn.Cell,
        config: OptimConfig,
        ranks: Ranks,
        grad_clip_norm: float | None = None,
        ema_decay: float | None = None,
        loss_scaling: bool = False,
        encoder_rate: float = 1.0,
    ) -> None:
        super().__init__(auto_prefix=False)
        self.parameters = ParameterTuple(model.trainable_params())
        groups = [
            (
                config.layer_decay ** model.blocks_after(p.name) * (1.0 if p.name.startswith(HEAD) else encoder_rate),
                config.weight_decay * has_weight_decay(p.name, p.shape),
            )
            for p in self.parameters
        ]
        self.groups = tuple(dict.fromkeys(groups))  # (factor of the learning rate, weight decay), each once
        numbers = {group: number for number, group in enumerate(self.groups)}
        self.group_of = tuple(numbers[group] for group in groups)
        self.loss_scale = scalar_state("loss_scale", SCALE_START if loss_scaling else 1.0)
        self.good_steps = scalar_state("good_steps")
        self.ema_decay = ema_decay
        self.ema = ParameterTuple(())
        if ema_decay:
            self.ema = ParameterTuple(
                [Parameter(p.asnumpy().copy(), name=f"ema.{p.name}", requires_grad=False) for p in self.parameters]
            )
        self.grad_clip_norm, self.loss_scaling = grad_clip_norm, loss_scaling
        self.logit_scale = model.logit_scale if model.logit_scale.requires_grad else None
        self.sum_together = SumTogether(ranks, [tuple(p.shape) for p in self.parameters])
        self.sum, self.finite = Sum(ranks), FiniteOnAll(ranks)
        self.map = ops.Map()

    def state(self) -> list[Parameter]:
        """What a checkpoint must hold besides the model's own parameters."""
        return [*self.ema, self.loss_scale, self.good_steps]

    @property
    def graph_settings(self) -> str:
        """What its graph depends on besides the model."""
        trained = [(p.name, group) for p, group in zip(self.parameters, self.group_of)]
        return f"{self.groups} {trained} {self.grad_clip_norm} {self.ema_decay} {self.loss_scaling}"

    def construct(self, grads: tuple[Tensor, ...], lr: Tensor) -> tuple[Tensor, Tensor]:
        """Update by the gradients of the scaled loss; -> the gradients' norm before clipping, and whether it was done
        (1.0, or 0.0 where it is left out)."""
        good = ops.ones((), ms.float32)
        if self.loss_scaling:  # asked before the sum over devices: what saturated leaves no trace in it
            good = self.finite(grads)
        # mapped, not looped: the graph compiler unrolls a loop into calls as deep as it is long
        grads = self.sum_together(self.map(as_float32, grads))
        norm, factor = self.norm_and_factor(grads)
        if self.loss_scaling:
            good = good * ops.isfinite(norm).astype(ms.float32)
        self.move(grads, lr, factor, good)
        if self.logit_scale is not None:
            ops.assign(self.logit_scale, ops.clamp(self.logit_scale, 0.0, MAX_LOGIT_SCALE))
        if self.ema_decay:
            self.map(ops.partial(move_towards, (1.0 - self.ema_decay) * good), self.ema, self.parameters)
        if self.loss_scaling:
            self.adapt_loss_scale(good)
        return norm, good

    def move(self, grads: tuple[Tensor, ...], lr: Tensor, factor: Tensor, good: Tensor) -> Tensor:
        """Step by the gradients, each times `factor`; where `good` is 0 nothing may change."""
        raise NotImplementedError

    def scaled(self, grad: Tensor, factor: Tensor) -> Tensor:
        """A gradient, unscaled and clipped; without what is not finite, for an update that is left out."""
        if self.grad_clip_norm or self.loss_scaling:
            grad = grad * factor
        if self.loss_scaling:
            grad = ops.select(ops.isfinite(grad), grad, ops.zeros_like(grad))
        return grad

    def norm_and_factor(self, grads: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """The norm of the unscaled gradients, and what to multiply them by."""
        factor = ops.ones((), ms.float32)
        if self.loss_scaling:
            factor = 1.0 / self.loss_scale
            norm = ops.sqrt(ops.addn(self.map(ops.partial(scaled_sum_of_squares, factor), grads)))
        else:
            norm = ops.sqrt(ops.addn(self.map(sum_of_squares, grads)))
        if self.grad_clip_norm:
            factor = factor * ops.minimum(self.grad_clip_norm / (norm + 1e-6), 1.0)
        if self.loss_scaling:
            factor = ops.select(ops.isfinite(factor), factor, ops.zeros_like(factor))
        return norm, factor

    def adapt_loss_scale(self, good: Tensor) -> None:
        """Halve the factor after an overflow, double it after many steps without one."""
        steps = (self.good_steps + 1.0) * good
        grows = (steps >= SCALE_GROWTH_STEPS).astype(ms.float32)
        ops.assign(self.loss_scale, self.loss_scale * (0.5 + 0.5 * good) * (1.0 + grows))
        ops.assign(self.good_steps, steps * (1.0 - grows))


class AdamW(Optimizer):
    """AdamW: two moving averages, each as large as what is trained. Args: see Optimizer.

    Source: torch.optim.AdamW. Bias correction and epsilon are folded into the arguments of one fused operator.
    """

    def __init__(self, model: nn.Cell, config: OptimConfig, ranks: Ranks, *rest: Any, **options: Any) -> None:
        super().__init__(model, config, ranks, *rest, **options)
        self.first = self.parameters.clone("optimiser.first", init="zeros")
        self.second = self.parameters.clone("optimiser.second", init="zeros")
        # 1 - beta^t after t updates
        self.correction1, self.correction2 = scalar_state("correction1"), scalar_state("correction2")
        self.betas, self.eps = config.betas, config.eps
        self.fused = ops.AdamWeightDecay()

    def state(self) -> list[Parameter]:
        return [*self.first, *self.second, self.correction1, self.correction2, *super().state()]

    @property
    def graph_settings(self) -> str:
        return f"{super().graph_settings} {self.betas} {self.eps}"

    def move(self, grads: tuple[Tensor, ...], lr: Tensor, factor: Tensor, good: Tensor) -> Tensor:
        beta1, beta2 = self.betas
        if self.loss_scaling:  # an update that is left out changes neither parameters nor moments
            beta1, beta2 = 1.0 - good * (1.0 - beta1), 1.0 - good * (1.0 - beta2)
        # a recurrence, because 1 - beta^t loses digits in float32 for small t
        correction1 = beta1 * self.correction1 + (1.0 - beta1)
        correction2 = beta2 * self.correction2 + (1.0 - beta2)
        root = ops.sqrt(correction2)
        # m / c1 / (sqrt(v) / root + eps) = root / c1 * m / (sqrt(v) + eps root)
        rate = lr * good * root / ops.maximum(correction1, TINY)
        epsilon = ops.maximum(self.eps * root, TINY)  # 0 / 0 if the very first update is left out
        decay = correction1 / ops.maximum(root, TINY)  # lr over rate
        rates, decays = [], []
        for multiplier, own_decay in self.groups:
            rates.append(rate * multiplier)
            decays.append(decay * own_decay)
        update = ops.partial(self.move_one, factor, rates, decays, beta1, beta2, epsilon)
        self.map(update, self.group_of, self.parameters, self.first, self.second, grads)
        ops.assign(self.correction1, correction1)
        ops.assign(self.correction2, correction2)
        return factor

    def move_one(
        self,
        factor: Tensor,
        rates: list[Tensor],
        decays: list[Tensor],
        beta1: Tensor,
        beta2: Tensor,
        epsilon: Tensor,
        group: int,
        parameter: Parameter,
        first: Parameter,
        second: Parameter,
        grad: Tensor,
    ) -> Tensor:
        grad = self.scaled(grad, factor)
        self.fused(parameter, first, second, rates[group], beta1, beta2, epsilon, decays[group], grad)
        return factor


def scalar_state(name: str, value: float = 0.0) -> Parameter:
    """A number of an optimizer's state."""
    return Parameter(Tensor(value, ms.float32), name=f"optimiser.{name}", requires_grad=False)


def as_float32(x: Tensor) -> Tensor:
    return cast(x, ms.float32)


def scaled_sum_of_squares(factor: Tensor, x: Tensor) -> Tensor:
    return sum_of_squares(x * factor)  # not the squares scaled: they may overflow


def sum_of_squares(x: Tensor) -> Tensor:
    square = x * x
    # axis by axis: one running float32 sum over millions of elements loses digits
    return total(total(square, -1)) if square.ndim > 1 else total(square)


def move_towards(share: Tensor, average: Parameter, parameter: Parameter) -> Tensor:
    return ops.assign_add(average, share * (parameter - average))


def as_scalar(value: float) -> Tensor:
    """A number as a tensor, so that another value does not compile the graph again."""
    return Tensor(np.float32(value))
