"""SIGINT and SIGTERM, sent to real processes: where a run stops, what is said, how a process ends."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
FILES = 44  # 8 of which are a group
MODEL = ["-c", str(ROOT / "configs" / "coca_tiny.yaml"), "--model_path", str(ROOT / "models" / "coca_tiny.safetensors")]

# inference.py whose captioner names the file, and takes its time for it
CAPTIONS = """
import sys
import time
from types import SimpleNamespace
sys.path.insert(0, sys.argv.pop(1))
from mindone_coca.interrupts import watch_signals
watch_signals(__name__)
import inference
from mindone_coca.captioning import captioner
from tests.collection.test_caption_files import Naming
class Slow(Naming):
    def __call__(self, items):
        for found in super().__call__(items):
            time.sleep(float(SECONDS))
            yield found
SECONDS = sys.argv.pop(1)
captioner.VideoCaptioner = lambda *_, **__: SimpleNamespace(batches=lambda options, keep=False: Slow(keep))
sys.exit(inference.main(sys.argv[1:]))
"""

# a run of steps that knows where it can stop
STEPS = """
import sys
import time
sys.path.insert(0, sys.argv[1])
from mindone_coca.interrupts import Stopped, stop_on_signals, watch_signals
watch_signals(__name__)
from mindone_coca.cli.common import run_cli
def program():
    with stop_on_signals() as stop:
        print("begun", flush=True)
        for step in range(300):
            time.sleep(0.1)
            if stop.requested:
                raise Stopped("stopped at a step", stop.requested)
sys.exit(run_cli(program))
"""


def start(command: list[str], **options) -> subprocess.Popen:
    """A process to which SIGINT means what it does at a terminal, whatever it means to the tests."""
    return subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        **options,
    )


def wait_for(holds: Callable[[], object], process: subprocess.Popen, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.01)


def finish(process: subprocess.Popen) -> tuple[int, list[str]]:
    """Exit code, and the lines on standard error but those of work that takes long on a busy machine."""
    errors = process.communicate(timeout=120)[1]
    assert "Traceback" not in errors, errors
    slow = ("starting ", "loading ", "compiling ", "stopping ")
    return process.returncode, [line for line in errors.splitlines() if not line.startswith(slow)]


def blocks_interrupts(process: subprocess.Popen) -> bool:
    """Whether the program has come to take care of signals."""
    status = Path(f"/proc/{process.pid}/status").read_text().split("SigBlk:")[1].split()[0]
    return bool(int(status, 16) >> (signal.SIGINT - 1) & 1)


@pytest.fixture
def pictures(tmp_path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(FILES):
        Image.new("RGB", (8, 8), "teal").save(folder / f"{number:02}.png")
    return folder


def journal(out: Path) -> list[dict]:
    """The records in the journal, each of which must be whole."""
    path = out / "journal" / "0-of-1.jsonl"
    text = path.read_text() if path.exists() else ""
    assert not text or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()[1:]]


@pytest.mark.graphs
def test_a_folder_stops_after_the_files_at_hand_and_goes_on(pictures, tmp_path):
    out = tmp_path / "out"
    command = ["-c", CAPTIONS, str(ROOT), "0.05", *MODEL, str(pictures), "--output_dir", str(out)]
    done = [0]
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        process = start(command)
        wait_for(lambda: len(journal(out)) > done[-1], process)
        process.send_signal(number)
        ended, lines = finish(process)
        done.append(len(journal(out)))
        assert ended == code and done[-1] % 8 == 0 and not (out / "captions.json").exists()
        assert lines[-1] == f"stopped: {done[-1]} of {FILES} files done; the same command goes on"
        assert [line for line in lines if "done before" not in line] == lines[-1:]
    assert 0 < done[1] < done[2] < FILES
    assert finish(start([*command[:3], "0", *command[4:]]))[0] == 0
    rows = json.loads((out / "captions.json").read_text())["results"]
    assert [row["path"] for row in rows] == sorted(map(str, pictures.iterdir())) and len(journal(out)) == FILES


@pytest.mark.graphs
def test_a_second_signal_ends_at_once_in_one_line(pictures, tmp_path):
    out = tmp_path / "out"
    process = start(["-c", CAPTIONS, str(ROOT), "60", *MODEL, str(pictures), "--output_dir", str(out)])
    wait_for((out / "journal" / "0-of-1.jsonl").exists, process)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)  # as `timeout -s INT` does: the same one
    time.sleep(1.2)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert finish(process) == (130, ["stopped at once; the same command goes on"])
    assert journal(out) == []


@pytest.mark.graphs
def test_a_single_file_ends_at_once(pictures):
    process = start(["-c", CAPTIONS, str(ROOT), "60", *MODEL, str(pictures / "00.png")])
    wait_for(lambda: blocks_interrupts(process), process)
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    assert finish(process) == (130, ["stopped by SIGINT"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize("script", ["inference.py", "tools/make_random_model.py", "-m mindone_coca"])
def test_while_a_program_imports(script, number):
    process = start([*script.split(), "--help"], cwd=ROOT)
    wait_for(lambda: blocks_interrupts(process), process)
    process.send_signal(number)
    assert finish(process) == (128 + number, [f"stopped by {number.name}"])


def test_every_program_takes_care_before_its_imports():
    """In the text: the first import of the package's other modules stands behind it."""
    programs = {
        path
        for path in [*ROOT.glob("*.py"), *ROOT.glob("tools/**/*.py"), *ROOT.glob("examples/**/*.py")]
        if '__name__ == "__main__"' in path.read_text()
    }
    runners_of_tests = {ROOT / "tools" / name for name in ("mutate.py", "slow_tests.py")}  # which get it as well
    for path in programs - runners_of_tests:
        before, watched, _ = path.read_text().partition("watch_signals(__name__)")
        assert watched, path
        imported = [line for line in before.splitlines() if line.startswith(("import ", "from "))]
        allowed = ["import sys", "from pathlib import Path", "from mindone_coca.interrupts import watch_signals"]
        assert set(imported) <= set(allowed), path


