"""Masks as closed rings without holes, as files of labels have them: holes and parts are joined by cuts of no width."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float64

    from maskprism.core.decoding import MaskPolygons

    Ring = Float64[np.ndarray, "V 2"]

_PAIRS_AT_ONCE = 1 << 20


def part_rings(polygons: MaskPolygons) -> list[Ring]:
    """Give one ring per part of a mask; a cut leads from its outline to each hole and back.

    By the even-odd rule, which pycocotools and OpenCV fill by, the ring encloses the part without its holes.
    """
    return [joined_rings([part.exterior, *part.holes]) for part in polygons.outlines]


def joined_rings(rings: Sequence[Ring]) -> Ring:
    """Join rings into one; cuts of no width lead from one to the next, between their nearest vertices.

    Raises
    ------
    ValueError
        For no rings.
    """
    first, *rest = rings
    joined = first
    for ring in rest:
        here, there = _nearest(joined, ring)
        turned = np.roll(ring, -there, axis=0)
        joined = np.concatenate([joined[: here + 1], turned, turned[:1], joined[here:]])
    return joined


def shrunk(ring: Ring, distance: float) -> Ring:
    """Move each vertex of an outline into the mask by a small distance, along the bisector of its edges.

    Parameters
    ----------
    ring
        An outline as `MaskPolygons` has it: the mask lies on the same side of exteriors and of holes.
    distance
        In pixels. At sharp corners a vertex moves by at most three times as much.
    """
    along = np.roll(ring, -1, axis=0) - ring
    lengths = np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-12)
    inward = np.stack([-along[:, 1], along[:, 0]], axis=1) / lengths[:, None]
    bisector = inward + np.roll(inward, 1, axis=0)
    squares = np.maximum((bisector**2).sum(axis=1), 0.5)
    return ring + 2 * distance * bisector / squares[:, None]


def _nearest(a: Ring, b: Ring) -> tuple[int, int]:
    """Return the vertices of two rings that are nearest to each other; some rows at a time, to bound memory."""
    step = max(_PAIRS_AT_ONCE // len(b), 1)
    best, found = np.inf, (0, 0)
    for start in range(0, len(a), step):
        squares = ((a[start : start + step, None] - b[None]) ** 2).sum(axis=2)
        at = int(squares.argmin())
        if squares.flat[at] < best:
            best, found = float(squares.flat[at]), (start + at // len(b), at % len(b))
    return found
