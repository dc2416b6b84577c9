"""What the rows of a coefficient table say, and the settings that determine them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from maskprism import __version__
from maskprism._common.text import readable
from maskprism.errors import TableError
from maskprism.io.untrusted import decode_json, fitted
from maskprism.tables.stored_prototypes import Stored, prototype_columns

if TYPE_CHECKING:
    from maskprism.core.prediction import Prediction
    from maskprism.datasets.visit import Failure
    from maskprism.io.uris import Location
    from maskprism.models import Model

FORMAT = 2
METADATA_KEY = b"maskprism"
_NOT_COMPARED = ("maskprism", "model")
_OF_MODEL = ("layout", "prototypes", "objectness", "names", "rule", "preprocessing")

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


_WHICH_IMAGE = (
    pa.field("image", pa.string()),
    pa.field("image_width", pa.int32()),
    pa.field("image_height", pa.int32()),
)


class Settings(msgspec.Struct):
    """The settings of a table that reading it needs; the others are only compared."""

    format: Literal[2]
    prototypes: Annotated[int, msgspec.Meta(ge=1, le=65_536)]
    objectness: bool
    rule: dict[str, str | int | float | bool | None] = {}
    preprocessing: dict[str, str | int | float | bool | list[float] | None] = {}
    names: dict[str, str] = {}
    stored: Stored | None = None


class Manifest(msgspec.Struct):
    """What a folder of parts says of itself."""

    settings: dict[str, Any]
    overwrite: bool
    continues: bool
    merged: bool


def read_settings_text(data: bytes, label: str, hint: str) -> dict[str, Any]:
    """Return the settings of a table from JSON.

    Raises
    ------
    TableError
        With a `hint` at what to do for anything else.
    """
    expected = f"the settings of a coefficient table of maskprism; {hint}"
    return checked_settings(decode_json(data, dict[str, Any], label, TableError, expected), label, hint)


def checked_settings(found: dict[str, Any], label: str, hint: str) -> dict[str, Any]:
    """Return the same settings, if they are some.

    Raises
    ------
    TableError
        With a `hint` at what to do for others.
    """
    fitted(found, Settings, label, TableError, f"the settings of a coefficient table of maskprism; {hint}", strict=True)
    return found


def read_manifest_text(data: bytes, label: str, hint: str) -> Manifest:
    """Return the manifest of a folder of parts from JSON.

    Raises
    ------
    TableError
        With a `hint` at what to do for anything else.
    """
    found = decode_json(data, Manifest, label, TableError, f"the manifest of a folder of parts; {hint}", strict=True)
    checked_settings(found.settings, label, hint)
    return found


def settings_of(model: Model, source: Location | str, stored: Stored | None = None) -> dict[str, Any]:
    """Return what determines the rows of a table of `model` over the images under the folder `source`.

    Parameters
    ----------
    stored
        What is kept of prototypes.
    """
    folder = source.as_posix() if isinstance(source, PurePath) else str(source)
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
        **({"agnostic": True} if keep.agnostic else {}),
        **({} if spec.correction is None else {"correction": spec.correction}),
        "preprocessing": _plain(asdict(spec.preprocessing)),
        "prototypes": spec.prototypes,
        "objectness": model.family.objectness,
        "names": {str(class_id): name for class_id, name in spec.names.items()},
        **({} if stored is None else {"stored": stored}),
        "source": readable(folder),
    }


def differences(recorded: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Return every setting that determines rows and differs, as "conf: 0.25 in the table, 0.5 now"."""
    old, new = _flat(recorded), _flat(wanted)
    names = [name for name in {**old, **new} if name not in _NOT_COMPARED]
    if old.get("model_sha256") != new.get("model_sha256"):  # the rest of a model follows from which one it is
        names = [
            "model",
            *(name for name in names if name not in _OF_MODEL and not name.startswith(("rule.", "preprocessing."))),
        ]
    return [
        f"{name}: {_short(old.get(name))} in the table, {_short(new.get(name))} now"
        for name in names
        if old.get(name) != new.get(name)
    ]


class Column(NamedTuple):
    """A column of the table of instances, and how its values follow from what was predicted for an image."""

    name: str
    type: pa.DataType
    of: Callable[[Prediction], Any]


