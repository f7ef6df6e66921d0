"""Mistakes in a command: one line, which names what is meant."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import inference
from mindone_coca.cli import main as programs
from mindone_coca.cli.common import Parser

ROOT = Path(__file__).parents[2]


def refused(capsys, arguments: list[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        programs.main(arguments)
    out, errors = capsys.readouterr()
    assert ended.value.code == 2 and out == "" and errors.count("\n") == 1
    return errors


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("caption x.mp4 --num_beam 4", "--num_beam: no such option; did you mean --num_beams?"),
        ("caption --model models", "--model: no such option; did you mean --model_path?"),
        ("caption x.mp4 --video-path=y", "--video-path: no such option; did you mean --video_path?"),
        ("caption x.mp4 --zzz", "error: --zzz: no such option; see --help"),
        ("evaluate zeroshot --dta x", "--dta: no such option; did you mean --data?"),
        ("evaluate captioning --data x --beams 2", "--beams: no such option; did you mean --num_beams?"),
        ("train --confg x", "--confg: no such option; did you mean --config?"),
        ("convert --sorce x", "--sorce: no such option; did you mean --source?"),
        ("export --cache 3", "--cache: no such option; did you mean --cache_length?"),
        ("curves run --outptu x", "--outptu: no such option; did you mean --output?"),
        ("convert", "error: the following arguments are required: --source"),
        ("export", "error: the following arguments are required: --target"),
        ("evaluate retrieval", "error: the following arguments are required: --data"),
        ("train", "error: the following arguments are required: -c/--config"),
        ("caption", "error: give files to caption"),
    ],
)
def test_a_mistake_is_one_line(capsys, command, message):
    assert message in refused(capsys, command.split())


@pytest.mark.parametrize(
    ("tool", "option", "meant"),
    [
        ("examples/digits/make_digits.py", "--zzz", ""),
        ("tools/slow_tests.py", "--agian", "again"),
    ],
)
def test_the_tools_too(tool, option, meant):
    done = subprocess.run([sys.executable, ROOT / tool, option], capture_output=True, text=True)
    hint = f"; did you mean --{meant}?" if meant else ""
    assert (done.returncode, done.stderr) == (2, f"error: {option}: no such option{hint}; see --help\n")


def test_no_program_has_a_parser_of_its_own_kind():
    folders = ("tools", "examples", "mindone_coca")
    programs = [*ROOT.glob("*.py"), *(path for folder in folders for path in ROOT.glob(f"{folder}/**/*.py"))]
    assert [path.name for path in programs if "ArgumentParser(" in path.read_text()] == []


def test_values_are_no_options():
    parser = Parser()
    parser.add_argument("values", nargs="*")
    parser.add_argument("--text")
    found = parser.parse_args(["a", "--text=--x y", "b"])
    assert (found.values, found.text) == (["a", "b"], "--x y")
    assert parser.parse_args(["--text", "x", "--", "--c"]).values == ["--c"]


def test_files_do_not_go_with_a_query(capsys):
    with pytest.raises(SystemExit):
        inference.main(["x.mp4", "--output_dir", "out", "--query", "a dog"])
    assert "no files" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        inference.main(["--output_dir", "out", "--query", "a dog", "--ray", "auto"])
    assert "--ray: goes without --query" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("target", "code", "errors"),
    [("head", 141, ""), ("/dev/full", 2, "error: standard output cannot be written (No space left on device)\n")],
)
def test_standard_output_that_ends_early(target, code, errors):
    program = "from mindone_coca.cli.common import run_cli\nraise SystemExit(run_cli(lambda: print('x' * 100_000)))"
    if target == "head":
        read, write = os.pipe()
        os.close(read)
    else:
        write = os.open(target, os.O_WRONLY)
    done = subprocess.run([sys.executable, "-c", program], stdout=write, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    os.close(write)
    assert (done.returncode, done.stderr) == (code, errors)


def test_help_says_what_is_high(capsys):
    with pytest.raises(SystemExit):
        inference.main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "higher is better" in text and "highest similarity first" in text and "highest rank_score first" in text
