"""Predictions made by hand, and when two predictions are equal."""

from __future__ import annotations

import numpy as np

from maskprism import RULES, Letterbox, Prediction


def made(seed: int, k: int = 4, n: int = 6, rank: int | None = None, rule: str = "ultralytics") -> Prediction:
    """A prediction with boxes inside; with `rank`, all prototypes are mixtures of `rank`."""
    rng = np.random.default_rng(seed)
    letterbox = Letterbox.fit((32, 48), (32, 48)).with_grid((8, 12))
    corners = rng.integers(0, 14, (n, 2))
    prototypes = rng.normal(0, 1, (rank or k, 8, 12)) + 0.3
    if rank:
        mixing = np.random.default_rng(1).normal(0, 1, (k, rank))
        prototypes = np.tensordot(mixing, prototypes, axes=1)
    return Prediction(
        canvas_boxes=np.concatenate([corners, corners + rng.integers(8, 18, (n, 2))], axis=1).astype(np.float32),
        scores=np.linspace(0.9, 0.4, n).astype(np.float32),
        classes=rng.integers(0, 3, n),
        coefficients=rng.normal(0, 1, (n, k)).astype(np.float32),
        prototypes=prototypes.astype(np.float32),
        letterbox=letterbox,
        rule=RULES[rule],
        objectness=rng.uniform(0.4, 1, n).astype(np.float32) if rule == "yolov5" else None,
    )


def drawn(*prototypes: np.ndarray, weights: list[float], box: tuple[int, int, int, int] = (0, 0, 16, 16)) -> Prediction:
    """One instance over these 16 x 16 prototypes, decoded on the grid."""
    return Prediction(
        canvas_boxes=np.array([[4 * side for side in box]], dtype=np.float32),
        scores=np.array([0.9], dtype=np.float32),
        classes=np.array([0]),
        coefficients=np.array([weights], dtype=np.float32),
        prototypes=np.stack(prototypes).astype(np.float32),
        letterbox=Letterbox.fit((64, 64), (64, 64)),
        rule=RULES["validation"],
    )


def square(value: float = 1.0, rest: float = 0.0) -> np.ndarray:
    image = np.full((16, 16), rest)
    image[4:12, 4:12] = value
    return image


def assert_equal(found: Prediction, expected: Prediction) -> None:
    for name in ("canvas_boxes", "scores", "classes", "coefficients", "prototypes", "objectness"):
        ours, wanted = getattr(found, name), getattr(expected, name)
        assert (ours is None) == (wanted is None)
        if wanted is not None:
            np.testing.assert_array_equal(ours, wanted)
            assert ours.dtype == wanted.dtype
    assert (found.letterbox, found.rule, found.names) == (expected.letterbox, expected.rule, expected.names)
    assert found.preprocessing == expected.preprocessing
