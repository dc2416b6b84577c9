"""Models: a runtime (how tensors are computed) plus a layout (how tensors are read).

`load` opens one; `Model.predict` turns images into `Prediction`s.
"""

from __future__ import annotations

import copy
import operator
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex, overload

import numpy as np

from maskprism._common.choices import Family, Precision, RuntimeName
from maskprism._common.lazy import lazy_submodules
from maskprism._common.text import counted
from maskprism.core.masks import MaskRule, rule_named, rule_of_version
from maskprism.core.prediction import Prediction
from maskprism.core.preprocessing import YOLO, Preprocessing, preprocessing_named
from maskprism.errors import InputError, ModelError, ModelWarning
from maskprism.io.class_names import placeholder
from maskprism.io.images import read_image, source_name
from maskprism.models.correction import Correction
from maskprism.models.families.detection import find_layout
from maskprism.models.families.query import find_queries, has_finished_masks
from maskprism.models.families.rows import (
    EXPORT_IN_SINGLE_PRECISION,
    Thresholds,
    refuse_broken_prototypes,
    refuse_scores,
)
from maskprism.models.families.yolo import FAMILIES, Layout
from maskprism.models.metadata import MAX_SIDE, Metadata
from maskprism.models.names import Names, read_names
from maskprism.models.runtimes import Runtime, fill_heap, open_runtime

if TYPE_CHECKING:
    from jaxtyping import Float32, UInt8

    from maskprism.core.geometry import Letterbox
    from maskprism.io.images import ImageLike
    from maskprism.models.onnx.mask_branch import MaskBranch

SAMPLE = "sample"
"""What the bundled demo model is called in `load` and behind `--model`."""
if not TYPE_CHECKING:  # type checkers shall know the names that are here
    __getattr__, __dir__ = lazy_submodules(__name__)

SAMPLE_MODEL = Path(__file__).parents[1] / "data" / "sample.onnx"
"""Its file. It knows the shapes of `maskprism.datasets.scenes`, and nothing else."""
NO_MODEL = (
    'no model is given; expected a file, such as --model best.pt or maskprism.load("best.pt"), or the bundled demo '
    'model, which knows drawn shapes only: --model sample or maskprism.load("sample")'
)
_ACCELERATOR_BATCH = 16


@dataclass(frozen=True)
class ModelSpec:
    """What a model is, as far as masks are concerned.

    input_hw: (height, width) of the canvas; with `rectangular` the largest one, which is cut to
        the smallest rectangle around each image.
    grid_hw: (height, width) of the prototypes for the full canvas.
    stride: canvas pixels per prototype cell.
    preprocessing: what becomes of an image before the network sees it.
    correction: fingerprint of the correction that its mask coefficients are given; None for none.
    notes: what a reader should know of how the outputs are read, one sentence each.
    """

    name: str
    layout: Family
    runtime: str
    input_hw: tuple[int, int]
    rectangular: bool
    prototypes: int
    grid_hw: tuple[int, int]
    stride: int
    names: Mapping[int, str]
    rule: MaskRule
    preprocessing: Preprocessing
    version: str | None
    sha256: str
    correction: str | None = None
    notes: tuple[str, ...] = ()


