"""How likely each label is wrong: a classifier that tells the given labels from corrupted copies of them.

The given labels count as right, although some are not, and one corrupted copy or more of each counts as wrong. Labels
are judged by classifiers that saw no label of their image (folds over images), so a wrong label cannot vouch for
itself. Where the classifier is not surely better than 1 - mask IoU, that simple score takes its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from maskprism._common.extras import require
from maskprism._common.parallel import one_thread_in_libraries
from maskprism.analysis.intervals import Interval, bootstrap, too_few

if TYPE_CHECKING:
    from jaxtyping import Bool, Float32, Float64, Int64

Score = Literal["learned", "1 - mask IoU"]
FOLDS = 5
MIN_CALIBRATED = 30
"""With fewer images than this, suspicions are not calibrated."""
SUSPICIOUS = 0.5
"""Labels from this suspicion on are shown, and get a kind."""
LEVELS = (0.5, 0.8, 0.9, 0.95)
_KIND_ROUNDS = 30
"""A round has a tree for each of twelve mistakes."""


@dataclass(frozen=True, eq=False)
class Suspicion:
    """Suspicions of N labels, and how much they can be trusted.

    Attributes
    ----------
    values
        0 to 1 per given label.
    score
        Which score they are.
    corrupted_share
        By suspicion level: of given labels and as many corrupted copies, the share of copies among those at or above
        the level; NaN where nothing is.
    auroc, simple_auroc
        Area under the ROC curve, corrupted copies against given labels, of the learned score and of 1 - mask IoU.
    gain
        Their difference, with its interval over images.
    n_images
        How many images the labels are on.
    """

    values: Float64[np.ndarray, " N"]
    score: Score
    corrupted_share: dict[float, float]
    auroc: float
    simple_auroc: float
    gain: Interval
    n_images: int

    @property
    def calibrated(self) -> bool:
        """Whether there were enough images for `corrupted_share` to say something."""
        return self.n_images >= MIN_CALIBRATED


def suspicions(
    features: Float32[np.ndarray, "N F"],
    image: Int64[np.ndarray, " N"],
    corrupted: Bool[np.ndarray, " N"],
    mask_iou: Float64[np.ndarray, " N"],
    *,
    seed: int = 0,
) -> Suspicion:
    """Judge the given labels among N rows, of which some are corrupted copies.

    Parameters
    ----------
    features
        What is measured of each row; NaN where it cannot be measured.
    image
        The image of each row.
    corrupted
        Which rows are corrupted copies.
    mask_iou
        Of each row with the detection that overlaps it most, 0 to 1.
    seed
        Of the folds and the classifiers.

    Returns
    -------
    Suspicion
        Of the rows that are not corrupted, in their order.

    Raises
    ------
    MissingExtraError
        Without scikit-learn.
    """
    roc_auc_score = require("sklearn.metrics", "judging labels").roc_auc_score
    images = np.unique(image)
    simple = 1 - mask_iou
    learned = simple
    gain = Interval(np.nan, np.nan, np.nan)
    if not too_few(len(images)) and 0 < np.count_nonzero(corrupted) < len(corrupted):
        learned = _out_of_fold(features, image, corrupted, seed)
        gain = _gain(learned, simple, corrupted, image)
    use_learned = gain.low > 0
    values = learned if use_learned else simple
    both = 0 < np.count_nonzero(corrupted) < len(corrupted)
    return Suspicion(
        values=values[~corrupted],
        score="learned" if use_learned else "1 - mask IoU",
        corrupted_share={level: _corrupted_share(values, corrupted, level) for level in LEVELS},
        auroc=float(roc_auc_score(corrupted, learned)) if both else np.nan,
        simple_auroc=float(roc_auc_score(corrupted, simple)) if both else np.nan,
        gain=gain,
        n_images=len(images),
    )


def kinds(
    features: Float32[np.ndarray, "N F"],
    image: Int64[np.ndarray, " N"],
    kind: Sequence[str],
    asked: Bool[np.ndarray, " N"],
    *,
    seed: int = 0,
) -> list[dict[str, float]]:
    """Which mistake a wrong label most likely has, by a classifier of the corrupted copies of other images.

    Parameters
    ----------
    features, image
        As for `suspicions`.
    kind
        Of each row its corruption, or "" for a given label.
    asked
        Which rows to tell the mistake of.
    seed
        Of the folds and the classifiers.

    Returns
    -------
    list
        For each asked row the probability of each corruption, 0 to 1, together 1.
    """
    names = np.asarray(kind)
    rows = np.flatnonzero(asked)
    answers: list[dict[str, float]] = [{} for _ in rows]
    for learns, judged in _folds(image, seed):
        copies = learns[names[learns] != ""]
        mine = np.flatnonzero(np.isin(rows, judged))
        if len(mine) and len(np.unique(names[copies])) > 1:
            classifier = _learned(features[copies], names[copies], seed, _KIND_ROUNDS)
            for place, shares in zip(mine, classifier.predict_proba(features[rows[mine]]), strict=True):
                answers[place] = dict(zip(classifier.classes_.tolist(), shares.tolist(), strict=True))
    return answers


def _learned(
    features: Float32[np.ndarray, "N F"],
    target: np.ndarray,
    seed: int,
    rounds: int = 100,
    weights: Float64[np.ndarray, " N"] | None = None,
) -> Any:
    """A fitted classifier; several threads take longer than one for so few rows."""
    classifier = require("sklearn.ensemble", "judging labels").HistGradientBoostingClassifier(
        max_iter=rounds,
        max_bins=63,
        learning_rate=0.1,
        max_leaf_nodes=12,
        min_samples_leaf=15,
        l2_regularization=1.0,
        early_stopping=False,
        random_state=seed,
    )
    with one_thread_in_libraries():
        return classifier.fit(features, target, sample_weight=weights)


def _folds(image: Int64[np.ndarray, " N"], seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows to learn from and rows to judge: the rows of an image are in one fold."""
    images, of_row = np.unique(image, return_inverse=True)
    fold = np.random.default_rng(seed).permutation(len(images)) % min(FOLDS, len(images))
    return [(np.flatnonzero(fold[of_row] != one), np.flatnonzero(fold[of_row] == one)) for one in np.unique(fold)]


