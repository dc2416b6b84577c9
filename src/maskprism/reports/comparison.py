"""What comparing two models found, as files."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskprism._common.files import reporting_write_errors, write_atomically
from maskprism._common.spreadsheet import guarded
from maskprism._common.text import json_text
from maskprism.drawing import comparison as figures
from maskprism.drawing import raster
from maskprism.drawing.figures import save
from maskprism.drawing.gains import groups_figure
from maskprism.drawing.pairs import changed_pairs, worst_pairs
from maskprism.reports.manifest import (
    Number,
    PictureFile,
    ResultManifest,
    TableFile,
    withdraw_manifest,
    write_manifest,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from maskprism.analysis.comparison.report import Comparison, Tolerance

_TABLES = (
    TableFile(
        "instances.csv",
        "one row per instance of either model: its match, how both masks differ, and how much of that each "
        "part of the model adds; masks that differ most come first.",
        "mask_iou",
        {
            **{
                f"{what}_{side}": f"{what} in {side.upper()}"
                for what in ("instance", "class", "level", "score")
                for side in "ab"
            },
            **{f"truth_iou_{side}": f"IoU of {side.upper()} with the ground truth" for side in "ab"},
            **{part: f"lost in {part}" for part in ("coefficients", "prototypes", "boxes")},
            "path_coefficients": "one path: coefficients",
            "path_prototypes": "then prototypes",
            "path_boxes": "then boxes",
            "own_canvas_iou": "IoU on a canvas of its own",
            "truth_area": "area of the ground truth",
            "box_iou": "box IoU",
            "mask_iou": "mask IoU",
        },
    ),
    TableFile(
        "prototypes.csv",
        "one row per prototype of A: the one of B that is most like it.",
        "-correlation",
        {f"prototype_{side}": f"prototype in {side.upper()}" for side in "ab"},
    ),
)


def write_comparison(
    comparison: Comparison, out: str | os.PathLike[str], tolerance: Tolerance | None = None
) -> dict[Path, str]:
    """Write tables, numbers and figures into a folder; gives each file with what it shows.

    Raises
    ------
    MaskprismError
        If that fails.
    """
    import pyarrow as pa
    import pyarrow.csv as pa_csv

    folder = Path(out)
    drawn: dict[str, tuple[Figure, str]] = {
        "parts.png": (figures.parts_figure(comparison), "what each part of the model adds to the difference of masks"),
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
        what = "which prototypes changed the logits, and flipped pixels"
        drawn["drift.png"] = (figures.drift_figure(comparison), what)
    written: dict[Path, str] = {}
    withdraw_manifest(folder, "compare")
    with reporting_write_errors(folder):
        for name in ("drift.png", "worst.png", "truth.png", "changed.png"):  # of an earlier run; not every one has them
            (folder / name).unlink(missing_ok=True)
    numbers = comparison.as_dict(tolerance)
    text = json_text(numbers) + "\n"
    written[write_atomically(folder / "comparison.json", text)] = "all numbers, and the verdict"
    prototypes = pa.table(_prototype_columns(comparison))
    for table, rows in zip(_TABLES, (guarded(comparison.instances), prototypes), strict=True):
        written[write_atomically(folder / table.file, partial(pa_csv.write_csv, rows))] = table.caption.split(":")[0]
    for name, (figure, what) in drawn.items():
        save(figure, folder / name, dpi=130)
        written[folder / name] = what
    if comparison.worst:
        written[raster.save(worst_pairs(comparison), folder / "worst.png")] = "the pairs that differ most, side by side"
    if comparison.gained or comparison.lost:
        what = "the pairs that gain and lose most against the ground truth"
        written[raster.save(changed_pairs(comparison), folder / "changed.png")] = what
    pictures = [
        PictureFile(path.name, f"{what[0].upper()}{what[1:]}.", wide=path.stem in ("agreement", "worst", "changed"))
        for path, what in written.items()
        if path.suffix == ".png"
    ]
    manifest = _manifest(comparison, numbers, pictures, tolerance)
    written |= write_manifest(folder, manifest)
    return written


def _manifest(
    comparison: Comparison, numbers: dict[str, Any], pictures: list[PictureFile], tolerance: Tolerance | None
) -> ResultManifest:
    """Return what the index and the page show.

    Parameters
    ----------
    numbers
        Those of comparison.json.
    """
    ious, drifts, parts = (numbers[name] or {} for name in ("mask_iou", "score_drift", "parts"))
    responsible = comparison.responsible
    return ResultManifest(
        command="compare",
        about="how two models differ, and which part is responsible",
        models=[comparison.a.name, comparison.b.name],
        numbers=[
            Number("images", comparison.images, ","),
            Number("instances in both", len(comparison.matched), ","),
            Number("share of unmatched instances", numbers["unmatched_share"], ".1%"),
            Number("mean mask IoU", ious.get("mean")),
            Number("worst mask IoU", ious.get("worst")),
            Number("mean difference of scores", drifts.get("mean")),
            *(Number(f"IoU lost in {part}", parts.get(part)) for part in ("coefficients", "prototypes", "boxes")),
            Number("prototype similarity (CKA)", numbers["prototypes"]["cka"]),
        ],
        findings=[f"Most of the difference comes from the {responsible}."] if isinstance(responsible, str) else [],
        pictures=pictures,
        tables=[*_TABLES],
        verdict=None if tolerance is None else comparison.verdict(tolerance),
    )


def _prototype_columns(comparison: Comparison) -> dict[str, Any]:
    """One row per prototype of A: its best match in B, their correlation, and how its term changed."""
    similarity = comparison.similarity
    matched_with = dict(similarity.pairs.tolist())
    k = range(similarity.count_a)
    columns: dict[str, Any] = {
        "prototype_a": list(k),
        "prototype_b": [matched_with.get(one) for one in k],
        "correlation": [
            float(similarity.correlation[one, matched_with[one]]) if one in matched_with else None for one in k
        ],
    }
    if comparison.drift is not None:
        columns["error"] = similarity.errors
        columns |= comparison.drift.as_columns()
    return columns
