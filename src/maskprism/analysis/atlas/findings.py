"""An atlas in plain language: what its numbers say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from maskprism.analysis.atlas.clusters import MOST
from maskprism.analysis.atlas.groups import means
from maskprism.analysis.atlas.points import SHAPES
from maskprism.text import counted

if TYPE_CHECKING:
    from maskprism.analysis.atlas.atlas import Atlas

SURE = 0.01
"""False discovery rates above this are not spoken of."""
STRONG = 0.8
"""Effects below so many standard deviations are not spoken of (Cohen calls this one large)."""
NOTABLE = 0.3
"""Rank correlations below this are not spoken of."""
GAP, GAP_COUNT = 0.1, 10
"""A cluster or class of so many instances whose mean IoU is this much below the mean is spoken of."""
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
    """What a reader should know first, a sentence or two each."""
    return list(_findings(atlas))


def _findings(atlas: Atlas) -> Iterator[str]:
    points, k = atlas.points, len(atlas.moments)
    rank = atlas.moments.effective_rank(centred=True)
    first, second = atlas.components.shares
    yield (
        f"The {k} coefficients fill {rank:.1f} dimensions (effective rank), and the map shows {first + second:.0%} of "
        "their variance: what lies far apart on it is different, what lies together need not be alike."
    )
    yield from _of_classes(atlas)
    yield from _of_shapes(atlas)
    yield from _of_clusters(atlas)
    yield from _of_truth(atlas)
    if atlas.duplicates.instances:
        across = sum(points.images[pair.first] != points.images[pair.second] for pair in atlas.duplicates.pairs)
        yield (
            f"{atlas.duplicates.instances} instances have a near duplicate; {counted(across, 'pair')} "
            "of them are of different images: the same image may be there twice, or be in two splits."
        )


def _of_classes(atlas: Atlas) -> Iterator[str]:
    if len(atlas.points.class_names) < 2:
        return
    effect = np.where(atlas.signatures.p < SURE, np.abs(atlas.signatures.effect), 0)
    told = int((effect >= STRONG).any(axis=1).sum())
    if not told:
        yield "No coefficient tells a class clearly from the others: they say how to draw, not what."
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
    iou = atlas.points.numbers["iou"]
    if not np.isfinite(iou).any():
        return
    mean = float(np.nanmean(iou))
    names = atlas.points.class_names
    of_class = means(iou, atlas.points.classes, len(names))
    of_kind = means(iou, atlas.kinds, len(names) * MOST)
    kinds = [(one.of_class * MOST + one.number, one) for one in atlas.clusters.found]
    groups = [
        *zip(*of_class, names, strict=True),
        *((of_kind.mean[at], of_kind.known[at], f"kind {one.number} of {names[one.of_class]}") for at, one in kinds),
    ]
    lowest, name = min(((value, name) for value, known, name in groups if known >= GAP_COUNT), default=(mean, ""))
    if mean - lowest >= GAP:
        yield f"Masks are worst in {name}: mean IoU {lowest:.2f}, against {mean:.2f} over all."
    distances = atlas.outliers.distances
    known = np.isfinite(iou) & np.isfinite(distances)
    if known.sum() >= GAP_COUNT:
        far = known & (distances > np.quantile(distances[known], 0.9))
        rest = float(np.mean(iou[known & ~far]))
        if far.any() and rest - float(np.mean(iou[far])) >= GAP / 2:
            yield (
                f"What is unlike its class is drawn worse: the tenth furthest from the middle of its class has a mean "
                f"IoU of {float(np.mean(iou[far])):.2f}, the others {rest:.2f}."
            )


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")
