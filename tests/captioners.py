"""Runs of the command-line tools within the tests' process."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import mindone_coca
from mindone_coca import factory
from mindone_coca.captioning import captioner


@contextmanager
def shared_captioners() -> Iterator[None]:
    """Runs share a model for the same arguments: it compiles its graphs once."""
    built = {}

    def get(config, weights, *arguments, **options):
        key = (str(weights), arguments, tuple(options.items()))
        if key not in built:
            built[key] = build(config, weights, *arguments, **options)
        return built[key]

    build = captioner.VideoCaptioner
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(captioner, "VideoCaptioner", get)
        yield


@contextmanager
def shared_models() -> Iterator[None]:
    """Captioners of different options, and callers of `mindone_coca.create_model`, share a model for the same weights
    file: it compiles its graphs once."""
    built = {}

    def get(config, checkpoint_path, dtype=None):
        file = Path(checkpoint_path).resolve()
        key = (file, file.stat().st_mtime_ns, dtype)
        if key not in built:
            built[key] = build(config, checkpoint_path, dtype)
        return built[key]

    build = factory.create_model
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(captioner, "create_model", get)
        patch.setattr(mindone_coca, "create_model", get, raising=False)
        yield
