"""Images that a description names, looked for where they may lie on this machine."""

from __future__ import annotations

import itertools
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from maskprism.errors import ImageError
from maskprism.io.sources import walk
from maskprism.io.untrusted import is_file, shortened

MOST_FILES = 200_000
"""The number of files that a search below a folder looks through at most."""
MOST_PARTS = 8
"""The number of last parts of a path that a search begins with; then one less each time."""
TOO_COMMON = frozenset(("images", "labels", "data", "dataset", "datasets"))
"""Names of folders that say nothing alone: the last part of a path must be another one."""


def parts_of(name: str) -> tuple[str, ...]:
    """Return the parts of a path of any machine: without drive, root, "." and "..", split at either slash."""
    parts = name.replace("\\", "/").split("/")
    return tuple(part for part in parts if part not in ("", ".", "..") and not part.endswith(":"))


def find_images(names: Iterable[str], folders: Sequence[Path], below: Sequence[Path] = ()) -> dict[str, Path]:
    """Return where named images are on this machine.

    Parameters
    ----------
    names
        Names as a description has them: relative, absolute, of another machine, with either slash.
    folders
        Where to look: for the whole name, and then for ever fewer of its last parts.
    below
        Folders that are looked through with all their subfolders for what is not found so.

    Returns
    -------
    dict
        The file of every name that is found. Two names never share a file: if only their last part tells them
        apart from others, neither is found.
    """
    wanted = list(dict.fromkeys(names))
    exact: dict[str, Path] = {}
    shortened_names: dict[str, Path] = {}
    for name in wanted:
        parts = parts_of(name)[-MOST_PARTS:]
        tails = ["/".join(parts[dropped:]) for dropped in range(len(parts))]
        if (file := _first(folders, [name])) is not None:
            exact[name] = file
        elif (file := _first(folders, tails)) is not None:
            shortened_names[name] = file
    missing = [name for name in wanted if name not in exact and name not in shortened_names]
    if missing and below:
        shortened_names |= _below(missing, below, set(exact.values()) | set(shortened_names.values()))
    taken = Counter([*exact.values(), *shortened_names.values()])
    return exact | {name: path for name, path in shortened_names.items() if taken[path] == 1}


def _first(folders: Sequence[Path], names: Sequence[str]) -> Path | None:
    """Return the first file of these names, in the first folder that has it."""
    files = (Path(os.path.normpath(folder / name)) for name in names for folder in folders)
    return next((file for file in files if is_file(file)), None)


def _below(names: Sequence[str], folders: Iterable[Path], taken: set[Path]) -> dict[str, Path]:
    """Files below folders that share more of the last parts of a name than any other file does."""
    by_name: dict[str, list[Path]] = {}
    wanted = {_plain(parts[-1]) for name in names if (parts := parts_of(name))}
    for folder in folders:
        with suppress(ImageError):  # a folder that cannot be read ends the search
            for path in itertools.islice(walk(folder.resolve(), set()), MOST_FILES):
                if (plain := _plain(path.name)) in wanted and path not in taken:
                    by_name.setdefault(plain, []).append(path)
    found = {}
    for name in names:
        parts = parts_of(name)
        files = by_name.get(_plain(parts[-1]), []) if parts else []
        shared = [_shared(path.parts, parts) for path in files]
        if files and shared.count(max(shared)) == 1:
            found[name] = files[shared.index(max(shared))]
    return found


def _plain(name: str) -> str:
    """Return a file name as different systems write it: letters in either case, accents in one or two characters."""
    return unicodedata.normalize("NFC", name).casefold()


def _shared(path: Sequence[str], parts: Sequence[str]) -> int:
    """Return how many of the last parts are the same."""
    pairs = zip(reversed(path), reversed(parts), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: _plain(pair[0]) == _plain(pair[1]), pairs))


def missing_notice(file: Path, names: Sequence[str], found: Mapping[str, Path]) -> tuple[str, ...]:
    """Return a sentence about the images that are not there; nothing where all are."""
    missing = [name for name in names if name not in found]
    if not missing:
        return ()
    one = len(missing) == 1
    return (
        f"{len(missing)} of the {len(names)} images that {file.name} lists {'is' if one else 'are'} not there and "
        f"left out ({'' if one else 'the first: '}{shortened(missing[0])})",
    )


def looked_in(folders: Sequence[Path], below: Sequence[Path] = ()) -> str:
    """Return where was looked, for a message."""
    told = [str(folder) for folder in dict.fromkeys(folders)]
    return ", ".join(told + [f"below {folder}" for folder in dict.fromkeys(below)])
