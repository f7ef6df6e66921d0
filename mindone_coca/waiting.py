"""Work of several seconds says what it is, in one line, so that nobody takes it for a hang.

Nothing is said until `show` turns it on, as programs do; what does not take long says nothing. The lines are INFO
records of the logger `mindone_coca.waiting`.
"""

import logging
import threading
import time

from mindone_coca.progress import say

PATIENCE = 2.0  # seconds

log = logging.getLogger(__name__)


class Wait:
    """A context in which one kind of work is done. It may be entered many times: the patience is for all of them
    together, and its line is said once.

    Args:
        line: says what is done.
    """

    def __init__(self, line: str) -> None:
        self.line, self.patience = line, PATIENCE

    def __enter__(self) -> None:
        self._begun, self._timer = time.monotonic(), None
        if self.patience > 0 and log.isEnabledFor(logging.INFO):
            self._timer = threading.Timer(self.patience, log.info, (self.line,))
            self._timer.daemon = True
            self._timer.start()

    def __exit__(self, *_: object) -> None:
        self.patience -= time.monotonic() - self._begun
        if self._timer is not None:
            self._timer.cancel()


class _StandardError(logging.Handler):
    """Writes lines to standard error, as it is at that time, above a progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())


def show() -> None:
    """Let the lines of this process appear on standard error."""
    if not log.handlers:
        log.addHandler(_StandardError())
    log.setLevel(logging.INFO)
    log.propagate = False
