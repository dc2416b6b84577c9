"""A diagnosis as figures: mask AP under three decodes, kinds of errors, and AP if parts were perfect."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, get_args

import numpy as np

from maskprism.analysis.dataset.ap_protocols import AP_PROTOCOLS
from maskprism.analysis.dataset.diagnosis import Step
from maskprism.analysis.truth.error_budget import PARTS
from maskprism.analysis.truth.matching import ERROR_TYPES
from maskprism.analysis.truth.overlaps import SIZES
from maskprism.drawing.figures import one_axes, share, titled
from maskprism.drawing.palette import FRAME, INK, INSTANCE_COLOURS, MUTED, PART_COLOURS, RGB

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from maskprism.analysis.dataset.coco_ap import AveragePrecision
    from maskprism.analysis.dataset.diagnosis import Diagnosis
    from maskprism.analysis.dataset.findings import FigureName
    from maskprism.analysis.truth.error_budget import Part

_WIDTH = 7.4
_MOST_DOTS = 3000
_BLUE = INSTANCE_COLOURS[4]
STEP_TITLES = {
    "as predicted": "as predicted",
    "coefficients": "oracle coefficients",
    "prototypes": "+ oracle prototypes",
    "box": "+ oracle box for the crop",
    "resolution": "+ oracle masks",
    "coefficients alone": "oracle coefficients alone",
    "prototypes alone": "oracle prototypes alone",
    "box alone": "oracle box alone",
    "resolution alone": "oracle resolution alone",
    "true boxes": "ground-truth boxes for the crop",
}
DETECTION_TITLE = "oracle detection alone"


def perfect_figure(found: Diagnosis) -> Figure:
    """Mask AP if one part of the model after the other were perfect, and below if one of them alone were.

    The last bar is detection alone.
    """
    figure, ax = one_axes(_WIDTH, 5.5)
    now = before = found.perfect["as predicted"].ap
    ax.barh(0, now, color=share(MUTED), height=0.62)
    _note(ax, now, 0, f"{now:.3f}")
    for row, step in enumerate(get_args(Step)[1:], 1):
        _gain(ax, row, before, found.perfect[step].ap, PART_COLOURS[_part_of(step)])
        before = found.perfect[step].ap
    below = len(found.perfect) + 0.5
    for row, (part, precision) in enumerate(found.alone.items()):
        _gain(ax, below + row, now, precision.ap, PART_COLOURS[_part_of(part)])
    _gain(ax, below + len(found.alone), now, found.perfect_detection.ap, _BLUE)
    ax.axhline(below - 0.75, color=share(FRAME), linewidth=1)
    places = [*range(len(found.perfect)), *(below + np.arange(len(found.alone) + 1))]
    ax.set_yticks(places, [*(STEP_TITLES[step] for step in (*found.perfect, *found.alone)), DETECTION_TITLE])
    ax.set_xlim(0, 1)
    ax.invert_yaxis()
    ax.set_xlabel("mask AP (predict)")
    return titled(figure, "Mask AP if parts of the model were perfect")


def _part_of(step: str) -> Part:
    return "box" if step == "true boxes" else next(part for part in PARTS if step.startswith(part))


def _gain(ax: Axes, row: float, before: float, after: float, colour: RGB) -> None:
    """A bar up to `after`, coloured from `before`, with both numbers."""
    ax.barh(row, before, color=share(FRAME), height=0.62)
    ax.barh(row, after - before, left=before, color=share(colour), height=0.62)
    _note(ax, max(after, before), row, f"{after:.3f}  ({after - before:+.3f})".replace("-", "−"))


def errors_figure(found: Diagnosis) -> Figure:
    """Return what fixing each kind of error would add to AP50; localisation is split by the error budget."""
    figure, ax = one_axes(_WIDTH, 3.1)
    kinds = sorted(ERROR_TYPES, key=lambda kind: -found.errors.gain[kind])
    mean = found.localisation.mean() if len(found.localisation) else None
    losses = {part: max(getattr(mean, part), 0.0) for part in PARTS} if mean else {}
    total = sum(losses.values())
    for row, kind in enumerate(kinds):
        gain = found.errors.gain[kind]
        if kind == "localisation" and total > 0:
            left = 0.0
            for part in PARTS:
                width = gain * losses[part] / total
                ax.barh(row, width, left=left, color=share(PART_COLOURS[part]), height=0.62, label=part)
                left += width
        else:
            ax.barh(row, gain, color=share(_BLUE), height=0.62)
        interval = found.intervals.errors[kind]
        if not np.isnan(interval.low):
            ax.plot([interval.low, interval.high], [row, row], color=share(INK), linewidth=1.2)
        _note(ax, max(gain, np.nan_to_num(interval.high)), row, f"{gain:+.3f}")
    ax.set_yticks(range(len(kinds)), kinds)
    most = [max(gain, np.nan_to_num(found.intervals.errors[kind].high)) for kind, gain in found.errors.gain.items()]
    ax.set_xlim(0, max(0.01, 1.18 * max(most)))
    ax.invert_yaxis()
    ax.set_xlabel("AP50 to be gained")
    if ax.get_legend_handles_labels()[0]:
        ax.legend(title="localisation, lost in", loc="lower right")
    return titled(figure, f"What each kind of error costs (AP50 is {found.errors.ap50:.3f})")


def protocols_figure(found: Diagnosis) -> Figure:
    """AP and AP50 of masks under the three decodes, and of boxes."""
    names: dict[str, str] = {name: f"{decode.tool}\n({decode.size})" for name, decode in AP_PROTOCOLS.items()}
    names["boxes"] = "boxes"
    return _grouped(
        "One model under three decodes",
        list(names.values()),
        {
            "AP50": [found.precision[name].ap50 for name in names],
            "AP": [found.precision[name].ap for name in names],
        },
        "average precision",
    )


def sizes_figure(found: Diagnosis) -> Figure:
    """AP of masks and boxes by the size of objects."""
    areas = np.array([one.area for one in found.objects])
    counts = [int(np.count_nonzero((areas >= low) & (areas < high))) for low, high in SIZES.values()]
    return _grouped(
        "Small, medium and large objects",
        [f"{size}\n({count} instances)" for size, count in zip(SIZES, counts, strict=True)],
        {
            "boxes": [found.precision["boxes"].by_size[size] for size in SIZES],
            "masks (predict)": [found.precision["predict"].by_size[size] for size in SIZES],
        },
        "average precision",
    )


def score_figure(found: Diagnosis) -> Figure:
    """Score against mask IoU of every matched instance, and the mean by tenths of the score."""
    figure, ax = one_axes(_WIDTH, 3.7)
    rows = found.budget.columns
    ranking = found.budget.ranking()
    ax.plot([0, 1], [0, 1], color=share(FRAME), linewidth=1.2, zorder=0)
    many = len(rows["score"]) > _MOST_DOTS  # an SVG of all of them would be larger than the rest of the report
    ax.scatter(
        rows["score"], rows["iou"], s=11, alpha=0.5, color=share(INSTANCE_COLOURS[1]), linewidths=0, rasterized=many
    )
    means = np.array([(one.score, one.iou) for one in ranking.bins]).reshape(-1, 2)
    ax.plot(means[:, 0], means[:, 1], "o-", color=share(_BLUE), markersize=5, label="mean by tenths of the score")
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)
    ax.set_xlabel("score")
    ax.set_ylabel("mask IoU")
    ax.grid(axis="y", color=share(FRAME), linewidth=0.7)
    ax.legend(loc="lower right")
    correlation = "undefined" if np.isnan(ranking.spearman) else f"{ranking.spearman:.2f}".replace("-", "−")
    return titled(figure, f"Does the score know how good the mask is? (rank correlation {correlation})")


def _grouped(title: str, groups: Sequence[str], series: dict[str, list[float]], label: str) -> Figure:
    """Bars side by side, with their values above; what cannot be measured is left out."""
    figure, ax = one_axes(_WIDTH, 3.2)
    width = 0.36
    for number, (name, values) in enumerate(series.items()):
        at = np.arange(len(groups)) + (number - (len(series) - 1) / 2) * (width + 0.03)
        colour = (INSTANCE_COLOURS[1], _BLUE)[number]
        ax.bar(at, np.nan_to_num(values), width, color=share(colour), label=name)
        for x, value in zip(at, values, strict=True):
            text = "–" if np.isnan(value) else f"{value:.3f}"
            ax.text(x, np.nan_to_num(value) + 0.012, text, ha="center", fontsize=8.5, color=share(INK))
    ax.set_xticks(range(len(groups)), groups)
    ax.set_ylim(0, min(1.08, 1.2 * max(0.1, float(np.nan_to_num(list(series.values())).max()))))
    ax.set_ylabel(label)
    ax.legend(ncols=2, loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0)
    return titled(figure, title)


def _note(ax: Axes, x: float, y: float, text: str) -> None:
    ax.annotate(text, (x, y), (5, 0), textcoords="offset points", va="center", fontsize=8.5, color=share(INK))


def words_of(name: FigureName, found: Diagnosis) -> str:
    """Return the numbers of a figure in a sentence, for those who do not see it."""
    if name == "perfect":
        steps = [*found.perfect.items(), *found.alone.items()]
        named = [(STEP_TITLES[step], precision.ap) for step, precision in steps]
        return _listed([*named, (DETECTION_TITLE, found.perfect_detection.ap)])
    if name == "budget":
        mean = found.budget.mean()
        return _listed([*((f"lost in {part}", getattr(mean, part)) for part in PARTS), ("mean mask IoU", mean.iou)])
    if name == "errors":
        return _listed(sorted(found.errors.gain.items(), key=lambda item: -item[1]))
    if name == "decodes":
        return _listed((f"{one}, AP50 {of.ap50:.3f}, AP", of.ap) for one, of in _by_decode(found).items())
    if name == "sizes":
        rows = (("boxes", found.precision["boxes"]), ("masks", found.precision["predict"]))
        return _listed((f"{size} {kind}", one.by_size[size]) for kind, one in rows for size in SIZES)
    if name == "score":
        ranking = found.budget.ranking()
        tenths = ((f"score {one.score:.2f}, mean IoU", one.iou) for one in ranking.bins)
        return _listed([("rank correlation", ranking.spearman), *tenths])
    means = [*found.budget.means("size"), *found.budget.means("class_name")]
    return _listed((f"{mean.group} ({mean.instances}), IoU", mean.iou) for mean in means)


def _by_decode(found: Diagnosis) -> dict[str, AveragePrecision]:
    masks = {decode.tool: found.precision[name] for name, decode in AP_PROTOCOLS.items()}
    return {**masks, "boxes": found.precision["boxes"]}


def _listed(numbers: Iterable[tuple[str, float]]) -> str:
    return "; ".join(f"{name} {'unknown' if np.isnan(value) else f'{value:.3f}'}" for name, value in numbers) + "."
