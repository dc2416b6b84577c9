"""Why a mask is as it is: the pictures and tables of `analysis.instance`.

`explain` writes all of them for an image, `roles` draws what each prototype does, `attribution` what decides a pixel or
a region, `tables` has the same as rows of text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from maskprism._common.lazy import lazy_submodules

if not TYPE_CHECKING:  # type checkers shall know the names that are here
    __getattr__, __dir__ = lazy_submodules(__name__)
