"""What can be claimed from a sample of images: bootstrap intervals over images, and how many images are too few.

Instances of one image share its light, its scene and its prototypes: they are not independent. Every interval is
therefore over images, never over instances.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from maskprism._common.text import rounded, signed

if TYPE_CHECKING:
    from jaxtyping import Float, Float64, Int64, UInt16

LEVEL = 0.95
"""Probability with which an interval covers the true value, over all values that are compared."""
MIN_IMAGES = 20
"""With fewer images than this no claim is made and no advice is given: bootstrap intervals are too narrow there."""
CLAIMS = 15
"""The number of claims that a diagnosis may make about the same images; their intervals hold together."""
_RESAMPLES = 2000
_FARTHEST_TAIL = 0.0125
"""25 resamples lie beyond it; ends that are farther out are extrapolated."""
_CHUNK = 2**22
_KEPT = 2**24
"""Resamples of at most this number of counts are kept for the next statistic: drawing takes longer than most."""


class Interval(NamedTuple):
    """A value, and the ends of its interval; the ends are NaN with fewer than two images."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{signed(self.mean)}, between {signed(self.low)} and {signed(self.high)}"

    def plain(self, digits: int = 3) -> str:
        """Return the value and the ends in text: "0.332 (0.290 to 0.377)"; the value alone, where the ends are NaN."""
        value, low, high = (rounded(number, digits) for number in self)
        return value if math.isnan(self.low) else f"{value} ({low} to {high})"

    def negated(self) -> Interval:
        """Return the interval of the negative value."""
        return Interval(-self.mean, -self.high, -self.low)

    def excludes(self, value: float = 0.0) -> bool:
        """Return whether `value` lies outside the interval; False for an interval of NaN."""
        return self.low > value or self.high < value


def too_few(n_images: int) -> bool:
    """Return whether `n_images` are fewer than `MIN_IMAGES`, so that nothing may be claimed."""
    return n_images < MIN_IMAGES


def interval(
    values: Float[np.ndarray, " N"],
    image: Sequence[Hashable] | Int64[np.ndarray, " N"],
    *,
    comparisons: int = 1,
) -> Interval:
    """Return the mean of values of instances with its bootstrap interval over images.

    Parameters
    ----------
    values
        One value per instance.
    image
        The image of each value: any number or name.
    comparisons
        How many intervals are looked at together. Each is made wider so that all of them hold with probability
        `LEVEL` (Bonferroni).

    Returns
    -------
    Interval
        NaN throughout without a value; NaN ends with one image.
    """
    if not len(values):
        return Interval(math.nan, math.nan, math.nan)
    _, which = np.unique(np.asarray(image), return_inverse=True)
    sums = np.bincount(which, values)
    counts = np.bincount(which).astype(np.float64)
    return bootstrap(lambda weights: (weights @ sums) / (weights @ counts), len(sums), comparisons=comparisons)


def claimed_interval(
    values: Float[np.ndarray, " N"],
    image: Sequence[Hashable] | Int64[np.ndarray, " N"],
    *,
    comparisons: int = 1,
) -> Interval:
    """Return what `interval` returns, but with too few images for a claim without ends (NaN)."""
    if len(values) and too_few(len(np.unique(np.asarray(image)))):
        return Interval(float(values.mean()), math.nan, math.nan)
    return interval(values, image, comparisons=comparisons)


def mean_intervals(
    values: Float64[np.ndarray, "N S"], image: Int64[np.ndarray, " N"], *, comparisons: int = 1
) -> list[Interval]:
    """Return the means of several values of instances, as `claimed_interval` returns one, from the same resamples.

    Parameters
    ----------
    values
        S values per instance; at least one instance.
    image
        The image of each instance, numbered from 0.
    comparisons
        As for `interval`.

    Returns
    -------
    list of Interval
        One for each of the S values.
    """
    sums, counts = by_image(values, image)
    if too_few(len(counts)):
        return [Interval(float(value), math.nan, math.nan) for value in values.mean(axis=0)]
    return bootstraps(
        lambda weights: (weights @ sums) / (weights @ counts)[:, None], len(counts), comparisons=comparisons
    )


def by_image(
    values: Float64[np.ndarray, "N S"], image: Int64[np.ndarray, " N"]
) -> tuple[Float64[np.ndarray, "I S"], Float64[np.ndarray, " I"]]:
    """Return the sums of the values of each image (numbered from 0), and how many instances it has."""
    sums = np.stack([np.bincount(image, column) for column in values.T], axis=1)
    return sums, np.bincount(image).astype(np.float64)


