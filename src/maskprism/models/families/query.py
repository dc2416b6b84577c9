"""Query masks: every query brings a vector, and its mask is that vector times a pixel embedding, whole and uncropped.

MaskFormer (Cheng et al., NeurIPS 2021), Mask2Former (CVPR 2022), RF-DETR-Seg, SAM (Kirillov et al., ICCV 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from maskprism.core.geometry import same_shape
from maskprism.core.masks import NO_CROP, sigmoid
from maskprism.core.preprocessing import IMAGENET
from maskprism.errors import ModelError
from maskprism.models.families.family import Family, Layout, Probe
from maskprism.models.families.rows import RawInstances, Thresholds, canvas_scale, corners
from maskprism.models.onnx.mask_branch import MaskBranch, described, factors

if TYPE_CHECKING:
    from jaxtyping import Float32

    from maskprism.models.families import FamilyName

    Floats = Float32[np.ndarray, "..."]

_TOLERANCE = 1e-3
"""Largest deviation of the sum of terms from the file's own logits, as a share of the largest."""
_BOXES, _CLASSES = ("dets", "box", "pred_boxes"), ("label", "class", "cls", "logits", "score", "pred_logits")
"""How exports call boxes and classes, by the beginning of the name."""
Scores = Literal["softmax", "sigmoid", "probabilities", "quality", "none"]


@dataclass(frozen=True)
class QueryLayout(Layout):
    """Where things are in the outputs of a model of query masks.

    rows_output, prototypes_output: the factors, which `branch` says how to read.

    Attributes
    ----------
    logits_output
        What they give, (B, Q, h, w).
    scores_output
        Classes (B, Q, C), or the quality of every mask (B, Q), read as `scores` says: "softmax" has "no object" as its
        last column.
    boxes_output
        Cx, cy, w, h as shares of the canvas.
    gain, bias
        The logits are gain * product + bias; a bias is one prototype more, which is 1 everywhere. first, last: of the
        queries.
    """

    branch: MaskBranch
    logits_output: int
    scores: Scores
    scores_output: int
    boxes_output: int | None
    gain: float
    bias: float
    queries: int

    @property
    def notes(self) -> tuple[str, ...]:
        """Where the masks were taken apart."""
        k = self.prototypes - self.has_bias
        notes = [f"masks: finished in the file; taken apart at {described(self.branch)}, {k} prototypes"]
        if self.has_bias:
            notes.append(f"bias: {self.bias:.6g}, kept as prototype {k}, which is 1 everywhere")
        said = {
            "softmax": "softmax of the classes, the last being no object, times the mean probability in the mask",
            "sigmoid": "sigmoid of the classes",
            "probabilities": "classes as the file gives them",
            "quality": "the quality that the file predicts for every mask; there are no classes",
            "none": "none in the file; every mask has 1",
        }
        return (*notes, f"scores: {said[self.scores]}")

    @property
    def has_bias(self) -> bool:
        """Whether the last prototype is the bias."""
        return self.bias != 0

    def grid_hw(self, shapes: Sequence[tuple[int, ...]]) -> tuple[int, int]:
        """(height, width) of the pixel embedding."""
        return shapes[self.logits_output][2], shapes[self.logits_output][3]

    def count(self, shapes: Sequence[tuple[int, ...]]) -> int:
        """Return how many queries there are."""
        return self.queries

    def read_prototypes(self, outputs: Sequence[Floats], index: int) -> Float32[np.ndarray, "K h w"]:
        """Return the pixel embedding of image `index` of the batch."""
        found = self._factors(outputs)[1][index].reshape(-1, *outputs[self.logits_output].shape[2:])
        if self.has_bias:
            found = np.concatenate([found, np.ones_like(found[:1])])
        return np.ascontiguousarray(found)

    def read_rows(
        self, outputs: Sequence[Floats], index: int, canvas_hw: tuple[int, int], keep: Thresholds
    ) -> RawInstances:
        """Return the queries of image `index` that pass `keep`, best first, once for every class above the threshold.

        There is no suppression: `keep.iou` plays no part. Queries with NaN or infinity are left out and counted.
        """
        chosen = slice(*self.branch.rows)
        vectors = self._factors(outputs)[0][index] * np.float32(self.gain)
        if self.has_bias:
            vectors = np.concatenate([vectors, np.full_like(vectors[:, :1], self.bias)], axis=1)
        vectors = vectors[chosen]
        by_class = self._scores(outputs, index, outputs[self.logits_output][index][chosen])
        boxes = None
        sound = np.isfinite(vectors).all(axis=1) & np.isfinite(by_class).all(axis=1)
        if self.boxes_output is not None:
            boxes = corners(outputs[self.boxes_output][index]) * canvas_scale(canvas_hw)
            sound &= np.isfinite(boxes).all(axis=1)
        n_not_finite = int(np.count_nonzero(~(by_class <= keep.conf).all(axis=1) & ~sound))  # NaN is not below
        above = (by_class > keep.conf) & sound[:, None]
        if keep.classes is not None:
            above &= np.isin(np.arange(by_class.shape[1]), keep.classes)
        if not keep.multi_label and self.scores != "sigmoid":
            above &= by_class == by_class.max(axis=1, keepdims=True)
        rows, classes = np.nonzero(above)
        best = np.argsort(-by_class[rows, classes], kind="stable")[: keep.max_det]
        rows, classes = rows[best], classes[best]
        return RawInstances(
            None if boxes is None else boxes[rows],
            by_class[rows, classes].astype(np.float32),
            classes.astype(np.int64),
            np.ascontiguousarray(vectors[rows]),
            None,
            n_not_finite=n_not_finite,
        )

    @property
    def score_limits(self) -> tuple[float, float]:
        """What raw scores lie between; a predicted quality is not held to 0..1, so only others are reported."""
        return (-1, 2) if self.scores == "quality" else (0, 1)

    def raw_scores(self, outputs: Sequence[Floats], index: int) -> Floats | None:
        """Probabilities or qualities of image `index` of the batch; None where a sigmoid or softmax is taken here."""
        return outputs[self.scores_output][index] if self.scores in ("probabilities", "quality") else None

    def _factors(self, outputs: Sequence[Floats]) -> tuple[Floats, Floats]:
        logits = outputs[self.logits_output]
        found = factors(
            self.branch, outputs[self.rows_output], outputs[self.prototypes_output], logits.shape[1], len(logits)
        )
        assert found is not None  # the same shapes as when the layout was found
        return found

    def _scores(self, outputs: Sequence[Floats], index: int, logits: Floats) -> Float32[np.ndarray, "Q C"]:
        if self.scores == "none":
            return np.ones((len(logits), 1), dtype=np.float32)
        found = outputs[self.scores_output][index]
        if self.scores == "quality":
            return np.minimum(found[:, None], 1)
        if self.scores == "sigmoid":
            return sigmoid(found)
        if self.scores == "probabilities":
            return found
        shares = np.exp(found - found.max(axis=1, keepdims=True))
        shares = shares[:, :-1] / shares.sum(axis=1, keepdims=True)
        inside = logits > 0
        sums = np.where(inside, sigmoid(logits), 0).sum(axis=(1, 2), dtype=np.float64)
        certain = sums / np.maximum(inside.sum(axis=(1, 2)), 1)
        return (shares * certain[:, None]).astype(np.float32)


