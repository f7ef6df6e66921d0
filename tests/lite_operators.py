"""The operators that MindSpore Lite takes, as far as exported graphs have them, and the operators of an exported file.

Sources: LISTED stand, most of them with `Fusion` behind, in "Lite Operator List" (mindspore.cn, lite r2.6.0) and in
`union PrimitiveType` of mindspore-lite/schema/ops.fbs; CONVERTED are replaced by listed ones when the converter reads a
graph (mindspore-lite, tools/converter/import/convert_extend_ops: Dense, MatMulExt, SumExt, Muls and a few more);
BatchMatMul, ReduceSum and ReduceMax are listed as MatMulFusion and ReduceFusion with its mode. FRAMEWORK are no
computation.
"""

from pathlib import Path

from mindspore.train.mind_ir_pb2 import ModelProto

LISTED = {
    *(
        "Add",
        "Argmax",
        "BatchMatMul",
        "BiasAdd",
        "Cast",
        "Concat",
        "Div",
        "Equal",
        "Erf",
        "Exp",
        "ExpandDims",
        "FloorDiv",
    ),
    *("Gather", "GatherD", "GreaterEqual", "LayerNorm", "LessEqual", "Log", "MatMul", "Maximum", "Minimum", "Mul"),
    *("NotEqual", "ReduceMax", "ReduceSum", "Reshape", "Select", "Softmax", "Split", "Sqrt", "Stack", "StridedSlice"),
    *("Sub", "Tile", "TopK", "Transpose", "Unstack"),
}
CONVERTED = {"Dense"}
FRAMEWORK = {"Constant", "Depend", "Load", "MakeTuple", "TupleGetItem", "UpdateState"}
ON_CPU = {
    "ArgMaxWithValue"
}  # in graphs of the CPU's forms alone, for GraphCell; there ReduceMax takes three times as long
ALLOWED = LISTED | CONVERTED | FRAMEWORK


def operators_in(file: Path) -> set[str]:
    """The operators of a .mindir, graphs within graphs included."""
    model = ModelProto()
    model.ParseFromString(file.read_bytes())
    parts = (model.graph, *model.functions)
    # REF:: and a number stand around the name of an operator that is described apart
    return {node.op_type.removeprefix("REF::").split(":")[0] for part in parts for node in part.node}
