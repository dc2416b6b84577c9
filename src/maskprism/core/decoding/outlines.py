"""Polygons along the level of the threshold, from the grid logits and not from the staircase of a bitmap."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from maskprism.core.decoding.engine import engine
from maskprism.core.decoding.pure import Span, plan_of
from maskprism.core.masks import Patch
from maskprism.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float32, Float64, Int64

    from maskprism.core.decoding.job import DecodeJob
    from maskprism.core.decoding.pure import Axis, Plan

    Ring = Float64[np.ndarray, "V 2"]

_BEND = 0.1
"""In pixels of the frame: a segment that misses the curve by more gets a vertex in its middle."""
TOLERANCE = 0.1
"""In pixels of the frame: how far outlines may move by default, which saves a third of the vertices."""


class Outline(NamedTuple):
    """One part of a mask: rings of x, y in pixels, where pixel i covers i to i + 1; the last vertex is not repeated."""

    exterior: Ring
    holes: list[Ring]


@dataclass(frozen=True, eq=False)
class MaskPolygons:
    """A mask as outlines: parts, each with its holes.

    Parameters
    ----------
    outlines
        Parts of the mask.
    size_hw
        (height, width) of the frame of the coordinates.
    """

    outlines: list[Outline]
    size_hw: tuple[int, int]
    _job: DecodeJob
    _index: int

    @property
    def n_vertices(self) -> int:
        """Vertices of all rings together."""
        return sum(len(ring) for ring in self._rings)

    @property
    def area(self) -> float:
        """Pixels of the frame inside the outlines, holes subtracted."""
        return float(sum(_area(part.exterior) - sum(map(_area, part.holes)) for part in self.outlines))

    @property
    def _rings(self) -> list[Ring]:
        return [ring for part in self.outlines for ring in (part.exterior, *part.holes)]

    def rasterise(self) -> Patch:
        """Draw the pixels whose centres lie inside, in the window that the mask can touch."""
        y0, y1, x0, x1 = self._window
        return Patch(slice(y0, y1), slice(x0, x1), rasterised(self._rings, y0, y1, x0, x1))

    @cached_property
    def _window(self) -> tuple[int, int, int, int]:
        y0, y1, x0, x1 = engine.windows(_alone(self._job, self._index))[0, :4].tolist()
        return y0, y1, x0, x1

    def iou(self) -> float:
        """Intersection over union of the outlines' pixels with the mask under the rule; 1 where both are empty."""
        drawn = self.rasterise().values
        mask = np.zeros(drawn.shape, dtype=np.uint8)
        width = np.array([drawn.shape[1]], dtype=np.int64)
        engine.fill(_alone(self._job, self._index), mask, np.zeros(1, dtype=np.int64), width, "bitmap")
        union = np.count_nonzero(drawn | mask.view(np.bool_))
        return float(np.count_nonzero(drawn & mask.view(np.bool_)) / union) if union else 1.0


def _alone(job: DecodeJob, index: int) -> DecodeJob:
    rows = slice(index, index + 1)
    return replace(job, weights=job.weights[rows], boxes=None if job.boxes is None else job.boxes[rows])


def polygons_of(job: DecodeJob, tolerance: float = TOLERANCE) -> list[MaskPolygons]:
    """Trace each mask of a job.

    Raises
    ------
    InputError
        For a tolerance that is negative or not finite.
    """
    if not (np.isfinite(tolerance) and tolerance >= 0):
        raise InputError(f"tolerance is {tolerance!r}; expected pixels, 0 or more")
    windows = engine.windows(job).astype(np.int64)
    heights, widths = windows[:, 5] - windows[:, 4], windows[:, 7] - windows[:, 6]
    ends = np.cumsum(heights * widths)
    values = np.zeros(int(ends[-1]) if len(ends) else 0, dtype=np.float32)
    engine.fill(job, values, ends - heights * widths, widths, "grid")
    plan = plan_of(job.letterbox, job.size, job.rule.unpad)
    found = []
    for index, (window, end) in enumerate(zip(windows.tolist(), ends.tolist(), strict=True)):
        height, width = window[5] - window[4], window[7] - window[6]
        logits = values[end - height * width : end].reshape(height, width)
        with np.errstate(all="ignore"):  # NaN and infinity are left out below
            outlines = _traced(logits, window, plan, job.rule.threshold, tolerance) if logits.size else []
        found.append(MaskPolygons(outlines, job.size_hw, job, index))
    return found


