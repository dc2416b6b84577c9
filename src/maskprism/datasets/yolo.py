"""Data sets of Ultralytics: a data.yaml, and one text file of rows per image."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from msgspec import Meta, Struct

from maskprism._common.text import counted
from maskprism.datasets.lookup import MOST_PARTS, TOO_COMMON, find_images, looked_in, missing_notice, parts_of
from maskprism.datasets.samples import LOCAL_ONLY, Annotation, Dataset, ImageAnnotations
from maskprism.errors import ImageError, InputError, LabelError
from maskprism.io.class_names import parse_class_names, placeholder
from maskprism.io.sources import ImageFiles, open_source
from maskprism.io.untrusted import decoded_text, is_file, read_regular, read_yaml, shortened
from maskprism.io.uris import is_uri, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from maskprism.io.sources import SourceImage

SPLITS = ("val", "test", "train")
"""The split that is opened when none is asked for: the first of these that the data set has."""
ALL_SPLITS = "all"
"""In place of a split: the images of all splits."""
TOLERANCE = 0.01
"""Normalised coordinates may lie outside 0..1 by this much and are clipped, as Ultralytics does."""
MAX_LABEL_BYTES = 4 << 20
"""Label files over this size are refused: that is a hundred thousand points on one image."""
_LONGEST_NUMBER = 64


class Described(Struct):
    """What a data.yaml says; other keys are not read."""

    names: Any = None
    nc: Annotated[int, Meta(ge=1, le=100_000)] | None = None
    path: str | int | float | None = None
    val: str | int | float | list[str | int | float] | None = None
    validation: str | int | float | list[str | int | float] | None = None
    valid: str | int | float | list[str | int | float] | None = None
    test: str | int | float | list[str | int | float] | None = None
    train: str | int | float | list[str | int | float] | None = None

    def entries(self, split: str) -> list[str]:
        """Return where the images of a split are; none where it is not named. "validation" and "valid" are "val"."""
        found = getattr(self, split) if split in SPLITS else None
        found = found or self.validation or self.valid if split == "val" else found
        return [str(entry) for entry in (found if isinstance(found, list) else [found]) if entry]

    def class_names(self, file: Path) -> dict[int, str]:
        """Names by class id; "class0", "class1", ... where only their number is given.

        Raises
        ------
        InputError
            For malformed names, or a number of names other than `nc`.
        """
        if self.names is None and self.nc is not None:
            return {index: placeholder(index) for index in range(self.nc)}
        names = parse_class_names(self.names, str(file), InputError)
        if self.nc is not None and self.nc != len(names):
            raise InputError(
                f"{file}: nc is {self.nc}, and names has {counted(len(names), 'class name')}; expected as many: "
                "correct the one that is wrong, or leave nc out"
            )
        return names


def read_description(file: Path) -> Described:
    """Return the keys of a data.yaml.

    Raises
    ------
    InputError
    """
    return read_yaml(file, Described, InputError, "keys such as path, train, val and names")


@dataclass(frozen=True)
class YoloLabels:
    """Text files beside the images: `class x1 y1 x2 y2 ...`, normalised to 0..1."""

    class_count: int
    lenient: bool = False

    def leniently(self) -> YoloLabels:
        """Return the same, where rows with mistakes are left out and listed."""
        return replace(self, lenient=True)

    def of(self, image: SourceImage, image_hw: tuple[int, int]) -> ImageAnnotations:
        """Return the rows of the image's label file; none where it is missing."""
        assert isinstance(image.image, Path)
        file = label_path(image.image)
        if not is_file(file) and not os.path.lexists(file):
            return ImageAnnotations([], (), "ultralytics")
        try:
            lines = decoded_text(read_regular(file, LabelError, limit=MAX_LABEL_BYTES)).splitlines()
        except UnicodeDecodeError:
            raise LabelError(f"{file}: is not UTF-8 text; expected rows of class x1 y1 x2 y2 ...") from None
        rows: list[Annotation] = []
        seen: dict[str, int] = {}
        remarks: list[str] = []
        repeats: list[tuple[int | str, int | str]] = []
        mistakes: list[tuple[int | str, str]] = []
        for number, line in enumerate(lines, start=1):
            key = " ".join(line.split())
            if not key:
                continue
            if key in seen:
                remarks.append(f"{file}, line {number}: repeats line {seen[key]}; left out")
                repeats.append((number - 1, seen[key] - 1))
                continue
            seen[key] = number
            try:
                row, remark = self._row(key.split(), image_hw)
            except ValueError as error:
                if self.lenient:
                    mistakes.append((number - 1, str(error)))
                    continue
                raise LabelError(f"{file}, line {number}: {error}") from None
            rows.append(row._replace(label_id=number - 1))
            if remark:
                remarks.append(f"{file}, line {number}: {remark}")
        return ImageAnnotations(rows, tuple(remarks), "ultralytics", tuple(repeats), tuple(mistakes))

    def _row(self, words: list[str], image_hw: tuple[int, int]) -> tuple[Annotation, str]:
        values = np.array([_number(field) for field in words])
        class_id, values = float(values[0]), values[1:]
        if class_id not in range(self.class_count):
            raise ValueError(
                f"class {words[0]} is out of range: the data set has {self.class_count} classes "
                f"(0..{self.class_count - 1})"
            )
        if len(values) % 2 or len(values) < 4:
            raise ValueError(
                f"has {len(values)} numbers behind the class; expected x1 y1 x2 y2 x3 y3 ..., or the four of a box"
            )
        if not (values.min() >= -TOLERANCE and values.max() <= 1 + TOLERANCE):  # also true for NaN
            wrong = next(word for word, value in zip(words[1:], values, strict=True) if not 0 <= value <= 1)
            raise ValueError(f"coordinate {wrong} is outside 0..1; expected numbers normalised by width and height")
        remark = "coordinates a little outside 0..1; clipped" if values.min() < 0 or values.max() > 1 else ""
        height, width = image_hw
        if len(values) == 4:
            x, y, w, h = values * (width, height, width, height)
            box = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
            return Annotation(int(class_id), None, box), "a box without a polygon: it has no mask to compare with"
        # single precision, as in Ultralytics: its masks depend on which side of a pixel's border a corner falls
        points = np.clip(values.reshape(-1, 2), 0, 1).astype(np.float32) * np.array([width, height], dtype=np.float32)
        return Annotation(int(class_id), (points,)), remark


