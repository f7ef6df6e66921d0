"""Ctrl-C and SIGTERM: a run stops where nothing is lost, and whatever else a program does ends in one line.

MindSpore has a handler of its own that turns SIGINT into SIGTERM, and an exception that reaches its compiler leaves a
traceback and a file in the working directory. So no handler ever sees SIGINT: all threads block it, and one waits for
it.
"""

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

TEMPORARY: set[Path] = set()  # files and folders to remove when the process ends at once
_FROM_TERMINAL = 0x80  # SI_KERNEL, the si_code of a signal that a key sent
_ONE_SIGNAL = 1.0  # seconds: `timeout -s INT` and others signal a process, then its whole group
_SHELLS = {"sh", "bash", "dash", "zsh", "ksh", "fish", "busybox"}


class Stopped(Exception):
    """A run that ended early because a signal asked it to.

    Args:
        message: one line: what was done, and that the same command goes on.
        number: the signal, `StopRequest.requested`; the program's exit code is 128 more.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.number = number


@dataclass
class StopRequest:
    """Whether a signal has asked the run to stop: its number, or None; and when, by the monotonic clock."""

    requested: int | None = None
    since: float = 0.0


_current: StopRequest | None = None  # of the run that knows where it can stop
_by_key = False  # whether the last signal was a terminal's Ctrl-C
_watched: int | None = None  # the process that `watch_signals` was called in


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Within, the first SIGINT or SIGTERM does nothing but set `requested`, for a run that the same command continues:
    it looks there wherever it can stop without loss, and raises `Stopped`. A second signal ends the process at once;
    what no key sent and comes within a second of the first is the same one.

    This holds in programs, which call `watch_signals` first; elsewhere signals do what they always did.
    """
    global _current
    _current = request = StopRequest()
    try:
        yield request
    finally:
        _current = None


def watch_signals(name: str) -> None:
    """Take care of SIGINT and SIGTERM from here on, in a script whose `__name__` is `__main__`, else do nothing.

    Call it before all that takes long or starts threads, so before imports such as NumPy's. Signals that are ignored,
    as SIGINT is in a background job of a shell script, stay so; so does Python's KeyboardInterrupt where the system
    cannot wait for signals (macOS, Windows).
    """
    if name != "__main__" or not hasattr(signal, "sigwaitinfo"):
        return
    global _watched
    _watched = os.getpid()
    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminated)
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        threading.Thread(target=_wait_for_interrupts, name="interrupts", daemon=True).start()


def end_by(number: int) -> int:
    """The exit code of a program that a signal stopped: 128 + its number.

    After a Ctrl-C at a terminal, and after SIGINT under a shell, the process ends by SIGINT itself instead. Shells call
    that 130 too, but only then do they leave the loop that the program was started in.
    """
    if number == signal.SIGINT and (_by_key or _in_shell()):
        sys.stdout.flush()
        sys.stderr.flush()
        _remove_temporary()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        _die_by_interrupt()
    return 128 + number


def _wait_for_interrupts() -> None:
    while True:
        _received(signal.SIGINT, signal.sigwaitinfo({signal.SIGINT}).si_code == _FROM_TERMINAL)


def _terminated(number: int, _: object) -> None:
    if os.getpid() != _watched:  # a forked worker, which has no run of its own to end
        os._exit(128 + number)
    _received(number, False)


def _received(number: int, by_key: bool) -> None:
    global _by_key
    _by_key = by_key
    run = _current
    if run is not None and run.requested is not None and not by_key and time.monotonic() - run.since < _ONE_SIGNAL:
        return
    if run is not None and run.requested is None:
        run.requested, run.since = number, time.monotonic()
        _say(f"stopping where nothing is lost; {'Ctrl-C again' if by_key else 'a second signal'} stops at once")
        return
    _say("stopped at once; the same command goes on" if run else f"stopped by {signal.Signals(number).name}")
    if workers := sys.modules.get("multiprocessing"):
        for worker in workers.active_children():
            worker.kill()
    _remove_temporary()
    if number == signal.SIGINT and (by_key or _in_shell()):
        _die_by_interrupt()
    os._exit(128 + number)


def _say(line: str) -> None:
    """Write a line to standard error, past a progress bar if there may be one, and past Python's buffers and locks."""
    start = "\r\x1b[K" if os.isatty(2) else ""
    try:
        os.write(2, f"{start}{line}\n".encode())
    except OSError:  # standard error is closed: there is nobody to say it to
        return


def _remove_temporary() -> None:
    for path in list(TEMPORARY):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _in_shell() -> bool:
    """Whether a shell started this process. False where the system does not tell."""
    try:
        return Path(f"/proc/{os.getppid()}/comm").read_text().strip() in _SHELLS
    except OSError:
        return False


def _die_by_interrupt() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)
