"""The stubs refuse each thing that the documents forbid, and know the signatures of the MindSpore that is installed."""

import importlib
import inspect

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from tests.kernels.contracts import CONTRACTS, FLASH, GELU, INFER, LAYER_NORM, Contract, Refused, parse


def zeros(*shape: int, dtype: ms.Type = ms.float16) -> Tensor:
    return Tensor(np.zeros(shape), dtype)


def attention_call(heads: str, scale: str) -> dict:
    query, key = zeros(2, 4, 3, 32), zeros(2, 4, 7, 32)
    return {"query": query, "key": key, "value": key, heads: 4, "input_layout": "BNSD", scale: 32**-0.5}


GOOD = {
    "flash": (FLASH, {**attention_call("head_num", "scalar_value"), "attn_mask": zeros(2, 1, 3, 7, dtype=ms.bool_)}),
    "infer": (INFER, {**attention_call("num_heads", "scale"), "atten_mask": zeros(2, 1, 3, 7, dtype=ms.bool_)}),
    "layer_norm": (
        LAYER_NORM,
        {"input": zeros(5, 8), "normalized_shape": (8,), "weight": zeros(8), "bias": zeros(8), "eps": 1e-5},
    ),
    "gelu": (GELU, {"input": zeros(3), "approximate": "none"}),
}
WIDE = {"query": zeros(2, 4, 3, 528), "key": zeros(2, 4, 7, 528), "value": zeros(2, 4, 7, 528)}
ODD = {"query": zeros(2, 4, 3, 24), "key": zeros(2, 4, 7, 24), "value": zeros(2, 4, 7, 24)}
FLOATS = {name: zeros(2, 4, n, 32, dtype=ms.float32) for name, n in (("query", 3), ("key", 7), ("value", 7))}
MANY_HEADS = {"query": zeros(1, 257, 1, 16), "key": zeros(1, 257, 1, 16), "value": zeros(1, 257, 1, 16)}
EMPTY = {"query": zeros(2, 4, 3, 32)[:0], "key": zeros(2, 4, 7, 32)[:0], "value": zeros(2, 4, 7, 32)[:0]}
# by operator: the words that begin a rule, and what breaks it
BROKEN = {
    "flash": [
        ("signature of 2.7.2", {"atten_mask": None}),
        ("input_layout", {"input_layout": "BSH"}),
        ("dtype of query", FLOATS),
        ("dtypes of query", {"key": FLOATS["key"]}),
        ("shape of value", {"value": zeros(2, 4, 8, 32)}),
        ("batch", {"query": zeros(1, 4, 3, 32)}),
        ("batch", EMPTY),
        ("head_num: query's N", {"head_num": 2}),
        ("head_num: query's N", {**MANY_HEADS, "head_num": 257, "attn_mask": None}),
        ("head_num: divisible", {"key": zeros(2, 3, 7, 32), "value": zeros(2, 3, 7, 32)}),
        ("D: one", {"query": zeros(2, 4, 3, 16)}),
        ("D: a multiple", ODD),
        ("D: a multiple", WIDE),
        ("sparse_mode", {"sparse_mode": 2}),
        ("attn_mask", {"attn_mask": zeros(2, 1, 3, 7)}),
        ("attn_mask", {"attn_mask": zeros(1, 1, 3, 7, dtype=ms.bool_)}),
        ("scalar_value", {"scalar_value": 1}),
        ("keep_prob", {"keep_prob": 0.9}),
    ],
    "infer": [
        ("signature of 2.7.2", {"attn_mask": None}),
        ("input_layout", {"input_layout": "BSND"}),
        ("dtype of query", FLOATS),
        ("dtypes of query", {"key": FLOATS["key"]}),
        ("shape of value", {"value": zeros(2, 4, 8, 32)}),
        ("batch", {"query": zeros(1, 4, 3, 32)}),
        ("num_heads", {"num_heads": 2}),
        ("num_key_value_heads", {"num_key_value_heads": 2}),
        ("D: one", {"query": zeros(2, 4, 3, 16)}),
        ("D: a multiple", ODD),
        ("sparse_mode", {"sparse_mode": 3}),
        ("atten_mask", {"atten_mask": zeros(2, 1, 3, 7)}),
        ("atten_mask", {"atten_mask": zeros(2, 1, 1, 7, dtype=ms.bool_)}),
        ("inner_precise", {"query": zeros(2, 4, 1, 32), "atten_mask": None, "inner_precise": 2}),
        ("scale", {"scale": 1}),
    ],
    "layer_norm": [
        ("signature of 2.7.2", {"gamma": None}),
        ("normalized_shape", {"normalized_shape": (5,)}),
        ("shapes of weight", {"bias": zeros(4)}),
        ("eps", {"eps": 0}),
    ],
    "gelu": [
        ("signature of 2.7.2", {"approximates": "none"}),
        ("input", {"input": 1.0}),
        ("approximate", {"approximate": "erf"}),
    ],
}


@pytest.mark.parametrize("name", GOOD)
def test_a_right_call_is_taken(name):
    contract, call = GOOD[name]
    contract.check((), call)


@pytest.mark.parametrize(
    ("name", "rule", "change"), [(name, *case) for name, cases in BROKEN.items() for case in cases]
)
def test_what_a_document_forbids_is_refused(name, rule, change):
    contract, call = GOOD[name]
    with pytest.raises(Refused) as caught:
        contract.check((), {**call, **change})
    assert str(caught.value).startswith(rule)


def test_each_rule_is_broken_once():
    for name, (contract, _) in GOOD.items():
        for words in contract.rules:
            assert any(words.startswith(rule) for rule, _ in BROKEN[name]), (name, words)


@pytest.mark.parametrize("path", CONTRACTS)
def test_the_signatures_are_those_of_mindspore(path):
    contract: Contract = CONTRACTS[path]
    home, _, name = path.rpartition(".")
    operator = getattr(importlib.import_module(home), name)
    signature = str(inspect.signature(operator))
    if "*args" in signature:  # generated; its docstring begins with it
        documented = inspect.cleandoc(operator.__doc__).split("\n")[0]
        signature = documented.removeprefix(name).split(" ->")[0]
    for version, stored in contract.signatures.items():
        if ms.__version__ == version:
            assert str(parse(stored)) == str(parse(signature))
    assert ms.__version__.rpartition(".")[0] in ("2.7", "2.8", "2.9", "2.10")
