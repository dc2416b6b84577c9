"""Masks drawn by some of the prototypes, and how good they are: the game behind knock-outs and Shapley values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from maskprism.analysis.instance.mask_window import MaskWindow, mask_in_frame
from maskprism.errors import InputError
from maskprism.masks import decode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Bool, Float32, Float64, Int64

    from maskprism.geometry import Size
    from maskprism.prediction import Instance

Metric = Literal["iou", "dice"]
METRIC_NAMES: dict[Metric, str] = {"iou": "IoU", "dice": "Dice"}


class SubsetMasks:
    """What masks of subsets of the K prototypes are worth: their IoU or Dice with a target mask.

    The target is the instance's full mask unless another one is given, of the image's size or of
    the frame's (ground truth, for example). Two empty masks have IoU and Dice 1. No prototype at all
    gives logits of 0 everywhere, which is not above the threshold: the empty mask.

    The decision of a pixel is linear in the prototypes, so their terms are resized once and a subset is
    a sum of them in the window; rules that squash first are decoded anew for every subset.
    """

    def __init__(
        self,
        instance: Instance,
        *,
        target: Bool[np.ndarray, "H W"] | None = None,
        metric: Metric = "iou",
        size: Size | None = None,
        window: MaskWindow | None = None,
    ) -> None:
        if metric not in ("iou", "dice"):
            raise InputError(f"metric is {metric!r}; expected 'iou' or 'dice'")
        self.window = window or MaskWindow.of(instance, size)
        self.instance, self.metric = instance, metric
        size = self.window.size
        if target is None:
            self._target = self.window.mask.reshape(-1)
            self._target_area = int(np.count_nonzero(self._target))
        else:
            whole = mask_in_frame(target, instance.letterbox, size, "target")
            self._target = np.ascontiguousarray(whole[self.window.rows, self.window.columns]).reshape(-1)
            self._target_area = int(np.count_nonzero(whole))
        weights = instance.weights[:, None]
        self._decodes = instance.rule.squash
        if self._decodes:
            self.terms = weights * instance.prototypes.reshape(len(weights), -1)
        else:
            self.terms = weights * self.window.prototypes.reshape(len(weights), -1)
        self.total: Float32[np.ndarray, " P"] = self.terms.sum(axis=0)
        self.full = self._overlap(self.window.mask.reshape(-1))
        self.none = self._overlap(np.zeros(self._target.shape, dtype=bool))

    def __len__(self) -> int:
        return len(self.terms)

    def value(self, logits: Float32[np.ndarray, " P"]) -> float:
        """The score of the mask that a sum of terms draws."""
        if not self._decodes:
            return self._overlap(logits > 0)
        rule, letterbox = self.instance.rule, self.instance.letterbox
        grid = logits.reshape(letterbox.grid_hw)
        patch = decode(grid, self.instance.canvas_box, letterbox, rule, self.window.size)
        return self._overlap((patch.values > rule.threshold).reshape(-1))

    def of(self, members: Sequence[int] | Int64[np.ndarray, " M"]) -> float:
        """The score of the mask of these prototypes alone."""
        if len(members) == len(self):
            return self.full
        return self.value(self.terms[members].sum(axis=0)) if len(members) else self.none

    def without_each(self) -> Float64[np.ndarray, " K"]:
        """The scores of the masks that lack one prototype each."""
        return np.array([self.value(self.total - term) for term in self.terms])

    def growing(self, order: Int64[np.ndarray, " K"]) -> Float64[np.ndarray, " K+1"]:
        """The scores of no prototype, of the first in the order, the first two, up to all of them."""
        scores = [self.none]
        logits = np.zeros_like(self.total)
        for k in order[:-1]:
            logits += self.terms[k]
            scores.append(self.value(logits))
        return np.array([*scores, self.full])

    def shrinking(self, order: Int64[np.ndarray, " K"]) -> Float64[np.ndarray, " K+1"]:
        """The scores of all prototypes, of all without the first in the order, down to none of them."""
        return self.growing(order[::-1])[::-1]

    def _overlap(self, mask: Bool[np.ndarray, " P"]) -> float:
        area = np.count_nonzero(mask)
        shared = np.count_nonzero(mask & self._target)
        if self.metric == "dice":
            both = area + self._target_area
            return 2 * shared / both if both else 1.0
        union = area + self._target_area - shared
        return shared / union if union else 1.0
