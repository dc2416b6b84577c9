"""Small pictures of instances for the map, many to a sheet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from maskprism.datasets.visit import Failure, OnProgress
from maskprism.drawing.crops import contact_sheet, crop, framed
from maskprism.drawing.map_payload import deflated
from maskprism.drawing.mask_style import instance_colours
from maskprism.errors import MaskprismError
from maskprism.io.images import read_image
from maskprism.viewer.payload import encode_webp

if TYPE_CHECKING:
    from jaxtyping import Int64, UInt8

    from maskprism.analysis.atlas.points import Points
    from maskprism.core.prediction import Prediction

SIDE = 80
_ACROSS, _DOWN = 10, 10
_EMPTY = (128, 128, 128)


@dataclass(frozen=True)
class Sheets:
    """Pictures of `side` pixels, row by row in sheets of `across` by `down` (WebP).

    Attributes
    ----------
    points
        The number of the point of each picture, uint32, deflated.
    failures
        Images that could not be read, and why.
    """

    side: int
    across: int
    down: int
    count: int
    points: bytes
    pictures: list[bytes]
    failures: list[Failure]


def thumbnails(
    points: Points,
    chosen: Int64[np.ndarray, " T"],
    predictions: Mapping[str, Prediction],
    images: Path | None,
    *,
    on_progress: OnProgress = lambda done, total, failure: None,
) -> Sheets:
    """Pictures of the chosen points: their masks, on the images in the folder `images`, else on grey.

    Parameters
    ----------
    predictions
        By the names of images, such as `StoredPredictions`; instances without one have no picture.
    """
    cells: list[UInt8[np.ndarray, "h w 3"]] = []
    pictured: list[int] = []
    failures: list[Failure] = []
    order = chosen[np.argsort(points.images[chosen], kind="stable")]
    groups = np.split(order, np.flatnonzero(np.diff(points.images[order])) + 1) if len(order) else []
    for done, members in enumerate(groups):
        name = points.image_names[points.images[members[0]]]
        on_progress(done, len(groups), None)
        if name not in predictions:
            continue
        try:
            prediction = predictions[name]
            picture = _picture(prediction, name, images)
            colours = instance_colours(picture, prediction)
        except MaskprismError as error:
            failures.append(Failure(name, str(error)))
            continue
        for member in members:
            number = int(points.instances[member])
            if number < len(prediction):
                cells.append(framed(crop(picture, prediction[number], side=SIDE, colour=colours[number]), SIDE))
                pictured.append(int(member))
    on_progress(len(groups), len(groups), None)
    each = _ACROSS * _DOWN
    sheets = (contact_sheet(cells[start : start + each], SIDE, _ACROSS, _DOWN) for start in range(0, len(cells), each))
    webp = [encode_webp(sheet, max(sheet.shape))[0] for sheet in sheets]
    return Sheets(SIDE, _ACROSS, _DOWN, len(cells), deflated(np.array(pictured, dtype="<u4")), webp, failures)


def _picture(prediction: Prediction, name: str, images: Path | None) -> UInt8[np.ndarray, "H W 3"]:
    height, width = prediction.image_size
    if images is None:
        return np.full((height, width, 3), _EMPTY, dtype=np.uint8)
    found = read_image(images / name)
    if found.shape[:2] != (height, width):
        raise MaskprismError(
            f"{images / name}: has {found.shape[1]} x {found.shape[0]} pixels; expected {width} x {height}"
        )
    return found
