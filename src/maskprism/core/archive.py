"""The one serialiser of `Prediction`: plain values and named arrays, and back without loss.

`header_of` and `arrays_of` take a prediction of any family apart, `prediction_of` puts it together. `write` and `read`
keep predictions in a file: a NumPy `.npz` of plain arrays, without pickles. Tables, records of a training and the page
of the viewer store the same header and arrays in forms of their own.
"""

from __future__ import annotations

import json
import math
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import msgspec
import numpy as np

from maskprism._common.files import write_atomically
from maskprism._common.text import counted
from maskprism.core.geometry import Letterbox
from maskprism.core.masks import MaskRule
from maskprism.core.prediction import Prediction
from maskprism.core.preprocessing import Preprocessing
from maskprism.errors import InputError
from maskprism.io.untrusted import DAMAGED_ZIP, fitted, size_of_regular

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

FORMAT = 1
MAX_BYTES = 1 << 30
"""The arrays of one prediction in a file are at most this large."""
MAX_PIXELS = 1 << 30
"""As many as OpenCV reads of an image."""

_FLOATS = ("canvas_boxes", "scores", "coefficients", "prototypes", "objectness")
_WHOLE = ("classes", "levels")
_OPTIONAL = ("canvas_boxes", "objectness", "levels")
_ABOUT = "about"
_EXPECTED = "a file that Prediction.save or PrototypeCallback wrote"
_LARGEST_HALF = float(np.finfo(np.float16).max)


class Header(msgspec.Struct, frozen=True):
    """Everything in a prediction that is no array."""

    letterbox: Letterbox
    rule: MaskRule
    preprocessing: Preprocessing
    names: dict[int, str] = {}
    source: str | None = None


class _About(msgspec.Struct):
    """What a file of predictions says about itself."""

    format: Literal[1]
    predictions: list[Header]


def header_of(prediction: Prediction) -> dict[str, Any]:
    """Return what is no array of a prediction, as values that JSON can hold.

    Returns
    -------
    dict
        `letterbox`, `rule`, `preprocessing`: their fields by name. `names`: class names by class id as text.
        `source`: text or None.
    """
    return {
        "letterbox": asdict(prediction.letterbox),
        "rule": asdict(prediction.rule),
        "preprocessing": asdict(prediction.preprocessing),
        "names": {str(class_id): name for class_id, name in prediction.names.items()},
        "source": prediction.source,
    }


def arrays_of(prediction: Prediction, *, half: bool = False) -> dict[str, np.ndarray[Any, Any]]:
    """Return the arrays of a prediction by name; those that it has not are missing.

    Parameters
    ----------
    prediction
        Of any family.
    half
        Prototypes in half precision. Prototypes with finite values beyond its range stay in single precision.
    """
    arrays = {
        name: np.asarray(array, dtype)
        for names, dtype in ((_FLOATS, np.float32), (_WHOLE, np.int64))
        for name in names
        if (array := getattr(prediction, name)) is not None
    }
    values = arrays["prototypes"]
    if half and float(np.max(np.abs(values), initial=0, where=np.isfinite(values))) <= _LARGEST_HALF:
        arrays["prototypes"] = values.astype(np.float16)
    return arrays


def prediction_of(header: Mapping[str, Any], arrays: Mapping[str, Any], label: str) -> Prediction:
    """Put a prediction together again from what `header_of` and `arrays_of` gave.

    Parameters
    ----------
    header
        As of `header_of`; checked against its schema.
    arrays
        As of `arrays_of`. Halves become single precision; whole numbers 64-bit.
    label
        Where they come from, for messages.

    Raises
    ------
    InputError
        If a field or an array is missing, is of another kind, or does not fit to the others.
    """
    return _put_together(fitted(header, Header, label, InputError, "the header of a prediction"), arrays, label)


def write(path: str | os.PathLike[str], predictions: Sequence[Prediction], *, half: bool = False) -> Path:
    """Write predictions into one `.npz` file, whole or not at all; an existing file is replaced.

    Parameters
    ----------
    path
        The file; missing parent folders are made.
    predictions
        One or more, of any family.
    half
        Prototypes in half precision; see `arrays_of`.

    Raises
    ------
    InputError
        If a prediction has more than `MAX_BYTES` of arrays.
    MaskprismError
        If the file cannot be written.
    """
    return write_atomically(path, packed(predictions, half=half, label=os.fspath(path)))


