"""What each prototype does for one mask: does it build the object, carve the background away, or sharpen the edge?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np

from maskprism.analysis.instance.mask_window import MaskWindow
from maskprism.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float32, Int64

    from maskprism.geometry import Size
    from maskprism.prediction import Instance

Role = Literal["builds", "carves", "sharpens", "opposes", "negligible"]
RoleOrder = Literal["index", "effect", "spread", "share"]
ROLES: tuple[Role, ...] = ("builds", "carves", "sharpens", "opposes", "negligible")
ROLE_ORDERS: tuple[RoleOrder, ...] = ("index", "effect", "spread", "share")

NEGLIGIBLE = 0.5
"""A prototype is negligible if its largest part in any act is below this many even parts of 1 / K."""
OPPOSING = 2.0
"""A prototype opposes the mask if it harms in one act more than this many times what it helps in any."""


@dataclass(frozen=True, eq=False)
class Roles:
    """What each of K prototypes does for one instance; everything in units of the logit.

    weights: what multiplies the prototypes.
    inside: mean contribution inside the mask. ring: outside the mask, within the box.
    edge: step across the edge of the mask: mean within one prototype cell inside it, less the mean within
        one cell outside it. Where the crop cuts the mask there is no edge.
    share: of the logit margin, which is the mean logit inside less that of the ring; sums to 1.
    bias: weight x mean of the prototype over the image: what it adds everywhere.
    spread: |weight| x standard deviation of the prototype within the box: what it tells apart there.
    effect: mean |contribution| within the box.
    role: one of ROLES, see `roles`.
    NaN where a region has no pixel.
    """

    weights: Float32[np.ndarray, " K"]
    inside: Float32[np.ndarray, " K"]
    ring: Float32[np.ndarray, " K"]
    edge: Float32[np.ndarray, " K"]
    share: Float32[np.ndarray, " K"]
    bias: Float32[np.ndarray, " K"]
    spread: Float32[np.ndarray, " K"]
    effect: Float32[np.ndarray, " K"]
    role: tuple[Role, ...]

    def __len__(self) -> int:
        return len(self.role)

    def order(self, by: RoleOrder = "effect") -> Int64[np.ndarray, " K"]:
        """Prototype indices, largest first; shares by their size, whatever their sign. Ties keep index order."""
        if by not in ROLE_ORDERS:
            raise InputError(f"order is {by!r}; expected one of {', '.join(map(repr, ROLE_ORDERS))}")
        if by == "index":
            return np.arange(len(self))
        key = {"effect": self.effect, "spread": self.spread, "share": np.abs(self.share)}[by]
        return np.argsort(-np.nan_to_num(key), kind="stable")

    def rows(self, by: RoleOrder = "effect") -> list[dict[str, int | float | str]]:
        """One dictionary per prototype, in that order: ready for a table or a CSV file."""
        names = ("weights", "inside", "ring", "edge", "share", "bias", "spread", "effect")
        columns = {("weight" if name == "weights" else name): getattr(self, name) for name in names}
        return [
            {"prototype": int(k), "role": self.role[k]} | {name: float(values[k]) for name, values in columns.items()}
            for k in self.order(by)
        ]


def roles(instance: Instance, *, size: Size | None = None, window: MaskWindow | None = None) -> Roles:
    """What each prototype does for the mask of an instance, measured in the frame of its rule unless `size` is given.

    A prototype acts in three ways: it lifts the inside of the mask (builds), it lowers the ring around it
    (carves), it makes a step across the edge (sharpens). Its part in each act is its contribution over the sum of
    the sizes of all K. The act in which it helps most names its role, unless it does more than OPPOSING times as much
    harm in another (lowers the inside, lifts the ring, or steps down into the mask): then it opposes the mask. If no
    part, good or bad, reaches NEGLIGIBLE even ones, it is negligible. Signs of coefficients play no part: rescaling a
    prototype by any number and its coefficient by the inverse changes no role.
    """
    window = window or MaskWindow.of(instance, size)
    weights = instance.weights
    near = np.ones((2 * window.cell + 1, 2 * window.cell + 1), dtype=np.uint8)
    ring = window.ring
    regions = (window.mask, ring, window.mask & _grown(ring, near), ring & _grown(window.mask, near))
    inside, outside, last, first = (weights * mean for mean in _means(window.prototypes, regions))
    edge, margin = last - first, inside - outside
    total = margin.sum()
    sizes, spreads = _within(window)
    return Roles(
        weights=weights,
        inside=inside,
        ring=outside,
        edge=edge,
        share=margin / total if total else np.full_like(margin, np.nan),
        bias=weights * image_means(instance),
        spread=np.abs(weights) * spreads,
        effect=np.abs(weights) * sizes,
        role=_named(inside, outside, edge),
    )


def _named(
    inside: Float32[np.ndarray, " K"], ring: Float32[np.ndarray, " K"], edge: Float32[np.ndarray, " K"]
) -> tuple[Role, ...]:
    acts = np.nan_to_num(np.stack([inside, -ring, edge]))  # each is above zero where it helps the mask
    totals = np.abs(acts).sum(axis=1, keepdims=True)
    parts = np.divide(acts, totals, out=np.zeros_like(acts), where=totals > 0)
    helps, harms = parts.max(axis=0), -parts.min(axis=0)
    names: tuple[Role, ...] = ("builds", "carves", "sharpens")
    return tuple(
        "negligible"
        if max(helps[k], harms[k]) * len(helps) < NEGLIGIBLE
        else "opposes"
        if harms[k] > OPPOSING * helps[k]
        else names[best]
        for k, best in enumerate(parts.argmax(axis=0))
    )


def _grown(region: Bool[np.ndarray, "H W"], near: np.ndarray) -> Bool[np.ndarray, "H W"]:
    if not region.size:
        return region
    return cv2.dilate(region.astype(np.uint8), near).astype(bool)


def _means(
    values: Float32[np.ndarray, "K H W"], regions: tuple[Bool[np.ndarray, "H W"], ...]
) -> Float32[np.ndarray, "R K"]:
    """The mean of each image over each region; NaN over none."""
    flat = np.stack([region.reshape(-1) for region in regions])
    counts = np.array([np.count_nonzero(region) for region in flat], dtype=np.float32)[:, None]
    sums = flat.astype(np.float32) @ values.reshape(len(values), -1).T
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


def _within(window: MaskWindow) -> tuple[Float32[np.ndarray, " K"], Float32[np.ndarray, " K"]]:
    """Mean size and standard deviation of each prototype within the box; zeros where it has no pixel."""
    everywhere = bool(window.in_box.all())
    sizes, spreads = np.zeros((2, len(window.prototypes)), dtype=np.float32)
    if window.in_box.any():
        for k, prototype in enumerate(window.prototypes):  # one after the other: they stay in the cache
            values = prototype if everywhere else prototype[window.in_box]
            sizes[k], spreads[k] = np.abs(values).mean(), values.std()
    return sizes, spreads


def image_means(instance: Instance) -> Float32[np.ndarray, " K"]:
    """The mean of each prototype over the cells that show the image."""
    return instance.prototypes[:, *instance.letterbox.content_cells].mean(axis=(1, 2))