def has_finished_masks(shapes: Sequence[tuple[int, ...]], canvas_hw: tuple[int, int]) -> bool:
    """Return whether some output could be masks of queries, (B, Q, h, w), of which others speak, (B, Q, ...) or (B, Q).

    Masks have the shape of the canvas, up to a cell.
    """
    masks = {
        shape[:2]
        for shape in shapes
        if len(shape) == 4 and min(shape[2:]) > 1 and same_shape((shape[2], shape[3]), canvas_hw)
    }
    return any(len(shape) in (2, 3) and shape[:2] in masks for shape in shapes)


def detect(probe: Probe, forced: FamilyName | None) -> tuple[Layout, Probe] | None:
    """Find the layout of a model with finished masks, whose factors it is made to show; None for any other model.

    Raises
    ------
    ModelError
        As `find_queries`.
    """
    if not has_finished_masks(probe.shapes, probe.canvas_hw) or (shown := probe.reveal()) is None:
        return None
    revealed, branch = shown
    return find_queries(revealed.outputs, revealed.names, branch, probe.label), revealed


def find_queries(outputs: Sequence[Floats], names: Sequence[str], branch: MaskBranch, label: str) -> QueryLayout:
    """Return the layout of a model whose mask branch has been revealed, from its outputs for noise.

    Raises
    ------
    ModelError
        Where the factors do not give the file's own logits: there is more between them than a sum.
    """
    places = {name: index for index, name in enumerate(names)}
    left, right, logits = (places[name] for name in branch.revealed)
    finished = outputs[logits]
    what = f"{label}: holds finished masks, and what is in front of them ({described(branch)})"
    if finished.ndim != 4:
        raise ModelError(
            f"{what} gives logits of shape {finished.shape}; expected (batch, queries, height, width). Hand the two "
            "factors to maskprism.from_arrays yourself"
        )
    batch, queries, height, width = finished.shape
    pair = factors(branch, outputs[left], outputs[right], queries, batch)
    if pair is None or pair[1].shape[2] != height * width:
        raise ModelError(
            f"{what} has factors of shape {outputs[left].shape} and {outputs[right].shape}, which are no queries and "
            f"no pixel embedding for masks of shape {finished.shape}"
        )
    sums = np.matmul(*pair).reshape(finished.shape)
    gain, bias = _line(sums, finished)
    off = float(np.abs(gain * sums + bias - finished).max(initial=0))
    if not off <= _TOLERANCE * max(float(np.abs(finished).max(initial=0)), 1e-3):
        raise ModelError(
            f"{what} is not all there is: the sum of terms is off by up to {off:.3g}, where the largest logit is "
            f"{np.abs(finished).max(initial=0):.3g}; expected logits that are the product, scaled and shifted"
        )
    kept = len(range(queries)[slice(*branch.rows)])
    own = [i for i, name in enumerate(names) if name not in branch.revealed]
    tables = [i for i in own if outputs[i].ndim == 3 and outputs[i].shape[:2] == (batch, kept)]
    boxes = [i for i in tables if outputs[i].shape[2] == 4 and (_are_shares(outputs[i]) or _called(names[i], _BOXES))]
    boxes = boxes if len(boxes) < 2 else [i for i in boxes if _called(names[i], _BOXES)]
    classes = [i for i in tables if i not in boxes]
    classes = classes if len(classes) < 2 else [i for i in classes if _called(names[i], _CLASSES)]
    if len(boxes) > 1 or (len(tables) > len(boxes) and len(classes) != 1):
        raise ModelError(
            f"{label}: outputs {', '.join(repr(names[i]) for i in tables)} could each be the boxes or the classes of "
            "its queries; name them dets and labels when exporting"
        )
    if boxes and not _are_shares(outputs[boxes[0]]):
        raise ModelError(
            f"{label}: boxes of its queries ({names[boxes[0]]!r}) go from {outputs[boxes[0]].min():.3g} to "
            f"{outputs[boxes[0]].max():.3g}; expected cx, cy, w, h as shares of the canvas"
        )
    qualities = [i for i in own if outputs[i].shape == (batch, kept)]
    scores: Scores = "none"
    if classes:
        scores = _how(outputs[classes[0]], bool(boxes))
    elif qualities:
        scores = "quality"
    columns = outputs[classes[0]].shape[2] if classes else 1
    return QueryLayout(
        family="query",
        rows_output=left,
        prototypes_output=right,
        channels_last=True,
        prototypes_last=False,
        classes=columns - (scores == "softmax"),
        prototypes=pair[0].shape[2] + (bias != 0),
        branch=branch,
        logits_output=logits,
        scores=scores,
        scores_output=(classes or qualities or [0])[0],
        boxes_output=boxes[0] if boxes else None,
        gain=gain,
        bias=bias,
        queries=kept,
    )


