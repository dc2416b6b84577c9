"""The atlas of `analysis.atlas`: a page of statistics and a map of all instances.

`files` writes everything, `report` is the page of statistics with the figures of `charts`, `map_page` the map, of which
`map_data` has the points and `thumbnails` the small pictures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from maskprism._common.lazy import lazy_submodules

if not TYPE_CHECKING:  # type checkers shall know the names that are here
    __getattr__, __dir__ = lazy_submodules(__name__)
