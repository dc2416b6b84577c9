"""What reading a network's outputs gives, and which detections are kept: the same for every family."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from maskprism.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Float32, Int64


class Rows(NamedTuple):
    """The detections of one image. Boxes are xyxy in canvas pixels; None for families of masks alone.

    levels: of the pyramid, 0 for the finest, that each detection comes from; None where the rows do not tell.
    """

    boxes: Float32[np.ndarray, "N 4"] | None
    scores: Float32[np.ndarray, " N"]
    classes: Int64[np.ndarray, " N"]
    coefficients: Float32[np.ndarray, "N K"]
    objectness: Float32[np.ndarray, " N"] | None
    levels: Int64[np.ndarray, " N"] | None = None


@dataclass(frozen=True)
class Thresholds:
    """Which detections are kept.

    conf: scores must be above it. iou: a box that overlaps a better one of its class more than
    this is dropped. max_det: at most so many per image. classes: only these class ids.
    multi_label: a candidate counts for every class whose score is above `conf`, as when Ultralytics
    validates, and not only for its best class, as when it predicts. agnostic: a box falls to a better
    one of any class, as YOLOE predicts. Neither the layouts of YOLACT and of queries nor finished rows ask for it.
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
