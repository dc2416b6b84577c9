"""Data sets of COCO: one json with polygons and run lengths."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import numpy as np
from msgspec import Meta, Raw, Struct

from maskprism.class_names import class_names
from maskprism.datasets.samples import Dataset, Row, Rows
from maskprism.errors import InputError, LabelError
from maskprism.foreign import decode_json, is_file, read_regular, shortened
from maskprism.sources import ImageFiles

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    from maskprism.datasets.truth import Bitmap, Polygon
    from maskprism.sources import SourceImage

T = TypeVar("T")
_EXPECTED = "a COCO annotation file with images, annotations and categories"


class Category(Struct):
    """An entry of `categories`."""

    id: int
    name: str | int | float | bool | None


class Entry(Struct):
    """An entry of `images`."""

    id: int | str
    file_name: str
    height: int | None = None
    width: int | None = None


class RunLengths(Struct):
    """A mask as run lengths along columns, beginning with the background; compressed to text, or as numbers."""

    size: tuple[int, int]
    counts: str | list[Annotated[int, Meta(ge=0)]]


class Annotation(Struct):
    """An entry of `annotations`."""

    category_id: int
    id: int | str = "?"
    segmentation: list[list[float]] | RunLengths | None = None
    bbox: tuple[float, float, float, float] | None = None
    iscrowd: bool | None = None


class _Described(Struct):
    """The whole file. Annotations are read when their image is: a mistake in one costs that image and no other."""

    images: list[Entry]
    annotations: list[Raw]
    categories: list[Category]


class _Categories(Struct):
    categories: list[Category]


class _Belonging(Struct):
    image_id: int | str


@dataclass(frozen=True)
class CocoAnnotations:
    """The annotations of a COCO json, by the path of the image."""

    file: Path
    images: Mapping[Path, Entry]
    annotations: Mapping[int | str, Sequence[Raw]]
    categories: frozenset[int]

    def of(self, image: SourceImage, image_hw: tuple[int, int]) -> Rows:
        """The annotations of one image."""
        assert isinstance(image.image, Path)
        entry = self.images[image.image]
        stated = (entry.height, entry.width)
        if None not in stated and stated != image_hw:
            raise LabelError(
                f"{self.file}: says that {image.name} is {stated[1]} x {stated[0]} pixels; "
                f"it is {image_hw[1]} x {image_hw[0]}"
            )
        rows, remarks = [], []
        for number, raw in enumerate(self.annotations.get(entry.id, ())):
            label = f"{self.file}, {image.name}, its annotation {number}"
            annotation = decode_json(raw, Annotation, label, LabelError, "category_id, and segmentation or bbox")
            label = f"{self.file}, annotation {shortened(annotation.id) if annotation.id != '?' else number}"
            try:
                row = self._row(annotation, image_hw)
            except ValueError as error:
                raise LabelError(f"{label}: {error}") from None
            rows.append(row)
            if row.segment is None:
                remarks.append(f"{label}: a box without a mask")
        return Rows(rows, tuple(remarks))

    def _row(self, annotation: Annotation, image_hw: tuple[int, int]) -> Row:
        category, segmentation, crowd = annotation.category_id, annotation.segmentation, bool(annotation.iscrowd)
        if category not in self.categories:
            raise ValueError(f"category {category} is none of the file's categories")
        if isinstance(segmentation, RunLengths):
            return Row(category, _bitmap(segmentation, image_hw), crowd=crowd)
        if segmentation:
            return Row(category, tuple(_polygon(numbers) for numbers in segmentation), crowd=crowd)
        if annotation.bbox is None:
            raise ValueError("has neither a segmentation nor a bbox")
        x, y, w, h = annotation.bbox
        return Row(category, None, (x, y, x + w, y + h), crowd)


def _polygon(numbers: Sequence[float]) -> Polygon:
    if len(numbers) % 2 or len(numbers) < 6:
        raise ValueError(f"a polygon has {len(numbers)} numbers; expected x1 y1 x2 y2 x3 y3 ...")
    with np.errstate(over="ignore"):
        points = np.array(numbers, dtype=np.float32)
    if not np.isfinite(points).all():
        raise ValueError("a polygon has a number that is too large for a pixel")
    return points.reshape(-1, 2)


def _bitmap(encoded: RunLengths, image_hw: tuple[int, int]) -> Bitmap:
    """The mask of run lengths: along columns, beginning with the background."""
    height, width = encoded.size
    if encoded.size != image_hw:
        raise ValueError(f"its mask is {width} x {height} pixels; the image is {image_hw[1]} x {image_hw[0]}")
    if isinstance(encoded.counts, str):
        from faster_coco_eval.core.mask import decode

        try:
            return np.asarray(decode({"size": [height, width], "counts": encoded.counts.encode()}), dtype=bool)
        except (RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"its compressed run lengths are damaged ({error})") from None
    if sum(encoded.counts) != height * width:
        raise ValueError(f"its run lengths add up to {sum(encoded.counts)}; expected {height * width} pixels")
    runs = np.array(encoded.counts, dtype=np.int64)
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T


def read_categories(file: Path) -> dict[int, str]:
    """The class names of a COCO json, ids counted from 0 in the order of the categories' ids. Raises InputError."""
    described = decode_json(read_regular(file, InputError), _Categories, str(file), InputError, _EXPECTED)
    return class_names([one.name for one in _in_order(file, described.categories)], str(file), InputError)


