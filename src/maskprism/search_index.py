"""Neighbours among more instances than fit into memory: an approximate index on disk, written once for many queries.

The index is an HNSW graph (Malkov and Yashunin, 2018) of usearch over the vectors of `search.Space`, where distances
are Euclidean. It is read by mapping its file into memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from maskprism._common.extras import require
from maskprism.errors import InputError, MaskprismError, TableError
from maskprism.foreign import decode_json, read_regular, size_of_regular
from maskprism.search import Found, Metric, Space, gram_of, weights_of_rows
from maskprism.table import INSTANCES, TablePaths, parquet_file, read_settings

if TYPE_CHECKING:
    from jaxtyping import Float32, Int64

    from maskprism.locations import Location, UriPath

_MORE, _EXPANSION = 4, 128
"""The search goes over so many times as many instances as are asked for, or so many."""
_AT_ONCE = 1 << 16


class _About(msgspec.Struct):
    """What the file beside an index says of it."""

    maskprism_index: int
    metric: Metric
    prototypes: int
    rows: int
    model_sha256: str
    gram: list[list[float]] | None = None


class _Group(NamedTuple):
    """A row group of a file of the table, and the number of its first row in the whole table."""

    file: Location
    group: int
    start: int
    rows: int


class SearchIndex:
    """An index of the instances of a table of Parquet: a file, and beside it a `.json` that says what it is of."""

    def __init__(self, path: Path, about: _About, index: Any) -> None:
        self.path, self._about, self._index = path, about, index
        self.space = Space(about.metric, None if about.gram is None else np.array(about.gram, dtype=np.float32))

    def __len__(self) -> int:
        return self._about.rows

    @classmethod
    def write(
        cls,
        table: str | os.PathLike[str] | UriPath,
        path: str | os.PathLike[str],
        *,
        metric: Metric = "cosine",
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> SearchIndex:
        """Index all instances of a table; see `search.search` for the metrics. on_progress: (instances done, of all).

        Memory grows with the index (some 300 bytes per instance and 32 coefficients). Raises TableError for a table
        that is none, is CSV, or lacks what the metric needs; MissingExtraError without usearch, MaskprismError where
        nothing can be written.
        """
        usearch = require("usearch.index", "an index")
        paths, settings = _table(table)
        k = int(settings["prototypes"])
        gram = gram_of(table, k) if metric == "mask" else None
        space, groups = Space(metric, gram), _groups(paths)
        total = sum(group.rows for group in groups)
        index = usearch.Index(ndim=k, metric="l2sq", dtype="f32")
        for group in groups:
            rows = _read(group)
            for start in range(0, len(rows), _AT_ONCE):
                vectors = space.embedded(weights_of_rows(rows.slice(start, _AT_ONCE), settings))
                keys = np.arange(len(vectors), dtype=np.uint64) + group.start + start
                index.add(keys, vectors)
                on_progress(group.start + start + len(vectors), total)
        about = _About(1, metric, k, total, str(settings["model_sha256"]), None if gram is None else gram.tolist())
        target = Path(path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            index.save(os.fspath(target))
            _beside(target).write_bytes(msgspec.json.encode(about))
        except OSError as error:
            raise MaskprismError(f"{target}: cannot be written ({error.strerror or error})") from None
        return cls(target, about, index)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> SearchIndex:
        """Open an index. Raises TableError for a file that is none, MissingExtraError without usearch."""
        usearch, target = require("usearch.index", "an index"), Path(path)
        hint = "an index that maskprism search wrote; delete it to have it written again"
        about = decode_json(read_regular(_beside(target), TableError), _About, str(_beside(target)), TableError, hint)
        size_of_regular(target, TableError)
        try:
            index = usearch.Index.restore(os.fspath(target), view=True)
        except (OSError, RuntimeError, ValueError) as error:
            raise TableError(f"{target}: cannot be read ({error}); expected {hint}") from None
        if index is None or (index.ndim, len(index)) != (about.prototypes, about.rows):
            raise TableError(f"{target}: does not fit {_beside(target).name}; expected {hint}")
        return cls(target, about, index)

    def search(
        self,
        table: str | os.PathLike[str] | UriPath,
        like: tuple[str, int] | Float32[np.ndarray, " K"],
        *,
        count: int = 20,
    ) -> Found:
        """As `search.search`, by this index of that table: nearly all of the nearest instances, their distances exact.

        Raises TableError where the table is another one or has changed since, and InputError as `search.search`.
        """
        if count < 1:
            raise InputError(f"count is {count}; expected at least 1")
        paths, settings = _table(table)
        groups = _groups(paths)
        rows = sum(group.rows for group in groups)
        if (rows, str(settings["model_sha256"])) != (len(self), self._about.model_sha256):
            raise TableError(
                f"{self.path}: is the index of another table, or this one has changed ({len(self)} instances then, "
                f"{rows} now); delete it to have it written again"
            )
        itself = like if isinstance(like, tuple) else None
        own = None if itself is None else _row_of(groups, settings, itself, str(paths.table))
        query = np.asarray(like, dtype=np.float32) if own is None else own[1]
        k = self._about.prototypes
        if query.shape != (k,) or not np.isfinite(query).all():
            raise InputError(f"the vector has shape {query.shape}; expected {k} finite weights")
        self._index.expansion_search = max(_EXPANSION, _MORE * count)
        found = self._index.search(self.space.embedded(query[None])[0], count + (own is not None))
        positions, squares = found.keys.astype(np.int64), found.distances.astype(np.float32)
        kept = (np.ones(len(positions), bool) if own is None else positions != own[0]).nonzero()[0][:count]
        # Unit vectors at an angle with cosine c are apart by the root of 2 - 2 c.
        distances = squares[kept] / 2 if self.space.metric == "cosine" else np.sqrt(squares[kept])
        rows = _rows_at(groups, positions[kept])
        return Found(rows.append_column(pa.field("distance", pa.float32()), pa.array(distances)), None)


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _table(table: str | os.PathLike[str] | UriPath) -> tuple[TablePaths, dict[str, Any]]:
    paths = TablePaths.of(table)
    settings = read_settings(paths)
    if settings is None:
        raise TableError(f"{paths.table}: there is no such table")
    if paths.settings is not None:
        raise TableError(f"{paths.table}: is CSV; an index needs a table of Parquet, or a folder of parts")
    return paths, settings


def _groups(paths: TablePaths) -> list[_Group]:
    files = [paths.part(INSTANCES, stem) for stem in paths.stems()] if paths.is_folder else [paths.instances]
    found: list[_Group] = []
    start = 0
    for file in files:
        with parquet_file(file) as parquet:
            for group in range(parquet.num_row_groups):
                rows = parquet.metadata.row_group(group).num_rows
                found.append(_Group(file, group, start, rows))
                start += rows
    return found


def _read(group: _Group) -> pa.Table:
    with parquet_file(group.file) as parquet:
        return parquet.read_row_group(group.group)


def _rows_at(groups: list[_Group], positions: Int64[np.ndarray, " n"]) -> pa.Table:
    """The rows with these numbers, in their order."""
    with parquet_file(groups[0].file) as parquet:
        found = [parquet.schema_arrow.empty_table()]
    order = np.argsort(positions)
    ascending = positions[order]
    for group in groups:
        own = ascending[(ascending >= group.start) & (ascending < group.start + group.rows)]
        if len(own):
            found.append(_read(group).take(pa.array(own - group.start)))
    return pa.concat_tables(found).take(pa.array(np.argsort(order)))


def _row_of(
    groups: list[_Group], settings: dict[str, Any], which: tuple[str, int], label: str
) -> tuple[int, Float32[np.ndarray, " K"]]:
    """The number of the row of an instance, and its weights; groups without its image are not read."""
    name, instance = which
    known = 0
    for group in groups:
        with parquet_file(group.file) as parquet:
            statistics = parquet.metadata.row_group(group.group).column(0).statistics
            if statistics is not None and statistics.has_min_max and not statistics.min <= name <= statistics.max:
                continue
            rows = parquet.read_row_group(group.group, ["image", "instance"])
            of_image = pc.equal(rows["image"], pa.scalar(name, pa.string()))
            known += pc.sum(of_image).as_py() or 0
            at = np.flatnonzero(
                np.asarray(pc.and_(of_image, pc.equal(rows["instance"], pa.scalar(instance, pa.int64()))))
            )
            if len(at):
                row = parquet.read_row_group(group.group).slice(int(at[0]), 1)
                return group.start + int(at[0]), weights_of_rows(row, settings)[0]
    has = f"that image has {known} instances there" if known else "no instance of that image is there"
    raise InputError(f"{label}: there is no instance {instance} of {name!r}; {has}")
