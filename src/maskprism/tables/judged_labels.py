"""The table of `maskprism labels` read again: which labels of an image are suspicious, and why."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import NamedTuple

from maskprism.errors import TableError
from maskprism.io.untrusted import is_folder
from maskprism.tables.table import parquet_file

LABELS_TABLE = "labels.parquet"
_COLUMNS = ("image", "label_id", "class_name", "x1", "y1", "x2", "y2", "kind", "suspicion")


class LabelRow(NamedTuple):
    """One label, or one detection without a label (`label_id` None); `suspicion` is None where it was not judged."""

    label_id: int | str | None
    class_name: str
    box: tuple[float, float, float, float]
    kind: str
    suspicion: float | None


@dataclass(frozen=True)
class JudgedLabels:
    """The rows of `labels.parquet` by the name of the image.

    Attributes
    ----------
    images
        The rows, the most suspicious first.
    names
        The names of images by their last part.
    """

    images: Mapping[str, Sequence[LabelRow]]
    names: Mapping[str, Sequence[str]]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> JudgedLabels:
        """Read the table, or the one in a folder.

        Raises
        ------
        TableError
            If there is none, or it is another table.
        """
        file = Path(path) / LABELS_TABLE if is_folder(Path(path)) else Path(path)
        with parquet_file(file) as parquet:
            if missing := [name for name in _COLUMNS if name not in parquet.schema_arrow.names]:
                raise TableError(f"{file}: has no column {missing[0]}; expected {LABELS_TABLE} of `maskprism labels`")
            rows = parquet.read([*_COLUMNS]).to_pylist()
        images: dict[str, list[LabelRow]] = {}
        names: dict[str, list[str]] = {}
        for row in rows:
            box = (row["x1"], row["y1"], row["x2"], row["y2"])
            judged = LabelRow(row["label_id"], row["class_name"], box, row["kind"], row["suspicion"])
            images.setdefault(row["image"], []).append(judged)
        for name in images:
            names.setdefault(PurePath(name).name, []).append(name)
        return cls(images, names)

    def of(self, path: str | os.PathLike[str]) -> Sequence[LabelRow]:
        """Return the rows of the image at a path: the only one of its file name, or the one that ends it."""
        path = PurePath(path)
        names = self.names.get(path.name, ())
        if len(names) > 1:
            names = [name for name in names if f"/{path.as_posix()}".endswith(f"/{name}")]
        return self.images[names[0]] if len(names) == 1 else ()
