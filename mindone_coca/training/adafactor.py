"""Adafactor, and which optimizer a run has."""

from typing import Any

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops
from mindspore.common.initializer import Zero, initializer

from mindone_coca.distributed import Ranks
from mindone_coca.training.optim import AdamW, Optimizer, scalar_state
from mindone_coca.training.settings import OptimConfig, TrainConfig

SQUARE_FLOOR = 1e-30  # added to squared gradients; the paper's epsilon 1
LEAST_SIZE = 1e-3  # a parameter counts as no smaller than this, else one that begins at 0 stays there; epsilon 2
LARGEST_MOVE = 1.0  # the root mean square of an update, in units of the learning rate; the paper's d
DECAY_POWER = -0.8  # the average of squares keeps 1 - t^this of its value at update t


class Adafactor(Optimizer):
    """Adafactor without a first moment (Shazeer and Stern, arXiv 1804.04235, algorithms 4 and 5). Args: see Optimizer.

    Of a matrix's squared gradients only the averages over rows and over columns are kept, n + m numbers for n m; of
    vectors and numbers all. Of a tensor of more axes, such as the image patches' weights, each matrix of its last two
    axes is one. The learning rate is relative: a tensor moves by as much of its own root mean square. Weight decay is
    apart from that, as in torch.optim.Adafactor.
    """

    def __init__(self, model: nn.Cell, config: OptimConfig, ranks: Ranks, *rest: Any, **options: Any) -> None:
        super().__init__(model, config, ranks, *rest, **options)
        # of vectors the one is the average itself, and the other an empty place that nothing reads
        self.rows = ParameterTuple([new_state("row", p, tuple(p.shape[: max(1, p.ndim - 1)])) for p in self.parameters])
        self.columns = ParameterTuple([new_state("column", p, column_shape(tuple(p.shape))) for p in self.parameters])
        self.updates = scalar_state("updates")
        self.mean, self.mean_kept = ops.ReduceMean(), ops.ReduceMean(keep_dims=True)
        self.product, self.products = ops.MatMul(), ops.BatchMatMul()

    def state(self) -> list[Parameter]:
        columns = [column for column, p in zip(self.columns, self.parameters) if p.ndim > 1]
        return [*self.rows, *columns, self.updates, *super().state()]

    def move(self, grads: tuple[Tensor, ...], lr: Tensor, factor: Tensor, good: Tensor) -> Tensor:
        updates = self.updates + good
        new_share = good * ops.pow(ops.maximum(updates, 1.0), DECAY_POWER)
        rates, decays = [], []
        for multiplier, own_decay in self.groups:
            rates.append(lr * good * multiplier)
            decays.append(lr * good * (multiplier * own_decay))
        update = ops.partial(self.move_one, factor, rates, decays, new_share)
        self.map(update, self.group_of, self.parameters, self.rows, self.columns, grads)
        ops.assign(self.updates, updates)
        return factor

    def move_one(
        self,
        factor: Tensor,
        rates: list[Tensor],
        decays: list[Tensor],
        new_share: Tensor,
        group: int,
        parameter: Parameter,
        row: Parameter,
        column: Parameter,
        grad: Tensor,
    ) -> Tensor:
        # operators by their own names: the compiler takes several times as long over a tensor's methods and indices
        grad = self.scaled(grad, factor)
        square = ops.square(grad) + SQUARE_FLOOR
        if parameter.ndim > 1:
            rows = row + new_share * (self.mean(square, -1) - row)  # (..., n)
            columns = column + new_share * (self.mean(square, -2) - column)  # (..., m)
            ops.assign(row, rows)
            ops.assign(column, columns)
            # floors: all is 0 if the very first update is left out
            rows, columns = ops.maximum(rows, SQUARE_FLOOR), ops.maximum(columns, SQUARE_FLOOR)
            # apart, for their product may be too large or too small
            left, right = ops.rsqrt(rows / self.mean_kept(rows, -1)), ops.rsqrt(columns)
            left = ops.reshape(left, (*left.shape, 1))
            right = ops.reshape(right, (*right.shape[:-1], 1, right.shape[-1]))
            update = grad * (self.product if grad.ndim == 2 else self.products)(left, right)
        else:
            squares = row + new_share * (square - row)
            ops.assign(row, squares)
            update = grad * ops.rsqrt(ops.maximum(squares, SQUARE_FLOOR))
        rate = rates[group] * ops.maximum(self.size_of(parameter), LEAST_SIZE)
        rate = rate / ops.maximum(self.size_of(update) / LARGEST_MOVE, 1.0)
        ops.assign(parameter, parameter - parameter * decays[group] - update * rate)
        return factor

    def size_of(self, x: Tensor) -> Tensor:
        """The root mean square of a tensor."""
        square = ops.square(x)
        if x.ndim > 1:  # axis by axis, as `optim.sum_of_squares`
            square = self.mean(square, -1)
        return ops.sqrt(self.mean(square, ()))


def column_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """What is left of a tensor's shape in the averages over its rows' axis."""
    return (*shape[:-2], shape[-1]) if len(shape) > 1 else (1,)


def new_state(kind: str, parameter: Parameter, shape: tuple[int, ...]) -> Parameter:
    return Parameter(
        initializer(Zero(), shape, ms.float32), name=f"optimiser.{kind}.{parameter.name}", requires_grad=False
    )


def open_optimizer(model: nn.Cell, config: TrainConfig, ranks: Ranks, encoder_rate: float = 1.0) -> Optimizer:
    """The optimizer that `optim.name` asks for, of the model's trainable parameters; encoder_rate: see Optimizer."""
    kind = Adafactor if config.optim.name == "adafactor" else AdamW
    train = config.train
    scaling = train.precision == "fp16"
    return kind(model, config.optim, ranks, train.grad_clip_norm, train.ema_decay, scaling, encoder_rate)
