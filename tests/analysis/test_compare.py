"""Two models compared: prototypes matched, masks taken apart by exchange, the letterbox told from the rest."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import maskprism
from helpers import reference_compare as twin
from helpers.in_process import command as run
from helpers.in_process import says
from helpers.strategies import boxes, predictions, seeds
from helpers.tiny_models import Tiny
from maskprism import MaskprismError, Prediction
from maskprism.analysis.comparison.logit_drift import LogitDrift
from maskprism.analysis.comparison.paired_run import compare, same_canvas
from maskprism.analysis.comparison.pairing import pair_instances
from maskprism.analysis.comparison.part_swaps import ORDERS, PARTS, Swap, swap
from maskprism.analysis.comparison.report import INSTANCES, Comparison, Tolerance
from maskprism.analysis.comparison.similarity import PrototypeSimilarity, match_prototypes, on_grid, paired_pixels
from maskprism.analysis.comparison.summary import brief, percent, summary_of
from maskprism.analysis.prototypes.covariance import RunningCovariance
from maskprism.analysis.truth.labels import open_labels
from maskprism.analysis.truth.matching import match
from maskprism.core.geometry import Letterbox
from maskprism.datasets.scenes import draw_scene, write_dataset
from maskprism.drawing import comparison as figures
from maskprism.drawing import raster
from maskprism.drawing.pairs import worst_pairs
from maskprism.errors import ImageError, InputError, MissingExtraError, ModelError
from maskprism.models import Model, load
from maskprism.models.correction import Correction
from maskprism.models.runtimes import FunctionRuntime, NetworkInput
from maskprism.reports import comparison as views

# --- how alike prototypes are


def similarity(x: np.ndarray, y: np.ndarray) -> PrototypeSimilarity:
    """Of prototypes given as columns, a row per pixel."""
    return PrototypeSimilarity(x.shape[1], RunningCovariance.of(np.concatenate([x, y], axis=1)))


def columns(seed: int, count: int, pixels: int = 60) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(rng.normal(0, 1, count), rng.uniform(0.2, 3, count), (pixels, count))


@given(seed=seeds, k=st.integers(1, 5), other=st.integers(1, 5))
@settings(max_examples=30)
def test_cka_and_angles_are_those_of_their_definitions(seed: int, k: int, other: int) -> None:
    x, y = columns(seed, k), columns(seed + 1, other)
    found = similarity(x, y)
    assert found.cka == pytest.approx(twin.cka(x, y), abs=1e-9)
    np.testing.assert_allclose(found.angles_deg, twin.angles(x, y), atol=1e-3)


@given(seed=seeds, k=st.integers(1, 5))
@settings(max_examples=30)
def test_a_change_of_basis_is_seen_through(seed: int, k: int) -> None:
    x, rng = columns(seed, k), np.random.default_rng(seed)
    turned = np.linalg.qr(rng.normal(size=(k, k)))[0]
    assert similarity(x, 3 * x @ turned).cka == pytest.approx(1)
    mixing = turned + 0.3 * np.eye(k) if k > 1 else np.array([[2.0]])
    found = similarity(x, x @ mixing.T)
    np.testing.assert_allclose(found.angles_deg, 0, atol=1e-3)
    np.testing.assert_allclose(found.explained, 1)
    np.testing.assert_allclose(found.translation.b_to_a, mixing, atol=1e-6)
    np.testing.assert_allclose(found.translation.a_to_b, np.linalg.inv(mixing), atol=1e-5)


@given(seed=seeds, k=st.integers(2, 6))
@settings(max_examples=30)
def test_permuted_and_scaled_prototypes_find_each_other(seed: int, k: int) -> None:
    x, rng = columns(seed, k), np.random.default_rng(seed)
    order, scale = rng.permutation(k), rng.choice([-2.0, 0.5], k)
    found = similarity(x, x[:, order] * scale)
    np.testing.assert_array_equal(found.pairs[:, 0], order[found.pairs[:, 1]])
    np.testing.assert_allclose(np.abs(found.correlation[*found.pairs.T]), 1)
    assert not found.shared  # prototype k of one is not prototype k of the other


def test_a_shared_basis_is_recognised_by_its_errors() -> None:
    x = columns(0, 4)
    noise = np.random.default_rng(1).normal(0, 1, x.shape) * x.std(axis=0)
    assert similarity(x, x).shared
    np.testing.assert_array_equal(similarity(x, x).errors, 0)
    found = similarity(x, x + 0.1 * noise)
    assert found.shared
    np.testing.assert_allclose(found.errors, 0.1, rtol=0.5)
    assert not similarity(x, x + noise).shared
    assert not similarity(x, x[:, :3]).shared


@given(seed=seeds, rows=st.integers(1, 5), more=st.integers(0, 2), turned=st.booleans())
@settings(max_examples=40)
def test_matching_is_the_best_of_all_matchings(seed: int, rows: int, more: int, turned: bool) -> None:
    correlation = np.random.default_rng(seed).uniform(-1, 1, (rows, rows + more))
    correlation = correlation.T if turned else correlation
    pairs = match_prototypes(correlation)
    assert len({*pairs[:, 0]}) == len({*pairs[:, 1]}) == len(pairs) == rows
    assert np.abs(correlation[*pairs.T]).sum() == pytest.approx(twin.best_matching(np.abs(correlation)))


def test_constant_prototypes_stay_without_a_partner() -> None:
    x, y = columns(0, 3), columns(0, 3)
    x[:, 1] = 0.7
    found = similarity(x, y)
    assert np.isnan(found.correlation[1]).all()
    assert {*found.pairs[:, 0]} == {0, 2}
    empty = similarity(np.ones((9, 2)), np.ones((9, 2)))
    assert len(empty.pairs) == 0
    assert np.isnan(empty.cka)


def test_only_different_networks_need_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    np.testing.assert_array_equal(match_prototypes(np.eye(3)), [[0, 0], [1, 1], [2, 2]])
    with pytest.raises(MissingExtraError, match=r"maskprism\[compare\]"):
        match_prototypes(np.array([[1.0, 0.9], [0.8, 0.1]]))


# --- the exchange of parts


@st.composite
def two(draw: st.DrawFn, same: bool | None = None) -> tuple[Prediction, Prediction]:
    """The same instances of one image in two models, on one canvas or on two."""
    a = draw(predictions())
    letterbox = a.letterbox
    if not (draw(st.booleans()) if same is None else same):
        canvas = draw(st.sampled_from([(16, 32), (32, 32), (48, 32)]))
        letterbox = Letterbox.fit(a.image_size, canvas).with_grid((canvas[0] // 4, canvas[1] // 4))
    rng = np.random.default_rng(draw(seeds))
    k = len(a.prototypes)
    b = replace(
        a,
        canvas_boxes=draw(boxes(letterbox.canvas_hw, len(a))),
        coefficients=(a.coefficients + rng.normal(0, 0.5, a.coefficients.shape)).astype(np.float32),
        prototypes=rng.normal(0, 1, (k, *letterbox.grid_hw)).astype(np.float32),
        letterbox=letterbox,
    )
    return a, b


@given(pair=two())
@settings(max_examples=60)
def test_parts_telescope_to_the_loss(pair: tuple[Prediction, Prediction]) -> None:
    found = swap(*pair)
    for order in ORDERS:
        np.testing.assert_allclose(sum(found.path(order).values()), found.total, atol=1e-15)
    np.testing.assert_allclose(sum(found.shares.values()), found.total, atol=1e-15)
    np.testing.assert_array_equal(found.losses[frozenset()], 0)
    assert (found.total >= 0).all()
    assert (found.total <= 1).all()


@given(pair=two(same=True))
@settings(max_examples=30)
def test_the_loss_is_that_of_the_masks(pair: tuple[Prediction, Prediction]) -> None:
    a, b = pair
    for loss, one, other in zip(swap(a, b).total, a.masks("image"), b.masks("image"), strict=True):
        union = np.count_nonzero(one | other)
        assert loss == pytest.approx(1 - np.count_nonzero(one & other) / union if union else 0)


@given(pair=two())
@settings(max_examples=25)
def test_every_corner_is_the_mask_that_its_parts_draw(pair: tuple[Prediction, Prediction]) -> None:
    a, b = pair
    found: Swap = swap(a, b)
    for n in range(len(a)):
        own, margin = twin.corner(a, b, n, frozenset())
        for parts, losses in found.losses.items():
            other, other_margin = twin.corner(a, b, n, parts)
            ties = int(np.count_nonzero((margin < 1e-4) | (other_margin < 1e-4)))
            union = int(np.count_nonzero(own | other))
            expected = 1 - np.count_nonzero(own & other) / union if union else 0.0
            assert abs(losses[n] - expected) <= (ties / max(union - ties, 1)) + 1e-9


@given(pair=two(same=True), part=st.sampled_from(PARTS))
@settings(max_examples=30)
def test_a_part_that_alone_differs_has_all_of_the_loss(pair: tuple[Prediction, Prediction], part: str) -> None:
    a, b = pair
    name = {"boxes": "canvas_boxes"}.get(part, part)
    found = swap(a, replace(a, **{name: getattr(b, name)}))
    np.testing.assert_allclose(found.shares[part], found.total, atol=1e-15)
    for other in set(PARTS) - {part}:
        np.testing.assert_array_equal(found.shares[other], 0)


@given(prediction=predictions(), seed=seeds)
@settings(max_examples=25)
def test_translated_coefficients_draw_the_same_masks(prediction: Prediction, seed: int) -> None:
    """B is A in another basis: with translated coefficients every exchange leaves the mask unchanged."""
    k = len(prediction.prototypes)
    mixing = np.linalg.qr(np.random.default_rng(seed).normal(size=(k, k)))[0] * 2
    other = replace(
        prediction,
        coefficients=(prediction.coefficients @ np.linalg.inv(mixing)).astype(np.float32),
        prototypes=np.tensordot(mixing, prediction.prototypes, axes=1).astype(np.float32),
    )
    moments = RunningCovariance(2 * k)
    rng = np.random.default_rng(seed)
    pixels = rng.normal(size=(200, k))
    moments.update(np.concatenate([pixels, pixels @ mixing.T], axis=1))
    found = swap(prediction, other, PrototypeSimilarity(k, moments).translation)
    logits = prediction.probabilities("image", crop=True)
    # Rounding flips pixels at the threshold alone.
    ties = [(np.abs(one - 0.5) < 1e-3).sum() for one in logits]
    areas = [np.count_nonzero(one > 0.5) for one in logits]
    for losses in found.losses.values():
        assert all(loss <= (tie + 1e-9) / max(area, 1) for loss, tie, area in zip(losses, ties, areas, strict=True))


@given(pair=two())
@settings(max_examples=20)
def test_prototypes_are_sampled_where_the_other_canvas_has_its_cells(pair: tuple[Prediction, Prediction]) -> None:
    a, b = pair
    found = on_grid(b.prototypes, b.letterbox, a.letterbox)
    expected = twin.sampled(b.prototypes[0].astype(float), b.letterbox, a.letterbox)
    np.testing.assert_allclose(found[0], expected, atol=1e-4)
    assert paired_pixels(a, b).shape[1] == 2 * len(a.prototypes)


# --- which prototypes are responsible


@given(pair=two(same=True))
@settings(max_examples=30)
def test_drift_is_that_of_every_cell(pair: tuple[Prediction, Prediction]) -> None:
    a, b = (replace(one, rule=replace(one.rule, objectness=False), objectness=None) for one in pair)
    found = LogitDrift(len(a.prototypes))
    found.update(a, b)
    changes, blame, flipped = twin.drift(a, b)
    np.testing.assert_allclose(found.changes, changes, atol=1e-5)
    assert found.flipped_cells == flipped
    np.testing.assert_allclose(found.blame, blame, atol=1e-4)
    if flipped:
        assert found.blame.sum() == pytest.approx(1)
    assert (found.changes <= found.by_coefficients + found.by_prototypes + 1e-5).all()


# --- whole models, made of numpy


class Network:
    """One object per model call at a fixed place; everything depends on the picture, the padding included."""

    def __init__(self, *, side: int | None = 64, names: tuple[str, ...] = ("cat", "dog"), prototypes: int = 3) -> None:
        self.side, self.names, self.count, self.stride = side, names, prototypes, 32
        self.classes, self.scores = [0, 1], [0.9, 0.6]
        self.coefficients = np.array([[1.0, -1.0, 0.5], [-1.0, 1.0, 0.4]])[:, :prototypes]
        self.mixing = np.array([[1.2, 0.3, -0.4], [-0.5, 0.9, 0.3], [0.3, -0.2, 1.0]])[:prototypes]
        self.calls = 0
        self.places = np.array([[0.5, 0.45, 0.5, 0.4], [0.45, 0.55, 0.6, 0.5]])

    def __call__(self, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        count, _, height, width = batch.shape
        self.calls += count
        cells = (
            batch.reshape(count, 3, height // 4, 4, width // 4, 4).mean(axis=(3, 5))
            - batch.mean(axis=(2, 3), keepdims=True)[:, :, :, :]
        )
        prototypes = np.einsum("kc,bchw->bkhw", self.mixing, 4 * cells).astype(np.float32)
        anchors = sum((height // stride) * (width // stride) for stride in (8, 16, 32))
        rows = np.zeros((count, 4 + len(self.names) + self.count, anchors), dtype=np.float32)
        for j, (class_id, score) in enumerate(zip(self.classes, self.scores, strict=True)):
            rows[:, :4, j] = self.places[j] * [width, height, width, height]
            rows[:, 4 + class_id, j] = score
            rows[:, 4 + len(self.names) :, j] = self.coefficients[j]
        return rows, prototypes

    def model(self, **options: Any) -> Model:
        runtime = FunctionRuntime(
            self,
            NetworkInput(None, self.side, self.side, default_hw=(64, 64)),
            {"task": "segment", "names": dict(enumerate(self.names)), "stride": self.stride},
        )
        return load(runtime, name="network", **options)


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    return [cv2.resize(draw_scene(seed).image, size) for seed, size in enumerate([(80, 30), (25, 70), (64, 64)])]


def test_a_network_is_what_it_is(images: list[np.ndarray]) -> None:
    found = compare(Network().model(), Network().model(), images)
    assert (found.images, found.count("matched"), found.unmatched_share) == (3, 6, 0)
    np.testing.assert_array_equal(found.ious, 1)
    assert found.forced is None
    assert found.same_canvas
    assert found.worst == ()
    assert found.responsible is None
    assert found.letterbox_share is None
    assert found.violations(Tolerance()) == []
    assert "All masks are equal to the last pixel." in summary_of(found, Tolerance())
    assert "PASS: the same within the tolerance" in summary_of(found, Tolerance())


def test_angles_of_zero_are_seen(images: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    """As marks on the axis of all angles; small ones fill an axis of their own."""
    found = compare(Network().model(), Network().model(), images)
    ax = figures.angles_figure(found).axes[0]
    (marks,) = ax.lines
    assert marks.get_marker() == "o"
    assert len(marks.get_ydata()) == len(found.similarity.angles_deg) > 0
    low, high = ax.get_ylim()
    assert low < min(marks.get_ydata())
    assert high == 90
    monkeypatch.setitem(vars(found.similarity), "angles_deg", np.array([1.0, 4.0]))
    assert figures.angles_figure(found).axes[0].get_ylim()[1] == pytest.approx(4.6)


def changed(images: list[np.ndarray], **values: Any) -> Comparison:
    other = Network()
    for name, value in values.items():
        setattr(other, name, value)
    return compare(Network().model(), other.model(), images)


@pytest.mark.parametrize("k", [0, 1, 2])
def test_a_damaged_prototype_is_named(images: list[np.ndarray], k: int) -> None:
    mixing = Network().mixing.copy()
    mixing[k] *= 0.8
    found = changed(images, mixing=mixing)
    assert found.responsible == "prototypes"
    assert found.shares["prototypes"] == pytest.approx(1 - found.mean_iou)
    assert found.drift is not None
    assert found.drift.worst()[0] == k
    np.testing.assert_allclose(found.drift.blame, np.eye(3)[k], atol=1e-5)
    np.testing.assert_allclose(found.drift.by_coefficients, 0)
    assert np.argmax(found.similarity.errors) == k
    assert f"{k} (100 %)" in summary_of(found)
    assert [case.mask_iou for case in found.worst] == sorted(found.ious[found.ious < 1])[:6]


def test_damaged_coefficients_and_boxes_are_named(images: list[np.ndarray]) -> None:
    found = changed(images, coefficients=Network().coefficients + np.array([0, 0.3, 0]))
    assert found.responsible == "coefficients"
    assert found.drift is not None
    assert found.drift.worst()[0] == 1
    np.testing.assert_allclose(found.drift.by_prototypes, 0, atol=1e-6)
    found = changed(images, places=Network().places + np.array([0.05, 0, 0, 0]))
    assert found.responsible == "boxes"
    assert found.shares["boxes"] == pytest.approx(1 - found.mean_iou)
    assert found.violations(Tolerance(min_iou=found.mean_iou)) == []
    assert len(found.violations(Tolerance(min_iou=found.mean_iou + 1e-6))) == 1


def test_scores_classes_and_instances_that_change_are_counted(images: list[np.ndarray]) -> None:
    found = changed(images, scores=[0.8, 0.6])
    np.testing.assert_allclose(found.score_drifts, [-0.1, 0] * 3, atol=1e-6)
    assert found.violations(Tolerance()) == ["scores differ by 0.0500 on average (expected at most 0.01)"]
    found = changed(images, scores=[0.8, 0.7])  # one lower, one higher
    assert found.violations(Tolerance()) == ["scores differ by 0.1000 on average (expected at most 0.01)"]
    found = changed(images, scores=[0.9, 0.1])
    assert (found.count("matched"), found.count("only in A"), found.count("only in B")) == (3, 3, 0)
    assert found.unmatched_share == pytest.approx(1 / 3)
    found = changed(images, classes=[0, 0])
    assert (found.count("matched"), found.count("class changed")) == (3, 3)
    row = next(row for row in found.instances.to_pylist() if row["status"] == "class changed")
    assert (row["class_a"], row["class_b"], row["instance_b"]) == ("dog", "cat", 1)
    assert found.unmatched_share == 0.5
    found = changed(images, scores=[0.1, 0.1])
    assert "nothing can be judged" in found.violations(Tolerance())[0]
    assert summary_of(found, Tolerance()).count("nan") == 0


def test_classes_are_the_same_if_their_names_are(images: list[np.ndarray]) -> None:
    found = changed(images, names=("dog", "cat"), classes=[1, 0])
    assert found.count("matched") == 6
    found = changed(images, names=("chat", "chien"))  # no name in common: by id
    assert found.count("matched") == 6
    found = changed(images, names=("cat", "horse"))  # one in common: the other id means another class
    assert (found.count("matched"), found.count("class changed")) == (3, 3)


def test_the_guilty_part_is_the_one_that_costs_most(images: list[np.ndarray]) -> None:
    """A part that makes up for others may be larger, and has a share below zero."""
    found = changed(images, mixing=Network().mixing * [[1], [1], [0.7]])
    rows = [
        row | {"coefficients": 0.3, "prototypes": -0.4, "boxes": 0.2, "mask_iou": 0.9}
        for row in found.instances.to_pylist()
    ]
    assert replace(found, instances=pa.Table.from_pylist(rows, schema=INSTANCES)).responsible == "coefficients"


def test_the_letterbox_is_told_from_the_network(images: list[np.ndarray]) -> None:
    """B takes any size and cuts rectangles: on A's square it says the same, by itself it does not."""
    found = changed(images, side=None)
    assert (found.forced, found.same_canvas) == ("B", True)
    np.testing.assert_array_equal(found.ious, 1)
    assert found.own_iou is not None
    assert found.own_iou < 1
    assert found.letterbox_share == 1
    assert found.violations(Tolerance()) == []
    assert "100 % of that is the letterbox" in summary_of(found)
    assert sum(found.budget.values()) == pytest.approx(1 - found.own_iou)
    turned = compare(Network(side=None).model(), Network().model(), images)
    assert turned.forced == "A"
    assert turned.own_iou == pytest.approx(found.own_iou)
    mixing = Network().mixing * [[1], [1], [0.9]]
    both = changed(images, side=None, mixing=mixing)
    assert both.mean_iou < 1
    assert both.budget["prototypes"] == pytest.approx(1 - both.mean_iou)
    assert sum(both.budget.values()) == pytest.approx(1 - (both.own_iou or 0))


