"""Tune a model on a data set: gather evidence, fit, and measure every image with what was fitted without it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from maskprism._common.parallel import open_engine
from maskprism.analysis.dataset.ap_bootstrap import intervals_of
from maskprism.analysis.dataset.ap_protocols import overlaps_under
from maskprism.analysis.dataset.coco_ap import AveragePrecision, average_precision
from maskprism.analysis.dataset.diagnosis import SHOWN_CONF, known_classes, of_classes
from maskprism.analysis.dataset.resampled_ap import IOU_THRESHOLDS, ResampledAP
from maskprism.analysis.intervals import Interval, claimed_interval
from maskprism.analysis.truth.gains import Gains
from maskprism.analysis.truth.matching import match
from maskprism.analysis.truth.overlaps import Region, regions
from maskprism.analysis.tuning.decode_rule import DecodeRuleChoice, choose_decode_rule, setting_ious
from maskprism.analysis.tuning.evidence import CONF, MOST, Evidence, evidence_of
from maskprism.analysis.tuning.fitting import FULL_EFFORT, Effort, Setting, minimiser
from maskprism.analysis.tuning.teacher import teacher_of
from maskprism.analysis.tuning.validation import FOLDS, CrossFit, check_folds, cross_fit, fits
from maskprism.datasets.augmentation import Augmentation
from maskprism.datasets.samples import Sample
from maskprism.datasets.visit import Failure, OnProgress, VisitedImage, predicted, visit
from maskprism.errors import InputError
from maskprism.io.sources import spread

if TYPE_CHECKING:
    from jaxtyping import Bool, Float64, UInt8

    from maskprism._common.choices import EngineName
    from maskprism._common.parallel import Engine
    from maskprism.analysis.truth.gains import Change
    from maskprism.analysis.truth.overlaps import Overlaps
    from maskprism.analysis.tuning.validation import Fold
    from maskprism.core.prediction import Instance, Prediction
    from maskprism.datasets import Dataset
    from maskprism.models import Model, ModelSpec
    from maskprism.models.correction import Correction

AP_CONF = 0.001
_SEEN = 2000
_CANDIDATES = 4000


class TunedInstance(NamedTuple):
    """One matched instance: mask IoU on the canvas before and after, and with what fewer images give.

    Attributes
    ----------
    image, object
        The number of the image (see `Tuning.names`), and of the ground-truth instance in it.
    plain, corrected
        Under each of `settings_of` the model's rule, before and after.
    """

    image: int
    object: int
    class_id: int
    area: int
    before: float
    after: float
    curve: Mapping[int, float]
    plain: tuple[float, ...]
    corrected: tuple[float, ...]


class TunedPicture(NamedTuple):
    """A matched instance with its image (BGR), before and after, and its ground truth."""

    row: TunedInstance
    image: UInt8[np.ndarray, "H W 3"]
    before: Instance
    after: Instance
    truth: Bool[np.ndarray, "H W"]


@dataclass(frozen=True, eq=False)
class Tuning:
    """A correction for a model, and what it gains on images that took no part in it.

    Attributes
    ----------
    images
        How many were used, out of total.
    failures
        The others.
    evidence
        Instances it was fitted to, augmented and suppressed ones among them.
    rows
        Matched instances with a score above `conf`, each measured with what was fitted without its image and its fold.
    precision
        Mask AP on the canvas before and after, likewise.
    ap_gain, ap75_gain
        Of these, with intervals over images that hold for both; without ends where there are too few.
    seconds
        How long gathering, fitting and measuring took.
    names
        The images that were used, by the numbers that rows have.
    """

    dataset: Dataset
    spec: ModelSpec
    conf: float
    images: int
    total: int
    failures: Sequence[Failure]
    evidence: int
    fitted: CrossFit
    rows: Sequence[TunedInstance]
    precision: tuple[AveragePrecision, AveragePrecision]
    ap_gain: Interval
    ap75_gain: Interval
    seconds: Mapping[str, float]
    names: Sequence[str]

    @property
    def teacher(self) -> Model | None:
        """The model whose masks stand in for labels; None where there are labels."""
        return teacher_of(self.dataset)

    @property
    def correction(self) -> Correction:
        """What was fitted to all images."""
        return replace(self.fitted.correction, sha256=self.spec.sha256)

    @cached_property
    def gains(self) -> Gains:
        """Mask IoU of `rows` before and after; `change` of it is over all, `by_size` and `by_class` over groups."""
        names = self.dataset.names
        return Gains(
            image=np.array([row.image for row in self.rows], dtype=np.int64),
            before=np.array([row.before for row in self.rows]),
            after=np.array([row.after for row in self.rows]),
            areas=np.array([row.area for row in self.rows]),
            classes=[names.get(row.class_id, f"class{row.class_id}") for row in self.rows],
        )

    @cached_property
    def decode_rule(self) -> DecodeRuleChoice:
        """Crop margin and logit threshold, chosen and measured on the same folds as the correction."""
        fold_of = np.concatenate(
            [np.full(fold.stop - fold.first, number) for number, fold in enumerate(self.fitted.folds)]
        )
        plain, corrected = (
            np.array([getattr(row, name) for row in self.rows]).reshape(len(self.rows), -1).T
            for name in ("plain", "corrected")
        )
        return choose_decode_rule(self.spec.rule, self.gains, fold_of[self.gains.image], plain, corrected)

    @property
    def change(self) -> Change:
        """Over all matched instances."""
        return self.gains.change

    @property
    def helps(self) -> bool:
        """Whether the interval of the gain lies above zero; never with too few images."""
        return self.change.gain.low > 0

    def curve(self) -> list[tuple[int, Interval]]:
        """Return the gain by the number of images that a correction is fitted to.

        The last one is that of whole folds.
        """
        sizes = sorted(self.fitted.folds[0].curve)
        found = [(size, self._interval([row.curve[size] - row.before for row in self.rows])) for size in sizes]
        held_out = max(fold.stop - fold.first for fold in self.fitted.folds)
        return [*found, (self.images - held_out, self.change.gain)]

    @cached_property
    def rise(self) -> tuple[int, Interval] | None:
        """The last point of the curve but one: its number of images, and how much more whole folds gain.

        None for a curve of one point. The interval is that of the difference, over the same instances.
        """
        if not (sizes := sorted(self.fitted.folds[0].curve)):
            return None
        return sizes[-1], self._interval([row.after - row.curve[sizes[-1]] for row in self.rows])

    def pictured(self, model: Model, rows: Sequence[TunedInstance]) -> Iterator[TunedPicture]:
        """Yield some rows with both masks and the ground truth, image by image, from the model that was tuned.

        Images are read and predicted again; those that are gone are left out. The mask after is that with what was
        fitted without the image.
        """
        classes = known_classes(self.dataset, model)
        numbers = {self.names[row.image]: row.image for row in rows}
        positions = [place for place, sample in enumerate(self.dataset) if sample.name in numbers]
        model = (model.with_names(self.dataset.names) if self.dataset.by_index else model).with_correction(None)
        for visited in visit(self.dataset.take(positions), _of_all_scores(model, self.conf)):
            if isinstance(visited, Failure):
                continue
            assert visited.truth is not None
            number = numbers[visited.name]
            (fold,) = (fold for fold in self.fitted.folds if fold.first <= number < fold.stop)
            before, truth = of_classes(visited.prediction, visited.truth, classes)
            shown = before[before.scores > self.conf]
            matches = match(shown, truth)
            instances = dict(zip(matches.objects.tolist(), matches.instances.tolist(), strict=True))
            after = fold.correction.apply(shown)
            for row in rows:
                if row.image == number and (instance := instances.get(row.object)) is not None:
                    mask = truth.masks()[row.object]
                    yield TunedPicture(row, visited.image, shown[instance], after[instance], mask)

    def _interval(self, values: Sequence[float]) -> Interval:
        return claimed_interval(np.array(values), self.gains.image)


def tune(
    dataset: Dataset,
    model: Model,
    *,
    conf: float = SHOWN_CONF,
    limit: int | None = None,
    folds: int = FOLDS,
    per_level: bool | None = None,
    seed: int = 0,
    effort: Effort = FULL_EFFORT,
    engine: EngineName | Engine = "threads",
    workers: int | None = None,
    on_progress: OnProgress = lambda done, total, failure: None,
) -> Tuning:
    """Fit a correction of the mask coefficients of a model to a data set, or `limit` evenly spread images of it.

    Evidence are candidates above a score of `evidence.CONF`, in the image, in its mirror image, and, if that helps, in
    up to `effort.views` views of it that are turned, scaled, mirrored and recoloured by chance. The views, the pixels
    that are looked at, and which images make a fold follow from `seed`.

    Parameters
    ----------
    dataset
        Images with ground truth, or pseudo-labels of another model, as `pseudo_labels` gives them.
    per_level
        Whether every level of the pyramid has a correction of its own, where the outputs tell levels apart; unless
        given, only with a teacher.
    effort
        How long to search. Mean IoU counts matched instances above `conf`; AP all detections.
    engine, workers, on_progress
        See `maskprism.datasets.visit.visit`; corrections are fitted in this process, and on_progress counts steps:
        images gathered, fits, and images measured.

    Raises
    ------
    InputError
        Where data set and model share no class, nothing is labelled with a mask, or too few images have an instance
        that is found.
    ModelError
        Where the model fails on one image after the other.
    MissingExtraError
        Without SciPy.

    Examples
    --------
    >>> import maskprism
    >>> from maskprism.datasets.scenes import write_dataset
    >>> dataset = maskprism.open_dataset(write_dataset("scenes", 3, validation_share=1))
    >>> model = maskprism.load("sample")
    >>> found = maskprism.tune(dataset, model, folds=3)
    >>> found.images
    3
    >>> model = model.with_correction(found.correction) if found.helps else model
    """
    check_options(folds=folds, seed=seed, limit=limit)
    minimiser()  # says at once what is not installed
    dataset = dataset.for_model(model.spec.names)
    dataset.check_masks_count()
    teacher = teacher_of(dataset)
    model = (model.with_names(dataset.names) if dataset.by_index else model).with_correction(None)
    dataset, whole = dataset.take(spread(len(dataset), limit)), dataset
    classes = known_classes(dataset, model)
    levels = model.levels if per_level or (per_level is None and teacher is not None) else 1
    views = min(_SEEN // max(len(dataset), 1), effort.views)
    # Whether augmented views are of use is found out; a teacher draws them anew.
    seen = (False, True) if teacher is None and views else (views > 0,)
    paths = [[Setting(ridge, levels, augmented) for ridge in effort.ridges] for augmented in seen]
    done, total = 0, 2 * len(dataset) + fits(len(dataset), len(paths), folds=folds)
    clock = [time.perf_counter()]
    failures: list[Failure] = []

    def step(failure: Failure | None = None) -> None:
        nonlocal done
        done += 1
        on_progress(done, total, failure)

    with open_engine(engine, workers) as opened:
        gathered: list[_Gathered] = []
        keep = replace(model.keep, conf=CONF, iou=1.0, max_det=_CANDIDATES, multi_label=False)
        all_candidates = model.with_thresholds(keep)
        most = max(MOST // max(len(dataset), 1) // (2 + views), 1)
        gatherer = _Gatherer(all_candidates, model.keep.iou, classes, views, most, seed)
        visited = visit(dataset, all_candidates, gatherer, engine=opened, on_progress=lambda *told: step(told[2]))
        with closing(visited) as results:
            for result in results:
                if isinstance(result, Failure):
                    failures.append(result)
                else:
                    gathered.append(result)
        if not gathered:
            raise InputError(
                f"{dataset.path}: not one of {len(failures)} images can be used "
                f"(the first: {failures[0].name}: {failures[0].message})"
            )
        if not any(one.masks for one in gathered):
            whose = f"{dataset.path}: labels" if teacher is None else f"{teacher.spec.name}: finds"
            raise InputError(f"{whose} no masks of classes that the model knows; there is nothing to fit")
        gathered = [gathered[i] for i in np.random.default_rng(seed).permutation(len(gathered))]
        evidence = Evidence.joined([one.evidence for one in gathered])
        count = len(evidence)
        clock.append(time.perf_counter())
        fitted = cross_fit(
            evidence, len(gathered), paths, folds=folds, steps=effort.steps, workers=workers, on_fit=step
        )
        del evidence
        clock.append(time.perf_counter())
        measured: list[_Measured] = []
        measurer = _Measurer([fold for fold in fitted.folds for _ in range(fold.first, fold.stop)], classes, conf)
        all_scores = _of_all_scores(model, conf)
        again = dataset.take([one.number for one in gathered])
        visited_again = visit(again, all_scores, measurer, engine=opened, on_progress=lambda *told: step(told[2]))
        with closing(visited_again) as measurements:
            for measurement in measurements:
                if isinstance(measurement, Failure):
                    raise InputError(f"{measurement.name}: {measurement.message}; it could be used a while ago")
                measured.append(measurement)
        clock.append(time.perf_counter())
    before, after = ([one.overlaps[side] for one in measured] for side in (0, 1))
    ap_gain, ap75_gain = _ap_gains(before, after)
    return Tuning(
        dataset=whole,
        spec=model.spec,
        conf=conf,
        images=len(gathered),
        total=len(dataset),
        failures=failures,
        evidence=count,
        fitted=fitted,
        rows=[row for one in measured for row in one.rows],
        precision=(average_precision(before), average_precision(after)),
        ap_gain=ap_gain,
        ap75_gain=ap75_gain,
        seconds=dict(zip(("gathering", "fitting", "measuring"), np.diff(clock).tolist(), strict=True)),
        names=[sample.name for sample in again],
    )


def _of_all_scores(model: Model, conf: float) -> Model:
    """Return the model with the thresholds that AP is measured with."""
    return model.with_thresholds(replace(model.keep, conf=min(AP_CONF, conf), multi_label=True))


def check_options(*, folds: int, seed: int, limit: int | None) -> None:
    """Check what `tune` is called with.

    Raises
    ------
    InputError
        For a value out of range.
    """
    check_folds(folds)
    spread(1, limit)
    if seed < 0:
        raise InputError(f"seed is {seed}; expected 0 or more")


def _ap_gains(before: Sequence[Overlaps], after: Sequence[Overlaps]) -> list[Interval]:
    """Return what AP and AP75 gain."""
    pairs = [
        [ResampledAP(images, thresholds=thresholds) for images in (after, before)]
        for thresholds in (IOU_THRESHOLDS, (0.75,))
    ]

    def gains(weights: Float64[np.ndarray, "R I"]) -> Float64[np.ndarray, "R 2"]:
        return np.stack([new(weights) - old(weights) for new, old in pairs], axis=1)

    return intervals_of(gains, len(before), comparisons=len(pairs))


class _Gathered(NamedTuple):
    """The evidence in one image, its position in the data set, and how many masks of known classes are labelled."""

    number: int
    evidence: Evidence
    masks: int


@dataclass(frozen=True)
class _Gatherer:
    """What a worker does with one image to learn from it.

    Attributes
    ----------
    model
        Gives all candidates; those that NMS at `iou` keeps are matched.
    most
        Instances per view, at most.
    """

    model: Model
    iou: float
    classes: Sequence[int]
    views: int
    most: int
    seed: int

    def __call__(self, visited: VisitedImage[Prediction]) -> _Gathered:
        image, whole, sample = visited.image, visited.truth, visited.item
        assert isinstance(sample, Sample)
        assert whole is not None
        rng = np.random.default_rng([self.seed, visited.number])
        size_hw = (image.shape[0], image.shape[1])
        parts, masks = [], 0
        for view in range(2 + self.views):
            truth, prediction = whole, visited.prediction
            if view:
                how = Augmentation.mirror(size_hw) if view == 1 else Augmentation.drawn(rng, size_hw)
                seen, truth = sample.augmented(image, whole, how)
                prediction = predicted(self.model, seen)
            prediction, own = of_classes(prediction, truth, self.classes)
            parts.append(evidence_of(prediction, own, rng, iou=self.iou, most=self.most, augmented=view > 1))
            if not view:
                masks = int(np.count_nonzero(~own.box_only))
        return _Gathered(visited.number, Evidence.joined(parts), masks)


class _Measured(NamedTuple):
    overlaps: tuple[Overlaps, Overlaps]
    rows: list[TunedInstance]


@dataclass(frozen=True)
class _Measurer:
    """What a worker does with one image to measure the correction of its fold: `folds` has one for each image."""

    folds: Sequence[Fold]
    classes: Sequence[int]
    conf: float

    def __call__(self, visited: VisitedImage[Prediction]) -> _Measured:
        assert visited.truth is not None
        fold = self.folds[visited.number]
        before, truth = of_classes(visited.prediction, visited.truth, self.classes)
        after = fold.correction.apply(before)
        shown = before[before.scores > self.conf]
        matches = match(shown, truth)
        found = shown[matches.instances]
        true = [Region(*patch) for patch in truth.patches("canvas", shown.letterbox)]
        targets = [true[index] for index in matches.objects]

        def ious(correction: Correction) -> list[float]:
            seen = correction.apply(found)
            return [region.iou_with(target) for region, target in zip(regions(seen, "canvas"), targets, strict=True)]

        curve = {size: ious(one) for size, one in fold.curve.items()}
        plain, corrected = (setting_ious(one, targets, found.rule) for one in (found, fold.correction.apply(found)))
        rows = [
            TunedInstance(
                visited.number,
                target,
                int(truth.classes[target]),
                int(truth.areas[target]),
                float(plain[0, index]),
                float(corrected[0, index]),
                {size: values[index] for size, values in curve.items()},
                tuple(plain[:, index].tolist()),
                tuple(corrected[:, index].tolist()),
            )
            for index, target in enumerate(matches.objects.tolist())
        ]
        overlaps = (overlaps_under(before, truth, "predict"), overlaps_under(after, truth, "predict"))
        return _Measured(overlaps, rows)