def instance_columns(settings: Mapping[str, Any]) -> tuple[Column, ...]:
    """Return every column of the table of instances but those that say which image it is."""
    return (
        Column("instance", pa.int32(), lambda found: np.arange(len(found), dtype=np.int32)),
        Column("class_id", pa.int32(), lambda found: found.classes.astype(np.int32)),
        Column("class_name", pa.string(), lambda found: [found.name_of(class_id) for class_id in found.classes]),
        Column("score", pa.float32(), lambda found: found.scores),
        Column("x1", pa.float32(), lambda found: found.boxes[:, 0]),
        Column("y1", pa.float32(), lambda found: found.boxes[:, 1]),
        Column("x2", pa.float32(), lambda found: found.boxes[:, 2]),
        Column("y2", pa.float32(), lambda found: found.boxes[:, 3]),
        Column("mask_area", pa.int64(), lambda found: found.areas("image")),
        Column("mask_empty", pa.bool_(), lambda found: found.empty),
        *([Column("objectness", pa.float32(), lambda found: found.objectness)] if settings["objectness"] else []),
        Column("coefficients", pa.list_(pa.float32(), int(settings["prototypes"])), lambda found: found.coefficients),
    )


def instance_schema(settings: Mapping[str, Any]) -> pa.Schema:
    """Return the columns of the table of instances, with the settings as schema metadata."""
    columns = [pa.field(column.name, column.type) for column in instance_columns(settings)]
    return pa.schema([*_WHICH_IMAGE, *columns], metadata=_as_metadata(settings))


def prototype_schema(settings: Mapping[str, Any]) -> pa.Schema:
    """Return the columns of the table of prototypes, with the settings as schema metadata."""
    columns = [pa.field(column.name, column.type) for column in prototype_columns(settings)]
    return pa.schema([_WHICH_IMAGE[0], *columns], metadata=_as_metadata(settings))


def image_schema(settings: Mapping[str, Any]) -> pa.Schema:
    """Return the columns of the table of images, with the settings as schema metadata."""
    return IMAGE_SCHEMA.with_metadata(_as_metadata(settings))


@dataclass(frozen=True)
class ExtractedImage:
    """One image, finished: the values of its instances by column, or None and why it failed.

    Attributes
    ----------
    size_hw
        None where it could not be decoded.
    prototypes
        What is stored of them, by column; None where there are no instances, or nothing is stored.
    network_failed
        It is the model that failed, not the file.
    """

    name: str
    size_hw: tuple[int, int] | None = None
    values: Mapping[str, Any] | None = None
    prototypes: Mapping[str, Any] | None = None
    message: str = ""
    network_failed: bool = False

    @classmethod
    def of(cls, failure: Failure) -> ExtractedImage:
        """Return an image that failed."""
        return cls(failure.name, failure.size_hw, message=failure.message, network_failed=failure.by_model)

    @property
    def instances(self) -> int:
        """How many there are."""
        return 0 if self.values is None else len(self.values["instance"])

    @property
    def status(self) -> Literal["ok", "empty", "failed"]:
        """What became of it."""
        return "failed" if self.values is None else "ok" if self.instances else "empty"

    @property
    def nbytes(self) -> int:
        """How much its name and its arrays take."""
        columns = [*(self.values or {}).values(), *(self.prototypes or {}).values()]
        return len(self.name) + sum(np.asarray(column).nbytes for column in columns)


def shard_schema(settings: Mapping[str, Any]) -> pa.Schema:
    """Return the columns of a shard: those of the table of images, and in `rows` the instances of each image.

    Where prototypes are stored, `prototypes` has what is stored of those of each image.
    """
    columns = pa.struct([pa.field(column.name, column.type) for column in instance_columns(settings)])
    fields = [*IMAGE_SCHEMA, pa.field("network_failed", pa.bool_()), pa.field("rows", pa.list_(columns))]
    if stored := prototype_columns(settings):
        fields.append(pa.field("prototypes", pa.struct([pa.field(one.name, one.type) for one in stored])))
    return pa.schema(fields, metadata=_as_metadata(settings))


