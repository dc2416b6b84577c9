"""An atlas in plain language: what its numbers say, where chance does not explain it.

Every sentence about classes, sizes, kinds or quality takes images as the unit, is corrected for how many classes and
coefficients were looked at, and stays away with fewer images than `intervals.MIN_IMAGES`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from maskprism._common.text import counted
from maskprism.analysis.atlas.class_signatures import false_discovery_rates
from maskprism.analysis.atlas.clustering import MOST
from maskprism.analysis.atlas.groups import differences
from maskprism.analysis.atlas.points import SHAPES
from maskprism.analysis.intervals import MIN_IMAGES, too_few

if TYPE_CHECKING:
    from maskprism.analysis.atlas.atlas import Atlas

SURE = 0.01
"""Probabilities and false discovery rates above this are not reported."""
STRONG = 0.8
"""Effects below this number of standard deviations are not reported (Cohen calls this one large)."""
NOTABLE = 0.3
"""Rank correlations below this are not reported."""
GAP = 0.1
"""A class or kind whose mean IoU is this much below that of the others is reported."""
QUALITY_WORDS = {
    "score": "the score",
    "size": "the size of the box",
    "x": "how far right the box is",
    "y": "how far down the box is",
    "aspect": "how wide the box is for its height",
    "iou": "the mask IoU",
    "resolution": "what the mask loses in resolution",
    "box": "what the mask loses in the box",
    "prototypes": "what the mask loses in prototypes",
    "coefficients": "what the mask loses in coefficients",
}


def findings_of(atlas: Atlas) -> list[str]:
    """Return what a reader should know first, a sentence or two each."""
    return list(_findings(atlas))


def _findings(atlas: Atlas) -> Iterator[str]:
    points, k = atlas.points, len(atlas.moments)
    if not np.trace(atlas.moments.covariance):
        yield (
            f"All {counted(len(points), 'instance')} have the same coefficients: there is no variation to describe."
            if len(points) > 1
            else "There is 1 instance alone: there is no variation to describe."
        )
        return
    first, second = atlas.components.shares
    yield (
        f"The {k} coefficients vary in {atlas.moments.effective_rank():.1f} dimensions, by their effective rank, and "
        f"the map shows {first + second:.0%} of their variance: what lies far apart on it is different, what lies "
        "together need not be alike."
    )
    if too_few(len(points.image_names)):
        yield (
            f"{counted(len(points.image_names), 'image')}: with fewer than {MIN_IMAGES} nothing is claimed about "
            "classes, sizes, kinds or the quality of masks."
        )
    else:
        yield from _of_classes(atlas)
        yield from _of_shapes(atlas)
        yield from _of_clusters(atlas)
        yield from _of_truth(atlas)
    if atlas.duplicates.groups:
        groups = atlas.duplicates.groups
        across = sum(group.images > 1 for group in groups)
        yield (
            f"{atlas.duplicates.instances} instances are near duplicates, in {counted(len(groups), 'group')}, {across} "
            "of them across different images: the same image may be there twice, or be in two splits."
        )


def _of_classes(atlas: Atlas) -> Iterator[str]:
    effect = np.where(atlas.signatures.p < SURE, np.abs(atlas.signatures.effect), 0)
    told = int((effect >= STRONG).any(axis=1).sum())
    if not told:
        return
    which, coefficient = np.unravel_index(np.argmax(effect), effect.shape)
    yield (
        f"One coefficient alone tells {told} of {len(effect)} classes from the others, by {STRONG} standard deviations "
        f"or more. The clearest is {atlas.points.class_names[which]}: its coefficient "
        f"{atlas.points.labels[coefficient]} lies {_signed(atlas.signatures.effect[which, coefficient])} of them apart."
    )


def _of_shapes(atlas: Atlas) -> Iterator[str]:
    depends = atlas.dependence
    for name in SHAPES:
        if name not in depends.names:
            continue
        row = depends.names.index(name)
        rho = np.where(depends.p[row] < SURE, depends.rho[row], 0)
        strongest = int(np.argmax(np.abs(rho)))
        if abs(rho[strongest]) >= NOTABLE:
            yield (
                f"{QUALITY_WORDS[name][0].upper()}{QUALITY_WORDS[name][1:]} goes with "
                f"{counted(int((np.abs(rho) >= NOTABLE).sum()), 'coefficient')}, most of all "
                f"{atlas.points.labels[strongest]} (rank correlation {_signed(rho[strongest])})."
            )


def _of_clusters(atlas: Atlas) -> Iterator[str]:
    silhouettes = atlas.clusters.silhouettes
    if silhouettes:
        best = max(silhouettes, key=lambda of_class: silhouettes[of_class])
        verb = "has" if len(silhouettes) == 1 else "have"
        kinds = sum(cluster.of_class == best for cluster in atlas.clusters.found)
        yield (
            f"Of {len(atlas.points.class_names)} classes, {len(silhouettes)} {verb} kinds whose masks are put together "
            f"differently, most clearly {atlas.points.class_names[best]} "
            f"({kinds} kinds, silhouette {silhouettes[best]:.2f})."
        )


def _of_truth(atlas: Atlas) -> Iterator[str]:
    if not atlas.has_truth:
        return
    points, names = atlas.points, atlas.points.class_names
    known = np.isfinite(points.numbers["iou"])
    iou, images = points.numbers["iou"][known, None], points.images[known]
    if not len(iou):
        return
    by_class = differences(iou, points.classes[known], len(names), images)
    by_kind = differences(iou, atlas.kinds[known], len(names) * MOST, images)
    kinds = [one.of_class * MOST + one.number for one in atlas.clusters.found]
    labels = [*names, *(f"kind {one.number} of {names[one.of_class]}" for one in atlas.clusters.found)]
    p = false_discovery_rates(np.concatenate([by_class.p[:, 0], by_kind.p[kinds, 0]]))
    mean, below = (
        np.concatenate([of_class[:, 0], of_kind[kinds, 0]])
        for of_class, of_kind in ((by_class.mean, by_kind.mean), (-by_class.difference, -by_kind.difference))
    )
    surely = np.flatnonzero((p < SURE) & (below >= GAP))
    if len(surely):
        worst = surely[np.argmin(mean[surely])]
        others = mean[worst] + below[worst]
        yield f"Masks are worst in {labels[worst]}: mean IoU {mean[worst]:.2f}, against {others:.2f} in all others."
    distances = atlas.outliers[known]
    ranked = np.isfinite(distances)
    if not ranked.any():
        return
    far = distances[ranked] > np.quantile(distances[ranked], 0.9)
    found = differences(iou[ranked], far.astype(np.int32), 2, images[ranked])
    if found.p[1, 0] < SURE and -found.difference[1, 0] >= GAP / 2:
        yield (
            "Outliers are drawn worse: the tenth furthest from the middle of its class has a mean IoU "
            f"of {found.mean[1, 0]:.2f}, the others {found.mean[0, 0]:.2f}."
        )


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")
