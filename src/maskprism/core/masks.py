"""From weights and prototypes to logits and masks, under a rule that is data.

Every decode of the YOLO-seg and YOLACT families is the same five steps: multiply, maybe squash,
maybe crop on the prototype grid, resize, threshold and maybe crop at the final size. Resizing is
linear, so it is written as two small matrices and only the window that an instance can touch is
ever computed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import numpy as np

from maskprism.core.geometry import SIZES, Size, Unpad
from maskprism.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Float32, Int64

    from maskprism.core.geometry import Letterbox

Crop = Literal["before", "after", "none"]


@dataclass(frozen=True)
class MaskRule:
    """Mask post-processing: how the weighted sum of prototypes becomes a mask.

    Attributes
    ----------
    squash
        The sigmoid is taken on the grid and probabilities are resized (threshold 0.5); otherwise logits are resized
        (threshold 0).
    crop, crop_image
        Where the box cuts, on the way to the canvas and to the image: on the grid before resizing, at the final size
        after it, or not at all.
    crop_padding
        Grid cells by which a crop before resizing is widened.
    round_box
        Box edges are rounded to whole pixels before cropping (a past behaviour of Ultralytics, there with fewer than 50
        instances on the CPU).
    unpad
        How letterbox padding is cut from the grid on the way to the image: rounded down, rounded, or after enlarging
        the grid until the padding is whole pixels ("whole", which is also what becomes of images that are stretched or
        lie in a corner).
    objectness
        Coefficients are multiplied by the objectness of their row (YOLOv5, YOLOv7).
    size
        The frame of masks when none is asked for.
    crop_margin
        The box is widened on every side by this part of its width or height before it cuts: 0.05 for 5 %.
    logit_threshold
        The logit above which a pixel belongs to the mask; rules that resize probabilities compare them with its
        sigmoid. Crops of logits before resizing have 0 outside, so they take no other threshold.

    Raises
    ------
    InputError
        For a crop, unpad or size that there is not, a margin or threshold out of range, or a threshold that the rule
        cannot have.
    """

    name: str
    squash: bool = False
    crop: Crop = "after"
    crop_image: Crop = "after"
    crop_padding: int = 0
    round_box: bool = False
    unpad: Unpad = "whole"
    objectness: bool = False
    size: Size = "canvas"
    crop_margin: float = 0.0
    logit_threshold: float = 0.0

    def __post_init__(self) -> None:
        crops = get_args(Crop)
        options = {"crop": crops, "crop_image": crops, "unpad": get_args(Unpad), "size": SIZES}
        for name, known in options.items():
            if getattr(self, name) not in known:
                raise InputError(f"{name} is {getattr(self, name)!r}; expected one of {', '.join(map(repr, known))}")
        if not 0 <= self.crop_margin <= 1:
            raise InputError(f"crop_margin is {self.crop_margin!r}; expected 0 to 1, as a part of the box")
        if not -16 <= self.logit_threshold <= 16:
            raise InputError(f"logit_threshold is {self.logit_threshold!r}; expected -16 to 16")
        if self.logit_threshold and not self.takes_thresholds:
            raise InputError(
                f"rule {self.name!r} crops logits before resizing, so pixels outside the box are 0: it takes no "
                f"logit_threshold but 0; got {self.logit_threshold!r}"
            )

    @property
    def takes_thresholds(self) -> bool:
        """Whether another logit threshold than 0 makes sense: not where a crop leaves logits of 0 to be resized."""
        return self.squash or "before" not in (self.crop, self.crop_image)

    @property
    def threshold(self) -> float:
        """A pixel belongs to the mask where its resized value is above this; exact in float32."""
        logit = np.array(self.logit_threshold, dtype=np.float32)
        return float(sigmoid(logit) if self.squash else logit)

    def crop_boxes(self, boxes_xyxy: Float32[np.ndarray, "... 4"]) -> Float32[np.ndarray, "... 4"]:
        """Boxes as they cut masks: widened by the margin."""
        if not self.crop_margin:
            return boxes_xyxy
        with np.errstate(invalid="ignore", over="ignore"):  # such boxes leave nothing
            margins = np.float32(self.crop_margin) * (boxes_xyxy[..., 2:] - boxes_xyxy[..., :2])
            return np.concatenate([boxes_xyxy[..., :2] - margins, boxes_xyxy[..., 2:] + margins], axis=-1)

    @property
    def crops(self) -> bool:
        """Whether boxes cut masks, in any frame."""
        return (self.crop, self.crop_image) != ("none", "none")

    def crop_at(self, size: Size) -> Crop:
        """Return where the box cuts on the way to the frame named `size`."""
        return self.crop_image if size == "image" else self.crop


ULTRALYTICS = MaskRule("ultralytics")
RETINA = replace(ULTRALYTICS, name="retina", size="image")
VALIDATION = replace(ULTRALYTICS, name="validation", size="grid")
NO_CROP = replace(ULTRALYTICS, name="no-crop", crop="none", crop_image="none")
ULTRALYTICS_8_4_90 = replace(ULTRALYTICS, name="ultralytics-8.4.90", unpad="round")
ULTRALYTICS_8_4_83 = replace(ULTRALYTICS_8_4_90, name="ultralytics-8.4.83", crop="before")
ULTRALYTICS_8_3_215 = replace(ULTRALYTICS_8_4_83, name="ultralytics-8.3.215", round_box=True)
ULTRALYTICS_8_3_189 = replace(ULTRALYTICS_8_4_83, name="ultralytics-8.3.189")
ULTRALYTICS_8_3 = replace(ULTRALYTICS_8_4_83, name="ultralytics-8.3", unpad="floor")
ULTRALYTICS_8_2 = replace(ULTRALYTICS_8_3, name="ultralytics-8.2", squash=True)
YOLOV5 = replace(ULTRALYTICS_8_2, name="yolov5", objectness=True)
YOLACT = MaskRule("yolact", squash=True, crop="before", crop_image="before", crop_padding=1, size="image")

RULES: dict[str, MaskRule] = {
    rule.name: rule
    for rule in (
        ULTRALYTICS,
        ULTRALYTICS_8_4_90,
        ULTRALYTICS_8_4_83,
        ULTRALYTICS_8_3_215,
        ULTRALYTICS_8_3_189,
        ULTRALYTICS_8_3,
        ULTRALYTICS_8_2,
        YOLOV5,
        RETINA,
        VALIDATION,
        YOLACT,
        NO_CROP,
    )
}

# The first release with each behaviour, newest first; read off the published wheels.
FIRST_RELEASES: tuple[tuple[tuple[int, int, int], MaskRule], ...] = (
    ((8, 4, 175), ULTRALYTICS),
    ((8, 4, 90), ULTRALYTICS_8_4_90),
    ((8, 4, 83), ULTRALYTICS_8_4_83),
    ((8, 3, 215), ULTRALYTICS_8_3_215),
    ((8, 3, 189), ULTRALYTICS_8_3_189),
    ((8, 3, 0), ULTRALYTICS_8_3),
    ((0, 0, 0), ULTRALYTICS_8_2),
)


def rule_named(name: str | MaskRule) -> MaskRule:
    """Return the preset of that name.

    Raises
    ------
    InputError
        With a message that lists the presets.
    """
    if isinstance(name, MaskRule):
        return name
    if name not in RULES:
        raise InputError(f"there is no mask rule {name!r}; expected one of {', '.join(RULES)}")
    return RULES[name]


def rule_of_version(version: str | None) -> MaskRule:
    """Return how the release `version` of Ultralytics draws masks; the current behaviour when unknown."""
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", version or "")
    if not found:
        return ULTRALYTICS
    release = (int(found[1]), int(found[2]), int(found[3]))
    return next(rule for since, rule in FIRST_RELEASES if release >= since)


def sigmoid(x: Float32[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
    """Return the logistic function, without overflow."""
    return np.float32(0.5) * (np.float32(1) + np.tanh(np.float32(0.5) * x))


class Patch(NamedTuple):
    """The part of an image that an instance can touch: `image[rows, columns] = values`."""

    rows: slice
    columns: slice
    values: Float32[np.ndarray, "rows columns"]


def decode(
    logits: Float32[np.ndarray, "h w"],
    box_canvas_xyxy: Float32[np.ndarray, " 4"] | None,
    letterbox: Letterbox,
    rule: MaskRule,
    size: Size,
    *,
    crop: Crop | None = None,
    squash: bool | None = None,
) -> Patch:
    """Grid logits of one instance, resized; probabilities, where the rule squashes first.

    `crop` and `squash` override the rule. Comparing the values with `rule.threshold` gives the
    mask. Without a box nothing is cropped.
    """
    crop = rule.crop_at(size) if crop is None else crop
    values = sigmoid(logits) if (rule.squash if squash is None else squash) else logits
    rows, columns = crop_window(box_canvas_xyxy, letterbox, rule, crop, size)
    if rows.start == rows.stop or columns.start == columns.stop:
        return Patch(slice(0, 0), slice(0, 0), np.zeros((0, 0), dtype=np.float32))
    if crop == "before":
        cropped = np.zeros_like(values)
        cropped[rows, columns] = values[rows, columns]
        values = cropped
        rows, columns = _touched(letterbox, rule, size, rows, columns)
    return Patch(rows, columns, letterbox.resample(values, size, rule.unpad, rows, columns))


def crop_window(
    box_canvas_xyxy: Float32[np.ndarray, " 4"] | None, letterbox: Letterbox, rule: MaskRule, crop: Crop, size: Size
) -> tuple[slice, slice]:
    """Return the (rows, columns) that a crop leaves.

    Cells of the grid before resizing, or pixels of the frame `size`.
    """
    frame: Size = "grid" if crop == "before" else size
    height, width = letterbox.size_hw(frame)
    if crop == "none" or box_canvas_xyxy is None:
        return slice(0, height), slice(0, width)
    box = letterbox.from_canvas(rule.crop_boxes(box_canvas_xyxy), frame)
    padding = rule.crop_padding if crop == "before" else 0
    rows = pixels_between(box[1], box[3], height, padding, rule.round_box)
    return rows, pixels_between(box[0], box[2], width, padding, rule.round_box)


def _touched(letterbox: Letterbox, rule: MaskRule, size: Size, rows: slice, columns: slice) -> tuple[slice, slice]:
    """Return the window of the frame named `size` that reads at least one cell of a window of the grid."""
    window = np.zeros(letterbox.grid_hw, dtype=np.float32)
    window[rows] = 1
    touched_rows = np.flatnonzero(letterbox.resample(window, size, rule.unpad, columns=slice(0, 1)))
    window[:] = 0
    window[:, columns] = 1
    touched_columns = np.flatnonzero(letterbox.resample(window, size, rule.unpad, rows=slice(0, 1)))
    return _span(touched_rows), _span(touched_columns)


def _span(indices: Int64[np.ndarray, " M"]) -> slice:
    return slice(int(indices[0]), int(indices[-1]) + 1) if len(indices) else slice(0, 0)


def pixels_between(start: float, stop: float, length: int, padding: int = 0, rounded: bool = False) -> slice:
    """Return the pixels `i` of an axis of `length` with `start - padding <= i < stop + padding`."""
    if not (np.isfinite(start) and np.isfinite(stop)):
        return slice(0, 0)
    edge = np.rint if rounded else np.ceil
    first = int(np.clip(edge(start - padding), 0, length))
    return slice(first, max(first, int(np.clip(edge(stop + padding), 0, length))))
