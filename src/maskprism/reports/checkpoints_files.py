"""A comparison of checkpoints as files: one table, one curve, and a manifest for the index."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskprism._common.files import write_atomically
from maskprism._common.spreadsheet import guarded
from maskprism.analysis.truth.error_budget import PARTS
from maskprism.drawing.checkpoints import checkpoints_figure
from maskprism.drawing.figures import png_bytes
from maskprism.reports.manifest import Number, PictureFile, ResultManifest, TableFile, withdraw_manifest, write_manifest

if TYPE_CHECKING:
    from maskprism.analysis.dataset.checkpoints import Checkpoints

TABLE, CURVE = "checkpoints.csv", "checkpoints.png"


def checkpoint_rows(found: Checkpoints) -> list[dict[str, Any]]:
    """Return one row of plain values per checkpoint; None for what does not exist."""
    rows = []
    for row, gap in zip(found.rows, found.ahead, strict=True):
        diagnosis = row.diagnosis
        masks, boxes = (diagnosis.intervals.precision[name] for name in ("predict", "boxes"))
        mean = diagnosis.budget.mean() if len(diagnosis.budget) else None
        rows.append(
            {
                "checkpoint": row.name,
                "epoch": row.epoch,
                "mask_ap": masks.mean,
                "mask_ap_low": masks.low,
                "mask_ap_high": masks.high,
                "mask_ap50": diagnosis.precision["predict"].ap50,
                "box_ap": boxes.mean,
                "box_ap_low": boxes.low,
                "box_ap_high": boxes.high,
                "behind_best": gap.mean,
                "behind_best_low": gap.low,
                "behind_best_high": gap.high,
                "found": len(diagnosis.budget),
                "missed": diagnosis.missed,
                "false_positives": diagnosis.false_positives,
                "mask_iou": None if mean is None else mean.iou,
                **{f"lost_in_{part}": None if mean is None else float(getattr(mean, part)) for part in PARTS},
            }
        )
    return [{name: None if value != value else value for name, value in row.items()} for row in rows]


def write_checkpoints(found: Checkpoints, folder: Path) -> dict[Path, str]:
    """Write the table and the curve into a folder; gives each file with what it holds.

    Raises
    ------
    MaskprismError
        If the folder cannot be written.
    """
    import pyarrow as pa
    import pyarrow.csv as pa_csv

    withdraw_manifest(folder, "diagnose")
    table = guarded(pa.Table.from_pylist(checkpoint_rows(found)))
    caption = "mask and box AP of every checkpoint on the same images, with 95 % intervals"
    written = {
        write_atomically(folder / TABLE, partial(pa_csv.write_csv, table)): "one row per checkpoint",
        write_atomically(folder / CURVE, png_bytes(checkpoints_figure(found))): caption,
    }
    best = found.rows[found.best]
    manifest = ResultManifest(
        command="diagnose",
        about="which checkpoint is best",
        models=[row.diagnosis.spec.name for row in found.rows],
        numbers=[
            Number("images", best.diagnosis.images, ","),
            Number("checkpoints", len(found.rows), ","),
            Number("highest mask AP", best.diagnosis.precision["predict"].ap),
        ],
        findings=found.sentences(),
        pictures=[PictureFile(CURVE, f"{caption[0].upper()}{caption[1:]}.")],
        tables=[TableFile(TABLE, "one row per checkpoint: AP, intervals, and where masks lose.", "-mask_ap")],
    )
    return written | write_manifest(folder, manifest)
