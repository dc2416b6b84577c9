"""The sentence that says why a label is suspicious."""

from __future__ import annotations

from typing import Any

import pytest

from maskprism.analysis.labels.reasons import reason_of
from maskprism.analysis.labels.study import LEARNED_KINDS, MeasuredLabel

NAMES = {0: "cat", 1: "dog", 2: "hen"}
FEATURES = {
    "mask_iou": 0.55,
    "score": 0.81,
    "label_iou": 0.87,
    "span_iou": 0.93,
    "corners": 5.0,
    "fill": 0.98,
    "hole_share": 0.12,
    "detections_inside": 3.0,
    "centre_distance": 0.14,
    "log_area_ratio": 0.47,
}
MISSED = {"mask_iou": 0.04}
SPAN = "; the best mask that the prototypes can draw has an IoU of 0.93 with it."
FOUND = "The best detection overlaps it by an IoU of 0.55"


def reason(kind: str, values: dict[str, float] | None = None, **more: Any) -> str:
    given: dict[str, Any] = {"other_class": 1, "twin": (12, 2), "features": FEATURES | (values or {})}
    return reason_of(MeasuredLabel(3, 0, (0, 0, 9, 9), **given | more), kind, NAMES.__getitem__)


@pytest.mark.parametrize(
    ("kind", "values", "sentence"),
    [
        ("too large", {}, f"{FOUND}; it has 1.60 times the area of that detection{SPAN}"),
        ("shifted", {}, f"{FOUND}; their centres are 14% of its size apart{SPAN}"),
        ("shifted", MISSED, f"No detection overlaps it{SPAN}"),
        ("coarse", MISSED, f"No detection overlaps it; its outline has 5 corners{SPAN}"),
        ("filled box", {}, f"{FOUND}; it fills 98% of its box{SPAN}"),
        ("hole", {}, f"{FOUND}; the area of its holes is 12% of its own{SPAN}"),
        ("merged", {}, f"{FOUND}; 3 detections lie in it{SPAN}"),
        ("merged", MISSED | {"detections_inside": 1.0}, f"No detection overlaps it{SPAN}"),
        (
            "wrong class",
            {},
            "The model calls it dog with a score of 0.81; the best detection overlaps it by an IoU of 0.55.",
        ),
        ("duplicate", {}, "Label 12 (hen) overlaps it by an IoU of 0.87."),
    ],
)
def test_the_reason_tells_what_was_measured(kind: str, values: dict[str, float], sentence: str) -> None:
    assert reason(kind, values) == sentence


@pytest.mark.parametrize("values", [{}, MISSED])
def test_every_kind_has_one_sentence(values: dict[str, float]) -> None:
    for kind in LEARNED_KINDS:
        sentence = reason(kind, values)
        assert sentence[0].isupper()
        assert sentence.endswith(".")
        assert ". " not in sentence
    assert reason("", values) == ""


def test_labels_that_are_not_judged_have_a_reason() -> None:
    assert reason("crowd", unjudged="crowd") == "It is a crowd, which is not judged."
    assert reason("no mask", unjudged="no mask") == "It is a box without a mask, which is not judged."
    unreadable = reason("unreadable", unjudged="unreadable", mistake="class 7 is not in names")
    assert unreadable == "It cannot be read: class 7 is not in names."
