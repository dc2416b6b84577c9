"""From a file or a live object to a `Model`: opened, run on a plain input, and held against the known families."""

from __future__ import annotations

import os
import warnings
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from maskprism.core.masks import MaskRule, rule_named, rule_of_version
from maskprism.core.preprocessing import YOLO, Preprocessing, preprocessing_named
from maskprism.errors import InputError, ModelError, ModelWarning
from maskprism.io.class_names import placeholder
from maskprism.models.correction import Correction
from maskprism.models.families.detection import family_named, find_layout
from maskprism.models.families.family import Probe
from maskprism.models.families.rows import refuse_scores
from maskprism.models.input_size import input_hw
from maskprism.models.metadata import Metadata
from maskprism.models.model import Model, ModelSpec, input_tensor
from maskprism.models.names import Names, read_names
from maskprism.models.options import NO_MODEL, SAMPLE, SAMPLE_MODEL, Detections, Reading, with_keywords
from maskprism.models.runtimes import Runtime, fill_heap, open_runtime

if TYPE_CHECKING:
    from jaxtyping import Float32

    from maskprism.models.families.family import Family, Layout
    from maskprism.models.onnx.mask_branch import MaskBranch

    Floats = Float32[np.ndarray, "..."]

_ACCELERATOR_BATCH = 16


