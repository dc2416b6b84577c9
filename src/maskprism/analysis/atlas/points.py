"""The instances of a table as points: coefficients, and whatever else the table knows of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from maskprism.errors import TableError
from maskprism.table import matrix_of, read_rows

if TYPE_CHECKING:
    from jaxtyping import Float32, Int32

    from maskprism.locations import UriPath

QUALITIES = ("score", "size", "x", "y", "aspect", "iou", "resolution", "box", "prototypes", "coefficients")
"""Numbers that a point may have, in this order; see `Points.numbers`."""
LOSSES = QUALITIES[6:]
SHAPES = QUALITIES[1:5]
_LISTS = ("coefficients", "mask_coefficients")
_BOX = ("x1", "y1", "x2", "y2")
_SIDES = ("image_width", "image_height")
_LEAST_PX = 1e-3
_CLASS = ("class_name", "class_id")
_IMAGE = ("image", "image_name")
_USED = {*QUALITIES, *_BOX, *_SIDES, *_CLASS, *_IMAGE, "instance"}


@dataclass(frozen=True, eq=False)
class Points:
    """N instances with K coefficients each.

    coefficients: as the network gave them. labels: what the table calls each coefficient.
    classes: the number of each instance's class in `class_names`, which are sorted by how many instances they have.
    images: the number of each instance's image in `image_names`. instances: its number within the image.
    numbers: by name, float32, NaN where unknown. "score"; of the box "size" (the root of its area, image pixels), "x"
        and "y" of its centre (shares of the image, or pixels where the table has no image sizes) and "aspect" (log of
        width by height); against ground truth "iou" and the losses of its budget.
    relative: whether "x" and "y" are shares of the image.
    Rows without coefficients, such as ground truth that nothing found, are no points.
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

    def __len__(self) -> int:
        return len(self.coefficients)

    def name_of(self, point: int) -> tuple[str, int]:
        """The image of a point, and its number there."""
        return self.image_names[self.images[point]], int(self.instances[point])

    @classmethod
    def read(cls, table: str | os.PathLike[str] | UriPath) -> Points:
        """The points of a table of `extract`, of the instances of `diagnose`, or any CSV or Parquet file like them.

        It needs coefficients: a column of lists `coefficients` or `mask_coefficients`, or columns `mask_0` or `mask_1`
        and so on. Used where they are there: `image` or `image_name`, `instance`, `class_name` or `class_id`, `score`,
        `x1` to `y2`, `image_width`, `image_height`, `iou`, and the losses of a budget.
        Raises TableError where there is no such table, it is damaged, or holds no instance with coefficients.
        """
        return cls.of(read_rows(table), str(table))

    @classmethod
    def of(cls, tables: Iterable[pa.Table], label: str) -> Points:
        """The points of tables in memory, with the same columns; see `read`. label: what they are called in errors."""
        parts: list[Float32[np.ndarray, "N K"]] = []
        others: list[pa.Table] = []
        labels: tuple[str, ...] = ()
        for rows in tables:  # lists of coefficients are held once, as the matrix
            matrix, labels = _coefficients(rows, label)
            kept = np.isfinite(matrix).all(axis=1)
            whole = rows.select(
                [name for name in rows.column_names if name in _USED and not pa.types.is_nested(rows[name].type)]
            )
            parts.append(matrix if kept.all() else matrix[kept])
            others.append(whole if kept.all() else whole.filter(pa.array(kept)))
        matrix = np.concatenate(parts)
        parts.clear()
        if not len(matrix):
            raise TableError(f"{label}: holds no instance with coefficients; extract images with instances first")
        rows = pa.concat_tables(others)
        others.clear()
        pa.default_memory_pool().release_unused()
        classes, class_names = _classes(rows, len(matrix))
        images, image_names = _encoded(_first(rows, _IMAGE), len(matrix), "")
        numbers, relative = _numbers(rows, label)
        numbered = rows["instance"] if "instance" in rows.column_names else None
        return cls(
            coefficients=matrix,
            labels=labels,
            classes=classes,
            class_names=class_names,
            images=images,
            image_names=image_names,
            instances=_in_image(images)
            if numbered is None
            else _number(numbered, "instance", label, -1).astype(np.int32),
            numbers=numbers,
            relative=relative,
        )


