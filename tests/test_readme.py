"""README and the other documents: every command and block in them runs, or is checked by the program's own parser."""

import argparse
import dataclasses
import re
import shlex
import sys
import typing
from collections.abc import Iterator

import pytest

from mindone_coca.cli.common import Parser
from mindone_coca.cli.main import COMMANDS
from mindone_coca.tasks.settings import TaskTrainConfig, load_train_config
from tests.captioners import shared_models
from tests.documents.checkout import Checkout
from tests.documents.figures import DEMO_ROWS, MIDDLE_FRAME, TASKS, demo_right, digits_right, style_right, table_row
from tests.documents.messages import is_of_sources
from tests.documents.reading import ROOT, documents, inline_names, read_pieces
from tests.documents.table import TABLE
from tests.documents.walk import Section, Walk, read_documents, run, unaccounted

sys.path.insert(0, str(ROOT / "examples/demo"))

from demo_scenes import describe
from make_demo_data import demo_scene

SHOWN = read_documents()
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
TOOLS = sorted([*(ROOT / "tools").glob("*.py"), *(ROOT / "examples").rglob("*.py")])


@pytest.fixture(scope="module")
def walk(tmp_path_factory) -> Iterator[Walk]:
    with shared_models():
        yield Walk(Checkout(tmp_path_factory.mktemp("documents") / "checkout"), SHOWN, TABLE)


def test_each_command_and_block_is_tried():
    assert unaccounted(SHOWN, TABLE) == []


def test_figures_of_longer_trainings_are_found():
    """So that a document which is written anew fails here and not only where the trainings are run."""
    rows = {beginning: table_row(beginning) for beginning in (*TASKS.values(), MIDDLE_FRAME)}
    assert all(0 < right <= 1 and count >= 240 for right, count, _ in rows.values())
    others = {"VQA": 3, "entailment": 1, "NLVR2": 1}
    assert {beginning: len(rows[beginning][2]) for beginning in others} == others
    assert [len(digits_right(page)) for page in ("train", "second_family")] == [2, 2]
    scenes, right = style_right()
    assert 0 < right <= scenes
    assert all(demo_right(row) for row in DEMO_ROWS)


def test_readme_is_one_page_with_measured_figures():
    """The figures are those of benchmarks/README.md."""
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 120
    measured = (ROOT / "benchmarks/README.md").read_text()
    [table] = re.findall(r"## Measured\n(.*?)\n\n\D", text, re.DOTALL)
    rows = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 5
    for name, *cells in rows:
        [line] = [line for line in measured.splitlines() if line.startswith(f"| {name.strip().split(' (')[0]}")][:1]
        for figure in re.findall(r"[\d.]+", " ".join(cells)):
            assert re.search(rf"(?<![\d.]){re.escape(figure)}(?![\d])", line), f"{name}: {figure} is not in: {line}"


