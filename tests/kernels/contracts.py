"""What the vendor's documents demand of a call of each fused operator, as a table.

Source of all of it: the docstrings and signatures of mindspore.ops and mindspore.mint.nn.functional in MindSpore 2.7.2
and 2.10.0, the same in both where it stands here.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import mindspore as ms
from mindspore import Tensor

HALVES = (ms.float16, ms.bfloat16)
Rule = Callable[[SimpleNamespace], bool]


class Refused(Exception):
    """A call that a document forbids; the message is the rule."""


@dataclass(frozen=True)
class Contract:
    """One operator.

    Attributes:
        signatures: by version of MindSpore.
        rules: what holds for the arguments of a call, defaults filled in, each under its own words.
    """

    signatures: Mapping[str, str]
    rules: Mapping[str, Rule]

    def check(self, arguments: tuple, keywords: dict[str, Any], types: tuple[ms.Type, ...] = HALVES) -> SimpleNamespace:
        """The arguments by name. Raises Refused.

        Args:
            types: those that stand for the halves, where a stub computes in float32.
        """
        for version, signature in self.signatures.items():
            try:
                bound = parse(signature).bind(*arguments, **keywords)
            except TypeError as error:
                raise Refused(f"signature of {version}: {error}") from None
        bound.apply_defaults()
        call = SimpleNamespace(**bound.arguments, types=types)
        for words, holds in self.rules.items():
            if not holds(call):
                raise Refused(words)
        return call


def parse(signature: str) -> inspect.Signature:
    names: dict[str, Any] = {}
    exec(f"def operator{signature}: pass", names)
    return inspect.signature(names["operator"])


def is_mask(mask: object, types: tuple[ms.Type, ...], *shapes: tuple[int, ...]) -> bool:
    return mask is None or (isinstance(mask, Tensor) and mask.dtype in types and tuple(mask.shape) in shapes)


def bnsd(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)


# what both kinds of attention want, in the order in which they look
OPERANDS: dict[str, Rule] = {
    # of the layouts BSH, BNSD, SBH, BSND and TND this project uses the second alone
    "input_layout: BNSD with four axes": lambda c: c.input_layout == "BNSD" and c.query.ndim == c.key.ndim == 4,
    "dtype of query: float16 or bfloat16": lambda c: c.query.dtype in c.types,
    "dtypes of query, key and value: one": lambda c: c.query.dtype == c.key.dtype == c.value.dtype,
    "shape of value: key's": lambda c: bnsd(c.key) == bnsd(c.value),
}
WIDTHS: dict[str, Rule] = {
    "D: one of query, key and value": lambda c: c.query.shape[3] == c.key.shape[3],
    "D: a multiple of 16, at most 512": lambda c: c.query.shape[3] % 16 == 0 and c.query.shape[3] <= 512,
    "sparse_mode: 0, with the whole mask": lambda c: c.sparse_mode == 0,
}
FLASH = Contract(
    dict.fromkeys(
        ("2.7.2", "2.10.0"),
        "(query, key, value, head_num, real_shift=None, drop_mask=None, padding_mask=None, attn_mask=None, "
        "prefix=None, actual_seq_qlen=None, actual_seq_kvlen=None, keep_prob=1.0, scalar_value=1.0, "
        "pre_tokens=2147483647, next_tokens=2147483647, inner_precise=0, input_layout='BSH', sparse_mode=0)",
    ),
    {
        **OPERANDS,
        "batch: 1 to 2048, one": lambda c: 1 <= c.query.shape[0] == c.key.shape[0] <= 2048,
        "head_num: query's N, 1 to 256": lambda c: 1 <= c.head_num == c.query.shape[1] <= 256,
        "head_num: divisible by key's N": lambda c: c.head_num % c.key.shape[1] == 0,
        **WIDTHS,
        "attn_mask: bool or uint8, (B, N, S1, S2), (B, 1, S1, S2) or (S1, S2)": lambda c: is_mask(
            c.attn_mask,
            (ms.bool_, ms.uint8),
            (c.query.shape[0], c.query.shape[1], c.query.shape[2], c.key.shape[2]),
            (c.query.shape[0], 1, c.query.shape[2], c.key.shape[2]),
            (c.query.shape[2], c.key.shape[2]),
        ),
        "scalar_value: a float": lambda c: isinstance(c.scalar_value, float),
        "keep_prob: 1.0 without drop_mask": lambda c: c.keep_prob == 1.0 and c.drop_mask is None,
    },
)
INFER = Contract(
    dict.fromkeys(
        ("2.7.2", "2.10.0"),
        "(query, key, value, *, pse_shift=None, atten_mask=None, actual_seq_lengths=None, actual_seq_lengths_kv=None, "
        "dequant_scale1=None, quant_scale1=None, dequant_scale2=None, quant_scale2=None, quant_offset2=None, "
        "antiquant_scale=None, antiquant_offset=None, key_antiquant_scale=None, key_antiquant_offset=None, "
        "value_antiquant_scale=None, value_antiquant_offset=None, block_table=None, query_padding_size=None, "
        "kv_padding_size=None, key_shared_prefix=None, value_shared_prefix=None, actual_shared_prefix_len=None, "
        "num_heads=1, scale=1.0, pre_tokens=2147483647, next_tokens=2147483647, input_layout='BSH', "
        "num_key_value_heads=0, sparse_mode=0, inner_precise=1, block_size=0, antiquant_mode=0, "
        "key_antiquant_mode=0, value_antiquant_mode=0, softmax_lse_flag=False)",
    ),
    {
        **OPERANDS,
        "batch: 1 to 65536, one": lambda c: 1 <= c.query.shape[0] == c.key.shape[0] <= 65536,
        "num_heads: query's N, 1 to 256": lambda c: 1 <= c.num_heads == c.query.shape[1] <= 256,
        "num_key_value_heads: 0 or key's N": lambda c: (c.num_key_value_heads or c.num_heads) == c.key.shape[1],
        **WIDTHS,
        "atten_mask: bool, int8 or uint8, (B, 1, S1, S2)": lambda c: is_mask(
            c.atten_mask,
            (ms.bool_, ms.int8, ms.uint8),
            (c.query.shape[0], 1, c.query.shape[2], c.key.shape[2]),
        ),
        "inner_precise: 0 to 3, of one query 0 or 1": lambda c: (
            c.inner_precise in ((0, 1) if c.query.shape[2] == 1 else (0, 1, 2, 3))
        ),
        "scale: a float": lambda c: isinstance(c.scale, float),
    },
)
LAYER_NORM = Contract(
    dict.fromkeys(("2.7.2", "2.10.0"), "(input, normalized_shape, weight=None, bias=None, eps=1e-05)"),
    {
        "normalized_shape: input's last axes": lambda c: (
            tuple(c.normalized_shape) == tuple(c.input.shape[-len(c.normalized_shape) :])
        ),
        "shapes of weight and bias: normalized_shape": lambda c: (
            tuple(c.weight.shape) == tuple(c.bias.shape) == tuple(c.normalized_shape)
        ),
        "eps: a float": lambda c: isinstance(c.eps, float),
    },
)
GELU = Contract(
    dict.fromkeys(("2.7.2", "2.10.0"), "(input, *, approximate='none')"),
    {
        "input: a tensor": lambda c: isinstance(c.input, Tensor),
        "approximate: none or tanh": lambda c: c.approximate in ("none", "tanh"),
    },
)
CONTRACTS = {
    "mindspore.ops.flash_attention_score": FLASH,
    "mindspore.ops.fused_infer_attention_score": INFER,
    "mindspore.mint.nn.functional.layer_norm": LAYER_NORM,
    "mindspore.mint.nn.functional.gelu": GELU,
}
