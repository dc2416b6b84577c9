"""Means over groups of instances, and whether a group differs from all others by more than chance.

Instances of one image share its scene, its light and its prototypes: they are not independent. So the unit is the
image: standard errors are of sums over images ("cluster-robust"), and a group is known as well as it has images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float, Float32, Float64, Int32, Int64

LEAST = 5
"""A group with fewer instances is not reported."""
_COLUMNS = 8


class Means(NamedTuple):
    """The mean of the known values of each group, NaN without any, and how many they are."""

    mean: Float64[np.ndarray, " G"]
    known: Int64[np.ndarray, " G"]


def means(values: Float32[np.ndarray, " N"], groups: Int32[np.ndarray, " N"], count: int) -> Means:
    """Return the means over `count` groups; `groups` has the group of each value."""
    finite = np.isfinite(values)
    known = np.bincount(groups[finite], minlength=count)
    sums = np.bincount(groups[finite], values[finite], minlength=count)
    found = np.full(count, np.nan)
    np.divide(sums, known, out=found, where=known > 0)
    return Means(found, known)


class Differences(NamedTuple):
    """How G groups differ from all instances that are not in them, in K quantities.

    Attributes
    ----------
    counts, images
        How many instances a group has, and in how many images.
    mean, difference
        The mean of the group, and by how much it is above that of the others.
    standard_error
        Of the difference, over images.
    pooled
        The standard deviation within the group and within the others.
    within
        Sums of squares within groups.
    p
        Probability of a difference so large by chance, two-sided; not corrected for how many there are. NaN where a
        group, or what is not in it, has fewer than `LEAST` instances or too few images, or a quantity is constant.
    """

    counts: Int64[np.ndarray, " G"]
    images: Int64[np.ndarray, " G"]
    mean: Float64[np.ndarray, "G K"]
    difference: Float64[np.ndarray, "G K"]
    standard_error: Float64[np.ndarray, "G K"]
    pooled: Float64[np.ndarray, "G K"]
    within: Float64[np.ndarray, "G K"]
    p: Float64[np.ndarray, "G K"]


def differences(
    values: Float[np.ndarray, "N K"], groups: Int32[np.ndarray, " N"], count: int, images: Int32[np.ndarray, " N"]
) -> Differences:
    """Compare each group with all instances outside it, images as the unit.

    Parameters
    ----------
    values
        Finite numbers, one row per instance.
    groups
        The group of each instance, 0 to `count` - 1.
    count
        How many groups there are; some may be empty.
    images
        The image of each instance.

    Notes
    -----
    The difference of two means is a sum over images; its variance is the sum of the squares of their parts. The part
    of an image that holds the share h of a group is divided by 1 - h (the jackknife, CR3), for a mean bends towards
    what it is made of. The t distribution has as many degrees of freedom as the smaller side has images, less one.

    References
    ----------
    Cameron and Miller, "A Practitioner's Guide to Cluster-Robust Inference", Journal of Human Resources 50, 2015.
    Kish, "Survey Sampling", 1965.
    """
    from scipy import stats

    n_images = int(images.max(initial=0)) + 1
    pairs, pair_of = np.unique(groups.astype(np.int64) * n_images + images, return_inverse=True)
    group, image = np.divmod(pairs, n_images)
    held = np.bincount(pair_of, minlength=len(pairs)).astype(np.float64)  # instances of a group in an image
    of_image = np.bincount(image, held, minlength=n_images)
    counts = np.bincount(groups, minlength=count)
    others = counts.sum() - counts
    squares_of_others = np.square(of_image).sum() - np.bincount(group, 2 * of_image[image] * held - held**2, count)
    in_images = np.bincount(group, minlength=count)
    only_here = np.bincount(group, held == of_image[image], minlength=count)  # images without any other group
    freedom = np.minimum(in_images, np.count_nonzero(of_image) - only_here)[:, None] - 1
    with np.errstate(divide="ignore", invalid="ignore"):
        evenly = others**2 / squares_of_others  # how many images of one size would be as good (Kish)
        few = np.sqrt(evenly / (evenly - 1))[:, None]  # as 1 / (1 - h), for many images
    k = values.shape[1]
    mean, difference, error, pooled, within = (np.empty((count, k)) for _ in range(5))
    for start in range(0, k, _COLUMNS):
        block = slice(start, start + _COLUMNS)
        exact = values[:, block].astype(np.float64)
        middle = exact.mean(axis=0)
        exact -= middle
        here = sums(exact, pair_of, len(pairs))
        totals, of_group = sums(here, image, n_images), sums(here, group, count)
        own_squares = sums(np.square(exact), groups, count)
        with np.errstate(divide="ignore", invalid="ignore"):
            own = of_group / counts[:, None]
            rest = (of_group.sum(axis=0) - of_group) / others[:, None]
            parts = (here - held[:, None] * own[group]) / counts[group, None]
            parts /= 1 - held[:, None] / counts[group, None]
            rest_here = totals[image] - here - (of_image[image] - held)[:, None] * rest[group]
            rest_here /= others[group, None]
            rest_alone = (totals[image] - of_image[image][:, None] * rest[group]) / others[group, None]
            everywhere = (
                np.square(totals).sum(axis=0)
                - 2 * rest * (of_image @ totals)
                + np.square(rest) * np.square(of_image).sum()
            ) / np.square(others)[:, None]
            variance = (
                sums(np.square(parts - few[group] * rest_here) - np.square(few[group] * rest_alone), group, count)
                + np.square(few) * everywhere
            )
            spread = own_squares - counts[:, None] * np.square(own)
            spread_of_others = own_squares.sum(axis=0) - own_squares - others[:, None] * np.square(rest)
            noise = 1e-12 * own_squares.sum(axis=0)  # constant, but for rounding
            total = np.where(spread + spread_of_others > noise, spread + spread_of_others, 0)
            pooled[:, block] = np.sqrt(total / (counts + others - 2)[:, None])
        mean[:, block], difference[:, block] = own + middle, own - rest
        error[:, block], within[:, block] = np.sqrt(variance.clip(0)), spread
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2 * stats.t.sf(np.abs(difference) / error, freedom)
    known = ((counts >= LEAST) & (others >= LEAST))[:, None] & (freedom > 0) & (pooled > 0) & (error > 0)
    p = np.where(known, p, np.nan)
    return Differences(counts, in_images, mean, difference, error, pooled, within, p)


def sums(values: Float64[np.ndarray, "N K"], groups: Int64[np.ndarray, " N"], count: int) -> Float64[np.ndarray, "G K"]:
    """Return the sums of rows over groups."""
    from scipy import sparse

    member = sparse.csr_matrix((np.ones(len(groups)), (groups, np.arange(len(groups)))), shape=(count, len(groups)))
    return np.asarray(member @ values)
