"""Captions by beam search and sampling over a compiled, cached decoder."""
