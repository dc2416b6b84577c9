"""Two models on the same images: two files of one model, or two checkpoints.

On the way from A to B everything that can differ is measured apart: the canvas (a `.pt` sees the
smallest rectangle, an export its whole square), which instances are found, their scores and
classes, and of their masks the coefficients, the prototypes and the boxes.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeVar, cast

import cv2
import numpy as np
import pyarrow as pa

from maskprism._common.parallel import open_engine
from maskprism.analysis.comparison.class_map import ClassPairs
from maskprism.analysis.comparison.input_faults import Seen, find_input_fault
from maskprism.analysis.comparison.logit_drift import LogitDrift
from maskprism.analysis.comparison.pairing import pair_instances
from maskprism.analysis.comparison.part_swaps import PARTS, loss, paired_iou, swap, swapped
from maskprism.analysis.comparison.relations import Relations, coefficient_change
from maskprism.analysis.comparison.report import INSTANCES, Case, Comparison, TruthCase
from maskprism.analysis.comparison.similarity import PrototypeSimilarity, paired_pixels
from maskprism.analysis.prototypes.covariance import RunningCovariance
from maskprism.analysis.truth.matching import match
from maskprism.analysis.truth.overlaps import Region, regions
from maskprism.core.geometry import box_iou
from maskprism.datasets.visit import Asking, Failure, OnProgress, VisitedImage, predicted, visit
from maskprism.errors import ImageError, InputError, ModelError
from maskprism.io.class_names import are_placeholders
from maskprism.io.images import source_name
from maskprism.io.sources import ImageFiles, SourceImage, VideoFile, open_source
from maskprism.models import Model, load
from maskprism.models.onnx.weights import changed_weights

if TYPE_CHECKING:
    from jaxtyping import Bool, Float64, Int64, UInt8

    from maskprism._common.choices import EngineName
    from maskprism._common.parallel import Engine
    from maskprism.analysis.comparison.report import Status
    from maskprism.analysis.comparison.similarity import Translation
    from maskprism.core.geometry import Letterbox
    from maskprism.core.prediction import Instance, Prediction
    from maskprism.datasets import GroundTruth
    from maskprism.io.images import ImageLike
    from maskprism.models.onnx.weights import ChangedWeights

Kept = TypeVar("Kept")
Truth = Callable[[Path, tuple[int, int]], "GroundTruth | None"]
"""The ground truth of an image file of (height, width), if it has one."""
_SEEN = 3
"""Images that are kept to look for a fault of the input."""


def compare(
    a: Any,
    b: Any,
    images: str | os.PathLike[str] | ImageFiles | VideoFile | Sequence[ImageLike],
    *,
    truth: Truth | None = None,
    worst: int = 6,
    engine: EngineName | Engine = "threads",
    workers: int | None = None,
    on_progress: OnProgress | None = None,
) -> Comparison:
    """Compare model B with model A over images, one after the other; memory stays bounded.

    Models that take any size are run on the canvas of the other, and on their own beside it. All
    masks are drawn under the rule of A, as large as A sees the image. Classes are the same if
    their names are; if the models share no name, by id. Where instances at the same positions
    show that classes are exchanged one to one, they are paired accordingly. If all prototypes
    differ, A is run with the usual faults of an input, to find the one that gives what B says.

    Parameters
    ----------
    a, b
        `Model`s, or anything that `maskprism.load` opens.
    images
        A folder, pattern, image, video, .txt list, or a list of images. Gone through twice if
        the prototypes of the models turn out to be no common basis, or classes to be exchanged. In the
        first case coefficients of one are translated for the other by least squares before they are exchanged,
        unless they are equal.
    truth
        The ground truth of an image file of (height, width), with the class ids of A, or None, such as
        `ground_truth` of `maskprism.analysis.truth.labels.open_labels`: then the masks of pairs are compared with it.
    worst
        How many of the pairs that differ most are kept with their images, and of those that gain and lose most.
    engine, workers, on_progress
        See `maskprism.datasets.visit.visit`; a second round adds to the total.

    Raises
    ------
    ImageError
        not a single image can be read.
    ModelError
        a model fails on every image, as with prototypes that contain NaN or infinity, or `load` cannot open it.

    Examples
    --------
    >>> import maskprism
    >>> from maskprism.datasets.scenes import draw_scene
    >>> found = maskprism.compare("sample", "sample", [draw_scene(seed).image for seed in range(3)])
    >>> found.images, found.mean_iou
    (3, 1.0)
    """
    if worst < 0:
        raise InputError(f"worst is {worst}; expected 0 or more")
    networks = _Networks.of(a if isinstance(a, Model) else load(a), b if isinstance(b, Model) else load(b))
    with open_engine(engine, workers) as opened:
        return _compared(networks, _Answers(networks, images, truth, opened, on_progress), worst)


def _compared(networks: _Networks, answers: _Answers, worst: int) -> Comparison:
    count = networks.a.spec.prototypes
    same_count = count == networks.b.spec.prototypes
    moments, drift, found = RunningCovariance(count + networks.b.spec.prototypes), LogitDrift(count), _Round(worst)
    class_pairs, relations, seen = ClassPairs(), Relations(count, same_count), list[Seen]()
    for answer in answers.round():
        moments.update(paired_pixels(answer.a, answer.b))
        pairs = pair_instances(answer.a, answer.b, moved=None)
        class_pairs.update(answer.a[pairs[:, 0]], answer.b[pairs[:, 1]])
        relations.update(answer.a, answer.b, pairs)
        if len(seen) < _SEEN and answer.comparable:
            seen.append(Seen(answer.image, answer.b.prototypes))
        if same_count:
            found.update(answer, drift)
    if not moments.weight:
        reason = next((f"{why} ({name})" for name, why in answers.failed.items()), "there is none")
        failure = ModelError if answers.failed_in else ImageError
        raise failure(f"not a single image could be compared: {reason}")
    similarity = PrototypeSimilarity(count, moments)
    relation, moved = relations.relation(similarity), class_pairs.moved(networks.a.spec.names, networks.b.spec.names)
    as_they_are = similarity.shared or relation.coefficients_equal
    if moved or not (same_count and as_they_are):
        found, drift = _Round(worst, None if as_they_are else similarity.translation, moved), LogitDrift(count)
        for answer in answers.round():
            found.update(answer, drift if similarity.shared else None)
    fault = None
    if seen and relation.may_start_in_the_input(similarity):
        fault = find_input_fault(networks.a, seen, relations.shift_xy)
    return Comparison(
        a=networks.own_a.spec,
        b=networks.own_b.spec,
        images=found.images,
        failed=answers.failed,
        failed_in=answers.failed_in,
        forced=networks.forced,
        same_canvas=found.same_canvas,
        similarity=similarity,
        instances=pa.Table.from_pylist(found.rows, schema=INSTANCES),
        drift=drift if similarity.shared else None,
        own_unmatched=found.own_unmatched if networks.forced else None,
        worst=found.worst.cases(),
        gained=found.gained.cases(),
        lost=found.lost.cases(),
        moved_classes=moved,
        relation=relation,
        input_fault=fault,
        rule_loss=float(np.mean(found.rule_losses)) if found.rule_losses else 0.0,
        weights=_changed_weights(networks),
    )


def _changed_weights(networks: _Networks) -> ChangedWeights | None:
    """Compare the files, where both are ONNX and the package onnx is there."""
    a, b = networks.own_a, networks.own_b
    files = [path for one in (a, b) if (path := getattr(one.runtime, "onnx_file", None)) is not None]
    if len(files) < 2 or a.spec.sha256 == b.spec.sha256 or find_spec("onnx") is None:
        return None
    return changed_weights(*files)


def same_canvas(a: Model, b: Model) -> tuple[Model, Model]:
    """Both models on the same canvas, where one of them takes any size: it follows the other, B if both do."""
    if a.spec.rectangular and not b.spec.rectangular:
        return a.on_canvas(b.spec.input_hw), b
    if b.spec.rectangular and (a.spec.input_hw, a.spec.rectangular) != (b.spec.input_hw, b.spec.rectangular):
        return a, b.on_canvas(a.spec.input_hw, rectangular=a.spec.rectangular)
    return a, b


@dataclass(frozen=True)
class _Answer:
    """What both models say about one image, on the same canvas and on their own, all in one frame."""

    name: str
    image: UInt8[np.ndarray, "H W 3"]
    a: Prediction
    b: Prediction
    own_a: Prediction
    own_b: Prediction
    truth: GroundTruth | None = None

    @property
    def forced(self) -> bool:
        """Whether one of the models has been given another canvas than its own."""
        return self.a is not self.own_a or self.b is not self.own_b

    @property
    def comparable(self) -> bool:
        """Whether prototypes differ, and can be compared value by value."""
        a, b = self.a.prototypes, self.b.prototypes
        return self.a.letterbox == self.b.letterbox and a.shape == b.shape and not np.array_equal(a, b)


@dataclass(frozen=True)
class _Networks:
    """Both models on the same canvas, and each on its own."""

    a: Model
    b: Model
    own_a: Model
    own_b: Model

    @classmethod
    def of(cls, a: Model, b: Model) -> _Networks:
        if len(a.spec.names) == len(b.spec.names):  # of the same model, as an export without its metadata has lost them
            if are_placeholders(a.spec.names):
                a = a.with_names(b.spec.names)
            elif are_placeholders(b.spec.names):
                b = b.with_names(a.spec.names)
        return cls(*same_canvas(a, b), a, b)

    @property
    def forced(self) -> Literal["A", "B"] | None:
        if self.a is not self.own_a:
            return "A"
        return "B" if self.b is not self.own_b else None

    @property
    def grey(self) -> bool:
        """Whether both take one channel."""
        return self.a.grey and self.b.grey

    def predict(self, image: UInt8[np.ndarray, "H W 3"]) -> _Answer | _NetworkError:
        """Return what both say about an image; or, as a value, which of them failed, and how."""
        said: dict[Model, Prediction] = {}
        failures: dict[Literal["A", "B"], str] = {}
        sides: tuple[tuple[Literal["A", "B"], set[Model]], ...] = (
            ("A", {self.a, self.own_a}),
            ("B", {self.b, self.own_b}),
        )
        for side, models in sides:
            for model in models:
                try:
                    said[model] = predicted(model, image)
                except ModelError as error:
                    failures[side] = f"{model.spec.name}: {error}"
        if failures:
            return _NetworkError("; ".join(dict.fromkeys(failures.values())), frozenset(failures))
        frame_hw = said[self.a].letterbox.content_hw
        framed = {
            model: replace(one, letterbox=replace(one.letterbox, image_hw=frame_hw)) for model, one in said.items()
        }
        return _Answer("", image, framed[self.a], framed[self.b], framed[self.own_a], framed[self.own_b])


class _NetworkError(NamedTuple):
    """One of the models, or both, fail on an image."""

    message: str
    sides: frozenset[Literal["A", "B"]]


class _Answers:
    """What the models say about the images, one after the other, in one or more rounds."""

    def __init__(
        self,
        networks: _Networks,
        images: str | os.PathLike[str] | ImageFiles | VideoFile | Sequence[ImageLike],
        truth: Truth | None,
        engine: Engine,
        on_progress: OnProgress | None,
    ) -> None:
        self.failed: dict[str, str] = {}
        self.failed_in: dict[str, frozenset[Literal["A", "B"]]] = {}
        self._networks, self._engine = networks, engine
        source = open_source(images) if isinstance(images, str | os.PathLike) else images
        if not isinstance(source, ImageFiles | VideoFile | Sequence):
            raise InputError(
                f"images is {type(images).__name__}; expected a folder, pattern, video, or a list of images"
            )
        self._total = len(source) if isinstance(source, Sequence) else source.count()
        self._source: ImageFiles | VideoFile | list[SourceImage] = (
            [SourceImage(source_name(one) or f"image {number}", cast("Any", one)) for number, one in enumerate(source)]
            if isinstance(source, Sequence)
            else source
        )
        self._truth, self._on_progress = truth, on_progress
        self._rounds = self._done = 0

    def round(self) -> Iterator[_Answer]:
        """Yield every image; one that cannot be read, or on which a model fails, is noted, and the rest goes on."""
        self._rounds += 1
        asking = Asking(self._networks.predict, self._networks.grey)
        with closing(visit(self._source, asking, partial(_answered, self._truth), engine=self._engine)) as results:
            for result in results:
                failure = None if isinstance(result, _Answer) else self._noted(result)
                if isinstance(result, _Answer):
                    yield result
                self._done += 1
                if self._on_progress:
                    total = None if self._total is None else self._total * self._rounds
                    self._on_progress(self._done, total, failure if self._rounds == 1 else None)

    def _noted(self, result: Failure | tuple[str, _NetworkError]) -> Failure:
        if not isinstance(result, Failure):
            name, error = result
            self.failed_in[name] = error.sides
            result = Failure(name, error.message, by_model=True)
        self.failed[result.name] = result.message
        return result


def _answered(
    truth: Truth | None, visited: VisitedImage[_Answer | _NetworkError]
) -> _Answer | tuple[str, _NetworkError]:
    """Return what a worker sends back about one image."""
    said, item = visited.prediction, visited.item
    if isinstance(said, _NetworkError):
        return visited.name, said
    labelled = None
    if truth is not None and isinstance(item.image, Path):
        labelled = truth(item.image, (visited.image.shape[0], visited.image.shape[1]))
    return replace(said, name=visited.name, truth=labelled)


@dataclass
class _Round:
    """The rows of the table, and the pairs that differ most."""

    keep: int
    translation: Translation | None = None
    moved_classes: Mapping[int, int] = field(default_factory=dict)
    images: int = 0
    same_canvas: bool = True
    own_unmatched: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)
    rule_losses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.worst = _Most[Case](self.keep)
        self.gained, self.lost = _Most[TruthCase](self.keep), _Most[TruthCase](self.keep)

    def update(self, answer: _Answer, drift: LogitDrift | None = None) -> None:
        """Take up one image."""
        a, b = answer.a, answer.b
        self.images += 1
        self.same_canvas &= a.letterbox.with_grid(b.letterbox.grid_hw) == b.letterbox
        pairs = pair_instances(a, b, moved=self.moved_classes)
        left, right = a[pairs[:, 0]], b[pairs[:, 1]]
        if drift is not None:
            drift.update(left, right)
        changes = swap(left, right, self.translation)
        if replace(b.rule, name="", size="image") != replace(a.rule, name="", size="image"):
            scaled = right.objectness is not None
            rules = (replace(rule, objectness=rule.objectness and scaled) for rule in (b.rule, a.rule))
            own, common = (replace(right, rule=rule).crops("image") for rule in rules)
            self.rule_losses += (1 - paired_iou(own, common)).tolist()
        columns: dict[str, Any] = {"mask_iou": 1 - changes.total}
        columns |= changes.shares | {f"path_{part}": step for part, step in changes.path().items()}
        if left.coefficients.shape == right.coefficients.shape:
            columns["coefficient_change"] = coefficient_change(left, right)
        if answer.forced:
            columns["own_canvas_iou"] = self._own_ious(answer, pairs)
        for row, (i, j) in enumerate(pairs):
            values = {column: float(value[row]) for column, value in columns.items()}
            self._add_row(answer, "matched", i, j, **values)
            differs = 1 - values["mask_iou"]
            if self.worst.wants(differs):
                self.worst.update(differs, Case(*_shown(answer, i, j), values["mask_iou"]))
        if answer.truth is not None:
            self._add_truth(answer, answer.truth, pairs)
        self._add_unmatched(answer, pairs)

    def _own_ious(self, answer: _Answer, pairs: Int64[np.ndarray, "M 2"]) -> Float64[np.ndarray, " M"]:
        """Mask IoU of the pairs when each model chooses its own canvas; NaN where one is not found there."""
        own = pair_instances(answer.own_a, answer.own_b, moved=self.moved_classes)
        self.own_unmatched += len(answer.own_a) + len(answer.own_b) - 2 * len(own)
        side = 0 if answer.own_a is answer.a else 1  # the model that is the same in both
        matched_with = {pair[side]: pair for pair in own.tolist()}
        found = np.full(len(pairs), np.nan)
        for row, pair in enumerate(pairs.tolist()):
            if pair[side] in matched_with:
                i, j = matched_with[pair[side]]
                found[row] = 1 - loss(answer.own_a[[i]], answer.own_b[[j]])[0]
        return found

    def _add_unmatched(self, answer: _Answer, pairs: Int64[np.ndarray, "M 2"]) -> None:
        alone_a = np.setdiff1d(np.arange(len(answer.a)), pairs[:, 0])
        alone_b = np.setdiff1d(np.arange(len(answer.b)), pairs[:, 1])
        changed = pair_instances(answer.a[alone_a], answer.b[alone_b], moved=None)
        for i, j in changed:
            self._add_row(answer, "class changed", alone_a[i], alone_b[j])
        for i in np.delete(alone_a, changed[:, 0]):
            self._add_row(answer, "only in A", i, None)
        for j in np.delete(alone_b, changed[:, 1]):
            self._add_row(answer, "only in B", None, j)

    def _add_row(self, answer: _Answer, status: Status, i: int | None, j: int | None, **values: float) -> None:
        entry: dict[str, Any] = {"image": answer.name, "status": status}
        for letter, prediction, index in (("a", answer.a, i), ("b", answer.b, j)):
            if index is not None:
                instance = prediction[index]
                entry[f"instance_{letter}"] = instance.index
                entry[f"class_{letter}"] = instance.name
                entry[f"score_{letter}"] = instance.score
                if prediction.levels is not None:
                    entry[f"level_{letter}"] = int(prediction.levels[index])
        if i is not None and j is not None:
            entry["box_iou"] = float(box_iou(answer.a[i].box[None], answer.b[j].box[None])[0, 0])
        self.rows.append(entry | {column: value for column, value in values.items() if np.isfinite(value)})

    def _add_truth(self, answer: _Answer, truth: GroundTruth, pairs: Int64[np.ndarray, "M 2"]) -> None:
        """Both masks of the pairs, whose rows are the last ones, against the ground-truth instance that A found."""
        left, right = answer.a[pairs[:, 0]], answer.b[pairs[:, 1]]
        first = len(self.rows) - len(pairs)
        own = _as_seen(swapped(left, right, ()), truth)
        found = match(own, truth)
        others = _as_seen(swapped(left, right, PARTS), truth)
        regions_of = [
            (list(regions(one[found.instances], "canvas")), [Region(*patch) for patch in truth.patches("canvas", box)])
            for one, box in ((own, own.letterbox), (others, others.letterbox))
        ]
        for place, (row, target) in enumerate(zip(found.instances.tolist(), found.objects.tolist(), strict=True)):
            before, after = (seen[place].iou_with(true[target]) for seen, true in regions_of)
            self.rows[first + row] |= {
                "truth_iou_a": before,
                "truth_iou_b": after,
                "truth_area": int(truth.areas[target]),
            }
            most = self.gained if after > before else self.lost
            if most.wants(abs(after - before)):
                mask = _in_content(regions_of[0][1][target], own.letterbox)
                most.update(abs(after - before), TruthCase(*_shown(answer, *pairs[row]), mask, before, after))


class _Most(Generic[Kept]):
    """The cases with the largest difference, at most n; of equal ones the first stays."""

    def __init__(self, keep: int) -> None:
        self._keep, self._added = keep, 0
        self._heap: list[tuple[float, int, Kept]] = []

    def wants(self, size: float) -> bool:
        """Return whether a case of this size is among them; one of no size is not."""
        return size > 0 and self._keep > 0 and (len(self._heap) < self._keep or size > self._heap[0][0])

    def update(self, size: float, case: Kept) -> None:
        """Take it up, and drop the smallest where there are too many."""
        self._added += 1
        heapq.heappush(self._heap, (size, -self._added, case))
        if len(self._heap) > self._keep:
            heapq.heappop(self._heap)

    def cases(self) -> tuple[Kept, ...]:
        """Return the largest first."""
        return tuple(case for *_, case in sorted(self._heap, key=lambda entry: entry[:2], reverse=True))


def _shown(answer: _Answer, i: int, j: int) -> tuple[str, UInt8[np.ndarray, "H W 3"], Instance, Instance]:
    """Return the name and the image as large as A sees it, and the pair."""
    height, width = answer.a.image_size
    small = cv2.resize(answer.image, (width, height), interpolation=cv2.INTER_AREA)
    return answer.name, small, answer.a[i], answer.b[j]


def _as_seen(prediction: Prediction, truth: GroundTruth) -> Prediction:
    """Return the prediction in the frame of the image of a ground truth."""
    return replace(prediction, letterbox=replace(prediction.letterbox, image_hw=truth.image_hw))


def _in_content(region: Region, letterbox: Letterbox) -> Bool[np.ndarray, "H W"]:
    """Return a mask on the canvas, without the padding."""
    mask = np.zeros(letterbox.canvas_hw, dtype=bool)
    mask[region.rows, region.columns] = region.inside
    (top, left), (height, width) = letterbox.offset_yx, letterbox.content_hw
    return mask[top : top + height, left : left + width]
