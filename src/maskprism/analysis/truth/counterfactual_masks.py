"""The mask of a matched instance, and what it would be if parts of the model were perfect."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from maskprism.analysis.truth.best_coefficients import Fit, best_weights
from maskprism.analysis.truth.exact_coefficients import exact_weights
from maskprism.analysis.truth.matching import match
from maskprism.analysis.truth.overlaps import Region
from maskprism.core.masks import Patch, crop_window, decode

if TYPE_CHECKING:
    from jaxtyping import Float32

    from maskprism.analysis.truth.matching import Matches
    from maskprism.core.masks import Crop
    from maskprism.core.prediction import Instance, Prediction
    from maskprism.datasets import GroundTruth


@dataclass(frozen=True, eq=False)
class Counterfactuals:
    """Masks of one instance on the canvas, under the rule of its prediction, from the ground truth down to its own.

    The same from the side of the box: true_box, true_box_best and true_box_on_grid are real, best and on_grid cropped
    by the box around the ground truth instead.

    Attributes
    ----------
    truth
        g, the ground-truth mask.
    on_grid
        R, g averaged over the cells of the prototype grid, enlarged again and thresholded at one half: what a mask of
        that grid can keep (interpolated logits may keep more).
    in_box
        R, cropped by the predicted box.
    best
        The mask of the coefficients that fit g best, cropped by that box.
    real
        The instance's own mask.
    uncropped
        The own mask without a crop.
    fit, true_box_fit
        The best weights in the predicted and in the ground-truth box.
    values
        What the own mask is cut out of, where it is above the rule's threshold.
    """

    instance: Instance
    truth: Region
    on_grid: Region
    in_box: Region
    best: Region
    real: Region
    true_box: Region
    true_box_best: Region
    true_box_on_grid: Region
    uncropped: Region
    fit: Fit
    true_box_fit: Fit
    values: Patch


class Pair(NamedTuple):
    """An instance and its ground-truth instance by number, and the IoU of their boxes."""

    instance: int
    truth: int
    box_iou: float


def counterfactuals_of(
    prediction: Prediction, truth: GroundTruth, matches: Matches | None = None
) -> Iterator[tuple[Pair, Counterfactuals]]:
    """Yield the counterfactual masks of every matched instance of an image; default matches: `matching.match`."""
    matches = match(prediction, truth) if matches is None else matches
    letterbox = prediction.letterbox
    true_boxes = letterbox.to_canvas(truth.boxes)
    wanted = set(matches.objects.tolist())
    masks = {index: Region(*patch) for index, patch in enumerate(truth.patches("canvas", letterbox)) if index in wanted}
    for index, found, shared in zip(matches.instances, matches.objects, matches.box_iou, strict=True):
        pair = Pair(int(index), int(found), float(shared))
        yield pair, instance_counterfactuals(prediction[index], masks[pair.truth], true_boxes[found])


def instance_counterfactuals(instance: Instance, truth: Region, true_box: Float32[np.ndarray, " 4"]) -> Counterfactuals:
    """Return the counterfactual masks of one instance. `truth` and `true_box` (xyxy) are on the canvas."""
    draw = _Drawing(instance)
    own_box = instance.canvas_box
    (logits,) = draw.logits(instance.weights)
    values = draw.patch(logits, own_box)
    real, in_true_box = draw.above(values), draw.mask(logits, true_box)
    found = true_found = _fit(instance, truth, real, instance.weights)
    if (real.rows, real.columns) != (in_true_box.rows, in_true_box.columns):
        true_found = _fit(instance, truth, in_true_box, found.weights)
    found = _exact(instance, truth, own_box, found) or found
    true_found = _exact(instance, truth, true_box, found if found.exact else true_found) or true_found
    best, true_best = draw.logits(found.weights, true_found.weights)
    ideal = draw.averaged(truth)
    return Counterfactuals(
        instance=instance,
        truth=truth,
        on_grid=draw.mask(ideal, own_box, crop="none", squash=False),
        in_box=draw.mask(ideal, own_box, squash=False),
        best=draw.mask(best, own_box),
        real=real,
        true_box=in_true_box,
        true_box_best=draw.mask(true_best, true_box),
        true_box_on_grid=draw.mask(ideal, true_box, squash=False),
        uncropped=draw.mask(logits, own_box, crop="none"),
        fit=found,
        true_box_fit=true_found,
        values=values,
    )


def _fit(instance: Instance, truth: Region, within: Region, start: Float32[np.ndarray, " K"]) -> Fit:
    return best_weights(instance.prototypes, instance.letterbox, truth, within.rows, within.columns, start)


def _exact(instance: Instance, truth: Region, box: Float32[np.ndarray, " 4"], start: Fit) -> Fit | None:
    """Weights whose mask, cropped by `box`, is the ground truth, if any; not looked for where a rule squashes."""
    draw, rule, letterbox = _Drawing(instance), instance.rule, instance.letterbox
    if rule.squash:
        return None
    kept = np.ones(letterbox.grid_hw, dtype=np.float32)
    if rule.crop_at("canvas") == "before":
        kept[:] = 0
        kept[crop_window(box, letterbox, rule, "before", "canvas")] = 1
    return exact_weights(
        instance.prototypes, letterbox, truth, start, lambda weights: draw.mask(draw.logits(weights)[0], box), kept
    )


class _Drawing:
    """Draws grid values on the canvas as the rule of an instance does."""

    def __init__(self, instance: Instance) -> None:
        self.prototypes = instance.prototypes
        self.rule, self.letterbox = instance.rule, instance.letterbox

    def logits(self, *weights: Float32[np.ndarray, " K"]) -> Float32[np.ndarray, "M h w"]:
        return np.tensordot(np.stack(weights), self.prototypes, axes=1)

    def averaged(self, truth: Region) -> Float32[np.ndarray, "h w"]:
        """The share of each grid cell that the ground truth covers, shifted so that the rule's threshold is at half."""
        whole = np.zeros(self.letterbox.canvas_hw, dtype=np.float32)
        whole[truth.rows, truth.columns] = truth.inside
        grid_h, grid_w = self.letterbox.grid_hw
        share = cv2.resize(whole, (grid_w, grid_h), interpolation=cv2.INTER_AREA)
        return share + np.float32(self.rule.threshold - 0.5)

    def patch(
        self,
        values: Float32[np.ndarray, "h w"],
        box: Float32[np.ndarray, " 4"],
        crop: Crop | None = None,
        squash: bool | None = None,
    ) -> Patch:
        return decode(values, box, self.letterbox, self.rule, "canvas", crop=crop, squash=squash)

    def above(self, patch: Patch) -> Region:
        return Region.of_patch(patch, self.rule.threshold, self.letterbox.canvas_hw)

    def mask(
        self,
        values: Float32[np.ndarray, "h w"],
        box: Float32[np.ndarray, " 4"],
        crop: Crop | None = None,
        squash: bool | None = None,
    ) -> Region:
        return self.above(self.patch(values, box, crop, squash))
