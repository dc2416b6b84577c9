"""How the mask would change if a coefficient changed a little: the gradient of soft Dice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from maskprism.analysis.instance.mask_window import MaskWindow, mask_in_frame
from maskprism.core.masks import decode, sigmoid

if TYPE_CHECKING:
    from jaxtyping import Bool, Float32, Float64

    from maskprism.core.geometry import Size
    from maskprism.core.prediction import Instance


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """Soft Dice of a mask with its target, and its gradient.

    Attributes
    ----------
    dice
        2 sum(p t) / (sum(p) + sum(t)) of the probabilities p within the crop and the target t; 1 if both are empty.
    gradient
        Its derivatives by the coefficients, as the model gave them.
    elasticity
        Coefficient x derivative, the change of Dice per relative change of the coefficient; unlike the gradient it does
        not depend on how a prototype and its coefficient are scaled.
    """

    dice: float
    gradient: Float64[np.ndarray, " K"]
    elasticity: Float64[np.ndarray, " K"]


def sensitivity(
    instance: Instance,
    *,
    target: Bool[np.ndarray, "H W"] | None = None,
    size: Size | None = None,
    window: MaskWindow | None = None,
) -> Sensitivity:
    """Return the gradient of the soft Dice between the soft mask and a target with respect to each coefficient.

    The target is the instance's own mask unless one is given, of the image's or the frame's size (ground
    truth, for example: then the gradient says which coefficients to move, and where). The frame is that of
    the mask rule unless `size` is given. Analytic.
    """
    window = window or MaskWindow.of(instance, size)
    if target is None:
        wanted, total = window.mask, int(np.count_nonzero(window.mask))
    else:
        whole = mask_in_frame(target, instance.letterbox, window.size, "target")
        wanted, total = whole[window.rows, window.columns], int(np.count_nonzero(whole))
    (own,) = instance.alone.patches(window.size)
    probabilities = own.values if instance.rule.squash else sigmoid(own.values)
    both = float(probabilities.sum(dtype=np.float64)) + total
    if not both:
        nothing = np.zeros(len(instance.weights))
        return Sensitivity(1.0, nothing, nothing)
    dice = 2 * float(probabilities[wanted].sum(dtype=np.float64)) / both
    by_pixel = (2 * wanted - dice) / both
    if instance.rule.squash:
        slopes = (_slope(sigmoid(instance.logits())) * instance.prototypes).astype(np.float32)
        place = (instance.canvas_box, instance.letterbox, instance.rule, window.size)
        by_weight = np.array([np.vdot(decode(one, *place, squash=False).values, by_pixel) for one in slopes])
    else:
        pull = (_slope(probabilities) * by_pixel).astype(np.float32)
        by_weight = (window.prototypes.reshape(len(window.prototypes), -1) @ pull.reshape(-1)).astype(np.float64)
    # The rule may multiply coefficients by the objectness.
    objectness = instance.prediction.objectness
    factor = float(objectness[instance.index]) if instance.rule.objectness and objectness is not None else 1.0
    return Sensitivity(dice, by_weight * factor, by_weight * instance.weights)


def _slope(probability: Float32[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
    """Return the derivative of the logistic function where it has this value."""
    return probability * (1 - probability)
