"""Files in a bucket of S3."""

from __future__ import annotations

from pathlib import Path

from maskprism.io.uris import UriPath, location
from maskprism.tables.table import CoefficientTable


def at(path: str, options: str) -> str:
    return f"s3://key:secret@bucket/{path}?{options}"


def upload(folder: Path, path: str, options: str) -> None:
    for file in folder.rglob("*.*"):
        there = location(at(f"{path}/{file.relative_to(folder).as_posix()}", options))
        assert isinstance(there, UriPath)
        there.put(file, by_way_of=there)


def assert_equal(out: str, reference: Path) -> None:
    ours, expected = CoefficientTable.read(out), CoefficientTable.read(reference)
    assert ours.arrow.equals(expected.arrow)
    assert ours.images is not None
    assert expected.images is not None
    assert ours.images.equals(expected.images)
