"""Every MindSpore operator the package uses must be documented for Ascend, GPU and CPU, in a module of forms for one
device for that device.

The source is parsed, not run. An operator is any name reached through an import of `mindspore`, and any method call
whose name is a Tensor method, unless its receiver is an imported module or the object itself (`self.gather(x)`): which
values are tensors cannot be known, so a method of another type with the same name is checked too. What an operator
supports is read in its docstring; "refer to" and "alias for" are followed, and of several overloads those count that
take the call's arguments.
"""

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mindspore as ms
import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "mindone_coca"
TARGETS = {"Ascend", "GPU", "CPU"}
# The modules whose cells are made on one device alone. Not the CPU's: graphs exported there hold them.
TARGETS_OF = {"kernels/ascend.py": {"Ascend"}}
OPERATOR_HOMES = ("mindspore.ops.", "mindspore.nn.", "mindspore.mint.", "mindspore.Tensor.")
EXCEPTIONS = {
    "mindspore.Tensor.asnumpy": "copies to the host, whatever the device",
    "mindspore.Tensor.from_numpy": "makes a tensor on the host, whatever the device",
    "mindspore.Tensor.set_dtype": "casts a parameter on the host, before there is a graph",
    "mindspore.Tensor.view": "weights/load.py calls it on NumPy's arrays",
    "mindspore.Tensor.clone": "training calls it on ParameterTuples, whose clone is made on the host",
    "mindspore.nn.utils.no_init_parameters": "a context manager, no operator",
    "mindspore.ops.AllGather": "its documentation lists no CPU, yet its forward, all that is used, runs there: tested",
    "mindspore.ops.constexpr": "marks what the graph compiler computes on the host, no operator",
    "mindspore.profiler.profile": "a tool; on the CPU it writes a trace of the operators",
}


@dataclass(frozen=True)
class Use:
    """One place where a MindSpore name is used, and how it is called there (None: not called)."""

    name: str
    where: str
    call: ast.Call | None


