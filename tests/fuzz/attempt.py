"""One case: a valid input of a kind, damaged by a seed, used as a user would."""

from __future__ import annotations

import tempfile
import traceback
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import maskprism
from fuzz import datasets, exports, images, models, results, states, tables
from fuzz.kind import Kind
from fuzz.mutate import Chance, Damage, bytes_damage
from maskprism.errors import MaskprismError

KINDS: dict[str, Kind] = {
    **datasets.KINDS,
    **images.KINDS,
    **tables.KINDS,
    **models.KINDS,
    **results.KINDS,
    **states.KINDS,
    **exports.KINDS,
}
SOURCE = Path(maskprism.__file__).parent
Files = dict[str, "bytes | None"]
"""Contents by path; None is a folder."""


@dataclass(frozen=True)
class Failure:
    """A case that ended in something else than a result or an error of maskprism; run it again by kind and seed."""

    kind: str
    seed: int
    error: str
    where: str
    message: str
    notes: str


def attempt(name: str, seed: int, folder: Path) -> Failure | None:
    """One damaged input of a kind, in a folder of its own, used as a user would."""
    chance = Chance(f"{name} {seed}")
    kind = KINDS[name]
    files = dict(chance.choice(valid(name)))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _damage(chance, files, kind.damage)
            put(files, folder)
            kind.use(folder)
    except MaskprismError:
        return None
    except BaseException as error:
        return Failure(name, seed, type(error).__name__, _where(error), str(error)[:200], "; ".join(chance.notes))
    return None


def _where(error: BaseException) -> str:
    """The last line of the package that the error passed."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(SOURCE)]
    last = (ours or frames)[-1]
    return f"{Path(last.filename).relative_to(SOURCE) if ours else last.filename}:{last.lineno} {last.name}"


def _damage(chance: Chance, files: Files, damage: Mapping[str, tuple[Damage, ...]]) -> None:
    targets = {name: found for name in files for found in [_damage_of(name, damage)] if found}
    for _ in range(chance.choice((1, 1, 1, 2))):
        name = chance.choice(sorted(targets))
        chance.note(name)
        whole = chance.random()
        if whole < 0.01:
            files[name] = None if files[name] is not None else b""
        elif whole < 0.02:
            files[name] = b""
        elif whole < 0.03:
            files[chance.choice(("0abc", "-1", "9" * 30, "٣")) + name[chance.randrange(len(name)) :]] = files.pop(name)
            return
        elif (data := files[name]) is not None:
            try:
                files[name] = chance.choice(targets[name])(chance, data)
            except Exception:  # damaged before, and no longer what this damage understands
                files[name] = bytes_damage(chance, data)


def _damage_of(name: str, damage: Mapping[str, tuple[Damage, ...]]) -> tuple[Damage, ...]:
    return next((found for pattern, found in damage.items() if fnmatch(name, pattern)), ())


def put(files: Files, folder: Path) -> None:
    """Write files into a folder."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if data is None:
            path.mkdir()
        else:
            path.write_bytes(data)


@cache
def valid(name: str) -> tuple[Files, ...]:
    """The valid inputs of a kind, made once."""
    found = []
    for write in KINDS[name].write:
        with tempfile.TemporaryDirectory() as made:
            write(Path(made))
            paths = sorted(path for path in Path(made).rglob("*") if path.is_file())
            found.append({path.relative_to(made).as_posix(): path.read_bytes() for path in paths})
    return tuple(found)
