"""A table in the making: parts on disk that survive a kill at any moment, and their merge.

One rule makes every moment safe: an image is done when, and only when, a record of it is in the
finished table of images or in a committed part. Rows without such a record do not count. Every
file is written under another name and moved into place, the records after the rows they speak of.
"""

from __future__ import annotations

import json
import os
import re
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
from maskprism.table import TablePaths, TableWriter, read_batches, read_parquet_settings, read_settings

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

_NUMBER = re.compile(r"[0-9]{6,18}")
_ROWS, _IMAGES, _TEMPORARY = ".rows.parquet", ".images.parquet", ".tmp"


class UnfinishedTable:
    """The table at `paths`, open for more images; a context that only one process can hold.

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

    def __enter__(self) -> Self:
        with _writing(self.paths.parts):
            self._lock = _Lock(self.paths.parts, self.paths.table)
        try:
            recorded = read_settings(self.paths)
            self._refuse_strangers(recorded)
            if not self._overwrite:
                self._refuse_mixing(self.paths.table, recorded)
            continuing = self._continue_parts()
            if not self._overwrite:
                self._read_finished(recorded is not None)
            self._read_parts()
            if not continuing:
                with _writing(self.paths.parts):
                    self._write_manifest(merged=False)
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def commit(self, rows: pa.Table, images: pa.Table) -> None:
        """Put a run of images and their rows on disk; from here on they are done."""
        stem = str(self.paths.parts / f"{self._next:06d}")
        with _writing(self.paths.parts):
            for suffix, table in ((_ROWS, rows), (_IMAGES, images)):  # the records are the commit
                temporary = Path(stem + suffix + _TEMPORARY)
                with temporary.open("wb") as file:
                    pq.write_table(table, file, compression="zstd")
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, stem + suffix)  # noqa: PTH105
        self._next += 1
        self._count(images)

    def finish(self) -> None:
        """Merge the parts into the finished files, if they hold anything new, and remove them."""
        if self._has_news:
            temporary = {path: self.paths.parts / (path.name + _TEMPORARY) for path in self._targets()}
            with _writing(self.paths.table):
                self._merge(temporary[self.paths.table], temporary[self.paths.images])
                if self.paths.settings is not None:
                    text = json.dumps(self._settings, ensure_ascii=False, indent=2) + "\n"
                    temporary[self.paths.settings].write_text(text, encoding="utf-8")
                if self._overwrite:  # old records must never meet new rows, nor old rows new settings
                    self.paths.images.unlink(missing_ok=True)
                    self.paths.table.unlink(missing_ok=True)
                # The table of images comes last: until it is there, only the parts count as done.
                for path in self._targets():
                    os.replace(temporary[path], path)  # noqa: PTH105
                self._write_manifest(merged=True)
        with _writing(self.paths.parts):
            self._remove_parts()

    def _targets(self) -> list[Path]:
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
        for number in self._part_numbers():
            for suffix, writer, schema in (
                (_ROWS, row_writer, self._rows_schema),
                (_IMAGES, image_writer, self._images_schema),
            ):
                part = _read(self.paths.parts / f"{number:06d}{suffix}", schema)
                writer.write(self._unfinished(part))
        row_writer.close()
        image_writer.close()

    def _unfinished(self, part: pa.Table) -> pa.Table:
        """The rows of a part whose images are not in the finished table yet."""
        finished = [name for name in part["image"].unique().to_pylist() if name in self._finished]
        if not finished:
            return part
        return part.filter(pc.invert(pc.is_in(part["image"], value_set=pa.array(finished, pa.string()))))

    def _continue_parts(self) -> bool:
        """Whether there are parts of an earlier run to take over; what is left of a merged one is removed."""
        manifest = self._read_manifest()
        if manifest is not None:
            differing = differences(manifest.settings, self._settings)
            stale = manifest.merged or (self._overwrite and (differing or not manifest.overwrite))
            if not stale:
                self._refuse_mixing(self.paths.parts, manifest.settings)
                self._continues = manifest.continues
                return True
            with _writing(self.paths.parts):
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
        if paths.settings is None and (found := pq.read_metadata(paths.table).num_rows) < self._finished_rows:
            raise self._does_not_fit(found)

    def _read_parts(self) -> None:
        numbers = self._part_numbers()
        self._next = numbers[-1] + 1 if numbers else 0
        for number in numbers:
            self._count(self._unfinished(_read(self.paths.parts / f"{number:06d}{_IMAGES}", self._images_schema)))

    def _part_numbers(self) -> list[int]:
        names = (path.name.removesuffix(_IMAGES) for path in self.paths.parts.glob(f"*{_IMAGES}"))
        return sorted(int(name) for name in names if _NUMBER.fullmatch(name))

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

    def _refuse_mixing(self, path: Path, recorded: dict[str, Any] | None) -> None:
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
        if not os.path.lexists(path):
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
        temporary = path.with_name(path.name + _TEMPORARY)
        temporary.write_text(json.dumps(manifest, ensure_ascii=False), encoding="utf-8")
        os.replace(temporary, path)  # noqa: PTH105

    def _remove_parts(self, *, keep_folder: bool = False) -> None:
        """Remove what this module wrote; the manifest goes last, so that no part is ever without one."""
        folder = self.paths.parts
        for path in sorted(folder.iterdir()):
            if path.name.endswith((_ROWS, _IMAGES, _TEMPORARY)):
                path.unlink()
        (folder / "manifest.json").unlink(missing_ok=True)
        if not keep_folder:
            self._close()

    def _close(self) -> None:
        """Let others in; a folder without parts is removed."""
        if self._lock.held:
            self._lock.release()
            with suppress(OSError):  # it holds parts, or somebody else has started to use it
                self.paths.parts.rmdir()


class _Lock:
    """An advisory lock on a file, where the system has them; the system frees it when a process dies."""

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


class _writing:  # noqa: N801
    """Turns what goes wrong while writing into a TableError; nothing that was committed is touched."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, OSError | pa.ArrowException):
            raise TableError(
                f"{self._path}: cannot be written ({error}); make room or choose another folder. "
                "Images already extracted are kept: run the same command again to continue"
            ) from error


def _read(path: Path, schema: pa.Schema) -> pa.Table:
    return pa.concat_tables([schema.empty_table(), *_batches(path, schema)])


def _batches(path: Path, schema: pa.Schema) -> Iterator[pa.Table]:
    try:
        yield from read_batches(path, schema)
    except TableError as error:
        raise TableError(f"{error}. Delete {path.parent} to start over") from None
