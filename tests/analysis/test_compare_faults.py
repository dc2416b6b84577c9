"""Faults that are put into one of two equal models on purpose: comparing names each of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskprism.analysis.comparison.class_map import ClassPairs
from maskprism.analysis.comparison.paired_run import compare
from maskprism.analysis.comparison.relations import Relations
from maskprism.analysis.comparison.report import Comparison, Tolerance
from maskprism.analysis.comparison.similarity import PrototypeSimilarity, paired_pixels
from maskprism.analysis.comparison.summary import summary_of
from maskprism.analysis.prototypes.covariance import RunningCovariance
from maskprism.core.geometry import Letterbox
from maskprism.core.masks import ULTRALYTICS
from maskprism.core.prediction import Prediction
from maskprism.core.preprocessing import IMAGENET
from maskprism.datasets.scenes import draw_scene
from maskprism.models import Model, load
from maskprism.models.runtimes import FunctionRuntime, NetworkInput

K, CLASSES, SIDE = 6, 3, 64
NAMES = ("cat", "dog", "fish")
LEVEL_ENDS = (0, 64, 80, 84)
ROWS = (3, 30, 70, 82)
"""Two instances of the finest level of the pyramid, one of each other level."""
Arrays = tuple[np.ndarray, np.ndarray]


def sensitive(batch: np.ndarray) -> Arrays:
    """Prototypes, scores, boxes and coefficients that all depend on the input."""
    rng = np.random.default_rng(7)
    cells = batch.reshape(len(batch), 3, SIDE // 4, 4, SIDE // 4, 4).mean(axis=(3, 5))
    ramp = np.linspace(0, 1, SIDE // 4)
    uneven = 1 + ramp + 3 * ramp[:, None] ** 2  # a mirrored or turned input has other means
    means = (cells * uneven).mean(axis=(2, 3)) / uneven.mean()
    features = np.concatenate([cells, cells**2], axis=1) - np.array([0.4, 0.4, 0.4, 0.3, 0.3, 0.3])[:, None, None]
    mixing = rng.normal(0, 1, (K, K))
    features = features - np.concatenate([means, means**2], axis=1)[:, :, None, None]
    prototypes = np.einsum("kc,bchw->bkhw", mixing, features) * (1 + 0.3 * ramp + 0.2 * ramp[:, None])
    rows = np.zeros((len(batch), 4 + CLASSES + K, LEVEL_ENDS[-1]), dtype=np.float32)
    weights = rng.normal(0, 1, (len(ROWS), K, 3))
    for row, mean in zip(rows, means, strict=True):
        change = mean - 0.45
        for j, (place, w) in enumerate(zip(ROWS, weights, strict=True)):
            drift = np.clip(w[:4] @ change, -1, 1)
            row[:4, place] = np.array([20 + 22 * (j % 2), 20 + 22 * (j // 2), 24, 26]) + drift * [1, -1, 1, 0.5]
            row[4 + j % CLASSES, place] = np.clip(0.7 + 0.2 * drift[0], 0.3, 0.95)
            row[4 + CLASSES :, place] = rng_row(j) + w @ change
    return rows, prototypes.astype(np.float32)


def rng_row(j: int) -> np.ndarray:
    return np.random.default_rng(100 + j).normal(0, 1, K)


def model(
    before: Callable[[np.ndarray], np.ndarray] | None = None,
    after: Callable[[np.ndarray, np.ndarray], Arrays] | None = None,
    names: tuple[str, ...] = NAMES,
    **options: Any,
) -> Model:
    """The model with something done to its input, or to its rows and prototypes."""

    def function(batch: np.ndarray) -> Arrays:
        changed = batch if before is None else np.ascontiguousarray(before(batch), dtype=np.float32)
        rows, prototypes = sensitive(changed)
        return (rows, prototypes) if after is None else after(rows, prototypes)

    metadata = {"task": "segment", "names": dict(enumerate(names)), "imgsz": [SIDE, SIDE], "stride": 32}
    return load(FunctionRuntime(function, NetworkInput(None, SIDE, SIDE), metadata), name="m", **options)


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    return [cv2.resize(draw_scene(seed).image, size) for seed, size in enumerate([(96, 60), (50, 90), (64, 64)])]


def compared(images: list[np.ndarray], **faults: Any) -> Comparison:
    return compare(model(), model(**faults), images)


def by_plane(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda batch: np.stack([np.stack([change(plane) for plane in image]) for image in batch])


# --- faults of the input


@pytest.mark.parametrize(
    ("before", "words"),
    [
        (lambda batch: batch[:, ::-1], "red and blue are exchanged (BGR instead of RGB)"),
        (lambda batch: batch[:, [1, 2, 0]], "channels are in another order (GBR instead of RGB)"),
        (lambda batch: batch * 255, "the division by 255 is missing"),
        (lambda batch: batch / 255, "divided by 255 once more than needed"),
        (lambda batch: 2 * batch - 1, "scaled to −1 to 1"),
        (lambda batch: (np.roll(batch, 1, -1) + batch) / 2, "shifted (by pixels: 0.5 right)"),
        (lambda batch: np.roll(batch, -1, -2), "shifted (by pixels: 1 up)"),
        (by_plane(lambda plane: cv2.GaussianBlur(plane, (0, 0), 1.5)), "blurred (as by a Gaussian of 1.5 pixels)"),
        (lambda batch: batch[..., ::-1], "mirrored left to right"),
        (lambda batch: batch.transpose(0, 1, 3, 2), "height and width are exchanged"),
        (lambda batch: batch.transpose(0, 2, 3, 1).reshape(batch.shape), "is read as channels, height, width"),
        (lambda batch: batch.mean(axis=1, keepdims=True).repeat(3, axis=1), "colours are missing"),
        (lambda batch: (batch - np.array(IMAGENET.mean)[:, None, None]) / 0.225, "normalised by the mean"),
    ],
)
def test_a_fault_of_the_input_is_named(images: list[np.ndarray], before: Any, words: str) -> None:
    found = compared(images, before=before)
    assert found.input_fault is not None, summary_of(found)
    assert words in found.input_fault.name
    assert found.before_head
    assert found.responsible is None
    text = summary_of(found, Tolerance())
    assert words in text
    assert "Worst terms" not in text
    told = found.as_dict()
    assert told["input_fault"]["name"] == found.input_fault.name
    assert told["before_head"] is True
    json.dumps(told, allow_nan=False)


def in_frame(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """Something done to the part of the input that is not padding."""
    grey = np.float32(114) / np.float32(255)

    def changed(batch: np.ndarray) -> np.ndarray:
        images = []
        for image in batch:
            inside = np.abs(image - grey).max(axis=0) > 1e-6
            rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
            if not len(rows):
                images.append(image)
                continue
            content = image[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            images.append(change(content))
        return np.stack(images)

    return changed


def stretched(content: np.ndarray) -> np.ndarray:
    return np.stack([cv2.resize(np.ascontiguousarray(plane), (SIDE, SIDE)) for plane in content])


def in_corner(content: np.ndarray) -> np.ndarray:
    canvas = np.full((3, SIDE, SIDE), np.float32(114) / np.float32(255))
    canvas[:, : content.shape[1], : content.shape[2]] = content
    return canvas


def with_black_padding(content: np.ndarray) -> np.ndarray:
    top, left = (SIDE - content.shape[1]) // 2, (SIDE - content.shape[2]) // 2
    canvas = np.zeros((3, SIDE, SIDE), dtype=np.float32)
    canvas[:, top : top + content.shape[1], left : left + content.shape[2]] = content
    return canvas


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (stretched, "the image is stretched over the whole input"),
        (in_corner, "the image lies at the top left"),
        (with_black_padding, "the padding is black"),
    ],
)
def test_a_fault_of_the_letterbox_is_named(images: list[np.ndarray], change: Any, words: str) -> None:
    found = compare(model(), model(before=in_frame(change)), images[:1])
    assert found.input_fault is not None, summary_of(found)
    assert words in found.input_fault.name


def test_a_fault_of_the_input_is_named_where_nothing_is_detected(images: list[np.ndarray]) -> None:
    def quiet(rows: np.ndarray, prototypes: np.ndarray) -> Arrays:
        rows[:, 4 : 4 + CLASSES] = 0
        return rows, prototypes

    found = compared(images, before=lambda batch: batch[:, ::-1], after=quiet)
    assert len(found.matched) == 0
    assert "red and blue are exchanged" in found.violations(Tolerance())[0]


def test_other_preparation_of_images_is_told(images: list[np.ndarray]) -> None:
    found = compare(model(), model(preprocessing=IMAGENET), images)
    text = summary_of(found)
    assert "resize is stretch in B and letterbox in A" in text
    assert summary_of(compared(images)).count("prepared in another way") == 0


def test_a_backbone_of_another_precision_is_no_fault_of_the_input(images: list[np.ndarray]) -> None:
    def noisy(rows: np.ndarray, prototypes: np.ndarray) -> Arrays:
        rng = np.random.default_rng(0)
        spread = prototypes.std()
        rows[:, :4] += rng.normal(0, 0.3, rows[:, :4].shape)
        rows[:, 4:] *= 1 + rng.normal(0, 0.03, rows[:, 4:].shape)
        return rows, (prototypes + rng.normal(0, 0.05 * spread, prototypes.shape)).astype(np.float32)

    found = compared(images, after=noisy)
    assert found.input_fault is None
    assert found.before_head
    assert "None of the usual faults of an input gives what B says" in summary_of(found)


def test_a_model_of_its_own_is_no_fault_of_the_input(images: list[np.ndarray]) -> None:
    """As two trainings: prototypes have nothing in common, and no fault before the head is reported."""

    def other(rows: np.ndarray, prototypes: np.ndarray) -> Arrays:
        rng = np.random.default_rng(5)
        rows[:, :4] += rng.normal(0, 0.3, rows[:, :4].shape)
        rows[:, 4:] *= 1 + rng.normal(0, 0.1, rows[:, 4:].shape)
        mixing = rng.normal(size=(K, K))
        return rows, np.tanh(np.einsum("ij,bjhw->bihw", mixing, prototypes)).astype(np.float32)

    found = compared(images, after=other)
    assert found.input_fault is None
    assert not found.before_head
    text = summary_of(found)
    assert "prototypes of their own" in text
    assert "before the head" not in text


def test_equal_models_and_single_parts_start_no_search(images: list[np.ndarray]) -> None:
    calls = []

    def counted(batch: np.ndarray) -> np.ndarray:
        calls.append(len(batch))
        return batch

    def one_prototype(rows: np.ndarray, prototypes: np.ndarray) -> Arrays:
        prototypes[:, 2] *= 0.7
        return rows, prototypes

    a = model(before=counted)
    for other in (model(), model(after=one_prototype)):
        calls.clear()
        found = compare(a, other, images)
        assert found.input_fault is None
        assert not found.before_head
        assert sum(calls) == len(images)


# --- prototypes that were moved, turned or put in another order


def prototypes_only(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray, np.ndarray], Arrays]:
    return lambda rows, prototypes: (rows, np.ascontiguousarray(change(prototypes)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p.transpose(0, 1, 3, 2), "transposed (height and width exchanged)"),
        (lambda p: p[..., ::-1], "mirrored left to right"),
        (lambda p: p[..., ::-1, :], "mirrored top to bottom"),
        (lambda p: p[..., ::-1, ::-1], "rotated by 180°"),
        (lambda p: np.rot90(p, -1, (2, 3)), "rotated by 90° clockwise"),
        (lambda p: np.roll(p, 1, -1), "shifted by 1 cell right"),
        (lambda p: np.roll(p, (-1, 2), (-2, -1)), "shifted by 1 cell up and 2 cells right"),
        (lambda p: (p + np.roll(p, 1, -2)) / 2, "shifted by 0.5 cell down"),
        (lambda p: -p, "of the opposite sign"),
    ],
)
def test_moved_prototypes_are_named_and_equal_coefficients_are_not_to_blame(
    images: list[np.ndarray], change: Any, words: str
) -> None:
    found = compared(images, after=prototypes_only(change))
    assert found.relation.change == words
    assert found.relation.changed == tuple(range(K))
    assert found.shares["coefficients"] == found.shares["boxes"] == 0
    assert found.responsible == "prototypes"
    assert found.input_fault is None
    text = summary_of(found)
    assert f"B's prototypes are all A's {K} {words}." in text
    assert "Equal up to rounding in both: scores, boxes, coefficients." in text
    assert "translated" not in text


def test_transposed_prototypes_of_a_grid_that_is_no_square() -> None:
    box = Letterbox.fit((60, 90), (64, 96)).with_grid((16, 24))
    rng = np.random.default_rng(0)
    a = Prediction(
        canvas_boxes=np.float32([[8, 8, 40, 40]]),
        scores=np.float32([0.8]),
        classes=np.array([0]),
        coefficients=rng.normal(size=(1, K)).astype(np.float32),
        prototypes=rng.normal(size=(K, 16, 24)).astype(np.float32),
        letterbox=box,
        rule=ULTRALYTICS,
    )
    b = replace(a, prototypes=a.prototypes.transpose(0, 2, 1), letterbox=box.with_grid((24, 16)))
    moments, relations = RunningCovariance(2 * K), Relations(K, same_count=True)
    moments.update(paired_pixels(a, b))
    relations.update(a, b, np.array([[0, 0]]))
    found = relations.relation(PrototypeSimilarity(K, moments))
    assert found.change == "transposed (height and width exchanged)"
    assert found.coefficients_equal


def test_one_moved_prototype_among_many_is_named(images: list[np.ndarray]) -> None:
    def moved(prototypes: np.ndarray) -> np.ndarray:
        prototypes[:, 4] = np.roll(prototypes[:, 4], 1, -1)
        return prototypes

    found = compared(images, after=prototypes_only(moved))
    assert "B's prototype 4 is A's shifted by 1 cell right." in summary_of(found)


@given(st.permutations(range(K)))
@settings(max_examples=15, deadline=None)
def test_every_order_is_recognised(images: list[np.ndarray], order: list[int]) -> None:
    """B's prototype i is A's order[i]."""

    def after(rows: np.ndarray, prototypes: np.ndarray) -> Arrays:
        rows[:, -K:] = rows[:, -K:][:, order]
        return rows, prototypes[:, order]

    where = tuple(np.argsort(order).tolist())  # of each prototype of A
    moved = None if where == tuple(range(K)) else where
    found = compared(images, after=after)
    assert (found.relation.prototype_order, found.relation.coefficient_order) == (moved, moved)
    np.testing.assert_allclose(found.ious, 1, atol=0.02)
    assert (moved is not None) == ("so masks do not change" in summary_of(found))
    alone = compared(images, after=lambda rows, prototypes: (rows, prototypes[:, order]))
    assert (alone.relation.prototype_order, alone.relation.coefficient_order) == (moved, None)
    assert alone.shares["coefficients"] == 0


def test_two_exchanged_ones_are_named(images: list[np.ndarray]) -> None:
    order = [0, 4, 2, 3, 1, 5]

    def both(rows: np.ndarray, prototypes: np.ndarray) -> Arrays:
        rows[:, -K:] = rows[:, -K:][:, order]
        return rows, prototypes[:, order]

    def coefficients(rows: np.ndarray, prototypes: np.ndarray) -> Arrays:
        return both(rows, prototypes)[0], prototypes

    text = summary_of(compared(images, after=both))
    assert "B has A's prototypes in another order, and its coefficients in the same order" in text
    assert "1 and 4 are exchanged." in text
    found = compared(images, after=coefficients)
    assert found.responsible == "coefficients"
    assert "B has A's coefficients in another order, and its prototypes not in that order" in summary_of(found)


def test_different_prototypes_are_no_order(images: list[np.ndarray]) -> None:
    mixing = np.linalg.qr(np.random.default_rng(0).normal(size=(K, K)))[0]
    mixed = compared(images, after=prototypes_only(lambda p: np.einsum("ij,bjhw->bihw", mixing, p).astype(np.float32)))
    assert mixed.relation.sentences() == []


# --- levels of the pyramid


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("part", ["boxes", "scores", "coefficients"])
def test_a_level_that_alone_is_damaged_is_named(images: list[np.ndarray], level: int, part: str) -> None:
    rows_of = {"boxes": slice(0, 4), "scores": slice(4, 4 + CLASSES), "coefficients": slice(4 + CLASSES, None)}[part]
    columns = slice(*LEVEL_ENDS[level : level + 2])

    def damaged(rows: np.ndarray, prototypes: np.ndarray) -> Arrays:
        rows[:, rows_of, columns] *= np.float32(0.8 if part == "scores" else 0.95)
        return rows, prototypes

    found = compared(images, after=damaged)
    assert found.damaged_level is not None
    assert found.damaged_level.level == level
    assert f"Only instances of pyramid level {level} (0 is the finest) differ" in summary_of(found)
    assert {row["level_a"] for row in found.instances.to_pylist()} == {0, 1, 2}
    assert found.as_dict()["damaged_level"]["level"] == level


def test_damage_on_all_levels_is_not_said_of_one(images: list[np.ndarray]) -> None:
    def damaged(rows: np.ndarray, prototypes: np.ndarray) -> Arrays:
        rows[:, 4 + CLASSES :] *= np.linspace(0.5, 1, K)[:, None]
        return rows, prototypes

    assert compared(images, after=damaged).damaged_level is None
    assert compared(images).damaged_level is None


# --- classes


def test_classes_in_another_order_are_recognised_and_named(images: list[np.ndarray]) -> None:
    """Only the names are wrong: ids, boxes and masks are those of A."""
    found = compared(images, names=("dog", "fish", "cat"))
    assert found.count("matched") == 4 * len(images)
    np.testing.assert_array_equal(found.ious, 1)
    assert found.moved_classes == {0: 0, 1: 1, 2: 2}
    text = summary_of(found, Tolerance())
    assert "cat of A is dog of B, dog of A is fish of B, fish of A is cat of B" in text
    assert "only the names are in another order" in text
    assert found.violations(Tolerance()) == ["3 classes have other names in B"]


def test_class_ids_in_another_order_are_recognised(images: list[np.ndarray]) -> None:
    def rolled(rows: np.ndarray, prototypes: np.ndarray) -> Arrays:
        rows[:, 4 : 4 + CLASSES] = np.roll(rows[:, 4 : 4 + CLASSES], 1, axis=1)
        return rows, prototypes

    found = compared(images, after=rolled)
    assert found.moved_classes == {0: 1, 1: 2, 2: 0}
    np.testing.assert_array_equal(found.ious, 1)
    assert "only the names" not in summary_of(found)
    renamed = compared(images, after=rolled, names=("x", "y", "z"))  # no name in common
    assert renamed.moved_classes == {0: 1, 1: 2, 2: 0}
    right = compared(images, after=rolled, names=("fish", "cat", "dog"))  # names go with their ids
    assert right.moved_classes == {}
    assert right.violations(Tolerance()) == []


def test_equal_names_at_several_ids_are_told_apart_by_id(images: list[np.ndarray]) -> None:
    a, b = (model(names=("animal", "animal", "fish")) for _ in range(2))
    found = compare(a, b, images)
    assert found.count("matched") == 4 * len(images)
    assert found.moved_classes == {}


def test_one_confused_instance_is_no_other_order() -> None:
    names = {0: "cat", 1: "dog", 2: "fish"}
    pairs = ClassPairs()
    pairs.counts.update({(0, 0): 9, (1, 2): 2, (2, 2): 1})
    assert pairs.moved(names, names) == {}
    pairs.counts.update({(1, 2): 1})
    assert pairs.moved(names, names) == {}, "fish is found as fish, too"
    swapped = ClassPairs()
    swapped.counts.update({(0, 1): 3, (1, 0): 1})
    assert swapped.moved(names, names) == {0: 1, 1: 0}


def test_rare_classes_whose_name_another_class_has_taken_are_recognised() -> None:
    """Three classes exchanged among many that are not: one is frequent, two are rare."""
    names = dict(enumerate(("person", "cat", "car", "dog", "fish", "bus")))
    pairs = ClassPairs()
    pairs.counts.update({(1, 1): 9, (3, 3): 8, (2, 0): 6, (0, 5): 2, (5, 2): 1, (4, 4): 1})
    assert pairs.moved(names, names) == {0: 5, 2: 0, 5: 2}
    alone = ClassPairs()
    alone.counts.update({(1, 1): 9, (3, 3): 8, (2, 0): 6, (4, 5): 1})
    assert alone.moved(names, names) == {2: 0}, "nothing has taken the names fish and bus"


# --- real weights


@pytest.mark.parametrize(("fault", "words"), [("bgr", "red and blue"), ("transposed", "transposed (height")])
def test_faults_of_a_real_model_are_named(real_data: Path, fault: str, words: str) -> None:

    import maskprism

    a = maskprism.load(real_data / "models" / "yolov8n-seg.onnx")

    def function(batch: np.ndarray) -> list[np.ndarray]:
        outputs = a.runtime(np.ascontiguousarray(batch[:, ::-1]) if fault == "bgr" else batch)
        return [o.transpose(0, 1, 3, 2) if fault == "transposed" and o.ndim == 4 else o for o in outputs]

    b = replace(a, runtime=FunctionRuntime(function, a.runtime.input, a.runtime.metadata))
    text = summary_of(compare(a, b, [real_data / "images" / "bus.jpg"]))
    assert words in text