def label_path(image: Path) -> Path:
    """Return where Ultralytics looks for the labels of an image: the last folder `images` of its path is `labels`."""
    parts = list(image.parts)
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] == "images":
            parts[index] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def open_yaml(file: Path, split: str | None, further: Sequence[Path] = ()) -> Dataset:
    """Open one split of the data set that a data.yaml describes.

    Parameters
    ----------
    file
        The data.yaml.
    split
        "train", "val", "test", or "all" for the images of all of them; those of a split that cannot be opened are left
        out with a notice. Default: the first of val, test, train that it has.
    further
        Folders where its images may lie as well.

    Raises
    ------
    InputError
        If it cannot be read, has no such split, or leads to no images or labels.
    """
    described = read_description(file)
    names = described.class_names(file)
    has = [one for one in SPLITS if described.entries(one)]
    if split is None and not has:
        raise InputError(f"{file}: names no split; expected one of the keys {', '.join(SPLITS)}")
    split = split or has[0]
    if split == ALL_SPLITS and has:
        return _every_split(file, has, further)
    if not described.entries(split):
        raise InputError(f"{file}: has no split {split!r}; it has {', '.join(has) or 'none'}")
    if remote := [shown(one) for one in (described.path, *described.entries(split)) if is_uri(one)]:
        raise InputError(f"{file}, split {split}: names {remote[0]}; {LOCAL_ONLY}")
    root, sources, notices = _located(file, described.path, described.entries(split), split, further)
    listed: list[Path] = []
    for source in sources:
        try:
            opened = open_source(source)
        except ImageError as error:
            raise InputError(f"{file}, split {split}: {error}") from None
        files = list(opened.files) if isinstance(opened, ImageFiles) else []
        if isinstance(opened, ImageFiles) and len(files) < len(opened.paths):
            strange = next(path for path in opened.paths if not isinstance(path, Path))
            raise InputError(f"{file}, split {split}: lists {strange}; {LOCAL_ONLY}")
        if source.suffix.lower() == ".txt":
            folders = [source.parent.resolve(), *_roots(file, described.path), *further]
            wanted = [str(path) for path in files]
            found = find_images(wanted, folders)
            if not found:
                raise InputError(
                    f"{file}, split {split}: none of the {len(wanted)} images that {source.name} lists is there; "
                    f"looked for {shortened(wanted[0])}, for one, and its last parts in {looked_in(folders)}; "
                    "correct the list"
                )
            notices += missing_notice(source, wanted, found)
            files = [found[name] for name in wanted if name in found]
        listed += files
    paths = tuple(dict.fromkeys(listed))
    if not any(is_file(label_path(one)) for one in paths):
        raise InputError(
            f"{file}, split {split}: none of its {len(paths)} images has labels; expected, for one, "
            f"{label_path(paths[0])}"
            if paths
            else f"{file}, split {split}: leads to no images"
        )
    images = ImageFiles(root.resolve(), paths)
    return Dataset(file, split, names, images, YoloLabels(len(names)), {one: one for one in names}, notices)


