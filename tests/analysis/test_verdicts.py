"""Verdicts: a value, its interval and its tolerance."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

import maskprism
from maskprism.analysis.comparison.paired_run import compare
from maskprism.analysis.comparison.report import Comparison, Tolerance
from maskprism.analysis.intervals import Interval, claimed_interval
from maskprism.analysis.verdicts import Check
from maskprism.datasets.scenes import draw_scene


@pytest.mark.parametrize(
    ("low", "high", "bound", "outcome"),
    [
        (0.992, 0.998, "at least", "pass"),
        (0.99, 0.998, "at least", "pass"),
        (0.985, 0.998, "at least", "cannot tell"),
        (0.95, 0.98, "at least", "fail"),
        (0.95, 0.98, "at most", "pass"),
        (0.985, 0.998, "at most", "cannot tell"),
        (0.99, 0.998, "above", "cannot tell"),
        (math.nan, math.nan, "at least", "pass"),
    ],
)
def test_the_whole_interval_decides(low: float, high: float, bound: str, outcome: str) -> None:
    check = Check.of("x", Interval(0.995, low, high), bound, 0.99)  # type: ignore[arg-type]
    assert check.outcome == outcome


@pytest.fixture(scope="module")
def compared() -> Comparison:
    model = maskprism.load("sample", threads=1)
    return compare(model, model, [draw_scene(seed).image for seed in range(3)])


def with_ious(comparison: Comparison, ious: list[float]) -> Comparison:
    """The same with a pair per image, of these mask IoUs."""
    rows = comparison.matched.slice(0, 1).to_pylist() * len(ious)
    rows = [row | {"image": f"{i}.png", "mask_iou": iou} for i, (row, iou) in enumerate(zip(rows, ious, strict=True))]
    return replace(comparison, instances=pa.Table.from_pylist(rows, schema=comparison.instances.schema))


def test_a_comparison_passes_fails_or_cannot_tell(compared: Comparison) -> None:
    assert compared.verdict(Tolerance()).outcome == "pass"
    rng = np.random.default_rng(0)
    for mean, spread, outcome, code in (
        (0.995, 0.001, "pass", 0),
        (0.98, 0.001, "fail", 3),
        (0.9905, 0.006, "cannot tell", 0),
        (0.9895, 0.006, "cannot tell", 3),
    ):
        noise = rng.uniform(-spread, spread, 40)
        found = with_ious(compared, (mean + noise - noise.mean()).tolist())
        verdict = found.verdict(Tolerance())
        assert (verdict.outcome, f"exit code {code}" in verdict.why) == (outcome, True), mean
        first = verdict.checks[0]
        expected = claimed_interval(found.ious, [f"{i}.png" for i in range(40)], comparisons=3)
        assert (first.value, first.low, first.high) == pytest.approx(tuple(expected))


def test_the_share_of_unmatched_instances_is_that_of_the_comparison(compared: Comparison) -> None:
    rows = compared.instances.to_pylist()
    for row, status in zip(rows, ("only in A", "class changed", "only in B"), strict=False):
        row["status"] = status
    found = replace(compared, instances=pa.Table.from_pylist(rows, schema=compared.instances.schema))
    assert found.checks(Tolerance())[1].value == pytest.approx(found.unmatched_share)
    assert found.verdict(Tolerance()).outcome == "fail"
