"""Captions from a model: beam search and sampling over a compiled, cached decoder."""

from mindone_coca.generation.generate import generate

__all__ = ["generate"]
