"""What the rows of a coefficient table say, and the settings that determine them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import numpy as np
import pyarrow as pa

from maskprism import __version__
from maskprism.errors import TableError
from maskprism.foreign import decode_json, fitted
from maskprism.preprocessing import YOLO

if TYPE_CHECKING:
    from maskprism.models import Model
    from maskprism.prediction import Prediction
    from maskprism.preprocessing import Preprocessing

FORMAT = 1
METADATA_KEY = b"maskprism"
_NOT_COMPARED = ("maskprism", "model")
_OF_MODEL = ("layout", "prototypes", "objectness", "names")

IMAGE_SCHEMA = pa.schema(
    [
        ("image", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("status", pa.string()),
        ("instances", pa.int32()),
        ("message", pa.string()),
    ]
)


class Settings(msgspec.Struct):
    """The settings of a table that reading it needs; the others are only compared."""

    format: Literal[1]
    prototypes: Annotated[int, msgspec.Meta(ge=1, le=65_536)]
    objectness: bool
    rule: dict[str, str | int | float | bool | None] = {}
    names: dict[str, str] = {}


class Manifest(msgspec.Struct):
    """What a folder of parts says of itself."""

    settings: dict[str, Any]
    overwrite: bool
    continues: bool
    merged: bool


def read_settings_text(data: bytes, label: str, hint: str) -> dict[str, Any]:
    """The settings of a table from JSON. Raises TableError with a `hint` at what to do for anything else."""
    expected = f"the settings of a coefficient table of maskprism; {hint}"
    return checked_settings(decode_json(data, dict[str, Any], label, TableError, expected), label, hint)


def checked_settings(found: dict[str, Any], label: str, hint: str) -> dict[str, Any]:
    """The same settings, if they are some. Raises TableError with a `hint` at what to do for others."""
    fitted(found, Settings, label, TableError, f"the settings of a coefficient table of maskprism; {hint}", strict=True)
    return found


def read_manifest_text(data: bytes, label: str, hint: str) -> Manifest:
    """The manifest of a folder of parts from JSON. Raises TableError with a `hint` at what to do for anything else."""
    found = decode_json(data, Manifest, label, TableError, f"the manifest of a folder of parts; {hint}", strict=True)
    checked_settings(found.settings, label, hint)
    return found


def settings_of(model: Model, source: Path) -> dict[str, Any]:
    """What determines the rows of a table of `model` over the images under the folder `source`."""
    spec, keep = model.spec, model.keep
    return {
        "format": FORMAT,
        "maskprism": __version__,
        "model": spec.name,
        "model_sha256": spec.sha256,
        "runtime": spec.runtime,
        "layout": spec.layout,
        "rule": asdict(spec.rule),
        "imgsz": list(spec.input_hw),
        "conf": keep.conf,
        "iou": keep.iou,
        "max_det": keep.max_det,
        "classes": None if keep.classes is None else sorted(keep.classes),
        **({"multi_label": True} if keep.multi_label else {}),
        **({} if _is_yolo(spec.preprocessing) else {"preprocessing": _plain(asdict(spec.preprocessing))}),
        "prototypes": spec.prototypes,
        "objectness": spec.layout == "yolov5",
        "names": {str(class_id): name for class_id, name in spec.names.items()},
        "source": source.as_posix().encode("utf-8", errors="backslashreplace").decode("utf-8"),
    }


def differences(recorded: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Every setting that determines rows and differs, as "conf: 0.25 in the table, 0.5 now"."""
    old, new = _flat(recorded), _flat(wanted)
    names = [name for name in {**old, **new} if name not in _NOT_COMPARED]
    if old.get("model_sha256") != new.get("model_sha256"):  # the rest of a model follows from which one it is
        names = ["model", *(name for name in names if name not in _OF_MODEL and not name.startswith("rule."))]
    return [
        f"{name}: {_short(old.get(name))} in the table, {_short(new.get(name))} now"
        for name in names
        if old.get(name) != new.get(name)
    ]


def instance_schema(settings: Mapping[str, Any]) -> pa.Schema:
    """The columns of the table of instances, with the settings as schema metadata."""
    columns: list[tuple[str, pa.DataType]] = [
        ("image", pa.string()),
        ("image_width", pa.int32()),
        ("image_height", pa.int32()),
        ("instance", pa.int32()),
        ("class_id", pa.int32()),
        ("class_name", pa.string()),
        ("score", pa.float32()),
        ("x1", pa.float32()),
        ("y1", pa.float32()),
        ("x2", pa.float32()),
        ("y2", pa.float32()),
        ("mask_area", pa.int64()),
        ("mask_empty", pa.bool_()),
        *([("objectness", pa.float32())] if settings["objectness"] else []),
        ("coefficients", pa.list_(pa.float32(), int(settings["prototypes"]))),
    ]
    return pa.schema(columns, metadata=_as_metadata(settings))


def image_schema(settings: Mapping[str, Any]) -> pa.Schema:
    """The columns of the table of images, with the settings as schema metadata."""
    return IMAGE_SCHEMA.with_metadata(_as_metadata(settings))


def instance_columns(image: str, prediction: Prediction) -> dict[str, Any]:
    """The rows of one image as columns; decodes every mask once per frame it is measured in."""
    n = len(prediction)
    height, width = prediction.image_size
    x1, y1, x2, y2 = prediction.boxes.T
    columns = {
        "image": [image] * n,
        "image_width": np.full(n, width, dtype=np.int32),
        "image_height": np.full(n, height, dtype=np.int32),
        "instance": np.arange(n, dtype=np.int32),
        "class_id": prediction.classes.astype(np.int32),
        "class_name": [prediction.name_of(class_id) for class_id in prediction.classes],
        "score": prediction.scores,
        "x1": x1,
        "y1": y1,
        "x2": x2,
        "y2": y2,
        "mask_area": prediction.areas("image"),
        "mask_empty": prediction.empty,
        "coefficients": prediction.coefficients,
    }
    if prediction.objectness is not None:
        columns["objectness"] = prediction.objectness
    return columns


def instance_table(per_image: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """The columns of several images, one after the other, as one table."""

    def joined(field: pa.Field) -> pa.Array:
        values = [columns[field.name] for columns in per_image]
        if pa.types.is_string(field.type):
            return pa.array([value for image in values for value in image], type=field.type)
        if pa.types.is_fixed_size_list(field.type):
            flat = np.concatenate([np.asarray(image, dtype=np.float32).reshape(-1) for image in values])
            return pa.FixedSizeListArray.from_arrays(pa.array(flat), type=field.type)
        return pa.array(np.concatenate(values), type=field.type)

    return (
        pa.Table.from_arrays([joined(field) for field in schema], schema=schema) if per_image else schema.empty_table()
    )


def image_records(records: list[tuple[Any, ...]], settings: dict[str, Any]) -> pa.Table:
    """Records of (image, width, height, status, instances, message) as a table."""
    columns = zip(*records, strict=True) if records else [()] * len(IMAGE_SCHEMA)
    arrays = [pa.array(values, type=field.type) for values, field in zip(columns, IMAGE_SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=image_schema(settings))


def _as_metadata(settings: Mapping[str, Any]) -> dict[bytes, bytes]:
    return {METADATA_KEY: json.dumps(settings, ensure_ascii=False).encode("utf-8")}


def _is_yolo(preprocessing: Preprocessing) -> bool:
    """As all tables were made before there were others."""
    return preprocessing in (YOLO, replace(YOLO, channels="grey"))


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    """As JSON gives it back."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping) and name in ("rule", "preprocessing"):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:76]} ..."
