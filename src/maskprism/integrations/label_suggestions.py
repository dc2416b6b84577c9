"""Suggested masks as COCO annotations, which CVAT and Label Studio import."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from maskprism._common.files import write_atomically
from maskprism._common.text import json_text
from maskprism.analysis.labels.study import NEEDLESS
from maskprism.datasets.bitmap_outlines import border_rings
from maskprism.datasets.coco import RunLengths, bitmap_of
from maskprism.integrations.rings import joined_rings

if TYPE_CHECKING:
    from maskprism.analysis.labels.study import LabelReport

SUGGESTIONS = "suggestions.json"


def write_suggestions(report: LabelReport, out: Path) -> dict[Path, str]:
    """Write `suggestions.json`: an annotation for each suggested mask, with the reason as attributes.

    Labels that should not be there, such as duplicates, have none.

    Parameters
    ----------
    report
        The judged labels.
    out
        A folder that is there.

    Returns
    -------
    dict
        The file with what it holds.

    Raises
    ------
    MaskprismError
        If it cannot be written.
    """
    rows = [row for row in report.rows if row.suggestion is not None and row.kind not in NEEDLESS]
    images: dict[str, dict[str, Any]] = {}
    categories: dict[int, dict[str, Any]] = {}
    annotations = []
    for number, row in enumerate(rows, 1):
        assert row.suggestion is not None
        class_id = row.class_id if row.suggested_class is None else row.suggested_class
        height, width = row.suggestion["size"]
        image = images.setdefault(
            row.image, {"id": len(images) + 1, "file_name": row.image, "width": width, "height": height}
        )
        name = report.names.get(class_id, f"class{class_id}")
        categories.setdefault(class_id, {"id": class_id + 1, "name": name, "supercategory": ""})
        mask = bitmap_of(RunLengths((height, width), row.suggestion["counts"]), (height, width))
        rings = [joined_rings([ring.astype(np.float64) for ring in part]) for part in border_rings(mask)]
        low, high = np.concatenate(rings).min(axis=0).tolist(), np.concatenate(rings).max(axis=0).tolist()
        annotations.append(
            {
                "id": number,
                "image_id": image["id"],
                "category_id": class_id + 1,
                "iscrowd": 0,
                "segmentation": [ring.reshape(-1).astype(int).tolist() for ring in rings],
                "area": int(np.count_nonzero(mask)),
                "bbox": [*low, high[0] - low[0], high[1] - low[1]],
                "attributes": {
                    "label_id": "" if row.label_id is None else str(row.label_id),
                    "mask_issue": row.kind,
                    "mask_suspicion": round(row.suspicion, 4),
                    "reason": row.reason,
                },
            }
        )
    described = {
        "images": list(images.values()),
        "categories": [categories[class_id] for class_id in sorted(categories)],
        "annotations": annotations,
    }
    path = write_atomically(out / SUGGESTIONS, json_text(described) + "\n")
    return {path: "the suggested masks as COCO annotations, for CVAT or Label Studio"}