class Model:
    """A network that can be asked about images.

    With `repeat` it is run again on the same input, and a `ModelWarning` says so if the outputs differ.
    """

    def __init__(
        self,
        runtime: Runtime,
        *,
        name: str,
        layout: Family | None = None,
        rule: MaskRule | str | None = None,
        preprocessing: Preprocessing | str | None = None,
        imgsz: int | tuple[int, int] | None = None,
        keep: Thresholds | None = None,
        batch: int = 1,
        names: Names | None = None,
        correction: Correction | None = None,
        repeat: bool = False,
    ) -> None:
        self.runtime = runtime
        metadata = Metadata.parse(runtime.metadata, name)
        if runtime.input.channels not in (1, 3):
            raise ModelError(
                f"{name}: takes images of {runtime.input.channels} channels; expected 3 (colour) or 1 (grey)"
            )
        canvas_hw = _canvas(runtime, imgsz, metadata, name, layout)
        self.batch = runtime.input.batch or batch
        self._metadata = metadata
        channels = runtime.input.channels
        plain = _preprocessing(preprocessing or YOLO, channels, name)
        outputs = self._probe(canvas_hw, plain, name)
        self.layout: Layout
        finished = layout in (None, "query") and has_finished_masks([output.shape for output in outputs], canvas_hw)
        if finished and (opened := _revealed(runtime)) is not None:
            self.runtime, branch = opened
            outputs = self._probe(canvas_hw, plain, name, noise=True)
            self.layout = find_queries(outputs, opened[0].output_names, branch, name)
        else:
            self.layout = find_layout(
                outputs,
                tuple(getattr(runtime, "output_names", ())),
                canvas_hw,
                metadata,
                name,
                layout,
                images_last=runtime.input.channels_last,
            )
        refuse_scores(self.layout.raw_scores(outputs, 0), self.layout.score_limits, f"{name}: ")
        shapes = [output.shape for output in outputs]
        family = FAMILIES[self.layout.family]
        self.keep = keep or family.keep
        grid_hw = self.layout.grid_hw(shapes)
        prepare = _preprocessing(preprocessing or family.preprocessing, channels, name)
        self.spec = ModelSpec(
            name=name,
            layout=self.layout.family,
            runtime=runtime.name,
            input_hw=canvas_hw,
            rectangular=runtime.input.height is None and runtime.input.width is None and prepare.resize != "stretch",
            prototypes=self.layout.prototypes,
            grid_hw=grid_hw,
            stride=round(canvas_hw[0] / grid_hw[0]),
            names=_names(metadata, self.layout, name, names),
            rule=_rule(rule, self.layout, metadata),
            preprocessing=prepare,
            version=metadata.version,
            sha256=runtime.sha256,
            notes=self.layout.notes,
        )
        if repeat and (difference := self._repeated(outputs, canvas_hw, plain, noise=self.runtime is not runtime)):
            warnings.warn(f"{name}: {difference}", ModelWarning, stacklevel=3)
            self.spec = replace(self.spec, notes=(*self.spec.notes, difference))
        _check_classes(self.keep, self.spec)
        self.level_ends = self.layout.level_ends(self.layout.count(shapes), canvas_hw)
        self._correct(correction)

    def __repr__(self) -> str:
        spec = self.spec
        return (
            f"Model({spec.name!r}, layout {spec.layout!r}, {spec.runtime}, "
            f"{spec.prototypes} prototypes of {spec.grid_hw[0]}x{spec.grid_hw[1]})"
        )

    @overload
    def predict(self, images: list[ImageLike] | tuple[ImageLike, ...]) -> list[Prediction]: ...
    @overload
    def predict(self, images: ImageLike) -> Prediction: ...
    def predict(self, images: Any) -> Prediction | list[Prediction]:
        """What the network says about one image, or about each of a list.

        An image is a path, a PIL image or an HWC uint8 array in BGR. Results do not depend on
        how images are grouped. Raises ImageError for one that cannot be read.
        """
        if not isinstance(images, list | tuple):
            return self._predict_batch([images])[0]
        chunks = (images[i : i + self.batch] for i in range(0, len(images), self.batch))
        return [prediction for chunk in chunks for prediction in self._predict_batch(chunk)]

    def predict_under(self, image: ImageLike, thresholds: Sequence[Thresholds]) -> list[Prediction]:
        """What the network says about one image under each of these thresholds; it runs once."""
        models = [self.with_thresholds(keep) for keep in thresholds]
        return self._predict_batch([image], models)

    def predict_untuned(self, image: ImageLike) -> tuple[Prediction, Float32[np.ndarray, "N K"] | None]:
        """What `predict` says, and its coefficients as they were before the correction; None without a correction."""
        plain = self.with_correction(None).predict(image)
        return (plain, None) if self.correction is None else (self.correction.apply(plain), plain.coefficients)

    def letterbox(self, image_hw: tuple[int, int]) -> Letterbox:
        """How an image of (height, width) lies on the canvas that the network sees."""
        stride = (self._metadata.stride or FAMILIES[self.spec.layout].multiple) if self.spec.rectangular else None
        return self.spec.preprocessing.letterbox(image_hw, self.spec.input_hw, rectangle_stride=stride)

    def on_canvas(self, canvas_hw: tuple[int, int], *, rectangular: bool = False) -> Model:
        """The same network on a canvas of (height, width), nothing loaded again.

        The whole canvas is used for every image, as an export of a fixed size does, or with
        `rectangular` the smallest rectangle of it. Raises InputError where the network takes
        another size only.
        """
        spec, takes = self.spec, self.runtime.input
        canvas_hw = _canvas(self.runtime, canvas_hw, self._metadata, spec.name, spec.layout)
        if rectangular and (takes.height or takes.width):
            raise InputError(f"{spec.name} takes one canvas only; it cannot be cut to a rectangle around images")
        changed = copy.copy(self)
        grid_hw = (-(-canvas_hw[0] // spec.stride), -(-canvas_hw[1] // spec.stride))
        changed.spec = replace(spec, input_hw=canvas_hw, grid_hw=grid_hw, rectangular=rectangular)
        return changed

    def with_names(self, names: Mapping[int, str]) -> Model:
        """The same network with other class names, nothing loaded again."""
        changed = copy.copy(self)
        changed.spec = replace(self.spec, names=dict(names))
        return changed

    def with_thresholds(self, keep: Thresholds) -> Model:
        """The same network that keeps other detections, nothing loaded again."""
        _check_classes(keep, self.spec)
        changed = copy.copy(self)
        changed.keep = keep
        return changed

    def with_correction(self, correction: Correction | None) -> Model:
        """The same network with its mask coefficients corrected, or as they are, nothing loaded again.

        Raises InputError for a correction of another number of coefficients or levels.
        """
        changed = copy.copy(self)
        changed._correct(correction)
        return changed

    @property
    def grey(self) -> bool:
        """Whether it takes one channel: files are then decoded to grey, as Ultralytics reads them for it."""
        return self.spec.preprocessing.channels == "grey"

    @property
    def levels(self) -> int:
        """How many levels of the pyramid its rows tell apart; 1 where they tell none."""
        return len(self.level_ends or (1,))

    def _correct(self, correction: Correction | None) -> None:
        k = self.spec.prototypes
        if correction is not None and (correction.prototypes != k or correction.levels not in (1, self.levels)):
            raise InputError(
                f"the correction is for {correction.prototypes} coefficients on {counted(correction.levels, 'level')}; "
                f"{self.spec.name} has {k} on {counted(self.levels, 'level')}: fit one to this network"
            )
        self.correction = correction
        self.spec = replace(self.spec, correction=None if correction is None else correction.fingerprint)

    def _predict_batch(self, images: Sequence[ImageLike], readers: Sequence[Model] = ()) -> list[Prediction]:
        """Of every image what each reader makes of the outputs; this model alone unless readers are given."""
        readers = readers or [self]
        decoded = [read_image(image, grey=self.grey) for image in images]
        prepare = self.spec.preprocessing
        letterboxes = [self.letterbox((one.shape[0], one.shape[1])) for one in decoded]
        results: dict[int, list[Prediction]] = {}
        for canvas_hw in dict.fromkeys(box.canvas_hw for box in letterboxes):
            members = [i for i, box in enumerate(letterboxes) if box.canvas_hw == canvas_hw]
            canvases = [prepare.exact_canvas(decoded[i], letterboxes[i]) for i in members]
            outputs = self.runtime(self._stack(canvases, [letterboxes[i] for i in members], prepare))
            for position, i in enumerate(members):
                name = source_name(images[i])
                results[i] = [reader._read(outputs, position, letterboxes[i], name) for reader in readers]
        return [prediction for i in range(len(images)) for prediction in results[i]]

    def _stack(
        self, canvases: list[UInt8[np.ndarray, "H W 3"]], letterboxes: list[Letterbox], prepare: Preprocessing
    ) -> Float32[np.ndarray, "B ..."]:
        """Canvases as the tensor that the network takes, filled up where the batch size is fixed."""
        takes = self.runtime.input
        missing = (takes.batch or len(canvases)) - len(canvases)
        canvases, letterboxes = canvases + canvases[:1] * missing, letterboxes + letterboxes[:1] * missing
        return prepare.tensor(canvases, letterboxes, channels_last=takes.channels_last)

    def _read(
        self,
        outputs: list[Float32[np.ndarray, "..."]],
        index: int,
        letterbox: Letterbox,
        source: str | None,
    ) -> Prediction:
        prototypes = self.layout.read_prototypes(outputs, index)
        refuse_broken_prototypes(prototypes)
        refuse_scores(self.layout.raw_scores(outputs, index), self.layout.score_limits)
        rows = self.layout.read_rows(outputs, index, letterbox.canvas_hw, self.keep)
        if rows.n_not_finite:
            left_out = f"{counted(rows.n_not_finite, 'detection')} left out: NaN or infinity"
            if not len(rows.scores):
                raise ModelError(f"{left_out}, and there are no others; {EXPORT_IN_SINGLE_PRECISION}")
            warnings.warn(f"{source or 'image'}: {left_out}", ModelWarning, stacklevel=4)
        found = Prediction(
            canvas_boxes=rows.boxes,
            scores=np.minimum(rows.scores, np.float32(self.layout.score_limits[1])),
            classes=rows.classes,
            coefficients=rows.coefficients,
            prototypes=prototypes,
            letterbox=letterbox.with_grid((prototypes.shape[1], prototypes.shape[2])),
            rule=self.spec.rule,
            names=self.spec.names,
            objectness=rows.objectness,
            source=source,
            levels=rows.levels,
            preprocessing=self.spec.preprocessing,
        )
        return found if self.correction is None else self.correction.apply(found)

    def _repeated(
        self,
        outputs: list[Float32[np.ndarray, "..."]],
        canvas_hw: tuple[int, int],
        prepare: Preprocessing,
        *,
        noise: bool,
    ) -> str | None:
        """How the outputs of the same input differ when memory holds other values; None where they are equal.

        A kernel that reads memory which nobody wrote gets the same leftovers again when the same input follows itself:
        every buffer is where it was. So another input runs in between, which changes what buffers hold, and the heap
        is filled, which changes what new allocations hold. A runtime that keeps its buffers for good opens the file
        anew, several times: each gets other memory while the ones before are still there.
        """
        name = self.spec.name
        self._probe(canvas_hw, prepare, name, noise=not noise)
        fresh = getattr(self.runtime, "fresh", None)
        others: list[Model] = []
        for value in (np.nan,) if fresh is None else (np.nan, 1.0, 1e9):
            fill_heap(value)
            others.append(copy.copy(self))
            others[-1].runtime = self.runtime if fresh is None else fresh()
            pairs = zip(outputs, others[-1]._probe(canvas_hw, prepare, name, noise=noise), strict=True)
            if not all(np.array_equal(*pair, equal_nan=True) for pair in pairs):
                break
        else:
            return None
        return (
            "the same input gave other outputs when it was run again: results change from run to run. Use another "
            "runtime or device, or export the model again"
        )

    def _probe(
        self, canvas_hw: tuple[int, int], prepare: Preprocessing, name: str, *, noise: bool = False
    ) -> list[Float32[np.ndarray, "..."]]:
        """The outputs for a plain canvas, or for noise: files need not tell their shapes."""
        canvas = np.full((*canvas_hw, 3), prepare.padding_bgr, dtype=np.uint8)
        if noise:
            canvas = np.random.default_rng(0).integers(0, 256, canvas.shape, dtype=np.uint8)
        tensor = self._stack([canvas], [prepare.letterbox(canvas_hw, canvas_hw)], prepare)
        try:
            return self.runtime(tensor)
        except ModelError:
            raise
        except Exception as error:  # whatever the runtime raises when a network cannot run
            raise ModelError(
                f"{name}: the network does not run on a canvas of {canvas_hw[1]} x {canvas_hw[0]} pixels "
                f"({' '.join(str(error).split())})"
            ) from error


def load(
    model: Any = None,
    *,
    runtime: RuntimeName | None = None,
    layout: Family | None = None,
    rule: MaskRule | str | None = None,
    preprocessing: Preprocessing | str | None = None,
    imgsz: int | tuple[int, int] | None = None,
    conf: float | None = None,
    iou: float | None = None,
    max_det: int | None = None,
    classes: Iterable[int] | None = None,
    multi_label: bool = False,
    agnostic: bool | None = None,
    names: Names | None = None,
    device: str | int | None = None,
    precision: Precision = "f32",
    threads: int | None = None,
    correction: Correction | str | os.PathLike[str] | None = None,
) -> Model:
    """Open a segmentation model whose masks are sums of prototypes.

    Parameters
    ----------
    model
        `.onnx`, `.xml` (or the folder around it), `.tflite`, `.torchscript` or `.pt` file, a live `ultralytics.YOLO`, a
        YOLACT as an `nn.Module`, a MaskFormer or Mask2Former of transformers, or any
        `maskprism.models.runtimes.Runtime`. "sample" is the bundled demo model, which knows drawn shapes only (see
        docs/model_card.md); a file of that name is ``Path("sample")``.
    runtime
        by the file's suffix unless given; `.onnx` also runs with "openvino".
    layout
        "yolov5", "yolov8", "end2end", "yolact" or "query"; found from shapes and metadata unless given. Of a
        YOLO26 checkpoint with both heads, "end2end" runs the one-to-one head.
    rule
        a `MaskRule` or the name of a preset; by the version in the metadata unless given.
    preprocessing
        a `Preprocessing` or the name of a preset; that of the layout's family unless given.
    imgsz
        canvas side or (height, width), for networks that take more than one. Unless given, files that take any size get
        640 (YOLACT: 550), as Ultralytics has it, whatever size they were exported with; `.pt` files get the size that
        they were trained with.
    conf, iou, max_det, classes
        which detections are kept; unless given, those that the family's own tools keep: above 0.25, 0.7 and 300 for
        YOLO, 0.15, 0.5 and 100 for YOLACT, 0.5 and 100 for queries.
    multi_label
        a box counts for every class above `conf`, as in Ultralytics' validation, not only for its best.
    agnostic
        a box falls to a better one of any class, not only of its own; unless given, as YOLOE's own predict has it for a
        YOLOE in PyTorch, and not for others.
    names
        of the classes, for a model that has none or wrong ones: a list or mapping, a data.yaml, a text file with a
        name per line, a COCO json, or another model file.
    device
        "cpu" unless given; "cuda", "cuda:1" or 1, or a device of the runtime.
    precision
        "f32", or with OpenVINO "bf16" or "f16".
    threads
        threads of one network call, where the runtime can be told.
    correction
        of mask coefficients: a `Correction`, or a `.json` file that `maskprism tune` wrote for this network.

    Raises
    ------
    ModelError
        the file cannot be read, or is no prototype-based segmentation model.
    InputError
        no model is given, or an argument is out of range.
    MissingExtraError
        the runtime's package is not installed.

    Warns
    -----
    ModelWarning
        the input size was chosen here, or the same input gives other outputs when it is run again.
    """
    if model is None:
        raise InputError(NO_MODEL)
    model = SAMPLE_MODEL if isinstance(model, str) and model == SAMPLE else model
    device = "cpu" if device is None else str(device).lower()
    if threads is not None and (not isinstance(threads, int) or threads < 1):
        raise InputError(f"threads is {threads!r}; expected a whole number of at least 1")
    name = Path(model).name if isinstance(model, str | Path) else type(model).__name__
    given = "" if correction is None or isinstance(correction, Correction) else Path(correction).name
    correction = Correction.read(correction) if isinstance(correction, str | os.PathLike) else correction
    opened = Model(
        open_runtime(
            model,
            runtime,
            device=device,
            precision=precision,
            threads=threads,
            end2end=None if layout is None else layout == "end2end",
        ),
        name=name,
        layout=layout,
        rule=rule,
        preprocessing=preprocessing,
        imgsz=imgsz,
        batch=1 if device == "cpu" else _ACCELERATOR_BATCH,
        names=names,
        correction=correction,
        repeat=True,
    )
    chosen: dict[str, Any] = {
        "conf": conf,
        "iou": iou,
        "max_det": max_det,
        "classes": None if classes is None else _class_ids(classes),
    }
    given_ones = {key: value for key, value in chosen.items() if value is not None}
    if agnostic is None:  # validation of YOLOE suppresses by class, as that of others
        agnostic = bool(opened.runtime.metadata.get("agnostic_nms")) and not multi_label
    opened = opened.with_thresholds(replace(opened.keep, **given_ones, multi_label=multi_label, agnostic=agnostic))
    if given and correction is not None and correction.sha256 not in (None, opened.spec.sha256):
        raise InputError(
            f"{given} was fitted to another network than {name}; fit one to this network, or, to use it all the same, "
            "pass Correction.read(...) itself"
        )
    return opened


def _revealed(runtime: Runtime) -> tuple[Any, MaskBranch] | None:
    """The same network with the factors of its finished masks as outputs, where the runtime can show them."""
    reveal = getattr(runtime, "revealed", None)
    return None if reveal is None else reveal()


def _canvas(
    runtime: Runtime, imgsz: int | tuple[int, int] | None, metadata: Metadata, name: str, layout: Family | None
) -> tuple[int, int]:
    traits = FAMILIES.get(layout or "yolov8", FAMILIES["yolov8"])  # an unknown one is refused with the outputs
    fixed = (runtime.input.height, runtime.input.width)
    wanted = None if imgsz is None else _height_width(imgsz)
    if wanted is not None and any(side not in (None, asked) for side, asked in zip(fixed, wanted, strict=True)):
        raise InputError(
            f"imgsz is {wanted[0]} x {wanted[1]}; {name} takes exactly {fixed[0] or 'any'} x {fixed[1] or 'any'} "
            "(height x width)"
        )
    own = runtime.input.default_hw
    if own is None and fixed != (None, None):  # one side may vary at most: the file says what it was made for
        own = metadata.imgsz
    height, width = wanted or own or (traits.side, traits.side)
    stride = metadata.stride or traits.multiple
    if (fixed[0] is None and height < stride) or (fixed[1] is None and width < stride):
        raise InputError(f"imgsz is {height} x {width}; expected at least the stride, {stride}")
    canvas_hw = (fixed[0] or -(-height // stride) * stride, fixed[1] or -(-width // stride) * stride)
    if wanted is own is None and None in fixed:
        exported = f", and was exported with {metadata.imgsz[0]} x {metadata.imgsz[1]}" if metadata.imgsz else ""
        warnings.warn(
            f"{name}: takes images of any size{exported}; {canvas_hw[0]} x {canvas_hw[1]} is used, as its own tools do "
            "unless told otherwise. Choose with imgsz= (--imgsz)",
            ModelWarning,
            stacklevel=4,
        )
    pixels = canvas_hw[0] * canvas_hw[1] * (runtime.input.batch or 1)
    if pixels > MAX_SIDE**2:
        raise InputError(
            f"{name}: a batch would have {pixels:,} pixels ({canvas_hw[0]} x {canvas_hw[1]}); "
            f"expected at most {MAX_SIDE} x {MAX_SIDE} in all. Set imgsz to less, or export the model for less"
        )
    return canvas_hw


def _height_width(imgsz: int | Sequence[int]) -> tuple[int, int]:
    sides = (imgsz, imgsz) if isinstance(imgsz, SupportsIndex) else imgsz
    try:
        height, width = (operator.index(side) for side in sides)
    except (TypeError, ValueError):
        raise InputError(f"imgsz is {imgsz!r}; expected a side or (height, width) in pixels") from None
    return height, width


def _class_ids(classes: Iterable[int]) -> tuple[int, ...]:
    try:
        return tuple(operator.index(class_id) for class_id in classes)
    except TypeError:
        raise InputError(f"classes is {classes!r}; expected a collection of class ids, such as [0, 2]") from None


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


def _rule(rule: MaskRule | str | None, layout: Layout, metadata: Metadata) -> MaskRule:
    own = FAMILIES[layout.family].rule
    if rule is not None:
        chosen = rule_named(rule)
        if chosen.objectness and not (own and own.objectness):
            raise InputError(
                f"rule {chosen.name!r} multiplies coefficients by objectness, and layout {layout.family!r} has none; "
                "use 'ultralytics-8.2', which is the same without it"
            )
        return chosen
    return own or rule_of_version(metadata.version)


def _preprocessing(given: Preprocessing | str, channels: int, name: str) -> Preprocessing:
    chosen = preprocessing_named(given)
    if channels == 1 and len(chosen.mean) == len(chosen.std) == 1:
        return replace(chosen, channels="grey")
    if channels != chosen.depth:
        raise InputError(
            f"preprocessing {chosen.name!r} makes {chosen.depth} channels; {name} takes images of {channels}"
        )
    return chosen


def _check_classes(keep: Thresholds, spec: ModelSpec) -> None:
    unknown = [c for c in keep.classes or () if spec.names and c not in spec.names]
    if unknown:
        raise InputError(
            f"classes {unknown} are not in the model; it has {len(spec.names)} classes (0..{max(spec.names)})"
        )
