"""What the gallery knows of every image once the model has seen it, and the questions it answers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from maskprism.analysis.truth.error_budget import PARTS, Part
from maskprism.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Float32

    from maskprism.analysis.truth.matching import ErrorType, Matches, Outcome
    from maskprism.core.prediction import Prediction
    from maskprism.datasets import GroundTruth
    from maskprism.tables.judged_labels import LabelRow

State = Literal["waiting", "ok", "empty", "failed"]
Show = Literal["all", "ok", "empty", "failed", "missed", "false-positives", "localisation", "suspicious"]
Sort = Literal[
    "name", "score", "iou", "size", "instances", "suspicion", "resolution", "box", "prototypes", "coefficients"
]
View = Literal["images", "instances"]
SHOWS: tuple[Show, ...] = get_args(Show)
SORTS: tuple[Sort, ...] = ("name", "score", "iou", "size", "instances", "suspicion", *PARTS)
VIEWS: tuple[View, ...] = ("images", "instances")
BINS = 20
"""Scores and IoUs are counted in this many even steps from 0 to 1."""
_ANY = (0.0, 1.0)
_OF_INSTANCES = ("false-positives", "localisation")


@dataclass(frozen=True)
class Record:
    """One image: its instances as columns, or why there are none.

    Attributes
    ----------
    message
        Why it failed, or what is wrong with its labels.
    boxes
        x1, y1, x2, y2 in image pixels.
    ious
        With labels, the IoU of each mask with the labelled instance it found; None for one that found none.
    outcomes, errors
        With labels, what the matching rule says of each instance; see `matching.Matches`.
    missed
        With labels, the classes of labelled instances that no prediction found.
    losses
        With labels, what the mask of each instance loses in each part; None for a false positive.
    suspicious
        With a result of `maskprism labels`, the labels and detections that it suspects, the most suspicious first.
    coefficients
        Of each instance, (N, K).
    """

    state: State
    message: str = ""
    size_hw: tuple[int, int] | None = None
    classes: tuple[int, ...] = ()
    scores: tuple[float, ...] = ()
    boxes: tuple[tuple[float, ...], ...] = ()
    ious: tuple[float | None, ...] | None = None
    outcomes: tuple[Outcome, ...] | None = None
    errors: tuple[ErrorType | None, ...] | None = None
    missed: tuple[int, ...] = ()
    losses: tuple[Mapping[Part, float] | None, ...] | None = None
    suspicious: tuple[LabelRow, ...] = ()
    coefficients: Float32[np.ndarray, "N K"] | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of(
        cls,
        prediction: Prediction,
        found: tuple[GroundTruth, Matches] | None = None,
        losses: Sequence[Mapping[Part, float] | None] | None = None,
        remark: str = "",
        suspicious: Sequence[LabelRow] = (),
    ) -> Record:
        """Return the record of a prediction, and of its comparison with labels if there are any."""
        truth, matches = found or (None, None)
        return cls(
            state="ok" if len(prediction) else "empty",
            message=remark,
            size_hw=prediction.image_size,
            classes=tuple(int(class_id) for class_id in prediction.classes),
            scores=tuple(float(score) for score in prediction.scores),
            boxes=tuple(tuple(float(edge) for edge in box) for box in prediction.boxes),
            ious=None if matches is None else tuple(matches.mask_iou_of(index) for index in range(len(prediction))),
            outcomes=None if matches is None else matches.outcomes,
            errors=None if matches is None else matches.errors,
            missed=() if truth is None or matches is None else tuple(truth.classes[matches.missed].tolist()),
            losses=None if losses is None else tuple(losses),
            suspicious=tuple(suspicious),
            coefficients=prediction.coefficients.astype(np.float32),
        )

    @property
    def suspicion(self) -> float:
        """The suspicion of its most suspicious label; 0 for none."""
        return max((row.suspicion or 0 for row in self.suspicious), default=0)

    @property
    def found(self) -> int:
        """How many instances are true positives."""
        return (self.outcomes or ()).count("true positive")

    @property
    def false_positives(self) -> int:
        """How many instances are false positives."""
        return (self.outcomes or ()).count("false positive")

    @property
    def localisation_errors(self) -> int:
        """How many instances are localisation errors, true and false positives."""
        return (self.errors or ()).count("localisation")


WAITING = Record("waiting")


@dataclass(frozen=True)
class Query:
    """Which images are wanted, in which order.

    An instance fits if its class is among `classes` (all for none) and its score and IoU lie within the bounds, which
    are part of the range; one that found nothing has no IoU and lies within no bounds of it. An image fits if one of
    its instances does; with `show="false-positives"` or "localisation" only those fit, and with `show="missed"` the
    image does if one of the labelled instances that were missed is of these classes. The list has an entry per image,
    or with `view="instances"` one per instance that fits. The size that is sorted by is the area of the box.

    Raises
    ------
    InputError
        For values that mean nothing.
    """

    classes: frozenset[int] = frozenset()
    score: tuple[float, float] = _ANY
    iou: tuple[float, float] = _ANY
    show: Show = "all"
    text: str = ""
    sort: Sort = "name"
    view: View = "images"
    offset: int = 0
    limit: int = 60

    def __post_init__(self) -> None:
        for name in ("score", "iou"):
            low, high = getattr(self, name)
            if not 0 <= low <= high <= 1:
                raise InputError(
                    f"{name} is {low:g} to {high:g}; expected two numbers from 0 to 1, the lower one first"
                )
        for name, known in (("show", SHOWS), ("sort", SORTS), ("view", VIEWS)):
            if getattr(self, name) not in known:
                raise InputError(f"{name} is {getattr(self, name)!r}; expected one of {', '.join(known)}")
        if self.offset < 0 or not 1 <= self.limit <= 500:
            raise InputError(f"offset {self.offset}, limit {self.limit}: expected 0 or more, and 1 to 500")

    @property
    def about_instances(self) -> bool:
        """Whether it asks for instances, which only images that were examined can answer."""
        return bool(self.classes) or self.score != _ANY or self.iou != _ANY or self.show in _OF_INSTANCES

    def fitting(self, record: Record) -> list[int]:
        """Return the instances of an image that fit."""
        ious: Iterable[float | None] = record.ious if record.ious is not None else (None,) * len(record.classes)
        return [
            index
            for index, (class_id, score, iou) in enumerate(zip(record.classes, record.scores, ious, strict=True))
            if (not self.classes or class_id in self.classes)
            and self.score[0] <= score <= self.score[1]
            and (self.iou == _ANY or (iou is not None and self.iou[0] <= iou <= self.iou[1]))
            and (self.show != "false-positives" or (record.outcomes or ())[index : index + 1] == ("false positive",))
            and (self.show != "localisation" or (record.errors or ())[index : index + 1] == ("localisation",))
        ]

    def takes(self, title: str, record: Record, fitting: list[int]) -> bool:
        """Return whether an image of this title and record is wanted, of which these instances fit."""
        if self.text.casefold() not in title.casefold():
            return False
        if self.show == "missed":
            return any(not self.classes or class_id in self.classes for class_id in record.missed)
        if self.show == "suspicious":
            return bool(record.suspicious) and (bool(fitting) or not self.about_instances)
        if self.show not in ("all", *_OF_INSTANCES) and record.state != self.show:
            return False
        return bool(fitting) or not self.about_instances

    def stands_for(self, record: Record, fitting: list[int]) -> int | None:
        """Return the instance that put an image where it is in the list.

        None if that is no single one of those that fit.

        It has the lowest score, IoU or size, or the largest loss, if the list is sorted by that; otherwise it is the
        first one asked for.
        """
        known = [(value, index) for index in fitting if (value := self._value(record, index)) is not None]
        if known:
            return min(known)[1]
        return fitting[0] if fitting and self.about_instances else None

    def rank(self, record: Record, fitting: list[int]) -> float:
        """Lower comes first; equal ones stay in the order of their names."""
        if self.sort == "instances":
            return -len(fitting)
        if self.sort == "suspicion":
            return -record.suspicion
        if self.sort == "name":
            return 0
        return min((value for index in fitting if (value := self._value(record, index)) is not None), default=math.inf)

    def _value(self, record: Record, index: int) -> float | None:
        """Return what an instance is sorted by, if it has that."""
        if self.sort == "size":
            x1, y1, x2, y2 = record.boxes[index]
            return (x2 - x1) * (y2 - y1)
        if self.sort in PARTS:  # the largest loss comes first
            own = None if record.losses is None else record.losses[index]
            return None if own is None else -own[self.sort]
        values = {"score": record.scores, "iou": record.ious}.get(self.sort)
        return None if values is None else values[index]


@dataclass
class Tally:
    """Counts over all records."""

    states: Counter[State] = field(default_factory=Counter)
    instances: Counter[int] = field(default_factory=Counter)
    images: Counter[int] = field(default_factory=Counter)
    missed: int = 0
    found: int = 0
    false_positives: int = 0
    localisation_errors: int = 0
    scores: list[int] = field(default_factory=lambda: [0] * BINS)
    ious: list[int] = field(default_factory=lambda: [0] * BINS)

    def add(self, record: Record) -> None:
        """Count one more image."""
        self.states[record.state] += 1
        self.instances.update(record.classes)
        self.images.update(set(record.classes))
        self.missed += len(record.missed)
        self.found += record.found
        self.false_positives += record.false_positives
        self.localisation_errors += record.localisation_errors
        for bins, values in ((self.scores, record.scores), (self.ious, record.ious or ())):
            for value in values:
                if value is None:
                    continue
                bins[min(int(value * BINS), BINS - 1)] += 1

    def classes(self, name_of: Any) -> list[dict[str, Any]]:
        """Per class that was seen: id, name, and how many instances in how many images; most instances first."""
        return [
            {"id": class_id, "name": name_of(class_id), "instances": count, "images": self.images[class_id]}
            for class_id, count in sorted(self.instances.items(), key=lambda item: (-item[1], item[0]))
        ]