def load(
    source: Any = None,
    *,
    reading: Reading | None = None,
    detections: Detections | None = None,
    name: str | None = None,
    **options: Any,
) -> Model:
    """Open a segmentation model whose masks are sums of prototypes.

    Parameters
    ----------
    source
        `.onnx`, `.xml` (or the folder around it), `.tflite`, `.torchscript` or `.pt` file, a live `ultralytics.YOLO`, a
        YOLACT as an `nn.Module`, a MaskFormer or Mask2Former of transformers, or any
        `maskprism.models.runtimes.Runtime`. "sample" is the bundled demo model, which knows drawn shapes only (see
        docs/model_card.md); a file of that name is ``Path("sample")``.
    reading
        How the file is read. Beside names, `rule` and `preprocessing` may be a `MaskRule` and a `Preprocessing`,
        `imgsz` (height, width), `names` a list or mapping, `correction` a `Correction`. `layout="end2end"` runs the
        one-to-one head of a YOLO26 checkpoint that has both.
    detections
        Which detections are kept.
    name
        What results call the model. Default: the file's name, or the type of a live object.
    **options
        Fields of the two objects, for short: ``load("best.pt", imgsz=960, conf=0.4, classes=["person"])``.

    Returns
    -------
    Model

    Raises
    ------
    ModelError
        If the file cannot be read, or is no prototype-based segmentation model.
    InputError
        If no model is given, there is no such option, or one is out of range.
    MissingExtraError
        If the runtime's package is not installed.

    Warns
    -----
    ModelWarning
        If the input size was chosen here, or the same input gives other outputs when it is run again.

    Examples
    --------
    >>> import maskprism
    >>> model = maskprism.load("sample", conf=0.5)
    >>> model.spec.prototypes, model.keep.conf
    (32, 0.5)
    """
    if source is None:
        raise InputError(NO_MODEL)
    reading, detections = with_keywords(options, reading or Reading(), detections or Detections())
    if reading.threads is not None and (not isinstance(reading.threads, int) or reading.threads < 1):
        raise InputError(f"threads is {reading.threads!r}; expected a whole number of at least 1")
    forced = None if reading.layout is None else family_named(reading.layout)
    source = SAMPLE_MODEL if isinstance(source, str) and source == SAMPLE else source
    name = name or (Path(source).name if isinstance(source, str | os.PathLike) else type(source).__name__)
    correction = _correction(reading)
    device = "cpu" if reading.device is None else str(reading.device).lower()
    runtime = open_runtime(
        source,
        reading.runtime,
        device=device,
        precision=reading.precision,
        threads=reading.threads,
        end2end=None if reading.layout is None else reading.layout == "end2end",
    )
    metadata, takes = Metadata.parse(runtime.metadata, name), runtime.input
    if takes.channels not in (1, 3):
        raise ModelError(f"{name}: takes images of {takes.channels} channels; expected 3 (colour) or 1 (grey)")
    canvas_hw = input_hw(takes, reading.imgsz, metadata, name, forced or family_named("yolov8"))
    plain = _preprocessing(reading.preprocessing or YOLO, takes.channels, name)

    def reveal() -> tuple[Probe, MaskBranch] | None:
        opened = getattr(runtime, "revealed", lambda: None)()
        if opened is None:
            return None
        outputs, names = _run(opened[0], canvas_hw, plain, name, noise=True), opened[0].output_names
        return replace(probe, outputs=outputs, names=names, runtime=opened[0]), opened[1]

    probe = Probe(
        _run(runtime, canvas_hw, plain, name),
        canvas_hw,
        metadata,
        name,
        tuple(getattr(runtime, "output_names", ())),
        takes.channels_last,
        runtime,
        reveal,
    )
    layout, read = find_layout(probe, reading.layout)
    refuse_scores(layout.raw_scores(read.outputs, 0), layout.score_limits, f"{name}: ")
    family = family_named(layout.family)
    prepare = _preprocessing(reading.preprocessing or family.preprocessing, takes.channels, name)
    grid_hw = layout.grid_hw(read.shapes)
    names = _names(metadata, layout, name, reading.names)
    notes = layout.notes
    if not _is_repeatable(read, plain, noise=read is not probe):
        notes += (
            "the same input gave other outputs when it was run again: results change from run to run. Use another "
            "runtime or device, or export the model again",
        )
        warnings.warn(f"{name}: {notes[-1]}", ModelWarning, stacklevel=2)
    agnostic = bool(runtime.metadata.get("agnostic_nms")) and not detections.multi_label  # validation of YOLOE has none
    model = Model(
        runtime=read.runtime,
        layout=layout,
        spec=ModelSpec(
            name=name,
            layout=layout.family,
            runtime=runtime.name,
            input_hw=canvas_hw,
            rectangular=takes.height is None and takes.width is None and prepare.resize != "stretch",
            prototypes=layout.prototypes,
            grid_hw=grid_hw,
            stride=round(canvas_hw[0] / grid_hw[0]),
            names=names,
            rule=_rule(reading.rule, family, metadata),
            preprocessing=prepare,
            version=metadata.version,
            sha256=runtime.sha256,
            notes=notes,
            fixed_size=takes.height is not None and takes.width is not None,
        ),
        keep=detections.over(replace(family.keep, agnostic=agnostic), names),
        metadata=metadata,
        level_ends=layout.level_ends(layout.count(read.shapes), canvas_hw),
        batch=takes.batch or (1 if device == "cpu" else _ACCELERATOR_BATCH),
    ).with_correction(correction)
    from_file = correction is not reading.correction
    if correction is not None and from_file and correction.sha256 not in (None, model.spec.sha256):
        raise InputError(
            f"{Path(str(reading.correction)).name} was fitted to another model than {name}; fit one to this model, "
            "or, to use it all the same, pass Correction.read(...) itself"
        )
    return model


def _correction(reading: Reading) -> Correction | None:
    given = reading.correction
    return Correction.read(given) if isinstance(given, str | os.PathLike) else given


def _run(
    runtime: Runtime, canvas_hw: tuple[int, int], prepare: Preprocessing, name: str, *, noise: bool = False
) -> list[Floats]:
    """Return the outputs for a plain input, or for noise: files need not tell their shapes."""
    canvas = np.full((*canvas_hw, 3), prepare.padding_bgr, dtype=np.uint8)
    if noise:
        canvas = np.random.default_rng(0).integers(0, 256, canvas.shape, dtype=np.uint8)
    tensor = input_tensor(runtime.input, [canvas], [prepare.letterbox(canvas_hw, canvas_hw)], prepare)
    try:
        return runtime(tensor)
    except ModelError:
        raise
    except Exception as error:  # whatever the runtime raises when a model cannot run
        if isinstance(error, MemoryError) or "bad_alloc" in str(error):
            raise MemoryError(" ".join(str(error).split())) from None
        raise ModelError(
            f"{name}: the model does not run on a canvas of {canvas_hw[1]} x {canvas_hw[0]} pixels "
            f"({' '.join(str(error).split())})"
        ) from error


