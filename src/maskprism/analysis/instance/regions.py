"""Which prototypes decide a pixel, and which make a region: false positives, false negatives, or any."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from maskprism.analysis.instance.mask_window import box_pixels, mask_in_frame
from maskprism.analysis.instance.shapley_values import baseline_means
from maskprism.core.masks import decode, pixels_between
from maskprism.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float32, Float64, Int64

    from maskprism.analysis.instance.shapley_values import Baseline
    from maskprism.core.geometry import Size
    from maskprism.core.masks import Patch
    from maskprism.core.prediction import Instance

    Floats = Float32[np.ndarray, "..."] | Float64[np.ndarray, "..."]

Kind = Literal["false positives", "false negatives", "region"]

_SEARCH = 1e4
"""Coefficient changes up to this are tried where the rule squashes before it resizes."""


@dataclass(frozen=True, eq=False)
class PixelQuery:
    """Why one pixel of the image is, or is not, in a mask.

    Attributes
    ----------
    contributions
        Contributions of the K prototypes; with `level` and `crop`, they sum to `logit`.
    level
        What the prototypes contribute with flat means in their place; 0 unless the query was made with that baseline.
    crop
        What cropping before resizing takes away (0 for rules that crop after it). The pixel is in the mask if `logit`
        is above 0 and `in_crop` holds.
    margins
        The change of each coefficient alone, as the model gives it, that brings the logit to 0; infinite where none
        does.
    """

    x: int
    y: int
    contributions: Float64[np.ndarray, " K"]
    level: float
    crop: float
    logit: float
    in_crop: bool
    in_mask: bool
    margins: Float64[np.ndarray, " K"]

    @cached_property
    def order(self) -> Int64[np.ndarray, " K"]:
        """Prototype indices, largest |contribution| first. Ties keep index order."""
        return np.argsort(-np.abs(self.contributions), kind="stable")

    @property
    def easiest(self) -> int | None:
        """The prototype whose coefficient needs the smallest change to flip the pixel; None if none can."""
        best = int(np.argmin(np.abs(self.margins)))
        return best if np.isfinite(self.margins[best]) else None

    def rows(self) -> list[dict[str, int | float]]:
        """One dictionary per prototype, largest |contribution| first."""
        return [
            {"prototype": int(k), "contribution": float(self.contributions[k]), "margin": float(self.margins[k])}
            for k in self.order
        ]


def pixel_query(instance: Instance, x: int, y: int, *, baseline: Baseline = "zero") -> PixelQuery:
    """Return the contributions that decide the pixel in column x and row y of the image, and how firmly they do.

    They are resized as the mask of the image's size is, so their sum is the very value that is compared with
    the threshold. A rule that squashes first resizes probabilities, which are no sum over prototypes; there, the
    logit is the distance of the probability q from the threshold, 4 (q - 1/2), which near the edge is the logit
    itself, and every cell shares its part of it among the prototypes in proportion to their terms (the rescale rule
    of DeepLIFT: Shrikumar, Greenside, Kundaje, ICML 2017). Still, they sum to it.

    `baseline` "zero": contributions are weight times prototype. "mean": weight times what the prototype is here above
    its mean over the image, beside a `level` that all means make together (see `shapley.shapley_logits`). Raises
    InputError for a pixel outside the image, or another baseline.

    Examples
    --------
    >>> import maskprism
    >>> from maskprism.datasets.scenes import draw_scene
    >>> prediction = maskprism.load("sample").predict(draw_scene(3).image)
    >>> x1, y1, x2, y2 = prediction.boxes[0]
    >>> query = pixel_query(prediction[0], int(x1 + x2) // 2, int(y1 + y2) // 2)
    >>> bool(abs(query.contributions.sum() - query.logit) < 1e-3), query.in_mask
    (True, True)
    """
    means = baseline_means(instance, baseline).astype(np.float64)
    height, width = instance.letterbox.image_hw
    if not (0 <= x < width and 0 <= y < height):
        raise InputError(
            f"pixel {x},{y} is outside the image; expected x from 0 to {width - 1} and y from 0 to {height - 1}"
        )
    x, y = int(x), int(y)
    rows, columns, share = _cells(instance, x, y)
    prototypes = instance.prototypes[:, rows, columns].astype(np.float64).reshape(len(instance.weights), -1)
    share = share * _kept(instance)[rows, columns]
    flat, weights = share.reshape(-1), instance.weights.astype(np.float64)
    logits = weights @ prototypes
    counted = flat * _secant(logits) if instance.rule.squash else flat
    contributions = weights * ((prototypes - means[:, None]) @ counted)
    level = float(weights @ means) * float(counted.sum())
    if instance.rule.squash:
        crop = -2 * (1 - float(flat.sum()))
        margins = np.array([_squashed_margin(flat, logits, prototype) for prototype in prototypes])
    else:
        values, crop = prototypes @ flat, 0.0
        with np.errstate(divide="ignore"):
            margins = np.where(values == 0, np.inf, -(weights @ values) / np.where(values == 0, 1, values))
    logit = float(contributions.sum() + level + crop)
    in_crop = _in_crop(instance, x, y, float(flat.sum()))
    objectness = instance.prediction.objectness
    if instance.rule.objectness and objectness is not None:
        scale = float(objectness[instance.index])
        margins = margins / scale if scale else np.full_like(margins, np.inf)
    return PixelQuery(
        x=x,
        y=y,
        contributions=contributions,
        level=level,
        crop=crop,
        logit=logit,
        in_crop=in_crop,
        in_mask=in_crop and logit > 0,
        margins=margins if in_crop else np.full_like(margins, np.inf),
    )


@dataclass(frozen=True, eq=False)
class Blame:
    """Which prototypes made a region what it is.

    Attributes
    ----------
    kind
        "false positives" (in the mask, not in the ground truth), "false negatives" (the other way round), or "region".
    pixels
        How many count.
    cropped
        How many more of the region lie outside the crop, where no prototype is responsible, but the box.
    contributions
        Mean over the region.
    inside, outside
        Mean over the mask, and over the rest of the box.
    logit
        Mean over the region, the sum of the contributions (and of what a crop before resizing takes away). NaN where
        there is no pixel.
    """

    kind: Kind
    pixels: int
    cropped: int
    contributions: Float32[np.ndarray, " K"]
    inside: Float32[np.ndarray, " K"]
    outside: Float32[np.ndarray, " K"]
    logit: float
    region: Bool[np.ndarray, "H W"]

    @property
    def order(self) -> Int64[np.ndarray, " K"]:
        """Prototype indices, the most responsible first.

        False positives: what pushes up most. False negatives: what pushes down most. Else by size.
        """
        return np.argsort(-np.nan_to_num(self._wrong(self.contributions)), kind="stable")

    @property
    def departures(self) -> Float32[np.ndarray, " K"]:
        """How far each contribution is from what the prototype does where the mask is right.

        False positives: from the rest of the box. False negatives: from the inside of the mask. Else: from 0.
        """
        usual = {"false positives": self.outside, "false negatives": self.inside}.get(self.kind)
        return self.contributions if usual is None else self.contributions - usual

    @property
    def unusual(self) -> Int64[np.ndarray, " K"]:
        """Prototype indices, those first that depart most to the wrong side.

        A prototype that pushes down everywhere tops the `order` of false negatives, and others made up for it
        elsewhere; this one names those that failed here.
        """
        return np.argsort(-np.nan_to_num(self._wrong(self.departures)), kind="stable")

    @property
    def shares(self) -> Float32[np.ndarray, " K"]:
        """The share of each prototype in all that pushes the wrong way (in all contributions, for a plain region)."""
        wrong = np.maximum(np.nan_to_num(self._wrong(self.contributions)), 0)
        total = wrong.sum()
        return wrong / total if total > 0 else wrong

    def _wrong(self, values: Float32[np.ndarray, " K"]) -> Float32[np.ndarray, " K"]:
        """Above 0 where values make the error."""
        return {"false positives": values, "false negatives": -values}.get(self.kind, np.abs(values))

    def rows(self) -> list[dict[str, int | float]]:
        """One dictionary per prototype, the most responsible first."""
        shares, departures = self.shares, self.departures
        return [
            {
                "prototype": int(k),
                "contribution": float(self.contributions[k]),
                "share": float(shares[k]),
                "inside": float(self.inside[k]),
                "outside": float(self.outside[k]),
                "departure": float(departures[k]),
            }
            for k in self.order
        ]


def region_blame(instance: Instance, region: Bool[np.ndarray, "H W"]) -> Blame:
    """Return what the prototypes contribute to a region, on average: a boolean mask of the image's or canvas's size.

    Contributions are those of `pixel_query`, in the frame of the region.

    Raises
    ------
    InputError
        For another size, or without a single pixel.
    """
    size = _frame_of(instance, region, "region")
    given = mask_in_frame(region, instance.letterbox, size, "region")
    if not given.any():
        raise InputError("the region is empty; expected at least one pixel")
    return _blamed(instance, size, (("region", given),))[0]


def truth_blame(instance: Instance, truth: Bool[np.ndarray, "H W"]) -> tuple[Blame, Blame]:
    """Return which prototypes are responsible for false positive and false negative pixels of the mask.

    `truth` is a boolean mask of the image's or canvas's size. Gives the blame for false positives and for false
    negatives.

    Raises
    ------
    InputError
        For another size.
    """
    size = _frame_of(instance, truth, "truth")
    wanted = mask_in_frame(truth, instance.letterbox, size, "truth")
    mask = instance.mask(size)
    found = _blamed(instance, size, (("false positives", mask & ~wanted), ("false negatives", wanted & ~mask)))
    return found[0], found[1]


def _frame_of(instance: Instance, image: Bool[np.ndarray, "H W"], name: str) -> Size:
    shape, letterbox = np.shape(image), instance.letterbox
    if shape == letterbox.image_hw:
        return "image"
    if shape == letterbox.canvas_hw:
        return "canvas"
    raise InputError(
        f"{name} has shape {shape}; expected that of the image, {letterbox.image_hw}, "
        f"or of the canvas, {letterbox.canvas_hw}"
    )


def _blamed(instance: Instance, size: Size, kinds: tuple[tuple[Kind, Bool[np.ndarray, "H W"]], ...]) -> list[Blame]:
    """Mean contributions over regions, the mask, and the rest of the box; one prototype at a time, to save memory."""
    (own,) = instance.alone.patches(size)
    mask = own.values > instance.rule.threshold
    windows = [whole[own.rows, own.columns] for _, whole in kinds]
    regions = (*windows, mask, box_pixels(instance, size, mask.shape) & ~mask)
    counts = np.array([np.count_nonzero(region) for region in regions])
    flat = np.stack([region.reshape(-1) for region in regions]).astype(np.float32)
    sums = np.array([flat @ term.values.reshape(-1) for term in _contributions(instance, size)]).T
    means = np.divide(sums, counts[:, None], out=np.full_like(sums, np.nan), where=counts[:, None] > 0)
    level = 4 * (own.values - 0.5) if instance.rule.squash else own.values
    return [
        Blame(
            kind=kind,
            pixels=int(counts[i]),
            cropped=int(np.count_nonzero(whole)) - int(counts[i]),
            contributions=means[i],
            inside=means[-2],
            outside=means[-1],
            logit=float(level[windows[i]].mean(dtype=np.float64)) if counts[i] else float("nan"),
            region=whole,
        )
        for i, (kind, whole) in enumerate(kinds)
    ]


def _contributions(instance: Instance, size: Size) -> Iterator[Patch]:
    """Yield what each prototype contributes to the logits that decide the mask; see `pixel_query`."""
    scale = _secant(instance.logits()) if instance.rule.squash else 1
    for weight, prototype in zip(instance.weights, instance.prototypes, strict=True):
        term = np.asarray(scale * (weight * prototype), dtype=np.float32)
        yield decode(term, instance.canvas_box, instance.letterbox, instance.rule, size, squash=False)


def _secant(logits: Floats) -> Floats:
    """4 (sigmoid(x) - 1/2) / x, which is 1 at 0: what a logit counts where probabilities are resized."""
    safe = np.where(np.abs(logits) < 1e-3, 1, logits)
    return np.where(np.abs(logits) < 1e-3, 1, 2 * np.tanh(safe / 2) / safe)


def _cells(instance: Instance, x: int, y: int) -> tuple[slice, slice, Float64[np.ndarray, "rows columns"]]:
    """Return the grid cells that a pixel of the image reads, and the share that each has in it."""
    height, width = instance.letterbox.grid_hw
    unpad = instance.rule.unpad

    def read(line: Float64[np.ndarray, " M"], axis: int) -> float:
        image = np.ascontiguousarray(np.broadcast_to(line[:, None] if axis == 0 else line, (height, width)))
        image = image.astype(np.float32)
        return float(instance.letterbox.resample(image, "image", unpad, slice(y, y + 1), slice(x, x + 1))[0, 0])

    spans, shares = [], []
    for axis, length in enumerate((height, width)):
        place = int(read(np.arange(length, dtype=np.float64), axis))  # a ramp tells where the pixel lies
        span = slice(max(place - 2, 0), min(place + 4, length))
        shares.append(np.array([read(np.arange(length) == i, axis) for i in range(span.start, span.stop)]))
        spans.append(span)
    return spans[0], spans[1], np.outer(*shares)


def _kept(instance: Instance) -> Bool[np.ndarray, "h w"]:
    """Return the grid cells that are left on the way to the image's size: all, unless the rule crops on the grid."""
    letterbox, rule = instance.letterbox, instance.rule
    kept = np.ones(letterbox.grid_hw, dtype=bool)
    if rule.crop_image == "before":
        box = decode(kept.astype(np.float32), instance.canvas_box, letterbox, rule, "grid", crop="before", squash=False)
        kept[:] = False
        kept[box.rows, box.columns] = True
    return kept


def _in_crop(instance: Instance, x: int, y: int, kept: float) -> bool:
    """Return whether the rule lets the pixel be in the mask at all.

    `kept` is the share of its cells that the crop leaves.
    """
    if instance.rule.crop_image != "after":
        return kept > 0
    height, width = instance.letterbox.image_hw
    x1, y1, x2, y2 = instance.letterbox.from_canvas(instance.canvas_box, "image")
    rows = pixels_between(y1, y2, height, 0, instance.rule.round_box)
    columns = pixels_between(x1, x2, width, 0, instance.rule.round_box)
    return rows.start <= y < rows.stop and columns.start <= x < columns.stop


def _squashed_margin(
    shares: Float64[np.ndarray, " M"], logits: Float64[np.ndarray, " M"], prototype: Float64[np.ndarray, " M"]
) -> float:
    """Return the smallest change of a weight that brings a mean of probabilities to 1/2, by search and bisection."""

    def above(change: Float64[np.ndarray, " D"]) -> Bool[np.ndarray, " D"]:
        moved = logits + change[:, None] * prototype
        return (0.5 * (1 + np.tanh(0.5 * moved))) @ shares > 0.5

    steps = np.geomspace(1e-6, _SEARCH, 400)
    now, best = above(np.zeros(1))[0], np.inf
    for sign in (1.0, -1.0):
        flipped = np.flatnonzero(above(sign * steps) != now)
        if not len(flipped):
            continue
        high = steps[flipped[0]]
        low = steps[flipped[0] - 1] if flipped[0] else 0.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (low, middle) if above(np.array([sign * middle]))[0] != now else (middle, high)
        best = sign * high if high < abs(best) else best
    return float(best)
