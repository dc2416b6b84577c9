"""The smallest door: a `Prediction` out of arrays that any model gave, checked before anything is believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from maskprism.core.masks import NO_CROP, ULTRALYTICS, rule_named
from maskprism.core.prediction import Prediction
from maskprism.core.preprocessing import YOLO, preprocessing_named
from maskprism.errors import InputError
from maskprism.io.images import read_image, source_name

if TYPE_CHECKING:
    from jaxtyping import Float32, Int64
    from numpy.typing import ArrayLike

    from maskprism.core.geometry import Letterbox
    from maskprism.core.masks import MaskRule
    from maskprism.core.preprocessing import Preprocessing
    from maskprism.io.images import ImageLike

_STRIDE = 4


def from_arrays(
    image: ImageLike | tuple[int, int],
    coefficients: ArrayLike,
    prototypes: ArrayLike,
    *,
    boxes: ArrayLike | None = None,
    scores: ArrayLike | None = None,
    classes: ArrayLike | None = None,
    objectness: ArrayLike | None = None,
    names: Mapping[int, str] | Sequence[str] = (),
    rule: MaskRule | str | None = None,
    preprocessing: Preprocessing | str | None = None,
    canvas_hw: tuple[int, int] | None = None,
    letterbox: Letterbox | None = None,
    source: str | None = None,
) -> Prediction:
    """Return what a model said about one image, from its arrays: N instances over K prototypes.

    Arrays are anything that numpy reads, tensors of PyTorch included; they are copied as float32.

    Parameters
    ----------
    image
        a path, a PIL image, a BGR array, or just (height, width) in pixels.
    coefficients
        (N, K), any sign.
    prototypes
        (K, h, w), any sign.
    boxes
        (N, 4): x1, y1, x2, y2 in pixels of the image; None for masks without boxes, which are not cropped.
    scores
        (N,), 0 to 1. Default: all 1.
    classes
        (N,) ids, keys of `names`. Default: all 0.
    objectness
        (N,), for rules that multiply coefficients by it.
    names
        of the classes: a list, or a mapping from their ids.
    rule
        a `MaskRule` or the name of a preset; default: "ultralytics", or "no-crop" without boxes.
    preprocessing
        a `Preprocessing` or the name of a preset: how the image lay on the canvas that the prototypes cover.
    canvas_hw
        (height, width) of that canvas in pixels; default: four times that of the prototypes.
    letterbox
        how the image lay on it, where that is known already. Without any of the three the prototypes cover the image
        itself.
    source
        what the image is called in titles. Default: its path, if it has one.

    Raises
    ------
    InputError
        shapes do not fit together, numbers are not finite or out of range, or a rule crops without boxes.
    ImageError
        the image cannot be read.

    Examples
    --------
    >>> import maskprism
    >>> import numpy as np
    >>> prototypes = np.ones((2, 40, 40))
    >>> prediction = maskprism.from_arrays((160, 160), [[1.0, -0.5]], prototypes, boxes=[[40, 40, 120, 100]])
    >>> prediction[0].area()
    4800
    """
    image_hw, name = image_size(image)
    maps = _floats("prototypes", prototypes, ("K", "h", "w"))
    _, height, width = maps.shape
    if 0 in maps.shape:
        raise InputError(f"prototypes have shape {maps.shape}; expected at least one, of at least 1 x 1")
    weights = _coefficients(coefficients, maps.shape)
    n = len(weights)
    frame = _letterbox(image_hw, (height, width), preprocessing, canvas_hw, letterbox)
    corners = None if boxes is None else frame.to_canvas(_boxes(boxes, n, image_hw))
    chosen = (NO_CROP if boxes is None else ULTRALYTICS) if rule is None else rule_named(rule)
    return Prediction(
        canvas_boxes=corners,
        scores=np.ones(n, dtype=np.float32) if scores is None else _shares("scores", scores, n),
        classes=np.zeros(n, dtype=np.int64) if classes is None else _classes(classes, n),
        coefficients=weights,
        prototypes=maps,
        letterbox=frame,
        rule=chosen,
        names=read_class_names(names),
        objectness=None if objectness is None else _shares("objectness", objectness, n),
        source=name if source is None else source,
        preprocessing=YOLO if preprocessing is None else preprocessing_named(preprocessing),
    )


def image_size(image: Any) -> tuple[tuple[int, int], str | None]:
    """Return (height, width) of an image, or of the tuple that says so, and its path.

    Raises
    ------
    InputError
        If the tuple is not two whole numbers.
    ImageError
        If the image cannot be read.
    """
    if not isinstance(image, tuple | list):
        height, width = read_image(image).shape[:2]
        return (height, width), source_name(image)
    return _size("image", image), None


def _size(name: str, value: Any) -> tuple[int, int]:
    sides = _read(name, value)
    if sides.shape != (2,):
        raise InputError(f"{name} has shape {sides.shape}; expected (height, width) in pixels, two whole numbers")
    if sides.dtype.kind not in "iu" or (sides < 1).any():
        raise InputError(f"{name} is {value!r}; expected (height, width) in pixels")
    return int(sides[0]), int(sides[1])


def _letterbox(
    image_hw: tuple[int, int],
    grid_hw: tuple[int, int],
    preprocessing: Preprocessing | str | None,
    canvas_hw: tuple[int, int] | None,
    letterbox: Letterbox | None,
) -> Letterbox:
    if letterbox is not None:
        if canvas_hw is not None:
            raise InputError("letterbox and canvas_hw are given; the letterbox has a canvas already, so leave one out")
        if letterbox.image_hw != image_hw:
            raise InputError(f"the letterbox is of an image of {letterbox.image_hw}; this one has {image_hw} pixels")
        return letterbox.with_grid(grid_hw)
    canvas = (grid_hw[0] * _STRIDE, grid_hw[1] * _STRIDE) if canvas_hw is None else _size("canvas_hw", canvas_hw)
    if preprocessing is not None:
        return preprocessing_named(preprocessing).letterbox(image_hw, canvas).with_grid(grid_hw)
    if canvas_hw is not None:
        raise InputError("canvas_hw is given without preprocessing=, which says how the image lay on that canvas")
    if abs(grid_hw[1] - image_hw[1] * grid_hw[0] / image_hw[0]) > 1:
        raise InputError(
            f"prototypes of {grid_hw[0]} x {grid_hw[1]} do not have the shape of the image, {image_hw[0]} x "
            f'{image_hw[1]}, so it was padded or stretched: say how with preprocessing= ("yolo" centres it, '
            '"yolact" stretches it) or letterbox='
        )
    return YOLO.letterbox(image_hw, image_hw).with_grid(grid_hw)


def _read(name: str, value: Any) -> np.ndarray[Any, Any]:
    try:
        found = np.asarray(value.detach().cpu().float() if hasattr(value, "detach") else value)
    except Exception as error:  # whatever other libraries raise for what is no array in memory
        raise InputError(f"{name} cannot be read as an array ({' '.join(str(error).split())})") from None
    if found.dtype.kind not in "biuf":
        raise InputError(f"{name} holds {found.dtype}; expected numbers")
    return found


def _floats(name: str, value: Any, axes: tuple[str, ...]) -> Float32[np.ndarray, "..."]:
    read = _read(name, value)
    if read.ndim != len(axes):
        hint = ", of one image: index its batch away" if read.ndim == len(axes) + 1 else ""
        raise InputError(f"{name} has shape {read.shape}; expected ({', '.join(axes)}){hint}")
    with np.errstate(over="ignore"):  # told below
        found = read.astype(np.float32)
    if not np.isfinite(found).all():
        raise InputError(f"{name} hold {np.count_nonzero(~np.isfinite(found)):,} values that are not finite in float32")
    return found


def _coefficients(value: Any, shape: tuple[int, ...]) -> Float32[np.ndarray, "N K"]:
    k = shape[0]
    read = _read("coefficients", value)
    if not read.size:
        return np.zeros((0, k), dtype=np.float32)
    found = _floats("coefficients", read, ("N", "K"))
    if found.shape[1] != k:
        hint = "; they are the last axis of these: np.moveaxis(prototypes, -1, 0)" if found.shape[1] == shape[2] else ""
        raise InputError(f"coefficients have shape {found.shape}; expected (N, {k}) for prototypes {shape}{hint}")
    return found


def _per_instance(name: str, value: Any, n: int, axes: tuple[str, ...], shape: tuple[int, ...]) -> Any:
    read = _read(name, value)
    found = np.zeros(shape) if n == read.size == 0 else _floats(name, read, axes)
    if found.shape != shape:
        raise InputError(f"{name} has shape {found.shape}; expected {shape} for {n} instances")
    return found.astype(np.float32)


def _boxes(value: Any, n: int, image_hw: tuple[int, int]) -> Float32[np.ndarray, "N 4"]:
    found: Float32[np.ndarray, "N 4"] = _per_instance("boxes", value, n, ("N", "4"), (n, 4))
    if (found[:, 2:] < found[:, :2]).any():
        row = int(np.flatnonzero((found[:, 2:] < found[:, :2]).any(axis=1))[0])
        raise InputError(f"boxes[{row}] is {found[row].tolist()}; expected x1, y1, x2, y2 with x1 <= x2 and y1 <= y2")
    if n and found.max() <= 1 < min(image_hw):
        raise InputError(f"boxes reach to {found.max():g} only; expected pixels of the image, {image_hw}, not shares")
    return found


def _shares(name: str, value: Any, n: int) -> Float32[np.ndarray, " N"]:
    found: Float32[np.ndarray, " N"] = _per_instance(name, value, n, ("N",), (n,))
    if ((found < 0) | (found > 1)).any():
        raise InputError(f"{name} go from {found.min():g} to {found.max():g}; expected 0 to 1")
    return found


def read_class_names(value: Any) -> dict[int, str]:
    """Return class names by class id, from a list or a mapping.

    Raises
    ------
    InputError
        If it is neither, or holds something that is no text.
    """
    found = dict(value) if isinstance(value, Mapping) else dict(enumerate(value))
    if isinstance(value, str) or not all(isinstance(name, str) for name in found.values()):
        raise InputError(f"names is {value!r}; expected a list of names, or a mapping from class ids")
    return found


def _classes(value: Any, n: int) -> Int64[np.ndarray, " N"]:
    found = _per_instance("classes", value, n, ("N",), (n,))
    if (found != np.rint(found)).any():
        raise InputError(f"classes are {found.tolist()}; expected whole numbers")
    return found.astype(np.int64)
