"""What comparing two models found: numbers, and a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from maskprism._common.text import counted
from maskprism.analysis.comparison.causes import Cause, causes_of
from maskprism.analysis.comparison.part_swaps import PARTS
from maskprism.analysis.comparison.relations import NO_RELATION, Relation, all_prototypes_differ
from maskprism.analysis.intervals import claimed_interval
from maskprism.analysis.truth.gains import Gains
from maskprism.analysis.verdicts import Check, Verdict
from maskprism.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float64, UInt8

    from maskprism.analysis.comparison.input_faults import InputFault
    from maskprism.analysis.comparison.logit_drift import LogitDrift
    from maskprism.analysis.comparison.part_swaps import Part
    from maskprism.analysis.comparison.similarity import PrototypeSimilarity
    from maskprism.core.prediction import Instance
    from maskprism.models import ModelSpec
    from maskprism.models.onnx.weights import ChangedWeights

Status = Literal["matched", "class changed", "only in A", "only in B"]
_FIELDS = {
    "image": pa.string(),
    "status": pa.string(),
    "instance_a": pa.int32(),
    "instance_b": pa.int32(),
    "class_a": pa.string(),
    "class_b": pa.string(),
    "level_a": pa.int32(),
    "level_b": pa.int32(),
    "score_a": pa.float32(),
    "score_b": pa.float32(),
    "box_iou": pa.float32(),
    "mask_iou": pa.float64(),
    **{part: pa.float64() for part in PARTS},
    **{f"path_{part}": pa.float64() for part in PARTS},
    "coefficient_change": pa.float64(),
    "own_canvas_iou": pa.float64(),
    "truth_iou_a": pa.float64(),
    "truth_iou_b": pa.float64(),
    "truth_area": pa.int64(),
}
INSTANCES = pa.schema(_FIELDS)
"""One row per instance: matched pairs, pairs of one place and two classes, and unmatched instances.

