"""The manifest of a result: what a command wrote, as data beside it. `maskprism report` reads manifests alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import quote

import msgspec

from maskprism import __version__
from maskprism._common.files import reporting_write_errors, write_atomically
from maskprism._common.text import json_text, readable, rounded
from maskprism.analysis.verdicts import Verdict
from maskprism.drawing.mask_thumbnails import masks_on_image
from maskprism.errors import MaskprismError
from maskprism.io.sources import LiveStream
from maskprism.io.untrusted import decode_json, is_folder, read_regular
from maskprism.viewer.markup import data_url
from maskprism.viewer.payload import encode_webp

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from jaxtyping import UInt8

    from maskprism.io.sources import ImageFiles, VideoFile
    from maskprism.models import Model

FORMAT: Literal[1] = 1
SUFFIX = ".manifest.json"
MOST_BYTES = 64 << 20
"""Larger files of results were not written by maskprism."""
_THUMBNAIL_SIDE = 192


class Number(msgspec.Struct, frozen=True):
    """A value with what it is called; style as `format` takes it."""

    title: str
    value: int | float | None
    style: Literal[",", ".1f", ".3f", ".4f", "+.4f", ".1%"] = ".3f"

    @property
    def text(self) -> str:
        """The value as text; nothing for one that does not exist, or that is no size of ours."""
        if self.value is None or not -1e15 < self.value < 1e15:
            return ""
        if self.style == ",":
            return format(round(self.value), ",").replace("-", "−")
        digits = int(self.style[-2])
        if self.style.endswith("%"):
            return f"{rounded(100 * self.value, digits)}%"
        sign = "+" if self.style.startswith("+") and self.value >= 0 else ""
        return sign + rounded(self.value, digits)


class PictureFile(msgspec.Struct, frozen=True):
    """A PNG file;

    Attributes
    ----------
    file
        Its URL from the folder of the manifest.
    wide
        Whether it needs the whole width.
    """

    file: str
    caption: str
    wide: bool = False


class TableFile(msgspec.Struct, frozen=True):
    """A CSV or Parquet file;

    Attributes
    ----------
    order
        The column that it is sorted by, with - before it the largest first.
    headings
        What columns are called; others by their names.
    """

    file: str
    caption: str
    order: str = ""
    headings: dict[str, str] = {}


class ResultManifest(msgspec.Struct, kw_only=True, frozen=True):
    """What a command wrote.

    Parameters
    ----------
    command
        The command that wrote it.
    about
        What such results are about: the heading of their group in the index.
    title
        The name of the result; by default that of the folder, or of the file without its suffix.
    page
        The URL of the page that shows it, from the folder of the manifest; none where `maskprism report` makes one of
        the pictures and tables.
    models
        The names of the models, A before B.
    numbers, findings, pictures, tables, verdict
        What the index and the page show; findings are sentences.
    thumbnail
        A small picture for the index, as a data URL; by default the index shrinks the first of the pictures.
    maskprism, format
        The version that wrote it, and that of the format.
    """

    command: Annotated[str, msgspec.Meta(pattern="^[a-z][a-z0-9_-]{0,31}$")]
    about: str
    title: str = ""
    page: str = ""
    models: list[str] = []
    numbers: list[Number] = []
    findings: list[str] = []
    pictures: list[PictureFile] = []
    tables: list[TableFile] = []
    verdict: Verdict | None = None
    thumbnail: Annotated[str, msgspec.Meta(pattern="^(data:image/webp;base64,[A-Za-z0-9+/=]{1,200000})?$")] = ""
    maskprism: str = __version__
    format: Literal[1] = FORMAT


def thumbnail_url(picture: UInt8[np.ndarray, "H W 3"]) -> str:
    """Return a picture (BGR), shrunk, as a data URL; of one that is far from square, its beginning."""
    height, width = picture.shape[:2]
    return data_url("image/webp", encode_webp(picture[: 2 * width, : 2 * height], _THUMBNAIL_SIDE)[0])


def first_masks(reopen: Callable[[], tuple[Model, ImageFiles | VideoFile | LiveStream]]) -> str:
    """Return the first image with the masks of all instances, as a thumbnail.

    It is empty where the model or the image cannot be opened again: what was computed is not lost by that.
    """
    try:
        model, images = reopen()
        first = None if isinstance(images, LiveStream) else next(iter(images.pending(())), None)
        if first is None:
            return ""
        picture = first.read()
        return thumbnail_url(masks_on_image(picture, model.predict(picture), _THUMBNAIL_SIDE))
    except MaskprismError:
        return ""


def manifest_path(out: str | os.PathLike[str], command: str) -> Path:
    """Return where the manifest of a result is: in its folder, or beside its file."""
    path = Path(out)
    return path / f"{command}{SUFFIX}" if is_folder(path) else path.with_name(f"{path.name}.{command}{SUFFIX}")


def file_url(path: Path, folder: Path) -> str:
    """Give the URL of a file from a folder that holds it, whatever the bytes of its name are."""
    return quote(os.fsencode(path.relative_to(folder).as_posix()))


def withdraw_manifest(out: str | os.PathLike[str], command: str) -> None:
    """Remove the manifest of an earlier run, before its files are replaced.

    Raises
    ------
    MaskprismError
        If it cannot be removed.
    """
    path = manifest_path(out, command)
    with reporting_write_errors(path):
        path.unlink(missing_ok=True)


def write_manifest(out: str | os.PathLike[str], manifest: ResultManifest) -> dict[Path, str]:
    """Write the manifest of a result, after its other files.

    Parameters
    ----------
    out
        The folder or the file of the result.
    manifest
        What it says; see `ResultManifest`.

    Returns
    -------
    dict
        The file with what it holds.

    Raises
    ------
    MaskprismError
        If it cannot be written.
    """
    path = Path(out).resolve()
    name = path.name if is_folder(path) else path.stem
    titled = msgspec.structs.replace(manifest, title=manifest.title or readable(name))
    written = write_atomically(manifest_path(out, manifest.command), json_text(titled) + "\n")
    return {written: "for `maskprism report`, which makes an index of results"}


def read_manifest(path: Path) -> ResultManifest:
    """Read the manifest of a result, which may be anybody's file.

    Raises
    ------
    MaskprismError
        If it cannot be read, is too large, or is no manifest of this format.
    """
    data = read_regular(path, MaskprismError, limit=MOST_BYTES)
    expected = f"the manifest of a result, format {FORMAT}; run the command that wrote it again, or move it away"
    return decode_json(data, ResultManifest, str(path), MaskprismError, expected, strict=True)
