"""Predictions drawn again from a table whose prototypes were stored: no network, no image.

stored = StoredPredictions.open("people.parquet")
stored["holidays/0001.jpg"].masks("image")
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from maskprism.errors import InputError, TableError
from maskprism.io.images import image_name
from maskprism.io.untrusted import is_file, shortened
from maskprism.io.uris import Location, UriPath
from maskprism.tables.schema import prototype_schema
from maskprism.tables.stored_prototypes import VALUES, restored, unpacked
from maskprism.tables.table import (
    PROTOTYPES,
    CoefficientTable,
    TablePaths,
    matrix_of,
    parquet_file,
    read_batches,
    read_row_group,
)

if TYPE_CHECKING:
    from jaxtyping import Float32

    from maskprism.core.prediction import Prediction
    from maskprism.datasets import Dataset


class _Place(NamedTuple):
    """Where the prototypes of an image are: a row of a row group of a file."""

    file: Location
    group: int
    row: int


class StoredPredictions(Mapping[str, "Prediction"]):
    """What was predicted for images, by their names in the table; prototypes are read when asked for."""

    def __init__(self, table: CoefficientTable, places: Mapping[str, _Place], label: str) -> None:
        self.table, self.label = table, label
        self._places = places
        names = table.arrow["image"].combine_chunks()
        starts = np.flatnonzero(np.concatenate([[True], np.asarray(pc.not_equal(names[1:], names[:-1]))])[: len(names)])
        stops = [*starts[1:].tolist(), len(names)]
        self._rows = {names[start].as_py(): (start, stop) for start, stop in zip(starts.tolist(), stops, strict=True)}
        self._held: tuple[tuple[Location, int], pa.Table] | None = None

    @classmethod
    def open(cls, path: str | os.PathLike[str] | UriPath) -> StoredPredictions:
        """Find the images of the table at `path`, a path or URI, whose prototypes are there.

        Raises
        ------
        TableError
            Where there is no such table, none were stored, or a file is damaged.
        """
        table, paths = CoefficientTable.read(path), TablePaths.of(path)
        if table.metadata.get("stored") is None:
            raise TableError(f"{paths.table}: has no prototypes; extract it with prototypes stored as fp16 or fp32")
        schema = prototype_schema(table.metadata)
        files: list[Location] = (
            [paths.part(PROTOTYPES, stem) for stem in paths.stems()] if paths.is_folder else [paths.prototypes]
        )
        places: dict[str, _Place] = {}
        for file in files:
            if not is_file(file):
                raise TableError(f"{shortened(file)}: is missing; put the prototypes of the table back")
            next(read_batches(file, schema), None)  # checks the columns
            with parquet_file(file) as parquet:
                for group in range(parquet.num_row_groups):
                    names = read_row_group(file, parquet, group, schema, ["image"])["image"].to_pylist()
                    for row, name in enumerate(names):
                        places.setdefault(name, _Place(file, group, row))
        return cls(table, places, str(paths.table))

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __getitem__(self, name: str) -> Prediction:
        """What was predicted for an image.

        Raises
        ------
        KeyError
            For one that has no instances, or is not in the table.
        """
        start, stop = self._rows.get(name, (0, 0))
        label = f"{self.label}: {name}"
        return restored(self._stored(name), self.table.arrow.slice(start, stop - start), self.table.metadata, label)

    def gram(self, name: str) -> Float32[np.ndarray, "K K"]:
        """Return the Gram matrix of an image's prototypes; see `stored_prototypes.gram`.

        Raises
        ------
        KeyError
            As above.
        """
        return unpacked(np.asarray(self._stored(name)["gram"], dtype=np.float32))

    def grams(self) -> Iterator[tuple[str, Float32[np.ndarray, "K K"]]]:
        """Yield all Gram matrices with the names of their images; prototypes are not read for them."""
        schema = prototype_schema(self.table.metadata)
        for file in dict.fromkeys(place.file for place in self._places.values()):
            with parquet_file(file) as parquet:
                for group in range(parquet.num_row_groups):
                    found = read_row_group(file, parquet, group, schema, ["image", "gram"])
                    matrices = unpacked(matrix_of(found["gram"]))
                    for row, (name, matrix) in enumerate(zip(found["image"].to_pylist(), matrices, strict=True)):
                        if self._places[name] == _Place(file, group, row):
                            yield name, matrix

    def _stored(self, name: str) -> dict[str, Any]:
        place = self._places[name]
        key = (place.file, place.group)
        held = self._held  # another thread may replace it
        if held is None or held[0] != key:
            with parquet_file(place.file) as parquet:
                schema = prototype_schema(self.table.metadata)
                self._held = held = key, read_row_group(place.file, parquet, place.group, schema)
        found = held[1].slice(place.row, 1)
        values = {column: found[column][0].as_py() for column in found.column_names if column != VALUES}
        if VALUES in found.column_names:
            values[VALUES] = found[VALUES].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return values


@dataclass(frozen=True)
class StoredModel:
    """A table in place of the model that it was extracted with: gives what was predicted for the images of a data set.

    Attributes
    ----------
    predictions
        The table.
    images
        The name in the table of each image, by its name in the data set.
    """

    predictions: StoredPredictions
    images: Mapping[str, str]
    batch: int = 1
    grey: bool = False

    @classmethod
    def of(cls, predictions: StoredPredictions, dataset: Dataset) -> StoredModel:
        """Find the images of a data set in a table: by their paths, or by their names.

        Raises
        ------
        InputError
            If none of them is there.
        """
        images = cls.names_in(predictions, dataset)
        if not images:
            raise InputError(
                f"{predictions.label}: none of its {len(predictions)} images with prototypes is one of the "
                f"{len(dataset)} of {dataset.path}; expected a table of the same images"
            )
        return cls(predictions, images, grey=predictions.table.metadata["preprocessing"].get("channels") == "grey")

    @staticmethod
    def names_in(predictions: StoredPredictions, dataset: Dataset) -> dict[str, str]:
        """Return the name in the table of each image that it has, by its name in the data set."""
        source = str(predictions.table.metadata.get("source", ""))
        by_path = {os.path.realpath(f"{source}/{name}"): name for name in predictions}
        pairs = (
            (image.name, by_path.get(os.path.realpath(str(image.image)), image.name))
            for image in dataset.images.pending(frozenset())
        )
        return {image: name for image, name in pairs if name in predictions}

    def predict(self, images: Sequence[Any], /) -> list[Prediction]:
        """Return what was predicted for images, as `Sample.read` gives them.

        Raises
        ------
        InputError
            For an image whose prototypes the table does not have, or of another size than it had.
        TableError
            For a damaged table.
        """
        return [self._predicted(image) for image in images]

    def _predicted(self, image: Any) -> Prediction:
        name = self.images.get(image_name(image) or "")
        if name is None:
            raise InputError(
                "the table has no prototypes of this image: it is not in the table, or nothing was detected in it "
                "(extract with a lower --conf)"
            )
        prediction = self.predictions[name]
        if prediction.image_size != image.shape[:2]:
            then, now = (f"{width} x {height}" for height, width in (prediction.image_size, image.shape[:2]))
            raise InputError(f"had {then} pixels when the table was extracted, and has {now} now; extract it again")
        return prediction
