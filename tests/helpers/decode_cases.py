"""The table of cases of Python and of the page that runs models in the browser: tests/helpers/decode_cases.json.

    python tests/helpers/decode_cases.py    # writes it anew, after a change that is meant

Outputs of models of every family, and what maskprism reads out of them; letterboxes; mask rules by version; names.
"""

from __future__ import annotations

import base64
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from maskprism import Letterbox
from maskprism.core.masks import YOLOV5, rule_of_version
from maskprism.models.families.rows import Thresholds
from maskprism.models.families.yolo import detect_layout
from maskprism.models.metadata import Metadata

PATH = Path(__file__).with_name("decode_cases.json")
CANVAS = (64, 64)
ANCHORS = 84  # of strides 8, 16 and 32
CLASSES, K = 3, 4
NAMES = "{0: 'cat', 1: \"it's\", 2: 'caf\\xe9, { or [:'}"
VERSIONS = (None, "8.4.200", "8.4.175", "8.4.100", "8.4.85", "8.3.220", "8.3.189", "8.3.0", "8.2.100", "8.0.1", "odd")


def outputs_of(family: str, rng: np.random.Generator, *, last: bool, normalised: bool, odd: bool) -> list[np.ndarray]:
    """Rows and prototypes of one image, with ties, overlapping boxes and, if odd, values that are not finite."""
    count = {"yolov8": ANCHORS, "yolov5": 3 * ANCHORS, "end2end": 20}[family]
    centres = rng.uniform(8, 56, (6, 2))[rng.integers(0, 6, count)] + rng.normal(0, 1.5, (count, 2))
    sizes = rng.uniform(6, 30, (count, 2))
    corners = np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1)
    boxes = corners if family == "end2end" else np.concatenate([centres, sizes], axis=1)
    if normalised:
        boxes = boxes / 64
    scores = np.round(rng.uniform(0, 1, (count, CLASSES)) ** 2, 2)
    coefficients = rng.normal(0, 1, (count, K))
    if family == "end2end":
        order = np.sort(rng.uniform(0, 1, count))[::-1]
        columns = [boxes, order[:, None], rng.integers(0, CLASSES, (count, 1)), coefficients]
    elif family == "yolov5":
        columns = [boxes, rng.uniform(0, 1, (count, 1)), scores, coefficients]
    else:
        columns = [boxes, scores, coefficients]
    rows = np.concatenate(columns, axis=1).astype(np.float32)
    if odd:
        rows[3, 5], rows[9, 1] = np.nan, np.inf
    prototypes = rng.normal(0, 1, (K, 16, 16)).astype(np.float32)
    wide = rows if last or family != "yolov8" else rows.T
    return [np.ascontiguousarray(wide)[None], np.moveaxis(prototypes, 0, -1)[None] if last else prototypes[None]]


def case(family: str, seed: int, *, last: bool, normalised: bool, odd: bool, raw: dict[str, str]) -> dict[str, Any]:
    """One model's outputs, and how they are read."""
    outputs = outputs_of(family, np.random.default_rng(seed), last=last, normalised=normalised, odd=odd)
    metadata = Metadata.parse(raw, "case")
    layout = detect_layout([one.shape for one in outputs], CANVAS, metadata, "case", images_last=last)
    keep = Thresholds(conf=0.3, iou=0.5, max_det=12)
    rows = layout.read_rows(outputs, 0, CANVAS, keep)
    order = "channels last" if last else "channels first"
    return {
        "name": f"{family}, {order}{', normalised' * normalised}{', odd' * odd}",
        "metadata": raw,
        "images_last": last,
        "outputs": [{"dims": one.shape, "data": _base64(one)} for one in outputs],
        "canvas": CANVAS,
        "keep": {"conf": keep.conf, "iou": keep.iou, "maxDet": keep.max_det},
        "layout": asdict(layout),
        "prototypes": _base64(layout.read_prototypes(outputs, 0)),
        "rows": {
            "boxes": rows.boxes.tolist() if rows.boxes is not None else None,
            "scores": rows.scores.tolist(),
            "classes": rows.classes.tolist(),
            "coefficients": rows.coefficients.tolist(),
            "objectness": None if rows.objectness is None else rows.objectness.tolist(),
        },
    }


def cases() -> dict[str, Any]:
    """All of it."""
    said = {"task": "segment", "names": NAMES, "version": "8.3.40", "imgsz": "[64, 64]"}
    table = [
        case("yolov8", 1, last=False, normalised=False, odd=False, raw=said),
        case("yolov8", 2, last=True, normalised=True, odd=True, raw=said),
        case("yolov5", 3, last=False, normalised=False, odd=True, raw={}),
        case("yolov5", 4, last=True, normalised=True, odd=False, raw={}),
        case("end2end", 5, last=False, normalised=False, odd=False, raw=said | {"end2end": "True"}),
        case("end2end", 6, last=False, normalised=False, odd=True, raw=said | {"args": "{'nms': True, 'half': False}"}),
    ]
    sizes = [((480, 640), (640, 640)), ((1080, 810), (640, 640)), ((13, 900), (96, 64)), ((7, 7), (64, 96))]
    return {
        "cases": table,
        "letterboxes": [asdict(Letterbox.fit(image, canvas)) for image, canvas in sizes],
        "resized": [_resized(seed, *sizes) for seed, sizes in enumerate([((9, 7), (5, 11)), ((40, 30), (16, 12))])],
        "rules": {str(version): _rule(rule_of_version(version)) for version in VERSIONS},
        "yolov5": _rule(YOLOV5),
        "names": {NAMES: {str(k): name for k, name in (Metadata.parse(said, "case").names or {}).items()}},
    }


def _resized(seed: int, size_hw: tuple[int, int], to_hw: tuple[int, int]) -> dict[str, Any]:
    image = np.random.default_rng(seed).integers(0, 256, (*size_hw, 3), dtype=np.uint8)
    found = cv2.resize(image, to_hw[::-1], interpolation=cv2.INTER_LINEAR)
    return {
        "image": image.reshape(-1).tolist(),
        "size_hw": size_hw,
        "to_hw": to_hw,
        "found": found.reshape(-1).tolist(),
    }


def _rule(rule: Any) -> dict[str, Any]:
    return {**asdict(rule), "threshold": rule.threshold}


def _base64(data: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(data, dtype="<f4").tobytes()).decode()


def text() -> str:
    """The file."""
    return json.dumps(cases(), separators=(",", ":")) + "\n"


if __name__ == "__main__":
    PATH.write_text(text(), encoding="utf-8")
