"""A run's folder: it belongs to one run at a time."""

from pathlib import Path

from mindone_coca.distributed import Ranks
from mindone_coca.errors import InputError, OutputError
from mindone_coca.files import FolderLock, check_output

FIX = "choose another output.dir"


def claim_folder(folder: Path, ranks: Ranks) -> FolderLock | None:
    """Take the folder for this run, on all of its ranks: the main process holds the lock, the others get None.

    Raises InputError, on all ranks alike, when another run has the folder or it cannot be written.
    """
    taken = f"{folder}: another training is writing there; wait until it has ended, or {FIX}"
    lock, problem = None, None
    if ranks.is_main:
        try:
            check_output(folder, FIX)
            lock = FolderLock(folder, taken)
        except InputError as error:
            problem = error
    code = 0 if problem is None else 2 if isinstance(problem, OutputError) else 1
    code = ranks.highest(code)  # the others must not wait for a main process that ends
    if code:
        raise problem or InputError(taken if code == 1 else f"{folder}: cannot be written; {FIX}")
    return lock
