"""The labels to look at first, by a score that learns nothing: what `diagnose` can say without corrupted copies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from maskprism.analysis.labels.features import MIN_SCORE, ImageEvidence, outline_features
from maskprism.analysis.labels.reasons import overlap_clause

if TYPE_CHECKING:
    from jaxtyping import Float64

    from maskprism.analysis.truth.overlaps import Overlaps, Region
    from maskprism.datasets import GroundTruth

SHOWN_LABELS = 10
_LEAST_PER_SHOWN = 10
"""Labels for each that is shown: of few labels, most are right."""


class LabelOutline(NamedTuple):
    """One label with what is measured of it.

    Attributes
    ----------
    label_id
        Its annotation id or line number.
    mask_iou
        With the detection that overlaps most, of any class.
    doubts
        1 - mask IoU, and how little the outline lies on edges: of the prototypes (contrast of its two sides, strength
        on it against beside it) and of the colours. NaN where it cannot be measured.
    """

    image: str
    label_id: int | str
    class_name: str
    mask_iou: float
    doubts: tuple[float, ...]

    @property
    def reason(self) -> str:
        """What is known of it, in one sentence."""
        return overlap_clause(self.mask_iou)


def label_outlines(
    evidence: ImageEvidence, truth: GroundTruth, masks: Sequence[Region], overlaps: Overlaps, name: str
) -> Iterator[LabelOutline]:
    """Measure the labels of an image; crowds and labels without a mask are left out.

    Parameters
    ----------
    evidence
        Of the image.
    truth, masks
        Its labels, and their masks in pixels of the letterboxed input.
    overlaps
        Of its detections with the labels.
    name
        Of the image.
    """
    seen = overlaps.iou[overlaps.scores >= MIN_SCORE]
    for index, mask in enumerate(masks):
        if truth.crowd[index] or truth.box_only[index] or not mask.area:
            continue
        iou = float(seen[:, index].max(initial=0.0))
        measured = outline_features(evidence, mask)
        edges = ("prototype_contrast", "prototype_edge_peak", "colour_edge_weakest")
        label_id = truth.label_ids[index] if truth.label_ids else index
        doubts = (1 - iou, *(-measured[edge] for edge in edges))
        yield LabelOutline(name, label_id, truth.name_of(int(truth.classes[index])), iou, doubts)


def most_doubtful(labels: Sequence[LabelOutline]) -> list[LabelOutline]:
    """Return the labels with the highest mean rank of all doubts: ten, or one for each ten labels.

    Parameters
    ----------
    labels
        Of the whole data set. What cannot be measured of one counts as the middle.
    """
    shown = min(SHOWN_LABELS, len(labels) // _LEAST_PER_SHOWN)
    if not shown:
        return []
    ranks = _ranks(np.array([label.doubts for label in labels], dtype=np.float64)).mean(axis=1)
    return [labels[place] for place in np.argsort(-ranks, kind="stable")[:shown]]


def _ranks(doubts: Float64[np.ndarray, "N D"]) -> Float64[np.ndarray, "N D"]:
    """Return of each doubt the share of labels that have less of it, or half of those with as much."""
    ranks = np.full(doubts.shape, 0.5)
    for column, values in enumerate(doubts.T):
        known = np.sort(values[~np.isnan(values)])
        if len(known):
            places = np.searchsorted(known, values) + np.searchsorted(known, values, "right")
            ranks[:, column] = np.where(np.isnan(values), 0.5, places / 2 / len(known))
    return ranks
