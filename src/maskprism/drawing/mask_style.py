"""The one style of masks in pictures: in colour on a dimmed grey image, with an outline of two tones.

`viewer/src/mask_style.js` is the same in the browser. Colours are RGB.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from maskprism.drawing.palette import INSTANCE_COLOURS, MISSING, RGB, RIGHT, TOO_MUCH

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, UInt8

    from maskprism.core.prediction import Prediction

    Picture = UInt8[np.ndarray, "H W 3"]

OPACITY = 0.5
"""Of the colour of a mask over the grey image."""
DIMMED = 0.55
"""What is left of the grey around masks: the outer line has at least 3:1 against all of it."""
OUTER_LINE: RGB = (255, 255, 255)
INNER_LINE: RGB = (20, 20, 20)

_SIDE = 160
_AROUND_PX = 2
_ENOUGH = 4.5
_USED, _BESIDE = 1.5, 4.0
_HATCH_PX = 4


class PaintedMask(NamedTuple):
    """A mask in the rows and columns of a picture, and its colour."""

    rows: slice
    columns: slice
    inside: Bool[np.ndarray, "h w"]
    colour: RGB


def instance_colours(image: Picture, prediction: Prediction) -> tuple[RGB, ...]:
    """Return the colour of every instance, the same in all pictures and pages.

    Each is chosen by the contrast of the painted mask against its surroundings; colours that are used
    already count less, those of overlapping boxes least.

    Parameters
    ----------
    image
        The whole image in BGR, at its own size.
    prediction
        All instances in it.
    """
    height, width = image.shape[:2]
    zoom = min(1.0, _SIDE / max(height, width))
    small_hw = max(round(height * zoom), 1), max(round(width * zoom), 1)
    grey = cv2.cvtColor(cv2.resize(image, small_hw[::-1], interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2GRAY)
    letterbox = replace(prediction.letterbox, image_hw=small_hw)
    patches = replace(prediction, letterbox=letterbox).crops("image")
    greys = []
    for patch in patches:
        mask = np.zeros(small_hw, dtype=bool)
        mask[patch.rows, patch.columns] = patch.values
        greys.append(greys_around(grey, mask))
    return contrasting_colours(greys, prediction.boxes)


def greys_around(grey: UInt8[np.ndarray, "h w"], mask: Bool[np.ndarray, "h w"]) -> tuple[float, float] | None:
    """Return the mean grey in a mask and that of the pixels around it; None for an empty mask."""
    if not mask.any():
        return None
    side = 2 * _AROUND_PX + 1
    around = (cv2.dilate(mask.astype(np.uint8), np.ones((side, side), np.uint8)) > 0) & ~mask
    inside = float(grey[mask].mean(dtype=np.float64))
    return inside, float(grey[around].mean(dtype=np.float64)) if around.any() else inside


def contrasting_colours(
    greys: Sequence[tuple[float, float] | None], boxes: Float[np.ndarray, "N 4"]
) -> tuple[RGB, ...]:
    """Choose a colour of the palette for each mask, large boxes first.

    Parameters
    ----------
    greys
        Of each mask, what `greys_around` returns.
    boxes
        x1, y1, x2, y2 of each instance, in any frame.
    """
    sizes = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    chosen: dict[int, RGB] = {}
    used = dict.fromkeys(INSTANCE_COLOURS, 0)
    for i in np.argsort(-sizes, kind="stable").tolist():
        beside = {colour for j, colour in chosen.items() if _overlap(boxes[i], boxes[j])}
        worths = [
            _contrast_of(colour, greys[i]) - _USED * used[colour] - _BESIDE * (colour in beside)
            for colour in INSTANCE_COLOURS
        ]
        chosen[i] = INSTANCE_COLOURS[int(np.argmax(worths))]
        used[chosen[i]] += 1
    return tuple(chosen[i] for i in range(len(boxes)))


def contrast(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the contrast ratio of two colours by WCAG: 1 to 21."""
    low, high = sorted((_luminance(a), _luminance(b)))
    return (high + 0.05) / (low + 0.05)


