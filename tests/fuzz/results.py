"""Folders of results, as `maskprism report` finds them."""

from __future__ import annotations

from pathlib import Path

from fuzz.kind import Kind, write_images
from fuzz.mutate import JSON, bytes_damage, text_damage
from maskprism.reports.html import page
from maskprism.reports.index import write_index
from maskprism.reports.manifest import Number, PictureFile, ResultManifest, TableFile, Verdict, write_manifest

MANIFESTS = {
    "a": ResultManifest(
        command="compare",
        about="how two models differ",
        models=["a.onnx", "b.onnx"],
        numbers=[
            Number("images", 2, ","),
            Number("unmatched", 0.25, ".1%"),
            Number("worst mask IoU", None),
        ],
        findings=["Most of the difference comes from the prototypes."],
        tables=[TableFile("instances.csv", "a row for every instance", "mask_iou", {"mask_iou": "mask IoU"})],
        verdict=Verdict("fail", "mean mask IoU is 0.9 (expected at least 0.99)"),
    ),
    "b": ResultManifest(
        command="basis", about="how many are used", tables=[TableFile("prototypes.csv", "rows", "-rms_contribution")]
    ),
    "c/one.onnx": ResultManifest(command="tune", about="gains", page="one.tune.html", verdict=Verdict("cannot tell")),
    "d": ResultManifest(
        command="prototypes",
        about="what every prototype depends on",
        pictures=[PictureFile("prototypes.png", "All prototypes.", wide=True)],
        tables=[TableFile("prototypes.csv", "rows")],
    ),
}
TABLES = {
    "a/instances.csv": "image,instance_a,class_a,mask_iou\none.png,0,car,0.5\ntwo.png,,cow,\n",
    "b/prototypes.csv": "prototype,rms_contribution,dead\n0,0.25,False\n1,1e-3,True\n",
    "d/prototypes.csv": "prototype,tags,mean\n0,semantic edges,0.5\n1,,-0.5\n",
}


def _results(folder: Path) -> None:
    for name, rows in TABLES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(rows)
    write_images(folder / "d", 1)
    (folder / "d" / "0.png").rename(folder / "d" / "prototypes.png")
    (folder / "c").mkdir()
    tuned = page("tune", title="one", subtitle="", warnings=(), tiles=(), sections=())
    (folder / "c" / "one.tune.html").write_text(tuned, encoding="utf-8")
    for name, manifest in MANIFESTS.items():
        write_manifest(folder / name, manifest)


def _use_results(folder: Path) -> None:
    for written in write_index([folder], folder / "index.html")[0]:
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
