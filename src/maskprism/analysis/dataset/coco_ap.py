"""COCO's average precision, from detections, ground truth, and how much each pair overlaps."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from maskprism.analysis.truth.overlaps import SIZES

if TYPE_CHECKING:
    from jaxtyping import Float64

    from maskprism.analysis.truth.overlaps import Overlaps

MAX_PER_CLASS = 100
"""Detections of one class in one image that COCO looks at."""


class ClassPrecision(NamedTuple):
    """AP of one class and the number of its ground-truth instances, crowds not counted."""

    ap: float
    ap50: float
    objects: int


@dataclass(frozen=True)
class AveragePrecision:
    """COCO's metrics, 0 to 1; nan where there is no ground-truth instance to find.

    Attributes
    ----------
    ap
        Mean over IoU thresholds .50, .55 ... .95 and over classes.
    ap50, ap75
        At one threshold.
    recall
        Mean over thresholds and classes.
    by_size
        AP of small, medium and large objects.
    """

    ap: float
    ap50: float
    ap75: float
    recall: float
    by_size: dict[str, float]
    by_class: dict[int, ClassPrecision]


def average_precision(images: Iterable[Overlaps]) -> AveragePrecision:
    """COCO's average precision, by `faster-coco-eval`, from overlaps that are known already.

    Takes overlaps of masks at any size, or of boxes. Classes without a ground-truth instance do not
    count, as in COCO's own evaluation. `by_size` is nan unless all images tell areas.

    Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014.
    """
    images = list(images)
    sized = all(image.areas is not None and image.true_areas is not None for image in images)
    objects, precision, recall = _evaluate(images)
    by_size = {size: _mean(precision[..., i]) if sized else math.nan for i, size in enumerate(SIZES, 1)}
    by_class = {
        class_id: ClassPrecision(_mean(precision[:, :, i, 0]), _mean(precision[0, :, i, 0]), count)
        for i, (class_id, count) in enumerate(objects.items())
        if count
    }
    return AveragePrecision(
        ap=_mean(precision[..., 0]),
        ap50=_mean(precision[0, ..., 0]),
        ap75=_mean(precision[5, ..., 0]),
        recall=_mean(recall[..., 0]),
        by_size=by_size,
        by_class=by_class,
    )


def class_precision_at(images: Iterable[Overlaps], threshold: float) -> dict[int, float]:
    """COCO's average precision at one IoU threshold of every class that has ground-truth instances."""
    objects, precision, _ = _evaluate(list(images), (threshold,))
    return {class_id: _mean(precision[0, :, i, 0]) for i, (class_id, count) in enumerate(objects.items()) if count}


def _mean(values: Float64[np.ndarray, "..."]) -> float:
    """Without the entries (-1) for which there was nothing to find."""
    told = values[values > -1]
    return float(told.mean()) if told.size else math.nan


def _evaluate(
    images: Sequence[Overlaps], thresholds: Sequence[float] | None = None
) -> tuple[dict[int, int], Float64[np.ndarray, "T R K S"], Float64[np.ndarray, "T K S"]]:
    """Objects per class, and precision and recall as COCO accumulates them (-1 where there is nothing to find).

    Sizes are "all" and then those of SIZES.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    class OfKnownOverlaps(COCOeval_faster):  # type: ignore[misc, unused-ignore]
        """Instead of comparing masks it looks up what is known, best detections first."""

        def computeIoU(self, imgId: int, catId: int) -> Any:  # noqa: N802, N803
            image = images[imgId]
            rows = np.flatnonzero(image.classes == catId)
            rows = rows[np.argsort(-image.scores[rows], kind="mergesort")][:MAX_PER_CLASS]
            columns = np.flatnonzero(image.true_classes == catId)
            return image.iou[np.ix_(rows, columns)] if len(rows) and len(columns) else []

    objects = dict.fromkeys(sorted({int(c) for image in images for c in image.true_classes}), 0)
    for image in images:
        for class_id in image.true_classes[~image.crowd]:
            objects[int(class_id)] += 1
    if not objects:
        return {}, np.full((10, 1, 1, 4), -1.0), np.full((10, 1, 4), -1.0)
    described = {"images": [{"id": i} for i in range(len(images))], "categories": [{"id": c} for c in objects]}
    truth = COCO(described | {"annotations": list(_truths(images))})
    found = COCO(described | {"annotations": list(_findings(images, objects))})
    evaluation = OfKnownOverlaps(truth, found, "bbox", ranges={name: list(limits) for name, limits in SIZES.items()})
    evaluation.params.maxDets = [MAX_PER_CLASS]
    if thresholds is not None:
        evaluation.params.iouThrs = np.array(thresholds)
    evaluation.evaluate()
    evaluation.accumulate()
    return objects, evaluation.eval["precision"][..., -1], evaluation.eval["recall"][..., -1]


def _truths(images: Sequence[Overlaps]) -> Iterator[dict[str, Any]]:
    """Ground-truth instances as COCO writes them; ids count from 1."""
    number = itertools.count(1)
    for image_id, image in enumerate(images):
        areas = image.true_areas if image.true_areas is not None else np.ones(len(image.true_classes))
        for class_id, area, crowd in zip(image.true_classes, areas, image.crowd, strict=True):
            yield {
                "id": next(number),
                "image_id": image_id,
                "category_id": int(class_id),
                "area": float(area),
                "iscrowd": int(crowd),
            }


def _findings(images: Sequence[Overlaps], classes: Collection[int]) -> Iterator[dict[str, Any]]:
    """Yield detections as COCO writes them, of classes that have ground-truth instances somewhere."""
    number = itertools.count(1)
    for image_id, image in enumerate(images):
        areas = image.areas if image.areas is not None else np.ones(len(image.scores))
        for class_id, area, score in zip(image.classes, areas, image.scores, strict=True):
            if class_id in classes:
                yield {
                    "id": next(number),
                    "image_id": image_id,
                    "category_id": int(class_id),
                    "area": float(area),
                    "score": float(score),
                }
