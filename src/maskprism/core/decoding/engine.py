"""Which implementation decodes: the extension in C where it was built, NumPy elsewhere."""

from __future__ import annotations

import os
from types import ModuleType
from typing import Literal

from maskprism.core.decoding import pure

Implementation = Literal["compiled", "pure"]
PURE = "MASKPRISM_PURE"
"""The environment variable that forces NumPy, at build time (nothing is compiled) and at run time."""


def forced_pure() -> bool:
    """Return whether the environment asks for NumPy: MASKPRISM_PURE is set to anything but 0."""
    return os.environ.get(PURE, "0") not in ("", "0")


def _choose() -> ModuleType:
    if forced_pure():
        return pure
    try:
        from maskprism.core.decoding import compiled
    except ImportError:  # no compiler when the package was built
        return pure
    return compiled


engine = _choose()


def implementation() -> Implementation:
    """Name the implementation in use: "compiled" or "pure".

    Returns
    -------
    str
        "compiled" for the extension in C. "pure" for NumPy, where there was no compiler when the package was built, or
        MASKPRISM_PURE=1.
    """
    return "pure" if engine is pure else "compiled"
