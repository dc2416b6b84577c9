"""Which prototypes a mask needs, and which suffice: knock-outs, growing sets, insertion and deletion curves.

`smallest_set` gives the smallest set that suffices where it can be proven within a bound on work, and otherwise a set
and a proven lower bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from typing import TYPE_CHECKING, Literal

import numpy as np

from maskprism.analysis.instance.subset_masks import SubsetBound, SubsetMasks
from maskprism.core.decomposition import Decomposition, check_indices
from maskprism.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float64, Int64

    from maskprism.analysis.instance.subset_masks import Metric
    from maskprism.core.geometry import Size
    from maskprism.core.prediction import Instance

Path = Literal["effect", "greedy", "elimination"]
BEAM = 16
"""The number of sets of each size that the search for a small set keeps."""
SEARCH_WORK = 600_000_000
"""How much `smallest_set` computes to find a set, and to rule sets out, in sums of a prototype over a tile or pixel."""
PATHS: tuple[Path, ...] = ("elimination", "greedy", "effect")


def knock_out(
    instance: Instance,
    *,
    target: Bool[np.ndarray, "H W"] | None = None,
    metric: Metric = "iou",
    size: Size | None = None,
    subsets: SubsetMasks | None = None,
) -> Float64[np.ndarray, " K"]:
    """IoU of the mask without each prototype with the full mask, or with a target such as ground truth.

    Against the full mask, 1 says that the prototype is not needed. Against ground truth, a value above the
    IoU of the full mask says that the mask would be better without it. Metric, target and frame are those
    of `SubsetMasks`.
    """
    return (subsets or SubsetMasks(instance, target=target, metric=metric, size=size)).without_each()


@dataclass(frozen=True, eq=False)
class Sufficiency:
    """How many prototypes of an order make the mask; `smallest_set` says how few of any make it.

    Attributes
    ----------
    order
        Prototype indices as they join.
    curve
        The score of none, of the first, the first two, up to all K.
    threshold
        The score that counts as enough.
    """

    order: Int64[np.ndarray, " K"]
    curve: Float64[np.ndarray, " K+1"]
    threshold: float

    @property
    def enough(self) -> int:
        """How many it takes until the score is at the threshold and stays there; K + 1 if it never is."""
        below = np.flatnonzero(self.curve < self.threshold)
        return int(below[-1]) + 1 if len(below) else 0

    @property
    def first(self) -> int:
        """How many it takes until the score is at the threshold for the first time; K + 1 if it never is."""
        enough = np.flatnonzero(self.curve >= self.threshold)
        return int(enough[0]) if len(enough) else len(self.curve)

    @property
    def chosen(self) -> Int64[np.ndarray, " M"]:
        """The first `enough` prototypes of the order; none if no set suffices."""
        return self.order[: self.enough if self.enough < len(self.curve) else 0]


def sufficiency(
    instance: Instance,
    by: Path | Sequence[int] = "elimination",
    *,
    threshold: float = 0.95,
    target: Bool[np.ndarray, "H W"] | None = None,
    metric: Metric = "iou",
    size: Size | None = None,
    subsets: SubsetMasks | None = None,
) -> Sufficiency:
    """Return the score of sets of prototypes that grow in an order, and how many of that order suffice.

    `by` "effect": largest mean |contribution| in the box first. "greedy": always the prototype that raises the score
    most. "elimination": greedily from the other end, from all K always the prototype that is missed least; sets found
    so are often small and stay sufficient when more join. Or prototype indices, all K of them. Equal scores are decided
    by effect.

    Raises
    ------
    InputError
        For other orders, or a threshold outside 0 to 1.

    Examples
    --------
    >>> import maskprism
    >>> from maskprism.datasets.scenes import draw_scene
    >>> prediction = maskprism.load("sample").predict(draw_scene(3).image)
    >>> found = sufficiency(prediction[0], threshold=0.9)
    >>> bool(found.curve[-1] == 1), len(found.order)
    (True, 32)
    """
    if not 0 < threshold <= 1:
        raise InputError(f"threshold is {threshold}; expected a score above 0, at most 1")
    game = subsets or SubsetMasks(instance, target=target, metric=metric, size=size)
    if by == "greedy":
        order, curve = _greedy(game, Decomposition(instance).order())
    elif by == "elimination":
        order, curve = _eliminated(game, Decomposition(instance).order())
    else:
        order = ordered(instance, by)
        curve = game.growing(order)
    return Sufficiency(order, curve, threshold)


@dataclass(frozen=True, eq=False)
class SmallestSet:
    """The fewest prototypes whose mask reaches a score, as far as that is known.

    Attributes
    ----------
    members
        Prototype indices of the smallest set found, in ascending order.
    score
        Score of its mask.
    at_least
        No set of fewer prototypes reaches the threshold: proven. Equal to `len(members)` where the set is the smallest
        one; K + 1 where no set at all suffices.
    threshold
        The score that counts as enough.
    """

    members: Int64[np.ndarray, " M"]
    score: float
    at_least: int
    threshold: float
    prototypes: int

    @property
    def exists(self) -> bool:
        """Whether a set that suffices was found."""
        return self.score >= self.threshold

    @property
    def proven(self) -> bool:
        """Whether the set is proven to be a smallest one, or that there is none."""
        return self.at_least == (len(self.members) if self.exists else self.prototypes + 1)

    def __str__(self) -> str:
        of = f"of {self.prototypes} prototypes"
        if not self.exists:
            return f"no set {of} suffices" if self.proven else "no set was found that suffices"
        if self.proven:
            return f"the smallest set that suffices has {len(self.members)} {of}"
        return f"at most {len(self.members)} {of} suffice, and at least {self.at_least} are needed"


def smallest_set(
    instance: Instance,
    *,
    threshold: float = 0.95,
    target: Bool[np.ndarray, "H W"] | None = None,
    metric: Metric = "iou",
    size: Size | None = None,
    subsets: SubsetMasks | None = None,
    work: int = SEARCH_WORK,
) -> SmallestSet:
    """Return the smallest set of prototypes whose mask alone reaches a score, or bounds on its size.

    A beam search finds a small set. Then all smaller sets are ruled out, size by size, by a bound on their scores that
    holds for whole tiles of pixels (`SubsetBound`) and, where the bound does not rule a set out, by its mask.

    Parameters
    ----------
    instance, target, metric, size, subsets
        As in `sufficiency`.
    threshold
        The score that counts as enough, above 0, at most 1. More prototypes may spoil the mask again.
    work
        How much may be computed to find a set, and as much to rule sets out, in sums of a prototype over a tile or
        pixel: no clock, so that results do not depend on the machine. The default takes about two seconds.

    Returns
    -------
    SmallestSet
        Proven to be the smallest, or with a proven lower bound.

    Raises
    ------
    InputError
        For a threshold outside 0 to 1.
    """
    if not 0 < threshold <= 1:
        raise InputError(f"threshold is {threshold}; expected a score above 0, at most 1")
    game = subsets or SubsetMasks(instance, target=target, metric=metric, size=size)
    k = len(game)
    members, score = _beam(game, threshold, work)
    limit = len(members) if score >= threshold else k + 1
    bound = SubsetBound(game)
    at_least, left = 0, work
    while at_least < limit:
        cost = comb(k, at_least) * bound.cost
        if cost > left:
            break
        left -= cost
        better = None
        for candidate in bound.candidates(at_least, threshold):
            left -= game.terms.shape[1] * max(at_least, 1)
            if left < 0:
                break
            if (found := game.of(candidate)) >= threshold and (better is None or found > better[1]):
                better = candidate, found
        if better is not None:
            members, score = better  # all smaller sets are ruled out
        if better is not None or left < 0:
            break
        at_least += 1
    return SmallestSet(members, score, at_least, threshold, k)


def _beam(game: SubsetMasks, threshold: float, work: int) -> tuple[Int64[np.ndarray, " M"], float]:
    """Return a small set that reaches the threshold, found by elimination and by a beam search.

    The best set if none does.

    The beam search ends where its next step would exceed `work`: it takes seconds for large masks of many prototypes.
    """
    order, curve = _eliminated(game, np.arange(len(game)))
    enough = np.flatnonzero(curve >= threshold)
    best = (np.sort(order[: enough[0]]), float(curve[enough[0]])) if len(enough) else (np.arange(len(game)), game.full)
    if game.none >= threshold:
        return np.zeros(0, dtype=np.int64), game.none
    beam: dict[tuple[int, ...], float] = {(): game.none}
    for _ in range(1, len(best[0]) if len(enough) else 1):
        work -= len(beam) * game.terms.size
        if work < 0:
            break
        grown: dict[tuple[int, ...], float] = {}
        for chosen in beam:
            sums = game.terms[list(chosen)].sum(axis=0) if chosen else np.zeros_like(game.total)
            for one in range(len(game)):
                together = tuple(sorted({*chosen, one}))
                if one not in chosen and together not in grown:
                    grown[together] = game.value(sums + game.terms[one])
        beam = dict(sorted(grown.items(), key=lambda item: -item[1])[:BEAM])
        together = next(iter(beam))
        if (score := game.of(np.array(together))) >= threshold:
            return np.array(together), score
    return best


@dataclass(frozen=True, eq=False)
class Faithfulness:
    """Whether an order says which prototypes matter: insertion and deletion curves against random orders.

    Attributes
    ----------
    insertion, deletion
        The score while prototypes join, or leave, in the order.
    random_insertion, random_deletion
        Means over `permutations` random orders, and their standard errors.
    """

    order: Int64[np.ndarray, " K"]
    insertion: Float64[np.ndarray, " K+1"]
    deletion: Float64[np.ndarray, " K+1"]
    random_insertion: Float64[np.ndarray, " K+1"]
    random_deletion: Float64[np.ndarray, " K+1"]
    insertion_error: Float64[np.ndarray, " K+1"]
    deletion_error: Float64[np.ndarray, " K+1"]
    insertion_gain: float
    """Area by which the insertion curve is above that of random orders; above 0 is better than chance."""
    insertion_gain_error: float
    """Standard error of `insertion_gain`."""
    deletion_gain: float
    """Area by which the deletion curve is below that of random orders; above 0 is better than chance."""
    deletion_gain_error: float
    """Standard error of `deletion_gain`."""
    permutations: int
    seed: int


def faithfulness(
    instance: Instance,
    by: Literal["effect"] | Sequence[int] = "effect",
    *,
    permutations: int = 32,
    seed: int = 0,
    target: Bool[np.ndarray, "H W"] | None = None,
    metric: Metric = "iou",
    size: Size | None = None,
    subsets: SubsetMasks | None = None,
) -> Faithfulness:
    """Return insertion and deletion curves of an order of prototypes, beside those of random orders.

    Areas are over the share of prototypes, 0 to 1 (trapezoids). Source: Petsiuk, Das, Saenko, "RISE", BMVC 2018; Samek
    et al., "Evaluating the visualization of what a deep neural network has learned", TNNLS 2017.

    Raises
    ------
    InputError
        With fewer than two permutations.
    """
    if permutations < 2:
        raise InputError(f"permutations is {permutations}; expected at least 2, for a standard error")
    game = subsets or SubsetMasks(instance, target=target, metric=metric, size=size)
    order = ordered(instance, by)
    insertion, deletion = game.growing(order), game.shrinking(order)
    rng = np.random.default_rng(seed)
    random = np.array([game.growing(rng.permutation(len(game))) for _ in range(permutations)])
    # Leaving in an order is joining in the reverse one, read backwards, and reversed random orders are random orders.
    mean, error = random.mean(axis=0), random.std(axis=0, ddof=1) / np.sqrt(permutations)
    areas = np.array([area(curve) for curve in random])
    area_error = float(areas.std(ddof=1) / np.sqrt(permutations))
    return Faithfulness(
        order=order,
        insertion=insertion,
        deletion=deletion,
        random_insertion=mean,
        random_deletion=mean[::-1],
        insertion_error=error,
        deletion_error=error[::-1],
        insertion_gain=area(insertion) - float(areas.mean()),
        insertion_gain_error=area_error,
        deletion_gain=float(areas.mean()) - area(deletion),
        deletion_gain_error=area_error,
        permutations=permutations,
        seed=seed,
    )


def area(curve: Float64[np.ndarray, " K+1"]) -> float:
    """Return the area under a curve over the share of prototypes, 0 to 1."""
    return float((curve[:-1] + curve[1:]).mean() / 2)


def ordered(instance: Instance, by: str | Sequence[int]) -> Int64[np.ndarray, " K"]:
    """Return an order of all K prototypes.

    Raises
    ------
    InputError
        If it is not one.
    """
    if isinstance(by, str):
        if by != "effect":
            raise InputError(f"order is {by!r}; expected one of {', '.join(map(repr, PATHS))}, or prototype indices")
        return Decomposition(instance).order()
    k = len(instance.prototypes)
    order = check_indices(by, k)
    if len(order) != k or len(set(order.tolist())) != k:
        raise InputError(f"the order has {len(set(order.tolist()))} of {k} prototypes; expected each of them once")
    return order


def _greedy(
    game: SubsetMasks, candidates: Int64[np.ndarray, " K"]
) -> tuple[Int64[np.ndarray, " K"], Float64[np.ndarray, " K+1"]]:
    """Always add the prototype that makes the best mask; the earlier candidate where several do."""
    left, order, curve = candidates.tolist(), [], [game.none]
    logits = np.zeros_like(game.total)
    while len(left) > 1:
        scores = [game.value(logits + game.terms[k]) for k in left]
        best = int(np.argmax(scores))
        curve.append(scores[best])
        order.append(left.pop(best))
        logits = logits + game.terms[order[-1]]
    return np.array([*order, *left]), np.array([*curve, game.full])


def _eliminated(
    game: SubsetMasks, candidates: Int64[np.ndarray, " K"]
) -> tuple[Int64[np.ndarray, " K"], Float64[np.ndarray, " K+1"]]:
    """Always remove the prototype that is missed least; the later candidate where several are not missed."""
    left, order, curve = candidates[::-1].tolist(), [], [game.full]
    logits = game.total
    while len(left) > 1:
        scores = [game.value(logits - game.terms[k]) for k in left]
        best = int(np.argmax(scores))
        curve.append(scores[best])
        order.append(left.pop(best))
        logits = logits - game.terms[order[-1]]
    return np.array([*order, *left])[::-1], np.array([*curve, game.none])[::-1]
