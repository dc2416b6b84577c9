"""Judged labels of drawn scenes, without a model: some are wrong on purpose, and the suggestion is the right mask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from maskprism.analysis.intervals import Interval
from maskprism.analysis.labels.study import JudgedLabel, LabelReport
from maskprism.analysis.labels.suspicion import LEVELS, Suspicion

if TYPE_CHECKING:
    from maskprism.datasets import Dataset


def rle(mask: np.ndarray) -> dict[str, Any]:
    """A mask as COCO RLE of plain numbers: runs down the columns, the background first."""
    flat = mask.T.reshape(-1)
    ends = np.flatnonzero(np.diff(flat, prepend=False, append=not flat[-1]))
    return {"size": list(mask.shape), "counts": np.diff(ends, prepend=0).tolist()}


def judged(image: str, label_id: int | str | None, box: Any, kind: str, **more: Any) -> JudgedLabel:
    """One label; `more` are other fields."""
    given = {
        "image": image,
        "label_id": label_id,
        "class_id": 0,
        "class_name": "disc",
        "box": tuple(float(side) for side in box),
        "kind": kind,
        "suspicion": 0.9,
        "reason": "Said for a test.",
        "suggestion": None,
        "suggested_by": "",
        "instance": -1,
        "features": {"mask_iou": 0.5},
    }
    return JudgedLabel(**given | more)


def report_of(rows: list[JudgedLabel], dataset: Dataset) -> LabelReport:
    """A report of these labels, learned on many images."""
    sure = Suspicion(
        values=np.array([row.suspicion for row in rows]),
        score="learned",
        corrupted_share=dict.fromkeys(LEVELS, 0.9),
        auroc=0.9,
        simple_auroc=0.8,
        gain=Interval(0.1, 0.05, 0.15),
        n_images=100,
    )
    return LabelReport(rows, sure, len(dataset), len(rows), dict(dataset.names))


def scene_report(dataset: Dataset) -> LabelReport:
    """The first four labels of the first two images as cards of all kinds, and a missing label."""
    rows = []
    for sample in list(dataset)[:2]:
        _, truth = sample.read()
        masks = truth.masks()
        for number, kind in enumerate(("shifted", "wrong class", "spurious", "too large")[: len(truth)]):
            moved = np.roll(masks[number], 5, axis=1)
            more: dict[str, Any] = {"suspicion": 0.95 - 0.05 * number, "class_id": int(truth.classes[number])}
            more |= {"class_name": truth.name_of(truth.classes[number]), "suggestion": rle(moved)}
            more |= {"suggested_by": "prediction"} if number % 2 else {"prediction": rle(masks[number] | moved)}
            more |= {"suggested_class": 4} if kind == "wrong class" else {}
            rows.append(judged(sample.name, truth.label_ids[number], truth.boxes[number], kind, **more))
        missing = np.zeros(truth.image_hw, dtype=bool)
        missing[5:25, 10:40] = True
        rows.append(
            judged(
                sample.name, None, (10, 5, 40, 25), "missing label", suggestion=rle(missing), suggested_by="prediction"
            )
        )
    return report_of(rows, dataset)
