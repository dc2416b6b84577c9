"""Where images come from: a folder, a pattern, a file, a list of files, or a video; of this machine or by URI.

Every source gives its images in one fixed order under one fixed name each, so that an interrupted
extraction knows where it stood.
"""

from __future__ import annotations

import fnmatch
import glob
import itertools
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import cv2
import numpy as np

from maskprism._common.text import readable
from maskprism.errors import ImageError, InputError
from maskprism.io.images import IMAGE_SUFFIXES, VIDEO_SUFFIXES, decode_image, named_pixels, read_image
from maskprism.io.untrusted import decoded_text, is_file, is_folder, read_regular, shortened, size_of_regular
from maskprism.io.uris import Location, UriPath, is_uri, location, shown

if TYPE_CHECKING:
    from jaxtyping import UInt8

_MAGIC = frozenset("*?[")
_SHORTFALL = 0.9
_STREAMS = frozenset(("rtsp", "rtsps", "rtmp", "tcp", "udp"))
MAX_LIST_BYTES = 1 << 28
"""Lists of paths: more than a million of the longest."""


class SourceImage(NamedTuple):
    """One image by name: a path or URI or the bytes of a file, still to be decoded; a decoded frame; why there is none.

    `open_source` gives paths, frames and errors.
    """

    name: str
    image: str | Location | bytes | np.ndarray[Any, Any] | ImageError

    def read(self, *, grey: bool = False) -> UInt8[np.ndarray, "H W 3"]:
        """The image, HWC uint8 in BGR;

        Parameters
        ----------
        grey
            Grey as `read_image` has it.

        Raises
        ------
        ImageError
            If there is none.
        """
        if isinstance(self.image, ImageError):
            raise self.image
        if isinstance(self.image, bytes):
            return named_pixels(decode_image(self.image, self.name, grey=grey), self.name)
        return named_pixels(read_image(self.image, grey=grey), self.name)


