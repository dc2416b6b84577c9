"""Where files are: a path of this machine, or a URI that a file system of pyarrow or fsspec opens.

A `UriPath` has the few methods of `pathlib.Path` that are used here, under their names, so that code
that reads or writes takes either.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from stat import S_IFDIR, S_IFREG
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.fs import FileSystem

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]+)://")
_OF_PYARROW = ("s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs")
_GIVE_UP = "retry_limit_seconds"
_WHOLE_PUTS = ("s3", "gcs")
"""File systems where an object is there whole, or not at all, while it is written; in Azure it is empty at first."""


def is_uri(place: object) -> bool:
    """Return whether this is text like `s3://bucket/key`."""
    return isinstance(place, str) and _SCHEME.match(place) is not None


def shown(place: object) -> str:
    """Return a place for messages and tables: a URI without its options and passwords."""
    text = os.fspath(place) if isinstance(place, os.PathLike) else str(place)
    return re.sub(r"^([^:/]+://[^/:@]*):[^/@]*@", r"\1@", text.partition("?")[0]) if is_uri(text) else str(text)


def location(place: str | os.PathLike[str] | UriPath) -> Location:
    """Return the path or URI that a user names; percent escapes of URIs are decoded, except for https.

    `file://` URIs are paths of this machine, `s3`, `gs`, `abfs` and `hdfs` are opened by pyarrow, all other schemes by
    fsspec where it is installed.

    Raises
    ------
    OSError
        For a URI that no file system opens.
    """
    if isinstance(place, UriPath):
        return place
    text = os.fspath(place)
    found = _SCHEME.match(text)
    if found is None:
        return Path(text)
    scheme = found[1].lower()
    if scheme == "file":
        from urllib.request import url2pathname  # imports half of http

        parts = urlsplit(text)
        if parts.netloc not in ("", "localhost") or not parts.path:
            raise OSError(f"{text} names no file of this machine; expected file:///folder/file")
        return Path(url2pathname(parts.path))
    with _said(text):
        return _of_pyarrow(scheme, text) if scheme in _OF_PYARROW else _of_fsspec(scheme, text)


@dataclass(frozen=True)
class UriPath:
    """A file or folder of a file system.

    Whatever a file system raises, these methods raise OSError.

    Attributes
    ----------
    prefix
        What makes a URI of it, without options and passwords.
    path
        Path as the file system names it.
    """

    prefix: str
    path: str
    filesystem: FileSystem = field(compare=False, repr=False)

    def __str__(self) -> str:
        text = self.prefix + self.path
        return shown(text) if text.startswith("http") else text

    @property
    def name(self) -> str:
        """The last part of the path."""
        return str(self).rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """The ending of the name, with its dot."""
        return PurePosixPath(self.name).suffix

    @property
    def stem(self) -> str:
        """The name without its ending."""
        return PurePosixPath(self.name).stem

    @property
    def parent(self) -> UriPath:
        """The folder around it."""
        return replace(self, path=self.path.rpartition("/")[0])

    def with_name(self, name: str) -> UriPath:
        """Another file in the same folder."""
        return self.parent / name

    def __truediv__(self, rest: str) -> UriPath:
        parts = self.path.split("/") if self.path else []
        for part in rest.split("/"):
            if part == "..":
                del parts[-1:]
            elif part not in ("", "."):
                parts.append(part)
        return replace(self, path="/".join(parts))

    def name_in(self, root: Path | UriPath) -> str:
        """Return the path relative to the folder `root`; the whole URI where it is not in there."""
        inside = isinstance(root, UriPath) and str(self).startswith(f"{root}/")
        return str(self)[len(str(root)) + 1 :] if inside else str(self)

    def stat(self) -> Any:
        """Return what kind of file it is, and its size, as `st_mode` and `st_size`.

        FileNotFoundError where there is none.
        """
        from pyarrow.fs import FileType

        with _said():
            found = self.filesystem.get_file_info(self.path)
        if found.type == FileType.NotFound:
            raise FileNotFoundError(f"there is no {self}")
        mode = {FileType.File: S_IFREG, FileType.Directory: S_IFDIR}.get(found.type, 0)
        return SimpleNamespace(st_mode=mode, st_size=found.size or 0)

    def exists(self) -> bool:
        """Return whether there is such a file or folder."""
        return self._is(S_IFREG, S_IFDIR, 0)

    def is_dir(self) -> bool:
        """Return whether it is a folder."""
        return self._is(S_IFDIR)

    def is_file(self) -> bool:
        """Return whether it is a file."""
        return self._is(S_IFREG)

    def _is(self, *kinds: int) -> bool:
        with suppress(FileNotFoundError):
            return self.stat().st_mode in kinds
        return False

    def files(self, *, recursive: bool) -> Iterator[UriPath]:
        """Yield the files in a folder, and with `recursive` in those below; none for a missing folder."""
        from pyarrow.fs import FileSelector, FileType

        selector = FileSelector(self.path, allow_not_found=True, recursive=recursive)
        found = []
        with suppress(NotADirectoryError), _said():
            found = self.filesystem.get_file_info(selector)
        return (replace(self, path=one.path) for one in found if one.type == FileType.File)

    def iterdir(self) -> Iterator[UriPath]:
        """Yield the files in a folder; none for a missing folder."""
        return self.files(recursive=False)

    def read_bytes(self) -> bytes:
        """Return the whole file."""
        with _said(), self.filesystem.open_input_stream(self.path) as stream:
            return stream.read()

    @contextmanager
    def opened(self) -> Iterator[pa.NativeFile]:
        """The file, to be read here and there."""
        with _said():
            file = self.filesystem.open_input_file(self.path)
        with file:
            yield file

    def put(self, staged: Path, *, by_way_of: UriPath) -> None:
        """Put a local file here, whole or not at all.

        Where a file can be seen while it is being written, it is written `by_way_of` another one and moved, or copied
        by the file system.
        """
        from pyarrow.fs import LocalFileSystem, copy_files

        # One call from end to end: a stream that is left by an exception would end the object where it stood.
        target = self if self.filesystem.type_name in _WHOLE_PUTS else by_way_of
        with _said():
            copy_files(str(staged), target.path, LocalFileSystem(), self.filesystem)
            if target is self:
                return
            try:
                self.filesystem.move(target.path, self.path)
            except NotImplementedError:  # Azure storage with a flat namespace
                self.filesystem.copy_file(target.path, self.path)
                self.filesystem.delete_file(target.path)

    def mkdir(self, *, parents: bool = True, exist_ok: bool = True) -> None:
        """Make the folder and those around it, where the file system has folders and they are not there yet."""
        if self.filesystem.type_name not in _WHOLE_PUTS:
            with _said():
                self.filesystem.create_dir(self.path, recursive=True)

    def unlink(self, *, missing_ok: bool = False) -> None:
        """Remove the file."""
        try:
            with _said():
                self.filesystem.delete_file(self.path)
        except OSError:  # of hdfs not even a FileNotFoundError
            if not missing_ok or self.exists():
                raise

    def rmdir(self) -> None:
        """Remove the folder, if it is empty."""
        if self.is_dir():
            if any(self.iterdir()):
                raise OSError(f"{self} is not empty")
            with _said():
                self.filesystem.delete_dir(self.path)


Location = Path | UriPath


@contextmanager
def _said(uri: str = "") -> Iterator[None]:
    """File systems raise what they like: here it is an OSError, on one line, without passwords of the `uri`."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise
    except Exception as error:
        text = str(error).replace(uri, shown(uri)) if uri else str(error)
        text = " ".join(text.split()) or type(error).__name__
        raise OSError(text if len(text) <= 300 else f"{text[:296]} ...") from error


