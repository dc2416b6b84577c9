"""A table in the making: parts on disk that survive a kill at any moment, and their merge.

One rule makes every moment safe: an image is done when, and only when, a record of it is in the
finished table of images or in a committed part. Rows without such a record do not count. Every
file is written under another name and moved into place, the records after their rows.
A table that is a folder keeps its parts; one that is a file gets them merged at the end.

Behind a URI the files are written here and put in place whole. Nothing is locked there: who begins
last goes on, parts of two processes have different names, and an image counts once.
"""

from __future__ import annotations

import json
import os
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from maskprism.errors import TableError
from maskprism.io.untrusted import is_folder
from maskprism.io.uris import Location, UriPath
from maskprism.tables.schema import differences, image_schema, instance_schema, prototype_schema
from maskprism.tables.table import (
    IMAGES,
    INSTANCES,
    PROTOTYPES,
    TablePaths,
    TableWriter,
    count_rows,
    part_number,
    read_batches,
    read_manifest,
    read_parquet_settings,
    read_settings,
    without,
)

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

_TEMPORARY = ".tmp"
OVERWRITE = "overwrite=True (on the command line: --overwrite)"


class UnfinishedTable:
    """The table at `paths`, open for more images; a context that one process holds, where files can be locked.

    Attributes
    ----------
    done
        Names of the images that need no more work.
    records, failed
        How many images have a record, and how many of those failed.

    Raises
    ------
    TableError
        Where the table was made with other settings, is incomplete, is not ours, cannot be written, or is being written
        by another process; and for CSV where prototypes are stored.
    """

    def __init__(self, paths: TablePaths, settings: dict[str, Any], *, overwrite: bool = False) -> None:
        self.paths, self._settings, self._overwrite = paths, settings, overwrite
        # The records come last: they are the commit.
        stored = {PROTOTYPES: prototype_schema(settings)} if settings.get("stored") else {}
        self._schemas = {INSTANCES: instance_schema(settings), **stored, IMAGES: image_schema(settings)}
        if stored and paths.settings is not None:
            raise TableError(f"{paths.table}: CSV holds no prototypes; choose a .parquet file, or a folder")
        self.done: set[str] = set()
        self.records = self.failed = 0
        self._finished: set[str] = set()
        self._finished_rows = 0
        self._staging: tempfile.TemporaryDirectory[str] | None = None
        self._doubled = self._complete = False

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
        if not self._overwrite and not self.paths.is_folder:
            self._read_finished(recorded is not None)
        self._read_parts()
        if not continuing:
            self._write_manifest(merged=False)
        for kind in self._schemas:
            (self.paths.parts / kind).mkdir(parents=True, exist_ok=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def commit(self, tables: Mapping[str, pa.Table]) -> None:
        """Put a run of images on disk, as a table of each kind; from here on they are done."""
        self._lock.check()
        stem = f"{self._next:06d}{self._lock.mark}"
        with _writing(self.paths.parts):
            if self._complete:
                self._write_manifest(merged=False)
                self._complete = False
            for kind in self._schemas:
                self._write_part(kind, stem, tables[kind])
        self._next += 1
        self._count(tables[IMAGES])

    def _write_part(self, kind: str, stem: str, table: pa.Table) -> None:
        part = self.paths.part(kind, stem)
        staged = self._staged(part)
        writer = TableWriter(staged, self._schemas[kind], csv=False)
        writer.write(table)
        writer.close()
        self._put(staged, part)

    def finish(self) -> None:
        """Merge the parts into the finished files, if they hold anything new, and remove them.

        A folder keeps them; images that two processes have done are left in one part only.
        """
        if self.paths.is_folder:
            with _writing(self.paths.parts):
                if self._doubled:
                    self._single_out()
                if not self._complete:
                    self._lock.check()
                    self._write_manifest(merged=True)
            return
        if self._has_news:
            self._lock.check()
            staged = {path: self._staged(path) for path in self._targets()}
            with _writing(self.paths.table):
                self._merge({kind: staged[self._target(kind)] for kind in self._schemas})
                if self.paths.settings is not None:
                    text = json.dumps(self._settings, ensure_ascii=False, indent=2) + "\n"
                    staged[self.paths.settings].write_text(text, encoding="utf-8")
                self._lock.check()
                if self._overwrite:  # old records must never meet new rows, nor old rows new settings
                    for path in (self.paths.images, self.paths.prototypes, self.paths.instances):
                        path.unlink(missing_ok=True)
                # The table of images comes last: until it is there, only the parts count as done.
                for path in self._targets():
                    self._put(staged[path], path)
                self._write_manifest(merged=True)
        with _writing(self.paths.parts):
            self._remove_parts()

    def _staged(self, path: Location) -> Path:
        """Return where a file is written before it is put in its place: a disk of this machine."""
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

    def _target(self, kind: str) -> Location:
        paths = self.paths
        return {INSTANCES: paths.instances, PROTOTYPES: paths.prototypes, IMAGES: paths.images}[kind]

    def _targets(self) -> list[Location]:
        settings = [self.paths.settings] if self.paths.settings is not None else []
        return [*settings, *map(self._target, self._schemas)]

    @property
    def _has_news(self) -> bool:
        return len(self.done) > len(self._finished)

    def _merge(self, staged: Mapping[str, Path]) -> None:
        csv = self.paths.settings is not None
        writers = {kind: TableWriter(staged[kind], schema, csv=csv) for kind, schema in self._schemas.items()}
        if self._finished:
            for kind, schema in self._schemas.items():
                kept = 0
                for batch in read_batches(self._target(kind), schema):
                    # Further rows are those of the same parts, from a merge that was killed between two files.
                    if kind == INSTANCES:
                        batch = batch.slice(0, self._finished_rows - kept)
                    elif kind == PROTOTYPES:
                        batch = batch.filter(pc.is_in(batch["image"], value_set=pa.array(self._finished, pa.string())))
                    kept += len(batch)
                    writers[kind].write(batch)
                if kind == INSTANCES and kept != self._finished_rows:
                    raise self._does_not_fit(kept)
        merged = set(self._finished)
        for stem in self.paths.stems():
            images: list[str] = []
            for kind in self._schemas:
                for batch in self._read_part(kind, stem):
                    if kind == IMAGES:
                        images += batch["image"].to_pylist()
                    writers[kind].write(without(batch, merged))
            merged.update(images)
        for writer in writers.values():
            writer.close()

    def _single_out(self) -> None:
        """Write the parts anew whose images are in an earlier one, too."""
        done: set[str] = set()
        for stem in self.paths.stems():
            found = {kind: [*self._read_part(kind, stem)] for kind in self._schemas}
            images = {name for batch in found[IMAGES] for name in batch["image"].to_pylist()}
            if images & done:
                self._lock.check()
                for kind in self._schemas:
                    rows = [self._schemas[kind].empty_table(), *found[kind]]
                    self._write_part(kind, stem, without(pa.concat_tables(rows), done))
            done |= images

    def _continue_parts(self) -> bool:
        """Return whether there are parts of an earlier run to take over; what is left of a merged one is removed."""
        manifest = read_manifest(self.paths)
        if manifest is not None:
            differing = differences(manifest.settings, self._settings)
            begun = self._overwrite and not differing and manifest.overwrite and not manifest.merged
            stale = not begun if self._overwrite else manifest.merged and not self.paths.is_folder
            if not stale:
                self._refuse_mixing(self.paths.parts, manifest.settings)
                self._continues = manifest.continues
                self._complete = manifest.merged
                self._lock.take()
                return True
        self._lock.take()
        if manifest is not None:
            self._remove_parts(keep_folder=True)
        self._continues = not self._overwrite and not self.paths.is_folder and self.paths.table.exists()
        return False

    def _read_finished(self, has_settings: bool) -> None:
        """Take over the records of the finished table."""
        paths, images_schema = self.paths, self._schemas[IMAGES]
        if not paths.images.exists():
            # Between its first two files, a first merge leaves a table without images: then only parts count.
            if paths.table.exists() and self._continues:
                raise TableError(
                    f"{paths.images}: is missing, so it is unknown which images {paths.table.name} holds; "
                    f"put it back, or start over with {OVERWRITE}"
                )
            return
        if not has_settings or not paths.table.exists():
            raise TableError(
                f"{paths.images}: records images of a table that is not there ({paths.table.name}); "
                f"put it back, or start over with {OVERWRITE}"
            )
        if PROTOTYPES in self._schemas and not paths.prototypes.exists():
            raise TableError(
                f"{paths.prototypes}: is missing; put the prototypes of {paths.table.name} back, or start over "
                f"with {OVERWRITE}"
            )
        if paths.settings is None:
            self._refuse_mixing(paths.images, read_parquet_settings(paths.images))
        for batch in read_batches(paths.images, images_schema):
            self._count(batch)
            self._finished_rows += pc.sum(batch["instances"]).as_py() or 0
        self._finished = set(self.done)
        if paths.settings is None and (found := count_rows(paths.table)) < self._finished_rows:
            raise self._does_not_fit(found)

    def _read_parts(self) -> None:
        stems = self.paths.stems()
        self._next = part_number(stems[-1]) + 1 if stems else 0
        for stem in stems:
            for batch in self._read_part(IMAGES, stem):
                new = without(batch, self.done)
                self._doubled |= len(new) < len(batch)
                self._count(new)
        if self.paths.is_folder:  # rows without a record, which others would read
            for kind in (PROTOTYPES, INSTANCES):
                for path in _files_in(self.paths.parts / kind):
                    if path.stem not in stems:
                        path.unlink(missing_ok=True)

    def _read_part(self, kind: str, stem: str) -> Iterator[pa.Table]:
        try:
            yield from read_batches(self.paths.part(kind, stem), self._schemas[kind])
        except TableError as error:
            raise TableError(f"{error}. Delete {self.paths.parts} to start over") from None

    def _count(self, images: pa.Table) -> None:
        self.done.update(images["image"].to_pylist())
        self.records += len(images)
        self.failed += pc.sum(pc.equal(images["status"], "failed")).as_py() or 0

    def _refuse_strangers(self, recorded: dict[str, Any] | None) -> None:
        """Raise TableError for a file in the way that was not written here; overwriting does not replace those."""
        folder, paths = self.paths.parts, self.paths
        names = [path.name for path in folder.iterdir()]
        strangers = [name for name in names if name != "lock" and not name.endswith(_TEMPORARY)]
        if isinstance(folder, UriPath):
            strangers += [path.name_in(folder) for path in folder.files(recursive=True) if path.name not in names]
        if strangers and "manifest.json" not in strangers:
            what = "a table in parts" if paths.is_folder else "a folder of parts"
            raise TableError(
                f"{folder}: holds {strangers[0]} and no manifest, so it is not {what}; "
                "move it away, or choose another name for the table"
            )
        settings = self._settings if recorded is None else recorded
        for path, schema in ((paths.instances, instance_schema(settings)), (paths.images, image_schema(settings))):
            if not paths.is_folder and path.exists():
                if paths.settings is None:
                    read_parquet_settings(path)
                next(read_batches(path, schema), None)

    def _refuse_mixing(self, path: Location, recorded: dict[str, Any] | None) -> None:
        found = differences(recorded, self._settings) if recorded else []
        if found:
            raise TableError(
                f"{path}: was made with other settings, and one table cannot mix them ({'; '.join(found)}); "
                f"choose another name for the table, or start over with {OVERWRITE}"
            )

    def _does_not_fit(self, rows: int) -> TableError:
        return TableError(
            f"{self.paths.table}: holds {rows} instances and {self.paths.images.name} records {self._finished_rows}; "
            f"one of them was changed. Put it back, or start over with {OVERWRITE}"
        )

    def _write_manifest(self, *, merged: bool) -> None:
        path = self.paths.manifest
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
        """Remove what this module wrote; records before rows, and the manifest last: no part is ever without one."""
        folder = self.paths.parts
        for kind in (IMAGES, PROTOTYPES, INSTANCES):
            for path in sorted(_files_in(folder / kind), key=lambda path: path.name):
                path.unlink(missing_ok=True)
            with suppress(OSError):
                (folder / kind).rmdir()
        found: list[Location] = [*folder.iterdir()]
        for path in sorted(found, key=lambda path: path.name):
            if path.name.endswith(_TEMPORARY):
                path.unlink()
        self.paths.manifest.unlink(missing_ok=True)
        if not keep_folder:
            self._close()

    def _close(self) -> None:
        """Let others in; a folder without parts is removed."""
        if self._staging is not None:
            self._staging.cleanup()
            self._staging = None
        if self._lock.held:
            self._lock.release()
            with suppress(OSError):  # it holds parts, or another process has started to use it
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
        """Let others in; the file is removed while still held, so that no process locks one that is gone."""
        self._path.unlink(missing_ok=True)
        if self._file is not None:
            self._file.close()
        self._file, self.held = None, False

    def take(self) -> None:
        """It is held from the beginning."""

    def check(self) -> None:
        """Do nothing: no process can take it away."""


class _Claim:
    """What stands in for a lock behind a URI: a note of who writes, which the next one to begin replaces.

    Attributes
    ----------
    mark
        In the names of parts, so that those of two processes never mix.
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
        """Raise TableError if another process has begun to write."""
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


def _files_in(folder: Location) -> Iterator[Location]:
    """Yield the parts of one kind, whole or not."""
    found: list[Location] = [*folder.iterdir()] if is_folder(folder) else []
    return (path for path in found if path.suffix in (".parquet", _TEMPORARY))