def _line(sums: Floats, finished: Floats) -> tuple[float, float]:
    """Gain and bias that make the logits of the sums, by least squares; 1 and 0 where it is that to within rounding."""
    x, y = sums.astype(np.float64).ravel(), finished.astype(np.float64).ravel()
    spread = x - x.mean()
    gain = float(spread @ (y - y.mean()) / (spread @ spread)) if spread.any() else 1.0
    gain = 1.0 if abs(gain - 1) < 1e-4 else gain
    bias = float((y - gain * x).mean())
    return gain, 0.0 if abs(bias) < 1e-5 * np.abs(y).max() else bias


def _called(name: str, words: tuple[str, ...]) -> bool:
    return name.lower().lstrip("/").startswith(words)


def _are_shares(table: Floats) -> bool:
    return bool(table.min(initial=0) >= 0 and table.max(initial=0) <= 1)


def _how(table: Floats, with_boxes: bool) -> Scores:
    """Return how classes are read.

    Models with boxes (RF-DETR) have a sigmoid each, those without "no object" at the end.
    """
    if table.size and table.min() >= 0 and table.max() <= 1:
        return "probabilities"
    return "sigmoid" if with_boxes else "softmax"


FAMILY = Family(
    "query",
    "finished masks that are a product of queries and a pixel embedding, taken apart inside the file (Mask2Former, "
    "RF-DETR, SAM; in ONNX Runtime only)",
    detect,
    rule=NO_CROP,
    preprocessing=IMAGENET,
    keep=Thresholds(conf=0.5, max_det=100),
    rewritable=False,
)
