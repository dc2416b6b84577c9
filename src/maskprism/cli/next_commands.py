"""What to call after a diagnosis: commands with the user's own paths and options."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maskprism.analysis.dataset.diagnosis import Diagnosis
    from maskprism.analysis.dataset.findings import Finding

SHOWN = 3
_LARGER_INPUT = {"missed", "size", "thin"}
_WRITABLE = (".onnx", ".pt")


def words_of(*groups: Any, without: Iterable[str] = ()) -> list[str]:
    """Return the arguments of the command line that give options these values; defaults are left out.

    Parameters
    ----------
    *groups
        Dataclasses of options, such as `ReadingOptions`, or mappings of option names to values.
    without
        Names that are left out.
    """
    words: list[str] = []
    for group in groups:
        values = (
            group
            if isinstance(group, Mapping)
            else {
                one.name: getattr(group, one.name) for one in fields(group) if getattr(group, one.name) != one.default
            }
        )
        for name, value in values.items():
            if value is None or name in without:
                continue
            several = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
            words += [f"--{name.replace('_', '-')}", *map(str, several)]
    return words


def commands_after(
    found: Diagnosis, findings: Sequence[Finding], data: Path, model: Path, out: Path, *options: Any
) -> list[str]:
    """Return the three commands that follow from a diagnosis, the most useful first.

    Parameters
    ----------
    found, findings
        What it says.
    data, model, out
        As they were given.
    *options
        Groups of options that were given, which the commands take over; see `words_of`.
    """
    from maskprism.analysis.dataset.edits import Edits

    ranked = [one.rule for one in findings if one.gain is not None]
    leading = next((one for one in findings if one.rule == "part"), None)
    coarse = leading is not None and "Most is lost in the resolution" in leading.says
    suffix = model.suffix.lower()
    checkpoint = model.with_suffix(".pt")
    labels_first = ranked[:1] in (["shift"], ["merged"])
    commands: list[tuple[int, list[str]]] = [
        (
            0 if labels_first else 2,
            ["labels", str(data), "--model", str(model), *words_of(*options), "--out", f"{out}-labels"],
        )
    ]
    if not found.spec.fixed_size and (coarse or _LARGER_INPUT & set(ranked)):
        size = ["--imgsz", str(Edits(found.spec).larger_side)]
        again = words_of(*options, without=("imgsz",))
        commands.append((1, ["diagnose", str(data), "--model", str(model), *size, *again, "--out", f"{out}-{size[1]}"]))
    if suffix != ".pt" and checkpoint.is_file():
        folder = _folder(found)
        commands.append((1, ["compare", str(checkpoint), str(model), "--images", folder, "--out", f"{out}-compare"]))
    if suffix in _WRITABLE:
        tuned = model.with_name(f"{model.stem}-tuned{suffix}").name
        commands.append((3, ["tune", str(model), "--data", str(data), *words_of(*options), "--out", tuned]))
    commands.append((4, ["serve", _folder(found), "--model", str(model), "--data", str(data)]))
    masks = ["--out", f"{out}-masks", "--format", "coco"]
    commands.append((5, ["predict", _folder(found), "--model", str(model), *masks]))
    commands.sort(key=lambda command: command[0])
    return [shlex.join(["maskprism", *words]) for _, words in commands[:SHOWN]]


def _folder(found: Diagnosis) -> str:
    """Return the folder that holds the images of the data set."""
    parents = [str(Path(str(path)).parent) for path in found.dataset.images.paths]
    return os.path.relpath(os.path.commonpath(parents)) if parents else str(found.dataset.path.parent)
