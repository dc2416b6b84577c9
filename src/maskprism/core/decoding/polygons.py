"""Polygons along the level of the threshold, from the grid logits and not from the staircase of a bitmap."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from maskprism.core.decoding.engine import engine
from maskprism.core.decoding.pure import plan_of
from maskprism.errors import InputError
from maskprism.masks import Patch

if TYPE_CHECKING:
    from jaxtyping import Bool, Float32, Float64, Int64

    from maskprism.core.decoding.job import DecodeJob
    from maskprism.core.decoding.pure import Plan

    Ring = Float64[np.ndarray, "V 2"]

_BEND = 0.04
"""In pixels of the frame: a segment that misses the curve by more gets a vertex in its middle."""
_ROUNDS = 3


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
    from dataclasses import replace

    rows = slice(index, index + 1)
    return replace(job, weights=job.weights[rows], boxes=None if job.boxes is None else job.boxes[rows])


def polygons_of(job: DecodeJob, tolerance: float = 0.0) -> list[MaskPolygons]:
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
        outlines = _traced(logits, window, plan, job.rule.threshold, tolerance) if logits.size else []
        found.append(MaskPolygons(outlines, job.size_hw, job, index))
    return found


@dataclass(frozen=True, eq=False)
class _Lines:
    """One axis of the field: lines at pixel coordinates, each between two samples; the field is bilinear between lines."""

    at: Float64[np.ndarray, " L"]
    low: Int64[np.ndarray, " L"]
    fraction: Float64[np.ndarray, " L"]


def _lines(plan: Plan, axis: int, start: int, stop: int, first: int, last: int) -> _Lines:
    """Lines at the borders of the window start..stop and wherever a grid sample of first..last lies inside."""
    zoom_axis, resize = plan.zoom_yx[axis], plan.to_frame_yx[axis]
    zoom, shift = zoom_axis.target // zoom_axis.source, plan.start_yx[axis]
    scale = resize.source / resize.target
    samples = np.arange(first, last)
    at_samples = ((samples + 0.5) * zoom - shift) / scale
    ends = (0.5 / scale, (resize.source - 0.5) / scale)  # beyond the centres of the outermost samples nothing changes
    inner = at_samples[(at_samples > ends[0]) & (at_samples < ends[1])]
    lines = np.unique(np.concatenate([[start, stop], inner[(inner > start) & (inner < stop)], np.clip(ends, start, stop)]))
    lines = lines[np.concatenate([[True], np.diff(lines) > 1e-9])]
    places = (np.clip(lines, *ends) * scale + shift) / zoom - 0.5
    places = np.clip(places, first, last - 1)
    nearest = np.rint(places)
    places = np.where(np.abs(places - nearest) < 1e-9, nearest, places)
    low = np.minimum(places.astype(np.int64), max(last - 2, first))
    return _Lines(lines, low - first, places - low)


def _traced(
    logits: Float32[np.ndarray, "h w"], window: list[int], plan: Plan, threshold: float, tolerance: float
) -> list[Outline]:
    import contourpy

    y0, y1, x0, x1, top, bottom, left, right = window
    rows, columns = _lines(plan, 0, y0, y1, top, bottom), _lines(plan, 1, x0, x1, left, right)
    field = logits.astype(np.float64) - threshold
    unknown = not np.isfinite(field).all()
    with np.errstate(invalid="ignore"):
        field = _mixed(_mixed(field.T, columns).T, rows)
    if not (field > 0).any():
        return []
    z = np.ma.masked_invalid(field) if unknown else field  # pixels that read NaN or infinity belong to no mask
    generator = contourpy.contour_generator(
        columns.at, rows.at, z, name="serial", corner_mask=False, fill_type=contourpy.FillType.OuterOffset
    )
    points, offsets = generator.filled(0.0, np.inf)
    outlines = []
    for vertices, bounds in zip(points, offsets, strict=True):
        rings = []
        for first, last in zip(bounds[:-1], bounds[1:], strict=True):
            ring = _bent(vertices[first : last - 1], field, rows, columns)
            rings.append(_simplified(ring, tolerance) if tolerance else ring)
        if len(rings[0]) >= 3:
            outlines.append(Outline(rings[0], [ring for ring in rings[1:] if len(ring) >= 3]))
    return outlines


def _mixed(values: Float64[np.ndarray, "h w"], lines: _Lines) -> Float64[np.ndarray, "L w"]:
    low, high = values[lines.low], values[np.minimum(lines.low + 1, len(values) - 1)]
    fraction = lines.fraction[:, None]
    mixed = low + fraction * (high - low)
    return np.where(fraction == 1, high, np.where(fraction == 0, low, mixed)) if np.isfinite(values).all() else mixed


def _bent(ring: Ring, field: Float64[np.ndarray, "R C"], rows: _Lines, columns: _Lines) -> Ring:
    """Add vertices where the level inside a cell, a hyperbola, leaves the segment between two vertices."""
    ring = np.asarray(ring, dtype=np.float64)
    for _ in range(_ROUNDS):
        following = np.roll(ring, -1, axis=0)
        middle, along = (ring + following) / 2, following - ring
        length = np.hypot(along[:, 0], along[:, 1])
        shift = _to_level(middle, along, length, field, rows, columns)
        bends = np.flatnonzero(np.abs(shift) * length > _BEND)
        if not len(bends):
            break
        normal = np.stack([-along[:, 1], along[:, 0]], axis=1)
        ring = np.insert(ring, bends + 1, (middle + shift[:, None] * normal)[bends], axis=0)
    return ring


def _to_level(
    middle: Ring,
    along: Ring,
    length: Float64[np.ndarray, " V"],
    field: Float64[np.ndarray, "R C"],
    rows: _Lines,
    columns: _Lines,
) -> Float64[np.ndarray, " V"]:
    """How far along the normals of segments the level lies from their middles, in lengths; 0 where not in the cell."""
    column = np.clip(np.searchsorted(columns.at, middle[:, 0], side="right") - 1, 0, max(len(columns.at) - 2, 0))
    row = np.clip(np.searchsorted(rows.at, middle[:, 1], side="right") - 1, 0, max(len(rows.at) - 2, 0))
    a, b = field[row, column], field[row, column + 1]
    c, d = field[row + 1, column], field[row + 1, column + 1]
    wide, high = columns.at[column + 1] - columns.at[column], rows.at[row + 1] - rows.at[row]
    u, v = (middle[:, 0] - columns.at[column]) / wide, (middle[:, 1] - rows.at[row]) / high
    p, q = -along[:, 1] / wide, along[:, 0] / high  # the normal, in cells
    twist = a - b - c + d
    with np.errstate(all="ignore"):
        constant = a + u * (b - a) + v * (c - a) + u * v * twist
        linear = p * (b - a) + q * (c - a) + (u * q + v * p) * twist
        square = p * q * twist
        root = np.sqrt(linear * linear - 4 * square * constant)
        shift = -2 * constant / (linear + np.copysign(root, linear))
        inside = (np.abs(u + shift * p - 0.5) <= 0.5) & (np.abs(v + shift * q - 0.5) <= 0.5)
    # segments on the borders of the window, and lines of the field itself, are straight
    straight = (length == 0) | ((along[:, 0] == 0) & np.isin(middle[:, 0], columns.at[[0, -1]]))
    straight |= (along[:, 1] == 0) & np.isin(middle[:, 1], rows.at[[0, -1]])
    return np.where(inside & ~straight & np.isfinite(shift), shift, 0.0)


def _simplified(ring: Ring, tolerance: float) -> Ring:
    """Douglas and Peucker's simplification, in single precision around the ring's own corner."""
    import cv2

    corner = ring.min(axis=0)
    kept = cv2.approxPolyDP((ring - corner).astype(np.float32)[:, None], tolerance, True)
    return kept[:, 0].astype(np.float64) + corner


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
