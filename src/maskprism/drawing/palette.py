"""Colours: diverging maps centred at zero, and colours that tell instances apart.

The diverging maps are RdBu and PuOr of ColorBrewer, the instance colours those of Okabe and Ito:
all of them stay apart for colour-blind readers. Colours are RGB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float32, UInt8

    from maskprism.analysis.truth.error_budget import Part

MapName = Literal["contribution", "prototype"]
RGB = tuple[int, int, int]

_ANCHORS: dict[MapName, str] = {
    # blue is negative evidence, red is positive
    "contribution": "053061 2166ac 4393c3 92c5de d1e5f0 f7f7f7 fddbc7 f4a582 d6604d b2182b 67001f",
    # purple below zero, orange above
    "prototype": "2d004b 542788 8073ac b2abd2 d8daeb f7f7f7 fee0b6 fdb863 e08214 b35806 7f3b08",
}
_OKABE_ITO = "e69f00 56b4e9 009e73 f0e442 0072b2 d55e00 cc79a7"

INK: RGB = (34, 34, 34)
MUTED: RGB = (105, 105, 105)
PAPER: RGB = (255, 255, 255)
FRAME: RGB = (222, 222, 222)
POSITIVE: RGB = (178, 24, 43)
NEGATIVE: RGB = (33, 102, 172)
POSITIVE_TINT: RGB = (253, 224, 210)
NEGATIVE_TINT: RGB = (215, 231, 243)


def _rgb(hex_colour: str) -> RGB:
    red, green, blue = bytes.fromhex(hex_colour)
    return red, green, blue


INSTANCE_COLOURS: tuple[RGB, ...] = tuple(_rgb(colour) for colour in _OKABE_ITO.split())
PART_COLOURS: dict[Part, RGB] = {
    "resolution": INSTANCE_COLOURS[6],
    "box": INSTANCE_COLOURS[2],
    "prototypes": INSTANCE_COLOURS[1],
    "coefficients": INSTANCE_COLOURS[0],
}
RIGHT, TOO_MUCH, MISSING = INSTANCE_COLOURS[2], INSTANCE_COLOURS[5], INSTANCE_COLOURS[4]
LEGEND = "green: mask and ground truth agree; orange: mask alone; blue and white stripes: ground truth alone"


def lookup_table(name: MapName) -> UInt8[np.ndarray, "256 3"]:
    """256 colours from the most negative (index 0) over zero (128) to the most positive (255)."""
    anchors = np.array([_rgb(colour) for colour in _ANCHORS[name].split()], dtype=np.float64)
    at = np.linspace(0, len(anchors) - 1, 256)
    channels = [np.interp(at, np.arange(len(anchors)), anchors[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=1).round().astype(np.uint8)


def is_dark(colour: RGB) -> bool:
    """Return whether text on this colour should be white."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] < 110


def paint(
    values: Float32[np.ndarray, "h w"], limit: float, name: MapName, size_wh: tuple[int, int]
) -> UInt8[np.ndarray, "H W 3"]:
    """Values as colours, bilinearly resized: -limit and limit are the ends of the map, 0 its middle."""
    steps = np.clip(values * np.float32(127.5 / limit) + np.float32(128), 0, 255).astype(np.uint8)
    enlarged = cv2.resize(steps, size_wh, interpolation=cv2.INTER_LINEAR)
    return np.asarray(cv2.applyColorMap(enlarged, _tables[name]), dtype=np.uint8)


_tables = {name: lookup_table(name)[:, None, :] for name in _ANCHORS}
_CHANNELS = ("1 0 0 0 0 ", "0 1 0 0 0 ", "0 0 1 0 0 ")
_ALPHA = "0 0 0 1 0"
DARK_FILTER = (
    '<filter id="dark" color-interpolation-filters="sRGB" x="0" y="0" width="1" height="1">'
    '<feFlood flood-color="#fff"/><feComposite in="SourceGraphic" result="opaque"/>'
    + "".join(
        f'<feColorMatrix in="opaque" values="{row * 3}{_ALPHA}" result="{name}"/>'
        for name, row in zip("rgb", _CHANNELS, strict=True)
    )
    + "".join(
        f'<feBlend in="r" in2="g" mode="{mode}"/><feBlend in2="b" mode="{mode}" result="{mode}"/>'
        for mode in ("lighten", "darken")
    )
    + '<feBlend in="opaque" in2="darken" mode="difference" result="chroma"/>'
    f'<feColorMatrix in="lighten" values="{"-1 0 0 0 1 " * 3}{_ALPHA}"/>'
    '<feComposite in2="chroma" operator="arithmetic" k2="1" k3="1"/>'
    f'<feColorMatrix values=".885 0 0 0 .115 0 .885 0 0 .115 0 0 .885 0 .115 {_ALPHA}"/></filter>'
)
"""An SVG filter for charts on dark pages: white paper becomes dark, black ink light, and hues stay.

The lightness of HSL, (max + min) / 2, becomes 1 minus itself: each channel moves by 1 - max - min. Then black is
lifted to the colour of dark paper.
"""
