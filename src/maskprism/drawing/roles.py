"""What each prototype does for a mask, as one picture: a row per prototype, bars on one scale."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import cv2
import numpy as np

from maskprism._common.text import counted
from maskprism.analysis.instance.mask_window import MaskWindow
from maskprism.analysis.instance.prototype_roles import ROLES, roles
from maskprism.analysis.instance.sufficient_sets import knock_out
from maskprism.core.decomposition import Decomposition
from maskprism.drawing import palette
from maskprism.drawing.palette import INSTANCE_COLOURS
from maskprism.drawing.raster import font, write
from maskprism.drawing.sheets import MOST_PANELS, NO_BOXES, Panel, Sheet, instance_title, signed
from maskprism.io.images import read_image

if TYPE_CHECKING:
    from jaxtyping import Bool, Float64, UInt8

    from maskprism.analysis.instance.prototype_roles import Role, RoleOrder, Roles
    from maskprism.core.prediction import Instance
    from maskprism.io.images import ImageLike

    Picture = UInt8[np.ndarray, "H W 3"]

ROLE_COLOURS: dict[Role, palette.RGB] = {
    "builds": INSTANCE_COLOURS[5],
    "carves": INSTANCE_COLOURS[4],
    "sharpens": INSTANCE_COLOURS[2],
    "opposes": INSTANCE_COLOURS[6],
    "negligible": (190, 190, 190),
}
ROLE_WORDS: dict[Role, str] = {
    "builds": "lifts the inside of the mask",
    "carves": "lowers the ring: the box around the mask",
    "sharpens": "makes the step across the edge",
    "opposes": "does more harm than help, or has a share below 0",
    "negligible": "moves none of the three",
}
_WIDTH, _ROW, _TOP, _HEAD = 1480, 34, 250, 58
_BAR, _NUMBER = 124, 58
_PICTURE = (430, _TOP - 20)
_TEXT, _SMALL = 16, 14


def roles_sheet(
    image: ImageLike,
    instance: Instance,
    found: Roles | None = None,
    without: Float64[np.ndarray, " K"] | None = None,
    *,
    order: RoleOrder = "effect",
) -> Sheet:
    """Return every prototype with its role, and what it contributes where; the IoU of the mask without it.

    `found` and `without` are what `roles` and `knock_out` gave, where they are known already.
    """
    window = MaskWindow.of(instance, "grid")
    found = found or roles(instance)
    without = knock_out(instance) if without is None else without
    indices = found.order(order)
    indices = indices[np.isin(indices, found.order()[:MOST_PANELS])]
    hidden = len(found) - len(indices)
    notes = [f"Not drawn: the {hidden} prototypes with the least effect in the box; the table has them."] * bool(hidden)
    notes += [] if instance.prediction.has_boxes else [NO_BOXES]
    page = np.full((_TOP + _HEAD + _ROW * len(indices) + 8, _WIDTH, 3), 255, dtype=np.uint8)
    photos = _draw_regions(page, image, instance)
    _draw_legend(page, found)
    columns = {"inside": found.inside, "ring": found.ring, "edge": found.edge, "bias": found.bias}
    limit = max(float(np.nanmax(np.abs(np.append(values, 0)))) for values in columns.values()) or 1.0
    _draw_header(page)
    shown = window.prototypes * instance.weights[:, None, None]
    if not instance.rule.crops:  # the window is the whole grid
        shown = shown[:, *Decomposition(instance).box_window]
    height, width = shown.shape[1:]
    top = float(np.percentile(np.abs(shown), 99.5)) if shown.size else 1.0
    for row, k in enumerate(indices):
        y = _TOP + _HEAD + row * _ROW
        page[y : y + 1] = palette.FRAME
        if shown.size:
            zoom = min(72 / width, (_ROW - 4) / height)
            size = max(round(width * zoom), 1), max(round(height * zoom), 1)
            thumb = palette.paint(shown[k], top or 1.0, "contribution", size)
            left = 4 + (72 - size[0]) // 2
            page[y + 3 : y + 3 + size[1], left : left + size[0]] = thumb
        _draw_row(page, y, int(k), found, {name: float(values[k]) for name, values in columns.items()}, limit)
        lost = 1 - float(without[k])
        _draw_loss(page, y, lost, f"{without[k]:.3f}")
    return Sheet(
        title=f"What each prototype does: {instance_title(instance)}",
        subtitle="contributions in units of the logit, all bars on one scale; red lifts the logit, blue lowers it",
        panels=(Panel("", picture=page, photos=photos),),
        columns=1,
        notes=(
            "Measured on the prototype grid. Two roles: neither leads by a quarter. "
            "bias: weight x mean of the prototype over the image. share: of the logit margin, mean inside less "
            "mean ring. spread: size of the weight x standard deviation of the prototype in the box. IoU without: with "
            "the full mask, after setting the coefficient to zero. A weight below zero does not subtract by itself: "
            "prototypes have negative parts too.",
            *notes,
        ),
        size_wh=(page.shape[1], page.shape[0]),
    )


_BARS = {"inside": 330, "ring": 330 + 196, "edge": 330 + 2 * 196, "bias": 330 + 3 * 196}
_SHARE, _SPREAD, _LOSS, _ROOM = 1176, 1250, 1266, 134


def _draw_header(page: Picture) -> None:
    y = _TOP + _HEAD - 12
    bold, plain = font(_TEXT, bold=True), font(_SMALL)
    write(page, (4, y), "in the box", palette.INK, bold, anchor="ls")
    write(page, (122, y), "k", palette.INK, bold, anchor="rs")
    write(page, (140, y), "role", palette.INK, bold, anchor="ls")
    write(page, (312, y), "weight", palette.INK, bold, anchor="rs")
    words = {
        "inside": "mean in the mask",
        "ring": "mean around it",
        "edge": "step at its edge",
        "bias": "level everywhere",
    }
    for name, x in _BARS.items():
        write(page, (x, y), name, palette.INK, bold, anchor="ls")
        write(page, (x, y - 22), words[name], palette.MUTED, plain, anchor="ls")
    write(page, (_SHARE, y), "share", palette.INK, bold, anchor="rs")
    write(page, (_SPREAD, y), "spread", palette.INK, bold, anchor="rs")
    write(page, (_LOSS, y), "IoU without", palette.INK, bold, anchor="ls")
    write(page, (_LOSS, y - 22), "bar: lost IoU", palette.MUTED, plain, anchor="ls")


def _draw_row(page: Picture, y: int, k: int, found: Roles, values: dict[str, float], limit: float) -> None:
    middle = y + _ROW // 2 + 1
    text, small = font(_TEXT), font(_SMALL)
    role, *second = found.named[k]
    write(page, (122, middle), str(k), palette.INK, font(_TEXT, bold=True), anchor="rm")
    colour = ROLE_COLOURS[role]
    ink = palette.PAPER if palette.is_dark(colour) else palette.INK
    page[y + 6 : y + _ROW - 4, 140:258] = colour
    write(page, (146, middle), "/".join(found.named[k]), ink, small, anchor="lm")
    for other in second:
        page[y + 6 : y + _ROW - 4, 252:258] = ROLE_COLOURS[other]
    weight = float(found.weights[k])
    ink = palette.POSITIVE if weight > 0 else palette.NEGATIVE if weight < 0 else palette.INK
    write(page, (312, middle), signed(weight), ink, text, anchor="rm")
    for name, x in _BARS.items():
        value = values[name]
        centre = x + _BAR // 2
        page[y + 5 : y + _ROW - 3, x : x + _BAR] = (247, 247, 247)
        if np.isfinite(value):
            length = round(abs(value) / limit * (_BAR // 2 - 1))
            start = centre if value > 0 else centre - length
            page[y + 9 : y + _ROW - 7, start : start + length] = palette.POSITIVE if value > 0 else palette.NEGATIVE
        page[y + 5 : y + _ROW - 3, centre] = palette.MUTED
        label = signed(value) if np.isfinite(value) else "–"
        write(page, (x + _BAR + _NUMBER, middle), label, palette.INK, small, anchor="rm")
    share = float(found.share[k])
    label = f"{round(100 * share) + 0:d} %".replace("-", "−") if np.isfinite(share) else "–"
    write(page, (_SHARE, middle), label, palette.INK, text, anchor="rm")
    write(page, (_SPREAD, middle), f"{found.spread[k]:.2f}", palette.INK, text, anchor="rm")


def _draw_loss(page: Picture, y: int, lost: float, label: str) -> None:
    page[y + 5 : y + _ROW - 3, _LOSS : _LOSS + _ROOM] = (247, 247, 247)
    page[y + 9 : y + _ROW - 7, _LOSS : _LOSS + round(min(max(lost, 0), 1) * _ROOM)] = palette.MUTED
    write(page, (_LOSS + _ROOM + 62, y + _ROW // 2 + 1), label, palette.INK, font(_TEXT), anchor="rm")


def _draw_regions(page: Picture, image: ImageLike, instance: Instance) -> tuple[tuple[int, int, int, int], ...]:
    """The image around the box: the mask, the ring, and the edge, in the colours of their roles; gives where it is."""
    pixels = cv2.cvtColor(read_image(image), cv2.COLOR_BGR2RGB)
    (own,) = instance.alone.patches("image")
    height, width = pixels.shape[:2]
    x1, y1, x2, y2 = (float(v) for v in instance.box)
    tall = max(y2 - y1, (x2 - x1) * _PICTURE[1] / _PICTURE[0]) * 1.2
    wide = tall * _PICTURE[0] / _PICTURE[1]
    left, right = (int(np.clip((x1 + x2 + side * wide) / 2, 0, width)) for side in (-1, 1))
    top, bottom = (int(np.clip((y1 + y2 + side * tall) / 2, 0, height)) for side in (-1, 1))
    if top >= bottom or left >= right:
        return ()
    mask = np.zeros((height, width), dtype=bool)
    box = mask.copy()
    box[round(y1) : round(y2), round(x1) : round(x2)] = True
    mask[own.rows, own.columns] = own.values > instance.rule.threshold
    part = (slice(top, bottom), slice(left, right))
    zoom = min(_PICTURE[0] / (right - left), _PICTURE[1] / (bottom - top))
    size = max(round((right - left) * zoom), 1), max(round((bottom - top) * zoom), 1)
    picture = cv2.resize(pixels[part], size, interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR)
    inside, boxed = (_scaled(region[part], size) for region in (mask, box))
    picture = _mixed(picture, inside, ROLE_COLOURS["builds"])
    picture = _mixed(picture, boxed & ~inside, ROLE_COLOURS["carves"])
    edge = _near(inside, 3) & _near(boxed & ~inside, 3)  # not where the crop cuts
    picture[_near(edge, 5)] = palette.PAPER
    picture[_near(edge, 3)] = ROLE_COLOURS["sharpens"]
    page[6 : 6 + size[1], 4 : 4 + size[0]] = picture
    return ((4, 6, 4 + size[0], 6 + size[1]),)


def _scaled(region: Bool[np.ndarray, "H W"], size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    return cv2.resize(region.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST).astype(bool)


def _near(region: Bool[np.ndarray, "H W"], side: int) -> Bool[np.ndarray, "H W"]:
    return cv2.dilate(region.astype(np.uint8), np.ones((side, side), dtype=np.uint8)).astype(bool)


def _mixed(picture: Picture, region: Bool[np.ndarray, "H W"], colour: palette.RGB) -> Picture:
    mixed = picture.copy()
    mixed[region] = (picture[region] * np.float32(0.55) + np.float32(0.45) * np.array(colour)).astype(np.uint8)
    return mixed


def _draw_legend(page: Picture, found: Roles) -> None:
    counts = Counter(found.role)
    x, y = 470, 20
    write(
        page, (x, y), f"Roles of the {counted(len(found), 'prototype')}", palette.INK, font(18, bold=True), anchor="lm"
    )
    for row, role in enumerate(ROLES):
        middle = y + 38 + row * 36
        colour = ROLE_COLOURS[role]
        page[middle - 14 : middle + 14, x : x + 150] = colour
        ink = palette.PAPER if palette.is_dark(colour) else palette.INK
        write(page, (x + 10, middle), f"{counts[role]:>2}  {role}", ink, font(_TEXT, bold=True), anchor="lm")
        write(page, (x + 166, middle), ROLE_WORDS[role], palette.INK, font(_TEXT), anchor="lm")
    x = 1040
    write(page, (x, y), "Mean logit", palette.INK, font(18, bold=True), anchor="lm")
    for row, (name, values) in enumerate((("in the mask", found.inside), ("in the ring", found.ring))):
        middle, total = y + 38 + row * 36, float(values.sum())
        label = signed(total) if np.isfinite(total) else "there is none"
        write(page, (x, middle), name, palette.INK, font(_TEXT), anchor="lm")
        write(page, (x + 120, middle), label, palette.INK, font(_TEXT, bold=True), anchor="lm")
