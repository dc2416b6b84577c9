"""Raw outputs of edge runtimes, put together as the two tensors of a YOLO-seg export.

A head in pieces (RKNN, Hailo, ncnn, EdgeFirst) becomes one table of detections and one tensor of prototypes. Batch axes
that were squeezed away come back, flattened prototypes get their axes, integers become numbers by scale and zero point.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from maskprism._common.choices import RawLayout
from maskprism.core.masks import sigmoid
from maskprism.errors import InputError
from maskprism.models.families.unsupported import finished_masks

if TYPE_CHECKING:
    from jaxtyping import Float32

    Floats = Float32[np.ndarray, "..."]
    Size = tuple[int, int]

_BINS = 16
"""Of the distribution over distances to each side of a box (DFL)."""
_LEVELS = (8, 16, 32)
_STRIDES = (4, 2, 8)
"""Of prototypes, the usual one first."""


class RawTraits(NamedTuple):
    """What a runtime gives.

    Parameters
    ----------
    expected
        The tensors of a head with C classes and K prototypes, as text.
    pieces
        The tensors of each level of the pyramid in their order; empty where all levels are in one table, or in one
        table for each of boxes, classes and coefficients.
    channels_last
        Whether channels are the last axis of maps.
    class_logits
        Whether class scores of heads in pieces are given before their sigmoid.
    distances
        Whether boxes come as distributions over distances to their sides, where the shape leaves it open.
    """

    expected: str
    pieces: tuple[str, ...] = ()
    channels_last: bool = False
    class_logits: bool = False
    distances: bool = False


_TABLE = "one table (4 + C + K, candidates) and prototypes (K, h, w)"
RAW_LAYOUTS: dict[RawLayout, RawTraits] = {
    "rknn": RawTraits(
        "for each level boxes (64, h, w), classes (C, h, w), their sum (1, h, w) and coefficients (K, h, w), and "
        "prototypes (K, h, w)",
        ("boxes", "classes", "sum", "coefficients"),
    ),
    "hailo": RawTraits(
        "for each level boxes (h, w, 64), classes (h, w, C) and coefficients (h, w, K), and prototypes (h, w, K)",
        ("boxes", "classes", "coefficients"),
        channels_last=True,
    ),
    "ncnn": RawTraits(
        "a table (candidates, 64 + C), coefficients (candidates, K) and prototypes (K, h, w), or one table "
        "(4 + C + K, candidates) and prototypes",
        class_logits=True,
        distances=True,
    ),
    "coreml": RawTraits(_TABLE),
    "tensorrt": RawTraits(_TABLE),
    "deepstream": RawTraits(_TABLE),
    "edgefirst": RawTraits(
        "boxes (4, candidates), classes (C, candidates), coefficients (K, candidates) and prototypes (h, w, K)",
        channels_last=True,
    ),
}


class Assembled(NamedTuple):
    """Outputs in the form of a YOLO-seg export.

    Parameters
    ----------
    table
        (1, columns, candidates), or (1, rows, 6 + K) of a finished head.
    prototypes
        (1, K, h, w).
    canvas_hw
        (height, width) of the letterboxed input.
    """

    table: Float32[np.ndarray, "1 C A"]
    prototypes: Float32[np.ndarray, "1 K h w"]
    canvas_hw: Size


def assemble(
    outputs: Mapping[str, Any] | Sequence[Any],
    layout: RawLayout,
    *,
    scale: Any = None,
    zero_point: Any = None,
    canvas_hw: Size | None = None,
    n_classes: int | None = None,
    class_logits: bool | None = None,
) -> Assembled:
    """Put the raw outputs for one image together; see `maskprism.from_raw` for the parameters.

    Raises
    ------
    InputError
        For a layout that there is not, integers without scale and zero point, a batch of several images, or tensors
        that are not those of the layout.
    """
    if layout not in RAW_LAYOUTS:
        raise InputError(f"there is no layout {layout!r} of raw outputs; expected one of {', '.join(RAW_LAYOUTS)}")
    if canvas_hw is not None and min(canvas_hw) < 1:
        raise InputError(f"canvas_hw is {canvas_hw}; expected (height, width) of the letterboxed input")
    traits = RAW_LAYOUTS[layout]
    arrays = _without_batch(_dequantised(outputs, scale, zero_point))
    described = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
    told = f"layout {layout!r} expects {traits.expected}; came {described}"
    if reason := finished_masks([array.shape for array in arrays.values()], canvas_hw or (640, 640)):
        raise InputError(f"layout {layout!r}: {reason}")
    failures: list[_MismatchError] = []
    for candidate in _candidates(arrays, traits, canvas_hw):
        rest = {name: array for name, array in arrays.items() if name != candidate.name}
        try:
            table = _table(rest, candidate, traits, n_classes, class_logits)
        except _MismatchError as error:
            failures.append(error)
        else:
            return Assembled(table[None], np.ascontiguousarray(candidate.values)[None], candidate.canvas_hw)
    if not failures:
        flat = any(array.ndim < 3 for array in arrays.values())
        hint = ". Flat or flattened outputs need canvas_hw=(height, width) of the input" if flat else ""
        raise InputError(f"{told}: none of them holds prototypes{hint}")
    raise InputError(f"{told}: {max(failures, key=lambda failure: failure.n_fitting)}")


class _MismatchError(InputError):
    """Outputs do not go with a reading of the prototypes; `n_fitting` of them do."""

    def __init__(self, message: str, n_fitting: int) -> None:
        super().__init__(message)
        self.n_fitting = n_fitting


class _Prototypes(NamedTuple):
    name: str
    values: Float32[np.ndarray, "K h w"]
    canvas_hw: Size


def _dequantised(outputs: Any, scale: Any, zero_point: Any) -> dict[str, Floats]:
    items = outputs.items() if isinstance(outputs, Mapping) else enumerate(outputs)
    found: dict[str, Floats] = {}
    for number, (key, value) in enumerate(items):
        name = str(key) if isinstance(outputs, Mapping) else f"output {key}"
        array = np.asarray(value.detach().cpu().numpy() if hasattr(value, "detach") else value)
        if array.dtype.kind not in "fiu":
            raise InputError(f"{name} holds {array.dtype}; expected numbers")
        factor, zero = (
            _of_output(given, key, number, f"{word} of {name}")
            for word, given in (("scale", scale), ("zero_point", zero_point))
        )
        if array.dtype.kind == "f":
            if (isinstance(scale, Mapping | Sequence) and factor is not None) or not array.size:
                raise InputError(f"{name} holds {array.dtype} of shape {array.shape}; its scale belongs to integers")
            found[name] = array.astype(np.float32, copy=False)
        elif factor is None or zero is None:
            raise InputError(
                f"{name} holds {array.dtype}, without a scale and zero point: give scale= and zero_point=, a number, "
                "or one for each output, as a list or by name"
            )
        elif factor <= 0:
            raise InputError(f"scale of {name} is {factor!r}; expected a number above 0")
        else:
            found[name] = (array.astype(np.float32) - np.float32(zero)) * np.float32(factor)
    return found


def _of_output(given: Any, key: Any, number: int, what: str) -> float | None:
    """Scale or zero point of one output: by name, by number, or the same for all."""
    value = given
    if isinstance(given, Mapping):
        value = given.get(key)
    elif isinstance(given, Sequence) or np.ndim(given):
        if number >= len(given):
            raise InputError(f"there are {len(given)} scales or zero points, and more outputs; expected one for each")
        value = given[number]
    if value is None:
        return None
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise InputError(f"{what} is {value!r}; expected a number")
    return found


def _without_batch(arrays: dict[str, Floats]) -> dict[str, Floats]:
    """Return maps have three axes and tables two; outputs that are flat stay so."""
    sides = [array.shape[0] for array in arrays.values() if array.ndim > 1]
    if not (any(array.ndim > 3 for array in arrays.values()) or (sides and set(sides) == {1})):
        return arrays
    for name, array in arrays.items():
        if array.ndim > 4 or (array.ndim > 1 and array.shape[0] != 1):
            raise InputError(f"{name} has shape {array.shape}; expected the outputs of one image, a batch of 1")
    return {name: array[0] if array.ndim > 1 else array for name, array in arrays.items()}


def _candidates(arrays: Mapping[str, Floats], traits: RawTraits, canvas_hw: Size | None) -> Iterator[_Prototypes]:
    """Yield every reading of an output as prototypes, the likeliest first.

    The layout's own order of axes, the usual stride.

    Without the size of the input the stride is the usual one, and the largest grid comes first.
    """
    found: list[tuple[bool, int, _Prototypes]] = []
    for name, array in arrays.items():
        for last in (traits.channels_last, not traits.channels_last):
            for rank, values, canvas in _grids(array, last, canvas_hw):
                found.append((last != traits.channels_last, rank, _Prototypes(name, values, canvas)))
    return (prototypes for *_, prototypes in sorted(found, key=lambda entry: entry[:2]))


def _grids(array: Floats, last: bool, canvas_hw: Size | None) -> Iterator[tuple[int, Floats, Size]]:
    if array.ndim == 3 and canvas_hw is None:
        values = np.moveaxis(array, -1, 0) if last else array
        yield -values[0].size, values, (values.shape[1] * _STRIDES[0], values.shape[2] * _STRIDES[0])
    for rank, stride in enumerate(_STRIDES if canvas_hw else ()):
        assert canvas_hw is not None
        height, width = canvas_hw[0] // stride, canvas_hw[1] // stride
        k, rest = divmod(array.size, height * width)
        if rest or k < 2:
            continue
        shapes = [(height, width, k), (height * width, k)] if last else [(k, height, width), (k, height * width)]
        if array.shape in (*shapes, (array.size,)):
            values = np.moveaxis(array.reshape(shapes[0]), -1, 0) if last else array.reshape(shapes[0])
            yield rank, values, canvas_hw


def _table(
    arrays: Mapping[str, Floats],
    prototypes: _Prototypes,
    traits: RawTraits,
    n_classes: int | None,
    class_logits: bool | None,
) -> Floats:
    k, canvas_hw = len(prototypes.values), prototypes.canvas_hw
    cells = [(canvas_hw[0] // stride, canvas_hw[1] // stride) for stride in _LEVELS]
    if traits.pieces:
        columns = _levels(arrays, cells, traits, k, n_classes)
    else:
        count = sum(height * width for height, width in cells)
        tables = {name: one for name, array in arrays.items() if (one := _by_candidate(array, count)) is not None}
        if len(tables) != len(arrays) or not 1 <= len(tables) <= 3:
            if (
                len(arrays) == 1 and not traits.distances and not traits.channels_last
            ):  # of a head that leaves candidates out, or a finished one
                (table,) = arrays.values()
                if table.ndim == 2 and k + 4 < min(table.shape):
                    return table
            raise _MismatchError(
                f"{len(tables)} of {len(arrays)} outputs beside the prototypes ({k}, {prototypes.values.shape[1]}, "
                f"{prototypes.values.shape[2]}) have an axis of {count} candidates",
                len(tables),
            )
        if len(tables) == 1 and not traits.distances:
            return next(iter(tables.values()))
        columns = _tables(tables, traits, k, n_classes)
    boxes, classes, coefficients = columns
    in_pieces = len(boxes) == 4 * _BINS or len(arrays) > 1
    logits = (traits.class_logits and len(boxes) == 4 * _BINS) if class_logits is None else class_logits
    if logits and in_pieces:
        classes = sigmoid(classes)
    elif classes.size and (float(classes.min()) < -0.1 or float(classes.max()) > 1.1):
        raise _MismatchError(
            f"classes go from {float(classes.min()):.3g} to {float(classes.max()):.3g}; expected 0 to 1. If they are "
            "given before their sigmoid, say class_logits=True",
            len(arrays),
        )
    if traits.pieces or len(boxes) == 4 * _BINS:
        boxes = _boxes(boxes, cells)
    return np.concatenate([boxes, classes, coefficients])


def _by_candidate(array: Floats, count: int) -> Floats | None:
    """Return a table as (columns, candidates); None for another number of candidates."""
    if array.ndim == 1 and array.size and array.size % count == 0:
        return array.reshape(-1, count)
    if array.ndim != 2 or count not in array.shape:
        return None
    return array if array.shape[1] == count else array.T


def _levels(
    arrays: Mapping[str, Floats], cells: Sequence[Size], traits: RawTraits, k: int, n_classes: int | None
) -> tuple[Floats, Floats, Floats]:
    pieces, last = traits.pieces, _channels_last(arrays, cells, traits.channels_last)
    by_piece: dict[str, list[Floats]] = {piece: [] for piece in pieces}
    for stride, (height, width) in zip(_LEVELS, cells, strict=True):
        maps = [found for array in arrays.values() if (found := _map(array, height, width, last)) is not None]
        counts = [len(one) for one in maps]
        order = _assigned(counts, pieces, k, n_classes)
        if order is None:
            wanted = {"boxes": f"{4 * _BINS}", "classes": str(n_classes or "C"), "sum": "1", "coefficients": f"{k}"}
            listed = ", ".join(f"{piece} ({wanted[piece]}, {height}, {width})" for piece in pieces)
            missing = [piece for piece in pieces if not any(_fits(piece, n, k, n_classes) for n in counts)]
            what = f"{' and '.join(missing)} missing" if missing else "several have the same shape"
            raise _MismatchError(
                f"level of stride {stride}: expected {listed}; came channels {counts or 'none'} on that grid: {what}",
                sum(_map(array, *cell, last) is not None for array in arrays.values() for cell in cells),
            )
        for piece, index in zip(pieces, order, strict=True):
            by_piece[piece].append(maps[index].reshape(counts[index], -1))
    boxes, classes, coefficients = (by_piece[piece] for piece in ("boxes", "classes", "coefficients"))
    try:
        return np.concatenate(boxes, 1), np.concatenate(classes, 1), np.concatenate(coefficients, 1)
    except ValueError:
        counts = [len(one) for one in classes]
        raise _MismatchError(f"levels have {counts} classes; expected as many on each level", len(arrays)) from None


def _channels_last(arrays: Mapping[str, Floats], cells: Sequence[Size], default: bool) -> bool:
    """Return the order of axes of the maps that leave no choice, or that of the layout where they do not agree."""
    orders = set()
    for array in arrays.values():
        fits_last, fits_first = array.shape[:2] in cells, array.shape[1:] in cells
        if array.ndim == 3 and fits_last != fits_first:
            orders.add(fits_last)
    return orders.pop() if len(orders) == 1 else default


def _map(array: Floats, height: int, width: int, last: bool) -> Floats | None:
    """(channels, h, w) of what lies on a grid of a level; maps of one channel may have lost that axis.

    Where both orders of axes fit, as for 80 classes on a grid of 80 x 80, `last` says which one it is.
    """
    if array.shape == (height, width):
        return array[None]
    if array.ndim != 3:
        return None
    fits_last, fits_first = array.shape[:2] == (height, width), array.shape[1:] == (height, width)
    if fits_last and (last or not fits_first):
        return np.moveaxis(array, -1, 0)
    return array if fits_first else None


def _tables(
    tables: Mapping[str, Floats], traits: RawTraits, k: int, n_classes: int | None
) -> tuple[Floats, Floats, Floats]:
    """Boxes, classes and coefficients of tables of all levels."""
    values = list(tables.values())
    counts = [len(one) for one in values]
    if len(values) == 3:
        order = _assigned(counts, ("boxes", "classes", "coefficients"), k, n_classes)
        if order is not None:
            boxes, classes, coefficients = (values[index] for index in order)
            return boxes, classes, coefficients
    elif len(values) == 2 and k in counts:
        index = counts.index(k) if counts[0] == k else 1
        coefficients, joined = values[index], values[1 - index]
        if len(joined) > k and np.array_equal(joined[-k:], coefficients, equal_nan=True):
            joined = joined[:-k]  # some exports repeat them
        n_box = 4 * _BINS if n_classes is None and traits.distances else len(joined) - (n_classes or len(joined) - 4)
        if n_box in (4, 4 * _BINS) and len(joined) > n_box:
            return joined[:n_box], joined[n_box:], coefficients
    elif len(values) == 1:
        n_box = -1 if n_classes is None else counts[0] - k - n_classes
        if n_box in (4, 4 * _BINS):
            return values[0][:n_box], values[0][n_box:-k], values[0][-k:]
        if n_classes is None:
            raise _MismatchError(
                f"a table of {counts[0]} columns can hold boxes of 4 or {4 * _BINS} values; give names= of the classes",
                1,
            )
    raise _MismatchError(
        f"tables of {counts} columns are not boxes (4 or {4 * _BINS}), classes ({n_classes or 'C'}) and "
        f"coefficients ({k})",
        len(values),
    )


def _assigned(counts: Sequence[int], pieces: Sequence[str], k: int, n_classes: int | None) -> tuple[int, ...] | None:
    """Return which tensor is which piece: in the order given where that fits, else the only order that fits."""
    if len(counts) != len(pieces):
        return None
    orders = [
        order
        for order in itertools.permutations(range(len(counts)))
        if all(_fits(piece, counts[index], k, n_classes) for piece, index in zip(pieces, order, strict=True))
    ]
    return orders[0] if orders and (len(orders) == 1 or orders[0] == tuple(range(len(counts)))) else None


def _fits(piece: str, count: int, k: int, n_classes: int | None) -> bool:
    if piece == "boxes":
        return count in (4, 4 * _BINS)
    if piece == "classes":
        return n_classes in (None, count)
    return count == (1 if piece == "sum" else k)


def _boxes(boxes: Floats, cells: Sequence[Size]) -> Floats:
    """Centres and sizes on the letterboxed input, from distances to the sides in cells, or their distributions."""
    if len(boxes) == 4 * _BINS:
        spread = boxes.reshape(4, _BINS, -1)
        spread = np.exp(spread - spread.max(axis=1, keepdims=True))
        weights = np.arange(_BINS, dtype=np.float32)
        boxes = np.einsum("sbn,b->sn", spread / spread.sum(axis=1, keepdims=True), weights)
    centres, strides = [], []
    for stride, (height, width) in zip(_LEVELS, cells, strict=True):
        y, x = np.mgrid[:height, :width].reshape(2, -1).astype(np.float32) + np.float32(0.5)
        centres.append(np.stack([x, y]))
        strides.append(np.full(math.prod((height, width)), stride, dtype=np.float32))
    middle = np.concatenate(centres, axis=1)
    first, last = middle - boxes[:2], middle + boxes[2:]
    return np.concatenate([(first + last) / 2, last - first]) * np.concatenate(strides)