def shard_batch(images: Sequence[ExtractedImage], schema: pa.Schema) -> pa.RecordBatch:
    """Finished images as one batch of `shard_schema`."""
    kind = schema.field("rows").type.value_type
    found = [image.values for image in images if image.values is not None]
    counts = [image.instances for image in images]
    rows = pa.ListArray.from_arrays(
        pa.array(np.cumsum([0, *counts]), pa.int32()),
        pa.StructArray.from_arrays([_joined(field, found) for field in kind], fields=list(kind)),
        type=schema.field("rows").type,
    )
    records = zip(
        *[
            (
                image.name,
                *(image.size_hw or (None, None))[::-1],
                image.status,
                image.instances,
                image.message,
                image.network_failed,
            )
            for image in images
        ],
        strict=True,
    )
    plain = list(schema)[: schema.get_field_index("rows")]
    columns = list(records) if images else [()] * len(plain)
    arrays = [pa.array(values, type=field.type) for values, field in zip(columns, plain, strict=True)]
    arrays.append(rows)
    if "prototypes" in schema.names:
        arrays.append(_structs([image.prototypes for image in images], schema.field("prototypes").type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def instances_of(shards: pa.Table) -> pa.Table:
    """Return the table of instances in shards: one row per instance."""
    rows = shards["rows"].combine_chunks()
    parents = pc.list_parent_indices(rows)
    which = [shards[name].take(parents) for name in ("image", "width", "height")]
    kind = rows.type.value_type
    schema = pa.schema([*_WHICH_IMAGE, *kind], metadata=shards.schema.metadata)
    return pa.Table.from_arrays([*which, *rows.flatten().flatten()], schema=schema)


def prototypes_of(shards: pa.Table) -> pa.Table:
    """Return the table of prototypes in shards: one row per image with instances.

    Without columns where none are stored.
    """
    fields = [_WHICH_IMAGE[0]]
    kept = shards.slice(0, 0)
    arrays: list[Any] = []
    if "prototypes" in shards.column_names:
        kept = shards.filter(pc.is_valid(shards["prototypes"]))
        structs = kept["prototypes"].combine_chunks()
        fields, arrays = [*fields, *structs.type], structs.flatten()
    schema = pa.schema(fields, metadata=shards.schema.metadata)
    return pa.Table.from_arrays([kept["image"], *arrays], schema=schema)


def records_of(shards: pa.Table) -> pa.Table:
    """Return the table of images in shards.

    One row per image, those without instances and those that failed included.
    """
    return shards.select(IMAGE_SCHEMA.names)


def _structs(found: Sequence[Mapping[str, Any] | None], kind: pa.StructType) -> pa.StructArray:
    """One struct per image, of which some are missing."""
    arrays = []
    for field in kind:
        values = [None if one is None else one[field.name] for one in found]
        arrays.append(_lists(values, field.type) if pa.types.is_list(field.type) else pa.array(values, type=field.type))
    return pa.StructArray.from_arrays(arrays, fields=list(kind), mask=_missing(found))


def _lists(values: Sequence[Any], kind: pa.ListType) -> pa.ListArray:
    """Return lists of numbers, some missing, from NumPy arrays; pyarrow itself takes halves one by one."""
    flat = np.concatenate([np.zeros(0, kind.value_type.to_pandas_dtype()), *(one for one in values if one is not None)])
    offsets = pa.array(np.cumsum([0, *(0 if one is None else len(one) for one in values)]), pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array(flat), type=kind, mask=_missing(values))


def _missing(values: Sequence[Any]) -> pa.BooleanArray:
    return pa.array([value is None for value in values], pa.bool_())


def _joined(field: pa.Field, found: Iterable[Mapping[str, Any]]) -> pa.Array:
    """Return the values of one column of several images, one after the other."""
    values = [image[field.name] for image in found]
    if pa.types.is_string(field.type):
        return pa.array([value for image in values for value in image], type=field.type)
    if pa.types.is_fixed_size_list(field.type):
        flat = np.concatenate(
            [np.zeros(0, np.float32), *(np.asarray(image, np.float32).reshape(-1) for image in values)]
        )
        return pa.FixedSizeListArray.from_arrays(pa.array(flat), type=field.type)
    return pa.array(np.concatenate(values) if values else [], type=field.type)


def _as_metadata(settings: Mapping[str, Any]) -> dict[bytes, bytes]:
    return {METADATA_KEY: json.dumps(settings, ensure_ascii=False).encode("utf-8")}


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
