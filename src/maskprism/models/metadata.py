"""What a model file says about itself, read without trusting it."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from maskprism.errors import ModelError


@dataclass(frozen=True)
class Metadata:
    """The entries that reading a model needs; None where the file is silent."""

    task: str | None = None
    names: dict[int, str] | None = None
    stride: int | None = None
    imgsz: tuple[int, int] | None = None
    version: str | None = None
    end2end: bool | None = None
    nms: bool | None = None

    @classmethod
    def parse(cls, raw: Mapping[str, Any], label: str) -> Metadata:
        """Read the keys that Ultralytics writes. Values are literals and are never evaluated.

        Raises ModelError for an entry that is no literal or of the wrong kind.
        """
        args = _literal(raw, "args", label) or {}
        nms = args.get("nms") if isinstance(args, dict) else None
        imgsz = _literal(raw, "imgsz", label)
        stride = _literal(raw, "stride", label)
        return cls(
            task=str(raw["task"]) if raw.get("task") else None,
            names=_names(_literal(raw, "names", label), label),
            stride=int(stride) if isinstance(stride, int | float) else None,
            imgsz=_imgsz(imgsz),
            version=str(raw["version"]) if raw.get("version") else None,
            end2end=_flag(raw.get("end2end")),
            nms=_flag(nms),
        )


def refuse_other_tasks(task: str | None, label: str) -> None:
    """Raise ModelError for a model that says it does something other than segmentation."""
    if task and task != "segment":
        raise ModelError(
            f"{label}: is a {task} model; masks come from a segmentation model "
            "(for example yolo11n-seg instead of yolo11n)"
        )


def _literal(raw: Mapping[str, Any], key: str, label: str) -> Any:
    text = raw.get(key)
    if not isinstance(text, str):
        return text
    for parse in (ast.literal_eval, json.loads):
        try:
            return parse(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            continue
    raise ModelError(
        f"{label}: the metadata entry {key!r} is not a literal: {text[:80]!r}; it is never evaluated. "
        "Export the model again, or remove the entry"
    )


def _names(found: Any, label: str) -> dict[int, str] | None:
    if found is None:
        return None
    if isinstance(found, list | tuple):
        found = dict(enumerate(found))
    try:
        return {int(key): str(value) for key, value in found.items()}
    except (AttributeError, TypeError, ValueError):
        raise ModelError(
            f"{label}: the metadata entry 'names' is {str(found)[:80]!r}; expected class names by class id"
        ) from None


def _imgsz(found: Any) -> tuple[int, int] | None:
    if isinstance(found, int):
        return found, found
    if isinstance(found, list | tuple) and found and all(isinstance(side, int) for side in found):
        return (found[0], found[-1])
    return None


def _flag(value: Any) -> bool | None:
    if value is None or value == "None":
        return None
    return value if isinstance(value, bool) else str(value).lower() == "true"