level_a, level_b: of the pyramid, 0 for the finest; missing where the outputs do not tell.
mask_iou: on the same canvas, if the models could be brought onto one. coefficients, prototypes,
boxes: the parts of 1 - mask_iou, mean over all orders; path_...: in that one order. coefficient_change: distance
of B's coefficients from A's, over the size of A's; only for as many prototypes. own_canvas_iou:
mask IoU of the pair when each model chooses its own canvas. truth_iou_a, truth_iou_b: mask IoU of A and B with the
ground-truth instance that A found, as large as the model sees it; truth_area: its pixels in the image.
"""

_COMPARED = ("mask_iou", "box_iou", "score_a", "score_b", "coefficient_change")
_EQUAL_INSTANCES = 1e-3
"""Masks, boxes, scores and coefficients of equal instances differ by less than this."""
_MOST_OF_LEVEL, _FEW_OF_OTHERS = 0.5, 0.05
"""Shares of differing instances: of a damaged level at least, of all other levels at most."""


@dataclass(frozen=True)
class Tolerance:
    """How far B may be from A on the same canvas.

    Attributes
    ----------
    min_iou
        The mean mask IoU of matched instances, at least.
    max_unmatched
        The share of instances unmatched in their class, at most.
    max_score_drift
        The mean |difference| of scores of matched instances, at most. The defaults are for exports in float; int8 needs
        more room.
    """

    min_iou: float = 0.99
    max_unmatched: float = 0.01
    max_score_drift: float = 0.01

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0 <= value <= 1:
                raise InputError(f"{name} is {value}; expected 0 to 1")


class LevelDamage(NamedTuple):
    """A level of the pyramid, 0 for the finest, whose instances alone differ; and how many there are elsewhere."""

    level: int
    differing: int
    others: int


class Case(NamedTuple):
    """One pair of instances to look at; the image is BGR, as large as the model saw it."""

    name: str
    image: UInt8[np.ndarray, "H W 3"]
    a: Instance
    b: Instance
    mask_iou: float


class TruthCase(NamedTuple):
    """One pair of instances and the ground-truth instance that A found; frames as in `Case`."""

    name: str
    image: UInt8[np.ndarray, "H W 3"]
    a: Instance
    b: Instance
    true: Bool[np.ndarray, "H W"]
    before: float
    after: float


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two models on the same images, A being what B should be.

    Attributes
    ----------
    images
        How many images were compared.
    failed
        Why others were not, by name.
    forced
        Which model was given another canvas than its own so that both have the same.
    same_canvas
        Whether they had the same on all images.
    similarity
        Similarity of their prototypes.
    instances
        A table with the columns of INSTANCES.
    drift
        Which prototypes changed; None if the models have no common basis.
    own_unmatched
        Unmatched instances when each model chooses its own canvas; None if that is the same.
    worst
        The pairs with the lowest mask IoU, lowest first; equal ones left out.
    gained, lost
        The pairs whose IoU with the ground truth rises or falls most from A to B, most first.
    moved_classes
        B's class by A's class, where instances show that it is not the one of the same name.
    relation
        What the outputs have in common.
    input_fault
        The change of A's input that gives what B says.
    failed_in
        Images that could be read and on which a model failed, by the model.
    rule_loss
        1 - IoU of B's masks under its own rule with those under the rule of A, the mean over pairs; 0 for one rule.
    weights
        Which weights differ, of two ONNX files of one model; None for others, and without the package onnx.
    """

    a: ModelSpec
    b: ModelSpec
    images: int
    failed: Mapping[str, str]
    forced: Literal["A", "B"] | None
    same_canvas: bool
    similarity: PrototypeSimilarity
    instances: pa.Table
    drift: LogitDrift | None
    own_unmatched: int | None
    worst: tuple[Case, ...]
    gained: tuple[TruthCase, ...] = ()
    lost: tuple[TruthCase, ...] = ()
    moved_classes: Mapping[int, int] = field(default_factory=dict)
    relation: Relation = NO_RELATION
    input_fault: InputFault | None = None
    failed_in: Mapping[str, frozenset[Literal["A", "B"]]] = field(default_factory=dict)
    rule_loss: float = 0.0
    weights: ChangedWeights | None = None

    @cached_property
    def causes(self) -> list[Cause]:
        """Why they differ, as far as it was recognised; the one that explains most first."""
        return causes_of(self)

    def count(self, status: Status) -> int:
        """Return how many rows of `instances` have that status."""
        return int(pc.sum(pc.equal(self.instances["status"], status)).as_py() or 0)

    @cached_property
    def matched(self) -> pa.Table:
        """The rows of `instances` that are pairs of one class."""
        return self.instances.filter(pc.equal(self.instances["status"], "matched"))

    @property
    def ious(self) -> Float64[np.ndarray, " M"]:
        """Mask IoU of every matched pair on the same canvas."""
        return np.asarray(self.matched["mask_iou"])

    @property
    def mean_iou(self) -> float:
        """The mean of `ious`; NaN without a pair."""
        return _mean(self.matched["mask_iou"])

    @property
    def score_drifts(self) -> Float64[np.ndarray, " M"]:
        """Score in B minus score in A of every matched pair."""
        return np.asarray(self.matched["score_b"], np.float64) - np.asarray(self.matched["score_a"], np.float64)

    @property
    def unmatched_share(self) -> float:
        """The share of all instances of A and B unmatched in their class; NaN without any."""
        apart = self.count("only in A") + self.count("only in B") + 2 * self.count("class changed")
        total = apart + 2 * self.count("matched")
        return apart / total if total else float("nan")

    @property
    def shares(self) -> dict[Part, float]:
        """Mean over matched pairs of the part of 1 - IoU that each exchange causes, over all orders; sums to it."""
        return {part: _mean(self.matched[part]) for part in PARTS}

    @property
    def path(self) -> dict[Part, float]:
        """The same along one path: first the coefficients of B, then its prototypes, then its boxes."""
        return {part: _mean(self.matched[f"path_{part}"]) for part in PARTS}

    @property
    def responsible(self) -> Part | None:
        """The part that causes most of the difference of masks.

        None if there is no pair, or no difference, or all parts differ because of something before the head.
        """
        shares = self.shares
        worst: Part = max(PARTS, key=lambda part: shares[part])
        return worst if self.mean_iou < 1 and not self.before_head else None

    @property
    def before_head(self) -> bool:
        """Whether the difference begins before the head: all prototypes differ, and scores, boxes and coefficients.

        That is so with a fault of the input or the backbone, or if the precision of the whole model is another. It is
        not said of models whose prototypes have nothing in common, or that see different canvases.
        """
        together = self.relation.all_differ and all_prototypes_differ(self.similarity)
        return self.input_fault is not None or (together and self.similarity.shared and self.same_canvas)

    @property
    def damaged_level(self) -> LevelDamage | None:
        """The one level of the pyramid whose instances differ, if those of all other levels are equal."""
        rows = self.instances.filter(pc.is_valid(self.instances["level_a"]))
        if not len(rows):
            return None
        column = {name: np.asarray(rows[name], dtype=np.float64) for name in ("level_a", *_COMPARED)}
        equal = (
            (column["mask_iou"] > 1 - _EQUAL_INSTANCES)
            & (column["box_iou"] > 1 - _EQUAL_INSTANCES)
            & (np.abs(column["score_a"] - column["score_b"]) < _EQUAL_INSTANCES)
            & ~(column["coefficient_change"] >= _EQUAL_INSTANCES)
        )
        levels = column["level_a"].astype(np.int64)
        shares = {level: float(np.mean(~equal[levels == level])) for level in np.unique(levels).tolist()}
        damaged = max(shares, key=lambda level: shares[level])
        others = ~equal[levels != damaged]
        if shares[damaged] < _MOST_OF_LEVEL or not len(others) or others.mean() > _FEW_OF_OTHERS:
            return None
        return LevelDamage(damaged, int(np.count_nonzero(~equal[levels == damaged])), len(others))

    @property
    def on_both(self) -> pa.Table:
        """The matched pairs that are found on the same canvas and on the own ones as well."""
        return self.matched.filter(pc.is_valid(self.matched["own_canvas_iou"]))

    @property
    def budget(self) -> dict[str, float]:
        """The mean loss of IoU from A to B as each runs by itself, split: letterbox, then the three parts.

        Where no canvas was forced there is no letterbox, and this is `shares`; otherwise the mean is
        over `on_both`. Sums to the loss.
        """
        if self.forced is None:
            return {str(part): share for part, share in self.shares.items()}
        rows = self.on_both
        letterbox = _mean(rows["mask_iou"]) - _mean(rows["own_canvas_iou"])
        return {"letterbox": letterbox, **{part: _mean(rows[part]) for part in PARTS}}

    @property
    def letterbox_share(self) -> float | None:
        """The share of the mask difference on the own canvases that is gone on the same canvas.

        None where no canvas was forced, no pair exists on both, or masks do not differ.
        """
        total = sum(self.budget.values())
        return self.budget["letterbox"] / total if self.forced and total > 0 else None

    @property
    def own_iou(self) -> float | None:
        """The mean mask IoU of `on_both` when each model chooses its own canvas."""
        return _mean(self.on_both["own_canvas_iou"]) if len(self.on_both) else None

    @cached_property
    def gains(self) -> Gains | None:
        """Mask IoU with the ground truth in A and in B of the matched pairs that have one; None without any."""
        rows = self.matched.filter(pc.is_valid(self.matched["truth_iou_a"]))
        if not len(rows):
            return None
        return Gains(
            image=np.unique(np.asarray(rows["image"].to_pylist(), dtype=object), return_inverse=True)[1],
            before=np.asarray(rows["truth_iou_a"]),
            after=np.asarray(rows["truth_iou_b"]),
            areas=np.asarray(rows["truth_area"]),
            classes=rows["class_a"].to_pylist(),
        )

    def violations(self, tolerance: Tolerance) -> list[str]:
        """Return what is out of tolerance, a line each; where nothing is matched, that is."""
        if not len(self.matched):
            if self.input_fault is not None:
                return [f"no instance of A is matched in B: in the input of B {self.input_fault.name}"]
            return ["no instance of A is matched in B, so nothing can be judged; more images or a lower --conf"]
        drift = float(np.abs(self.score_drifts).mean())
        found = [
            f"{network} alone fails on {counted(count, 'image')}"
            for network in ("A", "B")
            if (count := sum(sides == {network} for sides in self.failed_in.values()))
        ]
        if self.moved_classes:
            found.append(f"{len(self.moved_classes)} classes have other names in B")
        if self.mean_iou < tolerance.min_iou:
            found.append(f"mean mask IoU is {self.mean_iou:.4f} (expected at least {tolerance.min_iou:g})")
        if self.unmatched_share > tolerance.max_unmatched:
            found.append(
                f"{self.unmatched_share:.4f} of the instances are unmatched (expected at most "
                f"{tolerance.max_unmatched:g})"
            )
        if drift > tolerance.max_score_drift:
            found.append(f"scores differ by {drift:.4f} on average (expected at most {tolerance.max_score_drift:g})")
        return found

    def checks(self, tolerance: Tolerance) -> list[Check]:
        """Return the three numbers with their tolerances, and intervals over images that hold together.

        None where nothing is matched.
        """
        if not len(self.matched):
            return []
        rows, matched = self.instances, self.matched
        weights = {"matched": 2, "class changed": 2}
        status = rows["status"].to_pylist()
        apart = np.repeat(
            [float(one != "matched") for one in status],
            repeats := [weights.get(one, 1) for one in status],
        )
        images = np.array(rows["image"].to_pylist(), dtype=object)
        of_matched = matched["image"].to_pylist()
        mask_iou, unmatched, drift = (
            claimed_interval(values, of, comparisons=3)
            for values, of in (
                (self.ious, of_matched),
                (apart, np.repeat(images, repeats).tolist()),
                (np.abs(self.score_drifts), of_matched),
            )
        )
        return [
            Check.of("mean mask IoU", mask_iou, "at least", tolerance.min_iou),
            Check.of("share of unmatched instances", unmatched, "at most", tolerance.max_unmatched),
            Check.of("mean difference of scores", drift, "at most", tolerance.max_score_drift),
        ]

    def verdict(self, tolerance: Tolerance) -> Verdict:
        """Return whether B is within the tolerance: what the exit code of `maskprism compare` says, and how surely.

        Out of tolerance on these images is "fail", within it "pass". Where an interval holds its tolerance, other
        images may tell otherwise, and the outcome is "cannot tell".
        """
        violations, checks = self.violations(tolerance), self.checks(tolerance)
        code = "exit code 3" if violations else "exit code 0"
        unsure = [check.title for check in checks if check.outcome == "cannot tell"]
        beyond = [check.title for check in checks if not check.holds(check.value)]
        others = violations[: len(violations) - len(beyond)]
        sure = any(check.outcome == "fail" for check in checks) or bool(others)
        here = "; ".join([*others, *[f"beyond the tolerance: {', '.join(beyond)}"] * bool(beyond)])
        if not len(self.instances):
            return Verdict("cannot tell", f"{'; '.join(violations)} ({code})")
        if unsure and not sure:
            return Verdict(
                "cannot tell",
                f"{here or 'within the tolerance'} on these images ({code}), but the interval of the "
                f"{' and the '.join(unsure)} holds the tolerance: other images may tell otherwise",
                checks,
            )
        if violations:
            return Verdict("fail", f"{here} ({code})", checks)
        return Verdict("pass", f"the same within the tolerance ({code})", checks)

    def as_dict(self, tolerance: Tolerance | None = None) -> dict[str, Any]:
        """Everything but the rows, for `json_text`; with the verdict if a tolerance is given."""
        statuses: tuple[Status, ...] = ("matched", "class changed", "only in A", "only in B")
        ious, drifts = self.ious, np.abs(self.score_drifts)
        found: dict[str, Any] = {
            "a": _spec(self.a),
            "b": _spec(self.b),
            "images": self.images,
            "failed": dict(self.failed),
            "same_canvas": self.same_canvas,
            "forced": self.forced,
            "instances": {status: self.count(status) for status in statuses},
            "unmatched_share": self.unmatched_share,
            "score_drift": {"mean": drifts.mean(), "largest": drifts.max()} if len(drifts) else None,
            "mask_iou": {"mean": ious.mean(), "median": np.median(ious), "worst": ious.min()} if len(ious) else None,
            "parts": self.shares,
            "responsible": self.responsible,
            "path": self.path,
            "own_canvas": {
                "mask_iou": self.own_iou,
                "letterbox_share": self.letterbox_share,
                "unmatched": self.own_unmatched,
            }
            if self.forced
            else None,
            "prototypes": _prototypes(self.similarity),
            "drift": _drift(self.drift) if self.drift else None,
            "truth": _truth(self.gains) if self.gains else None,
            "moved_classes": [
                {"a": a, "name_a": self.a.names.get(a), "b": b, "name_b": self.b.names.get(b)}
                for a, b in self.moved_classes.items()
            ],
            "before_head": self.before_head,
            "input_fault": None if self.input_fault is None else asdict(self.input_fault),
            "damaged_level": None if (level := self.damaged_level) is None else level._asdict(),
            "relation": self.relation.as_dict(),
            "rule_loss": self.rule_loss,
            "changed_weights": None if self.weights is None else [one._asdict() for one in self.weights.changed],
            "causes": [one._asdict() for one in self.causes],
        }
        if tolerance is not None:
            violations = self.violations(tolerance)
            found["tolerance"] = {**asdict(tolerance), "within": not violations, "violations": violations}
            found["verdict"] = self.verdict(tolerance)
        return found


