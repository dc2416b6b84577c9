"""Data sets of Ultralytics: a data.yaml, and one text file of rows per image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from maskprism.datasets.samples import Dataset, Row, Rows
from maskprism.errors import ImageError, InputError, LabelError
from maskprism.sources import ImageFiles, open_source

if TYPE_CHECKING:
    from maskprism.sources import SourceImage

SPLITS = ("val", "test", "train")
"""The split that is opened when none is asked for: the first of these that the data set has."""
TOLERANCE = 0.01
"""Normalised coordinates may lie outside 0..1 by this much and are clipped, as Ultralytics does."""


@dataclass(frozen=True)
class YoloLabels:
    """Text files beside the images: `class x1 y1 x2 y2 ...`, normalised to 0..1."""

    class_count: int

    def of(self, image: SourceImage, image_hw: tuple[int, int]) -> Rows:
        """The rows of the image's label file; none where there is no file."""
        assert isinstance(image.image, Path)
        file = label_path(image.image)
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except FileNotFoundError:
            return Rows([], ())
        except UnicodeDecodeError:
            raise LabelError(f"{file}: is not UTF-8 text; expected rows of class x1 y1 x2 y2 ...") from None
        except OSError as error:
            raise LabelError(f"{file}: cannot be read ({error.strerror})") from None
        rows: list[Row] = []
        seen: dict[str, int] = {}
        remarks: list[str] = []
        for number, line in enumerate(lines, start=1):
            key = " ".join(line.split())
            if not key:
                continue
            if key in seen:
                remarks.append(f"{file}, line {number}: repeats line {seen[key]}; left out")
                continue
            seen[key] = number
            try:
                row, remark = self._row(key.split(), image_hw)
            except ValueError as error:
                raise LabelError(f"{file}, line {number}: {error}") from None
            rows.append(row)
            if remark:
                remarks.append(f"{file}, line {number}: {remark}")
        return Rows(rows, tuple(remarks))

    def _row(self, words: list[str], image_hw: tuple[int, int]) -> tuple[Row, str]:
        try:
            values = np.array([float(word) for word in words])
        except ValueError as error:
            raise ValueError(f"{str(error).rpartition(': ')[2]} is no number; expected class x1 y1 x2 y2 ...") from None
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
            return Row(int(class_id), None, box), "a box without a polygon: there is no mask to compare with"
        points = (values.reshape(-1, 2) * (width, height)).astype(np.float32)
        return Row(int(class_id), (points,)), remark


def label_path(image: Path) -> Path:
    """Where Ultralytics looks for the labels of an image: the last folder `images` of its path is `labels`."""
    parts = list(image.parts)
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] == "images":
            parts[index] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def open_yaml(file: Path, split: str | None) -> Dataset:
    """One split of the data set that a data.yaml describes."""
    try:
        described = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{file}: cannot be read as YAML ({' '.join(str(error).split())})") from None
    if not isinstance(described, dict):
        raise InputError(f"{file}: expected keys such as path, train, val and names")
    names = _class_names(file, described)
    has = [one for one in SPLITS if described.get(one)]
    if split is None and not has:
        raise InputError(f"{file}: names no split; expected one of the keys {', '.join(SPLITS)}")
    split = split or has[0]
    if not described.get(split):
        raise InputError(f"{file}: has no split {split!r}; it has {', '.join(has) or 'none'}")
    entries = described[split] if isinstance(described[split], list) else [described[split]]
    root, sources = _located(file, described.get("path"), [str(entry) for entry in entries])
    try:
        opened = [open_source(source) for source in sources]
    except ImageError as error:
        raise InputError(f"{file}, split {split}: {error}") from None
    paths = tuple(dict.fromkeys(path for one in opened if isinstance(one, ImageFiles) for path in one.paths))
    if not any(label_path(one).is_file() for one in paths):
        raise InputError(
            f"{file}, split {split}: none of its {len(paths)} images has labels; expected, for one, "
            f"{label_path(paths[0])}"
            if paths
            else f"{file}, split {split}: leads to no images"
        )
    images = ImageFiles(root.resolve(), paths)
    return Dataset(file, split, names, images, YoloLabels(len(names)), {one: one for one in names})


def _class_names(file: Path, described: Mapping[str, Any]) -> dict[int, str]:
    names = described.get("names")
    if names is None and isinstance(described.get("nc"), int):
        return {index: f"class{index}" for index in range(described["nc"])}
    try:
        pairs = names.items() if isinstance(names, dict) else enumerate(list(names or ()))
        found = {int(class_id): str(name) for class_id, name in pairs}
    except (TypeError, ValueError):
        found = {}
    if not found or sorted(found) != list(range(len(found))):
        raise InputError(f"{file}: names is {names!r}; expected a list of class names, or a dict from 0, 1, 2, ...")
    return dict(sorted(found.items()))


def _located(file: Path, stated: object, entries: list[str]) -> tuple[Path, list[Path]]:
    """The root of a data set and where its entries are, trying where `path` may be meant to start from."""
    beside = file.parent
    roots = [beside] if stated is None else [beside / str(stated), Path(str(stated)), beside]
    # Ultralytics, too, takes "../train/images" for "train/images" where that is what exists.
    spellings = [entries, [entry.removeprefix("../") for entry in entries]]
    for root in dict.fromkeys(roots):
        for spelling in spellings:
            sources = [root / entry for entry in spelling]
            if all(source.exists() for source in sources):
                return root, sources
    tried = ", ".join(dict.fromkeys(str(root / entry) for root in roots for entry in entries))
    raise InputError(f"{file}: its images are not there; looked for {tried}. Correct the key path in the file")
