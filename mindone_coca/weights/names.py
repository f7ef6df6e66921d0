"""Whose names a weights file uses."""

from collections.abc import Collection

from mindone_coca.errors import InputError
from mindone_coca.model.families import FAMILIES
from mindone_coca.model.family import Family

HEAD = "head."  # begins the names of a task's own parameters, which are no CoCa's


def recognise(names: Collection[str], origin: str) -> tuple[Family, bool]:
    """The family whose weights these are, and whether they have our names (else the original's).

    Every checkpoint has the token embeddings; where several families call them alike, the one that knows most of the
    names is meant.

    Raises:
        InputError: no family's, or in several namings at once; `origin` is the file named in the message.
    """
    candidates = [
        (family, ours, {name for name in names if translate(name)})
        for family in FAMILIES
        for ours, marker, translate in (
            (False, family.marker, family.to_mindspore),
            (True, family.to_mindspore(family.marker), family.to_original),
        )
        if marker in names
    ]
    best = max(candidates, key=lambda candidate: len(candidate[2]), default=None)
    if best is None or any(known - best[2] for _, _, known in candidates):
        wrong = "several namings of" if candidates else "no"
        raise InputError(
            f"{origin}: not the weights of a CoCa model: it has {wrong} text.token_embedding "
            f"(first of {len(names)} entries: {', '.join(sorted(names)[:3]) or 'none'})"
        )
    return best[0], best[1]
