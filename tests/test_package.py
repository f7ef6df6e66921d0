"""The installed package works from any directory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROGRAM = """
import mindone_coca, sys
from mindone_coca import Tokenizer, create_transforms
from mindone_coca.config import load_model_config
assert sys.argv[1] in mindone_coca.__file__, mindone_coca.__file__
assert Tokenizer()(["a dog"], 5).tolist() == [[49406, 320, 1929, 49407, 0]]
for name in ("coca_vit-l-14", "coca_vit-b-32", "coca_base", "configs/coca_vit-l-14.yaml"):
    print(load_model_config(name).embed_dim)
from mindone_coca.factory import create_model
import mindone_coca.captioning.captioner
"""


@pytest.mark.graphs
def test_installed_package_finds_its_data(tmp_path):
    target = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    source = tmp_path / "source"
    source.mkdir()
    for name in ("mindone_coca", "configs", "pyproject.toml", "README.md", "LICENSE", "requirements.txt"):
        subprocess.run(["cp", "-r", ROOT / name, source], check=True)  # pip builds in the source tree
    subprocess.run([*install, "--target", target, source], check=True, capture_output=True)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(target)], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(target)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["768", "512", "512", "768"]