def _mean(column: pa.ChunkedArray) -> float:
    return float(np.mean(np.asarray(column))) if len(column) else float("nan")


def _spec(spec: ModelSpec) -> dict[str, Any]:
    kept = ("name", "runtime", "layout", "input_hw", "rectangular", "prototypes", "version", "sha256")
    return {**{name: getattr(spec, name) for name in kept}, "rule": spec.rule.name}


def _truth(gains: Gains) -> dict[str, Any]:
    return {
        "all": gains.change.as_dict(),
        "by_size": [one.as_dict() for one in gains.by_size()],
        "by_class": [one.as_dict() for one in gains.by_class()],
    }


def _prototypes(similarity: PrototypeSimilarity) -> dict[str, Any]:
    return {
        "shared_basis": similarity.shared,
        "cka": similarity.cka,
        "principal_angles_deg": similarity.angles_deg.tolist(),
        "explained": {"a_by_b": similarity.explained[0], "b_by_a": similarity.explained[1]},
        "pairs": [
            {"a": int(a), "b": int(b), "correlation": float(similarity.correlation[a, b])} for a, b in similarity.pairs
        ],
        "errors": similarity.errors.tolist() if similarity.shared else None,
    }


def _drift(drift: LogitDrift) -> dict[str, Any]:
    columns = {name: [float(value) for value in column] for name, column in drift.as_columns().items()}
    return {"flipped_cells": drift.flipped_cells, "worst": drift.worst().tolist(), **columns}