_LEFTOVERS = (np.nan, 1.0, 1e9, -1.0, 1e-3, -1e9)
"""What memory is filled with before a model is opened anew; with three values one process in 45 saw no difference."""


def _is_repeatable(probe: Probe, prepare: Preprocessing, *, noise: bool) -> bool:
    """Return whether the same input gives the same outputs when memory holds other values.

    A kernel that reads uninitialised memory gets the same leftovers again when the same input follows itself:
    every buffer is where it was. So another input runs in between, which changes what buffers hold, and the heap
    is filled, which changes what new allocations hold. A runtime that keeps its buffers for good opens the file
    anew, several times: each gets other memory while the ones before are still there.
    """
    _run(probe.runtime, probe.canvas_hw, prepare, probe.label, noise=not noise)
    fresh = getattr(probe.runtime, "fresh", None)
    others: list[Runtime] = []
    largest = max([3 * prod(probe.canvas_hw), *(output.size for output in probe.outputs)])
    for value in (np.nan,) if fresh is None else _LEFTOVERS:
        fill_heap(value, largest)
        others.append(probe.runtime if fresh is None else fresh())
        again = _run(others[-1], probe.canvas_hw, prepare, probe.label, noise=noise)
        if not all(np.array_equal(*pair, equal_nan=True) for pair in zip(probe.outputs, again, strict=True)):
            return False
    return True


def _names(metadata: Metadata, layout: Layout, name: str, given: Names | None) -> dict[int, str]:
    names = metadata.names if given is None else read_names(given)
    if names is None:
        return {} if layout.classes is None else {i: placeholder(i) for i in range(layout.classes)}
    if layout.classes is not None and len(names) != layout.classes:
        if given is not None:
            raise InputError(f"names: {len(names)} classes are named; {name} has {layout.classes}")
        raise ModelError(
            f"{name}: the metadata names {len(names)} classes, and the outputs read as {layout.family!r} hold "
            f"{layout.classes}; try another layout=, or export the model again"
        )
    return names


def _rule(rule: MaskRule | str | None, family: Family, metadata: Metadata) -> MaskRule:
    if rule is None:
        return _tuned(family.rule or rule_of_version(metadata.version), metadata)
    chosen = rule_named(rule)
    if chosen.objectness and not family.objectness:
        raise InputError(
            f"rule {chosen.name!r} multiplies coefficients by objectness, and layout {family.name!r} has none; "
            "use 'ultralytics-8.2', which is the same without it"
        )
    return chosen


def _tuned(stock: MaskRule, metadata: Metadata) -> MaskRule:
    """Return the rule with the crop margin and the threshold that `maskprism tune` wrote into the file, if it did."""
    if metadata.crop_margin is None or metadata.logit_threshold is None:
        return stock
    try:
        return replace(stock, crop_margin=metadata.crop_margin, logit_threshold=metadata.logit_threshold)
    except InputError as error:
        raise ModelError(f"the mask rule in the metadata: {error}") from None


def _preprocessing(given: Preprocessing | str, channels: int, name: str) -> Preprocessing:
    chosen = preprocessing_named(given)
    if channels == 1 and len(chosen.mean) == len(chosen.std) == 1:
        return replace(chosen, channels="grey")
    if channels != chosen.depth:
        raise InputError(
            f"preprocessing {chosen.name!r} makes {chosen.depth} channels; {name} takes images of {channels}"
        )
    return chosen
