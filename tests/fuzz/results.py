"""Folders of results, as `maskprism report` finds them."""

from __future__ import annotations

import json
from pathlib import Path

from fuzz.kind import Kind, write_images
from fuzz.mutate import JSON, bytes_damage, text_damage
from maskprism.reports.html import page
from maskprism.reports.index import write_house

FILES = {
    "a/comparison.json": {
        "a": {"name": "a.onnx"},
        "b": {"name": "b.onnx"},
        "images": 2,
        "instances": {"matched": 3},
        "unmatched_share": 0.25,
        "mask_iou": {"mean": 0.9, "worst": 0.5},
        "parts": {"coefficients": 0.1},
        "guilty": "prototypes",
        "tolerance": {"violations": ["mean mask IoU is 0.9 (expected at least 0.99)"]},
    },
    "b/basis.json": {
        "model": "a.onnx",
        "images": 2,
        "effective_rank": {"contributions": 3.5},
        "components_for": {"90%": 3},
        "dead": [1, 2],
        "redundant_pairs": [{"first": 0, "second": 3}],
    },
    "c/one.tune.json": {"model": {"name": "a.onnx"}, "mask_iou": {"all": {"before": 0.5, "after": 0.75}}},
}
TABLES = {
    "a/instances.csv": "image,instance_a,class_a,mask_iou\none.png,0,car,0.5\ntwo.png,,cow,\n",
    "b/prototypes.csv": "prototype,rms_contribution,dead\n0,0.25,False\n1,1e-3,True\n",
    "d/prototypes.csv": "prototype,tags,mean\n0,semantic edges,0.5\n1,,-0.5\n",
}


def _results(folder: Path) -> None:
    for name, said in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(said))
    for name, rows in TABLES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(rows)
    write_images(folder / "d", 1)
    (folder / "d" / "0.png").rename(folder / "d" / "prototypes.png")
    tuned = page("tune", title="one", subtitle="", warnings=(), tiles=(), sections=())
    (folder / "c" / "one.tune.html").write_text(tuned, encoding="utf-8")


def _use_results(folder: Path) -> None:
    for written in write_house([folder], folder / "index.html"):
        written.read_text(encoding="utf-8")


KINDS = {
    "results": Kind(
        (_results,),
        {
            "*.json": (JSON, JSON, JSON, bytes_damage),
            "*.csv": (text_damage, bytes_damage),
            "*.html": (text_damage, bytes_damage),
            "*.png": (bytes_damage,),
        },
        _use_results,
        10,
    )
}
