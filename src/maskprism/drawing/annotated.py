"""An image with its instances drawn into it, at its own size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2

from maskprism._common.text import single_line
from maskprism.drawing import palette, raster
from maskprism.drawing.mask_style import instance_colours
from maskprism.drawing.sheets import paint_instances
from maskprism.errors import InputError
from maskprism.io.images import read_image

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import UInt8

    from maskprism.core.prediction import Prediction
    from maskprism.drawing.sheets import Label
    from maskprism.io.images import ImageLike


def annotated(image: ImageLike, prediction: Prediction, *, by_class: bool = False) -> UInt8[np.ndarray, "H W 3"]:
    """Draw the masks, boxes and labels (number, class name, score) of all instances into a copy of the image.

    Parameters
    ----------
    image
        The image that the prediction is about: a path, a PIL image or a BGR array.
    prediction
        Its instances.
    by_class
        Give the instances of a class one colour, in all images, as in frames of a video: nothing tells which instance
        of one frame is which of the next.

    Returns
    -------
    array
        BGR, of the image's size.

    Raises
    ------
    InputError
        For an image of another size.
    ImageError
        For an image that cannot be read.
    """
    pixels = read_image(image)
    if pixels.shape[:2] != prediction.image_size:
        raise InputError(
            f"the image is {pixels.shape[1]} x {pixels.shape[0]} pixels; the prediction is about one of "
            f"{prediction.image_size[1]} x {prediction.image_size[0]}"
        )
    rgb = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    if by_class:
        palette_size = len(palette.INSTANCE_COLOURS)
        colours = tuple(palette.INSTANCE_COLOURS[one % palette_size] for one in prediction.classes.tolist())
    else:
        colours = instance_colours(pixels, prediction)
    picture, labels = paint_instances(rgb, prediction, colours, prediction.empty, whole=True)
    for label in labels:
        _write_label(picture, label)
    return cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)


def _write_label(picture: UInt8[np.ndarray, "H W 3"], label: Label) -> None:
    """Text on its colour above the corner of a box, moved into the picture where it would leave it."""
    height, width = picture.shape[:2]
    letters = raster.font(max(12, round(max(height, width) / 64)))
    line, length = round(letters.size) + 6, round(letters.getlength(single_line(label.text))) + 8
    left = round(min(max(label.xy[0], 0), max(width - length, 0)))
    top = round(min(max(label.xy[1] - line, 0), max(height - line, 0)))
    picture[top : top + line, left : left + length] = label.colour
    ink = palette.PAPER if palette.is_dark(label.colour) else palette.INK
    raster.write(picture, (left + 4, top + line // 2), label.text, ink, letters, anchor="lm")