def _out_of_fold(
    features: Float32[np.ndarray, "N F"], image: Int64[np.ndarray, " N"], corrupted: Bool[np.ndarray, " N"], seed: int
) -> Float64[np.ndarray, " N"]:
    """The probability of being a corrupted copy, where there are as many of them as given labels."""
    values = np.full(len(image), np.nan)
    for learns, judged in _folds(image, seed):
        wrong = corrupted[learns]
        weights = np.where(wrong, float(np.mean(~wrong)) / max(float(np.mean(wrong)), 1e-9), 1.0)
        classifier = _learned(features[learns], wrong, seed, weights=weights)
        values[judged] = classifier.predict_proba(features[judged])[:, 1]
    return values


def _gain(
    learned: Float64[np.ndarray, " N"],
    simple: Float64[np.ndarray, " N"],
    corrupted: Bool[np.ndarray, " N"],
    image: Int64[np.ndarray, " N"],
) -> Interval:
    """What the learned score gains in AUROC, with its interval over images.

    AUROC is a mean over rows: of the share of rows of the other kind that are ranked on the right side of each. Such a
    mean can be resampled by image.
    """
    value = _told_apart(learned, corrupted) - _told_apart(simple, corrupted)
    images, of_row = np.unique(image, return_inverse=True)
    sides = [
        (np.bincount(of_row[side], value[side], len(images)), np.bincount(of_row[side], minlength=len(images)))
        for side in (corrupted, ~corrupted)
    ]

    def mean(weights: Float64[np.ndarray, "R I"]) -> Float64[np.ndarray, " R"]:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.mean([(weights @ sums) / (weights @ counts) for sums, counts in sides], axis=0)

    return bootstrap(mean, len(images))


def _told_apart(score: Float64[np.ndarray, " N"], corrupted: Bool[np.ndarray, " N"]) -> Float64[np.ndarray, " N"]:
    right, wrong = np.sort(score[~corrupted]), np.sort(score[corrupted])
    below = (np.searchsorted(right, score) + np.searchsorted(right, score, "right")) / 2 / max(len(right), 1)
    above = 1 - (np.searchsorted(wrong, score) + np.searchsorted(wrong, score, "right")) / 2 / max(len(wrong), 1)
    return np.where(corrupted, below, above)


def _corrupted_share(values: Float64[np.ndarray, " N"], corrupted: Bool[np.ndarray, " N"], level: float) -> float:
    wrong, right = (np.mean(values[side] >= level) if side.any() else 0.0 for side in (corrupted, ~corrupted))
    return float(wrong / (wrong + right)) if wrong + right else np.nan
