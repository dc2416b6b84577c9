"""Figures of what decides a pixel, which prototypes make a region, and which prototypes a mask needs (matplotlib)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from matplotlib.patheffects import withStroke

from maskprism.analysis.instance.attribution import Attribution, explain
from maskprism.analysis.instance.subset_masks import METRIC_NAMES
from maskprism.drawing.figures import new_figure, share, titled
from maskprism.drawing.instance_tables import most_unusual
from maskprism.drawing.mask_style import dimmed
from maskprism.drawing.palette import INSTANCE_COLOURS, MUTED, NEGATIVE, POSITIVE, TOO_MUCH
from maskprism.drawing.sheets import instance_title, signed
from maskprism.drawing.text_tables import MOST_ROWS
from maskprism.io.images import read_image

if TYPE_CHECKING:
    from jaxtyping import Bool
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from maskprism.analysis.instance.regions import Blame, PixelQuery
    from maskprism.analysis.instance.sufficient_sets import Path
    from maskprism.core.prediction import Instance
    from maskprism.io.images import ImageLike

_RED, _BLUE, _GREY = share(POSITIVE), share(NEGATIVE), share(MUTED)
_PLACE = 900  # pixels; the panel has about 500
_PATH_COLOURS: dict[Path, tuple[float, float, float]] = {
    "elimination": share(INSTANCE_COLOURS[4]),
    "greedy": share(INSTANCE_COLOURS[5]),
    "effect": share(INSTANCE_COLOURS[2]),
}
_PATH_WORDS: dict[Path, str] = {
    "elimination": "greedy from all: drop what is missed least",
    "greedy": "greedy from none: add what helps most",
    "effect": "in order of effect",
}


def waterfall(instance: Instance, query: PixelQuery, *, image: ImageLike | None = None, named: int = 12) -> Figure:
    """From 0 to the logit of one pixel: the largest contributions by name, the rest as one step.

    With the image the place is shown beside it.
    """
    figure = new_figure(12.5 if image is not None else 9, 5.6)
    if image is not None:
        picture, ax = figure.subplots(1, 2, width_ratios=(1, 2.1))
        _draw_place(picture, image, instance, (query.x, query.y))
    else:
        ax = figure.subplots()
    shown = query.order[:named]
    rest = query.order[named:]
    steps = [("level", query.level)] if query.level else []
    steps += [(f"{k}", float(query.contributions[k])) for k in shown]
    if len(rest):
        steps.append((f"{len(rest)} others", float(query.contributions[rest].sum())))
    if query.crop:
        steps.append(("crop", query.crop))
    level = 0.0
    for place, (_, step) in enumerate(steps):
        ax.bar(place, step, bottom=level, color=_RED if step > 0 else _BLUE, width=0.74)
        edge = max(level, level + step)
        words = ax.annotate(signed(step), (place, edge), (0, 2), textcoords="offset points", ha="center", fontsize=8)
        words.set_path_effects([withStroke(linewidth=2.5, foreground="white")])  # also where the axis runs through
        level += step
        ax.plot([place - 0.37, place + 1.37], [level, level], color=_GREY, linewidth=0.7)
    total = len(steps)
    ax.bar(total, query.logit, color="black", width=0.74)
    ax.annotate(
        signed(query.logit),
        (total, max(query.logit, 0)),
        (0, 2),
        textcoords="offset points",
        ha="center",
        fontsize=9,
        fontweight="bold",
    )
    ax.axhline(0, color="black", linewidth=0.9)
    ax.set_xticks(range(total + 1), [*(name for name, _ in steps), "logit"], fontsize=9)
    ax.set_xlabel("the level of all, then " * bool(query.level) + "prototypes, largest contribution first")
    ax.set_ylabel("logit")
    ax.use_sticky_edges = False
    ax.margins(y=0.1)
    ax.set_title(_verdict(query))
    answer = "is" if query.in_mask else "is not"
    return titled(figure, f"Why pixel {query.x},{query.y} {answer} in the mask: {instance_title(instance)}")


def _verdict(query: PixelQuery) -> str:
    if not query.in_crop:
        return "outside the crop: no coefficient can bring it into the mask"
    if query.easiest is None:
        return "no coefficient alone can flip it"
    change = signed(float(query.margins[query.easiest]))
    return f"smallest change that flips it: coefficient {query.easiest} by {change}"


def blame(image: ImageLike, instance: Instance, blames: Sequence[Blame], *, named: int = 10) -> Figure:
    """Return the regions on the image, and the prototypes that are most responsible for each.

    Ticks mark what the same prototype contributes on average inside the mask and in the rest of the box.
    """
    figure = new_figure(12.5, 4.6 * len(blames) + 0.4)
    axes = figure.subplots(len(blames), 2, squeeze=False, width_ratios=(1, 1.5))
    for (picture, ax), one in zip(axes, blames, strict=True):
        _draw_place(picture, image, instance, region=one.region)
        beyond = f", {one.cropped} more outside the crop" if one.cropped else ""
        picture.set_title(f"{one.kind}: {one.pixels} pixels{beyond}")
        if not one.pixels:
            ax.text(0.5, 0.5, "no pixel to attribute", ha="center", va="center", color=_GREY)
            ax.set_axis_off()
            continue
        order = one.order[:named]
        places = np.arange(len(order))
        values = one.contributions[order]
        ax.barh(places, values, color=[_RED if value > 0 else _BLUE for value in values], height=0.66)
        ax.plot(
            one.inside[order], places, "|", color="black", markersize=15, markeredgewidth=2, label="inside the mask"
        )
        ax.plot(one.outside[order], places, "d", color=_GREY, markersize=5, label="in the rest of the box")
        ax.set_yticks(places, [f"{k}   {100 * one.shares[k]:.0f} %" for k in order], fontsize=9)
        ax.invert_yaxis()
        ax.axvline(0, color="black", linewidth=0.8)
        ax.set_xlabel("mean contribution to the logit in the region; marks: elsewhere")
        ax.set_ylabel("prototype, its share")
        words = f"{_BLAME_WORDS[one.kind]}; mean logit {signed(one.logit)}"
        if one.kind != "region":
            words += f"\n{most_unusual(one)}"
        ax.set_title(words)
        ax.legend()
    asked = "act in the region" if all(one.kind == "region" for one in blames) else "are responsible"
    return titled(figure, f"Which prototypes {asked}: {instance_title(instance)}")


_BLAME_WORDS = {
    "false positives": "what pushes up where nothing is, and its share",
    "false negatives": "what pushes down where the ground truth is, and its share",
    "region": "what acts here, and its share",
}


def attribution(instance: Instance, found: Attribution | None = None) -> Figure:
    """Return which prototypes the mask needs.

    Smallest subsets, insertion and deletion, Shapley values, sensitivity.
    """
    found = found or explain(instance)
    figure = new_figure(13, 9)
    (sets, curves), (worth, pull) = figure.subplots(2, 2)
    _draw_sets(sets, found)
    _draw_curves(curves, found)
    _draw_worth(worth, found)
    _draw_pull(pull, found)
    title = f"Which prototypes the mask needs: {instance_title(instance)}; scores against {found.against}"
    return titled(figure, title)


def _draw_sets(ax: Axes, found: Attribution) -> None:
    for by, path in found.paths.items():
        count = path.enough
        reached = f"{count} prototypes" if count < len(path.curve) else "never enough"
        ax.plot(path.curve, color=_PATH_COLOURS[by], linewidth=1.8, label=f"{_PATH_WORDS[by]}: {reached}")
        if count < len(path.curve):
            ax.plot(count, path.curve[count], "o", color=_PATH_COLOURS[by], markersize=6)
    threshold = next(iter(found.paths.values())).threshold
    ax.axhline(threshold, color=_GREY, linewidth=0.8, linestyle="--")
    ax.set_ylim(0, 1.02)
    ax.set_xlabel("prototypes in the set")
    ax.set_ylabel("IoU")
    ax.set_title(f"Smallest prototype subsets with IoU ≥ {threshold:g} (for good)")
    ax.legend(loc="lower right")


def _draw_curves(ax: Axes, found: Attribution) -> None:
    test = found.faithfulness
    count = np.arange(len(test.insertion))
    for mean, error in (
        (test.random_insertion, test.insertion_error),
        (test.random_deletion, test.deletion_error),
    ):
        ax.fill_between(count, mean - 2 * error, mean + 2 * error, color="0.85")
    ax.plot(count, test.insertion, color=_RED, linewidth=1.8, label="joining in order of effect")
    ax.plot(count, test.deletion, color=_BLUE, linewidth=1.8, label="leaving in order of effect")
    ax.plot(count, test.random_insertion, color=_RED, linewidth=1, linestyle=":", label="joining at random")
    ax.plot(count, test.random_deletion, color=_BLUE, linewidth=1, linestyle=":", label="leaving at random")
    ax.set_ylim(0, 1.02)
    ax.set_xlabel("prototypes that joined, or left")
    ax.set_ylabel("IoU")
    ax.set_title(
        f"Better than chance by {signed(test.insertion_gain)} (joining) and {signed(test.deletion_gain)} (leaving) "
        f"± {test.insertion_gain_error:.2f}",
    )
    ax.legend()


def _draw_worth(ax: Axes, found: Attribution) -> None:
    values = found.shapley
    order, beyond = values.order()[:MOST_ROWS], len(values.values) - MOST_ROWS
    places = np.arange(len(order))
    colours = [_RED if value > 0 else _BLUE for value in values.values[order]]
    ax.bar(places, values.values[order], color=colours, width=0.75)
    ax.errorbar(
        places, values.values[order], yerr=2 * values.standard_errors[order], fmt="none", ecolor="black", elinewidth=0.8
    )
    if values.metric == "iou":  # as knock-outs are
        lost = values.full - found.knock_out[order]
        ax.plot(places, lost, "d", color=_GREY, markersize=4, label="lost without it alone")
        ax.legend()
    ax.set_xticks(places, [str(k) for k in order], fontsize=7, rotation=90 if len(order) > 20 else 0)
    ax.axhline(0, color="black", linewidth=0.8)
    ax.set_xlabel("prototype" + (f"; {beyond} smaller ones are not drawn" if beyond > 0 else ""))
    ax.set_ylabel(METRIC_NAMES[values.metric])
    ax.set_title(
        f"Sum of Shapley values = {values.full:.2f} − {values.none:.2f}; bars: 2 standard errors "
        f"({values.permutations} orders, seed {values.seed})",
    )


def _draw_pull(ax: Axes, found: Attribution) -> None:
    values = found.sensitivity.elasticity
    order, beyond = np.argsort(-np.abs(values), kind="stable")[:MOST_ROWS], len(values) - MOST_ROWS
    places = np.arange(len(order))
    ax.bar(places, values[order], color=[_RED if value > 0 else _BLUE for value in values[order]], width=0.75)
    ax.set_xticks(places, [str(k) for k in order], fontsize=7, rotation=90 if len(order) > 20 else 0)
    ax.axhline(0, color="black", linewidth=0.8)
    ax.set_xlabel("prototype" + (f"; {beyond} smaller ones are not drawn" if beyond > 0 else ""))
    ax.set_ylabel("soft Dice per relative change")
    ax.set_title(f"Sensitivity: coefficient x gradient of soft Dice ({found.sensitivity.dice:.3f})")


def _draw_place(
    ax: Axes,
    image: ImageLike,
    instance: Instance,
    at: tuple[int, int] | None = None,
    region: Bool[np.ndarray, "H W"] | None = None,
) -> None:
    """The image around the box with the mask's outline, a pixel or a region marked; shrunk if it is large."""
    pixels = read_image(image)
    x1, y1, x2, y2 = (float(v) for v in instance.box)
    margin = 0.15 * max(x2 - x1, y2 - y1, 1)
    xs, ys = ([x1, x2], [y1, y2]) if at is None else ([x1, x2, at[0]], [y1, y2, at[1]])
    height, width = pixels.shape[:2]
    left, right = math.floor(max(min(xs) - margin, 0)), math.ceil(min(max(xs) + margin, width))
    top, bottom = math.floor(max(min(ys) - margin, 0)), math.ceil(min(max(ys) + margin, height))
    around = (slice(top, bottom), slice(left, right))
    shrink = max(1, math.ceil(max(bottom - top, right - left) / _PLACE))
    size = (math.ceil((right - left) / shrink), math.ceil((bottom - top) / shrink))

    def shrunk(values: Any) -> Any:
        return values if shrink == 1 else cv2.resize(values, size, interpolation=cv2.INTER_AREA)

    picture = dimmed(shrunk(cv2.cvtColor(np.ascontiguousarray(pixels[around]), cv2.COLOR_BGR2RGB)))
    if region is not None:  # wherever it covers a part of a shrunken pixel: errors are often thin rims
        covered = shrunk(_on_image(region, instance)[around].astype(np.float32)) > 0
        picture[covered] = TOO_MUCH
    edges = (left - 0.5, right - 0.5, bottom - 0.5, top - 0.5)  # matplotlib counts from the centres of pixels
    ax.imshow(picture, extent=edges)
    mask = shrunk(instance.mask("image")[around].astype(np.float32))
    if mask.any():
        across, down = (
            start - 0.5 + (np.arange(-1, count + 1) + 0.5) * (stop - start) / count
            for start, stop, count in ((left, right, mask.shape[1]), (top, bottom, mask.shape[0]))
        )
        framed, level = np.pad(mask, 1), 0.5 / shrink  # low enough for what is thinner than a shrunken pixel
        ax.contour(across, down, framed, levels=[level], colors="white", linewidths=2.4)
        ax.contour(across, down, framed, levels=[level], colors="black", linewidths=1)
    if at is not None:
        ax.plot(at[0], at[1], "+", color="white", markersize=20, markeredgewidth=4)
        ax.plot(at[0], at[1], "+", color="black", markersize=18, markeredgewidth=1.8)
    ax.set_xlim(edges[:2])
    ax.set_ylim(edges[2:])
    ax.set_axis_off()


def _on_image(region: Bool[np.ndarray, "h w"], instance: Instance) -> Bool[np.ndarray, "H W"]:
    """Return a region of the image's or the canvas's size at the pixel centres of the image."""
    letterbox = instance.letterbox
    if region.shape == letterbox.image_hw:
        return region
    rows, columns = (
        np.floor((np.arange(length) + 0.5) * gain + offset).astype(int)
        for length, gain, offset in zip(letterbox.image_hw, letterbox.gain_yx, letterbox.offset_yx, strict=True)
    )
    return region[np.ix_(np.minimum(rows, region.shape[0] - 1), np.minimum(columns, region.shape[1] - 1))]
