"""What a model file says about itself, read without trusting it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from msgspec import Meta, Struct

from maskprism.errors import ModelError
from maskprism.io.class_names import parse_class_names
from maskprism.io.untrusted import fitted, literal, plain_text, shortened

MAX_SIDE = 8192
"""Canvases of more pixels than the square of this are refused: half a million cells per prototype are plenty."""
_Side = Annotated[int, Meta(ge=1, le=MAX_SIDE)]
_LITERALS = ("names", "args", "imgsz", "stride", "maskprism_rule")


class _Entries(Struct):
    """The keys that Ultralytics writes, as values."""

    task: str | int | float | None = None
    names: Any = None
    stride: Annotated[int, Meta(ge=1, le=1024)] | None = None
    imgsz: _Side | Annotated[list[_Side], Meta(min_length=1, max_length=2)] | None = None
    version: str | int | float | None = None
    end2end: Any = None
    args: dict[str, Any] | None = None
    maskprism_rule: Any = None


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
    crop_margin: float | None = None
    logit_threshold: float | None = None

    @classmethod
    def parse(cls, raw: Mapping[str, Any], label: str) -> Metadata:
        """Read the keys that Ultralytics writes.

        Values are literals and are never evaluated.

        Raises
        ------
        ModelError
            For an entry that is no literal, of the wrong kind or out of range.
        """
        values = {key: raw.get(key) for key in _Entries.__struct_fields__}
        values |= {key: _literal(values[key], key, label) for key in _LITERALS}
        said = fitted(
            values, _Entries, f"{label}, metadata", ModelError, "what Ultralytics writes; export the model again"
        )
        tuned = said.maskprism_rule if isinstance(said.maskprism_rule, dict) else {}
        if said.maskprism_rule and sorted(tuned) != ["crop_margin", "logit_threshold"]:
            raise ModelError(
                f"{label}: the metadata entry 'maskprism_rule' is {shortened(said.maskprism_rule)}; expected "
                "crop_margin and logit_threshold, as maskprism tune writes them"
            )
        imgsz = [said.imgsz] if isinstance(said.imgsz, int) else said.imgsz
        return cls(
            task=plain_text(said.task) if said.task else None,
            names=None if said.names is None else parse_class_names(said.names, f"{label}, metadata", ModelError),
            stride=said.stride,
            imgsz=(imgsz[0], imgsz[-1]) if imgsz else None,
            version=plain_text(said.version) if said.version else None,
            end2end=_flag(said.end2end),
            nms=_flag((said.args or {}).get("nms")),
            **{name: _number(value, label) for name, value in tuned.items()},
        )


def refuse_other_tasks(task: str | None, label: str) -> None:
    """Raise ModelError for a model that says it does something other than segmentation."""
    if task and task != "segment":
        raise ModelError(
            f"{label}: is a {task:.40} model; masks come from a segmentation model "
            "(for example yolo11n-seg instead of yolo11n)"
        )


def _literal(text: Any, key: str, label: str) -> Any:
    try:
        return literal(text) if isinstance(text, str) else text
    except ValueError:
        raise ModelError(
            f"{label}: the metadata entry {key!r} is not a literal: {shortened(text)}; it is never evaluated. "
            "Export the model again, or remove the entry"
        ) from None


def _number(value: Any, label: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ModelError(f"{label}: the metadata entry 'maskprism_rule' holds {shortened(value)}; expected numbers")
    return float(value)


def _flag(value: Any) -> bool | None:
    if value is None or value == "None":
        return None
    return value if isinstance(value, bool) else str(value).lower() == "true"
