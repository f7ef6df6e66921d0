"""The shape of the package: imports go down only, a family's modules are its own, modules are short."""

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mindone_coca"
MODULES = sorted(PACKAGE.rglob("*.py"))
# Lowest first. A module may import what stands before it, and what is in its own folder.
LAYERS = (
    *("errors", "interrupts", "progress", "typed_mapping", "argument_names", "waiting", "account", "launcher"),
    *("files", "storage", "remote", "places"),
    *(
        "media_files",
        "hub",
        "config",
        "tensors",
        "token_ids",
        "distributed",
        "device",
        "graph_cache",
        "batch_sizes",
        "kernels",
        "losses",
    ),
    *("preprocess", "video", "outputs", "generation", "model", "weights", "factory", "conversion", "captioning"),
    *("data", "collection", "evaluation", "training", "tasks", "cli"),
)
FAMILIES = ("mindone_coca.model.open_clip", "mindone_coca.model.coca_pytorch")
MAY_NAME_FAMILIES = ("mindone_coca", "mindone_coca.model.families")
LONGEST_MODULE, LONGEST_REPETITION = 300, 9  # lines


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


NAMES = {module_name(path) for path in MODULES}


@cache
def imports(path: Path) -> list[str]:
    """The package's modules that a module imports, also within functions, but not for type checkers alone."""
    found: list[str] = []

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.orelse:
                visit(child)
            return
        if isinstance(node, ast.Import):
            found.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}: relative import in line {node.lineno}"
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            found.extend(name if name in NAMES else node.module for name in inner)
        for inner_node in ast.iter_child_nodes(node):
            visit(inner_node)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return [name for name in found if name.split(".")[0] == "mindone_coca"]


def part(module: str) -> str:
    """The module or folder of the package that it is or lies in."""
    return f"{module}.".split(".")[1]


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_go_down(path):
    own = module_name(path)
    if own in ("mindone_coca", "mindone_coca.__main__"):  # they stand above all
        return
    for name in imports(path):
        if part(name) not in ("", part(own)):
            below = LAYERS.index(part(name)) < LAYERS.index(part(own))
            assert below, f"{own} imports {name}, which stands above it"


def test_imports_do_not_go_round():
    waiting = {module_name(path): set(imports(path)) - {"mindone_coca", module_name(path)} for path in MODULES}
    while waiting:
        ready = {name for name, needed in waiting.items() if not needed & waiting.keys()}
        assert ready, f"these import one another: {sorted(waiting)}"
        waiting = {name: needed for name, needed in waiting.items() if name not in ready}


def family_classes() -> set[str]:
    """The classes that only families define."""

    def classes(paths: list[Path]) -> set[str]:
        trees = (ast.parse(path.read_text(encoding="utf-8")) for path in paths)
        return {node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}

    inside = [path for path in MODULES if module_name(path).startswith(FAMILIES)]
    return classes(inside) - classes([path for path in MODULES if path not in inside])


def test_families_are_named_in_their_folders_alone():
    classes = family_classes()
    assert {"CoCa", "ParallelCoCa", "ModelConfig", "ParallelConfig", "VisionTransformer"} <= classes
    for path in MODULES:
        own = module_name(path)
        if own.startswith(FAMILIES) or own in MAY_NAME_FAMILIES:
            continue
        assert not [name for name in imports(path) if name.startswith(FAMILIES)], own
        used = {node.id for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Name)}
        assert not used & classes, (own, used & classes)


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_modules_are_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_MODULE


def test_nothing_is_written_twice():
    """No run of ten lines of code, blank ones, comments and imports aside, stands in the package twice."""
    seen: dict[tuple[str, ...], str] = {}
    for path in MODULES:
        lines = [(number, line.strip()) for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)]
        code = [(n, line) for n, line in lines if len(line) > 1 and not line.startswith(("#", "import ", "from "))]
        for start in range(len(code) - LONGEST_REPETITION):
            run = tuple(line for _, line in code[start : start + LONGEST_REPETITION + 1])
            place = f"{module_name(path)}, line {code[start][0]}"
            assert run not in seen, f"{place} repeats {seen[run]}"
            seen[run] = place
