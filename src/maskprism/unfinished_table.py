"""A table in the making: parts on disk that survive a kill at any moment, and their merge.

One rule makes every moment safe: an image is done when, and only when, a record of it is in the
finished table of images or in a committed part. Rows without such a record do not count. Every
file is written under another name and moved into place, the records after the rows they speak of.

Behind a URI the files are written here and put in place whole. Nothing is locked there: who begins
last goes on, parts of two processes have different names, and an image counts once.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from maskprism.columns import Manifest, differences, image_schema, instance_schema, read_manifest_text
from maskprism.errors import TableError
from maskprism.foreign import read_regular
from maskprism.locations import Location, UriPath
from maskprism.table import (
    TablePaths,
    TableWriter,
    count_rows,
    read_batches,
    read_parquet_settings,
    read_settings,
    there,
)

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

_STEM = re.compile(r"([0-9]{6,18})(-[0-9a-f]{8})?")
_ROWS, _IMAGES, _TEMPORARY = ".rows.parquet", ".images.parquet", ".tmp"


class UnfinishedTable:
    """The table at `paths`, open for more images; a context that one process holds, where files can be locked.

    done: names of the images that need no more work. records, failed: how many images have a
        record, and how many of those failed.

    Raises TableError where the table was made with other settings, is incomplete, is not ours,
    cannot be written, or is being written by another process.
    """

    def __init__(self, paths: TablePaths, settings: dict[str, Any], *, overwrite: bool = False) -> None:
        self.paths, self._settings, self._overwrite = paths, settings, overwrite
        self._rows_schema, self._images_schema = instance_schema(settings), image_schema(settings)
        self.done: set[str] = set()
        self.records = self.failed = 0
        self._finished: set[str] = set()
        self._finished_rows = 0
        self._staging: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Self:
        with _writing(self.paths.parts):
            self._lock = _lock(self.paths)
        try:
            with _writing(self.paths.parts):
                self._open()
        except BaseException:
            self._close()
            raise
        return self

    def _open(self) -> None:
        recorded = read_settings(self.paths)
        self._refuse_strangers(recorded)
        if not self._overwrite:
            self._refuse_mixing(self.paths.table, recorded)
        continuing = self._continue_parts()
        if not self._overwrite:
            self._read_finished(recorded is not None)
        self._read_parts()
        if not continuing:
            self._write_manifest(merged=False)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def commit(self, rows: pa.Table, images: pa.Table) -> None:
        """Put a run of images and their rows on disk; from here on they are done."""
        self._lock.check()
        stem = f"{self._next:06d}{self._lock.mark}"
        with _writing(self.paths.parts):
            for suffix, table in ((_ROWS, rows), (_IMAGES, images)):  # the records are the commit
                part = self.paths.parts / (stem + suffix)
                staged = self._staged(part)
                with staged.open("wb") as file:
                    pq.write_table(table, file, compression="zstd")
                    file.flush()
                    os.fsync(file.fileno())
                self._put(staged, part)
        self._next += 1
        self._count(images)

    def finish(self) -> None:
        """Merge the parts into the finished files, if they hold anything new, and remove them."""
        if self._has_news:
            self._lock.check()
            staged = {path: self._staged(path) for path in self._targets()}
            with _writing(self.paths.table):
                self._merge(staged[self.paths.table], staged[self.paths.images])
                if self.paths.settings is not None:
                    text = json.dumps(self._settings, ensure_ascii=False, indent=2) + "\n"
                    staged[self.paths.settings].write_text(text, encoding="utf-8")
                self._lock.check()
                if self._overwrite:  # old records must never meet new rows, nor old rows new settings
                    self.paths.images.unlink(missing_ok=True)
                    self.paths.table.unlink(missing_ok=True)
                # The table of images comes last: until it is there, only the parts count as done.
                for path in self._targets():
                    self._put(staged[path], path)
                self._write_manifest(merged=True)
        with _writing(self.paths.parts):
            self._remove_parts()

    def _staged(self, path: Location) -> Path:
        """Where a file is written before it is put in its place: a disk of this machine."""
        if isinstance(self.paths.parts, Path):
            return self.paths.parts / (path.name + _TEMPORARY)
        if self._staging is None:
            self._staging = tempfile.TemporaryDirectory(prefix="maskprism-")
        return Path(self._staging.name) / (path.name + _TEMPORARY)

    def _put(self, staged: Path, path: Location) -> None:
        if isinstance(path, UriPath):
            assert isinstance(self.paths.parts, UriPath)
            path.put(staged, by_way_of=self.paths.parts / staged.name)
            staged.unlink()
        else:
            os.replace(staged, path)  # noqa: PTH105

    def _targets(self) -> list[Location]:
        settings = [self.paths.settings] if self.paths.settings is not None else []
        return [*settings, self.paths.table, self.paths.images]

    @property
    def _has_news(self) -> bool:
        return len(self.done) > len(self._finished)

    def _merge(self, table: Path, images: Path) -> None:
        csv = self.paths.settings is not None
        kept = 0
        row_writer = TableWriter(table, self._rows_schema, csv=csv)
        image_writer = TableWriter(images, self._images_schema, csv=csv)
        if self._finished:
            for batch in read_batches(self.paths.images, self._images_schema):
                image_writer.write(batch)
            for batch in read_batches(self.paths.table, self._rows_schema):
                # Further rows are those of the same parts, from a merge that was killed between two files.
                batch = batch.slice(0, self._finished_rows - kept)
                kept += len(batch)
                row_writer.write(batch)
            if kept != self._finished_rows:
                raise self._does_not_fit(kept)
        merged = set(self._finished)
        for stem in self._part_stems():
            rows, records = self._read_part(stem, _ROWS, self._rows_schema), self._read_records(stem)
            row_writer.write(_without(rows, merged))
            image_writer.write(_without(records, merged))
            merged.update(records["image"].to_pylist())
        row_writer.close()
        image_writer.close()

    def _continue_parts(self) -> bool:
        """Whether there are parts of an earlier run to take over; what is left of a merged one is removed."""
        manifest = self._read_manifest()
        if manifest is not None:
            differing = differences(manifest.settings, self._settings)
            stale = manifest.merged or (self._overwrite and (differing or not manifest.overwrite))
            if not stale:
                self._refuse_mixing(self.paths.parts, manifest.settings)
                self._continues = manifest.continues
                self._lock.take()
                return True
        self._lock.take()
        if manifest is not None:
            self._remove_parts(keep_folder=True)
        self._continues = not self._overwrite and self.paths.table.exists()
        return False

    def _read_finished(self, has_settings: bool) -> None:
        """Take over the records of the finished table."""
        paths = self.paths
        if not paths.images.exists():
            # Between its first two files, a first merge leaves a table without images: then only parts count.
            if paths.table.exists() and self._continues:
                raise TableError(
                    f"{paths.images}: is missing, so it is unknown which images {paths.table.name} holds; "
                    "put it back, or start over with overwrite"
                )
            return
        if not has_settings or not paths.table.exists():
            raise TableError(
                f"{paths.images}: records images of a table that is not there ({paths.table.name}); "
                "put it back, or start over with overwrite"
            )
        if paths.settings is None:
            self._refuse_mixing(paths.images, read_parquet_settings(paths.images))
        for batch in read_batches(paths.images, self._images_schema):
            self._count(batch)
            self._finished_rows += pc.sum(batch["instances"]).as_py() or 0
        self._finished = set(self.done)
        if paths.settings is None and (found := count_rows(paths.table)) < self._finished_rows:
            raise self._does_not_fit(found)

    def _read_parts(self) -> None:
        stems = self._part_stems()
        self._next = _number(stems[-1]) + 1 if stems else 0
        for stem in stems:
            self._count(_without(self._read_records(stem), self.done))

    def _part_stems(self) -> list[str]:
        """What the names of the two files of each part begin with, in the order of parts."""
        names = (path.name.removesuffix(_IMAGES) for path in self.paths.parts.iterdir() if path.name.endswith(_IMAGES))
        return sorted((name for name in names if _STEM.fullmatch(name)), key=lambda name: (_number(name), name))

    def _read_records(self, stem: str) -> pa.Table:
        return self._read_part(stem, _IMAGES, self._images_schema)

    def _read_part(self, stem: str, suffix: str, schema: pa.Schema) -> pa.Table:
        return _read(self.paths.parts / f"{stem}{suffix}", schema)

    def _count(self, images: pa.Table) -> None:
        self.done.update(images["image"].to_pylist())
        self.records += len(images)
        self.failed += pc.sum(pc.equal(images["status"], "failed")).as_py() or 0

    def _refuse_strangers(self, recorded: dict[str, Any] | None) -> None:
        """Raise TableError for a file in the way that was not written here; overwriting does not replace those."""
        folder, paths = self.paths.parts, self.paths
        strangers = [p.name for p in folder.iterdir() if p.name != "lock" and not p.name.endswith(_TEMPORARY)]
        if strangers and "manifest.json" not in strangers:
            raise TableError(
                f"{folder}: holds {strangers[0]} and no manifest, so it is not a folder of parts; "
                "move it away, or choose another name for the table"
            )
        settings = self._settings if recorded is None else recorded
        for path, schema in ((paths.table, instance_schema(settings)), (paths.images, image_schema(settings))):
            if path.exists():
                if paths.settings is None:
                    read_parquet_settings(path)
                next(read_batches(path, schema), None)

    def _refuse_mixing(self, path: Location, recorded: dict[str, Any] | None) -> None:
        found = differences(recorded, self._settings) if recorded else []
        if found:
            raise TableError(
                f"{path}: was made with other settings, and one table cannot mix them ({'; '.join(found)}); "
                "choose another name for the table, or start over with overwrite"
            )

    def _does_not_fit(self, rows: int) -> TableError:
        return TableError(
            f"{self.paths.table}: holds {rows} instances and {self.paths.images.name} records {self._finished_rows}; "
            "one of them was changed. Put it back, or start over with overwrite"
        )

    def _read_manifest(self) -> Manifest | None:
        path = self.paths.parts / "manifest.json"
        if not there(path):
            return None
        hint = f"delete {self.paths.parts} to start over"
        return read_manifest_text(read_regular(path, TableError), str(path), hint)

    def _write_manifest(self, *, merged: bool) -> None:
        path = self.paths.parts / "manifest.json"
        manifest = {
            "settings": self._settings,
            "overwrite": self._overwrite,
            "continues": self._continues,
            "merged": merged,
        }
        staged = self._staged(path)
        staged.write_text(json.dumps(manifest, ensure_ascii=False), encoding="utf-8")
        self._put(staged, path)

    def _remove_parts(self, *, keep_folder: bool = False) -> None:
        """Remove what this module wrote; the manifest goes last, so that no part is ever without one."""
        folder = self.paths.parts
        found: list[Location] = [*folder.iterdir()]
        for path in sorted(found, key=lambda path: path.name):
            if path.name.endswith((_ROWS, _IMAGES, _TEMPORARY)):
                path.unlink()
        (folder / "manifest.json").unlink(missing_ok=True)
        if not keep_folder:
            self._close()

    def _close(self) -> None:
        """Let others in; a folder without parts is removed."""
        if self._staging is not None:
            self._staging.cleanup()
            self._staging = None
        if self._lock.held:
            self._lock.release()
            with suppress(OSError):  # it holds parts, or somebody else has started to use it
                self.paths.parts.rmdir()


class _Lock:
    """An advisory lock on a file, where the system has them; the system frees it when a process dies."""

    mark = ""

    def __init__(self, folder: Path, table: Path) -> None:
        self._path = folder / "lock"
        self._file: Any = None
        self.held = True
        path = self._path
        while True:
            folder.mkdir(parents=True, exist_ok=True)
            if fcntl is None:
                return
            try:
                file = path.open("a")
            except FileNotFoundError:  # its last holder finished just now and removed the folder
                continue
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                raise TableError(
                    f"{table}: another process is writing this table; wait for it, or choose another name"
                ) from None
            except OSError:  # a file system without locks
                pass
            try:
                same = os.fstat(file.fileno()).st_ino == path.stat().st_ino
            except FileNotFoundError:  # ... or the file
                same = False
            if same:
                self._file = file
                return
            file.close()

    def release(self) -> None:
        """Let others in; the file is removed while still held, so that nobody locks one that is gone."""
        self._path.unlink(missing_ok=True)
        if self._file is not None:
            self._file.close()
        self._file, self.held = None, False

    def take(self) -> None:
        """It is held from the beginning."""

    def check(self) -> None:
        """Nobody takes it away."""


class _Claim:
    """What stands in for a lock behind a URI: a note of who writes, which the next one to begin replaces.

    mark: in the names of parts, so that those of two processes never mix.
    """

    def __init__(self, folder: UriPath, table: UriPath) -> None:
        self._note, self._table = folder / "lock", table
        self.mark = f"-{uuid.uuid4().hex[:8]}"
        self.held = False

    def take(self) -> None:
        """From here on others who write stop."""
        self._note.parent.mkdir()
        with tempfile.TemporaryDirectory(prefix="maskprism-") as folder:
            staged = Path(folder) / "lock"
            staged.write_text(self.mark, encoding="utf-8")
            self._note.put(staged, by_way_of=self._note.with_name(f"lock{_TEMPORARY}"))
        self.held = True

    def check(self) -> None:
        """Raise TableError if somebody else has begun to write."""
        found = b""
        with _writing(self._table), suppress(FileNotFoundError):
            found = self._note.read_bytes()
        if found != self.mark.encode():
            self.held = False
            raise TableError(
                f"{self._table}: another process has begun to write this table, and this one stops; "
                "run the same command again once that has ended"
            )

    def release(self) -> None:
        """Remove the note."""
        self.held = False
        self._note.unlink(missing_ok=True)


def _lock(paths: TablePaths) -> _Lock | _Claim:
    if isinstance(paths.parts, UriPath):
        assert isinstance(paths.table, UriPath)
        return _Claim(paths.parts, paths.table)
    assert isinstance(paths.table, Path)
    return _Lock(paths.parts, paths.table)


class _writing:  # noqa: N801
    """Turns what goes wrong while writing into a TableError; nothing that was committed is touched."""

    def __init__(self, path: Location) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, OSError | pa.ArrowException):
            raise TableError(
                f"{self._path}: cannot be written ({error}); make room or choose another folder. "
                "Images already extracted are kept: run the same command again to continue"
            ) from error


def _without(part: pa.Table, names: set[str]) -> pa.Table:
    """The rows of a part whose images are none of `names`."""
    found = [name for name in part["image"].unique().to_pylist() if name in names]
    if not found:
        return part
    return part.filter(pc.invert(pc.is_in(part["image"], value_set=pa.array(found, pa.string()))))


def _number(stem: str) -> int:
    return int(stem.partition("-")[0])


def _read(path: Location, schema: pa.Schema) -> pa.Table:
    return pa.concat_tables([schema.empty_table(), *_batches(path, schema)])


def _batches(path: Location, schema: pa.Schema) -> Iterator[pa.Table]:
    try:
        yield from read_batches(path, schema)
    except TableError as error:
        raise TableError(f"{error}. Delete {path.parent} to start over") from None
