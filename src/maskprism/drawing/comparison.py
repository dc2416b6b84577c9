"""What comparing two models found, as figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from maskprism._common.text import brief, percent, rounded
from maskprism.analysis.comparison.summary import versus
from maskprism.drawing.figures import colour_map, name_ticks, new_figure, one_axes, share, titled
from maskprism.drawing.palette import FRAME, INK, INSTANCE_COLOURS, MUTED, NEGATIVE, POSITIVE
from maskprism.errors import MaskprismError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from maskprism.analysis.comparison.report import Comparison

_PART_COLOURS = {
    "letterbox": FRAME,
    "coefficients": INSTANCE_COLOURS[0],
    "prototypes": INSTANCE_COLOURS[1],
    "boxes": INSTANCE_COLOURS[2],
}


def parts_figure(comparison: Comparison) -> Figure:
    """Return a waterfall of the mean loss of IoU from A to B: letterbox if canvases differ, then the three parts."""
    figure, ax = one_axes(7.5, 3.6)
    budget = comparison.budget
    position = 0.0
    for row, (part, loss) in enumerate(budget.items()):
        ax.barh(row, loss * 100, left=position * 100, color=share(_PART_COLOURS[part]))
        end = max(position, position + loss) * 100
        ax.annotate(f" {percent(loss)}", (end, row), va="center", fontsize=10)
        position += loss
        ax.plot([position * 100] * 2, [row, row + 1], color=share(MUTED), linewidth=0.8, linestyle=":")
    ax.barh(len(budget), position * 100, color=share(MUTED))
    ax.annotate(f" {percent(position)}", (position * 100, len(budget)), va="center", fontsize=10, fontweight="bold")
    ax.set_yticks(range(len(budget) + 1), [*budget, "1 − IoU of the masks"])
    ax.invert_yaxis()
    ax.margins(x=0.14)
    ax.set_xlabel("mean loss of mask IoU from A to B, in percent")
    pairs = len(comparison.on_both if comparison.forced else comparison.matched)
    ax.set_title(versus(comparison))
    return titled(figure, f"What the difference of {pairs} masks is made of")


def agreement_figure(comparison: Comparison) -> Figure:
    """Return how many instances are worse than which mask IoU, and the scores of every instance in A and B."""
    figure = new_figure(10, 4.4)
    left, right = figure.subplots(1, 2)
    ious = np.sort(comparison.ious)
    if len(ious):
        shares = [0, *np.linspace(100 / len(ious), 100, len(ious)), 100]
        left.step([ious[0], *ious, 1.0], shares, where="post", color=share(INK))
        left.set_xlim(min(float(ious[0]) - 0.02, 0.98), 1.002)
    left.set_ylim(0, 102)
    left.set_xlabel("mask IoU of A and B")
    left.set_ylabel("instances at most this good, in percent")
    left.set_title(f"{len(ious)} matched instances, mean IoU {rounded(comparison.mean_iou, 4)}")
    table = comparison.instances
    status = np.asarray(table["status"].to_pylist(), dtype=object)
    kinds = {
        "matched": (".", INK),
        "class changed": ("D", INSTANCE_COLOURS[6]),
        "only in A": ("_", NEGATIVE),
        "only in B": ("|", POSITIVE),
    }
    scores = {side: np.nan_to_num(table[f"score_{side}"].to_numpy()) for side in "ab"}
    for kind, (marker, colour) in kinds.items():
        chosen = status == kind
        right.scatter(
            scores["a"][chosen],
            scores["b"][chosen],
            marker=marker,
            s=34 if marker != "." else 26,
            color=share(colour),
            alpha=0.6 if kind == "matched" else 1,
            label=f"{kind}: {np.count_nonzero(chosen)}",
            clip_on=False,
        )
    right.plot([0, 1], [0, 1], color=share(FRAME), linewidth=0.8, zorder=0)
    right.set(xlim=(0, 1), ylim=(0, 1), xlabel="score in A", ylabel="score in B (0: not found)", aspect="equal")
    right.legend(loc="lower right")
    right.set_title("scores")
    return titled(figure, versus(comparison))


def correlation_figure(comparison: Comparison) -> Figure:
    """Correlation of every prototype of A with every one of B; B in the order of its partners, so that they align."""
    similarity = comparison.similarity
    pairs = similarity.pairs
    rows = [*pairs[:, 0], *np.setdiff1d(np.arange(similarity.count_a), pairs[:, 0])]
    columns = [*pairs[:, 1], *np.setdiff1d(np.arange(similarity.count_b), pairs[:, 1])]
    matrix = np.ma.masked_invalid(similarity.correlation[np.ix_(rows, columns)])
    figure, ax = one_axes(9.2, 8.2)
    ax.set_facecolor("0.85")
    shown = ax.imshow(matrix, cmap=colour_map("contribution"), vmin=-1, vmax=1)
    name_ticks(ax.xaxis, [str(k) for k in columns], rotation=90)
    name_ticks(ax.yaxis, [str(k) for k in rows])
    ax.set_xlabel(f"prototype of B, {brief(comparison.b.name)}, each below the one that it is matched with")
    ax.set_ylabel(f"prototype of A, {brief(comparison.a.name)}")
    figure.colorbar(shown, ax=ax, shrink=0.8, panchor=(0, 0.5), label="correlation over the pixels of all images")
    strengths = np.abs([similarity.correlation[a, b] for a, b in pairs])
    median = (
        f"median |correlation| of matched prototypes {rounded(float(np.median(strengths)))}"
        if len(strengths)
        else "none is matched"
    )
    return titled(figure, f"Which prototype is which: {median}")


def angles_figure(comparison: Comparison) -> Figure:
    """Principal angles between the spaces that the prototypes span, smallest first."""
    figure, ax = one_axes(8, 3.8)
    similarity = comparison.similarity
    angles = similarity.angles_deg
    ax.vlines(range(len(angles)), 0, angles, color=share(INSTANCE_COLOURS[1]), linewidth=2)
    ax.plot(range(len(angles)), angles, "o", color=share(INSTANCE_COLOURS[1]))
    ax.set_xlim(-0.5, len(angles) - 0.5)
    largest = float(angles.max(initial=0))
    top = max(1.15 * largest, 1) if 0.1 < largest <= 30 else 90
    ax.set_ylim(-0.05 * top, top)  # with room for marks at 0
    ax.set_xlabel("direction, best shared first")
    ax.set_ylabel("angle in degrees")
    a_by_b, b_by_a = similarity.explained
    ax.set_title(
        f"0°: both can, 90°: only one can; CKA {rounded(similarity.cka, 4)}; "
        f"A's draw {percent(b_by_a)} of B's, B's draw {percent(a_by_b)} of A's"
    )
    return titled(figure, "Angles between what the prototypes of A and B can draw")


def drift_figure(comparison: Comparison) -> Figure:
    """Per prototype how much its term changed, through coefficient or prototype, and its share in flipped pixels.

    Raises
    ------
    MaskprismError
        For models without a common basis.
    """
    drift = comparison.drift
    if drift is None:
        raise MaskprismError("the models have no common basis, so their terms cannot be compared one by one")
    figure = new_figure(10, 5.6)
    top, bottom = figure.subplots(2, 1, sharex=True)
    k = np.arange(len(drift.changes))
    top.bar(k, drift.by_coefficients, color=share(_PART_COLOURS["coefficients"]), label="through its coefficient")
    top.bar(
        k,
        drift.by_prototypes,
        bottom=drift.by_coefficients,
        color=share(_PART_COLOURS["prototypes"]),
        label="through the prototype itself",
    )
    top.set_ylabel("mean |change| in boxes, logits")
    top.legend(ncols=2)
    top.margins(y=0.2)
    top.set_ylim(bottom=0)
    top.set_title(versus(comparison))
    blame = drift.blame * 100
    bottom.bar(k, blame, color=[share(POSITIVE if one > 0 else NEGATIVE) for one in blame])
    bottom.axhline(0, color=share(MUTED), linewidth=0.8)
    if not drift.flipped_cells:
        bottom.text(0.5, 0.6, "no pixel flips", transform=bottom.transAxes, ha="center", fontsize=11)
        bottom.set_yticks([])
    bottom.set_ylabel("share in percent")
    bottom.set_xlabel("prototype")
    name_ticks(bottom.xaxis, [str(one) for one in k], rotation=90 if len(k) > 40 else 0)
    bottom.set_title(
        f"Share in the change of the logit where it flips a pixel ({drift.flipped_cells} cells); blue held against it"
    )
    return titled(figure, "How much each term, coefficient times prototype, changed")
