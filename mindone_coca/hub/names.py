"""What names a repository of a hub where a path could stand."""

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from mindone_coca.errors import InputError
from mindone_coca.hub.published import OPEN_CLIP, Published
from mindone_coca.typed_mapping import nearest

_REVISION = r"refs/(?:pr|convert)/[^/@]+|[^/@]+"
_NAME = re.compile(rf"([\w.-]+/[\w.-]+)(?:@({_REVISION}))?(?:/(.+))?", re.ASCII)


@dataclass(frozen=True)
class HubName:
    """A repository, or what is in it.

    Attributes:
        given: the name as it was written, for messages.
        repository: OWNER/NAME.
        revision: branch, tag or commit; None: the repository's main branch.
        file: a file or a folder in it, None for the whole.
        config: the packaged model config that open_clip goes by where the repository has none.
        hub: `hf`, huggingface.co or a mirror; `ms`, modelscope.cn.
    """

    given: str
    repository: str
    revision: str | None = None
    file: str | None = None
    config: str | None = None
    hub: str = "hf"


def hub_name(path: object) -> HubName | None:
    """Read a name: `hf:OWNER/NAME[@REVISION][/FILE]`, the same with `ms:`, or open_clip's name of a model and its
    weights such as `coca_ViT-L-14/mscoco_finetuned_laion2b_s13b_b90k`; None for anything else, and for what is there
    as a file.

    A slash within a revision is written %2F.

    Raises:
        InputError: it begins as such a name and is none.
    """
    if not isinstance(path, str | os.PathLike) or Path(path).exists():
        return None
    text = os.fspath(path)
    if not isinstance(text, str):
        return None
    hub, colon, rest = text.partition(":")
    if rest.startswith("//"):  # a URL
        return None
    if hub not in ("hf", "ms") or not colon:
        return _open_clip_name(text)
    found = _NAME.fullmatch(rest.rstrip("/"))
    if found is None or ".." in PurePosixPath(found[3] or "").parts:
        raise InputError(f"{text}: no name of a repository; write {hub}:OWNER/NAME[@REVISION][/FILE]")
    return HubName(text, found[1], found[2] and unquote(found[2]), found[3], hub=hub)


def _open_clip_name(text: str) -> HubName | None:
    model, _, tag = text.partition("/")
    known: dict[str, Published] = {weights.name.lower(): weights for weights in OPEN_CLIP}
    names = [name for name in known if name.startswith(f"{model.lower()}/")]
    if not names or not tag or Path(model).exists():
        return None
    name = f"{model}/{tag}".lower()
    if name not in known:
        written = [known[name].name for name in names]
        raise InputError(
            f"{text}: open_clip has no such weights{nearest(text, written) or '; there are ' + ' and '.join(written)}"
        )
    return HubName(text, known[name].repository, config=known[name].config)
