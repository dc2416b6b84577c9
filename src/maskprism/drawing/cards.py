"""One card per prototype, positional or semantic, and a sheet of all of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from maskprism._common.text import brief
from maskprism.analysis.prototypes.positional import TAG_RULES, THRESHOLDS
from maskprism.analysis.prototypes.translation import CHANGES
from maskprism.drawing import palette, raster
from maskprism.drawing.figures import colour_map, new_figure, save, share
from maskprism.drawing.sheets import MOST_PANELS, Label, Panel, Sheet, signed
from maskprism.drawing.text_tables import write_rows

if TYPE_CHECKING:
    from jaxtyping import UInt8
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation

    from maskprism.analysis.prototypes.positional import Activation, Dependence
    from maskprism.analysis.prototypes.translation import MovementTest

TAG_COLOURS: dict[str, palette.RGB] = dict(zip(TAG_RULES, palette.INSTANCE_COLOURS, strict=True))
PLACE_LIMIT = 1.0
"""Maps of positions end at this number of standard deviations, on every card and on the sheet of all."""
_HEAT_LIMIT = 3.0
_MOST_CLASSES = 9
_FEWEST_INSTANCES = 3
_RULE_WIDTH = 190
_WORTH_A_LINE = 0.05
_HIGH, _LOW = (palette.lookup_table("prototype")[at] / 255 for at in (225, 30))


def write_cards(
    study: Dependence,
    movement: MovementTest | None,
    folder: Path,
    *,
    prototypes: Sequence[int] | None = None,
    model: str = "",
) -> Iterator[Path]:
    """Write `prototypes.csv`, `prototypes.png` and one `prototype-07.png` per prototype; give each path when written.

    With `prototypes`, only the cards of these.

    Raises
    ------
    MaskprismError
        If the folder cannot be written.
    """
    rows = [study.record(k, movement) for k in range(len(study))]
    yield write_rows(rows, folder / "prototypes.csv")
    yield raster.save(sheet_of_all(study, movement, model=model), folder / "prototypes.png")
    for k in range(len(study)) if prototypes is None else prototypes:
        path = folder / f"prototype-{k:02d}.png"
        save(card(study, k, movement, model=model), path, dpi=110, pil_kwargs={"compress_level": 1})
        yield path


def sheet_of_all(study: Dependence, movement: MovementTest | None = None, *, model: str = "") -> Sheet:
    """Return where in the image every prototype is high or low on average, with its tags."""
    panels = []
    columns = 8 if len(study) <= MOST_PANELS else 16
    for k in range(len(study)):
        tags = study.tags(k, movement)
        values = place_map(study, k)
        side = len(values)
        labels = tuple(
            Label(tag, (side * 0.02, side * (0.99 - 0.13 * row)), TAG_COLOURS[tag])
            for row, tag in enumerate(reversed(tags))
        )
        title = f"{k}   {'position ' if columns == 8 else ''}{_percent(study.position[k])}"
        panels.append(Panel(title, values=values, limit=PLACE_LIMIT, map="prototype", labels=labels))
    counts = [(tag, sum(tag in study.tags(k, movement) for k in range(len(study)))) for tag in TAG_RULES]
    told = ", ".join(f"{count} {tag}" for tag, count in counts if count) or "no tags"
    return Sheet(
        title=f"Positional or semantic? The {len(study)} prototypes{_of(model)}",
        subtitle=f"mean at every position of {study.images} images, each stretched to a square; {told}"
        + ("" if columns == 8 else "; percent: what position explains"),
        panels=tuple(panels),
        columns=columns,
        notes=tuple(f"{tag}: {rule}" for tag, rule in TAG_RULES.items()),
        scale=(PLACE_LIMIT, "prototype", "standard deviations from the prototype's mean"),
        size_wh=(2000, 1200) if columns == 8 else (2400, 170 * math.ceil(len(panels) / columns)),
    )


def card(study: Dependence, k: int, movement: MovementTest | None = None, *, model: str = "") -> Figure:
    """Everything about prototype k on one figure.

    Mean by position with the best half-plane, the images that activate it most, what explains
    its variance, whether it follows a moved image, and what it is inside each class.
    """
    figure = new_figure(13.5, 7.6, layout=None)
    # Places are given, not sought: the layout engine would take half of the time of a card.
    strongest = study.strongest[k]
    row = figure.add_gridspec(1, 1 + len(strongest), left=0.01, right=0.99, top=0.855, bottom=0.525, wspace=0.05)
    _draw_places(figure.add_subplot(row[0]), study, k)
    for column, activation in enumerate(strongest, start=1):
        _draw_image(figure.add_subplot(row[column]), activation, study, k)
    _draw_shares(figure.add_axes((0.125, 0.145, 0.245, 0.305)), study, k)
    _draw_movement(figure.add_axes((0.425, 0.145, 0.235, 0.305)), movement, k)
    _draw_classes(figure.add_axes((0.775, 0.145, 0.21, 0.305)), study, k)
    _write_head(figure.add_axes((0.01, 0.915, 0.98, 0.075)), study, k, study.tags(k, movement), model)
    _write_rules(figure.add_axes((0.01, 0.005, 0.98, 0.08)))
    return figure


def place_map(study: Dependence, k: int) -> np.ndarray:
    """Return the mean of prototype k by position, in standard deviations from its mean; zeros for a constant one."""
    spread = study.spread[k] if study.spread[k] > 0 else np.inf
    return ((study.place_means[k] - study.mean[k]) / spread).astype(np.float32)


def overlay(activation: Activation, mean: float, spread: float) -> UInt8[np.ndarray, "H W 3"]:
    """Return the image in grey under the prototype in colour: purple below its mean, orange above (RGB)."""
    grey = cv2.cvtColor(activation.picture, cv2.COLOR_BGR2GRAY)
    height, width = grey.shape
    unit = spread if spread > 0 else np.inf
    deviation = ((activation.values - mean) / unit).astype(np.float32)
    colours = palette.paint(deviation, _HEAT_LIMIT, "prototype", (width, height))
    size = np.abs(cv2.resize(deviation, (width, height), interpolation=cv2.INTER_LINEAR)) / _HEAT_LIMIT
    cover = np.clip(size, 0, 1)[:, :, None] ** 0.7 * 0.85
    return (colours * cover + (96 + 0.6 * grey[:, :, None]) * (1 - cover)).clip(0, 255).astype(np.uint8)


def _draw_places(ax: Axes, study: Dependence, k: int) -> None:
    ax.imshow(
        place_map(study, k),
        cmap=colour_map("prototype"),
        vmin=-PLACE_LIMIT,
        vmax=PLACE_LIMIT,
        extent=(0, 1, 1, 0),
        interpolation="bilinear",
    )
    plane = study.half_planes[k]
    if plane.explained >= _WORTH_A_LINE:
        angle = np.radians(plane.angle)
        foot = np.array([np.cos(angle), np.sin(angle)]) * plane.offset
        along = np.array([-np.sin(angle), np.cos(angle)])
        ends = np.stack([foot - 2 * along, foot + 2 * along])
        ax.plot(ends[:, 0], ends[:, 1], color="black", linestyle=(0, (5, 3)), linewidth=1.4)
    ax.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    ax.set_anchor("N")
    ax.set_title(f"mean by position\n{study.images} images", fontsize=8)
    ends_at = f"colours end at ±{PLACE_LIMIT:.0f} SD"
    line = "; dashed: best half-plane" if plane.explained >= _WORTH_A_LINE else ""
    ax.set_xlabel(ends_at + line, fontsize=7.5, color=share(palette.MUTED))


def _draw_image(ax: Axes, activation: Activation, study: Dependence, k: int) -> None:
    ax.imshow(overlay(activation, float(study.mean[k]), float(study.spread[k])))
    ax.set_anchor("N")
    name = activation.name if len(activation.name) <= 24 else f"…{activation.name[-23:]}"
    ax.set_title(f"{name}\n{signed(activation.score)} SD", fontsize=8)
    ax.set_axis_off()


def _draw_shares(ax: Axes, study: Dependence, k: int) -> None:
    rows = (
        ("position", study.position[k], "positional"),
        ("of it: best half-plane", study.half_planes[k].explained, "half-plane"),
        ("foreground", study.foreground[k], "semantic"),
        ("class, between instances", study.class_share[k], "semantic"),
        ("luminance", study.luminance[k], "luminance"),
        ("edges", study.edges[k], "edges"),
    )
    for row, (_, value, tag) in enumerate(rows):
        known, threshold = bool(np.isfinite(value)), THRESHOLDS[tag]
        ax.barh(row, value if known else 0, color=share(TAG_COLOURS[tag]), height=0.62)
        ax.text(
            (value if known else 0) + 0.015,
            row,
            _percent(value),
            va="center",
            fontsize=8.5,
            fontweight="bold" if known and value >= threshold else "normal",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
        )
        ax.plot([threshold] * 2, [row - 0.4, row + 0.4], color="black", linewidth=1.2)
    ax.set_yticks(range(len(rows)), [name for name, *_ in rows], fontsize=8.5)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_xlim(0, 1)
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"], fontsize=8)
    ax.set_title("what explains its variance (line: threshold of the tag)", fontsize=9)


def _draw_movement(ax: Axes, movement: MovementTest | None, k: int) -> None:
    ax.set_title("is it translation and flip equivariant?", fontsize=9)
    if movement is None:
        ax.text(0.5, 0.5, "not tested", ha="center", va="center", color=share(palette.MUTED))
        ax.set_axis_off()
        return
    follows, stays, errors = movement.follows[:, k], movement.stays[:, k], movement.standard_errors[..., k]
    rows = np.arange(len(CHANGES))
    for row, a, b in zip(rows, follows, stays, strict=True):
        ax.plot([a, b], [row, row], color=share(palette.FRAME), linewidth=5, zorder=1, solid_capstyle="round")
    for values, error, colour, marker, label in (
        (follows, errors[0], palette.INSTANCE_COLOURS[2], "o", "follows the image"),
        (stays, errors[1], palette.INSTANCE_COLOURS[5], "s", "stays in place"),
    ):
        ax.errorbar(
            values,
            rows,
            xerr=np.nan_to_num(error),
            fmt=marker,
            color=share(colour),
            markersize=8,
            capsize=3,
            label=label,
            zorder=2,
        )
    ax.axvline(0, color="black", linewidth=0.6)
    ax.set_yticks(rows, CHANGES, fontsize=9)
    ax.set_ylim(len(CHANGES) - 0.2, -0.6)
    ax.set_xlim(-1.05, 1.05)
    ax.set_xticks([-1, -0.5, 0, 0.5, 1])
    ax.set_xlabel(f"correlation, mean of {movement.images} images ± standard error", fontsize=8)
    ax.tick_params(axis="x", labelsize=8)
    ax.legend(loc="lower center", ncols=2)


def _draw_classes(ax: Axes, study: Dependence, k: int) -> None:
    chosen = _classes_shown(study, k)
    ax.set_title("mean inside instances, by class", fontsize=9)
    if not len(chosen):
        ax.text(0.5, 0.5, "no instances", ha="center", va="center", color=share(palette.MUTED))
        ax.set_axis_off()
        return
    spread = study.spread[k] if study.spread[k] > 0 else np.inf
    values = (study.class_means[k, chosen] - study.mean[k]) / spread
    colours = [_HIGH if value > 0 else _LOW for value in values]
    ax.barh(range(len(chosen)), values, color=colours, height=0.66)
    names = [study.names.get(int(study.class_ids[c]), f"class{study.class_ids[c]}") for c in chosen]
    ax.set_yticks(
        range(len(chosen)),
        [f"{brief(name)} ({study.class_counts[c]})" for name, c in zip(names, chosen, strict=True)],
        fontsize=8.5,
    )
    ax.invert_yaxis()
    ax.axvline(0, color="black", linewidth=0.8)
    reach = max(float(np.abs(values).max()), 1.0) * 1.05
    ax.set_xlim(-reach, reach)
    ax.tick_params(axis="x", labelsize=8)
    ax.set_xlabel("SD from the prototype's mean (instances in brackets)", fontsize=8)


def _classes_shown(study: Dependence, k: int) -> np.ndarray:
    """Return the classes that lie furthest from the mean, highest first; rare ones only if there are no others."""
    common = np.flatnonzero(study.class_counts >= _FEWEST_INSTANCES)
    candidates = common if len(common) >= 2 else np.arange(len(study.class_ids))
    values = study.class_means[k, candidates] - study.mean[k]
    furthest = candidates[np.argsort(-np.abs(values), kind="stable")[:_MOST_CLASSES]]
    return furthest[np.argsort(-study.class_means[k, furthest], kind="stable")]


def _write_head(ax: Axes, study: Dependence, k: int, tags: tuple[str, ...], model: str) -> None:
    ax.set_axis_off()
    ax.text(0, 0.75, f"Prototype {k}{_of(model)}", fontsize=15, fontweight="bold", va="center")
    side = "highest" if study.side[k] > 0 else "lowest"
    numbers = f"mean {signed(study.mean[k])}, standard deviation {study.spread[k]:.2f}"
    ax.text(
        0,
        0.1,
        f"{numbers}; images: those where it is {side} (orange: above its mean, purple: below)",
        fontsize=9.5,
        color=share(palette.MUTED),
        va="center",
    )
    chip: Annotation | None = None
    for tag in reversed(tags or ("no tag",)):
        colour = TAG_COLOURS.get(tag, palette.FRAME)
        chip = ax.annotate(
            tag,
            xy=(1, 0.75) if chip is None else (0, 0.5),
            xycoords="axes fraction" if chip is None else chip,
            xytext=(-8 if chip is None else -20, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=11,
            color="white" if palette.is_dark(colour) else "black",
            bbox={"facecolor": share(colour), "edgecolor": "none", "boxstyle": "round,pad=0.35"},
        )


def _write_rules(ax: Axes) -> None:
    ax.set_axis_off()
    lines = [""]
    for rule in (f"{tag}: {rule}" for tag, rule in TAG_RULES.items()):
        joined = f"{lines[-1]}   ·   {rule}" if lines[-1] else rule
        if len(joined) > _RULE_WIDTH:
            lines.append(rule)
        else:
            lines[-1] = joined
    ax.text(0.5, 0.5, "\n".join(lines), ha="center", va="center", fontsize=8, color=share(palette.MUTED))


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %" if np.isfinite(value) else "undefined"


def _of(model: str) -> str:
    return f" of {model}" if model else ""