def dimmed(picture: Picture) -> Picture:
    """Return the picture in the dark greys that surround masks."""
    return (_grey(picture) * np.float32(DIMMED)).astype(np.uint8)


def paint_masks(
    picture: Picture, masks: Iterable[PaintedMask], *, whole: bool = False, line_px: int = 1, opacity: float = OPACITY
) -> Picture:
    """Return the picture with masks in their colours, each with an outline, white outside and black inside.

    Parameters
    ----------
    masks
        Later ones lie on top.
    whole
        Keep the unmodified image, in place of a dimmed grey one: where colours of the image matter.
    line_px
        Width of each of the two lines.
    """
    masks = list(masks)
    base = picture if whole else _grey(picture)
    painted = picture.copy() if whole else dimmed(picture)
    height, width = picture.shape[:2]
    for rows, columns, inside, colour in masks:
        layer = np.array(colour, dtype=np.float32) * np.float32(opacity)
        blended = base[rows, columns][inside] * np.float32(1 - opacity) + layer
        painted[rows, columns][inside] = blended.astype(np.uint8)
        top, left = rows.start or 0, columns.start or 0
        around = (
            slice(max(top - line_px, 0), min(top + inside.shape[0] + line_px, height)),
            slice(max(left - line_px, 0), min(left + inside.shape[1] + line_px, width)),
        )
        grown = np.zeros((around[0].stop - around[0].start, around[1].stop - around[1].start), np.uint8)
        own = (slice(top - around[0].start, None), slice(left - around[1].start, None))
        grown[own][: inside.shape[0], : inside.shape[1]] = inside
        outer, inner = _lines(grown, line_px)
        painted[around][inner] = INNER_LINE
        painted[around][outer] = OUTER_LINE
    return painted


def paint_errors(
    picture: Picture, mask: Bool[np.ndarray, "H W"], truth: Bool[np.ndarray, "H W"], *, agreed: bool = True
) -> Picture:
    """Return a dimmed picture with a mask against the ground truth; `palette.LEGEND` names the colours.

    Parameters
    ----------
    agreed
        Whether the pixels of both are tinted, too.
    """
    painted, grey = dimmed(picture), _grey(picture)
    both = mask & truth
    tint = np.array(RIGHT, dtype=np.float32) * np.float32(OPACITY) if agreed else np.float32(0)
    painted[both] = (grey[both] * np.float32(1 - OPACITY if agreed else 1) + tint).astype(np.uint8)
    painted[mask & ~truth] = TOO_MUCH
    painted[truth & ~mask] = MISSING
    painted[truth & ~mask & hatch(mask.shape)] = OUTER_LINE
    return painted


def hatch(size_hw: tuple[int, ...]) -> Bool[np.ndarray, "H W"]:
    """Return diagonal stripes: every other one is True."""
    return (np.add.outer(np.arange(size_hw[0]), np.arange(size_hw[1])) // _HATCH_PX) % 2 == 0


def line_width(size_hw: tuple[int, ...]) -> int:
    """Return the width of each line of an outline in a picture of this size: about two pixels where it is shown."""
    return max(1, round(max(size_hw[:2]) / 900))


def _grey(picture: Picture) -> Picture:
    return np.repeat(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)


def _lines(mask: UInt8[np.ndarray, "h w"], line_px: int) -> tuple[Bool[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
    """Return the pixels next to a mask, outside and inside; the frame around them is neither."""
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    outer = cv2.dilate(mask, cross, iterations=line_px, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    inner = cv2.erode(mask, cross, iterations=line_px, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return (outer > mask), (inner < mask)


def _contrast_of(colour: RGB, greys: tuple[float, float] | None) -> float:
    if greys is None:
        return 0.0
    inside, around = greys
    blended = [OPACITY * channel + (1 - OPACITY) * inside for channel in colour]
    return min(contrast(blended, [DIMMED * around] * 3), _ENOUGH)


def _luminance(colour: Sequence[float]) -> float:
    """Relative luminance by WCAG, of channels from 0 to 255."""
    shares = [channel / 255 for channel in colour]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _overlap(a: Float[np.ndarray, " 4"], b: Float[np.ndarray, " 4"]) -> bool:
    return bool(min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1]))
