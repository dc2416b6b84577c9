"""The instances of a table as points: coefficients, and whatever else the table knows of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from maskprism.errors import TableError
from maskprism.tables.instance_rows import LOSSES, InstanceRows
from maskprism.tables.table import matrix_of

if TYPE_CHECKING:
    from jaxtyping import Float32, Int32

    from maskprism.io.uris import UriPath

QUALITIES = ("score", "size", "x", "y", "aspect", "iou", *LOSSES)
"""Numbers that a point may have, in this order; see `Points.numbers`."""
SHAPES = QUALITIES[1:5]
_BOX = ("x1", "y1", "x2", "y2")
_SIDES = ("image_width", "image_height")
_LEAST_PX = 1e-3


@dataclass(frozen=True, eq=False)
class Points:
    """N instances with K coefficients each.

    Attributes
    ----------
    coefficients
        What multiplies the prototypes (see `instance_rows`).
    labels
        What the table calls each coefficient.
    classes
        The number of each instance's class in `class_names`, which are sorted by how many instances they have.
    images
        The number of each instance's image in `image_names`.
    instances
        Its number within the image.
    numbers
        By name, float32, NaN where unknown. "score"; of the box "size" (the root of its area, image pixels),
        "x" and "y" of its centre (shares of the image, or pixels where the table has no image sizes) and "aspect" (log
        of width by height); against ground truth "iou" and the losses of its budget.
    relative
        Whether "x" and "y" are shares of the image.
    note
        About instances that were left out, if any were.
    """

    coefficients: Float32[np.ndarray, "N K"]
    labels: tuple[str, ...]
    classes: Int32[np.ndarray, " N"]
    class_names: tuple[str, ...]
    images: Int32[np.ndarray, " N"]
    image_names: Sequence[str]
    instances: Int32[np.ndarray, " N"]
    numbers: Mapping[str, Float32[np.ndarray, " N"]]
    relative: bool = True
    note: str = ""

    def __len__(self) -> int:
        return len(self.coefficients)

    def name_of(self, point: int) -> tuple[str, int]:
        """Return the image of a point, and its number there."""
        return self.image_names[self.images[point]], int(self.instances[point])

    @classmethod
    def read(cls, table: str | os.PathLike[str] | UriPath) -> Points:
        """The points of a table of `extract`, of the instances of `diagnose`, or any CSV or Parquet file like them.

        See `instance_rows.InstanceRows`.

        Raises
        ------
        TableError
            Where there is no such table, it is damaged, or holds no instance with coefficients.
        """
        return cls.of(InstanceRows.read(table))

    @classmethod
    def of(cls, rows: InstanceRows) -> Points:
        """Return the points of the instances of a table."""
        parts: list[Float32[np.ndarray, "N K"]] = []
        others: list[pa.Table] = []
        for some in rows:  # coefficients are held once, as the matrix
            parts.append(matrix_of(some["weights"]))
            others.append(some.drop_columns(["weights"]))
        if not parts:
            nothing = "with finite coefficients" if rows.not_finite else "with coefficients"
            raise TableError(f"{rows.label}: holds no instance {nothing}; extract images with instances first")
        matrix = np.concatenate(parts)
        parts.clear()
        table = pa.concat_tables(others)
        others.clear()
        pa.default_memory_pool().release_unused()
        classes, class_names = _classes(table)
        images, image_names = _encoded(table, "image", "")
        numbers, relative = _numbers(table)
        return cls(
            coefficients=matrix,
            labels=rows.names,
            classes=classes,
            class_names=class_names,
            images=images,
            image_names=image_names,
            instances=table["instance"].to_numpy(),
            numbers=numbers,
            relative=relative,
            note=rows.note,
        )


def _classes(table: pa.Table) -> tuple[Int32[np.ndarray, " N"], tuple[str, ...]]:
    codes, names = _encoded(table, "class_name", "all")
    order = np.argsort(-np.bincount(codes, minlength=len(names)), kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return place[codes].astype(np.int32), tuple(names[code] for code in order)


def _encoded(table: pa.Table, name: str, otherwise: str) -> tuple[Int32[np.ndarray, " N"], list[str]]:
    """Return a column of names as numbers, and the names by number; `otherwise` where there is none."""
    if name not in table.column_names:
        return np.zeros(len(table), dtype=np.int32), [otherwise]
    found = table[name].combine_chunks().dictionary_encode()
    return np.asarray(found.indices), [name or otherwise for name in found.dictionary.to_pylist()]


def _numbers(table: pa.Table) -> tuple[dict[str, Float32[np.ndarray, " N"]], bool]:
    found: dict[str, Float32[np.ndarray, " N"]] = {}
    for name in table.column_names:
        if name not in ("image", "class_name", "instance"):
            values = table[name].to_numpy()
            found[name] = np.where(np.isfinite(values), values, np.float32(np.nan))
    relative = all(name in found for name in _SIDES)
    if all(name in found for name in _BOX):
        x1, y1, x2, y2 = (found[name] for name in _BOX)
        width, height = np.maximum(x2 - x1, _LEAST_PX), np.maximum(y2 - y1, _LEAST_PX)
        across, down = (np.maximum(found[name], 1) if name in found else np.float32(1) for name in _SIDES)
        found["size"] = np.sqrt(width * height)
        found["x"], found["y"] = (x1 + x2) / 2 / across, (y1 + y2) / 2 / down
        found["aspect"] = np.log(width / height)
    return {name: found[name] for name in QUALITIES if name in found}, relative
