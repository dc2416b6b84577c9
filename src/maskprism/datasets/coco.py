"""Data sets of COCO: one json with polygons and RLE."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import numpy as np
from msgspec import Meta, Raw, Struct

from maskprism._common.text import counted
from maskprism.datasets.ground_truth import run_lengths
from maskprism.datasets.lookup import find_images, looked_in, missing_notice
from maskprism.datasets.samples import Annotation, Dataset, ImageAnnotations
from maskprism.errors import InputError, LabelError
from maskprism.io.class_names import parse_class_names
from maskprism.io.sources import ImageFiles
from maskprism.io.untrusted import decode_json, fitted, read_regular, shortened

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from maskprism.datasets.ground_truth import Bitmap, Polygon
    from maskprism.io.sources import SourceImage

Crowds = Literal["left-out", "as-instances"]
"""What becomes of masks that are marked as crowds (`iscrowd: 1`): COCO does not count them."""

T = TypeVar("T")
Id = int | float | str
"""Whatever tells entries of a file from each other; compared by value, whatever its type: see `id_key`."""
LONGEST_OUTLINE = 2_000_000
"""Longer polygons, in pixels, are refused: drawing takes memory in proportion."""
_NORMALISED = 1.01
_EXPECTED = "a COCO annotation file with images, annotations and categories"


class Category(Struct):
    """An entry of `categories`."""

    id: Id
    name: str | int | float | bool | None


class Entry(Struct):
    """An entry of `images`."""

    id: Id
    file_name: str
    height: int | None = None
    width: int | None = None


class RunLengths(Struct):
    """A mask as RLE along columns, beginning with the background; compressed to text, or as numbers."""

    size: tuple[int, int]
    counts: str | list[Annotated[int, Meta(ge=0, le=1 << 40)]]


class CocoAnnotation(Struct):
    """An entry of `annotations`."""

    category_id: Id
    id: Id = "?"
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


class _Listed(Struct):
    images: list[Entry] = []


class _Belonging(Struct):
    image_id: Id
    iscrowd: Any = None
    segmentation: Raw = Raw(b"null")


def id_key(value: Id) -> int | str:
    """Return an id by its value: 7, 7.0, "7" and "007" are the same."""
    text = str(value).strip()
    return int(text.split(".")[0]) if len(text) < 64 and re.fullmatch(r"-?[0-9]+([.]0*)?", text) else text


@dataclass(frozen=True)
class CocoAnnotations:
    """The annotations of a COCO json, by the path of the image.

    Attributes
    ----------
    categories
        The ids of all categories, as `id_key` gives them.
    crowds
        What becomes of masks marked as crowds.
    """

    file: Path
    images: Mapping[Path, Entry]
    annotations: Mapping[int | str, Sequence[Raw]]
    categories: frozenset[int | str]
    crowds: Crowds = "left-out"
    lenient: bool = False

    def leniently(self) -> CocoAnnotations:
        """Return the same, where annotations with mistakes are left out and listed."""
        return replace(self, lenient=True)

    def of(self, image: SourceImage, image_hw: tuple[int, int]) -> ImageAnnotations:
        """Return the annotations of one image."""
        assert isinstance(image.image, Path)
        entry = self.images[image.image]
        height, width = entry.height or image_hw[0], entry.width or image_hw[1]
        if (height, width) != image_hw:
            turned = (width, height) == image_hw
            hint = ": the labels are of the image before its EXIF orientation is applied" if turned else ""
            raise LabelError(
                f"{self.file}: says that {image.name} is {width} x {height} pixels; "
                f"it is {image_hw[1]} x {image_hw[0]}{hint}"
            )
        rows, remarks = [], []
        mistakes: list[tuple[int | str, str]] = []
        for number, raw in enumerate(self.annotations.get(id_key(entry.id), ())):
            label = f"{self.file}, {image.name}, its annotation {number}"
            label_id: int | str = number
            try:
                annotation = _annotation(raw, label)
                if annotation.id != "?":
                    label_id = id_key(annotation.id)
                label = f"{self.file}, annotation {shortened(label_id)}"
                row = self._row(annotation, image_hw)
            except (ValueError, LabelError) as error:
                message = str(error).removeprefix(f"{label}: ")
                if self.lenient:
                    mistakes.append((label_id, message))
                    continue
                raise LabelError(f"{label}: {message}") from None
            rows.append(row._replace(label_id=label_id))
            if row.segment is None:
                remarks.append(f"{label}: a box without a mask")
        if _are_normalised(rows, image_hw):
            raise LabelError(
                f"{self.file}: all coordinates of {image.name} are between 0 and 1; COCO counts in pixels: "
                "multiply x by the width and y by the height of the image"
            )
        return ImageAnnotations(rows, tuple(remarks), mistakes=tuple(mistakes))

    def _row(self, annotation: CocoAnnotation, image_hw: tuple[int, int]) -> Annotation:
        category, segmentation = id_key(annotation.category_id), annotation.segmentation
        crowd = bool(annotation.iscrowd) and self.crowds == "left-out"
        if category not in self.categories:
            raise ValueError(f"category {shortened(category)} is not in the file's categories")
        if isinstance(segmentation, RunLengths):
            return Annotation(category, bitmap_of(segmentation, image_hw), crowd=crowd)
        if polygons := [numbers for numbers in segmentation or () if numbers]:
            if len(polygons) > 2 and all(len(numbers) == 2 for numbers in polygons):  # a list of points
                polygons = [[value for point in polygons for value in point]]
            return Annotation(category, tuple(_polygon(numbers) for numbers in polygons), crowd=crowd)
        if annotation.bbox is None:
            raise ValueError("has neither a segmentation nor a bbox")
        x, y, w, h = annotation.bbox
        return Annotation(category, None, (x, y, x + w, y + h), crowd)


def _annotation(raw: Raw, label: str) -> CocoAnnotation:
    """Return an annotation; some tools leave out the list around a single polygon, others put one around RLE."""
    expected = "category_id, and segmentation or bbox"
    try:
        return decode_json(raw, CocoAnnotation, label, LabelError, expected)
    except LabelError:
        loose = decode_json(raw, dict[str, Any], label, LabelError, expected)
        segmentation = loose.get("segmentation")
        first = segmentation[0] if isinstance(segmentation, list) and segmentation else None
        if isinstance(first, int | float):
            loose["segmentation"] = [segmentation]
        elif isinstance(first, dict) and segmentation == [first]:
            loose["segmentation"] = first
        else:
            raise
        return fitted(loose, CocoAnnotation, label, LabelError, expected)


def _are_normalised(rows: Sequence[Annotation], image_hw: tuple[int, int]) -> bool:
    """Whether all outlines and boxes lie within the first pixel, as coordinates divided by the image's size do."""
    points = [
        np.asarray(row.box) if row.segment is None else np.concatenate(row.segment).reshape(-1)
        for row in rows
        if not isinstance(row.segment, np.ndarray)
    ]
    values = np.concatenate(points) if points else np.zeros(0)
    return max(image_hw) > 2 and bool(values.any()) and values.min() >= 0 and values.max() <= _NORMALISED


