"""Write files whole or not at all."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from maskprism.errors import MaskprismError

_numbers = itertools.count()
_waiting: ContextVar[list[tuple[Path, Path]] | None] = ContextVar("_waiting", default=None)
"""Files under their temporary names that wait for others; None where none do."""


def write_atomically(
    path: str | os.PathLike[str],
    content: bytes | str | Callable[[Path], object],
    *,
    failure: type[MaskprismError] = MaskprismError,
) -> Path:
    """Write a file under a temporary name beside it and rename it, so that it is never seen half written.

    Parameters
    ----------
    path
        The file. Missing parent folders are made; an existing file is replaced.
    content
        Bytes, text (written as UTF-8 with ``\\n``), or a function that writes the file whose path it is given. That
        path has the suffix of `path`, because many libraries choose the format by it.
    failure
        The class of the error.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    MaskprismError
        If it cannot be written, or is a folder, a pipe or a device; nothing is left behind, and an existing file
        stays as it was.
    """
    target = Path(path)
    # The name is short, for that of the target may be as long as names can be; and no other process uses it.
    partial = target.with_name(f".{os.getpid()}-{next(_numbers)}.partial{target.suffix}")
    with reporting_write_errors(target, failure=failure):
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and not target.is_file():
            kind = "a folder" if target.is_dir() else "a pipe or a device"
            raise failure(f"{target}: cannot be written (it is {kind}); expected the name of a file")
        try:
            waiting = _waiting.get()
            if callable(content):
                token = _waiting.set(None)  # what it writes by itself is needed at once
                try:
                    content(partial)
                finally:
                    _waiting.reset(token)
            else:
                partial.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
            if waiting is None:
                partial.replace(target)
            else:
                waiting.append((partial, target))
        except BaseException as error:
            with suppress(OSError):
                partial.unlink()
            if isinstance(error, MaskprismError) and str(partial) in str(error):
                raise type(error)(str(error).replace(str(partial), str(target))) from None
            raise
    return target


@contextmanager
def written_together() -> Iterator[None]:
    """Let the files that a block writes appear when the last one is whole, the first one last; after an error none.

    So a command that is killed leaves no part of its results, which would be refused as there already. Whatever the
    block reads again is not there yet.

    Raises
    ------
    MaskprismError
        If one cannot be renamed.
    """
    waiting: list[tuple[Path, Path]] = []
    token = _waiting.set(waiting)
    try:
        yield
        for partial, target in reversed(waiting):
            with reporting_write_errors(target):
                partial.replace(target)
    finally:
        _waiting.reset(token)
        for partial, _ in waiting:
            with suppress(OSError):
                partial.unlink()


def make_folder(path: str | os.PathLike[str], advice: str = "") -> Path:
    """Make a folder and its parents where they are missing.

    Parameters
    ----------
    path
        The folder.
    advice
        What to do where that fails, added to the message.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    MaskprismError
        If it cannot be made, or is a file.
    """
    folder = Path(path)
    with reporting_write_errors(folder, advice):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def reporting_write_errors(
    path: str | os.PathLike[str], advice: str = "", *, failure: type[MaskprismError] = MaskprismError
) -> Iterator[None]:
    """Turn an `OSError` of the block into a `MaskprismError` that says that `path` cannot be written, and why.

    Parameters
    ----------
    path
        What is being written: a file or a folder.
    advice
        What to do about it, added to the message: "choose another --out".
    failure
        The class of the error.

    Raises
    ------
    MaskprismError
        For every `OSError`.
    """
    try:
        yield
    except OSError as error:
        message = f"{os.fspath(path)}: cannot be written ({error.strerror or error})"
        raise failure(f"{message}; {advice}" if advice else message) from None
