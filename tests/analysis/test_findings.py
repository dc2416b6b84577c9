"""All claims of a diagnosis together: none of data in which nothing is true, and each of data in which it is."""

from __future__ import annotations

from dataclasses import fields
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest

from maskprism.analysis import intervals
from maskprism.analysis.dataset.ap_bootstrap import ap_intervals
from maskprism.analysis.dataset.coco_ap import average_precision
from maskprism.analysis.dataset.diagnosis import FoundObject
from maskprism.analysis.dataset.findings import RULES, Finding, RuleName, findings_of
from maskprism.analysis.dataset.oracles import with_perfect_detection
from maskprism.analysis.dataset.tide import error_cost
from maskprism.analysis.truth.error_budget import PARTS, THRESHOLDS, ErrorBudget, InstanceBudget
from maskprism.analysis.truth.matching import find_errors
from maskprism.analysis.truth.overlaps import Overlaps

SHUFFLES = 50
IMAGES = 44
BLANK: dict[str, Any] = {
    one.name: {"str": "", "int": 0, "float": 0.0}.get(str(one.type)) for one in fields(InstanceBudget)
}


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many beyond the farthest tail as always."""
    monkeypatch.setattr(intervals, "_RESAMPLES", 500)
    monkeypatch.setattr(intervals, "_FARTHEST_TAIL", 0.05)


class Drawn:
    """One image: its labels, its detections, and the numbers of its masks. Nothing depends on anything.

    Instances of an image are alike, classes are dealt to whole images, and so are the order in which parts of the model
    lose, the kind of all wrong detections, and which decode is good. `true` names what is made to hold all the same.
    """

    def __init__(
        self, rng: np.random.Generator, shapes: np.random.Generator, number: int, true: frozenset[str]
    ) -> None:
        count = int(rng.integers(1, 5))
        shift = rng.normal(0, 0.1) - 0.25 * ("class" in true and number % 2)
        self.classes = np.full(count, number % 2 if "class" in true else rng.integers(0, 2))
        self.areas = 10 ** rng.uniform(2.3, 4.7, count)
        alike = shapes.random(3) < 0.3  # objects of an image often have the same shape
        self.kinds = (shapes.random((3, count)) < 0.3) | alike[:, None]
        worse = sum(
            0.2 * one for one, name in zip(self.kinds, ("thin", "border", "fragments"), strict=True) if name in true
        )
        self.shift_xy = shapes.normal(0, 0.06, (count, 2)) + shapes.normal(0, 0.04, 2) + 0.1 * ("shift" in true)
        self.held = 2 * (shapes.random(count) < (0.25 if "merged" in true else 0.01))
        self.iou = np.clip(rng.normal(0.78 + shift, 0.1, count) - worse, 0.52, 0.98)
        ranked = 0.0 if "score" in true else 0.6
        self.scores = np.clip(0.5 + ranked * (self.iou - 0.75) + rng.normal(0, 0.05, count), 0.05, 1)
        missed = 0.7 if "missed" in true else 0.4
        self.found = rng.random(count) >= missed
        if "size" in true:
            self.found &= self.areas > 32**2
        drawn = self.found | (rng.random(count) < 0.6)
        kind = "localisation" if "errors" in true else rng.choice(["localisation", "class"])
        self.native = self._overlaps(rng, drawn, kind)
        self.decodes = [self._blurred(rng) for _ in range(3)]
        if "decodes" in true:
            self.decodes[2] = self.native.with_iou(self.native.iou * 0.85)
        losses = np.array([rng.dirichlet([1, 1, 1, 3]) for _ in range(count)]) * (1 - self.iou)[:, None]
        self.losses = losses if "part" in true else losses[:, rng.permutation(4)]
        self.box_gain = 0.08 * ("box" in true) + rng.normal(0, 0.05, count)
        curves = self.iou[:, None] + rng.normal(0, 0.05, (count, len(THRESHOLDS)))
        curves[:, 13] += 0.06 * ("threshold" in true)
        self.curves = np.clip(curves, 0, 1)

    def _overlaps(self, rng: np.random.Generator, drawn: np.ndarray, kind: str) -> Overlaps:
        """The detections: right ones, wrong ones of one kind, and of nothing."""
        rows, extra = np.flatnonzero(drawn), int(rng.integers(0, 3))
        wrong = ~self.found[rows]
        iou = np.zeros((len(rows) + extra, len(self.classes)))
        iou[np.arange(len(rows)), rows] = self.iou[rows] * np.where(wrong & (kind == "localisation"), 0.5, 1)
        labels = self.classes[rows] ^ (wrong & (kind == "class"))
        return Overlaps(
            np.append(self.scores[rows], rng.uniform(0.05, 0.6, extra)),
            np.append(labels, rng.integers(0, 2, extra)),
            self.classes,
            iou,
            np.append(self.areas[rows], 10 ** rng.uniform(2.3, 4.7, extra)),
            self.areas,
        )

    def _blurred(self, rng: np.random.Generator) -> Overlaps:
        return self.native.with_iou(np.clip(self.native.iou * (1 + rng.normal(0, 0.06)), 0, 1))

    def budgets(self, image: str) -> list[InstanceBudget]:
        return [
            InstanceBudget(
                **BLANK
                | dict(zip(PARTS, self.losses[i].tolist(), strict=True))
                | {
                    "image": image,
                    "instance": int(i),
                    "class_name": f"class {self.classes[i]}",
                    "score": float(self.scores[i]),
                    "iou": float(self.iou[i]),
                    "true_box_iou": float(self.iou[i] + self.box_gain[i]),
                    "drawn_pieces": 1 + int(self.kinds[2, i]),
                    "shift_x": float(self.shift_xy[i, 0]),
                    "shift_y": float(self.shift_xy[i, 1]),
                    "object": int(i),
                    "threshold": 0.5,
                    "threshold_iou": float(max(self.curves[i].max(), self.iou[i])),
                    "threshold_curve": tuple(self.curves[i].tolist()),
                }
            )
            for i in np.flatnonzero(self.found)
        ]


def diagnosis(seed: int, *true: str, images: int = IMAGES) -> Any:
    """What `findings_of` is given of a data set in which only that is true which is named."""
    rng = np.random.default_rng(seed)
    shapes = np.random.default_rng((seed, 1))
    drawn = [Drawn(rng, shapes, number, frozenset(true)) for number in range(images)]
    overlaps = dict(
        zip(("validation", "predict", "native"), zip(*(one.decodes for one in drawn), strict=True), strict=True)
    )
    overlaps["boxes"] = tuple(one.native for one in drawn)
    now = overlaps["predict"]
    masks = [one.with_iou(np.where(one.iou > 0.5, 1.0, one.iou)) for one in now]
    detected = with_perfect_detection(now, [np.where(one.found, one.iou, np.nan) for one in drawn])
    if "limit" not in true:  # what is perfect is dealt to images
        masks, detected = zip(
            *(pair[:: rng.choice([1, -1])] for pair in zip(masks, detected, strict=True)), strict=True
        )
    objects = [
        FoundObject(
            f"{n}.png",
            i,
            int(one.classes[i]),
            "",
            int(one.areas[i]),
            (0, 0, 1, 1),
            i if one.found[i] else -1,
            touches_border=bool(one.kinds[1, i]),
            thinness=9.0 if one.kinds[0, i] else 1.0,
            held=int(one.held[i]),
        )
        for n, one in enumerate(drawn)
        for i in range(len(one.classes))
    ]
    return SimpleNamespace(
        images=images,
        conf=0.25,
        spec=SimpleNamespace(
            rule=SimpleNamespace(threshold=0.5), layout="yolov8", name="best.onnx", input_hw=(640, 640), fixed_size=True
        ),
        gains=Gains(),
        precision={name: average_precision(list(of)) for name, of in overlaps.items()},
        perfect={"resolution": average_precision(masks)},
        perfect_detection=average_precision(detected),
        intervals=ap_intervals(overlaps, masks, detected, [find_errors(one) for one in now]),
        errors=error_cost(now),
        localisation=ErrorBudget([]),
        objects=objects,
        missed=sum(one.instance < 0 for one in objects),
        budget=ErrorBudget([row for n, one in enumerate(drawn) for row in one.budgets(f"{n}.png")]),
    )


class Gains:
    """What is gained is not claimed: it ranks the findings."""

    def __getattr__(self, name: str) -> Any:
        return lambda *better: intervals.Interval(0.1, 0.05, 0.15)


def is_claim(finding: Finding) -> bool:
    """Whether it claims more than numbers: two rules always report them, and one the best threshold for each mask."""
    sign = {"limit": "Work on", "part": "Most is lost", "threshold": "would give"}.get(finding.rule, "")
    return sign in finding.says + finding.advice


def claims(found: Any) -> set[RuleName]:
    return {finding.rule for finding in findings_of(found) if is_claim(finding)}


def test_there_are_as_many_rules_as_their_intervals_allow_for() -> None:
    assert len(RULES) == intervals.CLAIMS


@pytest.mark.study
def test_nothing_is_claimed_where_nothing_is_true() -> None:
    """Of all rules together, in at most 5 % of data sets; rule by rule it would be 13 %."""
    made = [claims(diagnosis(seed)) for seed in range(SHUFFLES)]
    assert sum(map(bool, made)) <= 0.05 * SHUFFLES, made


@pytest.mark.study
@pytest.mark.parametrize("rule", get_args(RuleName))
def test_what_is_true_is_found(rule: RuleName) -> None:
    assert rule in claims(diagnosis(0, rule, images=100))
