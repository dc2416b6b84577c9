"""Why two models differ: the causes that were recognised, the one that explains most first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from maskprism._common.text import counted, percent
from maskprism.io.class_names import placeholder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from maskprism.analysis.comparison.report import Comparison

CauseName = Literal[
    "weights",
    "input",
    "grid",
    "order",
    "prototypes",
    "int8",
    "boxes",
    "scores",
    "classes",
    "rule",
    "level",
    "precision",
]
_NAMED_CLASSES = 8
_FEW_LAYERS = 0.25
"""More layers than this share that differ, and are not rounded, are another training."""


class Cause(NamedTuple):
    """What makes B differ from A, and a sentence that says how that is known."""

    name: CauseName
    sentence: str


def causes_of(comparison: Comparison) -> list[Cause]:
    """Return what was recognised. Each is a test of its own, so several may hold; the earlier explains the later.

    Weights come first, because a file is read and not guessed; then faults of the input, which change everything
    behind it; then those of single outputs; last what only narrows the search.
    """
    return [cause for rule in _RULES for cause in rule(comparison)]


def _weights(comparison: Comparison) -> Iterator[Cause]:
    weights = comparison.weights
    if weights is None or not weights.changed:
        return
    rounded, changed = weights.rounded, weights.changed
    if not rounded and len(changed) > max(1, _FEW_LAYERS * weights.count):
        return
    shown = sorted(rounded or changed, key=lambda one: -one.change)
    first = shown[0]
    few = f"rounded to {first.bits} bits" if first.bits is not None else "other numbers"
    others = f", and {counted(len(shown) - 1, 'layer')} more likewise" if len(shown) > 1 else ""
    yield Cause(
        "weights",
        f"Of {weights.count} tensors of weights {len(changed)} differ{'s' if len(changed) == 1 else ''} between the "
        f"files: {first.name} is {few} in B, {percent(first.change)} of its size away from A's{others}. Keep "
        f"{'it' if len(shown) == 1 else 'them'} in floating point, or in 16 bits.",
    )


def _input(comparison: Comparison) -> Iterator[Cause]:
    if comparison.before_head and comparison.input_fault is not None:
        yield Cause("input", f"{_all_differ(comparison)} {comparison.input_fault.sentence()}".strip())


def _grid(comparison: Comparison) -> Iterator[Cause]:
    a, b = (spec.grid_hw for spec in (comparison.a, comparison.b))
    if comparison.same_canvas and comparison.a.stride != comparison.b.stride:
        coarser = "coarser" if comparison.b.stride > comparison.a.stride else "finer"
        yield Cause(
            "grid",
            f"B's prototypes have a {coarser} grid: {b[0]} x {b[1]}, {comparison.b.stride} pixels of the input a cell; "
            f"A's have {a[0]} x {a[1]}, {comparison.a.stride} pixels a cell.",
        )


def _outputs(comparison: Comparison) -> Iterator[Cause]:
    relation = comparison.relation
    if relation.same_order:  # masks stay the same
        return
    names: tuple[tuple[CauseName, bool], ...] = (
        ("order", relation.prototype_order is not None),
        ("order", relation.coefficient_order is not None),
        ("prototypes", relation.change is not None),
        ("int8", relation.shared_step is not None),
        ("boxes", relation.box_scale is not None),
        ("scores", relation.scores is not None),
    )
    recognised = (name for name, holds in names if holds)
    yield from (Cause(name, text) for name, text in zip(recognised, relation.sentences(), strict=True))


def _classes(comparison: Comparison) -> Iterator[Cause]:
    moved = comparison.moved_classes
    if not moved:
        return
    names_a, names_b = comparison.a.names, comparison.b.names
    shown = [
        f"{names_a.get(a, placeholder(a))} of A is {names_b.get(b, placeholder(b))} of B"
        for a, b in list(moved.items())[:_NAMED_CLASSES]
    ]
    more = f", and {len(moved) - len(shown)} more" if len(moved) > len(shown) else ""
    same_ids = all(a == b for a, b in moved.items())
    why = " The ids are the same, only the names are in another order." if same_ids else ""
    yield Cause(
        "classes",
        f"Classes are exchanged one to one: {', '.join(shown)}{more}.{why} Instances at the same positions show it, "
        "and they are paired accordingly.",
    )


def _rule(comparison: Comparison) -> Iterator[Cause]:
    a, b = comparison.a.rule, comparison.b.rule
    if comparison.rule_loss:
        yield Cause(
            "rule",
            f"The mask post-processing rules differ, {a.name} in A and {b.name} in B: by that alone B's masks change "
            f"by {percent(comparison.rule_loss)} (1 - IoU). All other numbers are of both under the rule of A.",
        )


def _level(comparison: Comparison) -> Iterator[Cause]:
    damage = comparison.damaged_level if len(comparison.matched) else None
    if damage is not None:
        yield Cause(
            "level",
            f"Only instances of pyramid level {damage.level} (0 is the finest) differ: {damage.differing} of them; the "
            f"{damage.others} of other levels are equal.",
        )


def _precision(comparison: Comparison) -> Iterator[Cause]:
    if comparison.before_head and comparison.input_fault is None:
        yield Cause(
            "precision",
            f"{_all_differ(comparison)} None of the usual faults of an input gives what B says: look at the backbone, "
            "and at the precision of the whole model (quantisation, half precision).",
        )


def _all_differ(comparison: Comparison) -> str:
    if not comparison.relation.all_differ:
        return ""
    count = comparison.similarity.count_a
    return f"Scores, boxes, coefficients and all {count} prototypes differ: the difference begins before the head."


_RULES = (_weights, _input, _grid, _outputs, _classes, _rule, _level, _precision)
