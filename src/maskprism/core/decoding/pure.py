"""The decoder in NumPy, for where the extension was not built: the same bits, pixel after pixel.

Every pixel of a window is computed. The order of operations and their precision are those of `maskprism_decode.h`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from maskprism.core.decoding.job import compress, count_runs
from maskprism.core.masks import crop_window

if TYPE_CHECKING:
    from jaxtyping import Bool, Float32, Float64, Int32, Int64

    from maskprism.core.decoding.job import DecodeJob, Kind
    from maskprism.core.geometry import Letterbox, Size, Unpad

    Floats = Float32[np.ndarray, "..."]

_ORDER_OF_SERIES = 10


class Span(NamedTuple):
    """The samples or pixels start..stop - 1 of an axis."""

    start: int
    stop: int

    def shifted(self, by: int) -> Span:
        """Return the same span, counted from elsewhere."""
        return Span(self.start + by, self.stop + by)


EMPTY = Span(0, 0)


@dataclass(frozen=True, eq=False)
class Axis:
    """One axis of a bilinear resize: pixel i of `target` lies between the samples low[i] and high[i] of `source`.

    Pixel centres are aligned and ends repeated: pixel i lies at ((2 i + 1) source - target) / (2 target).
    """

    source: int
    target: int
    low: Int64[np.ndarray, " target"]
    high: Int64[np.ndarray, " target"]
    fraction: Float32[np.ndarray, " target"]

    @classmethod
    def between(cls, source: int, target: int) -> Axis:
        """Return the axis from `source` samples to `target` pixels."""
        place = (2 * np.arange(target, dtype=np.int64) + 1) * source - target
        clipped = np.clip(place, 0, 2 * target * (source - 1))
        low = clipped // (2 * target)
        high = np.where(place < 0, 0, np.minimum(low + 1, source - 1))
        return cls(source, target, low, high, (clipped % (2 * target) / (2 * target)).astype(np.float32))

    def read_by(self, pixels: Span) -> Span:
        """Return the samples that the pixels read."""
        last = pixels.stop - 1
        return Span(int(self.low[pixels.start]), int(max(self.low[last], self.high[last])) + 1)

    def touched(self, samples: Span) -> Span:
        """Return the pixels that depend on at least one of the samples."""
        first, stop = max(samples.start, 0), min(samples.stop, self.source)
        low = (first <= self.low) & (self.low < stop)
        high = (first <= self.high) & (self.high < stop) & (self.fraction > 0)
        pixels = np.flatnonzero(low | high)
        return Span(int(pixels[0]), int(pixels[-1]) + 1) if len(pixels) else EMPTY

    def resize(self, values: Floats, pixels: Span, first_sample: int, axis: int) -> Floats:
        """Values at the pixels of a span, from the samples from `first_sample` on along `axis`."""
        chosen = slice(*pixels)
        low = np.take(values, self.low[chosen] - first_sample, axis=axis)
        if self.source == self.target:
            return low
        high = np.take(values, self.high[chosen] - first_sample, axis=axis)
        fraction = self.fraction[chosen].astype(np.float64)
        step = high - low
        return ((fraction if axis else fraction[:, None]) * step + low).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Plan:
    """The axes from the grid to a frame: enlarged, cropped to the image, resized."""

    zoom_yx: tuple[Axis, Axis]
    start_yx: tuple[int, int]
    to_frame_yx: tuple[Axis, Axis]

    @property
    def resizes(self) -> bool:
        """Whether values are mixed on the way, and not only copied."""
        return any(axis.source != axis.target for axis in (*self.zoom_yx, *self.to_frame_yx))


@lru_cache(maxsize=32)
def plan_of(letterbox: Letterbox, size: Size, unpad: Unpad) -> Plan:
    """Return how the prototype grid becomes a frame; see `Letterbox.resample`."""
    unpad = unpad if letterbox.is_centred_fit else "whole"
    zoom = letterbox.whole_pixel_zoom() if size == "image" and unpad == "whole" else 1
    zooms, starts, axes = [], [], []
    for axis, (cells, pixels) in enumerate(zip(letterbox.grid_hw, letterbox.size_hw(size), strict=True)):
        content = letterbox.content_span(axis, zoom, unpad) if size == "image" else slice(0, cells)
        zooms.append(Axis.between(cells, cells * zoom))
        starts.append(content.start)
        axes.append(Axis.between(content.stop - content.start, pixels))
    return Plan((zooms[0], zooms[1]), (starts[0], starts[1]), (axes[0], axes[1]))


def sigmoid(values: Floats) -> Floats:
    """Return the logistic function, from a series in float64 whose steps round alike on every machine."""
    known = np.where(np.isnan(values), 0, values).astype(np.float64)
    x: Float64[np.ndarray, ...] = np.clip(known, -80, 80)
    n = np.floor(x * 1.4426950408889634 + 0.5)
    r = x - n * 0.6931471805599453
    p = 1.0 + r * (1.0 / _ORDER_OF_SERIES)
    for divisor in range(_ORDER_OF_SERIES - 1, 1, -1):
        p = 1.0 + r * p * (1.0 / divisor)
    e = np.ldexp(1.0, n.astype(np.int32)) * (1.0 + r * p)
    tanh = ((e - 1.0) / (e + 1.0)).astype(np.float32)
    return np.where(np.isnan(values), values, np.float32(0.5) * (np.float32(1) + tanh))


@dataclass(frozen=True, eq=False)
class Loaded:
    """The pixels that an instance can touch, the grid cells that they read and those that its crop leaves, per axis."""

    pixels_yx: tuple[Span, Span]
    enlarged_yx: tuple[Span, Span]
    cells_yx: tuple[Span, Span]
    kept_yx: tuple[Span, Span]


def _locate(job: DecodeJob, index: int) -> Loaded | None:
    """Return the windows of an instance; None where it has no pixel."""
    plan = plan_of(job.letterbox, job.size, job.rule.unpad)
    box = None if job.boxes is None else job.boxes[index]
    crop = "none" if box is None else job.crop
    windows = [Span(window.start, window.stop) for window in crop_window(box, job.letterbox, job.rule, crop, job.size)]
    kept = list(windows)
    if crop == "before" and all(window.start < window.stop for window in windows):
        for axis, (zoom, start, resize) in enumerate(zip(plan.zoom_yx, plan.start_yx, plan.to_frame_yx, strict=True)):
            windows[axis] = resize.touched(zoom.touched(windows[axis]).shifted(-start))
    if any(window.start >= window.stop for window in windows):
        return None
    enlarged = [
        resize.read_by(window).shifted(start)
        for resize, window, start in zip(plan.to_frame_yx, windows, plan.start_yx, strict=True)
    ]
    cells = [
        window if zoom.source == zoom.target else zoom.read_by(window)
        for zoom, window in zip(plan.zoom_yx, enlarged, strict=True)
    ]
    if crop != "before":
        kept = list(cells)
    kept = [Span(max(k.start, c.start), min(k.stop, c.stop)) for k, c in zip(kept, cells, strict=True)]
    return Loaded(_pair(windows), _pair(enlarged), _pair(cells), _pair(kept))


def _pair(spans: list[Span]) -> tuple[Span, Span]:
    return spans[0], spans[1]


def _grid_logits(job: DecodeJob, index: int, loaded: Loaded) -> Floats:
    rows, columns = loaded.cells_yx
    values = np.zeros((rows.stop - rows.start, columns.stop - columns.start), dtype=np.float32)
    kept_rows, kept_columns = loaded.kept_yx
    inner = values[
        kept_rows.start - rows.start : max(kept_rows.stop, kept_rows.start) - rows.start,
        kept_columns.start - columns.start : max(kept_columns.stop, kept_columns.start) - columns.start,
    ]
    for weight, prototype in zip(job.weights[index], job.prototypes, strict=True):
        cells = prototype[slice(*kept_rows), slice(*kept_columns)]
        if cells.dtype == np.int8:
            cells = (cells.astype(np.int32) - job.zero_point).astype(np.float32) * np.float32(job.scale)
        inner += weight * cells
    if job.rule.squash:
        inner[...] = sigmoid(inner)
    return values


def _resized(job: DecodeJob, index: int, loaded: Loaded) -> Floats:
    """Return what the rule compares with its threshold: rows are resized first, then columns, as cv2 does."""
    plan = plan_of(job.letterbox, job.size, job.rule.unpad)
    values = _grid_logits(job, index, loaded)
    for axis in (1, 0):
        values = plan.zoom_yx[axis].resize(values, loaded.enlarged_yx[axis], loaded.cells_yx[axis].start, axis)
    for axis in (1, 0):
        first = loaded.enlarged_yx[axis].start - plan.start_yx[axis]
        values = plan.to_frame_yx[axis].resize(values, loaded.pixels_yx[axis], first, axis)
    return values


def _above(job: DecodeJob, values: Floats) -> Bool[np.ndarray, "rows columns"]:
    above = values > job.rule.threshold
    if plan_of(job.letterbox, job.size, job.rule.unpad).resizes:
        above &= np.isfinite(values)  # between infinity and a number nothing is known
    return above


def windows(job: DecodeJob) -> Int32[np.ndarray, "N 8"]:
    """See `compiled.windows`."""
    found = np.zeros((len(job), 8), dtype=np.int32)
    for index in range(len(job)):
        if loaded := _locate(job, index):
            found[index] = np.ravel([*loaded.pixels_yx, *loaded.cells_yx])
    return found


def fill(
    job: DecodeJob,
    out: np.ndarray[Any, Any],
    offsets: Int64[np.ndarray, " N"],
    strides: Int64[np.ndarray, " N"],
    kind: Kind,
) -> None:
    """See `compiled.fill`."""
    flat = out.reshape(-1)
    with np.errstate(all="ignore"):
        for index in range(len(job)):
            loaded = _locate(job, index)
            if loaded is None:
                continue
            values = _grid_logits(job, index, loaded) if kind == "grid" else _resized(job, index, loaded)
            if kind == "bitmap":
                values = _above(job, values)
            elif kind == "soft" and not job.rule.squash:
                values = sigmoid(values)
            for row, line in enumerate(values):
                start = int(offsets[index]) + row * int(strides[index])
                flat[start : start + len(line)] = line


def _bitmap(job: DecodeJob, index: int) -> tuple[Loaded, Bool[np.ndarray, "rows columns"]] | None:
    loaded = _locate(job, index)
    if loaded is None:
        return None
    with np.errstate(all="ignore"):
        return loaded, _above(job, _resized(job, index, loaded))


def areas(job: DecodeJob) -> Int64[np.ndarray, " N"]:
    """See `compiled.areas`."""
    bitmaps = (_bitmap(job, index) for index in range(len(job)))
    return np.array([0 if found is None else np.count_nonzero(found[1]) for found in bitmaps], dtype=np.int64)


def encode(job: DecodeJob, *, compressed: bool) -> list[bytes]:
    """See `compiled.encode`."""
    encoded = []
    for index in range(len(job)):
        mask, corner = np.zeros((0, 0), dtype=bool), (0, 0)
        if (found := _bitmap(job, index)) is not None:
            loaded, mask = found
            (top, _), (left, _) = loaded.pixels_yx
            corner = (top, left)
        counts = count_runs(mask, corner, job.size_hw)
        encoded.append(compress(counts) if compressed else counts.astype(np.uint32).tobytes())
    return encoded