def test_every_page_is_in_the_navigation():
    """As make docs demands, which needs an environment of its own."""
    listed = re.findall(r"^ +- [^:]+: ([\w.]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))


def test_thirty_messages_are_explained():
    pieces = [piece for name in SHOWN if name.startswith("docs/troubleshooting.md") for piece in SHOWN[name]]
    assert len({piece.text for piece in pieces if piece.kind == "text"}) == 30


@pytest.mark.parametrize(
    "line", ["error: clip.mp4: the video is cut off", "error: OUT: no features there", "error: a: b"]
)
def test_a_message_that_no_source_has_is_found(line):
    assert not is_of_sources(line)


@pytest.mark.graphs
@pytest.mark.parametrize("section", SHOWN)
def test_what_the_documents_show(walk, section):
    walk.section(section)


def test_the_caption_of_the_demo():
    """The documents say of the demo's video what tests/test_demo_model.py has its model say."""
    for name, sign in (("README.md", "    "), ("assets/README.md", "> ")):
        assert f"\n\n{sign}{describe(demo_scene())}\n\n" in (ROOT / name).read_text(), name


DOCUMENT = """# Title
Text with `make test` in it.
```
python train.py -c a.yaml \\
    optim.lr=1   # says why
# nothing else
some-program --option
```
## Second `pytest tests`
```python
import this
```
"""


def test_what_no_test_runs_is_named(tmp_path):
    (tmp_path / "README.md").write_text(DOCUMENT)
    shown = read_documents(tmp_path)
    pieces = read_pieces(tmp_path / "README.md", "README.md")
    assert [(p.heading[:6], p.kind, p.text, p.comment) for p in pieces] == [
        ("Title", "command", "make test", ""),
        ("Title", "command", "python train.py -c a.yaml optim.lr=1", "says why"),
        ("Title", "command", "some-program --option", ""),
        ("Second", "command", "pytest tests", ""),
        ("Second", "python", "import this", ""),
    ]
    table = {
        "README.md: Title": Section({"make": run(), "train.py": run(), "evaluate.py": run()}),
        "gone.md: A": Section({}),
    }
    second = "README.md: Second `pytest tests`"
    assert unaccounted(shown, table) == [
        "README.md: Title: there is a command that no test runs: some-program --option",
        "README.md: Title: nothing there has the words 'evaluate.py'",
        f"{second}: there is a command that no test runs: pytest tests",
        f"{second}: there is a python that no test runs: import this",
        "gone.md: A: there is no such section with anything to run",
    ]


WRONG = {
    "python inference.py --video_pth VIDEO": "--video_pth",
    "python train.py -c configs/train_digits.yaml optim.learning_rate=1": "learning_rate",
    "python train.py -c configs/train_digits.yaml": "data/digits/train.csv",
    "python evaluate.py zeroshot -c configs/coca_tiny.yaml --data nowhere": "nowhere",
    "python examples/digits/make_digits.py": "folder",
    "python tools/make_what.py": "make_what.py",
    "msrun --workers=8 train.py -c configs/pretrain.yaml": "exit code 2",
    "msrun --worker_num=8 --local_worker_num=8 train.py -c configs/nothing.yaml": "nothing.yaml",
    "mindone-coca describe": "describe",
    "pytest -m slow tests/test_losses.py": "no slow tests",
    "pytest tests/nothing.py": "nothing.py",
    "pip install mindone-coca[gpu]": "gpu",
    "converter_lite --fmk=MINDIR --modelFile=nothing.mindir": "nothing.mindir",
    "converter_lite --kind=MINDIR": "kind",
}


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> Checkout:
    return Checkout(tmp_path_factory.mktemp("bare") / "checkout")


@pytest.mark.parametrize("command", WRONG)
def test_a_dry_run_finds_what_is_wrong(bare, command):
    with pytest.raises(AssertionError, match=re.escape(WRONG[command])):
        bare.check(command)


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    found: set[str] = set()
    for action in parser._actions:
        found.update(action.option_strings)
        if isinstance(action, argparse._SubParsersAction):
            found.update(option for part in action.choices.values() for option in options_of(part))
    return found


def known_options() -> set[str]:
    """The options of all programs."""
    found = {"--configFile"}  # MindSpore Lite's
    for command in COMMANDS.values():
        command.add_options(parser := Parser())
        found |= options_of(parser)
    for path in (*TOOLS, *(ROOT / "benchmarks").glob("*.py")):
        found.update(re.findall(r"add_argument\(\s*\"(--\w+)\"", path.read_text()))
    return found


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_options_settings_and_files_that_are_named_exist(path):
    options, settings = known_options(), settings_of(TaskTrainConfig)
    for span in inline_names(path):
        for option in re.findall(r"(?<![\w-])--\w+", span):
            assert option in options, f"{path.name}: no program has {option}"
        name = re.match(r"(?:data|train|optim|loss|output|device|head)\.(\w+|\*)", span)
        if name and not re.fullmatch(r"[\w.]+\.(py|yaml)", span):
            assert name[0] in settings, f"{path.name}: there is no setting {name[0]}"
        if overrides := [word for word in shlex.split(span.replace("'", "")) if re.match(r"(?!dotted)\w+\.\w+=", word)]:
            load_train_config("finetune_captioning", overrides)
        if re.fullmatch(r"(configs|tools|examples|tests|docs|benchmarks|mindone_coca|assets)/[\w./-]+", span):
            assert (ROOT / span).exists(), f"{path.name}: there is no {span}"
    for link in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        assert "://" in link or (path.parent / link).exists(), f"{path.name}: {link} leads nowhere"
    for link, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", path.read_text()):
        page = path.parent / link if link else path
        headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
        slugs = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
        assert anchor in slugs, f"{path.name}: {link} has no heading #{anchor}"


def settings_of(cls: type, prefix: str = "") -> set[str]:
    """`section.key` for all settings of a training, and `section.*`."""
    found, hints = set(), typing.get_type_hints(cls)
    for spec in dataclasses.fields(cls):
        found.add(f"{prefix}{spec.name}")
        if dataclasses.is_dataclass(hints[spec.name]):
            found |= {f"{spec.name}.*", *settings_of(hints[spec.name], f"{spec.name}.")}
    return found


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_what_a_configs_comments_name_exists(walk, path):
    said = " ".join(re.findall(r"#\s*(.*)", path.read_text()))
    for command in re.findall(r"python (?:tools|examples/\w+)/\w+\.py [\w/]+", said):
        walk.checkout.check(command, files=False)
    for tool in re.findall(r"(?:tools|examples/\w+)/\w+\.py", said):
        assert (ROOT / tool).is_file(), tool
    for config in re.findall(r"\b\w+\.yaml", said):
        assert (ROOT / "configs" / config).is_file(), config


HELP = {f"mindone-coca {name}": command.description for name, command in COMMANDS.items()}
HELP |= {path.name: path.read_text().split('"""')[1] for path in TOOLS if '"""' in path.read_text()}


@pytest.mark.parametrize("name", HELP)
def test_commands_in_a_programs_help(walk, name):
    for line in HELP[name].splitlines():
        if re.match(r" *(python|msrun|mindone-coca) ", line):
            walk.checkout.check(re.sub(r"\[[^]]*\]", "", line).strip(), files=False)
