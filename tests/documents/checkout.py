"""A folder like a fresh checkout, in which the commands of the documents run or are checked by their own parsers."""

import argparse
import contextlib
import io
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from mindone_coca import interrupts
from mindone_coca.config import find_config
from mindone_coca.errors import InputError
from mindone_coca.factory import create_model, save_model
from mindone_coca.tasks.settings import load_train_config
from mindone_coca.weights.load import parameter_entries
from tests.documents.reading import ROOT, logical_lines

COPIED = ("assets", "configs", "models")  # what commands write into
INPUTS = ("config", "model_path", "data", "source", "video_path", "image_root", "class_names", "templates", "run")


class Parsed(Exception):
    """A program's own parser has taken its options."""

    def __init__(self, parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
        self.parser, self.options = parser, options


class Checkout:
    """The commands run with its folder as the working directory, most of them within this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if folder.exists():  # of an earlier process
            return
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
        for name in sorted({line.split("/")[0] for line in listed.splitlines()}):
            if name in COPIED:
                shutil.copytree(ROOT / name, partial / name)
            else:
                (partial / name).symlink_to(ROOT / name)
        partial.rename(folder)

    def path(self, name: str) -> Path:
        return self.folder / name

    def forget_weights(self) -> None:
        """As a fresh checkout, which has the demo model only."""
        for path in self.folder.glob("models/coca_model.*"):
            path.unlink()

    def run(self, command: str) -> str:
        """Run a command to its end -> standard output. Python's programs run in this process."""
        words = shlex.split(command)
        if words[0] not in ("python", "mindone-coca") or ">" in words:
            return self.run_process(command)
        with self._inside(), contextlib.redirect_stderr(io.StringIO()) as errors:
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                code = _run_python(words)
        assert code == 0, f"{command}\nexit code {code}\n{printed.getvalue()[-2000:]}{errors.getvalue()[-3000:]}"
        return printed.getvalue()

    def run_process(self, command: str, timeout: int = 3600) -> str:
        """Run a command as a shell does -> standard output."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path}
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == 0, (
            f"{command}\nexit code {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-3000:]}"
        )
        return done.stdout

    def execute(self, code: str, **names: Any) -> dict[str, Any]:
        """Run a block of Python -> its names; what it prints is `printed`."""
        with self._inside(), contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(code, "block of the document", "exec"), names)
        return {**names, "printed": printed.getvalue()}

    def check(self, command: str, files: bool = True) -> None:
        """A dry run: the options are right for the program's own parser, and the files that they name exist.

        Args:
            files: False where nobody has made them, as in the text of a program's help.

        Raises:
            AssertionError: it says what is wrong.
        """
        try:
            self._check(command, files)
        except SystemExit as end:
            raise AssertionError(f"{command}: exit code {end.code}") from end
        except (InputError, OSError) as error:
            raise AssertionError(f"{command}: {error}") from error

    def _check(self, command: str, files: bool) -> None:
        words = shlex.split(command)
        if words[0].endswith(".py"):
            words.insert(0, "python")
        if words[0] in _OTHER_CHECKS:
            _OTHER_CHECKS[words[0]](self, words[1:], files)
        elif words[:3] == ["python", "-m", "pytest"]:
            _check_pytest(self, words[3:], files)
        else:
            self._check_python(words, command, files)

    def recipe(self, target: str) -> list[str]:
        """The programs that `make TARGET` would start, as commands; without those whose folder is there."""
        printed = subprocess.run(
            ["make", "-n", "-f", ROOT / "Makefile", target, "RUN=python"],
            cwd=self.folder,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        found = []
        for line, _ in logical_lines(printed):
            [(unless, command)] = re.findall(r"^(?:test -d (\S+) \|\| )?(.*)$", line)
            if command.startswith("python ") and not (unless and self.path(unless).exists()):
                found.append(command)
        return found

    def _check_python(self, words: list[str], command: str, files: bool) -> None:
        with self._inside():
            parsed = parse_only(words)
            if not files:
                return
            missing = [str(path) for path in _named_inputs(parsed.options) if not _exists(path)]
            assert not missing, f"{command}: {', '.join(missing)} is nowhere"
            if words[1] in ("train.py", "train"):
                self._check_training(command, parsed.options)
            elif (target := getattr(parsed.options, "target", None)) and target.suffix:
                target.touch()  # for the commands that follow

    def write_untrained(self, config: str, run: str) -> None:
        """What a training leaves, without the training: a model with the weights that it would start from."""
        with self._inside():
            model = create_model(config)
            save_model(Path(run, "final.safetensors"), model.config, parameter_entries(model))

    def _check_training(self, command: str, options: argparse.Namespace) -> None:
        """The settings are right, and what they name exists. The run's results appear as empty files, so that the
        commands that follow find them."""
        config = load_train_config(options.config, options.overrides)
        find_config(config.model.config)
        needed = [config.model.checkpoint, *_data_paths(config.data.train), *_data_paths(config.data.val)]
        missing = [path for path in needed if path and not _exists(path)]
        assert not missing, f"{command}: {', '.join(missing)} is nowhere"
        Path(config.output.dir).mkdir(parents=True, exist_ok=True)
        for name in ("final.yaml", "final.safetensors"):
            Path(config.output.dir, name).touch()

    @contextlib.contextmanager
    def _inside(self) -> Iterator[None]:
        """With the checkout as the working directory, and its configs as the packaged ones."""
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder)
            patch.setattr("mindone_coca.config.CONFIG_DIR", self.folder / "configs")
            yield


class ProcessCheckout(Checkout):
    """Commands run in processes of their own, as they stand. What has run in the folder is not run again by a later
    process, so that tests that build upon each other can be stopped between them."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._record = folder / "commands.jsonl"

    def run(self, command: str) -> str:
        return self.result(command)["printed"]

    def result(self, command: str) -> dict[str, Any]:
        """`printed` and `seconds` of a command, run now or earlier."""
        for line in self._record.read_text().splitlines() if self._record.exists() else ():
            if (earlier := json.loads(line))["command"] == command:
                return earlier
        start = time.monotonic()
        done = {"command": command, "printed": self.run_process(command), "seconds": time.monotonic() - start}
        with open(self._record, "a", encoding="utf-8") as file:
            file.write(json.dumps(done) + "\n")
        return done


def _run_python(words: Sequence[str]) -> int:
    """What `python SCRIPT ...`, `python -m MODULE ...` or `mindone-coca ...` do, in this process -> the exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", list(sys.path))
        try:
            patch.setattr(interrupts, "watch_signals", lambda name: None)  # it would block signals in this process
            if words[0] == "mindone-coca":
                from mindone_coca.cli.main import main

                return main(list(words[1:]))
            if words[1] == "-m":
                patch.setattr(sys, "argv", list(words[2:]))
                runpy.run_module(words[2], run_name="__main__", alter_sys=True)
            else:
                script = Path(words[1]).resolve()
                sys.path.insert(0, str(script.parent))
                patch.setattr(sys, "argv", [str(script), *words[2:]])
                runpy.run_path(str(script), run_name="__main__")
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    return 0


def parse_only(words: Sequence[str]) -> Parsed:
    """Let a program read its command line and do nothing more."""

    def stop(parser: argparse.ArgumentParser, arguments: Any = None, namespace: Any = None) -> None:
        raise Parsed(parser, parse_args(parser, arguments, namespace))

    parse_args = argparse.ArgumentParser.parse_args
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(io.StringIO()) as errors:
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        try:
            code = _run_python(words)
        except Parsed as parsed:
            return parsed
    raise AssertionError(f"{shlex.join(words)}: exit code {code}: {errors.getvalue()}")


def _named_inputs(options: argparse.Namespace) -> Iterator[Path]:
    for name in INPUTS:
        given = getattr(options, name, None)
        yield from map(Path, given if isinstance(given, list) else [given] if given else [])


def _data_paths(data: Any) -> list[str]:
    """The paths of `data.train` or `data.val`."""
    if isinstance(data, list):
        return [path for part in data for path in _data_paths(part)]
    if isinstance(data, dict):
        return [data[name] for name in ("path", "image_root") if data.get(name)]
    return [data] if data else []


def _exists(path: str | Path) -> bool:
    """Whether it is a file, a folder, a pattern of some, or the name of a packaged config."""
    if Path(path).exists() or any(Path().glob(str(path))):
        return True
    with contextlib.suppress(Exception):
        return find_config(path).is_file()
    return False


def _check_msrun(checkout: Checkout, words: Sequence[str], files: bool) -> None:
    from mindspore.parallel.cluster.run import get_args

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["msrun", *words])
        with contextlib.redirect_stderr(io.StringIO()):
            options = get_args()
    assert 0 < options.local_worker_num <= options.worker_num
    checkout.check(shlex.join(["python", options.task_script, *options.task_script_args]), files)


def _check_pytest(checkout: Checkout, words: Sequence[str], files: bool) -> None:
    """The files of tests exist, and those that are said to be slow hold slow tests."""
    for word in words:
        if word.startswith("tests/"):
            text = checkout.path(word.split("::")[0]).read_text()
            assert "slow" not in words or "mark.slow" in text, f"{word}: no slow tests there"


def _check_pip(checkout: Checkout, words: Sequence[str], files: bool) -> None:
    """`pip install`: requirements that are met here, or the project itself with a part that it has."""
    assert words[0] == "install"
    if len(words) == 1:
        return
    if words[1] == "-r":
        for line in checkout.path(words[2]).read_text().splitlines():
            if line.strip() and not line.startswith("#"):
                requirement = Requirement(line.partition(" #")[0])
                assert requirement.specifier.contains(metadata.version(requirement.name)), line
        return
    project = checkout.path("pyproject.toml").read_text()
    part = re.fullmatch(r"mindone-coca\[(\w+)\]", words[1])
    assert words[1] == "." or (part and re.search(rf"^{part[1]} = \[", project, re.MULTILINE)), words


def _check_converter_lite(checkout: Checkout, words: Sequence[str], files: bool) -> None:
    """MindSpore Lite's converter is no part of this machine: its options as the vendor's documentation has them."""
    options = dict(word.removeprefix("--").split("=", 1) for word in words)
    unknown = options.keys() - {"fmk", "saveType", "optimize", "modelFile", "outputFile", "configFile"}
    assert not unknown, f"converter_lite has no {unknown}"
    assert checkout.path(options["modelFile"]).is_file(), options["modelFile"]


def _check_pre_commit(checkout: Checkout, words: Sequence[str], files: bool) -> None:
    assert list(words) == ["install"] and (ROOT / ".pre-commit-config.yaml").is_file()


_OTHER_CHECKS = {
    "msrun": _check_msrun,
    "pytest": _check_pytest,
    "pip": _check_pip,
    "converter_lite": _check_converter_lite,
    "pre-commit": _check_pre_commit,
}
