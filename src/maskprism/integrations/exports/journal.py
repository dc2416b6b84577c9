"""What has become of each image so far: a file of lines, so that an interrupted call goes on where it stopped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from maskprism._common.files import reporting_write_errors
from maskprism.errors import InputError
from maskprism.io.untrusted import decode_json, is_file

NAME = "images.jsonl"


class ImageRecord(msgspec.Struct, omit_defaults=True):
    """One image that is done, or why it failed.

    Attributes
    ----------
    instances
        Their number by class id.
    stem
        What its files are named after.
    files
        Those about it alone, relative to the folder.
    image_id
        In that file.
    entries
        Its part of a file about all images.
    """

    image: str
    failed: str = ""
    width: int = 0
    height: int = 0
    instances: dict[int, int] = {}
    stem: str = ""
    files: list[str] = []
    image_id: int | str | None = None
    entries: list[dict[str, Any]] = []


class _Head(msgspec.Struct):
    settings: dict[str, Any]


class Journal:
    """The records of a folder.

    A new one begins where there is none, or `overwrite` says so.

    Parameters
    ----------
    out
        The folder.
    settings
        What determines the results, as values that JSON can hold.
    overwrite
        Remove what an earlier call wrote there, and begin anew.

    Raises
    ------
    InputError
        If the folder holds results of other settings, or its records are damaged.
    MaskprismError
        If it cannot be written.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any], *, overwrite: bool = False) -> None:
        self.out, self.path = out, out / NAME
        self.done: dict[str, str] = {}
        """Of each image that is done, what its files are named after."""
        self.image_ids: set[int | str] = set()
        self.instances: dict[int, int] = {}
        self.n_entries = 0
        plain = msgspec.json.decode(msgspec.json.encode(settings))
        with reporting_write_errors(self.path):
            out.mkdir(parents=True, exist_ok=True)
            if overwrite and self.path.exists():
                self._remove_results()
            if self.path.exists():
                self._drop_torn_line()
                self._check(plain)
                for record in self.records():
                    self._remember(record)
            self._file = self.path.open("ab")
            if not self._file.tell():
                self._write({"settings": plain})

    def append(self, record: ImageRecord) -> None:
        """Add the record of an image; it is in the file when this returns."""
        self._remember(record)
        with reporting_write_errors(self.path):
            self._write(record)

    def close(self) -> None:
        """Close the file."""
        with reporting_write_errors(self.path):
            self._file.close()

    def records(self) -> Iterator[ImageRecord]:
        """Yield the records of images that did not fail, in their order; read again, one by one."""
        with self.path.open("rb") as lines:
            next(lines, None)
            for number, line in enumerate(lines, 2):
                record = self._record(line, number)
                if not record.failed:
                    yield record

    def _record(self, line: bytes, number: int) -> ImageRecord:
        return decode_json(line, ImageRecord, f"{self.path}, line {number}", InputError, "the record of an image")

    def _write(self, value: Any) -> None:
        self._file.write(msgspec.json.encode(value) + b"\n")
        self._file.flush()

    def _remember(self, record: ImageRecord) -> None:
        if record.failed:
            return
        self.done[record.image] = record.stem
        self.n_entries += len(record.entries)
        if record.image_id is not None:
            self.image_ids.add(record.image_id)
        for class_id, count in record.instances.items():
            self.instances[class_id] = self.instances.get(class_id, 0) + count

    def _check(self, settings: Mapping[str, Any]) -> None:
        with self.path.open("rb") as lines:
            head = decode_json(next(lines, b""), _Head, str(self.path), InputError, "the settings of maskprism predict")
        differing = [name for name in {**head.settings, **settings} if head.settings.get(name) != settings.get(name)]
        if differing:
            first = differing[0]
            raise InputError(
                f"{self.out}: holds results of other settings ({', '.join(differing)}; {first} was "
                f"{head.settings.get(first)!r}, and is {settings.get(first)!r}); choose another --out, or give "
                "--overwrite"
            )

    def _drop_torn_line(self) -> None:
        """Remove a last line without an end: its writer was killed."""
        data = self.path.read_bytes()
        if not data.endswith(b"\n"):
            with self.path.open("r+b") as file:
                file.truncate(data.rfind(b"\n") + 1)

    def _remove_results(self) -> None:
        root = self.out.resolve()
        with self.path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                with suppress(InputError):  # of the first line, and of damaged ones, whose files stay
                    for name in self._record(line, number).files:
                        file = (root / name).resolve()
                        if file.is_relative_to(root) and is_file(file):
                            file.unlink()
        self.path.unlink()