def _in_order(file: Path, categories: Iterable[Category]) -> list[Category]:
    found = _by(lambda one: one.id, categories, file, "categories")
    return [found[category_id] for category_id in sorted(found)]


def _by(key: Callable[[T], Hashable], entries: Iterable[T], file: Path, kind: str) -> dict[Any, T]:
    """The entries by what should tell them apart. Raises InputError where it does not."""
    found: dict[Any, T] = {}
    for entry in entries:
        if found.setdefault(key(entry), entry) is not entry:
            raise InputError(f"{file}: two of its {kind} have {shortened(key(entry))}; expected it once")
    return found


def open_coco(file: Path, folder: Path | None) -> Dataset:
    """The data set of a COCO json; images lie in `folder`, or where `_images_of` finds them."""
    described = decode_json(read_regular(file, InputError), _Described, str(file), InputError, _EXPECTED)
    annotations: dict[int | str, list[Raw]] = {}
    for number, annotation in enumerate(described.annotations):
        belonging = decode_json(annotation, _Belonging, f"{file}, annotation {number}", InputError, "image_id")
        annotations.setdefault(belonging.image_id, []).append(annotation)
    if not described.images or not described.categories:
        raise InputError(
            f"{file}: lists {len(described.images)} images and {len(described.categories)} categories; "
            "expected some of both"
        )
    _by(lambda one: one.id, described.images, file, "images")
    root = (folder if folder is not None else _images_of(file, described.images[0].file_name)).resolve()
    paths = _by(lambda one: Path(os.path.normpath(root / one.file_name)), described.images, file, "images")
    if not any(is_file(path) for path in paths):
        raise InputError(f"{file}: none of its {len(paths)} images is in {root}; name their folder with images")
    categories = _in_order(file, described.categories)
    return Dataset(
        file,
        None,
        class_names([one.name for one in categories], str(file), InputError),
        ImageFiles(root, tuple(paths)),
        CocoAnnotations(file, paths, annotations, frozenset(one.id for one in categories)),
        {one.id: index for index, one in enumerate(categories)},
    )


def _images_of(file: Path, first: str) -> Path:
    """The folder of the images: beside the json, or as COCO and the tools that write its format lay it out."""
    split = file.stem.removeprefix("instances_")
    above = file.parent.parent
    candidates = [file.parent, file.parent / "images", above / split, above / "images" / split, above / "images", above]
    for folder in candidates:
        if is_file(folder / first):
            return folder
    looked = ", ".join(str(folder) for folder in candidates)
    raise InputError(f"{file}: its image {shortened(first)} is in none of {looked}; name their folder with images")
