"""The packages of the extra `atlas`."""

from __future__ import annotations

from importlib.util import find_spec

from maskprism.errors import MaskprismError


def installed() -> bool:
    """Whether the atlas can be made."""
    return find_spec("sklearn") is not None and find_spec("scipy") is not None


def scikit_learn() -> None:
    """Says what is not installed. Raises MaskprismError."""
    if not installed():
        raise MaskprismError("the atlas needs scikit-learn; install it with: pip install 'maskprism[atlas]'")


def umap() -> None:
    """Says what is not installed. Raises MaskprismError."""
    if find_spec("umap") is None:
        raise MaskprismError("this map needs umap-learn; install it with: pip install 'maskprism[umap]'")