@dataclass(frozen=True)
class ImageFiles:
    """Image files.

    Names are POSIX paths relative to `root`; outside of it absolute ones, or URIs.

    URIs from a list are text: what they name is only looked for when it is read.
    """

    root: Location
    paths: tuple[Location | str, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        """Those of this machine."""
        return tuple(path for path in self.paths if isinstance(path, Path))

    def count(self) -> int | None:
        """Return the number of images."""
        return len(self.paths)

    def count_done(self, done: Collection[str]) -> int:
        """Return how many of the images have their names in `done`."""
        return sum(_name(path, self.root) in done for path in self.paths)

    def take(self, positions: Iterable[int]) -> ImageFiles:
        """Only the images at these positions."""
        return ImageFiles(self.root, tuple(self.paths[position] for position in positions))

    def pending(self, done: Collection[str]) -> Iterator[SourceImage]:
        """Yield the images whose names are not in `done`, in order."""
        for path in self.paths:
            name = _name(path, self.root)
            if name not in done:
                yield SourceImage(name, path)


@dataclass(frozen=True)
class VideoFile:
    """The frames of a video, named `clip.mp4#000012` with a 0-based frame number; only those in `frames` if given."""

    path: Path
    frames: frozenset[int] | None = None

    @property
    def root(self) -> Path:
        """The folder that names are relative to."""
        return self.path.resolve().parent

    def count(self) -> int | None:
        """Return the number of frames, as far as the container claims any: an estimate."""
        return self._claimed() if self.frames is None else len(self.frames)

    def _claimed(self) -> int | None:
        video = cv2.VideoCapture(str(self.path))
        claimed = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        video.release()
        return claimed if 0 < claimed < 1 << 40 else None

    def count_done(self, done: Collection[str]) -> int:
        """Return how many names in `done` are those of frames."""
        if self.frames is not None:
            return sum(self._frame_name(index) in done for index in self.frames)
        return sum(name.startswith(f"{readable(self.path.name)}#") for name in done)

    def take(self, positions: Iterable[int]) -> VideoFile:
        """Only the frames of these numbers."""
        return replace(self, frames=frozenset(positions))

    def _frame_name(self, index: int) -> str:
        return f"{readable(self.path.name)}#{index:06d}"

    def pending(self, done: Collection[str]) -> Iterator[SourceImage]:
        """Yield the frames whose names are not in `done`, in order; done frames are skipped undecoded.

        A video that cannot be opened, or ends well before the length it claims, gives one image of
        the video's own name that says so.
        """
        name = readable(self.path.name)
        if name in done:
            return
        last = None if self.frames is None else max(self.frames)
        video = cv2.VideoCapture(str(self.path))
        try:
            index = 0
            while (last is None or index <= last) and _answer(video.grab, False):
                frame_name = self._frame_name(index)
                if frame_name not in done and (self.frames is None or index in self.frames):
                    decoded, frame = _answer(video.retrieve, (False, None))
                    yield SourceImage(
                        frame_name, frame if decoded else ImageError(f"{self.path}: frame {index} cannot be decoded")
                    )
                index += 1
        finally:
            video.release()
        claimed = self._claimed()
        if index == 0:
            yield SourceImage(name, ImageError(f"{self.path}: not a video that OpenCV can decode"))
        elif claimed is not None and index < _SHORTFALL * claimed and (last is None or index <= last):
            yield SourceImage(
                name, ImageError(f"{self.path}: ends after {index} of {claimed} frames; the file may be truncated")
            )


@dataclass(frozen=True)
class LiveStream:
    """Frames of a camera or a network stream as they come, named `camera0#000000`; at most `limit`.

    Parameters
    ----------
    address
        The number of a camera, or a URL such as `rtsp://host/stream`.
    length
        How many frames.
    """

    address: int | str
    length: int

    @property
    def kind(self) -> str:
        """What it is called in messages."""
        return "camera" if isinstance(self.address, int) else "stream"

    @property
    def name(self) -> str:
        """What its frames are named after; without the password of a URL."""
        if isinstance(self.address, int):
            return f"camera{self.address}"
        parts = urlsplit(self.address)
        return re.sub(r"[^\w.-]+", "-", f"{parts.hostname or ''}{parts.path}").strip("-") or parts.scheme

    @property
    def root(self) -> Path:
        """The folder that names are relative to: the current one."""
        return Path.cwd()

    def count(self) -> int:
        """Return the number of frames."""
        return self.length

    def count_done(self, done: Collection[str]) -> int:
        """Return how many names in `done` are those of frames."""
        return sum(name.startswith(f"{self.name}#") for name in done)

    def take(self, positions: Iterable[int]) -> LiveStream:
        """Only as many frames as there are positions: the next ones that come."""
        return replace(self, length=sum(1 for _ in positions))

    def pending(self, done: Collection[str]) -> Iterator[SourceImage]:
        """Yield the frames whose names are not in `done`; none is skipped in the stream, for those are gone.

        A stream that cannot be opened, or ends, gives one image of its own name that says so.
        """
        names = [name for index in range(self.length) if (name := f"{self.name}#{index:06d}") not in done]
        if not names:
            return
        video = cv2.VideoCapture(self.address)
        try:
            for number, name in enumerate(names):
                read, frame = _answer(video.read, (False, None))
                if not read:
                    yield SourceImage(self.name, ImageError(f"{self.name}: {self._ending(video.isOpened(), number)}"))
                    return
                yield SourceImage(name, frame)
        finally:
            video.release()

    def _ending(self, opened: bool, number: int) -> str:
        """Return why no frame came after the first `number`."""
        if number:
            return f"the {self.kind} ended, or sent nothing more, after {number} frames"
        if opened:
            return f"the {self.kind} was opened, but no frame came"
        if isinstance(self.address, int):
            return "there is no camera of this number, or another program uses it"
        return "the stream cannot be opened; check its address, user and password, and whether its server answers"


def _address(source: object) -> int | str | None:
    """Return what a source names: the number of a camera (not of a file), or the URL of a stream; None otherwise."""
    text = str(source)
    if text.isascii() and text.isdigit() and not os.path.lexists(text):
        return int(text)
    return text if text.partition("://")[0].lower() in _STREAMS and "://" in text else None


@dataclass(frozen=True)
class Sources:
    """Several sources, one after the other."""

    parts: tuple[ImageFiles | VideoFile | LiveStream, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        """Image files of this machine; none of those behind a URI, nor frames of videos."""
        return tuple(file for part in self.parts if isinstance(part, ImageFiles) for file in part.files)

    def count(self) -> int | None:
        """Return the number of images, if all sources tell theirs."""
        counts = [part.count() for part in self.parts]
        return None if None in counts else sum(count or 0 for count in counts)

    def named_apart(self) -> Sources:
        """Return the same images, of which no two have the same name: files are named from a folder that is above all.

        Raises
        ------
        InputError
            For two videos or streams of the same name.
        """
        files = [part for part in self.parts if isinstance(part, ImageFiles)]
        others = [part for part in self.parts if not isinstance(part, ImageFiles)]
        names = [part.name if isinstance(part, LiveStream) else part.path.name for part in others]
        for name in names:
            if names.count(name) > 1:
                raise InputError(
                    f"two of the sources are called {name}; give them one after the other, each its own --out"
                )
        if len(files) < 2:
            return self
        roots = [part.root for part in files if isinstance(part.root, Path)]
        try:
            root: Location = Path(os.path.commonpath(roots))
        except ValueError:  # none of this machine, or on several drives
            root = files[0].root
        paths = tuple(dict.fromkeys(path for part in files for path in part.paths))
        return Sources((ImageFiles(root, paths), *others))

    def __iter__(self) -> Iterator[SourceImage]:
        for part in self.parts:
            yield from part.pending(frozenset())


def open_source(
    source: str | os.PathLike[str] | UriPath,
    *,
    without: str | os.PathLike[str] | None = None,
    limit: int | None = None,
) -> ImageFiles | VideoFile:
    """Return the images of a folder (with its subfolders), pattern, image, video, or `.txt` list of paths.

    All but videos may lie behind a URI, such as `s3://bucket/photos`; see `maskprism.io.uris`. `without` is a folder
    whose images are left out: results must not become input of the next run.

    Parameters
    ----------
    limit
        At most this number of images, evenly spread; the first ones of a video of unknown length.

    Raises
    ------
    ImageError
        For a source that is missing, unreadable or without images.
    InputError
        For a limit below 1.
    """
    if (address := _address(source)) is not None:
        name = LiveStream(address, 0).name
        raise ImageError(f"{name}: a camera or stream cannot be used here; expected images or a video")
    (part,) = open_sources([source], without=without, limit=limit).parts
    assert not isinstance(part, LiveStream)
    return part


def open_sources(
    sources: Sequence[str | os.PathLike[str] | UriPath],
    *,
    without: str | os.PathLike[str] | None = None,
    limit: int | None = None,
) -> Sources:
    """Several sources as one; `limit` counts the images of all.

    See `open_source`.

    Besides, a source may be the number of a camera or the URL of a stream (`rtsp://`), which give as many frames as
    `limit` says. Without one they are an InputError.
    """
    parts: list[ImageFiles | VideoFile | LiveStream] = []
    for source in sources:
        address = _address(source)
        if address is None:
            parts.append(_open_one(source, without))
        elif limit is None:
            name = LiveStream(address, 0).name
            raise InputError(f"{name}: a camera or stream has no end; say how many frames with --limit (limit=)")
        else:
            parts.append(LiveStream(address, limit))
    if limit is None:
        return Sources(tuple(parts))
    counts = [part.count() for part in parts]
    known = [limit if count is None else count for count in counts]
    chosen = spread(sum(known), limit) if None not in counts else range(len(spread(sum(known), limit)))
    taken: list[ImageFiles | VideoFile | LiveStream] = []
    before = 0
    for part, count in zip(parts, known, strict=True):
        if own := [position - before for position in chosen if before <= position < before + count]:
            taken.append(part.take(own))
        before += count
    return Sources(tuple(taken))


def spread(count: int, limit: int | None) -> list[int]:
    """Positions of at most `limit` things among `count`, evenly spread.

    Raises
    ------
    InputError
        For a limit below 1.
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit is {limit}; expected at least 1")
    if limit is None or limit >= count:
        return list(range(count))
    found: list[int] = np.linspace(0, count - 1, limit).round().astype(int).tolist()
    return found


def _open_one(
    source: str | os.PathLike[str] | UriPath, without: str | os.PathLike[str] | None
) -> ImageFiles | VideoFile:
    try:
        place = location(source)
        found = _open_uri(place) if isinstance(place, UriPath) else _open(place)
    except (OSError, ValueError) as error:  # a name that is too long, or has a null character
        told = getattr(error, "strerror", None) or error
        remote = is_uri(shown(source))
        name = shown(source) if remote else shortened(Path(shown(source)))
        hint = "; check its name, your credentials and the connection" if remote else ""
        raise ImageError(f"{name}: cannot be opened ({told}){hint}") from None
    if without is None or isinstance(found, VideoFile):
        return found
    results = Path(without).resolve()
    kept = tuple(
        path for path in found.paths if not isinstance(path, Path) or not path.resolve().is_relative_to(results)
    )
    if not kept:
        raise ImageError(f"{source}: holds no images but those in {without}, where the results go")
    return ImageFiles(found.root, kept)


def _answer(ask: Callable[[], Any], otherwise: Any) -> Any:
    """Return what OpenCV answers; of damaged videos it raises errors for some, and says no for others."""
    try:
        return ask()
    except cv2.error:
        return otherwise


def _open(path: Path) -> ImageFiles | VideoFile:
    if path.is_dir():
        return _folder(path)
    if path.is_file():
        suffix = path.suffix.lower()
        if suffix == ".txt":
            return _listed(path, path.resolve().parent)
        if suffix in VIDEO_SUFFIXES:
            return VideoFile(path)
        return ImageFiles(path.resolve().parent, (path.resolve(),))
    if _MAGIC & set(str(path)):
        return _matching(path)
    if path.exists():
        size_of_regular(path, ImageError)
    raise _nothing_there(path)


def _open_uri(place: UriPath) -> ImageFiles:
    suffix = place.suffix.lower()
    if place.is_dir():
        found = [path for path in place.files(recursive=True) if path.suffix.lower() in IMAGE_SUFFIXES]
        if not found:
            raise _no_images(place)
        return ImageFiles(place, _sorted(found, place))
    if place.is_file():
        if suffix in VIDEO_SUFFIXES:
            raise ImageError(f"{place}: a video is only read from a path of this machine; copy it there first")
        return _listed(place, place.parent) if suffix == ".txt" else ImageFiles(place.parent, (place,))
    if _MAGIC & set(place.path):
        return _matching_uri(place)
    raise _nothing_there(place)


def _nothing_there(path: Location) -> ImageError:
    return ImageError(
        f"{shortened(path)}: there is no such file or folder; expected a folder, a pattern like "
        "'photos/**/*.jpg', an image, a video, or a .txt file with one path per line"
    )


def _no_images(folder: Location) -> ImageError:
    return ImageError(f"{folder}: the folder holds no images; expected files ending in {_suffixes()}")


def _folder(folder: Path) -> ImageFiles:
    root = folder.resolve()
    found = [path for path in walk(root, set()) if path.suffix.lower() in IMAGE_SUFFIXES]
    if not found:
        raise _no_images(folder)
    return ImageFiles(root, _sorted(found, root))


def walk(folder: Path, visited: set[str]) -> Iterator[Path]:
    """Yield every file below a folder; linked folders are followed, each folder once."""
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
        if is_folder(entry.path):
            yield from walk(Path(entry.path), visited)
        elif is_file(entry.path) or entry.is_symlink():  # dangling links are reported when they are read; no pipes
            yield Path(entry.path)


def _matching(pattern: Path) -> ImageFiles:
    """Files that match a pattern, named relative to the folders before its first wildcard."""
    root, rest = Path(pattern.anchor), list(pattern.parts[1:] if pattern.anchor else pattern.parts)
    # A folder whose own name looks like a wildcard is a folder.
    while len(rest) > 1 and (root / rest[0]).is_dir():
        root /= rest.pop(0)
    root = root.resolve()
    found = [root / match for match in glob.glob(str(Path(*rest)), root_dir=root, recursive=True)]  # noqa: PTH207
    images = _each_once(path for path in found if path.suffix.lower() in IMAGE_SUFFIXES and is_file(path))
    if not images:
        raise _no_match(pattern, len(found))
    return ImageFiles(root, _sorted([Path(os.path.normpath(path)) for path in images], root))


def _matching_uri(pattern: UriPath) -> ImageFiles:
    """Files that match a pattern, which means the same as in a path."""
    *folders, name = pattern.path.split("/")
    before = next((n for n, part in enumerate(folders) if _MAGIC & set(part)), len(folders))
    while before < len(folders) and replace(pattern, path="/".join(folders[: before + 1])).is_dir():
        before += 1
    root, rest = replace(pattern, path="/".join(folders[:before])), [*folders[before:], name]
    found = [
        path
        for path in root.files(recursive=rest != [name] or name == "**")
        if _fits(path.name_in(root).split("/"), rest)
    ]
    images = [path for path in found if path.suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        raise _no_match(pattern, len(found))
    return ImageFiles(root, _sorted(images, root))


def _fits(parts: list[str], pattern: list[str]) -> bool:
    """Return whether a path, part by part, matches a pattern as `glob` reads it: wildcards leave hidden names out."""
    if not parts or not pattern:
        return not parts and pattern in ([], ["**"])
    wanted, *rest = pattern
    hidden = parts[0].startswith(".")
    if wanted == "**":
        return (bool(rest) and _fits(parts, rest)) or (not hidden and _fits(parts[1:], pattern))
    seen = not hidden or wanted.startswith(".")
    return seen and fnmatch.fnmatchcase(parts[0], wanted) and _fits(parts[1:], rest)


def _no_match(pattern: Location, found: int) -> ImageError:
    return ImageError(
        f"{pattern}: the pattern matches {found} files and no image; expected files ending in {_suffixes()}"
    )


def _each_once(paths: Iterable[Path]) -> list[Path]:
    """Without the detours that links to folders add: of every file the path with the fewest folders."""
    shortest: dict[tuple[str, str], Path] = {}
    for path in sorted(paths, key=lambda path: (len(path.parts), path)):
        shortest.setdefault((os.path.realpath(path.parent), path.name), path)
    return list(shortest.values())


def _listed(text_file: Location, root: Location) -> ImageFiles:
    """Return the paths and URIs in a text file, in its order, each once.

    Relative ones are relative to its folder, `root`.
    """
    try:
        lines = decoded_text(read_regular(text_file, ImageError, limit=MAX_LIST_BYTES)).splitlines()
    except UnicodeDecodeError:
        raise ImageError(f"{text_file}: is not UTF-8 text; expected one image path per line") from None
    entries = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not entries:
        raise ImageError(f"{text_file}: the list names no images; expected one path per line")
    return ImageFiles(root, tuple(dict.fromkeys(_entry(entry, root) for entry in entries)))


def _entry(entry: str, root: Location) -> Location | str:
    if is_uri(entry):
        return location(entry) if entry.lower().startswith("file:///") else entry
    if isinstance(root, UriPath) and not entry.startswith("/"):
        return root / entry
    if os.sep == "/" and "\\" in entry and not isinstance(root, UriPath) and not is_file(root / entry):
        entry = entry.replace("\\", "/")  # as Windows writes paths
    # normpath, not resolve: an image keeps the name it is listed under, even if that is a link.
    return Path(os.path.normpath(entry if isinstance(root, UriPath) else root / entry))


def _sorted(paths: Iterable[Location], root: Location) -> tuple[Location, ...]:
    return tuple(sorted(set(paths), key=lambda path: _name(path, root)))


def _name(path: Location | str, root: Location) -> str:
    """Return the path below the root, or else the whole.

    `relative_to` takes seconds for one of thousands of folders.
    """
    if isinstance(path, str):
        return readable(shown(path).removeprefix(f"{root}/"))
    if isinstance(path, UriPath):
        return readable(path.name_in(root))
    top = root.parts if isinstance(root, Path) else ()
    inside = bool(top) and path.parts[: len(top)] == top
    return readable("/".join(path.parts[len(top) :]) if inside else path.as_posix())


def _suffixes() -> str:
    return " ".join(sorted(IMAGE_SUFFIXES))


class DistinctStems:
    """Names for the files about images: an image's name without its suffix, or with it where that is taken."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)

    def next(self, name: str) -> str:
        """Give the name for the next image: a relative path that does not lead upwards."""
        path = PurePosixPath(*[part for part in PurePosixPath(name.lstrip("/")).parts if part != ".."])
        stem = path.with_suffix("") if path.suffix.lower() in IMAGE_SUFFIXES else path
        numbered = (f"{path} ({number})" for number in itertools.count(2))
        free = next(one for one in itertools.chain((str(stem), str(path)), numbered) if one not in self._taken)
        self._taken.add(free)
        return free