def packed(predictions: Sequence[Prediction], *, half: bool = False, label: str = "prediction") -> bytes:
    """Return the bytes of the file that `write` writes.

    Parameters
    ----------
    predictions, half
        As in `write`.
    label
        What the file is called in messages.

    Raises
    ------
    InputError
        If a prediction has more than `MAX_BYTES` of arrays.
    """
    about = {"format": FORMAT, "predictions": [header_of(prediction) for prediction in predictions]}
    arrays: dict[str, Any] = {_ABOUT: np.frombuffer(json.dumps(about, default=_plain).encode("ascii"), dtype=np.uint8)}
    for number, prediction in enumerate(predictions):
        members = arrays_of(prediction, half=half)
        size = sum(array.nbytes for array in members.values())
        if size > MAX_BYTES:
            raise InputError(
                f"{label}: a prediction has {size / 2**30:.1f} GiB of arrays; expected at most "
                f"{MAX_BYTES / 2**30:.0f} GiB in a file"
            )
        arrays |= {f"{name}_{number}": array for name, array in members.items()}

    file = BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def read(path: str | os.PathLike[str], index: int | None = None) -> Prediction:
    """Read one prediction of a file that `write` wrote.

    Parameters
    ----------
    path
        The file.
    index
        Which prediction, from 0; None for the only one.

    Raises
    ------
    InputError
        If there is no such file, it is damaged or of another kind, or has no such prediction, or more than the only
        one.
    """
    size_of_regular(path, InputError)
    label = os.fspath(path)
    try:
        with Path(path).open("rb") as file:
            return _read(file, index, label)
    except OSError as error:
        raise InputError(f"{label}: cannot be read ({error.strerror or error})") from None


def _plain(value: Any) -> Any:
    """NumPy's numbers as those of JSON."""
    return value.item()


def _read(file: BinaryIO, index: int | None, label: str) -> Prediction:
    try:
        with zipfile.ZipFile(file) as members:
            text = _array(members, _ABOUT).tobytes()
            about = fitted(json.loads(text), _About, label, InputError, _EXPECTED)
            count = len(about.predictions)
            if index is None and count != 1:
                raise InputError(f"{label}: holds {counted(count, 'prediction')}; expected one")
            number = index or 0
            if not 0 <= number < count:
                raise InputError(f"image {number} is out of range: {label} holds {count} (0..{count - 1})")
            suffix = f"_{number}"
            stored = {member.removesuffix(".npy") for member in members.namelist()}
            names = [name for name in (*_FLOATS, *_WHOLE) if name + suffix in stored]
            if sum(members.getinfo(f"{name}{suffix}.npy").file_size for name in names) > MAX_BYTES + (1 << 20):
                raise ValueError(f"its arrays are larger than {MAX_BYTES / 2**30:.0f} GiB")
            return _put_together(
                about.predictions[number], {name: _array(members, name + suffix) for name in names}, label
            )
    except InputError:
        raise
    except DAMAGED_ZIP as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise InputError(f"{label}: is damaged ({reason}); expected {_EXPECTED}") from None


def _array(members: zipfile.ZipFile, name: str) -> np.ndarray[Any, Any]:
    """One array. What its head says of its shape is believed only if its bytes are there."""
    if members.getinfo(f"{name}.npy").file_size > MAX_BYTES + (1 << 20):
        raise ValueError(f"{name} is too large")
    data = members.read(f"{name}.npy")
    stream = BytesIO(data)
    version = np.lib.format.read_magic(stream)
    read_head = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_columns, dtype = read_head(stream)
    if dtype.kind not in "biuf":
        raise ValueError(f"{name} holds values of type {dtype}")
    body = data[stream.tell() :]
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(body):
        raise ValueError(f"{name} has the shape {shape} and {len(body)} bytes")
    return np.frombuffer(body, dtype).reshape(shape, order="F" if by_columns else "C")


def _put_together(header: Header, arrays: Mapping[str, Any], label: str) -> Prediction:
    for name in ("image_hw", "canvas_hw"):
        height, width = getattr(header.letterbox, name)
        if height * width > MAX_PIXELS:
            raise InputError(f"{label}: {name} is {height} x {width}; expected at most {MAX_PIXELS:,} pixels")
    values = {
        **{name: _checked(arrays, name, "f", np.float32, label) for name in _FLOATS},
        **{name: _checked(arrays, name, "iu", np.int64, label) for name in _WHOLE},
    }
    try:
        return Prediction(
            letterbox=header.letterbox,
            rule=header.rule,
            preprocessing=header.preprocessing,
            names=header.names,
            source=header.source,
            **values,
        )
    except InputError as error:
        raise InputError(f"{label}: {error}") from None


def _checked(arrays: Mapping[str, Any], name: str, kinds: str, dtype: DTypeLike, label: str) -> Any:
    """Return a copy of an array of the right kind; None for an optional one that is missing."""
    if arrays.get(name) is None:
        if name in _OPTIONAL:
            return None
        raise InputError(f"{label}: {name} is missing; expected {_EXPECTED}")
    array = np.asarray(arrays[name])
    if array.dtype.kind not in kinds:
        wanted = "whole numbers" if "i" in kinds else "floating-point numbers"
        raise InputError(f"{label}: {name} holds values of type {array.dtype}; expected {wanted}")
    return array.astype(dtype)
