"""A model that can be asked about images, and what is to know of it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from maskprism._common.text import counted
from maskprism.core.prediction import Prediction
from maskprism.errors import InputError, ModelError, ModelWarning
from maskprism.io.class_names import class_ids
from maskprism.io.images import image_name, read_image, source_name
from maskprism.models.families import known_families
from maskprism.models.families.rows import EXPORT_IN_SINGLE_PRECISION, refuse_broken_prototypes, refuse_scores
from maskprism.models.input_size import input_hw
from maskprism.models.options import Detections, Reading, unknown_option

if TYPE_CHECKING:
    from jaxtyping import Float32, UInt8

    from maskprism.core.geometry import Letterbox
    from maskprism.core.masks import MaskRule
    from maskprism.core.preprocessing import Preprocessing
    from maskprism.io.images import ImageLike
    from maskprism.models.correction import Correction
    from maskprism.models.families import FamilyName
    from maskprism.models.families.family import Family, Layout
    from maskprism.models.families.rows import Thresholds
    from maskprism.models.metadata import Metadata
    from maskprism.models.runtimes import NetworkInput, Runtime

    Floats = Float32[np.ndarray, "..."]

_SHOWN_CLASSES = 5


@dataclass(frozen=True, repr=False)
class ModelSpec:
    """What a model is, as far as masks are concerned.

    Parameters
    ----------
    name
        File name, or the type of a live object.
    layout
        Name of the family.
    runtime
        Name and version of the library that computes.
    input_hw
        (height, width) of the letterboxed input; with `rectangular` the largest one, which is cut to the smallest
        rectangle around each image.
    rectangular
        Whether padding is minimal (Ultralytics: `rect=True`).
    prototypes
        How many there are.
    grid_hw
        (height, width) of the prototypes for the full input.
    stride
        Pixels of the letterboxed input per prototype cell.
    names
        Class names by class id.
    rule
        Mask post-processing rule.
    preprocessing
        What becomes of an image before the model sees it.
    version
        Version of Ultralytics that wrote the file; None where it does not say.
    sha256
        Fingerprint of the weights.
    correction
        Fingerprint of the correction that the mask coefficients are given; None for none.
    notes
        What a reader should know of how the outputs are read, one sentence each.
    fixed_size
        Whether the file takes inputs of this size only.
    """

    name: str
    layout: FamilyName
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
    fixed_size: bool = False

    def __repr__(self) -> str:
        return f"ModelSpec({self.summary})"

    @property
    def summary(self) -> str:
        """What matters, in one line."""
        shown = ", ".join(list(self.names.values())[:_SHOWN_CLASSES]) + ", ..." * (len(self.names) > _SHOWN_CLASSES)
        classes = f"{len(self.names)} classes ({shown})" if self.names else "classes not told"
        return (
            f"{self.name!r}, layout {self.layout!r}, {self.runtime}, "
            f"input {self.input_hw[0]}x{self.input_hw[1]}{', rectangular' * self.rectangular}, "
            f"{self.prototypes} prototypes of {self.grid_hw[0]}x{self.grid_hw[1]}, {classes}, "
            f"rule {self.rule.name!r}{', corrected' * (self.correction is not None)}"
        )


@dataclass(frozen=True, eq=False, repr=False)
class Model:
    """A model that can be asked about images.

    `maskprism.load` makes it; it never changes.

    Parameters
    ----------
    runtime
        What computes its tensors.
    layout
        How they are read.
    spec
        What it is.
    keep
        Which detections it keeps.
    metadata
        What the file says about itself.
    level_ends
        Where each level of the pyramid ends among its candidates, the finest first; None where the rows do not tell.
    batch
        How many images it is given at once.
    correction
        Of its mask coefficients; None for none.
    """

    runtime: Runtime
    layout: Layout
    spec: ModelSpec
    keep: Thresholds
    metadata: Metadata
    level_ends: tuple[int, ...] | None = None
    batch: int = 1
    correction: Correction | None = None

    def __repr__(self) -> str:
        keep = self.keep
        classes = "" if keep.classes is None else f", classes {list(keep.classes)}"
        return f"Model({self.spec.summary}, conf {keep.conf:g}, iou {keep.iou:g}, max_det {keep.max_det}{classes})"

    def __call__(self, images: ImageLike | list[ImageLike], **detections: Any) -> list[Prediction]:
        """Give a list of predictions, also for one image, as an `ultralytics.YOLO` does. See `predict`."""
        return self.predict(images if isinstance(images, list) else [images], **detections)

    @overload
    def predict(self, images: list[ImageLike] | tuple[ImageLike, ...], **detections: Any) -> list[Prediction]: ...
    @overload
    def predict(self, images: ImageLike, **detections: Any) -> Prediction: ...
    def predict(self, images: Any, **detections: Any) -> Prediction | list[Prediction]:
        """Run the model on one image, or on each of a list.

        Results do not depend on how images are grouped.

        Parameters
        ----------
        images
            A path, a PIL image or an HWC uint8 array in BGR, or a list of them.
        **detections
            Fields of `maskprism.models.Detections` for this call only: conf, iou, max_det, classes, ...; what is not
            given is as the model was loaded.

        Returns
        -------
        Prediction or list of Prediction
            One for one image, a list for a list.

        Raises
        ------
        ImageError
            If an image cannot be read.
        ModelError
            If what the model gives cannot be used: prototypes or all detections with NaN or infinity.
        InputError
            If a threshold is out of range, a class is not in the model, or an option is one of `maskprism.load`.

        Examples
        --------
        >>> import maskprism
        >>> from maskprism.datasets.scenes import draw_scene
        >>> model = maskprism.load("sample")
        >>> prediction = model.predict(draw_scene(0).image, conf=0.5, classes=["disc"])
        >>> {instance.name for instance in prediction} <= {"disc"}
        True
        """
        model = self._keeping(detections) if detections else self
        if not isinstance(images, list | tuple):
            return model._predict_batch([images])[0]
        chunks = (images[i : i + self.batch] for i in range(0, len(images), self.batch))
        return [prediction for chunk in chunks for prediction in model._predict_batch(chunk)]

    def predict_under(self, image: ImageLike, thresholds: Sequence[Thresholds]) -> list[Prediction]:
        """Run the model once, and read its outputs under each of these thresholds."""
        return self._predict_batch([image], [self.with_thresholds(keep) for keep in thresholds])

    def predict_untuned(self, image: ImageLike) -> tuple[Prediction, Float32[np.ndarray, "N K"] | None]:
        """Give what `predict` gives, and its coefficients before the correction; None without a correction."""
        plain = self.with_correction(None).predict(image)
        return (plain, None) if self.correction is None else (self.correction.apply(plain), plain.coefficients)

    @property
    def family(self) -> Family:
        """The traits of its family."""
        return known_families()[self.spec.layout]

    @property
    def grey(self) -> bool:
        """Whether it takes one channel: files are then decoded to grey, as Ultralytics reads them for it."""
        return self.spec.preprocessing.channels == "grey"

    @property
    def levels(self) -> int:
        """How many levels of the pyramid its rows tell apart; 1 where they tell none."""
        return len(self.level_ends or (1,))

    def letterbox(self, image_hw: tuple[int, int]) -> Letterbox:
        """Return how an image of (height, width) lies on the letterboxed input."""
        stride = (self.metadata.stride or self.family.multiple) if self.spec.rectangular else None
        return self.spec.preprocessing.letterbox(image_hw, self.spec.input_hw, rectangle_stride=stride)

    def on_canvas(self, canvas_hw: tuple[int, int], *, rectangular: bool = False) -> Model:
        """Return the same model with a letterboxed input of (height, width); nothing is loaded again.

        Parameters
        ----------
        canvas_hw
            The whole of it is used for every image, as an export of a fixed size does.
        rectangular
            Whether it is cut to the smallest rectangle around each image.

        Raises
        ------
        InputError
            If the model takes another size only.
        """
        spec, takes = self.spec, self.runtime.input
        canvas_hw = input_hw(takes, canvas_hw, self.metadata, spec.name, self.family)
        if rectangular and (takes.height or takes.width):
            raise InputError(f"{spec.name} takes one canvas only; it cannot be cut to a rectangle around images")
        grid_hw = (-(-canvas_hw[0] // spec.stride), -(-canvas_hw[1] // spec.stride))
        return replace(self, spec=replace(spec, input_hw=canvas_hw, grid_hw=grid_hw, rectangular=rectangular))

    def with_names(self, names: Mapping[int, str]) -> Model:
        """Return the same model with other class names; nothing is loaded again."""
        return replace(self, spec=replace(self.spec, names=dict(names)))

    def with_thresholds(self, keep: Thresholds) -> Model:
        """Return the same model that keeps other detections; nothing is loaded again.

        Raises
        ------
        InputError
            For a class that is not in the model.
        """
        class_ids(keep.classes or (), self.spec.names)
        return replace(self, keep=keep)

    def in_batches(self, batch: int) -> Model:
        """Return the same model that takes `n` images at once, nothing loaded again.

        Raises
        ------
        InputError
            For less than 1, or another number than that which the file is made for.
        """
        fixed = self.runtime.input.batch
        if batch < 1 or fixed not in (None, batch):
            raise InputError(f"batch is {batch}; {self.spec.name} takes {fixed or 'at least 1'} at once")
        return replace(self, batch=batch)

    def with_correction(self, correction: Correction | None) -> Model:
        """Return the same model with its mask coefficients corrected, or uncorrected; nothing is loaded again.

        Raises
        ------
        InputError
            For a correction of another number of coefficients or levels.
        """
        k = self.spec.prototypes
        if correction is not None and (correction.prototypes != k or correction.levels not in (1, self.levels)):
            raise InputError(
                f"the correction is for {correction.prototypes} coefficients on {counted(correction.levels, 'level')}; "
                f"{self.spec.name} has {k} on {counted(self.levels, 'level')}: fit one to this model"
            )
        fingerprint = None if correction is None else correction.fingerprint
        return replace(self, correction=correction, spec=replace(self.spec, correction=fingerprint))

    def _keeping(self, detections: Mapping[str, Any]) -> Model:
        known = {field.name for field in fields(Detections)}
        for name in detections.keys() - known:
            if name in {field.name for field in fields(Reading)}:
                raise InputError(f"{name}= is chosen when a model is loaded: maskprism.load(..., {name}=...)")
            raise InputError(unknown_option(name, known))
        return replace(self, keep=Detections(**detections).over(self.keep, self.spec.names))

    def _predict_batch(self, images: Sequence[ImageLike], readers: Sequence[Model] = ()) -> list[Prediction]:
        """Of every image what each reader makes of the outputs. Default: this model alone."""
        readers = readers or [self]
        decoded = [read_image(image, grey=self.grey) for image in images]
        prepare = self.spec.preprocessing
        letterboxes = [self.letterbox((pixels.shape[0], pixels.shape[1])) for pixels in decoded]
        results: dict[int, list[Prediction]] = {}
        for canvas_hw in dict.fromkeys(box.canvas_hw for box in letterboxes):
            members = [i for i, box in enumerate(letterboxes) if box.canvas_hw == canvas_hw]
            canvases = [prepare.exact_canvas(decoded[i], letterboxes[i]) for i in members]
            if select := getattr(self.runtime, "select", None):  # recorded outputs, one image at a time
                select(image_name(images[members[0]]))
            outputs = self.runtime(
                input_tensor(self.runtime.input, canvases, [letterboxes[i] for i in members], prepare)
            )
            for position, i in enumerate(members):
                name = source_name(images[i])
                results[i] = [reader._read(outputs, position, letterboxes[i], name) for reader in readers]
        return [prediction for i in range(len(images)) for prediction in results[i]]

    def _read(self, outputs: list[Floats], index: int, letterbox: Letterbox, source: str | None) -> Prediction:
        prototypes = self.layout.read_prototypes(outputs, index)
        refuse_broken_prototypes(prototypes)
        refuse_scores(self.layout.raw_scores(outputs, index), self.layout.score_limits)
        rows = self.layout.read_rows(outputs, index, letterbox.canvas_hw, self.keep)
        if rows.n_not_finite:
            left_out = f"{counted(rows.n_not_finite, 'detection')} left out: NaN or infinity"
            if not len(rows.scores):
                raise ModelError(f"{left_out}, and there are no others; {EXPORT_IN_SINGLE_PRECISION}")
            warnings.warn(f"{source or 'image'}: {left_out}", ModelWarning, stacklevel=4)
        prediction = Prediction(
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
        return prediction if self.correction is None else self.correction.apply(prediction)


def input_tensor(
    takes: NetworkInput,
    canvases: list[UInt8[np.ndarray, "H W 3"]],
    letterboxes: list[Letterbox],
    preprocessing: Preprocessing,
) -> Float32[np.ndarray, "B ..."]:
    """Stack letterboxed images as the tensor that a model takes, filled up where its batch size is fixed."""
    missing = (takes.batch or len(canvases)) - len(canvases)
    canvases, letterboxes = canvases + canvases[:1] * missing, letterboxes + letterboxes[:1] * missing
    return preprocessing.tensor(canvases, letterboxes, channels_last=takes.channels_last)