def _of_pyarrow(scheme: str, uri: str) -> UriPath:
    host, _, path = uri.partition("://")[2].partition("?")[0].partition("/")
    options = uri.partition("?")[2]
    if scheme in ("gs", "gcs") and _GIVE_UP not in options:  # it would try for a quarter of an hour
        options = "&".join(filter(None, (options, f"{_GIVE_UP}=60")))
    filesystem, root = _connected(f"{scheme}://{host}", options)
    prefix = f"{scheme}://{shown(f'{scheme}://{host}').rpartition('/')[2]}" if root == "/" else f"{scheme}://"
    return UriPath(prefix, (root + unquote(path)).rstrip("/"), filesystem)


@lru_cache(maxsize=32)
def _connected(host: str, options: str) -> tuple[FileSystem, str]:
    """Return the file system behind a host or bucket, and what its paths begin with."""
    from pyarrow.fs import FileSystem

    filesystem, path = FileSystem.from_uri(f"{quote(host, safe=':/@%+')}/x" + (f"?{options}" if options else ""))
    return filesystem, path.removesuffix("x")


def _of_fsspec(scheme: str, uri: str) -> UriPath:
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    try:
        import fsspec
    except ImportError:
        raise OSError(
            f"{scheme}:// is opened by the package fsspec, which is not installed; "
            f"expected {'://, '.join(('file', *_OF_PYARROW[:1], 'gs', 'abfs', 'hdfs'))}://, or: pip install fsspec"
        ) from None
    filesystem, path = fsspec.core.url_to_fs(uri)
    host = uri.partition("://")[2].partition("?")[0].partition("/")[0]
    if path.startswith(f"{scheme}://"):
        prefix = ""
    elif path.startswith(f"/{host}") or not path.startswith("/"):
        prefix = f"{scheme}:/" if path.startswith("/") else f"{scheme}://"
    else:
        prefix = f"{scheme}://{host.rpartition('@')[2]}"
    return UriPath(prefix, path.rstrip("/"), PyFileSystem(FSSpecHandler(filesystem)))