def test_instances_on_the_own_canvas_are_those_of_the_same_network(images: list[np.ndarray]) -> None:
    """One more sure of the dog where the canvas is no square, so that instances change their numbers there."""

    class Moody(Network):
        def __call__(self, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            self.scores = [0.9, 0.6] if batch.shape[2] == batch.shape[3] else [0.5, 0.8]
            return super().__call__(batch)

    def own(found: Comparison) -> dict[tuple[str, str], float]:
        return {(row["image"], row["class_a"]): row["own_canvas_iou"] for row in found.instances.to_pylist()}

    fixed = Network().model()
    found, turned = (
        compare(*pair, images) for pair in ((fixed, Moody(side=None).model()), (Moody(side=None).model(), fixed))
    )
    assert (found.forced, turned.forced) == ("B", "A")
    assert found.own_unmatched == turned.own_unmatched == 0
    assert own(found) == pytest.approx(own(turned))
    assert len({round(iou, 6) for iou in own(found).values()}) > 3
    unsure = Network(side=None)
    unsure.scores = [0.9, 0.1]
    assert compare(fixed, unsure.model(), images).own_unmatched == 3


def test_no_network_is_asked_more_often_than_needed(images: list[np.ndarray]) -> None:
    free, fixed = Network(side=None), Network()
    models = free.model(), fixed.model()
    free.calls = fixed.calls = 0
    compare(*models, images)
    assert (free.calls, fixed.calls) == (2 * len(images), len(images))


def test_canvases_that_cannot_be_made_the_same(images: list[np.ndarray]) -> None:
    found = changed(images, side=128)
    assert not found.same_canvas
    assert found.forced is None
    assert found.count("matched") == 6
    assert "on different canvases (64 x 64 and 128 x 128" in summary_of(found)
    np.testing.assert_allclose(sum(found.shares.values()), 1 - found.mean_iou)
    coarse = Network(side=None)  # its rectangles are of whole 64 pixels: another canvas for all images but the last
    coarse.stride = 64
    assert not compare(Network(side=None).model(), coarse.model(), images).same_canvas
    assert compare(Network(side=None).model(), coarse.model(), images[2:]).same_canvas


def test_both_take_any_size(images: list[np.ndarray]) -> None:
    a, b = Network(side=None).model(imgsz=64), Network(side=None).model(imgsz=96)
    found = compare(a, b, images)
    assert (found.forced, found.same_canvas) == ("B", True)
    np.testing.assert_array_equal(found.ious, 1)
    assert same_canvas(a, Network(side=None).model(imgsz=64))[1].spec.rectangular


def test_networks_of_another_basis(images: list[np.ndarray]) -> None:
    """The same model after a change of basis: other coefficients and prototypes, the same masks."""
    basis = np.array([[0.0, 2.0, 0.0], [0.5, 0.0, 0.5], [0.0, 0.3, 1.0]])
    calls: list[tuple[int, int | None, object]] = []
    other = Network()
    other.mixing, other.coefficients = basis @ other.mixing, other.coefficients @ np.linalg.inv(basis)
    found = compare(Network().model(), other.model(), images, on_progress=lambda *call: calls.append(call))
    assert not found.similarity.shared
    assert found.drift is None
    assert calls == [(1, 3, None), (2, 3, None), (3, 3, None), (4, 6, None), (5, 6, None), (6, 6, None)]
    assert found.images == 3
    np.testing.assert_allclose(found.ious, 1, atol=0.01)
    for part in PARTS:
        assert abs(found.shares[part]) < 0.01
    np.testing.assert_allclose(found.similarity.angles_deg, 0, atol=0.1)
    assert "Coefficients were translated" in summary_of(found)


def test_networks_with_other_numbers_of_prototypes(images: list[np.ndarray], tmp_path: Path) -> None:
    found = compare(Network().model(), Network(prototypes=2).model(), images)
    assert found.similarity.correlation.shape == (3, 2)
    np.testing.assert_array_equal(found.similarity.pairs, [[0, 0], [1, 1]])
    assert found.similarity.explained[1] == pytest.approx(1)
    np.testing.assert_allclose(sum(found.shares.values()), 1 - found.mean_iou)
    files = views.write_comparison(found, tmp_path)
    assert tmp_path / "drift.png" not in files
    with pytest.raises(MaskprismError, match="no common basis"):
        figures.drift_figure(found)


def test_one_bad_image_does_not_stop_the_rest(images: list[np.ndarray], tmp_path: Path) -> None:
    missing = tmp_path / "missing ü.png"
    found = compare(Network().model(), Network().model(), [images[0], str(missing), images[1]])
    assert found.images == 2
    assert list(found.failed) == [str(missing)]
    assert {row["image"] for row in found.instances.to_pylist()} == {"image 0", "image 2"}
    with pytest.raises(ImageError, match=r"not a single image.*missing"):
        compare(Network().model(), Network().model(), [missing])
    with pytest.raises(InputError, match="list of images"):
        compare(Network().model(), Network().model(), images[0])  # type: ignore[arg-type]


class BrokenOn(Network):
    """A model whose prototypes are NaN where the picture is dark."""

    def __call__(self, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows, prototypes = super().__call__(batch)
        return rows, np.where(batch.mean() < 0.2, np.float32("nan"), prototypes)


@pytest.mark.parametrize("broken", ["A", "B", "both"])
def test_an_image_on_which_a_network_fails_is_left_out(images: list[np.ndarray], broken: str) -> None:
    a, b = (BrokenOn().model() if broken in (side, "both") else Network().model() for side in "AB")
    dark = np.zeros((64, 64, 3), np.uint8)
    bright = [np.maximum(image, 120) for image in images]
    found = compare(a, b, [dark, *bright, dark])
    assert found.images == len(bright)
    assert list(found.failed) == ["image 0", "image 4"]
    assert "prototypes 0, 1, 2 hold NaN or infinity" in found.failed["image 0"]
    text = summary_of(found, Tolerance())
    assert "Left out: 2 images on which a model fails." in text
    assert ("PASS: " in text) == (broken == "both")  # one that fails as A does is no worse
    assert (f"{broken} alone fails on 2 images" in text) == (broken != "both")
    with pytest.raises(ModelError, match="not a single image could be compared: network: "):
        compare(a, b, [dark])


def test_prototypes_that_are_no_numbers_are_named(images: list[np.ndarray]) -> None:
    mixing = Network().mixing.copy()
    mixing[1] = np.inf
    with (
        np.errstate(invalid="ignore"),
        pytest.raises(ModelError, match=r"not a single image.*network: prototypes 1 hold NaN or infinity.*\(image 0\)"),
    ):
        changed(images, mixing=mixing)
    with pytest.raises(InputError, match="worst is -1"):
        compare(Network().model(), Network().model(), images, worst=-1)
    assert changed(images, mixing=Network().mixing * [[1], [1], [0.7]]).worst
    assert compare(Network().model(), Network().model(), images, worst=0).worst == ()


@given(a=predictions(max_count=6), seed=seeds)
@settings(max_examples=40)
def test_pairs_are_those_of_the_slow_twin(a: Prediction, seed: int) -> None:
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(a))
    moved = a.extents + rng.integers(-4, 5, a.extents.shape).astype(np.float32) / 4
    b = replace(a, canvas_boxes=moved)[order]
    found = pair_instances(a, b, min_iou=0.3)
    assert [tuple(pair) for pair in found.tolist()] == twin.pairs(a, b, 0.3)


def test_another_canvas_for_the_same_network(images: list[np.ndarray]) -> None:
    free, fixed = Network(side=None).model(), Network().model()
    forced = free.on_canvas((64, 64))
    assert free.spec.rectangular
    assert not forced.spec.rectangular
    assert (forced.spec.input_hw, forced.spec.grid_hw) == ((64, 64), (16, 16))
    for image in images:
        a, b = forced.predict(image), fixed.predict(image)
        assert a.letterbox == b.letterbox
        np.testing.assert_array_equal(a.prototypes, b.prototypes)
    for model, expected in (
        (free, (64, 32)),
        (free.on_canvas((128, 64), rectangular=True), (128, 64)),
        (free.on_canvas((128, 128), rectangular=True), (128, 64)),
        (free.on_canvas((128, 128)), (128, 128)),
    ):
        assert model.predict(images[1]).letterbox.canvas_hw == expected
    with pytest.raises(InputError, match="takes exactly 64 x 64"):
        fixed.on_canvas((96, 96))
    with pytest.raises(InputError, match="one canvas only"):
        fixed.on_canvas((64, 64), rectangular=True)
    with pytest.raises(InputError, match="at least the stride"):
        free.on_canvas((16, 64))


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0 %"),
        (1, "100 %"),
        (0.347, "35 %"),
        (0.0532, "5.3 %"),
        (0.0053, "0.53 %"),
        (-0.0053, "−0.53 %"),
        (1e-7, "less than 0.01 %"),
        (-1e-7, "−0 %"),
        (np.nan, "–"),
    ],
)
def test_shares_in_words(share: float, text: str) -> None:
    assert percent(share) == text


