"""Predictions out of the raw outputs of edge runtimes, without the model that gave them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from maskprism._common.choices import RawLayout
from maskprism.core.arrays import image_size, read_class_names
from maskprism.core.masks import rule_named
from maskprism.core.preprocessing import preprocessing_named
from maskprism.errors import InputError
from maskprism.models import load
from maskprism.models.families.raw_outputs import assemble
from maskprism.models.families.rows import Thresholds
from maskprism.models.runtimes.recorded import RecordedRuntime

if TYPE_CHECKING:
    from maskprism.core.geometry import Letterbox
    from maskprism.core.masks import MaskRule
    from maskprism.core.prediction import Prediction
    from maskprism.core.preprocessing import Preprocessing
    from maskprism.io.images import ImageLike


def from_raw(
    outputs: Mapping[str, Any] | Sequence[Any],
    image: ImageLike | tuple[int, int],
    *,
    layout: RawLayout,
    scale: float | Mapping[str, float] | Sequence[float | None] | None = None,
    zero_point: float | Mapping[str, float] | Sequence[float | None] | None = None,
    canvas_hw: tuple[int, int] | None = None,
    names: Mapping[int, str] | Sequence[str] = (),
    class_logits: bool | None = None,
    rule: MaskRule | str | None = None,
    preprocessing: Preprocessing | str | None = None,
    letterbox: Letterbox | None = None,
    keep: Thresholds | None = None,
) -> Prediction:
    """Read the raw outputs of an edge runtime for one image as a `Prediction`.

    The head may be in pieces, its batch axis squeezed away, its prototypes flattened or with channels last, its values
    integers. Boxes are decoded, NMS runs as for a model file.

    Parameters
    ----------
    outputs
        Arrays by name, or in the order of the runtime.
    image
        A path, a PIL image, a BGR array, or just (height, width) in pixels.
    layout
        The runtime: "rknn", "hailo", "ncnn", "coreml", "tensorrt", "deepstream" or "edgefirst". See the page "Fast
        decoding on devices" for the tensors of each.
    scale, zero_point
        Of integer outputs: value = (integer - zero_point) * scale. A number for all, or one for each output, by name
        or in order (None for outputs in floating point).
    canvas_hw
        (height, width) of the letterboxed input. Default: four times that of the prototypes; flat buffers and flattened
        prototypes need it.
    names
        Of the classes; their number also settles what the shapes of some heads leave open.
    class_logits
        Whether class scores of a head in pieces are given before their sigmoid. Default: as the layout has it.
    rule
        A `MaskRule` or the name of a preset. Default: "ultralytics".
    preprocessing
        How the image lay on the letterboxed input: a `Preprocessing` or the name of a preset. Default: "yolo".
    letterbox
        How it lay there, where that is known already.
    keep
        Thresholds of score and NMS. Default: those that YOLO predicts with.

    Returns
    -------
    Prediction
        Equal to that of the model file, up to rounding (of 8 bits: up to a step of quantisation).

    Raises
    ------
    InputError
        If the tensors are not those of the layout (it says which are missing, expected and given), or integers come
        without scale and zero point.
    ModelError
        If prototypes hold NaN or infinity, or scores are no probabilities.
    """
    image_hw, source = image_size(image)
    class_names = read_class_names(names)
    read = assemble(
        outputs,
        layout,
        scale=scale,
        zero_point=zero_point,
        canvas_hw=canvas_hw,
        n_classes=len(class_names) or None,
        class_logits=class_logits,
    )
    if letterbox is not None and (letterbox.image_hw, letterbox.canvas_hw) != (image_hw, read.canvas_hw):
        raise InputError(
            f"the letterbox is of an image of {letterbox.image_hw} on an input of {letterbox.canvas_hw}; expected "
            f"{image_hw} on {read.canvas_hw}"
        )
    model = load(RecordedRuntime(read, class_names, f"raw outputs ({layout})"))
    model = model if keep is None else model.with_thresholds(keep)
    prediction = model.predict(np.zeros((*image_hw, 3), dtype=np.uint8))
    chosen = prediction.preprocessing if preprocessing is None else preprocessing_named(preprocessing)
    frame = chosen.letterbox(image_hw, read.canvas_hw) if letterbox is None else letterbox
    return replace(
        prediction,
        letterbox=frame.with_grid(prediction.letterbox.grid_hw),
        preprocessing=chosen,
        rule=prediction.rule if rule is None else rule_named(rule),
        source=source,
    )
