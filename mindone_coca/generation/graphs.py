"""What the decode engine compiles: a family's pieces of the decoder, each joined with the choice of the next tokens.

So a step is one call, and what comes back to the host are a few numbers a row.
"""

import mindspore as ms
from mindspore import Tensor, nn, ops

from mindone_coca.generation.cache import KeyValueCache, stored


class PromptGraph(nn.Cell):
    """Project the images' tokens, run the prompts, fill the cache, score.

    `construct` takes image tokens (B, K, D), ids (B, T) of which the first `length` () count, and the scorer's
    settings; it returns the scorer's outputs and then the tensors that cross-attention needs.
    """

    def __init__(self, cross_projection: nn.Cell, prompt_pass: nn.Cell, cache: KeyValueCache, score: nn.Cell) -> None:
        super().__init__(auto_prefix=False)  # the model's cells are only borrowed: their parameters keep their names
        self.cross_projection, self.prompt_pass, self.score = cross_projection, prompt_pass, score
        self.tensors, self.slots = cache.tensors, cache.beams * cache.length

    def construct(self, image_embs: Tensor, ids: Tensor, length: Tensor, *settings: Tensor) -> tuple[Tensor, ...]:
        cross = self.cross_projection(image_embs)
        output = self.prompt_pass(ids, length, *cross)
        for i in range(len(self.tensors)):
            ops.assign(self.tensors[i], stored(output[i + 1], self.slots))
        return self.score(output[0], ids, *settings) + cross


class StepGraph(nn.Cell):
    """Run one token of every row with the cache, and score.

    `construct` takes ids (R, L), of which the one at `position` () is new, the lineage (B, beams, L), the scorer's
    settings and the tensors that cross-attention needs; it returns the scorer's outputs.
    """

    def __init__(self, token_step: nn.Cell, cache: KeyValueCache, score: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.token_step, self.score, self.tensors = token_step, score, cache.tensors

    @nn.Cell.compile_phase.setter
    def compile_phase(self, value: str) -> None:
        # MindSpore sets this at each call for each of a cell's cells, which reads it only while it compiles: of
        # ViT-L/14's decoder that takes 0.7 ms, where a step takes 40
        if value != self._compile_phase:
            nn.Cell.compile_phase.fset(self, value)

    def construct(self, ids: Tensor, position: Tensor, lineage: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        settings, cross = others[: self.score.settings], others[self.score.settings :]
        logits = self.token_step(ids, position, lineage, self.tensors, *cross)[0]
        return self.score(logits, ids, *settings)


class WholeGraph(nn.Cell):
    """Run rows from their beginning, without a cache, and score.

    `construct` takes ids (R, T) of which the first `length` () count, the scorer's settings and the tensors that
    cross-attention needs, of each row its own; it returns the scorer's outputs.
    """

    def __init__(self, prompt_pass: nn.Cell, score: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.prompt_pass, self.score = prompt_pass, score

    def construct(self, ids: Tensor, length: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        settings, cross = others[: self.score.settings], others[self.score.settings :]
        return self.score(self.prompt_pass(ids, length, *cross)[0], ids, *settings)


def scalar(value: float) -> Tensor:
    """A setting of a scorer."""
    return Tensor(value, ms.float32)
