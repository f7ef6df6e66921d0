"""The installed package works from any directory."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import mindone_coca
from mindone_coca.cli.main import COMMANDS, main

ROOT = Path(__file__).parent.parent
PROGRAM = """
import mindone_coca, sys
from mindone_coca import Tokenizer, create_transforms
from mindone_coca.model.families import load_model_config
assert sys.argv[1] in mindone_coca.__file__, mindone_coca.__file__
assert Tokenizer()(["a dog"], 5).tolist() == [[49406, 320, 1929, 49407, 0]]
for name in ("coca_vit-l-14", "coca_vit-b-32", "coca_base", "configs/coca_vit-l-14.yaml"):
    print(load_model_config(name).embed_dim)
from mindone_coca.factory import create_model
import mindone_coca.captioning.captioner
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The folder that pip installed the package in."""
    folder = tmp_path_factory.mktemp("pip")
    source, target = folder / "source", folder / "site"
    source.mkdir()
    (source / "models").mkdir()
    (source / "models" / "coca_model.ckpt").touch()  # as the converter leaves one
    names = ("mindone_coca", "configs", "assets", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")
    for name in (*names, "requirements.txt"):
        subprocess.run(["cp", "-r", ROOT / name, source], check=True)  # pip builds in the source tree
    subprocess.run(["cp", ROOT / "models" / "coca_tiny.safetensors", source / "models"], check=True)
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*install, "--target", target, source], check=True, capture_output=True)
    return target


def run(installed: Path, folder: Path, *command: str | Path) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    return subprocess.run([*command], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.graphs
def test_type_checkers_see_the_names_of_the_package():
    """They are imported when first used, which type checkers do not understand."""
    [block] = [node for node in ast.parse(Path(mindone_coca.__file__).read_text()).body if isinstance(node, ast.If)]
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    assert {alias.asname: node.module for node in imports for alias in node.names} == mindone_coca._HOMES


@pytest.mark.graphs
def test_installed_package_finds_its_data(installed, tmp_path):
    done = run(installed, tmp_path, sys.executable, "-c", PROGRAM, str(installed))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["768", "512", "512", "768"]


@pytest.mark.graphs
def test_of_models_and_assets_the_demos_are_installed_alone(installed):
    package = installed / "mindone_coca"
    found = {
        path.relative_to(package).as_posix() for name in ("models", "assets") for path in (package / name).iterdir()
    }
    assert found == {"models/coca_tiny.safetensors", "assets/demo.mp4"}


@pytest.mark.graphs
def test_installed_demo_needs_nothing_else(installed, tmp_path):
    done = run(installed, tmp_path, installed / "bin" / "mindone-coca", "demo")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "a large red star above a small yellow ring\n" and not list(tmp_path.iterdir())


def test_one_version():
    assert f'version = "{mindone_coca.__version__}"' in (ROOT / "pyproject.toml").read_text()
    assert f"\nversion: {mindone_coca.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## [{mindone_coca.__version__}] - " in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("command", COMMANDS)
def test_usage_errors_are_one_line(command, capsys):
    with pytest.raises(SystemExit) as leaving:
        main([command, "--no_such_option"])
    assert leaving.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_help_needs_no_framework(command):
    """What takes long, MindSpore above all, is imported once the usage is right."""
    program = f"import sys; from mindone_coca.cli.main import main; main([{command!r}, '--help'])"
    check = "import atexit, sys; atexit.register(lambda: sys.stderr.write(str('mindspore' in sys.modules)))"
    done = run(ROOT, ROOT, sys.executable, "-c", f"{check}\n{program}")
    assert done.returncode == 0 and done.stderr == "False" and done.stdout.startswith("usage: mindone-coca")
