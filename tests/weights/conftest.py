"""Fixtures: a small open_clip checkpoint and the converter."""

from tests.checkpoints import checkpoint, convert, model  # noqa: F401