def bootstrap(
    statistic: Callable[[Float64[np.ndarray, "R I"]], Float64[np.ndarray, " R"]],
    n_images: int,
    *,
    comparisons: int = 1,
) -> Interval:
    """Return a statistic of images with its percentile bootstrap interval.

    Parameters
    ----------
    statistic
        Takes R resamples as an array (R, `n_images`): how often each image was drawn. Returns R values; NaN where a
        resample has none.
    n_images
        How many images there are.
    comparisons
        How many intervals are looked at together; see `interval`.

    Returns
    -------
    Interval
        The statistic with every image counted once, and the interval; its ends are NaN with fewer than two images.

    Notes
    -----
    Percentile intervals of small samples are too narrow. Their tails are chosen as for a t distribution, by
    n / (n - 1) times its variance. Ends too far out for the number of resamples, of many comparisons, are extrapolated
    from `_FARTHEST_TAIL` on their side as in a normal distribution; with fewer than `MIN_IMAGES` they are those of the
    resamples.

    References
    ----------
    Efron and Tibshirani, "An Introduction to the Bootstrap", 1993.
    Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician 69, 2015, section 4.
    """
    return bootstraps(lambda weights: statistic(weights)[:, None], n_images, comparisons=comparisons)[0]


def bootstraps(
    statistics: Callable[[Float64[np.ndarray, "R I"]], Float64[np.ndarray, "R S"]],
    n_images: int,
    *,
    comparisons: int | Sequence[int] = 1,
    centred: bool = False,
) -> list[Interval]:
    """Return several statistics of the same images, each as `bootstrap` returns it, from the same resamples.

    Parameters
    ----------
    statistics
        As for `bootstrap`; returns R rows of S values.
    n_images, comparisons
        As for `bootstrap`; `comparisons` for all values, or one number for each.
    centred
        Shift the resamples of each value so that their mean is the value. For statistics that are larger or smaller in
        a resample, because it has fewer different images, such as average precision.

    Returns
    -------
    list of Interval
        One for each of the S values.
    """
    values = statistics(np.ones((1, n_images)))[0]
    if n_images < 2:
        return [Interval(float(value), math.nan, math.nan) for value in values]
    counts = [comparisons] * len(values) if isinstance(comparisons, int) else comparisons
    drawn = _kept(n_images, _RESAMPLES) if n_images * _RESAMPLES <= _KEPT else _drawn(n_images, _RESAMPLES)
    sampled = np.concatenate([statistics(weights.astype(np.float64)) for weights in drawn])
    undefined = np.isnan(sampled).all(axis=0)
    if centred:
        sampled[:, ~undefined] += values[~undefined] - np.nanmean(sampled[:, ~undefined], axis=0)
    return [
        Interval(float(value), *([math.nan] * 2 if absent else _ends(column, n_images, count)))
        for value, absent, column, count in zip(values, undefined, sampled.T, counts, strict=True)
    ]


def _drawn(n_images: int, count: int) -> Iterator[Int64[np.ndarray, "R I"]]:
    """Draw `count` resamples, some at a time: how often each image was drawn."""
    rng = np.random.default_rng(0)
    rows = max(1, _CHUNK // n_images)
    for start in range(0, count, rows):
        yield rng.multinomial(n_images, np.full(n_images, 1 / n_images), size=min(rows, count - start))


@lru_cache(maxsize=4)
def _kept(n_images: int, count: int) -> Iterable[UInt16[np.ndarray, "R I"]]:
    return [weights.astype(np.uint16) for weights in _drawn(n_images, count)]


def _ends(sampled: Float64[np.ndarray, " R"], n_images: int, comparisons: int) -> list[float]:
    """Return the quantiles of resamples as far out as the ends of an interval that holds for all these comparisons."""
    normal = NormalDist()
    deviations = _deviations(n_images, comparisons)
    farthest = -normal.inv_cdf(_FARTHEST_TAIL)
    if deviations <= farthest or too_few(n_images):
        tail = normal.cdf(-deviations)
        return np.nanquantile(sampled, [tail, 1 - tail]).tolist()
    low, middle, high = np.nanquantile(sampled, [_FARTHEST_TAIL, 0.5, 1 - _FARTHEST_TAIL]).tolist()
    return [middle + (end - middle) * deviations / farthest for end in (low, high)]


def _deviations(n_images: int, comparisons: int) -> float:
    """Ends of a t interval that holds for all comparisons, in standard deviations; the variance times n / (n - 1)."""
    z, degrees = NormalDist().inv_cdf(1 - (1 - LEVEL) / 2 / comparisons), n_images - 1
    student = (  # Abramowitz and Stegun 26.7.5
        z
        + (z**3 + z) / (4 * degrees)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * degrees**3)
    )
    return student * math.sqrt(n_images / degrees)
