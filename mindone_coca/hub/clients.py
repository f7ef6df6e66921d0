"""The hubs that can be asked."""

from mindone_coca.hub import huggingface, modelscope
from mindone_coca.hub.names import HubName
from mindone_coca.hub.repository import Repository

_CLIENTS = {"hf": huggingface.open_repository, "ms": modelscope.open_repository}


def open_repository(name: HubName) -> Repository:
    """What is in a repository, by its hub, or where that cannot be asked by the cache.

    Raises:
        InputError: one line that says why not, and what to do.
    """
    return _CLIENTS[name.hub](name)
