"""Where images come from: a folder, a pattern, a file, a list of files, or a video.

Every source gives its images in one fixed order under one fixed name each, so that an interrupted
extraction knows where it stood.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2

from maskprism.errors import ImageError
from maskprism.images import IMAGE_SUFFIXES, VIDEO_SUFFIXES, read_image

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import UInt8

_MAGIC = frozenset("*?[")
_SHORTFALL = 0.9


class SourceImage(NamedTuple):
    """One image by name: a path still to be decoded, a decoded frame, or why there is none."""

    name: str
    image: Path | np.ndarray[Any, Any] | ImageError

    def read(self) -> UInt8[np.ndarray, "H W 3"]:
        """The image, HWC uint8 in BGR. Raises ImageError if there is none."""
        if isinstance(self.image, ImageError):
            raise self.image
        return read_image(self.image)


@dataclass(frozen=True)
class ImageFiles:
    """Image files. Names are POSIX paths relative to `root`, or absolute ones outside of it."""

    root: Path
    paths: tuple[Path, ...]

    def count(self) -> int | None:
        """The number of images."""
        return len(self.paths)

    def count_done(self, done: Collection[str]) -> int:
        """How many of the images have their names in `done`."""
        return sum(_name(path, self.root) in done for path in self.paths)

    def pending(self, done: Collection[str]) -> Iterator[SourceImage]:
        """The images whose names are not in `done`, in order."""
        for path in self.paths:
            name = _name(path, self.root)
            if name not in done:
                yield SourceImage(name, path)


@dataclass(frozen=True)
class VideoFile:
    """The frames of a video, named `clip.mp4#000012` with a 0-based frame number."""

    path: Path

    @property
    def root(self) -> Path:
        """The folder that names are relative to."""
        return self.path.resolve().parent

    def count(self) -> int | None:
        """The number of frames that the container claims, if it claims any: an estimate."""
        video = cv2.VideoCapture(str(self.path))
        claimed = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        video.release()
        return claimed if 0 < claimed < 1 << 40 else None

    def count_done(self, done: Collection[str]) -> int:
        """How many names in `done` are those of frames."""
        return sum(name.startswith(f"{_readable(self.path.name)}#") for name in done)

    def pending(self, done: Collection[str]) -> Iterator[SourceImage]:
        """The frames whose names are not in `done`, in order; done frames are skipped undecoded.

        A video that cannot be opened, or ends well before the length it claims, gives one image of
        the video's own name that says so.
        """
        name = _readable(self.path.name)
        if name in done:
            return
        video = cv2.VideoCapture(str(self.path))
        try:
            index = 0
            while _answer(video.grab, False):
                frame_name = f"{name}#{index:06d}"
                if frame_name not in done:
                    decoded, frame = _answer(video.retrieve, (False, None))
                    yield SourceImage(
                        frame_name, frame if decoded else ImageError(f"{self.path}: frame {index} cannot be decoded")
                    )
                index += 1
        finally:
            video.release()
        claimed = self.count()
        if index == 0:
            yield SourceImage(name, ImageError(f"{self.path}: not a video that OpenCV can decode"))
        elif claimed is not None and index < _SHORTFALL * claimed:
            yield SourceImage(
                name, ImageError(f"{self.path}: ends after {index} of {claimed} frames; the file may be truncated")
            )


def open_source(
    source: str | os.PathLike[str], *, without: str | os.PathLike[str] | None = None
) -> ImageFiles | VideoFile:
    """The images of a folder (with its subfolders), pattern, image, video, or `.txt` list of paths.

    `without` is a folder whose images are left out: results must not become input of the next run.
    Raises ImageError for a source that is missing, unreadable or without images.
    """
    try:
        found = _open(Path(source), source)
    except (OSError, ValueError) as error:  # a name that is too long, or has a null character
        raise ImageError(f"{source}: cannot be opened ({getattr(error, 'strerror', None) or error})") from None
    if without is None or isinstance(found, VideoFile):
        return found
    results = Path(without).resolve()
    kept = tuple(path for path in found.paths if not path.resolve().is_relative_to(results))
    if not kept:
        raise ImageError(f"{source}: holds no images but those in {without}, where the results go")
    return ImageFiles(found.root, kept)


def _answer(ask: Callable[[], Any], otherwise: Any) -> Any:
    """What OpenCV answers; of damaged videos it raises errors for some, and says no for others."""
    try:
        return ask()
    except cv2.error:
        return otherwise


def _open(path: Path, source: str | os.PathLike[str]) -> ImageFiles | VideoFile:
    if path.is_dir():
        return _folder(path)
    if path.is_file():
        suffix = path.suffix.lower()
        if suffix == ".txt":
            return _listed(path)
        if suffix in VIDEO_SUFFIXES:
            return VideoFile(path)
        return ImageFiles(path.resolve().parent, (path.resolve(),))
    if _MAGIC & set(os.fspath(source)):
        return _matching(path)
    raise ImageError(
        f"{path}: there is no such file or folder; expected a folder, a pattern like 'photos/**/*.jpg', an image, "
        "a video, or a .txt file with one path per line"
    )


def _folder(folder: Path) -> ImageFiles:
    root = folder.resolve()
    found = [path for path in _walk(root, set()) if path.suffix.lower() in IMAGE_SUFFIXES]
    if not found:
        raise ImageError(f"{folder}: the folder holds no images; expected files ending in {_suffixes()}")
    return ImageFiles(root, _sorted(found, root))


def _walk(folder: Path, visited: set[str]) -> Iterator[Path]:
    """Every file below a folder; linked folders are followed, each folder once."""
    real = os.path.realpath(folder)
    if real in visited:
        return
    visited.add(real)
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise ImageError(
            f"{folder}: the folder cannot be read ({error.strerror}); check its permissions, or list the images "
            "that can be read in a .txt file"
        ) from None
    for entry in found:
        if entry.is_dir():
            yield from _walk(Path(entry.path), visited)
        else:
            yield Path(entry.path)


def _matching(pattern: Path) -> ImageFiles:
    """Files that match a pattern, named relative to the folders before its first wildcard."""
    root, rest = Path(pattern.anchor), list(pattern.parts[1:] if pattern.anchor else pattern.parts)
    # A folder whose own name looks like a wildcard is a folder.
    while len(rest) > 1 and (root / rest[0]).is_dir():
        root /= rest.pop(0)
    root = root.resolve()
    found = [root / match for match in glob.glob(str(Path(*rest)), root_dir=root, recursive=True)]  # noqa: PTH207
    images = _each_once(path for path in found if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    if not images:
        raise ImageError(
            f"{pattern}: the pattern matches {len(found)} files and no image; expected files ending in {_suffixes()}"
        )
    return ImageFiles(root, _sorted([Path(os.path.normpath(path)) for path in images], root))


def _each_once(paths: Iterable[Path]) -> list[Path]:
    """Without the detours that links to folders add: of every file the path with the fewest folders."""
    shortest: dict[tuple[str, str], Path] = {}
    for path in sorted(paths, key=lambda path: (len(path.parts), path)):
        shortest.setdefault((os.path.realpath(path.parent), path.name), path)
    return list(shortest.values())


def _listed(text_file: Path) -> ImageFiles:
    """The paths in a text file, in its order, each once; relative ones are relative to the file."""
    root = text_file.resolve().parent
    try:
        lines = text_file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ImageError(f"{text_file}: is not UTF-8 text; expected one image path per line") from None
    except OSError as error:
        raise ImageError(f"{text_file}: cannot be read ({error.strerror})") from None
    entries = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not entries:
        raise ImageError(f"{text_file}: the list names no images; expected one path per line")
    # normpath, not resolve: an image keeps the name it is listed under, even if that is a link.
    paths = (Path(os.path.normpath(root / entry)) for entry in entries)
    return ImageFiles(root, tuple(dict.fromkeys(paths)))


def _sorted(paths: list[Path], root: Path) -> tuple[Path, ...]:
    return tuple(sorted(set(paths), key=lambda path: _name(path, root)))


def _name(path: Path, root: Path) -> str:
    """The path below the root, or else the whole; `relative_to` takes seconds for one of thousands of folders."""
    depth = len(root.parts)
    inside = path.parts[:depth] == root.parts and path.is_absolute() == root.is_absolute()
    return _readable("/".join(path.parts[depth:]) if inside else path.as_posix())


def _readable(name: str) -> str:
    """Names that are not Unicode, with the odd bytes written as escapes: tables are UTF-8."""
    return name.encode("utf-8", errors="backslashreplace").decode("utf-8")


def _suffixes() -> str:
    return " ".join(sorted(IMAGE_SUFFIXES))
