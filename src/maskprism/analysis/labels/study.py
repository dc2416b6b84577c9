"""All labels of a data set: measured image by image, judged together at the end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import cv2
import numpy as np

from maskprism._common.extras import require
from maskprism._common.text import counted
from maskprism.analysis.labels.corruption import CORRUPTIONS, MIN_PIXELS, Corruption, corrupt, halves, jittered
from maskprism.analysis.labels.features import ImageEvidence, as_matrix, label_features, span_mask
from maskprism.analysis.labels.reasons import reason_of
from maskprism.analysis.labels.suspicion import SUSPICIOUS, Suspicion, kinds, suspicions
from maskprism.analysis.truth.matching import FOUND_IOU, NEAR_IOU
from maskprism.analysis.truth.overlaps import Region
from maskprism.core.decoding.job import compress, count_runs
from maskprism.datasets.ground_truth import run_lengths
from maskprism.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float64

    from maskprism.datasets import GroundTruth
    from maskprism.datasets.visit import VisitedImage

Kind = Corruption | Literal["wrong class", "duplicate", "split", "missing label", "crowd", "no mask", "unreadable"]
LEARNED_KINDS: tuple[Kind, ...] = (*CORRUPTIONS, "wrong class", "duplicate", "split")
"""The mistakes that are made on purpose, to learn from."""
NEEDLESS: tuple[Kind, ...] = ("spurious", "duplicate")
"""Kinds of labels that should not be there."""
COPIES = 3
"""Corrupted copies of each label of an image that is learned from."""
LEARNED_IMAGES = 2000
"""The classifier learns from about this number of images, a random sample of larger data sets."""
HELD_SHARE = 0.9
"""A label holds another one of which more than this share lies in it."""
SHOWN_SCORE = 0.25
"""Detections from this score on that nothing labels are reported."""


class JudgedLabel(NamedTuple):
    """One label, or one detection that no label has.

    Attributes
    ----------
    label_id
        Its annotation id or line number; None for a detection.
    box
        x1, y1, x2, y2 in image pixels.
    kind
        What is probably wrong; "" where the suspicion is below one half.
    suspicion
        0 to 1; NaN for crowds and labels without a mask, which cannot be judged; 1 for labels that cannot be read.
    suggestion
        COCO RLE of a better mask, or None.
    suggested_by
        "prediction" for the mask of a detection, "prototypes" for the best that they can draw for the label, "labels"
        for the label without its holes, or without other labels that lie in it; "" for no suggestion.
    instance
        The detection that it is, or that overlaps most, as `Model.predict` numbers them; -1 for none.
    prediction
        COCO RLE of that detection, where it is not the suggestion.
    suggested_class
        For the kind "wrong class": the class id of that detection.
    """

    image: str
    label_id: int | str | None
    class_id: int
    class_name: str
    box: tuple[float, float, float, float]
    kind: str
    suspicion: float
    reason: str
    suggestion: Mapping[str, Any] | None
    suggested_by: str
    instance: int
    features: Mapping[str, float]
    prediction: Mapping[str, Any] | None = None
    suggested_class: int | None = None


class MeasuredLabel(NamedTuple):
    """What a worker sends back about one label: what is measured of it and of its corrupted copies."""

    label_id: int | str
    class_id: int
    box: tuple[float, float, float, float]
    unjudged: str = ""
    features: Mapping[str, float] = {}
    copies: Sequence[tuple[Kind, Mapping[str, float]]] = ()
    suggestion: Mapping[str, Any] | None = None
    suggested_by: str = ""
    instance: int = -1
    other_class: int = -1
    prediction: Mapping[str, Any] | None = None
    mistake: str = ""
    twin: tuple[int | str, int] | None = None
    """Label id and class id of the label that overlaps it most, from FOUND_IOU on."""
    corrections: Mapping[str, Mapping[str, Any] | None] = {}
    """By kind, masks that come from the labels alone."""


class Unlabelled(NamedTuple):
    """A detection, its largest overlap with a label, and its mask as COCO RLE where no label has it."""

    class_id: int
    box: tuple[float, float, float, float]
    score: float
    overlap: float
    instance: int
    rle: Mapping[str, Any] | None


class MeasuredImage(NamedTuple):
    """What a worker sends back about one image."""

    name: str
    labels: Sequence[MeasuredLabel]
    detections: Sequence[Unlabelled]
    repeats: Sequence[tuple[int | str, int | str]]


@dataclass(frozen=True)
class Measuring:
    """Measure each visited image; give it to `visit`.

    Attributes
    ----------
    class_ids
        All classes of the data set: a label's class is changed to another of them.
    learned_share
        Share of images whose labels are corrupted to learn from, 0 to 1.
    seed
        Of the corruptions; each image has its own.
    """

    class_ids: Sequence[int]
    learned_share: float = 1.0
    seed: int = 0

    def __call__(self, visited: VisitedImage[Any]) -> MeasuredImage:
        """Measure the labels of an image with ground truth."""
        truth = visited.truth
        assert truth is not None
        evidence = ImageEvidence(visited.prediction, visited.image)
        rng = np.random.default_rng([self.seed, visited.number])
        learned = rng.random() < self.learned_share
        letterbox = visited.prediction.letterbox
        patches = truth.patches("canvas", letterbox)
        masks = [_tight(Region.of_patch(patch, 0, letterbox.canvas_hw)) for patch in patches]
        overlaps = np.array([evidence.overlaps(mask) for mask in masks]).reshape(len(masks), len(evidence.masks))
        labels = [
            self._label(index, truth, masks, overlaps, evidence, rng if learned else None)
            for index in range(len(truth))
        ]
        labels = list(_with_own_corrections(labels, truth))
        height, width = truth.image_hw
        labels += [
            MeasuredLabel(label_id, -1, (0, 0, width, height), "unreadable", mistake=mistake)
            for label_id, mistake in truth.mistakes
        ]
        detections = [one for one in _detections(evidence, truth, masks) if one.class_id in self.class_ids]
        return MeasuredImage(visited.name, labels, detections, truth.repeats)

    def _label(
        self,
        index: int,
        truth: GroundTruth,
        masks: Sequence[Region],
        overlaps: Float64[np.ndarray, "G N"],
        evidence: ImageEvidence,
        rng: np.random.Generator | None,
    ) -> MeasuredLabel:
        x1, y1, x2, y2 = truth.boxes[index].tolist()
        class_id, mask = int(truth.classes[index]), masks[index]
        label_id = truth.label_ids[index] if truth.label_ids else index
        about = MeasuredLabel(label_id, class_id, (x1, y1, x2, y2))
        if truth.crowd[index]:
            return about._replace(unjudged="crowd")
        if not mask.area:
            return about._replace(unjudged="no mask")
        others = [place for place in range(len(masks)) if place != index and not truth.crowd[place]]
        neighbours = [masks[place] for place in others]
        found = label_features(evidence, mask, class_id, neighbours)
        own = overlaps[index]
        instance = int(own.argmax()) if len(own) and own.max() > NEAR_IOU else -1
        claimed = overlaps[others].max(axis=0, initial=0.0)
        suggested = _suggested_detection(own, claimed, evidence.prediction.classes == class_id)
        twin = None
        if found["label_iou"] >= FOUND_IOU:
            place = max(others, key=lambda place: mask.iou_with(masks[place]))
            twin = (truth.label_ids[place] if truth.label_ids else place, int(truth.classes[place]))
        return about._replace(
            twin=twin,
            features=found,
            copies=() if rng is None else self._copies(mask, class_id, neighbours, evidence, rng),
            suggestion=_rle(evidence, suggested) if suggested >= 0 else _as_text(span_mask(evidence, mask)),
            suggested_by="prediction" if suggested >= 0 else "prototypes",
            instance=instance,
            other_class=int(evidence.prediction.classes[instance]) if instance >= 0 else -1,
            prediction=_rle(evidence, instance) if instance not in (-1, suggested) else None,
        )

    def _copies(
        self,
        mask: Region,
        class_id: int,
        neighbours: Sequence[Region],
        evidence: ImageEvidence,
        rng: np.random.Generator,
    ) -> list[tuple[Kind, Mapping[str, float]]]:
        copies: list[tuple[Kind, Mapping[str, float]]] = []
        if mask.area < MIN_PIXELS:
            return copies
        for place in rng.permutation(len(LEARNED_KINDS)):
            if len(copies) == COPIES:
                break
            kind = LEARNED_KINDS[place]
            wrong, its_class, beside = self._wrong(kind, mask, class_id, neighbours, evidence, rng)
            if wrong is not None:
                copies.append((kind, label_features(evidence, wrong, its_class, beside)))
        return copies

    def _wrong(
        self,
        kind: Kind,
        mask: Region,
        class_id: int,
        neighbours: Sequence[Region],
        evidence: ImageEvidence,
        rng: np.random.Generator,
    ) -> tuple[Region | None, int, Sequence[Region]]:
        """The mask, the class and the neighbours of a copy with this mistake."""
        if kind == "wrong class":
            others = [other for other in self.class_ids if other != class_id]
            return (mask, int(rng.choice(others)), neighbours) if others else (None, class_id, neighbours)
        if kind == "duplicate":
            again = jittered(mask, evidence.content, rng)
            return (mask, class_id, neighbours) if again is None else (mask, class_id, [*neighbours, again])
        if kind == "split":
            both = halves(mask, rng)
            return (None, class_id, neighbours) if both is None else (both[0], class_id, [*neighbours, both[1]])
        return corrupt(mask, kind, neighbours, evidence.content, rng), class_id, neighbours  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class LabelReport:
    """Every label of the images measured, and every confident detection without one, the most suspicious first.

    Attributes
    ----------
    rows
        The labels and detections.
    suspicion
        How labels were judged, and how well corrupted copies are found.
    n_images, n_labels
        What was measured.
    names
        Class names by class id.
    """

    rows: Sequence[JudgedLabel]
    suspicion: Suspicion
    n_images: int
    n_labels: int
    names: Mapping[int, str] = field(default_factory=dict)


@dataclass
class LabelStudy:
    """Collects measured images and judges their labels together.

    Attributes
    ----------
    names
        Class names by class id.
    seed
        Of the folds and classifiers.
    """

    names: Mapping[int, str]
    seed: int = 0
    images: list[MeasuredImage] = field(default_factory=list)

    def update(self, measured: MeasuredImage) -> None:
        """Add one image."""
        self.images.append(measured)

    def compute(self) -> LabelReport:
        """Judge all labels.

        Raises
        ------
        InputError
            If no image was measured, or none has a label with a mask.
        MissingExtraError
            Without scikit-learn.
        """
        labels = [(number, label) for number, image in enumerate(self.images) for label in image.labels]
        judged = [(number, label) for number, label in labels if not label.unjudged]
        if not judged:
            raise InputError(f"no label with a mask in {counted(len(self.images), 'image')}; there is nothing to judge")
        measured = [(number, "", label.features) for number, label in judged]
        measured += [(number, kind, values) for number, label in judged for kind, values in label.copies]
        names, features = as_matrix([values for *_, values in measured])
        image = np.array([number for number, *_ in measured])
        corrupted = np.array([kind != "" for _, kind, _ in measured])
        overlap = features[:, names.index("mask_iou")].astype(np.float64)
        suspicion = suspicions(features, image, corrupted, overlap, seed=self.seed)
        asked = np.zeros(len(measured), dtype=bool)
        asked[: len(judged)] = suspicion.values >= SUSPICIOUS
        told = iter(kinds(features, image, [kind for _, kind, _ in measured], asked, seed=self.seed))
        rows = []
        for (number, label), value in zip(judged, suspicion.values.tolist(), strict=True):
            kind = _likeliest(next(told), label) if value >= SUSPICIOUS else ""
            rows.append(self._row(number, label, kind, value))
        rows += [
            self._row(number, label, label.unjudged, 1.0 if label.mistake else np.nan)
            for number, label in labels
            if label.unjudged
        ]
        rows += [row for image_of in self.images for row in self._repeats(image_of)]
        rows += self._missing()
        rows.sort(key=lambda row: -1.0 if np.isnan(row.suspicion) else row.suspicion, reverse=True)
        return LabelReport(rows, suspicion, len(self.images), len(labels), self.names)

    def _row(self, number: int, label: MeasuredLabel, kind: str, suspicion: float) -> JudgedLabel:
        suggestion, suggested_by, prediction = label.suggestion, label.suggested_by, label.prediction
        if label.corrections.get(kind) is not None:
            prediction = suggestion if prediction is None and suggested_by == "prediction" else prediction
            suggestion, suggested_by = label.corrections[kind], "labels"
        return JudgedLabel(
            image=self.images[number].name,
            label_id=label.label_id,
            class_id=label.class_id,
            class_name="unknown class" if label.mistake else self._name(label.class_id),
            box=label.box,
            kind=kind,
            suspicion=suspicion,
            reason=reason_of(label, kind, self._name),
            suggestion=suggestion if suspicion >= SUSPICIOUS else None,
            suggested_by=suggested_by if suspicion >= SUSPICIOUS else "",
            instance=label.instance,
            features=label.features,
            prediction=prediction,
            suggested_class=label.other_class if kind == "wrong class" and _other(label) else None,
        )

    def _repeats(self, image: MeasuredImage) -> list[JudgedLabel]:
        by_id = {label.label_id: label for label in image.labels}
        return [
            JudgedLabel(
                image=image.name,
                label_id=label_id,
                class_id=by_id[other].class_id,
                class_name=self._name(by_id[other].class_id),
                box=by_id[other].box,
                kind="duplicate",
                suspicion=1.0,
                reason=f"It repeats label {other} ({self._name(by_id[other].class_id)}) of this image word for word.",
                suggestion=None,
                suggested_by="",
                instance=by_id[other].instance,
                features={},
            )
            for label_id, other in image.repeats
            if other in by_id
        ]

    def _missing(self) -> list[JudgedLabel]:
        """Confident detections that overlap no label; how likely they are right is learned from all detections."""
        detections = [(image, one) for image in self.images for one in image.detections]
        shown = [(image, one) for image, one in detections if one.rle is not None and one.score >= SHOWN_SCORE]
        if not shown:
            return []
        scores = np.array([one.score for _, one in detections])
        right = np.array([one.overlap >= FOUND_IOU for _, one in detections], dtype=np.float64)
        isotonic = require("sklearn.isotonic", "judging detections").IsotonicRegression(out_of_bounds="clip")
        sure = isotonic.fit(scores, right).predict([one.score for _, one in shown])
        return [
            JudgedLabel(
                image=image.name,
                label_id=None,
                class_id=one.class_id,
                class_name=self._name(one.class_id),
                box=one.box,
                kind="missing label",
                suspicion=float(value),
                reason=f"The model detects {self._name(one.class_id)} with a score of {one.score:.2f}, and no label "
                f"overlaps it; {value:.0%} of the detections with this score match a label.",
                suggestion=one.rle,
                suggested_by="prediction",
                instance=one.instance,
                features={},
            )
            for (image, one), value in zip(shown, sure.tolist(), strict=True)
        ]

    def _name(self, class_id: int) -> str:
        return self.names.get(class_id, f"class{class_id}")


def _other(label: MeasuredLabel) -> bool:
    """Whether the best detection is of another class."""
    return label.other_class >= 0 and label.other_class != label.class_id


def learned_share(n_images: int) -> float:
    """The share of images to learn from."""
    return min(1.0, LEARNED_IMAGES / max(n_images, 1))


def _likeliest(shares: Mapping[str, float], label: MeasuredLabel) -> str:
    """Return the likeliest mistake that can be: a wrong class needs a detection of another, a duplicate a neighbour."""
    possible = {"wrong class": _other(label), "duplicate": label.features["label_iou"] >= FOUND_IOU}
    left = {kind: share for kind, share in shares.items() if possible.get(kind, True)}
    return max(left, key=left.__getitem__) if left else "unclear"


def _tight(mask: Region) -> Region:
    tight = Region.of(mask.inside)
    return Region(
        slice(int(mask.rows.start + tight.rows.start), int(mask.rows.start + tight.rows.stop)),
        slice(int(mask.columns.start + tight.columns.start), int(mask.columns.start + tight.columns.stop)),
        tight.inside,
    )


def _suggested_detection(
    overlap: Float64[np.ndarray, " N"], claimed: Float64[np.ndarray, " N"], of_class: Bool[np.ndarray, " N"]
) -> int:
    """Return which of N detections is probably the object of a label, by its overlap with them; -1 for none.

    The one of the label's class that overlaps most, unless it is the object of another label, which overlaps it by
    `claimed`; else one of any class from FOUND_IOU on.
    """
    free = (claimed < FOUND_IOU) | (claimed < overlap)
    for possible in (free & of_class & (overlap > NEAR_IOU), free & (overlap >= FOUND_IOU)):
        if possible.any():
            return int(np.where(possible, overlap, -1).argmax())
    return -1


def _with_own_corrections(labels: Iterable[MeasuredLabel], truth: GroundTruth) -> Iterator[MeasuredLabel]:
    """Add the masks that a label becomes without its holes, and without the other labels that lie in it."""
    regions: list[Region] = []
    for index, label in enumerate(labels):
        corrections: dict[str, Mapping[str, Any] | None] = {}
        holes, held = (label.features.get(name, 0.0) for name in ("hole_share", "holds_label"))
        if holes > 0 or held > HELD_SHARE:
            regions = regions or [Region.of_patch(patch, 0, truth.image_hw) for patch in truth.patches("image")]
            mask = np.zeros(truth.image_hw, dtype=bool)
            mask[regions[index].rows, regions[index].columns] = regions[index].inside
        if holes > 0:
            outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            filled = cv2.drawContours(np.zeros(mask.shape, dtype=np.uint8), outlines, -1, 1, cv2.FILLED)
            corrections["hole"] = _bitmap_rle(filled > 0)
        if held > HELD_SHARE:
            whole = regions[index]
            for place, other in enumerate(regions):
                if place != index and not truth.crowd[place] and whole.shared_with(other) > HELD_SHARE * other.area:
                    mask[other.rows, other.columns] &= ~other.inside
            corrections["merged"] = _bitmap_rle(mask)
        yield label._replace(corrections=corrections)


def _bitmap_rle(mask: Bool[np.ndarray, "H W"]) -> Mapping[str, Any] | None:
    return _as_text({"size": [*mask.shape], "counts": compress(count_runs(mask, (0, 0), mask.shape))})


def _rle(evidence: ImageEvidence, instance: int) -> Mapping[str, Any] | None:
    return _as_text(evidence.prediction[instance].rle("image"))


def _as_text(rle: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return the same RLE for JSON, which has no bytes; None for one without a pixel of the image."""
    if rle is None or not run_lengths(rle["counts"])[1::2].any():
        return None
    return {"size": rle["size"], "counts": rle["counts"].decode("ascii")}