def _polygon(numbers: Sequence[float]) -> Polygon:
    if len(numbers) % 2 or len(numbers) < 6:
        raise ValueError(f"a polygon has {len(numbers)} numbers; expected x1 y1 x2 y2 x3 y3 ...")
    points = np.array(numbers, dtype=np.float64).reshape(-1, 2)  # in single precision other pixels are its own
    with np.errstate(over="ignore", invalid="ignore"):
        length = np.abs(np.diff(points, axis=0, append=points[:1])).max(axis=1).sum()
    if not length <= LONGEST_OUTLINE:  # also true for infinity
        raise ValueError("a polygon has a number that is too large for a pixel, or an outline of millions of pixels")
    return points


def bitmap_of(encoded: RunLengths, image_hw: tuple[int, int]) -> Bitmap:
    """Return the mask of an RLE: along columns, beginning with the background.

    Raises
    ------
    ValueError
        If it is damaged, or of another size than the image.
    """
    height, width = encoded.size
    if encoded.size != image_hw:
        raise ValueError(f"its mask is {width} x {height} pixels; the image is {image_hw[1]} x {image_hw[0]}")
    if isinstance(encoded.counts, str):
        try:
            runs = run_lengths(encoded.counts)
        except ValueError as error:
            raise ValueError(f"its compressed RLE is damaged ({error})") from None
    else:
        runs = np.array(encoded.counts, dtype=np.int64)
    if (len(runs) and (runs.min() < 0 or runs.max() > height * width)) or runs.sum() != height * width:
        raise ValueError(f"its RLE adds up to {runs.sum()}; expected {height * width} pixels")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T


def read_categories(file: Path) -> dict[int, str]:
    """Return the class names of a COCO json, ids counted from 0 in the order of the categories' ids.

    Raises
    ------
    InputError
    """
    return dict(open_categories(file).names)


def open_categories(file: Path) -> Dataset:
    """Return the categories of a COCO json alone: a data set without images, whose images need not be there."""
    described = decode_json(read_regular(file, InputError), _Categories, str(file), InputError, _EXPECTED)
    categories = _in_order(file, described.categories)
    return Dataset(
        file,
        None,
        parse_class_names([one.name for one in categories], str(file), InputError),
        ImageFiles(file.parent, ()),
        CocoAnnotations(file, {}, {}, frozenset()),
        {id_key(one.id): index for index, one in enumerate(categories)},
    )


def read_image_ids(file: Path) -> dict[str, int | str]:
    """Return the id of each image that a COCO json lists, by its file name; none where it lists none.

    Raises
    ------
    InputError
    """
    listed = decode_json(read_regular(file, InputError), _Listed, str(file), InputError, _EXPECTED).images
    return {one.file_name: id_key(one.id) for one in listed}


