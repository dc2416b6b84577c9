"""Data sets of COCO: one json with polygons and run lengths."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from maskprism.datasets.samples import Dataset, Row, Rows
from maskprism.errors import InputError, LabelError
from maskprism.sources import ImageFiles

if TYPE_CHECKING:
    from maskprism.datasets.truth import Bitmap
    from maskprism.sources import SourceImage


@dataclass(frozen=True)
class CocoAnnotations:
    """The annotations of a COCO json, by the path of the image."""

    file: Path
    images: Mapping[Path, Mapping[str, Any]]
    annotations: Mapping[Any, Sequence[Mapping[str, Any]]]
    categories: frozenset[int]

    def of(self, image: SourceImage, image_hw: tuple[int, int]) -> Rows:
        """The annotations of one image."""
        assert isinstance(image.image, Path)
        entry = self.images[image.image]
        stated = (entry.get("height"), entry.get("width"))
        if None not in stated and stated != image_hw:
            raise LabelError(
                f"{self.file}: says that {image.name} is {stated[1]} x {stated[0]} pixels; "
                f"it is {image_hw[1]} x {image_hw[0]}"
            )
        rows, remarks = [], []
        for annotation in self.annotations.get(entry["id"], ()):
            try:
                row = self._row(annotation, image_hw)
            except (ValueError, TypeError, KeyError) as error:
                what = f"has no {error}" if isinstance(error, KeyError) else str(error)
                raise LabelError(f"{self.file}, annotation {annotation.get('id', '?')}: {what}") from None
            rows.append(row)
            if row.segment is None:
                remarks.append(f"{self.file}, annotation {annotation.get('id', '?')}: a box without a mask")
        return Rows(rows, tuple(remarks))

    def _row(self, annotation: Mapping[str, Any], image_hw: tuple[int, int]) -> Row:
        category = annotation["category_id"]
        if category not in self.categories:
            raise ValueError(f"category {category!r} is none of the file's categories")
        segmentation, crowd = annotation.get("segmentation"), bool(annotation.get("iscrowd", 0))
        if isinstance(segmentation, dict):
            return Row(category, _bitmap(segmentation, image_hw), crowd=crowd)
        polygons = []
        for one in segmentation or ():
            points = np.array(one, dtype=np.float32)
            if points.ndim != 1 or len(points) % 2 or len(points) < 6 or not np.isfinite(points).all():
                raise ValueError(f"a polygon has {points.size} numbers; expected x1 y1 x2 y2 x3 y3 ..., all finite")
            polygons.append(points.reshape(-1, 2))
        if polygons:
            return Row(category, tuple(polygons), crowd=crowd)
        x, y, w, h = (float(side) for side in annotation["bbox"])
        if not np.isfinite([x, y, w, h]).all():
            raise ValueError(f"bbox is {annotation['bbox']}; expected four finite numbers")
        return Row(category, None, (x, y, x + w, y + h), crowd)


def _bitmap(encoded: Mapping[str, Any], image_hw: tuple[int, int]) -> Bitmap:
    """The mask of run lengths: along columns, beginning with the background."""
    counts, size = encoded["counts"], tuple(encoded["size"])
    if size != image_hw:
        raise ValueError(f"its mask is {size[1]} x {size[0]} pixels; the image is {image_hw[1]} x {image_hw[0]}")
    if isinstance(counts, str | bytes):
        from faster_coco_eval.core.mask import decode

        packed = counts.encode() if isinstance(counts, str) else counts
        return np.asarray(decode({"size": list(size), "counts": packed}), dtype=bool)
    runs = np.array(counts, dtype=np.int64)
    if runs.ndim != 1 or (runs < 0).any() or runs.sum() != size[0] * size[1]:
        raise ValueError(f"its run lengths add up to {runs.sum()}; expected {size[0] * size[1]} pixels")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(size[::-1]).T


def open_coco(file: Path, folder: Path | None) -> Dataset:
    """The data set of a COCO json; images lie in `folder`, or where `_images_of` finds them."""
    try:
        described = json.loads(file.read_text(encoding="utf-8-sig"))
        categories = {category["id"]: str(category["name"]) for category in described["categories"]}
        entries = {str(entry["file_name"]): entry for entry in described["images"]}
        annotations: dict[Any, list[Mapping[str, Any]]] = {entry["id"]: [] for entry in entries.values()}
        for annotation in described["annotations"]:
            annotations.setdefault(annotation["image_id"], []).append(annotation)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise InputError(f"{file}: cannot be read as json ({error})") from None
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{file}: is no COCO annotation file ({error!r}); expected images, annotations and categories with masks"
        ) from None
    if not entries or not categories:
        raise InputError(f"{file}: lists {len(entries)} images and {len(categories)} categories; expected some of both")
    root = folder if folder is not None else _images_of(file, next(iter(entries)))
    paths = {Path(os.path.normpath(root.resolve() / name)): entry for name, entry in entries.items()}
    if not any(path.is_file() for path in paths):
        raise InputError(f"{file}: none of its {len(paths)} images is in {root}; name their folder with images")
    ordered = sorted(categories)
    return Dataset(
        file,
        None,
        {index: categories[category] for index, category in enumerate(ordered)},
        ImageFiles(root.resolve(), tuple(paths)),
        CocoAnnotations(file, paths, annotations, frozenset(ordered)),
        {category: index for index, category in enumerate(ordered)},
    )


def _images_of(file: Path, first: str) -> Path:
    """The folder of the images: beside the json, or as COCO and the tools that write its format lay it out."""
    split = file.stem.removeprefix("instances_")
    above = file.parent.parent
    candidates = [file.parent, file.parent / "images", above / split, above / "images" / split, above / "images", above]
    for folder in candidates:
        if (folder / first).is_file():
            return folder
    looked = ", ".join(str(folder) for folder in candidates)
    raise InputError(f"{file}: its image {first} is in none of {looked}; name their folder with images")
