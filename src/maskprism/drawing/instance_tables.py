"""Findings about a mask as rows of text, for the terminal and for CSV files; printed elsewhere."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from maskprism.analysis.instance.prototype_roles import ROLES
from maskprism.analysis.instance.subset_masks import METRIC_NAMES
from maskprism.drawing.sheets import instance_title, signed
from maskprism.drawing.text_tables import MOST_ROWS, TextTable

if TYPE_CHECKING:
    from jaxtyping import Float64

    from maskprism.analysis.instance.attribution import Attribution
    from maskprism.analysis.instance.prototype_roles import RoleOrder, Roles
    from maskprism.analysis.instance.regions import Blame, PixelQuery
    from maskprism.core.prediction import Instance
    from maskprism.drawing.text_tables import Rows


def roles_table(
    instance: Instance, found: Roles, without: Float64[np.ndarray, " K"], *, order: RoleOrder = "effect"
) -> TextTable:
    """Return what each prototype does, in order of effect unless another is given; the IoU of the mask without it."""
    counts = Counter(found.role)
    most = set(found.order()[:MOST_ROWS].tolist())
    rows = tuple(
        (
            str(k),
            "/".join(found.named[k]),
            *(_number(values[k]) for values in (found.weights, found.inside, found.ring, found.edge)),
            _percent(found.share[k]),
            _number(found.bias[k]),
            f"{found.spread[k]:.2f}",
            f"{without[k]:.3f}",
        )
        for k in found.order(order)
        if k in most
    )
    others = found.order()[MOST_ROWS:]
    inside, ring, edge, bias = (
        _number(values[others].sum()) for values in (found.inside, found.ring, found.edge, found.bias)
    )
    share = _percent(found.share[others].sum())
    rest = (f"{len(others)} others", "", "", inside, ring, edge, share, bias, "", "")
    return TextTable(
        title=f"Roles: {instance_title(instance)}",
        headers=("k", "role", "weight", "inside", "ring", "edge", "share", "bias", "spread", "IoU without"),
        rows=rows,
        note=", ".join(f"{counts[role]} {role}" for role in ROLES if counts[role]),
        totals=(rest,) if len(others) else (),
    )


def role_rows(found: Roles, without: Float64[np.ndarray, " K"]) -> Rows:
    """Return the roles with all digits, for a CSV file."""
    return [row | {"iou_without": float(without[int(row["prototype"])])} for row in found.rows()]


def pixel_table(instance: Instance, query: PixelQuery) -> TextTable:
    """Return what each prototype contributes to one pixel, and the change of its coefficient that would flip it."""
    others = query.order[MOST_ROWS:]
    sums = (("level", query.level), ("crop", query.crop), ("logit", query.logit))
    rest = ((f"{len(others)} others", _number(query.contributions[others].sum()), ""),) if len(others) else ()
    where = "in the mask" if query.in_mask else "not in the mask"
    verdict = "" if query.in_crop else "; it lies outside the crop, so no coefficient can change that"
    if query.easiest is not None:
        verdict = f"; coefficient {query.easiest} changed by {_number(query.margins[query.easiest])} would flip it"
    return TextTable(
        title=f"Pixel {query.x},{query.y}: {instance_title(instance)}",
        headers=("k", "contribution", "change that flips it"),
        rows=tuple(
            (str(k), _number(query.contributions[k]), _number(query.margins[k])) for k in query.order[:MOST_ROWS]
        ),
        note=where + verdict,
        totals=rest + tuple((name, _number(value), "") for name, value in sums if value or name == "logit"),
    )


def blame_table(instance: Instance, blame: Blame) -> TextTable:
    """Return which prototypes are responsible for a region, and how that differs from what they do elsewhere."""
    shares = blame.shares
    rows = tuple(
        (
            str(k),
            _number(blame.contributions[k]),
            _percent(shares[k]),
            _number(blame.inside[k]),
            _number(blame.outside[k]),
            _number(blame.departures[k]),
        )
        for k in blame.order[:MOST_ROWS]
    )
    others = blame.order[MOST_ROWS:]
    sums = (values[others].sum() for values in (blame.inside, blame.outside))
    rest = (_number(blame.contributions[others].sum()), _percent(shares[others].sum()), *map(_number, sums), "")
    note = f"{blame.pixels} pixels" + (f", {blame.cropped} more outside the crop" if blame.cropped else "")
    if blame.pixels:
        note += f", mean logit {_number(blame.logit)}"
        note += "" if blame.kind == "region" else f"; {most_unusual(blame)}"
    return TextTable(
        title=f"{blame.kind.capitalize()}: {instance_title(instance)}",
        headers=("k", "in the region", "share of blame", "inside the mask", "rest of the box", "departure"),
        rows=rows if blame.pixels else (),
        note=note,
        totals=((f"{len(others)} others", *rest),) if len(others) and blame.pixels else (),
    )


def most_unusual(blame: Blame, count: int = 3) -> str:
    """List the prototypes that depart most from what they do elsewhere."""
    named = ", ".join(f"{k} ({_number(blame.departures[k])})" for k in blame.unusual[:count])
    return f"furthest from what they do elsewhere: {named}"


def attribution_table(instance: Instance, found: Attribution) -> TextTable:
    """Return what the mask owes to each prototype: Shapley values with standard errors, knock-outs, sensitivity."""
    shapley, pull = found.shapley, found.sensitivity
    metric = METRIC_NAMES[shapley.metric]
    chosen = set(found.smallest.members.tolist()) if found.smallest.exists else set()
    rows = tuple(
        (
            str(k),
            signed(shapley.values[k]),
            f"{2 * shapley.standard_errors[k]:.2f}",
            f"{found.knock_out[k]:.3f}",
            f"{pull.elasticity[k]:+.4f}".replace("-", "−"),
            "yes" if k in chosen else "",
        )
        for k in shapley.order()[:MOST_ROWS]
    )
    others = shapley.order()[MOST_ROWS:]
    which = "in the smallest set" if found.smallest.proven else "in a small set"
    enough = f"for an IoU of {found.smallest.threshold:g}: {found.smallest}"
    return TextTable(
        title=f"Which prototypes the mask needs: {instance_title(instance)}, against {found.against}",
        headers=(
            "k",
            f"Shapley ({metric})",
            "± 2 SE",
            "IoU without",
            "sensitivity",
            which,
        ),
        rows=rows,
        note=f"{enough}; {metric} of all {shapley.full:.3f}; {shapley.permutations} orders, seed {shapley.seed}",
        totals=((f"{len(others)} others", signed(shapley.values[others].sum()), *[""] * 4),) if len(others) else (),
    )


def attribution_rows(found: Attribution) -> Rows:
    """Return the attribution with all digits, for a CSV file."""
    places = {by: np.argsort(path.order) for by, path in found.paths.items()}
    rows: list[dict[str, int | float | str]] = []
    for k in found.shapley.order():
        row: dict[str, int | float | str] = {
            "prototype": int(k),
            "shapley": float(found.shapley.values[k]),
            "shapley_standard_error": float(found.shapley.standard_errors[k]),
            "iou_without": float(found.knock_out[k]),
            "gradient": float(found.sensitivity.gradient[k]),
            "elasticity": float(found.sensitivity.elasticity[k]),
        }
        rows.append(row | {f"place_by_{by}": int(place[k]) for by, place in places.items()})
    return rows


def _number(value: float) -> str:
    if np.isnan(value):
        return "–"
    return "∞" if np.isinf(value) else signed(value)


def _percent(value: float) -> str:
    return f"{round(100 * float(value)) + 0} %".replace("-", "−") if np.isfinite(value) else "–"
