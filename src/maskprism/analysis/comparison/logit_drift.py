"""Which prototypes changed the logits between two versions of one model, and which of them flipped pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from maskprism.analysis.comparison.similarity import on_grid
from maskprism.core.masks import pixels_between

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jaxtyping import Float32, Float64, Int64

    from maskprism.core.prediction import Prediction

    Terms = Float32[np.ndarray, "K h w"]


class LogitDrift:
    """The change of every term c_k P_k from model A to B, over the boxes of many pairs of instances.

    A term changes because its coefficient does and because its prototype does:
    c'P' - cP = (c' - c)(P + P')/2 + (c + c')/2 (P' - P), exactly. Both models need the same basis.
    """

    def __init__(self, prototypes: int) -> None:
        self.instances = 0
        self.flipped_cells = 0
        self._changes = np.zeros((3, prototypes))  # of the term, by its coefficient, by its prototype
        self._flips = np.zeros(prototypes)

    def update(self, a: Prediction, b: Prediction) -> None:
        """Add the N instances of A and the same N instances of B on one image."""
        theirs = on_grid(b.prototypes, b.letterbox, a.letterbox)
        corners = b.letterbox.to_image(b.extents)
        boxes_b = a.letterbox.to_grid(a.letterbox.to_canvas(corners))
        boxes_a = a.letterbox.to_grid(a.extents)
        boxes = np.concatenate([np.minimum(boxes_a, boxes_b)[:, :2], np.maximum(boxes_a, boxes_b)[:, 2:]], axis=1)
        height, width = a.letterbox.grid_hw
        for box, old, new in zip(boxes, a.weights, b.weights, strict=True):
            rows, columns = pixels_between(box[1], box[3], height), pixels_between(box[0], box[2], width)
            if rows.stop > rows.start and columns.stop > columns.start:
                self._add_terms(old, new, a.prototypes[:, rows, columns], theirs[:, rows, columns])

    def _add_terms(self, c: Float32[np.ndarray, " K"], d: Float32[np.ndarray, " K"], p: Terms, q: Terms) -> None:
        """Add one instance: coefficients c become d, prototypes p become q."""
        self.instances += 1
        size_of_means = np.abs(p + q).mean(axis=(1, 2), dtype=np.float64) / 2
        size_of_changes = np.abs(q - p).mean(axis=(1, 2), dtype=np.float64)
        change = d[:, None, None] * q - c[:, None, None] * p
        self._changes[0] += np.abs(change).mean(axis=(1, 2), dtype=np.float64)
        self._changes[1] += np.abs(d - c) * size_of_means
        self._changes[2] += np.abs(c + d) / 2 * size_of_changes
        before, after = np.tensordot(c, p, axes=1), np.tensordot(d, q, axes=1)
        flipped = (before > 0) != (after > 0)
        self.flipped_cells += int(np.count_nonzero(flipped))
        self._flips += change[:, flipped] @ np.sign(after - before)[flipped]

    @property
    def changes(self) -> Float64[np.ndarray, " K"]:
        """Mean |change| of each term within the boxes, in logits; the mean over instances."""
        return self._changes[0] / max(self.instances, 1)

    @property
    def by_coefficients(self) -> Float64[np.ndarray, " K"]:
        """The same of the part that the coefficients make."""
        return self._changes[1] / max(self.instances, 1)

    @property
    def by_prototypes(self) -> Float64[np.ndarray, " K"]:
        """The same of the part that the prototypes make."""
        return self._changes[2] / max(self.instances, 1)

    @property
    def blame(self) -> Float64[np.ndarray, " K"]:
        """Share of each prototype in the change of the logit at all cells where its sign flips.

        Sums to 1; negative for prototypes that held against the change. All 0 where no cell flips.
        """
        total = self._flips.sum()
        return self._flips / total if total > 0 else np.zeros_like(self._flips)

    def worst(self) -> Int64[np.ndarray, " K"]:
        """Prototype indices, the one that changes most cells first; by mean |change| where no cell flips."""
        return np.argsort(-(self.blame if self.flipped_cells else self.changes), kind="stable")

    def as_columns(self) -> dict[str, Iterable[float]]:
        """Columns by name, one value per prototype."""
        return {
            "change": self.changes,
            "by_coefficient": self.by_coefficients,
            "by_prototype": self.by_prototypes,
            "blame": self.blame,
        }
