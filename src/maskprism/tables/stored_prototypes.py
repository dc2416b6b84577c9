"""Prototypes of an image as columns of a table, so that its masks can be drawn again without the model.

A *summary* keeps what statistics need: the mean, minimum and maximum of each prototype and their Gram matrix.
`fp16` and `fp32` keep the prototypes as well, as half or single precision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
import pyarrow as pa

from maskprism.core import archive
from maskprism.core.geometry import Letterbox
from maskprism.errors import InputError, TableError

if TYPE_CHECKING:
    from jaxtyping import Float32

    from maskprism.core.prediction import Prediction

Stored = Literal["summary", "fp16", "fp32"]
STORED: tuple[Stored, ...] = get_args(Stored)
VALUES = "values"
"""The column of the prototypes themselves."""

_FRAMES = {
    f"{name}_{axis}": (name, position)
    for name in (field.name.rpartition("_")[0] for field in fields(Letterbox))
    for position, axis in enumerate(("top", "left") if name == "offset" else ("height", "width"))
}
_NUMBERS: dict[str, Any] = {"fp16": pa.float16(), "fp32": pa.float32()}


class PrototypeColumn(NamedTuple):
    """A column of the table of prototypes, and how its value follows from what was predicted for an image."""

    name: str
    type: pa.DataType
    of: Callable[[Prediction], Any]


def checked_stored(stored: str | None) -> Stored | None:
    """Return the same word.

    Raises
    ------
    InputError
        For one that says nothing about what to store.
    """
    for one in (None, *STORED):
        if stored == one:
            return one
    raise InputError(f"prototypes is {stored!r}; expected None or one of {', '.join(map(repr, STORED))}")


def prototype_columns(settings: Mapping[str, Any]) -> tuple[PrototypeColumn, ...]:
    """Return the columns beside the name of the image; none where the settings of the table store no prototypes.

    `gram` holds the upper triangle, row by row; `canvas_boxes` is missing where the model gives no boxes, `levels`
    (of the pyramid) where its outputs do not tell them.
    """
    stored, k = settings.get("stored"), int(settings["prototypes"])
    if stored is None:
        return ()
    frames = [PrototypeColumn(name, pa.int32(), _frame(*where)) for name, where in _FRAMES.items()]
    return (
        *frames,
        PrototypeColumn("canvas_boxes", pa.list_(pa.float32()), _boxes),
        PrototypeColumn("levels", pa.list_(pa.int32()), _levels),
        PrototypeColumn("mean", pa.list_(pa.float32(), k), lambda found: _cells(found).mean(axis=1)),
        PrototypeColumn("minimum", pa.list_(pa.float32(), k), lambda found: _cells(found).min(axis=1)),
        PrototypeColumn("maximum", pa.list_(pa.float32(), k), lambda found: _cells(found).max(axis=1)),
        PrototypeColumn("gram", pa.list_(pa.float32(), k * (k + 1) // 2), lambda found: packed(gram(found))),
        *([] if stored == "summary" else [PrototypeColumn(VALUES, pa.list_(_NUMBERS[stored]), _numbers(stored))]),
    )


def gram(prediction: Prediction) -> Float32[np.ndarray, "K K"]:
    """Mean over the cells of the image of the product of two prototypes; padding is no part of it.

    The mean square difference of the logits of two weight vectors `a` and `b` over the image is
    `(a - b) @ gram @ (a - b)`, because logits are linear in the weights.
    """
    cells = _cells(prediction)
    return cells @ cells.T / np.float32(cells.shape[1])


def packed(matrix: Float32[np.ndarray, "*B K K"]) -> Float32[np.ndarray, "*B T"]:
    """Return the upper triangles of symmetric matrices, row by row."""
    rows, columns = np.triu_indices(matrix.shape[-1])
    return matrix[..., rows, columns]


def unpacked(triangle: Float32[np.ndarray, "*B T"]) -> Float32[np.ndarray, "*B K K"]:
    """Return the symmetric matrices of upper triangles; see `packed`."""
    k = (round((8 * triangle.shape[-1] + 1) ** 0.5) - 1) // 2
    rows, columns = np.triu_indices(k)
    matrix = np.zeros((*triangle.shape[:-1], k, k), dtype=triangle.dtype)
    matrix[..., rows, columns] = triangle
    matrix[..., columns, rows] = triangle
    return matrix


def restored(stored: Mapping[str, Any], rows: pa.Table, settings: Mapping[str, Any], label: str) -> Prediction:
    """Return what was predicted for an image, from its row in the table of prototypes and its `rows` of instances.

    Masks are the same to the last pixel with fp32; with fp16 a few pixels along outlines differ.

    Raises
    ------
    TableError
        With `label` for the place, for values that do not fit together, or where only a summary was stored.
    """
    if settings.get("stored") not in _NUMBERS:
        raise TableError(
            f"{label}: has no prototypes, only {settings.get('stored') or 'coefficients'}; "
            "extract it with prototypes stored as fp16 or fp32"
        )
    frame: dict[str, list[Any]] = {}
    for column, (name, _) in _FRAMES.items():
        frame.setdefault(f"{name}_{'yx' if name == 'offset' else 'hw'}", []).append(stored[column])
    header = {name: settings.get(name) for name in ("rule", "preprocessing", "names")}
    try:
        k, grid_hw = int(settings["prototypes"]), frame["grid_hw"]
        boxes, levels = stored["canvas_boxes"], stored["levels"]
        arrays = {
            "canvas_boxes": None if boxes is None else np.asarray(boxes, dtype=np.float32).reshape(-1, 4),
            "scores": rows["score"].to_numpy(),
            "classes": rows["class_id"].to_numpy(),
            "coefficients": np.asarray(rows["coefficients"].to_pylist(), dtype=np.float32).reshape(-1, k),
            "prototypes": np.asarray(stored[VALUES]).reshape(k, *grid_hw),
            "objectness": rows["objectness"].to_numpy() if settings["objectness"] else None,
            "levels": None if levels is None else np.asarray(levels, dtype=np.int64),
        }
        return archive.prediction_of({**header, "letterbox": frame, "source": label}, arrays, label)
    except (InputError, TypeError, ValueError, KeyError) as error:
        reason = str(error).removeprefix(f"{label}: ")
        raise TableError(f"{label}: what is stored does not fit together ({reason}); extract the image again") from None


def _cells(prediction: Prediction) -> Float32[np.ndarray, "K cells"]:
    """Return the prototypes where the image is."""
    rows, columns = prediction.letterbox.content_cells
    return prediction.prototypes[:, rows, columns].reshape(len(prediction.prototypes), -1)


def _frame(name: str, position: int) -> Callable[[Prediction], int]:
    field = f"{name}_{'yx' if name == 'offset' else 'hw'}"
    return lambda found: int(asdict(found.letterbox)[field][position])


def _boxes(prediction: Prediction) -> Any:
    return None if prediction.canvas_boxes is None else prediction.canvas_boxes.reshape(-1)


def _levels(prediction: Prediction) -> Any:
    return None if prediction.levels is None else prediction.levels.astype(np.int32)


def _numbers(stored: Stored) -> Callable[[Prediction], Any]:
    number = np.float16 if stored == "fp16" else np.float32
    return lambda found: found.prototypes.astype(number).reshape(-1)
