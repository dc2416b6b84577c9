"""All instances of a table at once: what their coefficients say of classes, sizes, places, oddities and repetitions.

`points` reads any table; the other modules answer one question each; `atlas` asks them all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from maskprism._common.lazy import lazy_submodules

if not TYPE_CHECKING:  # type checkers shall know the names that are here
    __getattr__, __dir__ = lazy_submodules(__name__)
