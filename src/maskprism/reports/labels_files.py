"""The files of `maskprism labels`: a table with a row for every label, and the worst of them in words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from maskprism._common.files import reporting_write_errors, write_atomically
from maskprism._common.text import counted, json_text
from maskprism.analysis.labels.suspicion import LEVELS, MIN_CALIBRATED

if TYPE_CHECKING:
    import pyarrow as pa

    from maskprism.analysis.labels.held_out import SplitComparison
    from maskprism.analysis.labels.study import JudgedLabel, LabelReport

TABLE = "labels.parquet"


def write_labels(report: LabelReport, out: Path) -> dict[Path, str]:
    """Write the table.

    Parameters
    ----------
    report
        The judged labels.
    out
        A folder that is there.

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

    path = out / TABLE
    table = label_table(report.rows)
    with reporting_write_errors(path):
        write_atomically(path, lambda file: pq.write_table(table, file))
    return {path: "a row for every label and for every confident detection without a label, the most suspicious first"}


def label_table(rows: Sequence[JudgedLabel]) -> pa.Table:
    """Make the table of judged labels.

    Parameters
    ----------
    rows
        The labels, in the order of the table.

    Returns
    -------
    pyarrow.Table
        `image`, `label_id` (annotation id of a COCO json, or line of a label file from 0; null for a detection;
        text where an id is text), `class_id`, `class_name`, `x1`, `y1`, `x2`, `y2` in image pixels, `kind`,
        `suspicion` (0 to 1, null where a label cannot be judged), `reason`, `suggestion` (COCO RLE as JSON, null for
        none), `suggested_by`, `instance`, and one column for each feature.
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
    said = [f"{counted(report.n_labels, 'label')} on {counted(report.n_images, 'image')}"]
    if suspicion.score == "learned":
        said.append(
            "suspicions are learned from corrupted copies of these labels: they tell "
            f"{suspicion.auroc:.1%} of pairs of a given and a corrupted label apart (1 - mask IoU: "
            f"{suspicion.simple_auroc:.1%}), on images that were not learned from"
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
    shares = [f"{suspicion.corrupted_share[level]:.0%} from {level:g} on" for level in LEVELS]
    said.append("of as many given as corrupted labels, corrupted are: " + ", ".join(shares))
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
            f"whether the model remembers these labels from training cannot be told ({why}); a model agrees with "
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
