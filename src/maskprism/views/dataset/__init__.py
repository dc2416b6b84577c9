"""Where a network loses mask AP: the report of `analysis.dataset`.

`files` writes everything, `report` is the page that explains itself, `charts` are its figures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from maskprism._common.lazy import lazy_submodules

if not TYPE_CHECKING:  # type checkers shall know the names that are here
    __getattr__, __dir__ = lazy_submodules(__name__)
