"""How predictions and instances show themselves in notebooks."""

from __future__ import annotations

from contextlib import suppress
from html import escape
from typing import TYPE_CHECKING

import cv2

from maskprism._common.text import single_line
from maskprism.drawing.annotated import annotated
from maskprism.drawing.crops import crop
from maskprism.drawing.mask_style import instance_colours
from maskprism.errors import MaskprismError
from maskprism.viewer.markup import data_url

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import UInt8

    from maskprism.core.prediction import Instance, Prediction

MOST_ROWS = 20
_PICTURE_SIDE, _CROP_SIDE = 720, 320


def prediction_html(prediction: Prediction) -> str:
    """Return what the prediction holds, its picture where the image file is still there, and its first instances."""
    picture = _shrunk_picture(prediction)
    parts = [f"<code>{escape(single_line(repr(prediction)))}</code>"]
    if picture is not None:
        parts.append(f'<br><img alt="" src="{data_url("image/png", picture)}">')
    rows = [
        f"<tr><td>{one.index}</td><td>{escape(single_line(one.name))}</td><td>{one.score:.2f}</td>"
        f"<td>{', '.join(f'{side:.0f}' for side in one.box)}</td><td>{one.area()}</td></tr>"
        for one, _ in zip(prediction, range(MOST_ROWS), strict=False)
    ]
    if rows:
        head = "<tr><th></th><th>class</th><th>score</th><th>box (xyxy)</th><th>mask area (pixels)</th></tr>"
        parts.append(f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>")
    if len(prediction) > MOST_ROWS:
        parts.append(f"and {len(prediction) - MOST_ROWS} more")
    return f"<div>{''.join(parts)}</div>"


def instance_png(instance: Instance) -> bytes | None:
    """Return the instance cut out of its image, with its mask, as PNG; None where the image file is not there."""
    image = _image_of(instance.prediction)
    if image is None:
        return None
    colour = instance_colours(image, instance.prediction)[instance.index]
    return _png(crop(image, instance, side=_CROP_SIDE, colour=colour))


def _shrunk_picture(prediction: Prediction) -> bytes | None:
    image = _image_of(prediction)
    if image is None:
        return None
    picture = annotated(image, prediction)
    shrink = _PICTURE_SIDE / max(picture.shape[:2])
    if shrink < 1:
        picture = cv2.resize(picture, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    return _png(picture)


def _image_of(prediction: Prediction) -> UInt8[np.ndarray, "H W 3"] | None:
    """Return the image where it can be read again and still has its size; showing an object must never fail."""
    with suppress(MaskprismError):
        image = prediction.source_image()
        return image if image.shape[:2] == prediction.image_size else None
    return None


def _png(picture: UInt8[np.ndarray, "H W 3"]) -> bytes:
    return cv2.imencode(".png", picture)[1].tobytes()
