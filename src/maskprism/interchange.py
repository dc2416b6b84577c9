"""Predictions for other tools: supervision, FiftyOne and COCO results, each with its coefficients.

Tables need nothing of this: pandas, polars, DuckDB and Hugging Face `datasets` read their Parquet as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from maskprism._common.extras import require
from maskprism.errors import InputError

if TYPE_CHECKING:
    from maskprism.prediction import Prediction

_INSTANCE = "instance"
"""Under this name supervision carries which instance of the prediction a detection is."""


def to_supervision(prediction: Prediction) -> Any:
    """The instances as `supervision.Detections`, with masks of the image's size.

    `data` has `class_name` (as supervision's annotators want it), `instance`, the number of the instance, and
    `coefficients`, (N, K). Raises MissingExtraError where supervision is not installed, and InputError for masks that
    do not fit into memory together.
    """
    supervision = require("supervision", "to_supervision")
    return supervision.Detections(
        xyxy=prediction.boxes.astype(np.float32),
        mask=prediction.masks("image"),
        confidence=prediction.scores.astype(np.float32),
        class_id=prediction.classes.astype(int),
        data={
            "class_name": np.array([prediction.name_of(class_id) for class_id in prediction.classes], dtype=np.str_),
            _INSTANCE: np.arange(len(prediction)),
            "coefficients": prediction.coefficients,
        },
    )


def from_supervision(detections: Any, prediction: Prediction) -> Prediction:
    """The instances of a prediction that are left of its detections, in their order, with their coefficients.

    `detections` come from `to_supervision(prediction)` and were filtered, sorted, or had coefficients changed. Raises
    InputError for detections that do not.
    """
    data = getattr(detections, "data", None)
    if not isinstance(data, Mapping) or not {_INSTANCE, "coefficients"} <= data.keys():
        raise InputError(
            "these detections do not say which instances they are; expected detections of to_supervision, whose data "
            f"has {_INSTANCE!r} and 'coefficients'"
        )
    chosen = np.asarray(data[_INSTANCE], dtype=np.int64).reshape(-1)
    if ((chosen < 0) | (chosen >= len(prediction))).any():
        raise InputError(
            f"the detections speak of instance {chosen.max()}; the prediction has {len(prediction)}. Is it another one?"
        )
    coefficients = np.asarray(data["coefficients"], dtype=np.float32)
    expected = (len(chosen), prediction.coefficients.shape[1])
    if coefficients.size and coefficients.shape != expected:
        raise InputError(f"coefficients have shape {coefficients.shape}; expected {expected}")
    return replace(prediction[chosen], coefficients=coefficients.reshape(expected))


def to_fiftyone(prediction: Prediction) -> Any:
    """The instances as `fiftyone.Detections`: a sample's field, as in `sample["maskprism"] = to_fiftyone(prediction)`.

    Boxes are shares of the image, x, y, width, height, widened to whole pixels, because FiftyOne stretches the mask
    of an object over its box. `coefficients` is a list of K numbers, which `compute_visualization` and
    `compute_similarity` take as embeddings. Raises MissingExtraError where FiftyOne is not installed.
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


def coco_results(
    prediction: Prediction, image_id: int | str, *, categories: Mapping[int, int] | None = None
) -> list[dict[str, Any]]:
    """The instances as COCO results: a list for `json.dump`, with `segmentation` as compressed RLE.

    categories: the category id of each class id; the class id itself unless given. Besides the fields of COCO every
    result has `coefficients`, which its tools ignore. Raises InputError for a class without a category.
    """
    from faster_coco_eval.core import mask as rle

    found = []
    for instance in prediction:
        if categories is not None and instance.class_id not in categories:
            raise InputError(f"class {instance.class_id} ({instance.name}) has no category; add it to categories")
        code = rle.encode(np.asfortranarray(instance.mask("image").astype(np.uint8)))
        x1, y1, x2, y2 = (float(value) for value in instance.box)
        found.append(
            {
                "image_id": image_id,
                "category_id": instance.class_id if categories is None else categories[instance.class_id],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": instance.score,
                "segmentation": {"size": list(prediction.image_size), "counts": _text(code["counts"])},
                "coefficients": instance.coefficients.tolist(),
            }
        )
    return found


def _text(counts: bytes | str) -> str:
    return counts.decode("ascii") if isinstance(counts, bytes) else counts
