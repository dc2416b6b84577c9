"""The pictures that explain photographs, as files."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

from maskprism.errors import InputError, MaskprismError
from maskprism.images import IMAGE_SUFFIXES, read_image
from maskprism.views import raster, sheets

if TYPE_CHECKING:
    from maskprism.decompose import Order
    from maskprism.images import ImageLike
    from maskprism.models import Model
    from maskprism.prediction import Prediction
    from maskprism.sources import SourceImage
    from maskprism.views.sheets import Scale


@dataclass(frozen=True)
class Explained:
    """What became of one photograph: its pictures, and a message where there is something to say."""

    name: str
    pictures: tuple[Path, ...]
    message: str = ""
    failed: bool = False


def explain_photographs(
    items: Iterable[SourceImage],
    model: Model,
    out: Path,
    instance: int | Literal["all"] | None = None,
    *,
    order: Order = "effect",
    scale: Scale = "shared",
) -> Iterator[Explained]:
    """Explain one photograph after the other, each in a folder of `out` of its own.

    `instance` is a number, "all", or None for the most confident one. A photograph that cannot be
    read, or has no such instance, is told in its message, and the rest goes on.
    """
    folders = _Folders()
    for item in items:
        folder = out / folders.next(item.name)
        try:
            photograph = item.read()
            prediction = replace(model.predict(photograph), source=item.name)
            try:
                chosen, message = sheets.best_instances(prediction, instance), ""
            except InputError as error:
                chosen, message = [], str(error)
            written = write_explanation(photograph, prediction, folder, chosen, order=order, scale=scale)
        except MaskprismError as error:
            yield Explained(item.name, (), f"failed: {error}", failed=True)
            continue
        if not len(prediction):
            message = (
                f"{item.name}: no instance with a score above {model.keep.conf}; only the overview is drawn "
                "(a lower --conf keeps more)"
            )
        yield Explained(item.name, tuple(written), message, failed=bool(message) and len(prediction) > 0)


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
    written = [raster.save(sheets.overview(photograph, prediction), folder / "overview.png")]
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


class _Folders:
    """Folder names: an image's name without its suffix, or with it where that is taken."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def next(self, name: str) -> str:
        path = PurePosixPath(name.lstrip("/"))
        stem = path.with_suffix("") if path.suffix.lower() in IMAGE_SUFFIXES else path
        numbered = (f"{path} ({number})" for number in itertools.count(2))
        folder = next(one for one in itertools.chain((str(stem), str(path)), numbered) if one not in self._taken)
        self._taken.add(folder)
        return folder
