"""A whole data set against its ground truth: mask AP, kinds of errors, and which part of the model loses what."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import numpy as np

from maskprism.analysis.dataset.ap_bootstrap import ApIntervals, ap_intervals
from maskprism.analysis.dataset.ap_protocols import (
    AP_PROTOCOLS,
    excused,
    overlaps_of_boxes,
    overlaps_under,
    true_regions,
)
from maskprism.analysis.dataset.coco_ap import AveragePrecision, average_precision
from maskprism.analysis.dataset.expected_gains import ExpectedGains
from maskprism.analysis.dataset.oracles import with_perfect_detection
from maskprism.analysis.dataset.tide import ErrorCost, error_cost
from maskprism.analysis.labels.features import ImageEvidence
from maskprism.analysis.labels.untrained import LabelOutline, label_outlines, most_doubtful
from maskprism.analysis.truth.counterfactual_masks import counterfactuals_of
from maskprism.analysis.truth.error_budget import ErrorBudget, InstanceBudget, Part, budget_of
from maskprism.analysis.truth.matching import (
    ERROR_TYPES,
    NEAR_IOU,
    ErrorType,
    Matches,
    Outcome,
    find_errors,
    match,
    match_masks,
)
from maskprism.analysis.truth.merged_labels import held_detections
from maskprism.analysis.truth.overlaps import Overlaps, box_overlap, mask_areas, mask_iou
from maskprism.analysis.truth.shapes import Shape, shape_of
from maskprism.datasets.visit import Asking, Failure, OnProgress, VisitedImage, visit
from maskprism.errors import InputError
from maskprism.io.sources import spread

if TYPE_CHECKING:
    from jaxtyping import Float64, Int64, UInt8

    from maskprism._common.choices import EngineName
    from maskprism._common.parallel import Engine
    from maskprism.core.prediction import Prediction
    from maskprism.datasets import Dataset, GroundTruth
    from maskprism.models import Model, ModelSpec
    from maskprism.models.families.rows import Thresholds

SHOWN_CONF = 0.25
"""Detections above this score are what a user of `predict` sees; tables and budgets are of these."""
Step = Literal["as predicted", "coefficients", "prototypes", "box", "resolution"]
Better = Literal["moved", "threshold"]
Alone = Literal["coefficients alone", "prototypes alone", "box alone", "resolution alone", "true boxes"]
_MASKS: dict[Step | Alone, str] = {
    "coefficients": "best",
    "prototypes": "in_box",
    "box": "on_grid",
    "resolution": "truth",
    "true boxes": "true_box",
}
_GIVEN_BACK: dict[Alone, Part] = {
    "coefficients alone": "coefficients",
    "prototypes alone": "prototypes",
    "box alone": "box",
    "resolution alone": "resolution",
}


class FoundObject(NamedTuple):
    """One ground-truth instance: where it is, and the detection that found it (or -1); see `Diagnosis.conf`.

    Attributes
    ----------
    pieces, touches_border, thinness
        Its shape; see `truth.shapes.Shape`.
    held
        Detections of its class that lie in it side by side and together fill it, where there are two or more; else 0.
    """

    image: str
    object: int
    class_id: int
    class_name: str
    area: int
    box: tuple[float, float, float, float]
    instance: int
    pieces: int = 1
    touches_border: bool = False
    thinness: float = 1.0
    held: int = 0


class Detection(NamedTuple):
    """One detection that `Model.predict` shows, numbered as there; see `matching.Matches` for `error` and `object`.

    Attributes
    ----------
    outcome
        What counts.
    error
        One of ERROR_TYPES, or "" for one that is right or excused.
    """

    image: str
    instance: int
    class_id: int
    class_name: str
    score: float
    box: tuple[float, float, float, float]
    outcome: Outcome
    error: str
    object: int


@dataclass(frozen=True)
class Diagnosis:
    """What became of a data set.

    Attributes
    ----------
    classes
        Ids of those that count: labelled in the data set, known to the model, and not left out by it.
    images
        How many were examined, out of total.
    failures
        Those that could not be.
    precision
        Per decode (see `ap_protocols.AP_PROTOCOLS`) and of the boxes ("boxes").
    perfect
        AP under the "predict" decode if parts were perfect, one after the other in the order of the error budget, from
        "as predicted" to "resolution", where all masks of matched detections are those of the ground truth.
    alone
        The same if one part alone cost nothing: the IoU of every matched instance with the ground truth grows by what
        that part costs in the error budget (nothing, where it gains). "true boxes": the same logits, cropped by the
        boxes of the ground truth.
    perfect_detection
        AP under the "predict" decode if every ground-truth instance were detected once, with its class and box, and its
        mask were the one drawn for it (see `oracles`).
    intervals
        Intervals of the average precisions, of what masks and detection cost, and of what kinds of errors cost.
    errors
        TIDE of all detections under the "predict" decode.
    shown
        The kinds of errors among the detections that `Model.predict` shows above `conf`, and the instances that these
        miss, by `matching.match_masks`.
    localisation
        Error budgets of the localisation errors that hide a ground-truth instance.
    budget
        Budget of the true positives among the detections shown.
    objects, detections
        Rows for tables.
    doubtful
        The labels to look at first, by a score that learns nothing (`maskprism labels` has one that does).
    gains
        What AP would gain if what a finding is about were fixed.
    unknown_classes
        Classes of the data set that the model does not know; their instances are left out.
    interrupted
        The run was stopped, and this is about the images before.
    """

    dataset: Dataset
    spec: ModelSpec
    classes: Sequence[int]
    conf: float
    images: int
    total: int
    failures: Sequence[Failure]
    remarks: Sequence[str]
    precision: Mapping[str, AveragePrecision]
    perfect: Mapping[Step, AveragePrecision]
    alone: Mapping[Alone, AveragePrecision]
    perfect_detection: AveragePrecision
    intervals: ApIntervals
    errors: ErrorCost
    shown: Mapping[ErrorType, int]
    localisation: ErrorBudget
    budget: ErrorBudget
    objects: Sequence[FoundObject]
    detections: Sequence[Detection]
    gains: ExpectedGains
    doubtful: Sequence[LabelOutline] = ()
    unknown_classes: Sequence[str] = ()
    interrupted: bool = False

    @property
    def missed(self) -> int:
        """Ground-truth instances that no detection shown has found; see `matching.match`."""
        return sum(one.instance < 0 for one in self.objects)

    @property
    def false_positives(self) -> int:
        """Detections shown that found no ground-truth instance and are not excused; see `matching.match`."""
        return sum(one.outcome == "false positive" for one in self.detections)

    def pictured(self, model: Model, names: Collection[str]) -> Iterator[PicturedImage]:
        """Yield some images with all that was found and is labelled there, from the model that was diagnosed.

        Images are read and predicted again; those that are gone are left out.
        """
        places = [place for place, sample in enumerate(self.dataset) if sample.name in names]
        shown = model.with_thresholds(shown_thresholds(model, self.conf))
        for visited in visit(self.dataset.take(places), shown):
            if isinstance(visited, Failure):
                continue
            assert visited.truth is not None
            truth = visited.truth.of_classes(self.classes)
            matches = match_masks(visited.prediction, truth, classes=self.classes)
            yield PicturedImage(visited.name, visited.image, visited.prediction, truth, matches)


class PicturedImage(NamedTuple):
    """An image (BGR) by its name, with all that was found and is labelled there."""

    name: str
    image: UInt8[np.ndarray, "H W 3"]
    prediction: Prediction
    truth: GroundTruth
    matches: Matches


@dataclass(frozen=True, eq=False)
class ExaminedImage:
    """One image, finished.

    Attributes
    ----------
    overlaps
        Under each decode, and of the boxes.
    steps
        The IoUs of the instances that a step makes better; "moved": each mask lies where its label does; "threshold":
        each has its own best threshold.
    drawn
        IoU of the mask that was drawn for each ground-truth instance, cropped by its box; NaN for missed ones.
    """

    name: str
    overlaps: Mapping[str, Overlaps]
    steps: Mapping[Step | Alone | Better, Mapping[int, Float64[np.ndarray, " G"]]]
    drawn: Float64[np.ndarray, " G"]
    budgets: Sequence[InstanceBudget] = ()
    localisation: Sequence[InstanceBudget] = ()
    objects: Sequence[FoundObject] = ()
    detections: Sequence[Detection] = ()
    errors: Mapping[ErrorType, int] = field(default_factory=dict)
    outlines: Sequence[LabelOutline] = ()
    remarks: Sequence[str] = ()

    def after(self, step: Step | Alone | Better) -> Overlaps:
        """Return the overlaps under the "predict" decode after that step."""
        canvas = self.overlaps["predict"]
        iou = canvas.iou.copy()
        for instance, row in self.steps[step].items():
            iou[instance] = row
        return canvas.with_iou(iou)


def diagnose(
    dataset: Dataset,
    model: Model,
    *,
    conf: float = SHOWN_CONF,
    limit: int | None = None,
    engine: EngineName | Engine = "threads",
    workers: int | None = None,
    on_progress: OnProgress | None = None,
) -> Diagnosis:
    """Examine every image of a data set, or `limit` of them, evenly spread.

    AP and TIDE take all detections that the model gives, so load it as Ultralytics validates, with
    `load(..., conf=0.001, multi_label=True)`. The error budget and the tables take the detections that the same model
    shows when it predicts: those above `conf`, with one class for each.
    Classes are matched by name, or by index where one side has no names, as `dataset.notices` says. An
    image that cannot be read is left out and told in `failures`. A KeyboardInterrupt ends the work early; what is
    finished by then is the result.

    Parameters
    ----------
    engine, workers, on_progress
        See `maskprism.datasets.visit.visit`.

    Raises
    ------
    InputError
        Where data set and model share no class or nothing is left to examine.
    ModelError
        Where the model fails on one image after the other.

    Examples
    --------
    >>> import maskprism
    >>> from maskprism.datasets.scenes import write_dataset
    >>> dataset = maskprism.open_dataset(write_dataset("scenes", 4, validation_share=1))
    >>> found = maskprism.diagnose(dataset, maskprism.load("sample", conf=0.001, multi_label=True))
    >>> found.images
    4
    >>> found.precision["predict"].ap50 > 0.5  # mask AP50, as Ultralytics predicts
    True
    >>> found.budget.mean().instances > 0  # what costs the masks that are found: resolution, box, prototypes, ...
    True
    """
    spread(1, limit)  # says at once what is out of range
    dataset = dataset.for_model(model.spec.names)
    dataset.check_masks_count()
    if dataset.by_index:
        model = model.with_names(dataset.names)
    dataset, whole = dataset.take(spread(len(dataset), limit)), dataset
    classes = known_classes(dataset, model)
    if not classes:
        raise InputError(f"{dataset.path}: labels none of the classes {list(model.keep.classes or ())}")
    examined: list[ExaminedImage] = []
    failures: list[Failure] = []
    interrupted = False
    asking = Asking(partial(_under_both, model, shown_thresholds(model, conf)), model.grey)
    visited = visit(
        dataset, asking, partial(_examined, classes), engine=engine, workers=workers, on_progress=on_progress
    )
    with closing(visited) as results:
        try:
            for result in results:
                if isinstance(result, Failure):
                    failures.append(result)
                else:
                    examined.append(result)
        except KeyboardInterrupt:
            if not examined:
                raise
            interrupted = True
    if not examined:
        raise InputError(
            f"{dataset.path}: not one of {len(failures)} images can be examined "
            f"(the first: {failures[0].name}: {failures[0].message})"
        )
    return _concluded(whole, model.spec, classes, conf, len(dataset), examined, failures, interrupted)


def _under_both(model: Model, shown: Thresholds, image: UInt8[np.ndarray, "H W 3"]) -> list[Prediction]:
    """Return all detections, and those shown."""
    return model.predict_under(image, (model.keep, shown))


def _examined(classes: Sequence[int], visited: VisitedImage[list[Prediction]]) -> ExaminedImage:
    """Return what a worker does with one image."""
    prediction, visible = visited.prediction
    assert visited.truth is not None
    return examine(*of_classes(prediction, visited.truth, classes), visited.name, visible, classes, visited.image)


def shown_thresholds(model: Model, conf: float) -> Thresholds:
    """Return which detections `Model.predict` shows above a score: of each candidate the best class."""
    agnostic = model.keep.agnostic or bool(model.runtime.metadata.get("agnostic_nms"))
    return replace(model.keep, conf=max(conf, model.keep.conf), multi_label=False, agnostic=agnostic)


def known_classes(dataset: Dataset, model: Model) -> list[int]:
    """Return the classes that the data set labels, the model knows, and its thresholds keep."""
    names, kept = model.spec.names, model.keep.classes
    labelled = sorted(set(dataset.class_ids.values()))
    return [one for one in labelled if (one in names or not names) and (kept is None or one in kept)]


def of_classes(prediction: Prediction, truth: GroundTruth, classes: Sequence[int]) -> tuple[Prediction, GroundTruth]:
    """Return the detections and the ground truth of these classes."""
    return prediction[np.isin(prediction.classes, classes)], truth.of_classes(classes)


def examine(
    prediction: Prediction,
    truth: GroundTruth,
    name: str,
    shown: Prediction | None = None,
    classes: Sequence[int] | None = None,
    image: UInt8[np.ndarray, "H W 3"] | None = None,
) -> ExaminedImage:
    """One image: every detection against every ground-truth instance, under every decode and after every step.

    Parameters
    ----------
    prediction, truth
        All detections and the ground truth of the classes that count.
    name
        Of the image, for rows.
    shown
        The detections that count for tables and the error budget. Default: all.
    classes
        The classes of `shown` that count. Default: all.
    image
        HWC in BGR, to measure the outlines of the labels. Default: they are not measured.
    """
    shown = prediction if shown is None else shown
    areas = mask_areas(prediction)
    overlaps = {
        "validation": overlaps_under(prediction, truth, "validation", areas=areas),
        "predict": overlaps_under(prediction, truth, "predict", least=NEAR_IOU, same_class=False, areas=areas),
        "native": overlaps_under(prediction, truth, "native", areas=areas),
        "boxes": overlaps_of_boxes(prediction, truth),
    }
    canvas, matches = overlaps["predict"], match(prediction, truth)
    errors = find_errors(canvas)
    hidden = [(int(i), int(errors.target[i])) for i in np.flatnonzero(errors.of("localisation") & errors.fixable)]
    rows: list[InstanceBudget] = []
    true = true_regions(truth, prediction.letterbox, "canvas")
    steps: dict[Step | Alone | Better, dict[int, Float64[np.ndarray, " G"]]] = {
        step: {} for step in (*_MASKS, *_GIVEN_BACK, *get_args(Better))
    }
    drawn = np.full(len(truth), np.nan)
    for pair, masks in counterfactuals_of(prediction, truth, matches):
        row = budget_of(pair, masks, truth, name)
        rows.append(row)
        drawn[pair.truth] = row.true_box_iou
        for step, stage in _MASKS.items():
            steps[step][pair.instance] = mask_iou([getattr(masks, stage)], true, canvas.crowd)[0]
        values: dict[Alone | Better, float] = {"moved": row.moved_iou, "threshold": row.threshold_iou}
        values |= {step: min(row.iou + max(getattr(row, part), 0.0), 1.0) for step, part in _GIVEN_BACK.items()}
        for alone, value in values.items():
            better = steps[alone][pair.instance] = canvas.iou[pair.instance].copy()
            better[pair.truth] = max(value, better[pair.truth])
    budgets = {(row.instance, row.object): row for row in rows}
    others = _pairs(prediction, truth, [pair for pair in hidden if pair not in budgets])
    for pair, masks in counterfactuals_of(prediction, truth, others):
        budgets[pair.instance, pair.truth] = budget_of(pair, masks, truth, name)
    visible = match_masks(shown, truth, classes=classes)
    visible_rows = _budgets_of(shown, truth, visible, name, prediction, budgets)
    counts: dict[ErrorType, int] = {kind: visible.errors.count(kind) for kind in ERROR_TYPES}
    counts["missed"] = len(visible.missed)
    return ExaminedImage(
        name=name,
        overlaps=overlaps,
        steps=steps,
        drawn=drawn,
        budgets=visible_rows,
        localisation=[budgets[pair] for pair in hidden],
        objects=list(
            _objects(
                truth,
                dict(zip(visible.objects.tolist(), visible.instances.tolist(), strict=True)),
                name,
                [shape_of(region, prediction.letterbox) for region in true],
                held_detections(canvas, float(shown.scores.min(initial=1.0))).sum(axis=0),
            )
        ),
        detections=list(_detections(shown, visible, name, classes)),
        errors=counts,
        outlines=()
        if image is None
        else list(label_outlines(ImageEvidence(prediction, image), truth, true, canvas, name)),
        remarks=truth.remarks,
    )


def _budgets_of(
    shown: Prediction,
    truth: GroundTruth,
    matches: Matches,
    name: str,
    prediction: Prediction,
    known: Mapping[tuple[int, int], InstanceBudget],
) -> list[InstanceBudget]:
    """Return the budgets of the pairs of `shown`.

    Those that are known of the same detection in `prediction`, or new ones.
    """
    numbers = {_fingerprint(prediction, index): index for index in range(len(prediction))}
    twins = {index: numbers.get(_fingerprint(shown, index), -1) for index in matches.instances.tolist()}
    pairs = list(zip(matches.instances.tolist(), matches.objects.tolist(), strict=True))
    rows = {
        pair: replace(known[key], instance=pair[0]) for pair in pairs if (key := (twins[pair[0]], pair[1])) in known
    }
    for pair, masks in counterfactuals_of(
        shown, truth, _pairs(shown, truth, [one for one in pairs if one not in rows])
    ):
        rows[pair.instance, pair.truth] = budget_of(pair, masks, truth, name)
    return [rows[pair] for pair in pairs]


def _fingerprint(prediction: Prediction, index: int) -> bytes:
    """Two detections of one image with equal ones are the same."""
    parts = (prediction.classes, prediction.scores, prediction.boxes, prediction.coefficients)
    return b"".join(part[index].tobytes() for part in parts)


def _pairs(prediction: Prediction, truth: GroundTruth, pairs: Sequence[tuple[int, int]]) -> Matches:
    """Pairs of instance and ground-truth instance that are given, in the form of matches."""
    instances, objects = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    iou = np.diagonal(box_overlap(prediction.boxes[instances], truth.boxes[objects]))
    return Matches.given(instances, objects, iou)


def _objects(
    truth: GroundTruth,
    found_by: Mapping[int, int],
    name: str,
    shapes: Sequence[Shape],
    held: Int64[np.ndarray, " G"],
) -> Iterator[FoundObject]:
    for i in np.flatnonzero(~excused(truth)).tolist():
        class_id = int(truth.classes[i])
        x1, y1, x2, y2 = truth.boxes[i].tolist()
        yield FoundObject(
            name,
            i,
            class_id,
            truth.name_of(class_id),
            int(truth.areas[i]),
            (x1, y1, x2, y2),
            found_by.get(i, -1),
            *shapes[i],
            int(held[i]),
        )


def _detections(
    prediction: Prediction, matches: Matches, name: str, classes: Sequence[int] | None
) -> Iterator[Detection]:
    for i, outcome in enumerate(matches.outcomes):
        if classes is not None and prediction.classes[i] not in classes:
            continue
        x1, y1, x2, y2 = prediction.boxes[i].tolist()
        yield Detection(
            image=name,
            instance=i,
            class_id=int(prediction.classes[i]),
            class_name=prediction.name_of(prediction.classes[i]),
            score=float(prediction.scores[i]),
            box=(x1, y1, x2, y2),
            outcome=outcome,
            error=matches.errors[i] or "",
            object=int(matches.targets[i]),
        )


def _concluded(
    dataset: Dataset,
    spec: ModelSpec,
    classes: Sequence[int],
    conf: float,
    total: int,
    examined: Sequence[ExaminedImage],
    failures: Sequence[Failure],
    interrupted: bool,
) -> Diagnosis:
    precision = {name: average_precision([one.overlaps[name] for one in examined]) for name in (*AP_PROTOCOLS, "boxes")}
    perfect: dict[Step, AveragePrecision] = {"as predicted": precision["predict"]}
    perfect |= {step: average_precision([one.after(step) for one in examined]) for step in get_args(Step)[1:]}
    overlaps = {name: [one.overlaps[name] for one in examined] for name in precision}
    detected = with_perfect_detection(overlaps["predict"], [one.drawn for one in examined])
    errors = [find_errors(one) for one in overlaps["predict"]]
    objects = [row for one in examined for row in one.objects]
    return Diagnosis(
        dataset=dataset,
        spec=spec,
        classes=classes,
        conf=conf,
        images=len(examined),
        total=total,
        failures=failures,
        remarks=[remark for one in examined for remark in one.remarks],
        precision=precision,
        perfect=perfect,
        alone={part: average_precision([one.after(part) for one in examined]) for part in get_args(Alone)},
        perfect_detection=average_precision(detected),
        intervals=ap_intervals(overlaps, [one.after("resolution") for one in examined], detected, errors),
        errors=error_cost(overlaps["predict"]),
        shown={kind: sum(one.errors[kind] for one in examined) for kind in ERROR_TYPES},
        localisation=ErrorBudget([row for one in examined for row in one.localisation]),
        budget=ErrorBudget([row for one in examined for row in one.budgets]),
        objects=objects,
        detections=[row for one in examined for row in one.detections],
        doubtful=most_doubtful([label for one in examined for label in one.outlines]),
        unknown_classes=[
            dataset.names[one]
            for one in sorted(set(dataset.class_ids.values()))
            if spec.names and one not in spec.names
        ],
        interrupted=interrupted,
        gains=ExpectedGains(examined, detected, conf),
    )
