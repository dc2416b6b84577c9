"""What fewer prototypes cost, as files beside the reduced model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from maskprism._common.files import write_atomically
from maskprism.drawing import raster
from maskprism.drawing.figures import save
from maskprism.drawing.reduction import before_after, trade_off_figure

if TYPE_CHECKING:
    from maskprism.analysis.reduction.reduced_file import CalibrationImages, ReducedFile
    from maskprism.models import Model


def files_beside(path: Path) -> dict[str, Path]:
    """Return the files that go beside a reduced file."""
    base = path.with_suffix("")
    return {kind: base.with_name(f"{base.name}.{kind}") for kind in ("json", "curve.png", "masks.png")}


def write_reduction(found: ReducedFile, images: CalibrationImages, full: Model, reduced: Model) -> dict[Path, str]:
    """Write numbers and pictures beside the reduced file; gives each with what it shows.

    Raises MaskprismError if that fails.
    """
    paths = files_beside(found.path)
    write_atomically(paths["json"], json.dumps(found.summary(), indent=2, allow_nan=False) + "\n")
    figure = trade_off_figure(found.trade_off, len(found.reduction), found.reduction.method)
    write_atomically(paths["curve.png"], lambda partial: save(figure, partial, dpi=130))
    written = {
        found.path: "the reduced network",
        paths["json"]: "all numbers",
        paths["curve.png"]: "mask IoU by the number of prototypes",
    }
    if examples := found.examples(images, full, reduced):
        written[raster.save(before_after(examples), paths["masks.png"])] = "masks before and after"
    return written
