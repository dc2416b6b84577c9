"""A comparison of two models in plain words."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import numpy as np

from maskprism._common.text import brief, counted, percent, rounded, signed
from maskprism.analysis.comparison.part_swaps import PARTS

if TYPE_CHECKING:
    from maskprism.analysis.comparison.report import Comparison, Tolerance
    from maskprism.models import ModelSpec

_NAMED = 3
_ROUNDING = 1e-4


def sentences(comparison: Comparison, tolerance: Tolerance | None = None) -> list[str]:
    """Return what was compared, what differs, and which part is responsible.

    With the verdict if a tolerance is given.
    """
    found = [
        f"A is {_model(comparison.a)}; B is {_model(comparison.b)}.",
        *_causes(comparison),
        _canvas(comparison),
        _preprocessing(comparison),
        _instances(comparison),
    ]
    if len(comparison.matched):
        found += [_masks(comparison), _truth(comparison), _parts(comparison)]
    found += [_equal(comparison), *(comparison.relation.sentences() if comparison.relation.same_order else ())]
    found += [_prototypes(comparison), _letterbox(comparison)]
    if comparison.failed:
        found.append(f"Left out: {_left_out(comparison)}.")
    if tolerance is not None:
        verdict = comparison.verdict(tolerance)
        found += [
            f"{str(check)[:1].upper()}{str(check)[1:]}." for check in verdict.checks if not check.holds(check.value)
        ]
        found.append(f"{verdict}.")
    return [sentence for sentence in found if sentence]


def _left_out(comparison: Comparison) -> str:
    unread = len(comparison.failed) - len(comparison.failed_in)
    causes = (
        (unread, "that cannot be read"),
        (len(comparison.failed_in), "on which a model fails"),
    )
    return ", ".join(f"{counted(count, 'image')} {why}" for count, why in causes if count)


def summary_of(comparison: Comparison, tolerance: Tolerance | None = None) -> str:
    """Return the `sentences`, one per line."""
    return "\n".join(sentences(comparison, tolerance))


def versus(comparison: Comparison) -> str:
    """Return which models were compared, for titles; long names are cut in the middle."""
    a, b = (f"{brief(spec.name)} ({spec.runtime})" for spec in (comparison.a, comparison.b))
    return f"A: {a}, B: {b}"


def _causes(comparison: Comparison) -> list[str]:
    """Return the causes that were recognised, the first one marked."""
    first, *others = [one.sentence for one in comparison.causes] or [""]
    return [first and f"Most likely cause: {first}", *others]


def _model(spec: ModelSpec) -> str:
    return f"{spec.name} ({spec.runtime})"


def _canvas(comparison: Comparison) -> str:
    images = counted(comparison.images, "image")
    if not comparison.same_canvas:
        sides = " and ".join(f"{spec.input_hw[1]} x {spec.input_hw[0]}" for spec in (comparison.a, comparison.b))
        return (
            f"{images}, on different canvases ({sides}; neither model takes the other's): "
            "what follows is the canvas and the model together."
        )
    if comparison.forced is None:
        return f"{images}, both models on the same canvas."
    free = comparison.a if comparison.forced == "A" else comparison.b
    other = comparison.b if comparison.forced == "A" else comparison.a
    habit = "which by itself cuts a rectangle around each image, " if free.rectangular else ""
    side = f"{other.input_hw[1]} x {other.input_hw[0]}"
    return f"{images}, both on the same canvas: {comparison.forced}, {habit}was given the {side} of the other."


def _instances(comparison: Comparison) -> str:
    matched, changed = comparison.count("matched"), comparison.count("class changed")
    text = (
        f"{counted(matched, 'instance')} found by both, {comparison.count('only in A')} only by A, "
        f"{comparison.count('only in B')} only by B, {changed} with another class."
    )
    if matched:
        drifts = np.abs(comparison.score_drifts)
        text += f" Scores differ by {_small(drifts.mean())} on average, {_small(drifts.max())} at most."
    return text


def _preprocessing(comparison: Comparison) -> str:
    a, b = (asdict(replace(spec.preprocessing, name="")) for spec in (comparison.a, comparison.b))
    other = [f"{name} is {b[name]} in B and {a[name]} in A" for name in a if a[name] != b[name]]
    return f"Images are prepared in another way: {', '.join(other)}." if other else ""


def _equal(comparison: Comparison) -> str:
    """Return what is equal, where something is not."""
    equal = comparison.relation.equal
    parts = ("scores", "boxes", "coefficients", "prototypes")
    if not equal or set(parts) <= equal:
        return ""
    return f"Equal up to rounding in both: {', '.join(part for part in parts if part in equal)}."


def _masks(comparison: Comparison) -> str:
    ious = comparison.ious
    if ious.min() == 1:
        return "All masks are equal to the last pixel."
    equal = int(np.count_nonzero(ious == 1))
    return (
        f"Masks differ by {percent(1 - comparison.mean_iou)} on average (IoU: mean {rounded(ious.mean(), 4)}, median "
        f"{rounded(float(np.median(ious)), 4)}, worst {rounded(ious.min(), 4)}); {equal} of {len(ious)} are equal to "
        "the last pixel."
    )


def _truth(comparison: Comparison) -> str:
    gains = comparison.gains
    if gains is None:
        return ""
    change, better = gains.change, int(np.count_nonzero(gains.after > gains.before))
    worse = int(np.count_nonzero(gains.after < gains.before))
    verdict = "B is better" if change.gain.low > 0 else "B is worse" if change.gain.high < 0 else "That may be chance"
    sizes = ", ".join(f"{one.group} {signed(one.gain.mean)}" for one in gains.by_size())
    return (
        f"Against the ground truth, the mean mask IoU of {counted(change.instances, 'pair')} goes from "
        f"{change.before:.4f} in A to {change.after:.4f} in B: {change.gain} (95 %, bootstrap over images). {verdict}. "
        f"{better} are better in B, {worse} worse; by size: {sizes}."
    )


def _parts(comparison: Comparison) -> str:
    total = 1 - comparison.mean_iou
    if total < _ROUNDING:
        return ""
    shares = comparison.shares
    order = sorted(PARTS, key=lambda part: -shares[part])
    text = "Of that, " + ", ".join(f"{percent(shares[part] / total)} is in the {part}" for part in order) + "."
    if comparison.drift is not None and comparison.drift.flipped_cells and not comparison.before_head:
        blame = comparison.drift.blame
        worst = [k for k in comparison.drift.worst()[:_NAMED] if blame[k] > 0]
        named = ", ".join(f"{k} ({percent(float(blame[k]))})" for k in worst)
        text += f" Worst terms (coefficient times prototype), by their share of the change where pixels flip: {named}."
    return text


def _prototypes(comparison: Comparison) -> str:
    similarity = comparison.similarity
    relation = comparison.relation
    moved = (relation.prototype_order, relation.coefficient_order, relation.change) != (None, None, None)
    if moved or (comparison.input_fault is not None and not similarity.shared):
        return ""  # how the prototypes relate has been reported
    if similarity.shared:
        errors = similarity.errors
        worst = int(np.argmax(errors))
        if errors[worst] < _ROUNDING:
            return "The prototypes are the same up to rounding."
        return (
            f"The prototypes mean the same in both: they differ by {percent(float(np.median(errors)))} of their spread "
            f"(median), prototype {worst} by most ({percent(float(errors[worst]))}). CKA {rounded(similarity.cka, 4)}, "
            f"largest principal angle {similarity.angles_deg.max(initial=0):.1f}°."
        )
    correlation = [abs(similarity.correlation[a, b]) for a, b in similarity.pairs]
    median = f"{np.median(correlation):.2f}" if correlation else "undefined"
    a_by_b, b_by_a = similarity.explained
    return (
        f"The models have prototypes of their own: matched one to one, |correlation| is {median} (median); A's can "
        f"draw {percent(b_by_a)} of what B's show, B's {percent(a_by_b)} of what A's show; CKA "
        f"{rounded(similarity.cka, 2)}. "
        + (
            "Coefficients are equal, so they were exchanged unchanged."
            if comparison.relation.coefficients_equal
            else "Coefficients were translated by least squares before they were exchanged."
        )
    )


def _letterbox(comparison: Comparison) -> str:
    share, own = comparison.letterbox_share, comparison.own_iou
    if share is None or own is None:
        return ""
    text = (
        f"Each on its own canvas, masks differ by {percent(1 - own)}: {percent(share)} of that is the letterbox, "
        f"not the model"
    )
    return f"{text}. There, {counted(comparison.own_unmatched or 0, 'instance')} of A and B are unmatched."


def _small(value: float) -> str:
    """Four decimals, or the magnitude of a smaller number."""
    return f"{value:.4f}" if value == 0 or value >= 0.0001 else f"{value:.0e}"