def _in_order(file: Path, categories: Iterable[Category]) -> list[Category]:
    found = _by(lambda one: id_key(one.id), categories, file, "categories")
    return [found[key] for key in sorted(found, key=lambda key: (isinstance(key, str), key))]


def _by(key: Callable[[T], Hashable], entries: Iterable[T], file: Path, kind: str) -> dict[Any, T]:
    """Return the entries by what should tell them apart.

    Raises
    ------
    InputError
        Where it does not.
    """
    found: dict[Any, T] = {}
    for entry in entries:
        if found.setdefault(key(entry), entry) is not entry:
            raise InputError(f"{file}: two of its {kind} have {shortened(key(entry))}; expected it once")
    return found


def open_coco(file: Path, folder: Path | None, *, crowds: Crowds = "left-out", further: Sequence[Path] = ()) -> Dataset:
    """Open the data set of a COCO json.

    Parameters
    ----------
    file
        The json.
    folder
        Where its images are; None for the usual places.
    crowds
        What becomes of masks that are marked as crowds.
    further
        Folders where images may be as well; they are looked at first.

    Raises
    ------
    InputError
        If it cannot be read, if none of its images is there, or if no annotation belongs to one of its images.
    """
    described = decode_json(read_regular(file, InputError), _Described, str(file), InputError, _EXPECTED)
    if not described.images or not described.categories:
        raise InputError(
            f"{file}: lists {len(described.images)} images and {len(described.categories)} categories; "
            "expected some of both"
        )
    listed = _by(lambda one: id_key(one.id), described.images, file, "images")
    _by(lambda one: one.file_name, described.images, file, "images")
    annotations: dict[int | str, list[Raw]] = {}
    masks = marked = 0
    for number, annotation in enumerate(described.annotations):
        belonging = decode_json(annotation, _Belonging, f"{file}, annotation {number}", InputError, "image_id")
        annotations.setdefault(id_key(belonging.image_id), []).append(annotation)
        has_mask = bytes(belonging.segmentation).translate(None, b" \r\n\t") not in (b"null", b"[]", b"[[]]", b"{}")
        masks += has_mask
        marked += has_mask and belonging.iscrowd in (1, True, "1", "true")
    lost = sum(len(rows) for key, rows in annotations.items() if key not in listed)
    if lost and lost == len(described.annotations):
        raise InputError(
            f"{file}: none of its {lost} annotations belongs to an image: their image_id is "
            f"{shortened(next(iter(annotations)))}, for one, and the images have ids such as "
            f"{shortened(next(iter(listed)))}; expected ids of images"
        )
    names = [one.file_name for one in described.images]
    folders, below = _folders(file, folder, further)
    found = find_images(names, folders, below)
    if not found:
        raise InputError(
            f"{file}: none of its {len(names)} images is there; looked for {shortened(names[0])}, for one, and its "
            f"last parts in {looked_in(folders, below)}; say where they are with images"
        )
    notices = missing_notice(file, names, found)
    if lost:
        notices += (f"{counted(lost, 'annotation')} of {file.name} left out: no image of it has their image_id",)
    are_crowds = f"{marked} of {counted(masks, 'mask')} in {file.name} {'is a crowd' if marked == 1 else 'are crowds'}"
    explained = f"{are_crowds} (iscrowd: 1), " + (
        "counted as single objects"
        if crowds == "as-instances"
        else "which COCO leaves out of every count. CVAT marks every brush mask so; if these are single objects, take "
        '--crowds as-instances (crowds="as-instances")'
    )
    if marked:
        notices += (explained,)
    categories = _in_order(file, described.categories)
    first = next(iter(found.values()))
    root = max(
        (one for one in folders if first.is_relative_to(one)), key=lambda one: len(one.parts), default=first.parent
    )
    images = {found[one.file_name]: one for one in described.images if one.file_name in found}
    return Dataset(
        file,
        None,
        parse_class_names([one.name for one in categories], str(file), InputError),
        ImageFiles(root, tuple(images)),
        CocoAnnotations(file, images, annotations, frozenset(id_key(one.id) for one in categories), crowds),
        {id_key(one.id): index for index, one in enumerate(categories)},
        notices=notices,
        nothing_counts=explained if marked and marked == masks and crowds == "left-out" else "",
    )


def _folders(file: Path, folder: Path | None, further: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Return where images may be, and what to look through with its subfolders.

    As COCO and its exporters lay them out.
    """
    if folder is not None:
        return [folder.resolve()], [folder.resolve()]
    split = file.stem.removeprefix("instances_")
    beside = file.parent.resolve()
    above = beside.parent
    usual = [beside, beside / "images", above / split, above / "images" / split, above / "images", above]
    known = [one.resolve() for one in further]
    return [*known, *usual], [*known, beside]