@dataclass(frozen=True, eq=False)
class _Lines:
    """One axis of the field, in lines at pixel coordinates, between which it is bilinear.

    Line i lies at the sample low[i]; the two at the borders lie a fraction behind it.
    """

    at: Float64[np.ndarray, " L"]
    low: Int64[np.ndarray, " L"]
    border_fractions: Float64[np.ndarray, " 2"]


def _lines(resize: Axis, window: Span, samples: Span) -> _Lines:
    """Lines at the borders of a window of pixels, and wherever a sample lies inside."""
    scale = resize.source / resize.target
    at = (np.arange(max(samples.start, 0), samples.stop) + 0.5) / scale
    at = at[(at > window.start + 1e-9) & (at < window.stop - 1e-9)]
    lines = np.concatenate([[window.start], at, [window.stop]])
    places = np.clip(lines * scale - 0.5, samples.start, samples.stop - 1) - samples.start
    low = places.astype(np.int64)
    low[1:-1] = np.rint(places[1:-1])
    return _Lines(lines, low, places[[0, -1]] - low[[0, -1]])


def _traced(
    logits: Float32[np.ndarray, "h w"], window: list[int], plan: Plan, threshold: float, tolerance: float
) -> list[Outline]:
    import contourpy

    y0, y1, x0, x1, top, _, left, _ = window
    pixels, cells = (Span(y0, y1), Span(x0, x1)), (top, left)
    lines, field = [], logits
    for axis in (1, 0):
        resize, start = plan.to_frame_yx[axis], plan.start_yx[axis]
        samples = resize.read_by(pixels[axis])
        field = plan.zoom_yx[axis].resize(field, samples.shifted(start), cells[axis], axis)
        lines.append(_lines(resize, pixels[axis], samples))
    columns, rows = lines
    level = _mixed(_mixed(field.T.astype(np.float64) - threshold, columns).T, rows)
    if not (level > 0).any():
        return []
    # Pixels that read NaN or infinity belong to no mask.
    known = np.isfinite(level)
    x, y = np.meshgrid(columns.at, rows.at)
    generator = contourpy.SerialContourGenerator(  # the function that makes one takes a quarter of the time of all this
        x,
        y,
        np.where(known, level, 0),
        cast("Any", None if known.all() else ~known),
        corner_mask=False,
        line_type=contourpy.LineType.Separate,
        fill_type=contourpy.FillType.ChunkCombinedOffsetOffset,
        quad_as_tri=False,
        z_interp=contourpy.ZInterp.Linear,
        x_chunk_size=0,
        y_chunk_size=0,
    )
    (vertices,), (bounds,), (parts,) = cast("Any", generator.filled(0.0, np.inf))
    if vertices is None:  # every cell with a pixel above the level reads NaN
        return []
    rings = _bent(vertices, bounds.astype(np.int64), level, rows, columns)
    if tolerance:
        rings = [_simplified(ring, tolerance) for ring in rings]
    outlines = []
    for first, last in itertools.pairwise(parts.tolist()):
        exterior, *holes = rings[first:last]
        if len(exterior) >= 3:
            outlines.append(Outline(exterior, [hole for hole in holes if len(hole) >= 3]))
    return outlines


def _mixed(values: Float64[np.ndarray, "h w"], lines: _Lines) -> Float64[np.ndarray, "L w"]:
    mixed = values[lines.low]
    for border, fraction in zip((0, -1), lines.border_fractions.tolist(), strict=True):
        if fraction > 0:
            mixed[border] += fraction * (values[lines.low[border] + 1] - mixed[border])
    return mixed


