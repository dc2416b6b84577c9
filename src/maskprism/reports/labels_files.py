"""The files of `maskprism labels`: the page, a table with a row for every label, the manifest; and a few sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from maskprism._common.files import reporting_write_errors, write_atomically
from maskprism._common.text import counted, json_text
from maskprism.analysis.labels.suspicion import LEVELS, MIN_CALIBRATED, SUSPICIOUS
from maskprism.drawing.label_crops import crop_sheet
from maskprism.reports.labels import label_cards, labels_page, verdict_of
from maskprism.reports.manifest import Number, PictureFile, ResultManifest, TableFile, withdraw_manifest, write_manifest
from maskprism.tables.judged_labels import LABELS_TABLE

if TYPE_CHECKING:
    import pyarrow as pa

    from maskprism.analysis.labels.held_out import SplitComparison
    from maskprism.analysis.labels.study import JudgedLabel, LabelReport
    from maskprism.datasets import Dataset
    from maskprism.reports.labels import TwinImages

PAGE = "labels.html"
PICTURE = "worst.png"
_PICTURED = 12
_LEGEND = "orange outline: label, blue: best prediction, yellow: suggestion"


def write_labels(
    report: LabelReport,
    dataset: Dataset,
    out: Path,
    *,
    models: Sequence[str],
    worst: int,
    notes: Sequence[str],
    splits: Mapping[str, str] | None = None,
    twins: Sequence[TwinImages] = (),
) -> dict[Path, str]:
    """Write the page, the table and the manifest.

    Parameters
    ----------
    report
        The judged labels.
    dataset
        The images with their labels, with the class ids of the model.
    out
        A folder that is there.
    models
        The names of the models that judged them.
    worst
        How many suspicious labels the page shows at most.
    notes
        What `sentences` says, and whatever else there is to know of how labels were judged.
    splits
        The split of each image by its name. Default: that of the data set.
    twins
        Images that are in two splits, see `labels_page`.

    Returns
    -------
    dict
        What each written file holds, by its path.

    Raises
    ------
    MaskprismError
        If a file cannot be written.
    """
    import pyarrow.parquet as pq

    withdraw_manifest(out, "labels")
    path = out / LABELS_TABLE
    splits = splits or {}
    table = label_table(report.rows, splits)
    with reporting_write_errors(path):
        write_atomically(path, lambda file: pq.write_table(table, file))
    what = "a row for every label and for every confident detection without a label, the most suspicious first"
    suspicious = [row for row in report.rows if row.suspicion >= SUSPICIOUS]
    cards = label_cards(suspicious[:worst], dataset)
    shown = write_atomically(out / PAGE, labels_page(report, dataset, cards, notes, splits, twins))
    crops = [card.crop for card in cards if card.crop is not None][:_PICTURED]
    pictures = {}
    if crops:
        sheet = cv2.imencode(".png", crop_sheet(crops, side=240, across=4))[1].tobytes()
        pictures[write_atomically(out / PICTURE, sheet)] = f"the most suspicious labels: {_LEGEND}"
    else:
        with reporting_write_errors(out / PICTURE):  # of an earlier run
            (out / PICTURE).unlink(missing_ok=True)
    manifest = ResultManifest(
        command="labels",
        about="which labels are probably wrong, and how",
        page=PAGE,
        models=list(models),
        numbers=[
            Number("images", report.n_images, ","),
            Number("labels", report.n_labels, ","),
            Number("suspicious labels and detections without a label", len(suspicious), ","),
            Number("AUROC of corrupted copies", report.suspicion.auroc),
        ],
        findings=list(notes),
        pictures=[PictureFile(path.name, what) for path, what in pictures.items()],
        tables=[TableFile(LABELS_TABLE, what, order="-suspicion")],
        verdict=verdict_of(report),
    )
    return {
        shown: "the most suspicious labels, to look at and decide on",
        path: what,
        **pictures,
        **write_manifest(out, manifest),
    }


def label_table(rows: Sequence[JudgedLabel], splits: Mapping[str, str]) -> pa.Table:
    """Make the table of judged labels.

    Parameters
    ----------
    rows
        The labels, in the order of the table.
    splits
        The split of each image by its name.

    Returns
    -------
    pyarrow.Table
        `image`, `label_id` (annotation id of a COCO json, or line of a label file from 0; null for a detection;
        text where an id is text), `split` (null for a data set without splits), `class_id`, `class_name`, `x1`, `y1`,
        `x2`, `y2` in image pixels, `kind`, `suspicion` (0 to 1, null where a label cannot be judged), `reason`,
        `suggestion` (COCO RLE as JSON, null for none), `suggested_by`, `instance`, and one column for each feature.
    """
    import pyarrow as pa

    ids: list[Any] = [row.label_id for row in rows]
    if any(isinstance(label_id, str) for label_id in ids):
        ids = [None if label_id is None else str(label_id) for label_id in ids]
    names = next((tuple(row.features) for row in rows if row.features), ())
    boxes = np.array([row.box for row in rows], dtype=np.float32).reshape(-1, 4)
    columns: dict[str, Any] = {
        "image": pa.array([row.image for row in rows], pa.string()),
        "label_id": pa.array(ids, pa.string() if any(isinstance(one, str) for one in ids) else pa.int64()),
        "split": pa.array([splits.get(row.image) or None for row in rows], pa.string()),
        "class_id": pa.array([row.class_id for row in rows], pa.int32()),
        "class_name": pa.array([row.class_name for row in rows], pa.string()),
        **{name: boxes[:, place] for place, name in enumerate(("x1", "y1", "x2", "y2"))},
        "kind": pa.array([row.kind for row in rows], pa.string()),
        "suspicion": pa.array([None if np.isnan(row.suspicion) else row.suspicion for row in rows], pa.float64()),
        "reason": pa.array([row.reason for row in rows], pa.string()),
        "suggestion": pa.array(
            [None if row.suggestion is None else json_text(row.suggestion) for row in rows], pa.string()
        ),
        "suggested_by": pa.array([row.suggested_by for row in rows], pa.string()),
        "instance": pa.array([row.instance for row in rows], pa.int32()),
    }
    for name in names:
        columns[name] = pa.array([row.features.get(name) for row in rows], pa.float32())
    return pa.table(columns)


def sentences(report: LabelReport) -> list[str]:
    """Say how labels were judged and how far suspicions can be trusted."""
    suspicion = report.suspicion
    unreadable = sum(row.kind == "unreadable" for row in report.rows)
    said = [f"{counted(report.n_labels, 'label')} on {counted(report.n_images, 'image')}"]
    if unreadable:
        said.append(f"warning: {counted(unreadable, 'label')} cannot be read; they are listed with the reason")
    if suspicion.score == "learned":
        said.append(
            "suspicions are learned from corrupted copies of these labels. On images that were not learned from, the "
            f"corrupted label of a pair is the more suspicious in {suspicion.auroc:.1%} of pairs "
            f"(by 1 - mask IoU: {suspicion.simple_auroc:.1%})"
        )
    else:
        said.append(
            "suspicions are 1 - mask IoU with the best detection: a score learned from corrupted copies is not surely "
            "better here"
        )
    if not suspicion.calibrated:
        said.append(
            f"suspicions are not calibrated: that takes {MIN_CALIBRATED} images, and here are {suspicion.n_images}"
        )
        return said
    shares = [f"{suspicion.corrupted_share[level]:.0%} of those from {level:g} on" for level in LEVELS]
    said.append("if half of the labels were corrupted, these would be: " + ", ".join(shares))
    return said


def split_sentence(split: str | None, comparison: SplitComparison | None, *, n_folds: int = 0) -> str:
    """Say whether the model may have been trained on the labels that it judges, and what that does.

    Parameters
    ----------
    split
        The split that was judged; None where the data set is one.
    comparison
        Of the judged split with another one, where that was possible.
    n_folds
        How many models of folds judged, each the labels that it was not trained on.
    """
    if n_folds:
        return f"labels are judged by {counted(n_folds, 'model')}, each on images that it was not trained on"
    if split in ("val", "test"):
        return f"this takes for granted that the model was not trained on {split}"
    if comparison is None or comparison.remembered is None:
        why = "there is no other split to compare with" if comparison is None else "there are too few images to compare"
        return (
            f"it is not known whether the model remembers these labels from training ({why}); a model agrees with "
            "labels that it was trained on, wrong ones too: train models on folds and give them with --folds"
        )
    judged, other = comparison.judged, comparison.other
    differences = f"mask IoU {comparison.mask_iou}; recall {comparison.recall}"
    if comparison.remembered:
        return (
            f"warning: labels of {judged} agree better with the model than those of {other} ({differences}): it "
            f"remembers labels that it was trained on, wrong ones too, or the images of {judged} are easier; train "
            "models on folds and give them with --folds"
        )
    return f"labels of {judged} are not shown to agree better with the model than those of {other} ({differences})"
