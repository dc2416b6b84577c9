"""Predictions for other tools: supervision, FiftyOne and COCO results, each with its coefficients.

Tables need nothing of this: pandas, polars, DuckDB and Hugging Face `datasets` read their Parquet directly.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from maskprism._common.extras import require
from maskprism.datasets.coco import open_categories
from maskprism.errors import InputError

if TYPE_CHECKING:
    from maskprism.core.prediction import Prediction
    from maskprism.datasets import Dataset

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
            f"the detections refer to instance {chosen.max()}; the prediction has {len(prediction)}. Is it another one?"
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


COCO_NAMES = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,,stop sign,parking meter,"
    "bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,,backpack,umbrella,,,handbag,tie,suitcase,frisbee,"
    "skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,,wine glass,"
    "cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,"
    "potted plant,bed,,dining table,,,toilet,,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,"
    "refrigerator,,book,clock,vase,scissors,teddy bear,hair drier,toothbrush"
).split(",")
"""The 80 classes of COCO at their place among the 90 category ids of its annotation files, which begin with 1."""


def coco_results(
    prediction: Prediction,
    image_id: int | str,
    *,
    categories: Mapping[int, int] | Dataset | str | os.PathLike[str] | None = None,
) -> list[dict[str, Any]]:
    """The instances as COCO results, for `json.dump` and COCO's own evaluation.

    Parameters
    ----------
    prediction
        What the model found in one image.
    image_id
        The id of the image in the annotation file.
    categories
        Where category ids come from: the annotation file (a COCO json, or the data set that `open_dataset` gives for
        it), whose categories have the names of the model's classes, or the category id of each class id. Default: for
        the 80 classes of COCO their official ids (1 to 90), whatever their order; for other classes the class ids,
        which begin with 0, with a warning that says so.

    Returns
    -------
    list
        One dictionary per instance, with `segmentation` as compressed RLE. Besides the fields of COCO each has
        `coefficients`, which its tools ignore.

    Raises
    ------
    InputError
        For a class without a category.
    """
    from faster_coco_eval.core import mask as rle

    ids = _category_ids(prediction, categories)
    found = []
    for instance in prediction:
        if instance.class_id not in ids:
            raise InputError(f"class {instance.class_id} ({instance.name}) has no category; add it to categories")
        code = rle.encode(np.asfortranarray(instance.mask("image").astype(np.uint8)))
        x1, y1, x2, y2 = (float(value) for value in instance.box)
        found.append(
            {
                "image_id": image_id,
                "category_id": ids[instance.class_id],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": instance.score,
                "segmentation": {"size": list(prediction.image_size), "counts": _text(code["counts"])},
                "coefficients": instance.coefficients.tolist(),
            }
        )
    return found


def _category_ids(
    prediction: Prediction, categories: Mapping[int, int] | Dataset | str | os.PathLike[str] | None
) -> Mapping[int, int | str]:
    """The category id of each class id."""
    if isinstance(categories, Mapping):
        return categories
    if isinstance(categories, str | os.PathLike):
        categories = open_categories(Path(categories))
    if categories is not None:
        rows = list(categories.for_model(prediction.names).class_ids.items())
        return {class_id: row for row, class_id in reversed(rows)}
    official = {name: number for number, name in enumerate(COCO_NAMES, start=1) if name}
    named = {class_id: " ".join(name.lower().split()) for class_id, name in prediction.names.items()}
    known = {class_id: official[name] for class_id, name in named.items() if name in official}
    if len(known) == len(official) == len(set(known.values())):
        return known
    used = sorted({int(class_id) for class_id in prediction.classes})
    if used:
        listed = ", ".join(f"{class_id} ({prediction.name_of(class_id)})" for class_id in used[:5])
        warnings.warn(
            f"category ids are the class ids of the model, which begin with 0: {listed}{', ...' * (len(used) > 5)}; if "
            "the annotation file numbers its categories otherwise, name it with categories=",
            stacklevel=3,
        )
    return {class_id: class_id for class_id in used}


def _text(counts: bytes | str) -> str:
    return counts.decode("ascii") if isinstance(counts, bytes) else counts
