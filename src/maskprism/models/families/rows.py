"""What reading a model's outputs gives, and which detections are kept: the same for every family."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from maskprism.errors import InputError, ModelError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float32, Int64

EXPORT_IN_SINGLE_PRECISION = "export the model again, in single precision if this is half"
_SCORE_TOLERANCE = 0.1
"""By how much scores may miss their limits: those of 8 bits that share their scale with coefficients are coarse. Where
they share it with boxes one step may be 1.3, so that scores are 0 or 1.3: then by half a step."""


class RawInstances(NamedTuple):
    """The detections of one image.

    Boxes are xyxy in canvas pixels; None for families of masks alone.

    Attributes
    ----------
    levels
        Levels of the pyramid, 0 for the finest, that each detection comes from; None where the rows do not tell.
    n_not_finite
        How many detections were left out because they hold NaN or infinity.
    """

    boxes: Float32[np.ndarray, "N 4"] | None
    scores: Float32[np.ndarray, " N"]
    classes: Int64[np.ndarray, " N"]
    coefficients: Float32[np.ndarray, "N K"]
    objectness: Float32[np.ndarray, " N"] | None
    levels: Int64[np.ndarray, " N"] | None = None
    n_not_finite: int = 0


@dataclass(frozen=True)
class Thresholds:
    """Which detections are kept.

    Attributes
    ----------
    conf
        Scores must be above it.
    iou
        A box that overlaps a better one of its class more than this is dropped.
    max_det
        At most this number per image.
    classes
        Only these class ids.
    multi_label
        A candidate counts for every class whose score is above `conf`, as when Ultralytics validates, and not only for
        its best class, as when it predicts.
    agnostic
        A box falls to a better one of any class, as YOLOE predicts. Neither the layouts of YOLACT and of queries nor
        finished rows ask for it.
    """

    conf: float = 0.25
    iou: float = 0.7
    max_det: int = 300
    classes: tuple[int, ...] | None = None
    multi_label: bool = False
    agnostic: bool = False

    def __post_init__(self) -> None:
        for name, value in (("conf", self.conf), ("iou", self.iou)):
            if not isinstance(value, Real) or not 0 <= value <= 1:
                raise InputError(f"{name} is {value!r}; expected 0 to 1")
        if not isinstance(self.max_det, Integral) or self.max_det < 1:
            raise InputError(f"max_det is {self.max_det!r}; expected at least 1")


def corners(boxes_cxcywh: Float32[np.ndarray, "N C"]) -> Float32[np.ndarray, "N 4"]:
    """Turn cx, cy, w, h, the first columns, into x1, y1, x2, y2."""
    centre, half = boxes_cxcywh[:, :2], boxes_cxcywh[:, 2:4] / 2
    return np.concatenate([centre - half, centre + half], axis=1)


def canvas_scale(canvas_hw: tuple[int, int]) -> Float32[np.ndarray, " 4"]:
    """Return what makes pixels of x1, y1, x2, y2 as shares of the letterboxed input."""
    height, width = canvas_hw
    return np.array([width, height, width, height], dtype=np.float32)


def finite_columns(columns: Float32[np.ndarray, "C N"]) -> Bool[np.ndarray, " N"]:
    """Return which columns hold neither NaN nor infinity."""
    with np.errstate(over="ignore", invalid="ignore"):
        sound = np.isfinite(columns.sum(axis=0))  # of a table of 8400 a third of the time of looking at each number
    suspects = np.flatnonzero(~sound)  # also large numbers whose sum overflows
    sound[suspects] = np.isfinite(columns[:, suspects]).all(axis=0)
    return sound


def refuse_scores(scores: Float32[np.ndarray, "..."] | None, limits: tuple[float, float], prefix: str = "") -> None:
    """Raise ModelError for scores that are no probabilities: exported before the sigmoid, or in per cent.

    Parameters
    ----------
    scores
        As the model gave them; None where a family makes them itself.
    limits
        What they lie between.
    prefix
        What the message begins with.
    """
    if scores is None or not scores.size:
        return
    low, high = np.fmin.reduce(scores, axis=None), np.fmax.reduce(scores, axis=None)
    if not (np.isfinite(low) and np.isfinite(high)):  # rows with infinity are left out, and others are looked at
        finite = scores[np.isfinite(scores)]
        low, high = finite.min(initial=0), finite.max(initial=0)
    above = _SCORE_TOLERANCE
    if high > limits[1] + above and low >= limits[0]:
        above = max(above, float(scores[scores > 0].min()) / 2)
    if low < limits[0] - _SCORE_TOLERANCE or high > limits[1] + above:
        if low >= limits[0] - _SCORE_TOLERANCE:
            reason = "Take the sigmoid if they are logits, divide by 100 if they are in per cent"
        else:
            reason = (
                "They look like logits: export the model with the sigmoid of its classes, or take the sigmoid yourself"
            )
        raise ModelError(
            f"{prefix}scores go from {low:.3g} to {high:.3g}; expected {limits[0]:g} to {limits[1]:g}. {reason}, and "
            "hand the arrays to maskprism.from_arrays"
        )


def refuse_broken_prototypes(prototypes: Float32[np.ndarray, "K h w"]) -> None:
    """Raise ModelError for prototypes that hold NaN or infinity."""
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(prototypes.sum()):
            return
    broken = np.flatnonzero(~np.isfinite(prototypes).all(axis=(1, 2)))
    if len(broken):
        raise ModelError(f"prototypes {', '.join(map(str, broken))} hold NaN or infinity; {EXPORT_IN_SINGLE_PRECISION}")