def dotted_name(node: ast.expr) -> list[str] | None:
    """`a.b.c` as its parts, None for anything else."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return [node.id, *parts[::-1]] if isinstance(node, ast.Name) else None


def uses_in(source: str, where: str) -> Iterator[Use]:
    """The MindSpore names and the possible Tensor methods in a module."""
    tree = ast.parse(source)
    modules, aliases = set(), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for item in node.names:
                local = item.asname or item.name.split(".")[0]
                modules.add(local)
                if item.name.split(".")[0] == "mindspore":
                    aliases[local] = item.name if item.asname else "mindspore"
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "mindspore":
            aliases.update({item.asname or item.name: f"{node.module}.{item.name}" for item in node.names})
        elif isinstance(node, ast.ImportFrom):
            modules.update(item.asname or item.name for item in node.names)  # no tensors, whatever their members
    if not aliases:
        return
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if not isinstance(node, (ast.Attribute, ast.Name)):
            continue
        place, call, parts = f"{where}:{node.lineno}", calls.get(id(node)), dotted_name(node)
        if parts and parts[0] in aliases:
            if id(node) not in inner:  # of a.b.c only the whole
                yield Use(".".join([aliases[parts[0]], *parts[1:]]), place, call)
        elif call and isinstance(node, ast.Attribute) and hasattr(ms.Tensor, node.attr):
            other = parts is not None and (parts[0] in modules or parts[:-1] == ["self"])
            if not other and not node.attr.startswith("__"):
                yield Use(f"mindspore.Tensor.{node.attr}", place, call)


def resolve(name: str) -> object:
    """The object behind a dotted name; of `ops.TopK.name` the operator, `ops.TopK`. Raises AttributeError."""
    found, parts = ms, name.split(".")[1:]
    for i, part in enumerate(parts):
        if inspect.ismodule(found) and not hasattr(found, part):
            try:
                importlib.import_module(".".join(["mindspore", *parts[: i + 1]]))
            except ModuleNotFoundError as error:
                raise AttributeError(f"no such name in MindSpore: {name}") from error
        elif not inspect.ismodule(found) and found is not ms.Tensor:
            return found
        found = getattr(found, part)
    return found


def takes(signature: str, call: ast.Call) -> bool:
    """Whether a call fits a documented signature such as `sum(dim=None, keepdim=False, *, dtype=None) -> Tensor`."""
    try:
        definition = ast.parse(f"def {signature.split('->')[0].strip()}: pass").body[0]
    except SyntaxError:
        return True
    assert isinstance(definition, ast.FunctionDef)
    spec = definition.args
    if any(isinstance(argument, ast.Starred) for argument in call.args):
        return spec.vararg is not None
    keywords = {keyword.arg for keyword in call.keywords}
    names = [argument.arg for argument in spec.args]
    required = set(names[len(call.args) : len(names) - len(spec.defaults)])
    known = {*names[len(call.args) :], *(argument.arg for argument in spec.kwonlyargs)}
    return (len(call.args) <= len(names) or spec.vararg is not None) and required <= keywords <= known


def documented_targets(documented: object, call: ast.Call | None = None, depth: int = 0) -> set[str] | None:
    """The devices a docstring lists, None where it does not say."""
    overloads = re.split(r"^\.\. method:: Tensor\.", inspect.cleandoc(documented.__doc__ or ""), flags=re.MULTILINE)
    if call is not None and len(overloads) > 1:
        overloads = [text for text in overloads if takes(text.split("\n")[0], call)] or overloads
    found: list[set[str] | None] = []
    for text in overloads:
        section = re.search(r"^\s*Supported Platforms:?\s*\n((?:.*``\w+``.*\n?)+)", text, re.MULTILINE)
        reference = re.search(r"(?:[Rr]efer to|[Aa]lias (?:for|of))\s+:\w+:`~?(mindspore\.[\w.]+)", text)
        if section:
            found.append(set(re.findall(r"``(\w+)``", section[1])))
        elif reference and depth < 3:
            found.append(documented_targets(resolve(reference[1]), None, depth + 1))
    listed = [targets for targets in found if targets is not None]
    return max(listed, key=lambda targets: len(targets & TARGETS)) if listed else None


def problem(use: Use) -> str | None:
    """Why this use is not safe on all three devices, or on that of its module; None if it is."""
    if use.name in EXCEPTIONS:
        return None
    try:
        found = resolve(use.name)
    except AttributeError as error:
        return f"{use.where}: {error}"
    if inspect.ismodule(found):
        return None
    targets = documented_targets(found, use.call)
    if targets is None:
        return f"{use.where}: {use.name} lists no platforms" if use.name.startswith(OPERATOR_HOMES) else None
    missing = TARGETS_OF.get(use.where.rpartition(":")[0], TARGETS) - targets
    return f"{use.where}: {use.name} is not supported on {', '.join(sorted(missing))}" if missing else None


def package_uses() -> list[Use]:
    files = sorted(PACKAGE.rglob("*.py"))
    return [use for path in files for use in uses_in(path.read_text(encoding="utf-8"), str(path.relative_to(PACKAGE)))]


def test_package_uses_only_operators_of_all_devices():
    problems = [found for use in package_uses() if (found := problem(use))]
    assert not problems, "\n".join(problems)


def test_checker_reads_the_package():
    used = {use.name for use in package_uses()}
    assert {"mindspore.ops.dense", "mindspore.ops.TopK", "mindspore.nn.CellList", "mindspore.Tensor.swapaxes"} <= used
    assert len({name for name in used if name.startswith("mindspore.ops.")}) > 25


def test_every_exception_is_needed():
    used = {use.name for use in package_uses()}
    for name in EXCEPTIONS:
        assert name in used, f"{name} is not used any more"
        assert TARGETS - (documented_targets(resolve(name)) or set()), f"{name} needs no exception"


@pytest.mark.parametrize(
    "line",
    [
        "ops.layer_norm(x, (3,))",
        "ms.ops.layer_norm(x, (3,))",
        "mint.gelu(x)",
        "ms.mint.nn.LayerNorm(3)",
        "functional.layer_norm(x, (3,))",
        "top(x, 3)",
        "x.transpose(dim0=0, dim1=1)",
        "(x + 1)[0].kthvalue(1)",
        "self.layers[0].weight.fill_(0)",
        "ops.no_such_operator(x)",
        "nn.DistributedGradReducer(parameters)",
    ],
)
def test_checker_refuses(line):
    source = f"""
import mindspore as ms
import mindspore.mint.nn.functional as functional
from mindspore import mint, nn, ops
from mindspore.mint import topk as top

def run(self, x, parameters):
    return {line}
"""
    found = [text for use in uses_in(source, "snippet.py") if (text := problem(use))]
    assert any(text.startswith("snippet.py:8: ") for text in found), found


def test_checker_accepts():
    source = """
import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import Normal

class Net(nn.Cell):
    def construct(self, x):
        x = self.fill_(np.mul_(x))
        x = ops.Concat(1)((x, x.transpose(0, 2, 1)))
        return ops.softmax(x.reshape(2, -1).sum(1, keepdims=True), -1).astype(ms.float32)
"""
    uses = list(uses_in(source, "snippet.py"))
    assert {"mindspore.ops.Concat", "mindspore.Tensor.transpose", "mindspore.Tensor.reshape"} <= {u.name for u in uses}
    assert not any(use.name.endswith("_") for use in uses)
    assert [text for use in uses if (text := problem(use))] == []


FOR_ASCEND = "ops.flash_attention_score(x, x, x, 1)", "mint.nn.functional.gelu(x)"


@pytest.mark.parametrize(
    ("where", "line", "missing"),
    [
        *(("kernels/ascend.py", line, None) for line in FOR_ASCEND),
        *(("kernels/cpu.py", line, "CPU, GPU") for line in FOR_ASCEND),
        ("kernels/ascend.py", "ops.bessel_i0(x)", "Ascend"),
        ("kernels/cpu.py", "ops.bessel_i0(x)", "Ascend"),
    ],
)
def test_a_module_of_forms_for_a_device_needs_that_device_alone(where, line, missing):
    source = f"from mindspore import mint, ops\n\ndef run(x):\n    return {line}\n"
    found = [text for use in uses_in(source, where) if (text := problem(use))]
    assert [text.rpartition(" on ")[2] for text in found] == ([] if missing is None else [missing])
