"""What each prototype does for one mask: does it build the object, carve the background away, or sharpen the edge?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np

from maskprism.analysis.instance.mask_window import MaskWindow
from maskprism.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float32, Float64, Int64

    from maskprism.core.prediction import Instance

Role = Literal["builds", "carves", "sharpens", "opposes", "negligible"]
RoleOrder = Literal["index", "effect", "spread", "share"]
ROLES: tuple[Role, ...] = ("builds", "carves", "sharpens", "opposes", "negligible")
HELPFUL: tuple[Role, Role, Role] = ("builds", "carves", "sharpens")
"""The roles of the three acts."""
ROLE_ORDERS: tuple[RoleOrder, ...] = ("index", "effect", "spread", "share")

NEGLIGIBLE = 0.5
"""A prototype is negligible if its largest part in any act is below this many even parts of 1 / K."""
CLEAR_LEAD = 1.25
"""A prototype has one role if its part in that act is at least this many times its part in the next; otherwise two."""
_ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class Roles:
    """What each of K prototypes does for one instance, measured on the prototype grid, in units of the logit.

    NaN where a region has no cell.

    Attributes
    ----------
    weights
        What multiplies the prototypes.
    inside
        Mean contribution inside the mask.
    ring
        Outside the mask, within the box.
    edge
        Step across the edge of the mask: mean of the cells of the mask that touch the ring, less the mean of the cells
        of the ring that touch the mask. Where the crop cuts the mask there is no edge.
    share
        Share of the logit margin, which is the mean logit inside less that of the ring; sums to 1.
    bias
        Weight x mean of the prototype over the image: what it adds everywhere.
    spread
        |weight| x standard deviation of the prototype within the box: what it distinguishes there.
    effect
        Mean |contribution| within the box.
    named
        Of each prototype its role, one of ROLES, or the two helpful ones between which none leads; see `roles`.
    """

    weights: Float32[np.ndarray, " K"]
    inside: Float32[np.ndarray, " K"]
    ring: Float32[np.ndarray, " K"]
    edge: Float32[np.ndarray, " K"]
    share: Float32[np.ndarray, " K"]
    bias: Float32[np.ndarray, " K"]
    spread: Float32[np.ndarray, " K"]
    effect: Float32[np.ndarray, " K"]
    named: tuple[tuple[Role, ...], ...]

    def __len__(self) -> int:
        return len(self.named)

    @property
    def role(self) -> tuple[Role, ...]:
        """Of each prototype its first role."""
        return tuple(names[0] for names in self.named)

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
            {"prototype": int(k), "role": self.named[k][0], "second_role": (*self.named[k], "")[1]}
            | {name: float(values[k]) for name, values in columns.items()}
            for k in self.order(by)
        ]


def roles(instance: Instance) -> Roles:
    """Return what each prototype does for the mask of an instance, measured on the prototype grid.

    A prototype acts in three ways: it lifts the inside of the mask (builds), it lowers the ring around it
    (carves), it makes a step across the edge (sharpens). Its part in each act is its contribution over the sum of
    the sizes of all K. The rules apply in this order:

    1. If no part, good or bad, reaches NEGLIGIBLE even ones (1 / K), the prototype is negligible.
    2. If its share of the margin is negative, it opposes the mask: it separates mask and ring the wrong way round.
    3. If the largest part in which it harms (lowers the inside, lifts the ring, or steps down into the mask) is larger
       than the largest in which it helps, it opposes the mask, too.
    4. Otherwise the act in which it helps most names its role. If another act follows by less than CLEAR_LEAD, and is
       not negligible, both are named.

    Signs of coefficients play no part: rescaling a prototype by any number and its coefficient by the inverse changes
    no role. The viewer has the same rules (`viewer/src/roles.js`), and tests share their cases.

    Raises
    ------
    InputError
        For a prediction in place of one instance.

    Examples
    --------
    >>> import maskprism
    >>> from maskprism.datasets.scenes import draw_scene
    >>> prediction = maskprism.load("sample").predict(draw_scene(3).image)
    >>> len(roles(prediction[0]).named)
    32
    """
    window = MaskWindow.of(instance, "grid")
    weights = instance.weights
    ring = window.ring
    regions = (window.mask, ring, window.mask & _grown(ring), ring & _grown(window.mask))
    inside, outside, last, first = (weights * _means(window.prototypes, region) for region in regions)
    edge, margin = last - first, inside - outside
    margin[np.abs(margin) <= _ROUNDING * (np.abs(inside) + np.abs(outside))] = 0  # flat on mask and ring
    total = margin.sum()
    share = margin / total if total else np.full_like(margin, np.nan)
    sizes, spreads = _within(window)
    return Roles(
        weights=weights,
        inside=inside.astype(np.float32),
        ring=outside.astype(np.float32),
        edge=edge.astype(np.float32),
        share=share.astype(np.float32),
        bias=weights * image_means(instance),
        spread=np.abs(weights) * spreads,
        effect=np.abs(weights) * sizes,
        named=_named(inside, outside, edge, share),
    )


def _named(
    inside: Float64[np.ndarray, " K"],
    ring: Float64[np.ndarray, " K"],
    edge: Float64[np.ndarray, " K"],
    share: Float64[np.ndarray, " K"],
) -> tuple[tuple[Role, ...], ...]:
    acts = np.nan_to_num(np.stack([inside, -ring, edge]))  # each is above zero where it helps the mask
    totals = np.abs(acts).sum(axis=1, keepdims=True)
    parts = np.divide(acts, totals, out=np.zeros_like(acts), where=totals > 0)
    return tuple(_named_by(own, bool(negative), len(inside)) for own, negative in zip(parts.T, share < 0, strict=True))


def _named_by(parts: Float64[np.ndarray, " 3"], negative: bool, count: int) -> tuple[Role, ...]:
    """Return the roles of one prototype of `count`, by its parts in the three acts and the sign of its share."""
    least = NEGLIGIBLE / count
    if np.abs(parts).max() < least:
        return ("negligible",)
    best, second, _ = np.argsort(-parts, kind="stable")
    if negative or -parts.min() > parts[best]:
        return ("opposes",)
    close = parts[second] >= least and parts[best] < CLEAR_LEAD * parts[second]
    return (HELPFUL[best], HELPFUL[second]) if close else (HELPFUL[best],)


def _grown(region: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Return a region and all cells that touch it, corners too."""
    if not region.size:
        return region
    return cv2.dilate(region.astype(np.uint8), np.ones((3, 3), dtype=np.uint8)).astype(bool)


def _means(values: Float32[np.ndarray, "K h w"], region: Bool[np.ndarray, "h w"]) -> Float64[np.ndarray, " K"]:
    """Return the mean of each image over a region; NaN over none."""
    if not region.any():
        return np.full(len(values), np.nan)
    return values[:, region].mean(axis=1, dtype=np.float64)


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
    """Return the mean of each prototype over the cells that show the image."""
    return instance.prototypes[:, *instance.letterbox.content_cells].mean(axis=(1, 2))
