"""COCO: results for its evaluation, and annotations for tools that label images."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, get_args

from maskprism._common.choices import Segmentation
from maskprism.core.decoding.outlines import TOLERANCE
from maskprism.datasets.coco import open_categories
from maskprism.errors import InputError
from maskprism.integrations.rings import part_rings

if TYPE_CHECKING:
    from maskprism.core.prediction import Instance, Prediction
    from maskprism.datasets import Dataset

    Categories = Mapping[int, int | str] | Dataset | str | os.PathLike[str]

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
    image_id: int | str | None = None,
    *,
    categories: Categories | None = None,
    segmentation: Segmentation = "rle",
    tolerance: float = TOLERANCE,
    coefficients: bool = False,
) -> list[dict[str, Any]]:
    """Return the instances as COCO results; see `Prediction.to_coco`, which calls this."""
    image_id = _id_of_source(prediction) if image_id is None else image_id
    ids = category_ids(prediction.names, categories)
    if ids is None:
        ids = {class_id: class_id for class_id in sorted(set(prediction.classes.tolist()))}
        _warn_of_class_ids(prediction, list(ids))
    return [
        {
            "image_id": image_id,
            **about,
            **({"coefficients": instance.coefficients.tolist()} if coefficients else {}),
        }
        for instance, about in _entries(prediction, ids, segmentation, tolerance)
    ]


def coco_annotations(
    prediction: Prediction,
    image_id: int,
    *,
    categories: Mapping[int, int | str],
    segmentation: Segmentation = "polygons",
    tolerance: float = TOLERANCE,
) -> list[dict[str, Any]]:
    """Return the instances as annotations of a COCO json, as a labelling tool writes them.

    Parameters
    ----------
    prediction
        Of one image.
    image_id
        The id of its entry in `images`.
    categories
        The category id of each class id, such as `annotation_categories` gives.
    segmentation
        "polygons", which all labelling tools read, or "rle", which is exact. Cuts lead from outlines to their holes.
    tolerance
        How far in pixels polygons may leave the outline. Default: 0.1.

    Returns
    -------
    list of dict
        Without `id`, which counts the annotations of a whole file. Instances with an empty mask are left out.

    Raises
    ------
    InputError
        For a class without a category.
    """
    areas = prediction.areas("image")
    return [
        {"image_id": image_id, **about, "area": int(areas[instance.index]), "iscrowd": 0}
        for instance, about in _entries(prediction, categories, segmentation, tolerance)
        if areas[instance.index]
    ]


def _entries(
    prediction: Prediction, ids: Mapping[int, int | str], segmentation: Segmentation, tolerance: float
) -> Iterator[tuple[Instance, dict[str, Any]]]:
    """Yield each instance, and what results and annotations share; instances without a polygon are left out."""
    if segmentation not in get_args(Segmentation):
        raise InputError(f"segmentation is {segmentation!r}; expected 'rle' or 'polygons'")
    masks: list[Any]
    if segmentation == "rle":
        masks = [{"size": code["size"], "counts": code["counts"].decode("ascii")} for code in prediction.rle("image")]
    else:
        polygons = prediction.polygons("image", tolerance=tolerance)
        masks = [[ring.round(2).reshape(-1).tolist() for ring in part_rings(mask)] for mask in polygons]
    for instance, mask in zip(prediction, masks, strict=True):
        if instance.class_id not in ids:
            raise InputError(f"class {instance.class_id} ({instance.name}) has no category; add it to categories")
        if mask:
            x1, y1, x2, y2 = (float(side) for side in instance.box)
            yield (
                instance,
                {
                    "category_id": ids[instance.class_id],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "score": instance.score,
                    "segmentation": mask,
                },
            )


def category_ids(names: Mapping[int, str], categories: Categories | None) -> Mapping[int, int | str] | None:
    """Return the category id of each class id.

    Parameters
    ----------
    names
        Of the model's classes.
    categories
        See `Prediction.to_coco`.

    Returns
    -------
    mapping or None
        None where nothing says so: no categories are given, and the classes are not the 80 of COCO.

    Raises
    ------
    InputError
        For a file that cannot be read, or whose categories have no name of the model's.
    """
    if isinstance(categories, Mapping):
        return categories
    if isinstance(categories, str | os.PathLike):
        categories = open_categories(Path(categories))
    if categories is not None:
        rows = list(categories.for_model(names).class_ids.items())
        return {class_id: row for row, class_id in reversed(rows)}
    official = {name: number for number, name in enumerate(COCO_NAMES, start=1) if name}
    plain = {class_id: " ".join(name.lower().split()) for class_id, name in names.items()}
    known = {class_id: official[name] for class_id, name in plain.items() if name in official}
    return known if len(known) == len(official) == len(set(known.values())) else None


def annotation_categories(names: Mapping[int, str], categories: Categories | None) -> Mapping[int, int | str]:
    """Return the category id of each class id for a file that lists its categories itself.

    As `category_ids`; without categories they are the class ids plus 1, because tools take 0 for the background.
    """
    ids = category_ids(names, categories)
    return {class_id: class_id + 1 for class_id in names} if ids is None else ids


def _id_of_source(prediction: Prediction) -> int | str:
    """Return the name of the image's file without its suffix, as a number where it is one.

    As in COCO, and Ultralytics.
    """
    if prediction.source is None:
        raise InputError("the prediction was made from an array, which has no name; give the image_id")
    stem = PurePosixPath(prediction.source.replace("\\", "/")).stem
    return int(stem) if stem.isascii() and stem.isdigit() else stem


def _warn_of_class_ids(prediction: Prediction, used: list[int]) -> None:
    if used:
        listed = ", ".join(f"{class_id} ({prediction.name_of(class_id)})" for class_id in used[:5])
        warnings.warn(
            f"category ids are the class ids of the model, which begin with 0: {listed}{', ...' * (len(used) > 5)}; if "
            "the annotation file numbers its categories otherwise, name it with categories=",
            stacklevel=4,
        )