def _coefficients(rows: pa.Table, label: str) -> tuple[Float32[np.ndarray, "N K"], tuple[str, ...]]:
    for name in _LISTS:
        if name in rows.column_names and pa.types.is_nested(rows[name].type):
            return _matrix(rows[name], label)
    names = [name for name in rows.column_names if name.startswith("mask_") and name[5:].isdecimal()]
    columns = [np.asarray(_number(rows[name], name, label)) for name in names]
    if not columns:
        raise TableError(
            f"{label}: has no coefficients; expected a column of lists 'coefficients' or 'mask_coefficients', or "
            f"columns mask_0, mask_1, ..., and it has {', '.join(rows.column_names[:8]) or 'none'}"
        )
    return np.stack(columns, axis=1), tuple(names)


def _matrix(column: pa.ChunkedArray, label: str) -> tuple[Float32[np.ndarray, "N K"], tuple[str, ...]]:
    """A column of lists as rows; missing lists as NaN."""
    if not pa.types.is_fixed_size_list(column.type):
        lengths = pc.unique(pc.drop_null(pc.list_value_length(column))).to_pylist()
        if len(lengths) > 1:
            raise TableError(f"{label}: has instances with {', '.join(map(str, sorted(lengths)))} coefficients each")
        column = column.cast(pa.list_(pa.float32(), lengths[0] if lengths else 1))
    found = matrix_of(column) if not column.null_count else _with_gaps(column)
    found = found.astype(np.float32, copy=False)
    return found, tuple(map(str, range(found.shape[1])))


def _with_gaps(column: pa.ChunkedArray) -> Float32[np.ndarray, "N K"]:
    found = np.full((len(column), column.type.list_size), np.nan, dtype=np.float32)
    there = np.asarray(pc.is_valid(column))
    if there.any():
        found[there] = matrix_of(pa.chunked_array([column.drop_null().combine_chunks()]))
    return found


def _classes(rows: pa.Table, count: int) -> tuple[Int32[np.ndarray, " N"], tuple[str, ...]]:
    codes, names = _encoded(_first(rows, _CLASS), count, "all")
    order = np.argsort(-np.bincount(codes, minlength=len(names)), kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return place[codes].astype(np.int32), tuple(names[code] for code in order)


def _encoded(column: pa.ChunkedArray | None, rows: int, otherwise: str) -> tuple[Int32[np.ndarray, " N"], list[str]]:
    """A column of names as numbers, and the names by number; where there is none, `otherwise`."""
    if column is None:
        return np.zeros(rows, dtype=np.int32), [otherwise]
    found = pc.fill_null(column.cast(pa.string()), otherwise).combine_chunks().dictionary_encode()
    return np.asarray(found.indices), found.dictionary.to_pylist()


def _first(rows: pa.Table, names: Sequence[str]) -> pa.ChunkedArray | None:
    return next((rows[name] for name in names if name in rows.column_names), None)


def _numbers(rows: pa.Table, label: str) -> tuple[dict[str, Float32[np.ndarray, " N"]], bool]:
    def known(name: str) -> Float32[np.ndarray, " N"] | None:
        return _number(rows[name], name, label) if name in rows.column_names else None

    found = {name: values for name in QUALITIES if name not in SHAPES and (values := known(name)) is not None}
    box = [known(name) for name in _BOX]
    sides = [known(name) for name in _SIDES]
    if all(edge is not None for edge in box):
        x1, y1, x2, y2 = (np.asarray(edge) for edge in box)
        width, height = np.maximum(x2 - x1, _LEAST_PX), np.maximum(y2 - y1, _LEAST_PX)
        across, down = (np.float32(1) if side is None else np.maximum(side, 1) for side in sides)
        found["size"] = np.sqrt(width * height)
        found["x"], found["y"] = (x1 + x2) / 2 / across, (y1 + y2) / 2 / down
        found["aspect"] = np.log(width / height)
    return {name: found[name] for name in QUALITIES if name in found}, all(side is not None for side in sides)


def _number(column: pa.ChunkedArray, name: str, label: str, otherwise: float = np.nan) -> Float32[np.ndarray, " N"]:
    """A column of numbers; `otherwise` for what is missing, or not finite."""
    try:
        found = column.cast(pa.float32(), safe=False).to_numpy()
    except pa.ArrowException:
        raise TableError(f"{label}: the column {name} holds {column.type}; expected numbers") from None
    return np.where(np.isfinite(found), found, np.float32(otherwise))


def _in_image(images: Int32[np.ndarray, " N"]) -> Int32[np.ndarray, " N"]:
    """The number of each row among those of its image."""
    order = np.argsort(images, kind="stable")
    held = images[order]
    starts = np.flatnonzero(np.r_[True, held[1:] != held[:-1]])
    found = np.empty(len(images), dtype=np.int32)
    found[order] = np.arange(len(images)) - np.repeat(starts, np.diff(np.r_[starts, len(images)]))
    return found