def test_long_names_are_cut_in_the_middle() -> None:
    assert brief("yolov8n-seg_int8.tflite") == "yolov8n-seg_int8.tflite"
    assert brief("a" * 40 + "-640.onnx", 15) == "aaaaaaa…40.onnx"
    assert len(brief("b" * 100)) <= 28


def test_tolerances_are_checked() -> None:
    with pytest.raises(InputError, match=r"max_unmatched is 2; expected 0 to 1"):
        Tolerance(max_unmatched=2)


# --- pictures, files, the command


def test_pictures_and_files(images: list[np.ndarray], tmp_path: Path) -> None:
    found = changed(images, side=None, mixing=Network().mixing * [[1], [1], [0.7]])
    files = views.write_comparison(found, tmp_path / "a b ü", Tolerance())
    names = "comparison.json instances.csv prototypes.csv parts.png agreement.png correlation.png angles.png drift.png"
    assert [path.name for path in files] == [*names.split(), "worst.png", "compare.manifest.json"]
    assert all(path.stat().st_size > 100 for path in files)
    written = json.loads((tmp_path / "a b ü" / "comparison.json").read_text(encoding="utf-8"))
    assert written["mask_iou"]["mean"] == found.mean_iou
    assert written["tolerance"]["within"] is False
    assert written["parts"] == {part: pytest.approx(found.shares[part]) for part in PARTS}
    with (tmp_path / "a b ü" / "instances.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == INSTANCES.names
    assert [float(row["mask_iou"]) for row in rows] == pytest.approx(found.ious.tolist())
    with (tmp_path / "a b ü" / "prototypes.csv").open(encoding="utf-8") as file:
        assert [row["prototype_b"] for row in csv.DictReader(file)] == ["0", "1", "2"]
    sheet = worst_pairs(found)
    assert len(sheet.panels) == 4 * len(found.worst)
    assert raster.draw(sheet).shape[2] == 3
    # The figure adds up: letterbox and parts end where the whole bar does.
    bars = [bar for bar in figures.parts_figure(found).axes[0].patches if hasattr(bar, "get_width")]
    assert sum(bar.get_width() for bar in bars[:4]) == pytest.approx(bars[4].get_width())
    same = views.write_comparison(changed(images), tmp_path / "a b ü")
    assert set(same) == set((tmp_path / "a b ü").iterdir()), "a picture of the first run was left"
    (tmp_path / "taken").write_text("")
    with pytest.raises(MaskprismError, match="cannot be written"):
        views.write_comparison(found, tmp_path / "taken")


def test_networks_that_see_nothing_still_give_files(images: list[np.ndarray], tmp_path: Path) -> None:
    a, b = Network(), Network()
    a.scores = b.scores = [0.1, 0.1]
    found = compare(a.model(), b.model(), images)
    assert len(found.instances) == 0
    assert found.responsible is None
    files = views.write_comparison(found, tmp_path, Tolerance())
    assert "NaN" not in (tmp_path / "comparison.json").read_text(encoding="utf-8")
    assert tmp_path / "worst.png" not in files
    with pytest.raises(MaskprismError, match="no pair of masks differs"):
        worst_pairs(found)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of drawn scenes."""
    return write_dataset(tmp_path_factory.mktemp("labelled"), 3, validation_share=1)


def test_both_masks_are_compared_with_the_ground_truth(labelled: Path) -> None:
    a, folder = maskprism.load("sample"), labelled.parent / "images" / "val"
    b = a.with_correction(correction())
    truth = open_labels(labelled, folder, a.spec.names).ground_truth
    found = compare(a, b, folder, truth=truth, worst=2)
    expected = {}
    for path in folder.iterdir():
        left, right, true = a.predict(path), b.predict(path), truth(path, cv2.imread(str(path)).shape[:2])
        masks = [one.masks("canvas") for one in (left, right)]
        truths = true.masks("canvas", left.letterbox)
        matches = match(left, true)
        for i, j in zip(matches.instances.tolist(), matches.objects.tolist(), strict=True):
            ious = [(one[i] & truths[j]).sum() / (one[i] | truths[j]).sum() for one in masks]
            expected[path.name, i] = (*ious, true.areas[j])
    rows = {
        (row["image"], row["instance_a"]): (row["truth_iou_a"], row["truth_iou_b"], row["truth_area"])
        for row in found.instances.to_pylist()
        if row["truth_iou_a"] is not None
    }
    assert rows.keys() == expected.keys()
    for key, values in rows.items():
        assert values == pytest.approx(expected[key]), key
    changes = np.array([after - before for before, after, _ in rows.values()])
    gains = found.gains
    assert gains is not None
    assert gains.change.gain.mean == pytest.approx(changes.mean())
    assert [one.after - one.before for one in found.gained] == pytest.approx(sorted(changes[changes > 0])[::-1][:2])
    assert [one.after - one.before for one in found.lost] == pytest.approx(sorted(changes[changes < 0])[:2])
    for one in (*found.gained, *found.lost):  # as large as A sees the image, here the image itself
        assert one.true.shape == one.image.shape[:2] == one.a.prediction.image_size
        mask = one.a.mask("image")
        assert (mask & one.true).sum() / (mask | one.true).sum() == pytest.approx(one.before, abs=0.02)
    assert f"the mean mask IoU of {len(rows)} pairs goes from" in summary_of(found)
    without = compare(a, b, folder)
    assert without.gains is None
    assert without.gained == without.lost == ()
    assert "ground truth" not in summary_of(without)


def correction() -> Correction:
    rng = np.random.default_rng(0)
    return Correction(rng.normal(0, 0.05, (1, 32, 32)), rng.normal(0, 0.1, (1, 32)))


def test_the_command_compares_with_labels(labelled: Path, tmp_path: Path) -> None:
    sample = maskprism.models.SAMPLE_MODEL
    file = correction().write(tmp_path / "correction.json")
    images = labelled.parent / "images"
    common = (sample, sample, "--images", images, "--data", labelled, "--out", tmp_path / "o")
    result = run("compare", *common, "--correction-b", file)
    assert result.returncode == 3, result.stderr
    assert "Against the ground truth, the mean mask IoU of" in result.stdout
    assert "a model was tuned" in result.stderr
    assert "100 % is in the coefficients" in result.stdout
    told = json.loads((tmp_path / "o" / "comparison.json").read_text())["truth"]
    assert told["all"]["instances"] == sum(one["instances"] for one in told["by_size"])
    assert {"truth.png", "changed.png"} <= {path.name for path in (tmp_path / "o").iterdir()}
    result = run("compare", *common, "--overwrite")
    assert result.returncode == 0, result.stderr
    assert "a model was tuned" not in result.stderr
    assert "0 are better in B, 0 worse" in result.stdout
    assert not (tmp_path / "o" / "changed.png").exists()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, images: list[np.ndarray]) -> Path:
    """A float model, the same with one damaged prototype, and images."""
    import onnx
    from onnx import numpy_helper

    folder = tmp_path_factory.mktemp("two models ü")
    damaged = onnx.load(Tiny().save(folder / "float.onnx"))
    weights = next(one for one in damaged.graph.initializer if list(one.dims) == [8, 3, 1, 1])
    values = numpy_helper.to_array(weights).copy()
    values[5] *= -4
    weights.CopyFrom(numpy_helper.from_array(values, weights.name))
    onnx.save(damaged, folder / "damaged.onnx")
    (folder / "photos").mkdir()
    for number, image in enumerate(images):
        cv2.imwrite(str(folder / "photos" / f"{number}.png"), image)
    return folder


@pytest.mark.usefixtures("undrawn")
def test_the_command_judges(files: Path, tmp_path: Path) -> None:
    result = run("compare", files / "float.onnx", files / "float.onnx", "--images", files / "photos")
    assert result.returncode == 0, result.stderr
    assert "All masks are equal" in result.stdout
    arguments = ("compare", files / "float.onnx", files / "damaged.onnx", "--images", files / "photos")
    result = run(*arguments, "--out", tmp_path / "o")
    said = (
        "Mean mask IoU 0.8889, tolerance at least 0.99.",
        "FAIL: beyond the tolerance: mean mask IoU (exit code 3).",
    )
    says(result, *said, "in the prototypes", "5 (100 %)", "drift.png", code=3)
    assert (tmp_path / "o" / "worst.png").is_file()
    result = run(*arguments, "--min-iou", 0, "--max-unmatched", 1, "--max-score-drift", 1)
    assert result.returncode == 0, result.stdout
    assert "PASS: the same within the tolerance (exit code 0)." in result.stdout


@pytest.mark.usefixtures("undrawn")
def test_results_are_no_input_of_the_next_run(files: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    for image in (files / "photos").iterdir():
        for folder in (tmp_path, tmp_path / "out"):
            (folder / image.name).write_bytes(image.read_bytes())
    options = ("--images", ".", "--out", "out", "--overwrite")
    result = run("compare", files / "float.onnx", files / "damaged.onnx", *options, cwd=tmp_path)
    says(result, "3 images, both models", "worst.png", code=3)


def test_the_command_reads_b_in_another_way(files: Path) -> None:
    pytest.importorskip("openvino")
    result = run(
        "compare", files / "float.onnx", files / "float.onnx", "--images", files / "photos", "--runtime-b", "openvino"
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "(openvino" in result.stdout


def test_the_command_tells_mistakes(files: Path, tmp_path: Path) -> None:
    model, photos = files / "float.onnx", files / "photos"
    says(run("compare", model, tmp_path / "none.onnx", "--images", photos), "there is no such model file")
    says(run("compare", model, model, "--images", tmp_path / "none"), "there is no such file or folder")
    says(run("compare", model, model, "--images", photos, "--min-iou", "7"), "min_iou is 7.0; expected 0 to 1")
    (tmp_path / "taken").write_text("")
    says(run("compare", model, model, "--images", photos, "--out", tmp_path / "taken"), "choose another --out")
    (tmp_path / "bad.jpg").write_bytes(b"")
    says(run("compare", model, model, "--images", tmp_path), "not a single image", "the file is empty")


def test_comparing_imports_nothing_heavy() -> None:
    code = (
        "import sys, maskprism.analysis.comparison; print(sorted({'scipy', 'matplotlib', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


# --- real weights


def test_int8_of_a_real_network(real_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the search for a fault of the input, which runs the real model 50 times; others test it."""
    pytest.importorskip("ai_edge_litert")
    monkeypatch.setattr("maskprism.analysis.comparison.paired_run.find_input_fault", lambda *_: None)
    pairs = [real_data / "models" / name for name in ("yolov8n-seg.onnx", "yolov8n-seg_int8.tflite")]
    found = compare(*pairs, real_data / "images")
    assert found.similarity.shared
    assert found.similarity.cka > 0.99
    assert 0.9 < found.mean_iou < 1
    assert 0 < np.median(found.similarity.errors) < 0.2
    assert len(found.matched) >= 5