def _every_split(file: Path, splits: Sequence[str], further: Sequence[Path]) -> Dataset:
    opened: list[Dataset] = []
    notices: list[str] = []
    for split in splits:
        try:
            opened.append(open_yaml(file, split, further))
        except InputError as error:
            notices.append(f"split {split} is left out: {error}")
    if not opened:
        raise InputError(f"{file}: none of its splits can be opened ({notices[0]})")
    paths = dict.fromkeys(path for dataset in opened for path in dataset.images.paths)
    root = Path(os.path.commonpath([str(dataset.images.root) for dataset in opened]))
    notices = [*(notice for dataset in opened for notice in dataset.notices), *notices]
    return replace(opened[0], split=ALL_SPLITS, images=ImageFiles(root, tuple(paths)), notices=tuple(notices))


def _number(word: str) -> float:
    try:
        if len(word) <= _LONGEST_NUMBER:  # reading millions of digits takes minutes
            return float(word)
    except ValueError:
        pass
    raise ValueError(f"{shortened(word)} is not a number; expected class x1 y1 x2 y2 ...")


def _roots(file: Path, stated: object) -> list[Path]:
    """Folders that the paths of a data.yaml may be relative to."""
    beside = file.parent
    if stated is None:
        return [beside]
    moved = [place / name for name in parts_of(str(stated))[-1:] for place in (beside, beside.parent)]
    return list(dict.fromkeys([beside / str(stated), Path(str(stated)), beside, *moved]))


def _located(
    file: Path, stated: object, entries: list[str], split: str, further: Sequence[Path]
) -> tuple[Path, list[Path], tuple[str, ...]]:
    """Return the root of a data set, where its entries are, and what to tell of that.

    `path` may be meant to start from several places, and paths may be those of another machine: then their last parts
    are looked for. Ultralytics, too, takes "../train/images" for "train/images" where that is what exists.
    """
    roots = [*_roots(file, stated), *further]
    parts = [parts_of(entry) for entry in entries]
    parts = [one[-MOST_PARTS:] for one in parts]
    fewest = min(map(len, parts))
    shorter = [["/".join(one[drop:]) for one in parts] for drop in range(fewest)]
    if any(one[-1:] == (common,) for one in parts for common in TOO_COMMON):
        shorter = shorter[: max(fewest - 1, 1)]
    spellings = [entries, *shorter]
    for spelling in spellings:
        for root in roots:
            sources = [root / entry for entry in spelling]
            if all(os.path.exists(source) for source in sources):  # noqa: PTH110  (Path.exists raises for a NUL)
                told = (_shorter_notice(file, split, entries, sources),) if spelling in shorter[1:] else ()
                return root, sources, told
    tried = ", ".join(dict.fromkeys(shortened(root / entry) for root in roots for entry in entries[:3]))
    raise InputError(
        f"{file}: its images are not there; looked for {tried}, and for the last parts of these paths. "
        "Correct the key path in the file"
    )


def _shorter_notice(file: Path, split: str, entries: Sequence[str], sources: Sequence[Path]) -> str:
    return (
        f"{file.name} says that the images of {split} are in {shortened(entries[0])}, which is not there; taken are "
        f"those in {shortened(sources[0])}"
    )
