"""What comparing two networks found, as files."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskprism._common.files import reporting_write_errors, write_atomically
from maskprism._common.spreadsheet import guarded
from maskprism.drawing import comparison as figures
from maskprism.drawing import raster
from maskprism.drawing.figures import save
from maskprism.drawing.gains import groups_figure
from maskprism.drawing.pairs import changed_pairs, worst_pairs

if TYPE_CHECKING:
    from maskprism.analysis.comparison.report import Comparison, Tolerance


def write_comparison(
    comparison: Comparison, out: str | os.PathLike[str], tolerance: Tolerance | None = None
) -> dict[Path, str]:
    """Write tables, numbers and figures into a folder; gives each file with what it shows.

    Raises MaskprismError if that fails.
    """
    import pyarrow as pa
    import pyarrow.csv as pa_csv

    folder = Path(out)
    drawn = {
        "parts.png": (figures.parts_figure(comparison), "what the difference of masks is made of"),
        "agreement.png": (figures.agreement_figure(comparison), "mask IoU and scores of all instances"),
        "correlation.png": (figures.correlation_figure(comparison), "which prototype of B is which of A"),
        "angles.png": (figures.angles_figure(comparison), "how much of what A's prototypes can draw B's can"),
    }
    if comparison.gains is not None:
        drawn["truth.png"] = (
            groups_figure(comparison.gains),
            "where B gains against the ground truth, and where not",
        )
    if comparison.drift is not None:
        drawn["drift.png"] = (
            figures.drift_figure(comparison),
            "which prototypes changed the logits, and flipped pixels",
        )
    written: dict[Path, str] = {}
    with reporting_write_errors(folder):
        for name in ("drift.png", "worst.png", "truth.png", "changed.png"):  # of an earlier run; not every one has them
            (folder / name).unlink(missing_ok=True)
    text = json.dumps(comparison.as_dict(tolerance), indent=2, allow_nan=False) + "\n"
    written[write_atomically(folder / "comparison.json", text)] = "all numbers, and the verdict"
    prototypes = pa.table(_prototype_columns(comparison))
    for name, rows, what in (
        ("instances.csv", guarded(comparison.instances), "one row per instance"),
        ("prototypes.csv", prototypes, "one row per prototype of A"),
    ):
        written[write_atomically(folder / name, partial(pa_csv.write_csv, rows))] = what
    for name, (figure, what) in drawn.items():
        save(figure, folder / name, dpi=130)
        written[folder / name] = what
    if comparison.worst:
        written[raster.save(worst_pairs(comparison), folder / "worst.png")] = "the pairs that differ most, side by side"
    if comparison.gained or comparison.lost:
        what = "the pairs that gain and lose most against the ground truth"
        written[raster.save(changed_pairs(comparison), folder / "changed.png")] = what
    return written


def _prototype_columns(comparison: Comparison) -> dict[str, Any]:
    """One row per prototype of A: its partner in B, their correlation, and how its term changed."""
    similarity = comparison.similarity
    partner = dict(similarity.pairs.tolist())
    k = range(similarity.count_a)
    columns: dict[str, Any] = {
        "prototype_a": list(k),
        "prototype_b": [partner.get(one) for one in k],
        "correlation": [float(similarity.correlation[one, partner[one]]) if one in partner else None for one in k],
    }
    if comparison.drift is not None:
        columns["error"] = similarity.errors
        columns |= comparison.drift.as_columns()
    return columns
