"""Mistakes of annotators, made on purpose: the copies of labels that the suspicion score learns from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, get_args

import cv2
import numpy as np

from maskprism.analysis.truth.overlaps import Region

if TYPE_CHECKING:
    from jaxtyping import Bool

    Mask = Bool[np.ndarray, "H W"]

Corruption = Literal[
    "shifted", "too large", "too small", "cut off", "merged", "coarse", "filled box", "hole", "spurious"
]
CORRUPTIONS: tuple[Corruption, ...] = get_args(Corruption)
MIN_PIXELS = 30
"""Masks of fewer pixels of the letterboxed input are too small to distinguish from their corrupted copies."""


def corrupt(
    label: Region,
    kind: Corruption,
    neighbours: Sequence[Region],
    content: tuple[slice, slice],
    rng: np.random.Generator,
) -> Region | None:
    """Make one mistake in a label.

    Parameters
    ----------
    label
        The mask, in pixels of the letterboxed input.
    kind
        Which mistake: one of CORRUPTIONS.
    neighbours
        The other labels of the image; only "merged" needs them.
    content
        Rows and columns of the letterboxed input that the image fills; masks end there.
    rng
        Draws the size and the direction of the mistake.

    Returns
    -------
    Region or None
        The wrong mask; None where this mistake cannot be made, or changes nothing.
    """
    if label.area < MIN_PIXELS:
        return None
    if kind == "merged":
        near = _nearest(label, neighbours)
        wrong = None if near is None else _united(label, near)
    else:
        margin = int(np.ceil(_diagonal(label))) + 2
        padded = Region(
            slice(label.rows.start - margin, label.rows.stop + margin),
            slice(label.columns.start - margin, label.columns.stop + margin),
            np.pad(label.inside, margin),
        )
        wrong = Region(padded.rows, padded.columns, _MISTAKES[kind](padded.inside, _diagonal(label), rng))
    if wrong is None:
        return None
    wrong = _within(wrong, content)
    changed = wrong.area != label.area or wrong.shared_with(label) != label.area
    return wrong if wrong.area >= MIN_PIXELS and changed else None


def jittered(label: Region, content: tuple[slice, slice], rng: np.random.Generator) -> Region | None:
    """Draw a label again, not quite alike: the other one of a pair of duplicates; None where nothing is left of it."""
    distance = max(1, round(0.03 * _diagonal(label)))
    down, right = rng.integers(-distance, distance + 1, 2).tolist()
    moved = Region(
        slice(label.rows.start + down, label.rows.stop + down),
        slice(label.columns.start + right, label.columns.stop + right),
        label.inside,
    )
    moved = _within(moved, content)
    return moved if moved.area else None


def halves(label: Region, rng: np.random.Generator) -> tuple[Region, Region] | None:
    """Cut a label into two along a straight line; None where a part would have fewer than MIN_PIXELS pixels."""
    if label.area < 2 * MIN_PIXELS:
        return None
    kept = _cut(label.inside, _diagonal(label), rng)
    whole = (slice(0, 1 << 30), slice(0, 1 << 30))
    first = _within(Region(label.rows, label.columns, kept), whole)
    second = _within(Region(label.rows, label.columns, label.inside & ~kept), whole)
    return (first, second) if min(first.area, second.area) >= MIN_PIXELS else None


def _diagonal(label: Region) -> float:
    return float(np.hypot(label.rows.stop - label.rows.start, label.columns.stop - label.columns.start))


def _nearest(label: Region, neighbours: Sequence[Region]) -> Region | None:
    def distance(other: Region) -> float:
        rows = (label.rows.start + label.rows.stop) - (other.rows.start + other.rows.stop)
        columns = (label.columns.start + label.columns.stop) - (other.columns.start + other.columns.stop)
        return float(np.hypot(rows, columns))

    return min((other for other in neighbours if other.area), key=distance, default=None)


def _united(first: Region, second: Region) -> Region:
    rows = slice(min(first.rows.start, second.rows.start), max(first.rows.stop, second.rows.stop))
    columns = slice(min(first.columns.start, second.columns.start), max(first.columns.stop, second.columns.stop))
    both = np.zeros((rows.stop - rows.start, columns.stop - columns.start), dtype=bool)
    for part in (first, second):
        both[
            part.rows.start - rows.start : part.rows.stop - rows.start,
            part.columns.start - columns.start : part.columns.stop - columns.start,
        ] |= part.inside
    return Region(rows, columns, both)


def _within(mask: Region, content: tuple[slice, slice]) -> Region:
    """The part of a mask inside the image, in the smallest window."""
    top, bottom = max(mask.rows.start, content[0].start), min(mask.rows.stop, content[0].stop)
    left, right = max(mask.columns.start, content[1].start), min(mask.columns.stop, content[1].stop)
    if top >= bottom or left >= right:
        return Region.of(np.zeros((1, 1), dtype=bool))
    inside = mask.inside[
        top - mask.rows.start : bottom - mask.rows.start, left - mask.columns.start : right - mask.columns.start
    ]
    tight = Region.of(inside)
    return Region(
        slice(tight.rows.start + top, tight.rows.stop + top),
        slice(tight.columns.start + left, tight.columns.stop + left),
        tight.inside,
    )


def _moved(mask: Mask, diagonal: float, rng: np.random.Generator, shares: tuple[float, float]) -> Mask:
    angle, length = rng.uniform(0, 2 * np.pi), diagonal * rng.uniform(*shares)
    matrix = np.array([[1, 0, length * np.cos(angle)], [0, 1, length * np.sin(angle)]], dtype=np.float32)
    return cv2.warpAffine(mask.astype(np.uint8), matrix, mask.shape[::-1], flags=cv2.INTER_NEAREST) > 0


def _shifted(mask: Mask, diagonal: float, rng: np.random.Generator) -> Mask:
    return _moved(mask, diagonal, rng, (0.08, 0.18))


def _spurious(mask: Mask, diagonal: float, rng: np.random.Generator) -> Mask:
    return _moved(mask, diagonal, rng, (0.3, 0.9))


def _radius(diagonal: float, rng: np.random.Generator) -> float:
    return max(1, round(diagonal * rng.uniform(0.04, 0.09)))


def _grown(mask: Mask, diagonal: float, rng: np.random.Generator) -> Mask:
    return cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5) <= _radius(diagonal, rng)


def _shrunk(mask: Mask, diagonal: float, rng: np.random.Generator) -> Mask:
    return cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5) > _radius(diagonal, rng)


def _cut(mask: Mask, diagonal: float, rng: np.random.Generator) -> Mask:
    """A part beyond a straight line is missing: along an axis, or in any direction."""
    rows, columns = np.nonzero(mask)
    angle = rng.uniform(0, 2 * np.pi) if rng.random() < 0.3 else rng.integers(4) * np.pi / 2
    along = columns * np.cos(angle) + rows * np.sin(angle)
    gone = along > np.quantile(along, rng.uniform(0.35, 0.7))
    left = mask.copy()
    left[rows[gone], columns[gone]] = False
    return left


def _coarse(mask: Mask, diagonal: float, rng: np.random.Generator) -> Mask:
    """The largest part as a polygon of four to seven corners."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    largest, corners = max(contours, key=cv2.contourArea), rng.integers(4, 8)
    low, high = 0.0, 0.3 * diagonal
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if len(cv2.approxPolyDP(largest, middle, True)) > corners else (low, middle)
    drawn = np.zeros(mask.shape, dtype=np.uint8)
    cv2.fillPoly(drawn, [cv2.approxPolyDP(largest, high, True)], 1)
    return drawn > 0


def _boxed(mask: Mask, diagonal: float, rng: np.random.Generator) -> Mask:
    tight, filled = Region.of(mask), np.zeros(mask.shape, dtype=bool)
    filled[tight.rows, tight.columns] = True
    return filled


def _with_hole(mask: Mask, diagonal: float, rng: np.random.Generator) -> Mask:
    depth = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 3)
    rows, columns = np.nonzero(depth >= 0.4 * depth.max())
    centre = rng.integers(len(rows))
    radius = max(1, round(np.sqrt(rng.uniform(0.08, 0.3) * np.count_nonzero(mask) / np.pi)))
    cut = mask.astype(np.uint8, order="C")  # OpenCV draws into such arrays alone; masks of RLE run down the columns
    cv2.circle(cut, (int(columns[centre]), int(rows[centre])), radius, 0, -1)
    return cut > 0


_MISTAKES: dict[Corruption, Callable[[Mask, float, np.random.Generator], Mask]] = {
    "shifted": _shifted,
    "too large": _grown,
    "too small": _shrunk,
    "cut off": _cut,
    "coarse": _coarse,
    "filled box": _boxed,
    "hole": _with_hole,
    "spurious": _spurious,
}
