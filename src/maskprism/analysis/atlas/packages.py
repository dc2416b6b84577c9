"""The packages of the extra `atlas`."""

from __future__ import annotations

from importlib.util import find_spec

from maskprism.errors import MaskprismError


def scikit_learn() -> None:
    """Says what is not installed. Raises MaskprismError."""
    if find_spec("sklearn") is None or find_spec("scipy") is None:
        raise MaskprismError("the atlas needs scikit-learn; install it with: pip install 'maskprism[atlas]'")


def umap() -> None:
    """Says what is not installed. Raises MaskprismError."""
    if find_spec("umap") is None:
        raise MaskprismError("this map needs umap-learn; install it with: pip install 'maskprism[umap]'")
