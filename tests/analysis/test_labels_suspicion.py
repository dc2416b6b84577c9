"""Suspicions of labels, from numbers alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from maskprism.analysis.labels import suspicion
from maskprism.analysis.labels.suspicion import LEVELS, kinds, suspicions

pytest.importorskip("sklearn", reason="scikit-learn is not installed")


def rows(n_images: int, informative: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Four labels on each image with one corrupted copy each; a feature tells them apart, mask IoU does not."""
    rng = np.random.default_rng(seed)
    image = np.repeat(np.arange(n_images), 8)
    corrupted = np.tile(np.arange(8) >= 4, n_images)
    features = rng.normal(size=(len(image), 3)).astype(np.float32)
    features[:, 0] += informative * corrupted
    features[::7, 1] = np.nan
    return features, image, corrupted, rng.random(len(image))


def told_apart(values: np.ndarray, wrong: np.ndarray) -> float:
    """AUROC by its definition."""
    pairs = values[wrong][:, None] - values[~wrong][None]
    return float(((pairs > 0) + 0.5 * (pairs == 0)).mean())


def test_no_label_is_judged_by_a_classifier_that_saw_its_image(monkeypatch: pytest.MonkeyPatch) -> None:
    features, image, corrupted, iou = rows(25, 3.0)
    features[:, 2] = image  # names the image of a row
    seen: list[tuple[set[float], set[float]]] = []
    learned = suspicion._learned

    def spy(learns: np.ndarray, *given: Any, **named: Any) -> Any:
        classifier = learned(learns, *given, **named)
        predict = classifier.predict_proba
        classifier.predict_proba = lambda judged: (
            seen.append((set(learns[:, 2].tolist()), set(judged[:, 2].tolist()))) or predict(judged)
        )
        return classifier

    monkeypatch.setattr(suspicion, "_learned", spy)
    result = suspicions(features, image, corrupted, iou)
    kinds(features, image, np.where(corrupted, np.where(iou > 0.5, "hole", "merged"), "").tolist(), ~corrupted)
    assert len(seen) == 2 * suspicion.FOLDS
    assert all(not learns & judged for learns, judged in seen)
    assert set.union(*(judged for _, judged in seen)) == set(range(25))
    assert len(result.values) == np.count_nonzero(~corrupted)


def test_the_learned_score_is_used_where_it_is_surely_better() -> None:
    features, image, corrupted, iou = rows(40, 3.0)
    result = suspicions(features, image, corrupted, iou)
    assert result.score == "learned"
    assert result.auroc > 0.9 > 0.65 > result.simple_auroc
    assert result.simple_auroc == pytest.approx(told_apart(1 - iou, corrupted))
    assert result.gain.low > 0
    assert result.gain.mean == pytest.approx(result.auroc - result.simple_auroc)
    assert result.calibrated
    assert ((result.values >= 0) & (result.values <= 1)).all()
    again = suspicions(features, image, corrupted, iou)
    np.testing.assert_array_equal(result.values, again.values)


@pytest.mark.parametrize(("n_images", "informative"), [(40, 0.0), (19, 3.0), (1, 3.0)])
def test_else_it_is_one_minus_mask_iou(n_images: int, informative: float) -> None:
    """Features that say nothing, or too few images."""
    features, image, corrupted, iou = rows(n_images, informative)
    iou = np.where(corrupted, 0.4 * iou, iou) if not informative else iou
    result = suspicions(features, image, corrupted, iou)
    assert result.score == "1 - mask IoU"
    np.testing.assert_array_equal(result.values, 1 - iou[~corrupted])
    assert result.calibrated == (n_images >= suspicion.MIN_CALIBRATED)


def test_without_corrupted_copies_there_is_a_score_and_no_quality() -> None:
    features, image, _, iou = rows(30, 0.0)
    result = suspicions(features, image, np.zeros(len(iou), dtype=bool), iou)
    np.testing.assert_array_equal(result.values, 1 - iou)
    assert np.isnan(result.auroc)


def test_the_calibration_is_the_share_of_copies_among_as_many_labels() -> None:
    features, image, corrupted, iou = rows(30, 0.0)
    keep = ~corrupted | (np.arange(len(iou)) % 2 == 0)  # half as many copies as labels
    features, image, corrupted, iou = features[keep], image[keep], corrupted[keep], iou[keep]
    result = suspicions(features, image, corrupted, iou)
    for level in LEVELS:
        wrong, right = ((1 - iou)[side] >= level for side in (corrupted, ~corrupted))
        assert result.corrupted_share[level] == pytest.approx(wrong.mean() / (wrong.mean() + right.mean()))


def test_kinds_are_told_apart() -> None:
    features, image, corrupted, _ = rows(30, 0.0)
    kind = np.where(corrupted, np.where(features[:, 0] > 0, "hole", "merged"), "").tolist()
    answers = kinds(features, image, kind, ~corrupted)
    likeliest = [max(answer, key=answer.__getitem__) for answer in answers]
    expected = np.where(features[~corrupted, 0] > 0, "hole", "merged")
    assert np.mean(np.array(likeliest) == expected) > 0.9
    assert all(sum(answer.values()) == pytest.approx(1) for answer in answers)
