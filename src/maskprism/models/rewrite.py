"""Write a segmentation model with fewer prototypes, or corrected coefficients, into an ONNX file (extra `reduce`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar

import numpy as np

from maskprism._common.files import write_atomically
from maskprism._common.text import first_line
from maskprism.errors import ModelError
from maskprism.models.onnx.file import read_onnx
from maskprism.models.runtimes.onnx import OnnxRuntime

if TYPE_CHECKING:
    from jaxtyping import Float, Float32
    from onnx import ModelProto

    from maskprism.models import Model
    from maskprism.models.correction import Correction
    from maskprism.models.onnx.graph import ChannelSurgery

    Map = Float[np.ndarray, "M K"]

Done = TypeVar("Done")
_TOLERANCE, _HALF_TOLERANCE = 1e-3, 3e-2
"""Largest deviation from what the new file should compute, as a share of the largest value."""


@dataclass(frozen=True)
class Rewritten:
    """Where the two maps went: folded into convolutions that were there, or appended as nodes."""

    prototypes: Literal["folded", "appended"]
    coefficients: Literal["folded", "appended"]


@dataclass(frozen=True)
class Corrected:
    """Where a correction went: folded into convolutions that were there, or appended as nodes."""

    coefficients: Literal["folded", "appended"]


class Parts(NamedTuple):
    """What a model gives, channels last: all columns of its rows before the coefficients, those, and prototypes."""

    others: Float32[np.ndarray, "B N C"]
    coefficients: Float32[np.ndarray, "B N K"]
    prototypes: Float32[np.ndarray, "B h w K"]


def write_reduced(
    model: Model,
    source: Path,
    target: Path,
    prototype_map: Map,
    coefficient_map: Map,
    notes: Mapping[str, str] | None = None,
) -> Rewritten:
    """Write the model of the file `source`, opened as `model`, with M prototypes in the place of K.

    New prototypes are prototype_map @ prototypes, new coefficients coefficient_map @ coefficients, both maps
    `[M, K]`. Metadata (with `notes` added), names, input, number formats and free axes stay unchanged. The new
    file is run against the old one before it gets its name.

    Raises
    ------
    MissingExtraError
        Without the package onnx.
    ModelError
        For a file that is no ONNX or cannot be rewritten.
    MaskprismError
        If `target` cannot be written.
    """
    layout = model.layout

    def edit(graph: ChannelSurgery) -> Rewritten:
        rows, prototypes = graph.outputs[layout.rows_output], graph.outputs[layout.prototypes_output]
        return Rewritten(
            prototypes=graph.map_output(prototypes, 3 if layout.prototypes_last else 1, prototype_map),
            coefficients=graph.map_last_channels(rows, 2 if layout.channels_last else 1, coefficient_map),
        )

    def expected(full: Parts) -> Parts:
        return Parts(
            full.others,
            full.coefficients @ coefficient_map.T.astype(np.float32),
            full.prototypes @ prototype_map.T.astype(np.float32),
        )

    return _rewritten(model, source, target, edit, expected, notes or {}, len(prototype_map))


def write_corrected(
    model: Model, source: Path, target: Path, correction: Correction, notes: Mapping[str, str] | None = None
) -> Corrected:
    """Write the model of the file `source`, opened as `model`, with its mask coefficients corrected.

    Of an ONNX file, the correction is folded into the convolutions that make the coefficients, level by level, where
    the graph allows it, and the file costs what the old one did; `notes` are added to its metadata. A `.pt` stays a
    `.pt`, with those weights changed and nothing else. Boxes, scores, classes and prototypes stay equal to the last
    bit; the new file is run against the old one before it gets its name.

    Raises
    ------
    ModelError
        For other files, which cannot be rewritten, and for models that the correction cannot be written into.
    MissingExtraError
        Without the package onnx or Ultralytics.
    MaskprismError
        If `target` cannot be written.
    """
    layout = model.layout
    model = model.with_correction(correction)

    def expected(full: Parts) -> Parts:
        batch, count, k = full.coefficients.shape
        ends = model.level_ends
        levels = None if ends is None else np.tile(np.searchsorted(ends, np.arange(count), side="right"), batch)
        changed = correction.coefficients(full.coefficients.reshape(-1, k), levels)
        return full._replace(coefficients=changed.reshape(full.coefficients.shape))

    if source.suffix.lower() == ".pt":
        return _corrected_checkpoint(model, source, target, correction, expected)

    def edit(graph: ChannelSurgery) -> Corrected:
        place = graph.correct_last_channels(
            graph.outputs[layout.rows_output],
            2 if layout.channels_last else 1,
            list(correction.mixing),
            list(correction.offsets),
            model.level_ends,
        )
        if place is None:
            raise ModelError(
                f"{source}: the levels of its coefficients cannot be distinguished in the model; fit one correction "
                "for all levels"
            )
        return Corrected(place)

    return _rewritten(model, source, target, edit, expected, notes or {}, correction.prototypes, same=True)


def _corrected_checkpoint(
    model: Model, source: Path, target: Path, correction: Correction, expected: Callable[[Parts], Parts]
) -> Corrected:
    from maskprism.models.runtimes.ultralytics import UltralyticsRuntime, write_corrected_checkpoint

    k, batch, end2end = correction.prototypes, noise_batch(model), model.layout.family == "end2end"

    def parts_of(file: Path) -> Parts:  # on the CPU both, wherever the model is: another device rounds otherwise
        return _parts(model, UltralyticsRuntime.of_file(file, device="cpu", precision="f32", end2end=end2end)(batch), k)

    def write(partial: Path) -> None:
        write_corrected_checkpoint(source, partial, correction.mixing, correction.offsets, end2end=end2end)
        # Weights are kept in half precision, as a rule, and so are the new ones.
        wrong = _disagreement(expected(parts_of(source)), parts_of(partial), _HALF_TOLERANCE, same=True)
        if wrong is not None:
            raise ModelError(f"{source}: cannot be rewritten: {wrong}")

    write_atomically(target, write)
    return Corrected("folded")


def _rewritten(
    model: Model,
    source: Path,
    target: Path,
    edit: Callable[[ChannelSurgery], Done],
    expected: Callable[[Parts], Parts],
    notes: Mapping[str, str],
    prototypes: int,
    *,
    same: bool = False,
) -> Done:
    """Write what `edit` makes of the model if it computes what is expected: with maps folded, or else appended.

    Parameters
    ----------
    prototypes
        How many the new file has.
    same
        Whether all but the coefficients must be equal to the last bit.
    """
    check_rewritable(model)
    original = read_onnx(source)
    from maskprism.models.onnx.graph import ChannelSurgery, is_half

    def outputs_of(file: Path) -> list[Float32[np.ndarray, "..."]]:
        # One thread for both: sums in another order fall on the other side of a step of int8 now and then.
        return OnnxRuntime(file, device="cpu", precision="f32", threads=1)(batch)

    tolerance = _HALF_TOLERANCE if is_half(original) else _TOLERANCE
    batch = noise_batch(model)
    wanted = expected(_parts(model, outputs_of(source), model.layout.prototypes))
    done: list[Done] = []

    def write(partial: Path) -> None:
        wrong: str | None = None
        for fold in (True, False):
            graph = ChannelSurgery(original, fold=fold)
            done[:] = [edit(graph)]
            _save(graph.finish(notes), partial, source)
            wrong = _disagreement(wanted, _parts(model, outputs_of(partial), prototypes), tolerance, same)
            if wrong is None:
                return
        raise ModelError(f"{source}: cannot be rewritten: {wrong}")

    write_atomically(target, write)
    return done[0]


def check_rewritable(model: Model) -> None:
    """Raise ModelError for a model whose coefficients or prototypes are no outputs of its file."""
    if not model.family.rewritable:
        raise ModelError(
            f"{model.spec.name}: holds finished masks, whose coefficients and prototypes are inside the file; it "
            "cannot be rewritten. Expected a model whose outputs are coefficients and prototypes"
        )


def noise_batch(model: Model) -> Float32[np.ndarray, "B ..."]:
    """Return a canvas of noise, always the same, as often as the model takes it at once."""
    takes, (height, width) = model.runtime.input, model.spec.input_hw
    sides = (height, width, takes.channels) if takes.channels_last else (takes.channels, height, width)
    return np.random.default_rng(0).random((takes.batch or 1, *sides), dtype=np.float32)


def _save(model: ModelProto, path: Path, source: Path) -> None:
    import onnx

    try:
        onnx.checker.check_model(model)
        path.write_bytes(model.SerializeToString())
    except (onnx.checker.ValidationError, ValueError) as error:  # ValueError: over the 2 GB of protobuf
        raise ModelError(f"{source}: the rewritten model is not valid ({first_line(error)})") from None


def _parts(model: Model, outputs: list[Float32[np.ndarray, "..."]], channels: int) -> Parts:
    layout = model.layout
    rows = np.moveaxis(outputs[layout.rows_output], 2 if layout.channels_last else 1, -1)
    prototypes = np.moveaxis(outputs[layout.prototypes_output], 3 if layout.prototypes_last else 1, -1)
    return Parts(rows[..., :-channels], rows[..., -channels:], prototypes)


def _disagreement(expected: Parts, found: Parts, tolerance: float, same: bool) -> str | None:
    """Return what the new file computes other than it should, on a canvas of noise; None where it agrees."""
    for name, want, got in zip(("boxes", "coefficients", "prototypes"), expected, found, strict=True):
        if want.shape != got.shape:
            return f"{name} of the new model have shape {got.shape} instead of {want.shape}"
        off, size = float(np.abs(want - got).max(initial=0)), float(np.abs(want).max(initial=0))
        allowed = 0.0 if same and name != "coefficients" else tolerance * max(size, 1e-3)
        if not off <= allowed:
            return f"{name} of the new model are off by up to {off:.3g} where the largest is {size:.3g}"
    return None
