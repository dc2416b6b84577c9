"""Write what the page that runs models in the browser must know of families, rules and decoding: one place per fact.

    python utils/make_drop_tables.py [--check]

`viewer/src/drop/tables.js` holds the presets of `core.masks` and the constants of `models.families`, and
`sample.webp` in the package the drawn scene of its button "Try the sample".
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, fields
from pathlib import Path

import cv2

from maskprism.core.masks import FIRST_RELEASES, RULES
from maskprism.core.preprocessing import Preprocessing
from maskprism.datasets.scenes import draw_scene
from maskprism.models.families import yolo
from maskprism.models.families.rows import Thresholds

FOLDER = Path(__file__).parents[1] / "viewer" / "src" / "drop"
PACKAGED = FOLDER.parents[2] / "src" / "maskprism" / "viewer" / "static" / "drop"
SAMPLE_SEED = 12


def tables() -> str:
    """Return the module."""
    keep = Thresholds()
    values = {
        "RULES": {name: {**asdict(rule), "threshold": rule.threshold} for name, rule in RULES.items()},
        "SINCE": [[list(release), rule.name] for release, rule in FIRST_RELEASES],
        "FAMILIES": {
            family.name: {
                "columns": family.columns,
                "perCell": family.per_cell,
                "objectness": family.objectness,
                "rule": family.rule.name if family.rule else None,
            }
            for family in yolo.FAMILIES
        },
        "STRIDE_SETS": yolo.STRIDE_SETS,
        "CLASS_OFFSET": int(yolo.CLASS_OFFSET),
        "MOST_CANDIDATES": yolo.MAX_CANDIDATES,
        "NORMALISED_LIMIT": yolo.NORMALISED_LIMIT,
        "KEEP": {"conf": keep.conf, "iou": keep.iou, "maxDet": keep.max_det},
        "GREY": next(one.default for one in fields(Preprocessing) if one.name == "padding"),
    }
    lines = [f"export const {name} = {json.dumps(value, indent=2)};\n" for name, value in values.items()]
    return "// Written by utils/make_drop_tables.py from the Python package; do not edit.\n\n" + "\n".join(lines)


def main() -> int:
    """Write the files, or say whether they are current."""
    path = FOLDER / "tables.js"
    if "--check" in sys.argv:
        current = path.read_text(encoding="utf-8") == tables()
        print(f"{path}: {'current' if current else 'stale; run utils/make_drop_tables.py'}")
        return 0 if current else 1
    path.write_text(tables(), encoding="utf-8")
    scene = draw_scene(SAMPLE_SEED, (384, 512)).image
    (PACKAGED / "sample.webp").write_bytes(cv2.imencode(".webp", scene, [cv2.IMWRITE_WEBP_QUALITY, 90])[1].tobytes())
    return 0


if __name__ == "__main__":
    sys.exit(main())