@pytest.mark.graphs
def test_while_graphs_compile(tmp_path):
    """Nothing is left behind: no traceback, no MindSpore's report in the working directory, no temporary files."""
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    home.mkdir(), temporary.mkdir()
    environment = {**os.environ, "MINDONE_COCA_CACHE": str(tmp_path / "cache"), "TMPDIR": str(temporary)}
    command = [str(ROOT / "inference.py"), *MODEL, str(ROOT / "assets" / "demo.mp4")]
    process = start(command, cwd=home, env=environment)
    wait_for(lambda: list(temporary.glob("mindone_coca_graphs_*")), process)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    assert finish(process) == (130, ["stopped by SIGINT"])
    assert list(home.iterdir()) == [] and list(temporary.iterdir()) == []


LOOP = 'for name in a b; do "$0" -c "$1" "$2"; echo "code $?"; done; echo "went on"'


def test_ctrl_c_leaves_the_loop_of_a_shell():
    child, terminal = pty.fork()
    if child == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.execvp("bash", ["bash", "-c", LOOP, sys.executable, STEPS, str(ROOT)])
    shown = b""
    while b"begun" not in shown:
        shown += os.read(terminal, 1000)
    os.write(terminal, b"\x03")
    try:
        while more := os.read(terminal, 1000):
            shown += more
    except OSError:  # the other end is closed
        pass
    os.waitpid(child, 0)
    assert b"stopped at a step" in shown and b"went on" not in shown and shown.count(b"begun") == 1
    assert b"Ctrl-C again" in shown


def test_an_interrupt_of_a_whole_group_leaves_the_loop_of_a_shell():
    process = subprocess.Popen(
        ["bash", "-c", LOOP, sys.executable, STEPS, str(ROOT)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout.readline() == "begun\n"
    os.killpg(process.pid, signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    said = "stopping where nothing is lost; a second signal stops at once\nstopped at a step\n"
    assert (out, errors) == ("", said)


def test_a_shell_calls_it_130():
    process = start(["-c", STEPS, str(ROOT)])
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGINT)
    assert finish(process) == (130, ["stopped at a step"])


def test_what_is_ignored_stays_so():
    """As in a background job of a shell's script."""
    process = subprocess.Popen(
        [sys.executable, "-c", STEPS.replace("300", "5"), str(ROOT)],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
