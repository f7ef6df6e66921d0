"""Runs of the command-line tools within the tests' process."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

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