def _bent(
    vertices: Ring, bounds: Int64[np.ndarray, " B"], field: Float64[np.ndarray, "R C"], rows: _Lines, columns: _Lines
) -> list[Ring]:
    """Add vertices where the level inside a cell, a hyperbola, leaves the segment between two vertices.

    `bounds` says where the closed rings begin; in the result, no vertex is repeated.
    """
    start, stop = vertices[:-1], vertices[1:]
    middle, along = (start + stop) / 2, stop - start
    shift = _to_level(middle, along, field, rows, columns)
    shift[bounds[1:-1] - 1] = 0  # from one ring to the next
    bends = np.flatnonzero(np.abs(shift) * np.hypot(along[:, 0], along[:, 1]) > _BEND)
    normal = np.stack([-along[bends, 1], along[bends, 0]], axis=1)
    at = np.arange(len(vertices))  # as np.insert does, in half the time
    at += np.searchsorted(bends, at)
    bent = np.empty((len(vertices) + len(bends), 2))
    bent[at] = vertices
    bent[at[bends] + 1] = middle[bends] + shift[bends, None] * normal
    bounds = bounds + np.searchsorted(bends + 1, bounds)
    return [bent[first : last - 1] for first, last in itertools.pairwise(bounds.tolist())]


def _to_level(
    middle: Ring, along: Ring, field: Float64[np.ndarray, "R C"], rows: _Lines, columns: _Lines
) -> Float64[np.ndarray, " V"]:
    """Return how far along the normals of segments the level lies from their middles, in lengths.

    0 where not in the cell.
    """
    column = np.searchsorted(columns.at[1:-1], middle[:, 0], side="right")
    row = np.searchsorted(rows.at[1:-1], middle[:, 1], side="right")
    flat, first = field.ravel(), row * field.shape[1] + column
    a, b, c, d = flat[first], flat[first + 1], flat[first + field.shape[1]], flat[first + field.shape[1] + 1]
    wide, high = columns.at[column + 1] - columns.at[column], rows.at[row + 1] - rows.at[row]
    u, v = (middle[:, 0] - columns.at[column]) / wide, (middle[:, 1] - rows.at[row]) / high
    p, q = -along[:, 1] / wide, along[:, 0] / high  # the normal, in cells
    right, down = b - a, c - a
    twist = d - b - down
    constant = a + u * right + v * (down + u * twist)
    linear = p * right + q * down + (u * q + v * p) * twist
    root = np.sqrt(linear * linear - 4 * p * q * twist * constant)
    shift = -2 * constant / (linear + np.copysign(root, linear))
    inside = (np.abs(u + shift * p - 0.5) <= 0.5) & (np.abs(v + shift * q - 0.5) <= 0.5)
    x, y = middle.T
    on_border = (along[:, 0] == 0) & ((x == columns.at[0]) | (x == columns.at[-1]))
    on_border |= (along[:, 1] == 0) & ((y == rows.at[0]) | (y == rows.at[-1]))
    return np.where(inside & ~on_border, shift, 0.0)


def _simplified(ring: Ring, tolerance: float) -> Ring:
    """Douglas and Peucker's simplification, in single precision around the ring's first vertex."""
    import cv2

    kept = cv2.approxPolyDP((ring - ring[0]).astype(np.float32)[:, None], tolerance, True)
    return kept[:, 0] + ring[0]


def _area(ring: Ring) -> float:
    x, y = (ring - ring[0]).T
    return abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2


def rasterised(rings: list[Ring], y0: int, y1: int, x0: int, x1: int) -> Bool[np.ndarray, "rows columns"]:
    """Draw the pixels of a window whose centres lie inside rings, by the even-odd rule."""
    changes = np.zeros((y1 - y0, x1 - x0 + 1), dtype=np.int32)
    for ring in rings:
        start, stop = ring - (x0 + 0.5, y0 + 0.5), np.roll(ring, -1, axis=0) - (x0 + 0.5, y0 + 0.5)
        down = start[:, 1] <= stop[:, 1]
        upper, lower = np.where(down[:, None], start, stop), np.where(down[:, None], stop, start)
        first = np.clip(np.ceil(upper[:, 1]), 0, y1 - y0).astype(np.int64)
        counts = np.maximum(np.clip(np.ceil(lower[:, 1]), 0, y1 - y0).astype(np.int64) - first, 0)
        edge = np.repeat(np.arange(len(ring)), counts)
        row = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
        slope = (lower[edge, 0] - upper[edge, 0]) / (lower[edge, 1] - upper[edge, 1])
        column = np.ceil(upper[edge, 0] + (row - upper[edge, 1]) * slope)
        np.add.at(changes, (row, np.clip(column, 0, x1 - x0).astype(np.int64)), 1)
    return (np.cumsum(changes[:, :-1], axis=1) % 2).astype(np.bool_)
