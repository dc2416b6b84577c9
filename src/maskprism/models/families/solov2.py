"""SOLOv2: a kernel for every cell of five grids, masks that are kernels times mask features, Matrix NMS.

From Wang et al., "SOLOv2: Dynamic and Fast Instance Segmentation" (NeurIPS 2020), sections 3.2 and 3.3. Packed exports
are read: a table of scores (after points NMS), one of kernels of 1 x 1, and the mask features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from maskprism.core.geometry import same_shape
from maskprism.core.masks import NO_CROP, sigmoid
from maskprism.core.preprocessing import IMAGENET
from maskprism.errors import ModelError
from maskprism.models.families.family import Family, Layout, Probe
from maskprism.models.families.rows import RawInstances, Thresholds

if TYPE_CHECKING:
    from jaxtyping import Bool, Float32, Int64

    from maskprism.models.families import FamilyName

    Floats = Float32[np.ndarray, "..."]

GRIDS = (40, 36, 24, 16, 12)
"""Cells per side of each level, the finest first; all published configurations have these."""
STRIDES = (8, 8, 16, 32, 32)
"""A mask of a level must have more pixels than its stride, at prototype resolution."""
SIGMA = 2.0
"""Of the Gaussian by which Matrix NMS lowers scores."""
_MOST = 500
_CELLS = sum(side**2 for side in GRIDS)


@dataclass(frozen=True)
class Solov2Layout(Layout):
    """Where things are in the outputs of a SOLOv2: rows are kernels, prototypes are mask features.

    Parameters
    ----------
    scores_output
        Index of the table of scores, one row per cell.
    """

    scores_output: int

    @property
    def notes(self) -> tuple[str, ...]:
        """How scores are made."""
        return ("scores: of the class, times the mean probability in the mask, lowered by Matrix NMS",)

    def count(self, shapes: Sequence[tuple[int, ...]]) -> int:
        """Return how many cells there are."""
        return shapes[self.rows_output][0]

    def level_ends(self, count: int, canvas_hw: tuple[int, int]) -> tuple[int, ...] | None:
        """Return where each grid ends among the cells."""
        return tuple(np.cumsum(np.square(GRIDS)).tolist())

    def raw_scores(self, outputs: Sequence[Floats], index: int) -> Floats | None:
        """Return the scores of all cells; such exports take one image at a time."""
        return outputs[self.scores_output]

    def read_rows(
        self, outputs: Sequence[Floats], index: int, canvas_hw: tuple[int, int], keep: Thresholds
    ) -> RawInstances:
        """Return the masks that pass `keep` after Matrix NMS, best first.

        `keep.iou` and `keep.agnostic` play no part.

        A score is only ever lowered, and only by better ones, so cells at or below `keep.conf` need no mask.
        """
        scores, kernels = outputs[self.scores_output], outputs[self.rows_output]
        cells, classes = np.nonzero(~(scores <= keep.conf))  # NaN is not known to be below
        sound = np.isfinite(scores[cells, classes]) & np.isfinite(kernels[cells]).all(axis=1)
        n_not_finite = len(cells) - int(np.count_nonzero(sound))
        cells, classes = cells[sound], classes[sound]
        if keep.classes is not None:
            wanted = np.isin(classes, keep.classes)
            cells, classes = cells[wanted], classes[wanted]
        levels = np.searchsorted(self.level_ends(0, canvas_hw) or (), cells, side="right")
        features = self.read_prototypes(outputs, index)
        values = sigmoid(kernels[cells] @ features.reshape(len(features), -1))
        masks = values > np.float32(0.5)
        areas = masks.sum(axis=1)
        rescored = scores[cells, classes] * (values * masks).sum(axis=1) / np.maximum(areas, 1)
        large = np.flatnonzero(areas > np.array(STRIDES)[levels])
        best = large[np.argsort(-rescored[large], kind="stable")][:_MOST]
        lowered = rescored[best] * matrix_nms(masks[best], classes[best])
        order = np.argsort(-lowered, kind="stable")
        order = order[lowered[order] > keep.conf][: keep.max_det]
        chosen = best[order]
        return RawInstances(
            None,
            lowered[order].astype(np.float32),
            classes[chosen],
            kernels[cells[chosen]],
            None,
            levels[chosen],
            n_not_finite,
        )


def matrix_nms(masks: Bool[np.ndarray, "N S"], classes: Int64[np.ndarray, " N"]) -> Float32[np.ndarray, " N"]:
    """By how much the score of each mask is lowered: section 3.3, equation 5, with a Gaussian.

    Parameters
    ----------
    masks
        Flat, the best first.
    classes
        A mask is lowered by better ones of its class only.

    Returns
    -------
    numpy.ndarray
        Factors, 0 to 1; 1 for masks that overlap no better one.
    """
    if not len(masks):
        return np.ones(0, dtype=np.float32)
    flat = masks.astype(np.float32)
    shared = flat @ flat.T
    areas = np.diagonal(shared)
    iou = shared / np.maximum(areas[:, None] + areas[None] - shared, 1)
    iou = np.triu(iou * (classes[:, None] == classes[None]), k=1)  # rows: the better one
    own = iou.max(axis=0)  # how much each of the better ones is overlapped itself
    return np.exp(SIGMA * (own[:, None] ** 2 - iou**2)).min(axis=0)


def detect(probe: Probe, forced: FamilyName | None) -> tuple[Layout, Probe] | None:
    """Find the layout of a SOLOv2; None for any other model.

    Raises
    ------
    ModelError
        If there are as many classes as kernel parameters, and names do not tell the two tables apart.
    """
    shapes = probe.shapes
    tables = [index for index, shape in enumerate(shapes) if len(shape) == 2 and shape[0] == _CELLS]
    maps = [
        index
        for index, shape in enumerate(shapes)
        if len(shape) == 4 and shape[0] == 1 and same_shape((shape[2], shape[3]), probe.canvas_hw)
    ]
    if len(tables) != 2 or len(maps) != 1:
        return None
    k = shapes[maps[0]][1]
    kernels = [index for index in tables if shapes[index][1] == k]
    if len(kernels) == 2:
        kernels = [index for index in kernels if index < len(probe.names) and probe.names[index].startswith("kernel")]
    if len(kernels) != 1:
        if not any(shapes[index][1] == k for index in tables):
            return None
        raise ModelError(
            f"{probe.label}: looks like a SOLOv2 with as many classes as kernel parameters, {k}; name its outputs "
            "cate_pred, kernel_pred and seg_pred when exporting"
        )
    (scores,) = (index for index in tables if index not in kernels)
    layout = Solov2Layout(
        "solov2", kernels[0], maps[0], True, False, classes=shapes[scores][1], prototypes=k, scores_output=scores
    )
    return layout, probe


FAMILY = Family(
    "solov2",
    f"scores ({_CELLS}, classes), kernels ({_CELLS}, K), and mask features (1, K, h, w) (SOLOv2)",
    detect,
    rule=replace(NO_CROP, name="solov2", squash=True, size="image"),
    preprocessing=replace(
        IMAGENET,
        name="solov2",
        resize="corner",
        scale=1,
        mean=(123.675, 116.28, 103.53),
        std=(58.395, 57.12, 57.375),
    ),
    keep=Thresholds(conf=0.25, max_det=100),
    rewritable=False,
)