def _detections(evidence: ImageEvidence, truth: GroundTruth, masks: Sequence[Region]) -> list[Unlabelled]:
    """Every detection with its largest overlap; box IoU counts for labels without a mask, cover for crowds."""
    found = []
    boxes = evidence.prediction.boxes
    for index, mask in enumerate(evidence.masks):
        overlap = cover = 0.0
        for label, other in enumerate(masks):
            shared = mask.shared_with(other)
            cover = max(cover, shared / max(mask.area, 1))
            overlap = max(overlap, 0.0 if truth.crowd[label] else shared / max(mask.area + other.area - shared, 1))
        boxed = _box_overlap(boxes[index], truth)
        alone = max(overlap, boxed) < NEAR_IOU and cover < FOUND_IOU and mask.area > 0
        x1, y1, x2, y2 = boxes[index].tolist()
        score = float(evidence.prediction.scores[index])
        found.append(
            Unlabelled(
                class_id=int(evidence.prediction.classes[index]),
                box=(x1, y1, x2, y2),
                score=score,
                overlap=overlap,
                instance=index,
                rle=_rle(evidence, index) if alone and score >= SHOWN_SCORE else None,
            )
        )
    return found


def _box_overlap(box: Float64[np.ndarray, " 4"], truth: GroundTruth) -> float:
    from maskprism.core.geometry import box_iou

    without = truth.boxes[truth.box_only]
    return float(box_iou(np.asarray(box, dtype=np.float32)[None], without).max()) if len(without) else 0.0
