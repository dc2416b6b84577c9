"""What is measured of one label: agreement with detections, shape, neighbours, prototypes' span, and edges.

Masks are `Region`s of the letterboxed input. A label that no combination of the prototypes draws, or whose outline
runs where neither the prototypes nor the colours of the image have an edge, is suspicious even where the model missed
the object.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from maskprism.analysis.truth.best_coefficients import Cells, fit
from maskprism.analysis.truth.overlaps import Region, regions
from maskprism.core.decoding import decode
from maskprism.core.geometry import box_iou

if TYPE_CHECKING:
    from jaxtyping import Bool, Float32, UInt8

    from maskprism.core.prediction import Prediction

MIN_SCORE = 0.05
"""Detections from this score on are looked at; a model for this is loaded with it."""
_RIDGE = 1e-2
_FIT_CELLS = 1200
"""A window of more cells is thinned for the fit."""
_MARGIN = 0.25
_BANDS = (-6.0, -4.0, -2.5, -1.0, 1.0, 2.5, 4.0, 6.0)
"""Ends of bands of distances to the outline in cells of the prototype grid, negative outside."""
_OUTLINE = 3
"""The band of the outline itself."""
_NO_DETECTION = dict.fromkeys(
    (
        "mask_iou",
        "box_iou",
        "score",
        "mask_iou_of_class",
        "box_iou_of_class",
        "score_of_class",
        "score_of_other_class",
        "missing_share",
        "extra_share",
        "log_area_ratio",
        "log_width_ratio",
        "log_height_ratio",
        "largest_cover",
        "detections_inside",
        "second_inside",
        "score_times_iou",
        "score_times_box_iou",
    ),
    0.0,
) | {"centre_distance": 1.0}


@dataclass(frozen=True, eq=False)
class ImageEvidence:
    """What one image tells about any label on it.

    Attributes
    ----------
    prediction
        Its detections from MIN_SCORE on, and the prototypes.
    image
        The image, HWC uint8 in BGR.
    """

    prediction: Prediction
    image: UInt8[np.ndarray, "H W 3"]

    @property
    def content(self) -> tuple[slice, slice]:
        """Rows and columns of the letterboxed input that the image fills, to whole cells."""
        (rows, columns), (high, wide) = self.prediction.letterbox.content_cells, self.cell_hw
        return slice(rows.start * high, rows.stop * high), slice(columns.start * wide, columns.stop * wide)

    @property
    def cell_hw(self) -> tuple[int, int]:
        """Height and width of a cell of the prototype grid, in pixels of the letterboxed input."""
        letterbox = self.prediction.letterbox
        return (
            max(letterbox.canvas_hw[0] // letterbox.grid_hw[0], 1),
            max(letterbox.canvas_hw[1] // letterbox.grid_hw[1], 1),
        )

    @cached_property
    def masks(self) -> list[Region]:
        """The detections' masks."""
        return list(regions(self.prediction, "canvas"))

    @cached_property
    def areas(self) -> np.ndarray:
        """Their areas."""
        return np.array([mask.area for mask in self.masks], dtype=np.float64)

    def overlaps(self, label: Region) -> np.ndarray:
        """IoU of each detection's mask with a label."""
        shared = np.array([mask.shared_with(label) for mask in self.masks], dtype=np.float64)
        return shared / np.maximum(self.areas + label.area - shared, 1)

    @cached_property
    def prototypes(self) -> Float32[np.ndarray, "K h w"]:
        """The prototypes, each with mean 0 and standard deviation 1 over the image."""
        rows, columns = self.prediction.letterbox.content_cells
        inside = self.prediction.prototypes[:, rows, columns]
        mean, spread = inside.mean(axis=(1, 2), keepdims=True), inside.std(axis=(1, 2), keepdims=True)
        return ((self.prediction.prototypes - mean) / (spread + 1e-6)).astype(np.float32)

    @cached_property
    def prototype_edges(self) -> Float32[np.ndarray, "h w"]:
        """Root mean square of the prototypes' gradients."""
        return _edges(self.prototypes)

    @cached_property
    def colours(self) -> Float32[np.ndarray, "3 h w"]:
        """The image in CIE Lab, at twice the resolution of the grid."""
        rows, columns = self.prediction.letterbox.content_cells
        height, width = self.prediction.letterbox.grid_hw
        size = (2 * (columns.stop - columns.start), 2 * (rows.stop - rows.start))
        small = cv2.resize(self.image, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        lab = cv2.GaussianBlur(cv2.cvtColor(small, cv2.COLOR_BGR2LAB), (0, 0), 1.0)
        whole = np.zeros((2 * height, 2 * width, 3), dtype=np.float32)
        whole[2 * rows.start : 2 * rows.stop, 2 * columns.start : 2 * columns.stop] = lab
        return np.ascontiguousarray(whole.transpose(2, 0, 1))

    @cached_property
    def grid_colours(self) -> Float32[np.ndarray, "3 h w"]:
        """The image in CIE Lab, at the resolution of the grid."""
        return self.colours.reshape(3, self.colours.shape[1] // 2, 2, -1, 2).mean(axis=(2, 4))

    @cached_property
    def colour_edges(self) -> Float32[np.ndarray, "h w"]:
        """Gradients of the colours, at the resolution of the grid."""
        edges = _edges(self.colours)
        return edges.reshape(edges.shape[0] // 2, 2, -1, 2).mean(axis=(1, 3))


def label_features(
    evidence: ImageEvidence, label: Region, class_id: int, neighbours: Sequence[Region]
) -> dict[str, float]:
    """Measure one label.

    Parameters
    ----------
    evidence
        Of its image.
    label
        Its mask, not empty, in pixels of the letterboxed input.
    class_id
        Its class.
    neighbours
        The masks of the other labels of the image.

    Returns
    -------
    dict
        Values by name; NaN for what cannot be measured on this label. The names are the same for all labels.
    """
    window = _Window.around(evidence, label)
    return {
        **_agreement(evidence, label, class_id),
        **_shape(label, evidence.content),
        **_overlap(label, neighbours),
        **_span(window),
        **_outlines(evidence, window),
    }


def outline_features(evidence: ImageEvidence, label: Region) -> dict[str, float]:
    """Measure whether the outline of a label lies on edges of the prototypes and of the colours; a part of the above.

    Parameters
    ----------
    evidence
        Of its image; no detection is needed.
    label
        Its mask, not empty, in pixels of the letterboxed input.
    """
    return _outlines(evidence, _Window.around(evidence, label))


def span_mask(evidence: ImageEvidence, label: Region) -> dict[str, Any] | None:
    """The mask that the prototypes and a constant draw best for a label, without parts that lie beside the label.

    Returns
    -------
    dict or None
        COCO RLE at image size; None where it is empty.
    """
    window = _Window.around(evidence, label)
    drawn = window.prototypes @ _fitted(window)
    _, parts = cv2.connectedComponents((drawn > 0).astype(np.uint8))
    on_label = np.isin(parts, parts[window.inside & (drawn > 0)])
    if not on_label.any():
        return None
    drawn[(drawn > 0) & ~on_label] = -1.0
    logits = np.full(evidence.prediction.letterbox.grid_hw, -1.0, dtype=np.float32)
    logits[window.rows, window.columns] = drawn
    high, wide = evidence.cell_hw
    box = (
        window.columns.start * wide,
        window.rows.start * high,
        window.columns.stop * wide,
        window.rows.stop * high,
    )
    (encoded,) = decode(
        [[1.0]],
        logits[None],
        [box],
        evidence.prediction.letterbox,
        rule=evidence.prediction.rule,
        size="image",
        output="rle",
    )
    return encoded


@dataclass(frozen=True, eq=False)
class _Window:
    """The cells of the prototype grid around a label.

    covered: the share of each cell that the label covers. prototypes: those of the cells, and a constant.
    distance: of each cell to the outline in cells, negative outside. diagonal: of the label's box, in cells.
    """

    rows: slice
    columns: slice
    covered: Float32[np.ndarray, "h w"]
    prototypes: Float32[np.ndarray, "h w K+1"]
    diagonal: float

    @classmethod
    def around(cls, evidence: ImageEvidence, label: Region) -> _Window:
        high, wide = evidence.cell_hw
        content = evidence.prediction.letterbox.content_cells
        rows = _widened(label.rows.start / high, label.rows.stop / high, content[0])
        columns = _widened(label.columns.start / wide, label.columns.stop / wide, content[1])
        shape = ((rows.stop - rows.start), (columns.stop - columns.start))
        drawn = np.zeros((shape[0] * high, shape[1] * wide), dtype=np.float32)
        top, left = label.rows.start - rows.start * high, label.columns.start - columns.start * wide
        target = drawn[max(top, 0) : top + label.inside.shape[0], max(left, 0) : left + label.inside.shape[1]]
        target[...] = label.inside[max(-top, 0) :, max(-left, 0) :][: target.shape[0], : target.shape[1]]
        covered = drawn.reshape(shape[0], high, shape[1], wide).mean(axis=(1, 3))
        cells = evidence.prototypes[:, rows, columns].transpose(1, 2, 0)
        prototypes = np.concatenate([cells, np.ones((*shape, 1), dtype=np.float32)], axis=2)
        diagonal = np.hypot(label.inside.shape[0] / high, label.inside.shape[1] / wide)
        return cls(rows, columns, covered, np.ascontiguousarray(prototypes), float(diagonal))

    def cut(self, values: np.ndarray) -> np.ndarray:
        """The window of an array whose last two axes are the grid."""
        return values[..., self.rows, self.columns]

    @cached_property
    def inside(self) -> Bool[np.ndarray, "h w"]:
        return self.covered > 0.5

    @cached_property
    def distance(self) -> Float32[np.ndarray, "h w"]:
        if self.inside.all() or not self.inside.any():
            return np.full(self.inside.shape, np.inf, dtype=np.float32)
        mask = self.inside.astype(np.uint8)
        within, beyond = (cv2.distanceTransform(part, cv2.DIST_L2, 5) for part in (mask, 1 - mask))
        return np.where(self.inside, within - 0.5, 0.5 - beyond).astype(np.float32)


def _widened(start: float, stop: float, content: slice) -> slice:
    margin = max(_MARGIN * (stop - start), 2)
    first = int(np.clip(np.floor(start - margin), content.start, content.stop - 1))
    return slice(first, int(np.clip(np.ceil(stop + margin), first + 1, content.stop)))


def _edges(channels: Float32[np.ndarray, "C h w"]) -> Float32[np.ndarray, "h w"]:
    total = np.zeros(channels.shape[1:], dtype=np.float32)
    for channel in channels:
        for direction in ((1, 0), (0, 1)):
            total += np.square(
                cv2.Sobel(channel, cv2.CV_32F, *direction, ksize=3, scale=1 / 8, borderType=cv2.BORDER_REPLICATE)
            )
    return np.sqrt(total / len(channels))


def _agreement(evidence: ImageEvidence, label: Region, class_id: int) -> dict[str, float]:
    """Overlaps with the detection that overlaps most, with the best one of the label's class, and with the others."""
    if not evidence.masks:
        return dict(_NO_DETECTION)
    scores, areas, area = evidence.prediction.scores, evidence.areas, float(label.area)
    shared = np.array([mask.shared_with(label) for mask in evidence.masks], dtype=np.float64)
    iou = shared / (areas + area - shared)
    box = (float(label.columns.start), float(label.rows.start), float(label.columns.stop), float(label.rows.stop))
    overlaps = box_iou(np.array([box], dtype=np.float32), evidence.prediction.extents)[0]
    best = int(iou.argmax())
    of_class = evidence.prediction.classes == class_id
    near = int((iou * of_class).argmax())
    known = bool(iou[near] * of_class[near] > 0)
    width, height = box[2] - box[0], box[3] - box[1]
    x1, y1, x2, y2 = evidence.prediction.extents[best].tolist()
    close = overlaps[best] > 0.1
    within = (shared > 0.7 * areas) & (scores > 0.15)
    covers = np.sort(np.where(within, shared / area, 0))
    return {
        "mask_iou": iou[best],
        "box_iou": overlaps[best],
        "score": scores[best],
        "mask_iou_of_class": iou[near] if known else 0,
        "box_iou_of_class": overlaps[near] if known else 0,
        "score_of_class": scores[near] if known else 0,
        "score_of_other_class": (scores * (iou > 0.4) * ~of_class).max(),
        "missing_share": 1 - shared[best] / max(areas[best], 1),
        "extra_share": 1 - shared[best] / area,
        "log_area_ratio": np.log((area + 1) / (areas[best] + 1)) if iou[best] > 0.05 else 0,
        "log_width_ratio": np.log(width / max(x2 - x1, 1)) if close else 0,
        "log_height_ratio": np.log(height / max(y2 - y1, 1)) if close else 0,
        "centre_distance": np.hypot((box[0] + box[2] - x1 - x2) / width, (box[1] + box[3] - y1 - y2) / height) / 2
        if close
        else 1,
        "largest_cover": (shared / area).max(),
        "detections_inside": np.count_nonzero(within),
        "second_inside": covers[-2] if len(covers) > 1 else 0,
        "score_times_iou": (scores * iou).max(),
        "score_times_box_iou": (scores * overlaps).max(),
    }


def _shape(label: Region, content: tuple[slice, slice]) -> dict[str, float]:
    """Size, outline and holes; straight sides that do not lie on the border of the image."""
    area, root = float(label.area), float(np.sqrt(label.area))
    height, width = label.inside.shape
    contours, hierarchy = cv2.findContours(
        np.pad(label.inside, 1).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE
    )
    is_hole = hierarchy[0, :, 3] >= 0
    outer = [contour for contour, hole in zip(contours, is_hole, strict=True) if not hole]
    largest = max(outer, key=len)
    perimeter, enclosed = float(sum(map(len, outer))), cv2.contourArea(largest)
    corners = cv2.approxPolyDP(largest, 1.5, True)[:, 0].astype(np.float64)
    sides = np.abs(corners - np.roll(corners, -1, axis=0))
    lengths = np.hypot(*sides.T)
    at_border = (
        label.rows.start <= content[0].start + 2,
        label.rows.stop >= content[0].stop - 2,
        label.columns.start <= content[1].start + 2,
        label.columns.stop >= content[1].stop - 2,
    )
    ends = (label.inside[0], label.inside[-1], label.inside[:, 0], label.inside[:, -1])
    flat = sorted(0.0 if border else np.count_nonzero(end) / root for end, border in zip(ends, at_border, strict=True))
    return {
        "log_area": np.log(area),
        "log_aspect": np.log(width / height),
        "fill": area / (width * height),
        "parts": len(outer),
        "largest_part": enclosed / area,
        "hole_share": sum(cv2.contourArea(contour) for contour, hole in zip(contours, is_hole, strict=True) if hole)
        / area,
        "solidity": enclosed / max(cv2.contourArea(cv2.convexHull(largest)), 1),
        "corners": len(corners),
        "corners_per_length": len(corners) / np.sqrt(perimeter),
        "roundness": perimeter * perimeter / area,
        "straight_side": (lengths * (sides.min(axis=1) <= 1)).max() / root,
        "longest_side": lengths.max() / perimeter,
        "borders": sum(at_border),
        "flat_end": flat[-1],
        "second_flat_end": flat[-2],
    }


def _overlap(label: Region, neighbours: Sequence[Region]) -> dict[str, float]:
    """Overlap with other labels."""
    area = label.area
    pairs = [(label.shared_with(other), other.area) for other in neighbours if other.area]
    return {
        "label_iou": max((shared / (area + other - shared) for shared, other in pairs), default=0),
        "holds_label": max((shared / other for shared, other in pairs), default=0),
        "held_by_label": max((shared / area for shared, _ in pairs), default=0),
    }


def _span(window: _Window) -> dict[str, float]:
    """How well a weighted sum of the prototypes and a constant draws the label: logistic regression with a ridge."""
    area = max(float(np.count_nonzero(window.inside)), 1.0)
    mean = float(window.covered.mean())
    entropy = -(mean * np.log(mean + 1e-9) + (1 - mean) * np.log(1 - mean + 1e-9))
    logits = window.prototypes @ _fitted(window)
    loss = float((np.maximum(logits, 0) - window.covered * logits + np.log1p(np.exp(-np.abs(logits)))).mean())
    drawn = logits > 0
    shared = float(np.count_nonzero(drawn & window.inside))
    _, _, stats, _ = cv2.connectedComponentsWithStats((drawn != window.inside).astype(np.uint8))
    return {
        "span_loss": loss,
        "span_loss_ratio": loss / max(entropy, 1e-9),
        "span_iou": shared / max(float(np.count_nonzero(drawn | window.inside)), 1.0),
        "span_largest_error": float(np.max(stats[1:, cv2.CC_STAT_AREA], initial=0)) / area,
    }


def _fitted(window: _Window) -> Float32[np.ndarray, " K+1"]:
    """The weights of the prototypes and the constant, fitted to a part of the cells where there are many."""
    step = int(np.ceil(np.sqrt(window.covered.size / _FIT_CELLS)))
    thinned, target = window.prototypes[::step, ::step], window.covered[::step, ::step]
    cells = Cells(
        np.ascontiguousarray(thinned.reshape(-1, thinned.shape[2])),
        target.ravel(),
        np.ones(target.size, dtype=np.float32),
    )
    start = np.zeros(thinned.shape[2], dtype=np.float32)
    return fit(cells, start, penalty=_RIDGE, tolerance=1e-3, max_steps=8).weights


def _outlines(evidence: ImageEvidence, window: _Window) -> dict[str, float]:
    return {
        **_outline(window, "prototype", window.cut(evidence.prototype_edges), window.cut(evidence.prototypes), 0.05),
        **_outline(window, "colour", window.cut(evidence.colour_edges), window.cut(evidence.grid_colours), 1.0),
    }


def _outline(
    window: _Window, name: str, edges: Float32[np.ndarray, "h w"], channels: Float32[np.ndarray, "C h w"], floor: float
) -> dict[str, float]:
    """Where the edges lie beside the outline, and how well the channels tell its two sides apart.

    The strength of edges in bands at rising distance from the outline, as a share of the window's mean: it is largest
    on the outline of a right label, and inside or outside of it where the label is too large or too small.
    """
    distance, mean = window.distance, float(edges.mean()) + 1e-6
    band = np.digitize(distance.ravel(), _BANDS, right=True)
    sums, counts = np.bincount(band, edges.ravel(), len(_BANDS) + 1), np.bincount(band, minlength=len(_BANDS) + 1)
    with np.errstate(invalid="ignore"):
        profile = (sums / counts / mean)[1:-1]
    on = edges[np.abs(distance) <= 1]
    step = max(0.06 * window.diagonal, 1.0)
    at = float(on.mean()) + 1e-6 if on.size else np.nan
    inner, outer = (distance > 0.5) & (distance <= 4), (distance < -0.5) & (distance >= -4)
    found = {f"{name}_edge_{place}": value for place, value in enumerate(profile)}
    found |= {
        f"{name}_edge_peak": profile[_OUTLINE] / max(np.nanmax(profile), 1e-9)
        if np.isfinite(profile).any()
        else np.nan,
        f"{name}_edge_weakest": float(np.percentile(on, 25)) / mean if on.size else np.nan,
        f"{name}_edge_mean": np.log(mean),
        f"{name}_edge_outside": _mean(edges, np.abs(distance + step) <= 0.75) / at,
        f"{name}_edge_inside": _mean(edges, np.abs(distance - step) <= 0.75) / at,
        f"{name}_edge_deep": _mean(edges, (distance > 3) & np.isfinite(distance)) / mean,
        f"{name}_contrast": np.nan,
    }
    if np.count_nonzero(inner) > 3 and np.count_nonzero(outer) > 3:
        first, second = channels[:, inner], channels[:, outer]
        squares = np.square(first.mean(axis=1) - second.mean(axis=1))
        found[f"{name}_contrast"] = float(
            np.log((squares / (first.var(axis=1) + second.var(axis=1) + floor)).mean() + 1e-6)
        )
    return found


def _mean(values: np.ndarray, where: np.ndarray) -> float:
    return float(values[where].mean()) if where.any() else np.nan


def as_matrix(rows: Sequence[Mapping[str, float]]) -> tuple[tuple[str, ...], Float32[np.ndarray, "N F"]]:
    """The names of the features, and a row of them for each label."""
    names = tuple(rows[0]) if rows else ()
    return names, np.array([[row[name] for name in names] for row in rows], dtype=np.float32).reshape(-1, len(names))
