"""FiftyOne: instances as a field of a sample; what `maskprism labels` says of its labels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from maskprism._common.extras import require
from maskprism.analysis.truth.matching import FOUND_IOU
from maskprism.core.geometry import box_iou
from maskprism.tables.judged_labels import JudgedLabels

if TYPE_CHECKING:
    from jaxtyping import Float64

    from maskprism.core.prediction import Prediction
    from maskprism.tables.judged_labels import LabelRow


def to_fiftyone(prediction: Prediction) -> Any:
    """Return the instances as `fiftyone.Detections`: `sample["maskprism"] = to_fiftyone(prediction)`.

    Parameters
    ----------
    prediction
        Of the sample's image.

    Returns
    -------
    fiftyone.Detections
        Boxes are shares of the image, x, y, width, height, widened to whole pixels, because FiftyOne stretches the mask
        of an object over its box. `coefficients` is a list of K numbers, which `compute_visualization` and
        `compute_similarity` take as embeddings.

    Raises
    ------
    MissingExtraError
        If FiftyOne is not installed.
    """
    fiftyone = require("fiftyone", "to_fiftyone")
    height, width = prediction.image_size
    found = []
    for instance in prediction:
        left, top = np.floor(instance.box[:2]).astype(int).tolist()
        right, bottom = np.ceil(instance.box[2:]).astype(int).tolist()
        right, bottom = min(max(right, left + 1), width), min(max(bottom, top + 1), height)
        left, top = min(left, right - 1), min(top, bottom - 1)
        found.append(
            fiftyone.Detection(
                label=instance.name,
                bounding_box=[left / width, top / height, (right - left) / width, (bottom - top) / height],
                confidence=instance.score,
                mask=instance.mask("image")[top:bottom, left:right],
                coefficients=instance.coefficients.tolist(),
            )
        )
    return fiftyone.Detections(detections=found)


class MarkedLabels(NamedTuple):
    """How many labels of the table were marked, and how many have no counterpart in the FiftyOne data set."""

    marked: int
    unmatched: int


def mark_labels(dataset: Any, table: str | os.PathLike[str], field: str = "ground_truth") -> MarkedLabels:
    """Set `mask_suspicion` and `mask_issue` of the labels of a FiftyOne data set, from the table of `maskprism labels`.

    Parameters
    ----------
    dataset
        A `fiftyone.Dataset` or view whose samples are the images that were judged.
    table
        `labels.parquet`, or the folder that holds it.
    field
        The field with the labels: `Detections` or `Polylines`.

    Returns
    -------
    MarkedLabels
        Images are matched by the end of their path, labels by their `coco_id` where FiftyOne imported it, else by class
        and box (IoU of at least 0.5, the best pairs first). Labels that could not be judged get no suspicion.

    Raises
    ------
    TableError
        If the table cannot be read.
    """
    judged = JudgedLabels.read(table)
    total = sum(row.label_id is not None for rows in judged.images.values() for row in rows)
    marked = 0
    dataset.compute_metadata()
    for sample in dataset.iter_samples(autosave=True):
        labels = sample[field]
        if labels is None:
            continue
        rows = [row for row in judged.of(sample.filepath) if row.label_id is not None]
        objects = labels.detections if hasattr(labels, "detections") else labels.polylines
        for row, label in _pairs(rows, objects, (sample.metadata.width, sample.metadata.height)):
            label["mask_suspicion"], label["mask_issue"] = row.suspicion, row.kind
            marked += 1
    return MarkedLabels(marked, total - marked)


def _pairs(rows: Sequence[LabelRow], labels: Sequence[Any], size: tuple[int, int]) -> list[tuple[LabelRow, Any]]:
    """Return which row of the table is which label of an image of (width, height)."""
    ids = {str(label["coco_id"]): label for label in labels if _has(label, "coco_id")}
    if ids:
        return [(row, ids[str(row.label_id)]) for row in rows if str(row.label_id) in ids]
    if not rows or not labels:
        return []
    boxes = np.array([_box_of(label) for label in labels]) * np.array([*size, *size])
    overlaps = np.array(box_iou(np.array([row.box for row in rows], dtype=np.float32), boxes.astype(np.float32)))
    overlaps *= np.array([[row.class_name == label.label for label in labels] for row in rows])
    pairs: list[tuple[LabelRow, Any]] = []
    for place in np.argsort(-overlaps, axis=None, kind="stable").tolist():
        first, second = divmod(place, len(labels))
        if overlaps[first, second] >= FOUND_IOU:
            pairs.append((rows[first], labels[second]))
            overlaps[first], overlaps[:, second] = 0, 0
    return pairs


def _has(label: Any, name: str) -> bool:
    return label.has_field(name) and label[name] is not None


def _box_of(label: Any) -> Float64[np.ndarray, " 4"]:
    """Return x1, y1, x2, y2 as shares of the image."""
    if hasattr(label, "bounding_box"):
        x, y, width, height = label.bounding_box
        return np.array([x, y, x + width, y + height])
    points = np.concatenate([np.reshape(ring, (-1, 2)) for ring in label.points])
    return np.array([*points.min(axis=0), *points.max(axis=0)])
