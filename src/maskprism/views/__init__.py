"""Views: what there is to see of a prediction and of what is found about it.

What draws: `sheets` decides what a picture shows, `raster` draws a sheet as an array (fast, for files), `figures` as a
matplotlib figure (for notebooks); `charts`, `tables` and `palette` stand beside them. What hosts the viewer:
`viewer_payload` packs an image for it, `page`, `widget` and `server` show it. And a room for every room of
`maskprism.analysis`, with its pictures and files: `instance`, `prototypes`, `truth`, `dataset`, `networks`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from maskprism._common.lazy import lazy_submodules

if not TYPE_CHECKING:  # type checkers shall know the names that are here
    __getattr__, __dir__ = lazy_submodules(__name__)
