"""The pictures that explain one photograph, as files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from maskprism.images import read_image
from maskprism.views import raster, sheets

if TYPE_CHECKING:
    from maskprism.decompose import Order
    from maskprism.images import ImageLike
    from maskprism.prediction import Prediction
    from maskprism.views.sheets import Scale


def write_overview(image: ImageLike, prediction: Prediction, folder: Path) -> Path:
    """Write `overview.png` into the folder."""
    return raster.save(sheets.overview(image, prediction), folder / "overview.png")


def write_explanation(
    image: ImageLike,
    prediction: Prediction,
    folder: Path,
    instances: Iterable[int],
    *,
    order: Order = "effect",
    scale: Scale = "shared",
) -> list[Path]:
    """Write the overview, and five pictures per instance, into the folder; give their paths.

    `00-prototypes.png`: all prototypes and the weights of instance 0. `00-contributions.png`: what
    each adds inside the box; `00-contributions-full.png`: everywhere. `00-assembly.png`: for +
    against = logits -> mask. `00-crop.png`: what the crop to the box cuts away.
    """
    photograph = read_image(image)
    written = [write_overview(photograph, prediction, folder)]
    for index in instances:
        instance = prediction[index]
        pictures = {
            "prototypes": sheets.prototype_grid(instance, order=order, scale=scale),
            "contributions": sheets.contribution_grid(instance, order=order),
            "contributions-full": sheets.contribution_grid(instance, order=order, view="full"),
            "assembly": sheets.assembly_strip(photograph, instance),
            "crop": sheets.crop_view(photograph, instance),
        }
        written += [raster.save(sheet, folder / f"{index:02d}-{name}.png") for name, sheet in pictures.items()]
    return written
