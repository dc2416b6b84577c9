"""What fewer prototypes cost, as files beside the reduced model."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from maskprism._common.files import write_atomically
from maskprism._common.text import json_text
from maskprism.drawing import raster
from maskprism.drawing.figures import save
from maskprism.drawing.reduction import before_after, trade_off_figure
from maskprism.reports.manifest import Number, PictureFile, ResultManifest, file_url, write_manifest

if TYPE_CHECKING:
    from maskprism.analysis.reduction.reduced_file import CalibrationImages, ReducedFile
    from maskprism.models import Model


def write_reduction_manifest(found: ReducedFile, pictures: Iterable[Path]) -> dict[Path, str]:
    """Write the manifest of a reduction, after its other files.

    Parameters
    ----------
    pictures
        Those of `write_reduction`.
    """
    compared = found.comparison.summary()
    captions = {".curve": "Mask IoU by the number of prototypes.", ".masks": "Masks before and after."}
    held_out = float(found.trade_off.of(found.reduction.method, len(found.reduction)).mean())
    before, after = (compared.get("mask_ap", {}).get("ap", {}).get(name) for name in ("full", "reduced"))
    manifest = ResultManifest(
        command="reduce",
        about="what fewer prototypes cost and save",
        models=[found.source.name],
        numbers=[
            Number("images", compared["images"], ","),
            Number("prototypes before", found.reduction.prototype_map.shape[1], ","),
            Number("prototypes after", len(found.reduction), ","),
            Number("mean mask IoU with the full model", held_out),
            Number("mask AP before", before),
            Number("mask AP after", after),
        ],
        findings=found.lines(),
        pictures=[
            PictureFile(file_url(path, found.path.parent), captions[Path(path.stem).suffix], wide=True)
            for path in pictures
        ],
    )
    return write_manifest(found.path, manifest)


def files_beside(path: Path) -> dict[str, Path]:
    """Return the files that go beside a reduced file."""
    base = path.with_suffix("")
    return {kind: base.with_name(f"{base.name}.{kind}") for kind in ("json", "curve.png", "masks.png")}


def write_reduction(found: ReducedFile, images: CalibrationImages, full: Model, reduced: Model) -> dict[Path, str]:
    """Write numbers and pictures beside the reduced file; gives each with what it shows.

    Raises
    ------
    MaskprismError
        If that fails.
    """
    paths = files_beside(found.path)
    write_atomically(paths["json"], json_text(found.summary()) + "\n")
    figure = trade_off_figure(found.trade_off, len(found.reduction), found.reduction.method)
    write_atomically(paths["curve.png"], lambda partial: save(figure, partial, dpi=130))
    written = {
        found.path: "the reduced model",
        paths["json"]: "all numbers",
        paths["curve.png"]: "mask IoU by the number of prototypes",
    }
    if examples := found.examples(images, full, reduced):
        written[raster.save(before_after(examples), paths["masks.png"])] = "masks before and after"
    return written
