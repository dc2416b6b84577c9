"""Masks drawn by some of the prototypes, and how good they are: the game behind knock-outs and Shapley values."""

from __future__ import annotations

from itertools import combinations, islice
from typing import TYPE_CHECKING, Literal

import numpy as np

from maskprism.analysis.instance.mask_window import MaskWindow, mask_in_frame
from maskprism.core.masks import decode
from maskprism.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jaxtyping import Bool, Float32, Float64, Int64

    from maskprism.core.geometry import Size
    from maskprism.core.prediction import Instance

Metric = Literal["iou", "dice"]
_MOST_TILES = 512
_CHUNK = 4096
_ROUNDING = 1e-5
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
        """Return the score of the mask that a sum of terms draws."""
        if not self._decodes:
            return self._overlap(logits > 0)
        rule, letterbox = self.instance.rule, self.instance.letterbox
        grid = logits.reshape(letterbox.grid_hw)
        patch = decode(grid, self.instance.canvas_box, letterbox, rule, self.window.size)
        return self._overlap((patch.values > rule.threshold).reshape(-1))

    def of(self, members: Sequence[int] | Int64[np.ndarray, " M"]) -> float:
        """Return the score of the mask of these prototypes alone."""
        if len(members) == len(self):
            return self.full
        return self.value(self.terms[members].sum(axis=0)) if len(members) else self.none

    def without_each(self) -> Float64[np.ndarray, " K"]:
        """Return the scores of the masks that lack one prototype each."""
        return np.array([self.value(self.total - term) for term in self.terms])

    def growing(self, order: Int64[np.ndarray, " K"]) -> Float64[np.ndarray, " K+1"]:
        """Return the scores of no prototype, of the first in the order, the first two, up to all of them."""
        scores = [self.none]
        logits = np.zeros_like(self.total)
        for k in order[:-1]:
            logits += self.terms[k]
            scores.append(self.value(logits))
        return np.array([*scores, self.full])

    def shrinking(self, order: Int64[np.ndarray, " K"]) -> Float64[np.ndarray, " K+1"]:
        """Return the scores of all prototypes, of all without the first in the order, down to none of them."""
        return self.growing(order[::-1])[::-1]

    def _overlap(self, mask: Bool[np.ndarray, " P"]) -> float:
        area = np.count_nonzero(mask)
        shared = np.count_nonzero(mask & self._target)
        if self.metric == "dice":
            both = area + self._target_area
            return 2 * shared / both if both else 1.0
        union = area + self._target_area - shared
        return shared / union if union else 1.0


class SubsetBound:
    """Which sets of prototypes may reach a score: a bound on tiles of pixels that never rules out a set that does.

    In every tile each term lies between its least and its largest value. Where the largest values of a set sum to less
    than 0 no pixel of the tile is in the mask of the set, and where the least ones sum to more than 0 all are; of other
    tiles the best is assumed. Sums are taken with a margin for rounding. Rules that squash before they resize have no
    such bound: there, every set is a candidate.
    """

    def __init__(self, game: SubsetMasks) -> None:
        self._game = game
        self._squashes = game._decodes
        height, width = game.window.mask.shape
        side = 1 if self._squashes else max(game.window.cell, 1)
        while not self._squashes and -(-height // side) * -(-width // side) > _MOST_TILES:
            side += max(game.window.cell, 1)
        rows, columns = (np.arange(0, length, side) for length in (height, width))
        self._empty = self._squashes or not len(rows) or not len(columns)
        self.cost = 1
        if self._empty:
            return
        terms = game.terms.reshape(len(game), height, width)

        def tiled(reduce: np.ufunc, values: np.ndarray) -> np.ndarray:
            found = reduce.reduceat(reduce.reduceat(values, rows, axis=-2), columns, axis=-1)
            return found.reshape(*values.shape[:-2], -1)

        slack = _ROUNDING * tiled(np.maximum, np.abs(terms))
        self._least, self._most = tiled(np.minimum, terms) - slack, tiled(np.maximum, terms) + slack
        target = game._target.reshape(height, width)
        self._inside = tiled(np.add, target.astype(np.float32))
        self._outside = tiled(np.add, (~target).astype(np.float32))
        self.cost = 2 * len(self._inside)

    def candidates(self, count: int, threshold: float) -> Iterator[Int64[np.ndarray, " M"]]:
        """Yield the sets of `count` prototypes whose score may be `threshold` or more, in order."""
        k, target = len(self._game), self._game._target_area
        every = combinations(range(k), count)
        while chunk := list(islice(every, _CHUNK)):
            sets = np.array(chunk, dtype=np.int64).reshape(len(chunk), count)
            if self._empty or not count:
                yield from sets
                continue
            chosen = np.zeros((len(sets), k), dtype=np.float32)
            np.put_along_axis(chosen, sets, 1, axis=1)
            lost = (chosen @ self._most < 0) @ self._inside
            added = (chosen @ self._least > 0) @ self._outside
            shared = self._game._target_area - lost
            if self._game.metric == "dice":
                best = 2 * shared / (target + shared + added) if target else np.ones(len(sets))
            else:
                best = shared / (target + added) if target else np.ones(len(sets))
            yield from sets[best >= threshold - _ROUNDING]
