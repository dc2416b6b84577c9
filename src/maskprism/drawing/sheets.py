"""What each picture shows: sheets of panels, decided here and drawn elsewhere.

Every function takes predictions or instances and gives a `Sheet`; `raster.draw` and
`figures.draw` turn it into pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np

from maskprism._common.text import brief, counted
from maskprism.core.decomposition import Decomposition, Edit, check_indices
from maskprism.drawing.mask_style import PaintedMask, hatch, instance_colours, line_width, paint_masks
from maskprism.drawing.palette import RGB, MapName
from maskprism.errors import InputError
from maskprism.io.images import read_image

if TYPE_CHECKING:
    from jaxtyping import Bool, Float32, Int64, UInt8

    from maskprism.core.decomposition import Order
    from maskprism.core.geometry import Letterbox
    from maskprism.core.prediction import Instance, Prediction
    from maskprism.io.images import ImageLike

    Picture = UInt8[np.ndarray, "H W 3"]

IMAGE_SIDE = 1280
"""Images are shrunk to at most this many pixels a side in pictures."""

MOST_PANELS = 64
"""Grids show at most this number of prototypes: those with the largest effect."""
NO_BOXES = "The model gives no boxes: here the box is the smallest one around the mask, and nothing is cropped."

_ROUND = 0.02
_LEAST_SIDE = 480

Scale = Literal["shared", "each"]
View = Literal["box", "full"]


@dataclass(frozen=True)
class Label:
    """A chip of text on a picture; `xy` is the corner of the box it belongs to, in picture pixels."""

    text: str
    xy: tuple[float, float]
    colour: tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Panel:
    """One picture of a sheet: values under a diverging map, or a ready RGB picture.

    Attributes
    ----------
    limit
        The values at the two ends of the map are -limit and limit.
    sign
        Sign of the weight or contribution; 0 where none is shown.
    bar
        Its size, -1 to 1.
    box
        x1, y1, x2, y2 in pixels of the values or picture.
    outline
        Logits whose zero line, inside the box, is the edge of the mask.
    joint
        What stands between this panel and the one before.
    photos
        Boxes of a picture, in its pixels, that show images, where not all of it does.
    pixel_aspect
        How much wider than tall a value is drawn, where the image was stretched.
    """

    title: str
    values: Float32[np.ndarray, "h w"] | None = None
    picture: UInt8[np.ndarray, "H W 3"] | None = None
    limit: float = 1.0
    map: MapName = "contribution"
    sign: int = 0
    bar: float | None = None
    box: tuple[float, float, float, float] | None = None
    outline: Float32[np.ndarray, "h w"] | None = None
    labels: tuple[Label, ...] = ()
    joint: str = ""
    photos: tuple[tuple[int, int, int, int], ...] | None = None
    pixel_aspect: float = 1.0

    @property
    def aspect(self) -> float:
        """Height by width as drawn."""
        return self.size_hw[0] / (self.size_hw[1] * self.pixel_aspect)

    @property
    def size_hw(self) -> tuple[int, int]:
        """(height, width) of what the panel holds, in its own pixels."""
        shown = self.values if self.values is not None else self.picture
        assert shown is not None
        return shown.shape[0], shown.shape[1]

    @property
    def fills(self) -> bool:
        """Whether the box is the whole panel, up to one pixel, so that drawing it tells nothing."""
        if self.box is None:
            return True
        height, width = self.size_hw
        x1, y1, x2, y2 = self.box
        return x1 < 1 and y1 < 1 and x2 > width - 1 and y2 > height - 1


@dataclass(frozen=True, eq=False)
class Sheet:
    """Panels in rows, with a title, notes, and one colour scale if they share one.

    Attributes
    ----------
    columns
        Panels per row; None lets the drawing choose the number that fits best.
    scale
        (limit, map, what the values are) of the colour bar.
    """

    title: str
    panels: tuple[Panel, ...]
    columns: int | None = None
    subtitle: str = ""
    notes: tuple[str, ...] = ()
    scale: tuple[float, MapName, str] | None = None
    size_wh: tuple[int, int] = field(default=(2400, 1200))


@dataclass(frozen=True)
class Window:
    """A rectangle of whole grid cells, rows and columns, and how the box lies in it."""

    rows: slice
    columns: slice
    box: tuple[float, float, float, float]

    def of(self, values: Float32[np.ndarray, "... h w"]) -> Float32[np.ndarray, "... rows columns"]:
        """Return the part of a grid image inside the window."""
        return values[..., self.rows, self.columns]


def overview(image: ImageLike, prediction: Prediction) -> Sheet:
    """Return the image with every instance: coloured mask, box, and number, class and score."""
    original = read_image(image)
    pixels, shown = _at_display_size(original, prediction)
    picture, labels = paint_instances(pixels, shown, instance_colours(original, prediction), prediction.empty)
    return Sheet(
        title=_image_title(prediction),
        subtitle=f"{counted(len(prediction), 'instance')}, mask rule {prediction.rule.name}"
        + ("" if prediction.has_boxes else "; the model gives no boxes, so nothing is cropped"),
        panels=(Panel("", picture=picture, labels=labels),),
        columns=1,
        size_wh=_at_least(picture.shape[1], picture.shape[0]),
    )


def paint_instances(
    picture: Picture,
    prediction: Prediction,
    colours: Sequence[RGB],
    empty: Bool[np.ndarray, " N"],
    *,
    whole: bool = False,
) -> tuple[Picture, tuple[Label, ...]]:
    """Paint the mask and the box of every instance over an RGB picture of the prediction's image size.

    Parameters
    ----------
    colours
        Of each instance: `mask_style.instance_colours`.
    empty
        Which instances have an empty mask; their labels say so.
    whole
        Keep the unmodified image, in place of a dimmed grey one.

    Returns
    -------
    picture
        A new one.
    labels
        Number, class name and score of each instance, those with large masks first.
    """
    line_px = line_width(picture.shape)
    masks = prediction.crops("image")
    # Small masks stay visible on top of large ones.
    order = sorted(range(len(prediction)), key=lambda number: -int(np.count_nonzero(masks[number].values)))
    painted = paint_masks(
        picture,
        [PaintedMask(*masks[number], colours[number]) for number in order],
        whole=whole,
        line_px=line_px,
    )
    labels = []
    for number in order:
        x1, y1, x2, y2 = (round(float(v)) for v in prediction.boxes[number])
        if prediction.has_boxes:
            cv2.rectangle(painted, (x1, y1), (x2, y2), colours[number], line_px)
        instance = prediction[number]
        flag = " (empty mask)" if empty[number] else ""
        text = f"{number} {brief(instance.name)} {instance.score:.2f}{flag}"
        labels.append(Label(text, (x1, y1), colours[number]))
    return painted, tuple(labels)


def prototype_grid(instance: Instance, *, order: Order = "index", scale: Scale = "shared") -> Sheet:
    """Return all K prototypes (at most MOST_PANELS), each titled with its index and the weight this instance gives it.

    `scale` "shared" draws all on one colour scale, so that they compare; "each" stretches every
    prototype to its own range, which shows weak ones too.
    """
    drawn, left_out = most_effective(Decomposition(instance), order)
    window = _content_window(instance)
    shown = window.of(instance.prototypes)
    limits = _limits(shown, scale)
    largest = float(np.abs(instance.weights).max()) or 1.0
    panels = tuple(
        Panel(
            title=f"{k}   {signed(instance.weights[k])}",
            values=shown[k],
            limit=limits[k],
            map="prototype",
            sign=int(np.sign(instance.weights[k])),
            bar=float(instance.weights[k]) / largest,
            box=window.box,
        )
        for k in drawn
    )
    lowest = float(instance.prototypes.min())
    notes = [
        "Title: prototype index and weight, red where the weight is positive and blue where it is negative. "
        "Colours end at the 99.5th percentile."
    ]
    if lowest < 0:
        notes.append(
            f"Prototypes go down to {signed(lowest)} themselves, so a negative weight does not simply subtract: "
            "see the contributions."
        )
    if len(left_out):
        notes.append(f"Not drawn: the {len(left_out)} prototypes with the least effect in the box.")
    sheet = Sheet(
        title=f"Prototypes and weights: {instance_title(instance)}",
        subtitle=f"{counted(len(shown), 'prototype')}, {_order_words(order)}"
        + ("" if scale == "shared" else "; every panel on its own colour scale"),
        panels=panels,
        notes=tuple(notes),
        scale=(limits[0], "prototype", "prototype value") if scale == "shared" else None,
    )
    return in_shape(sheet, instance.letterbox)


def contribution_grid(instance: Instance, *, order: Order = "effect", view: View = "box") -> Sheet:
    """Weight times prototype for every prototype, on one scale centred at zero.

    Beyond MOST_PANELS the ones of least effect share the last panel, so that all panels still sum to the logits.
    `view` "box" shows what the crop keeps, enlarged; "full" the whole image with the box.
    The line is the edge of the mask.
    """
    if view not in ("box", "full"):
        raise InputError(f"view is {view!r}; expected 'box' or 'full'")
    parts = Decomposition(instance)
    window = _box_window(instance) if view == "box" else _content_window(instance)
    limit = _limits(parts.terms[:, *parts.box_window], "shared")[0]
    means = parts.mean_contributions
    largest = float(np.abs(means).max()) or 1.0
    outline = window.of(parts.logits)
    drawn, left_out = most_effective(parts, order)
    shown = [(f"{k}", parts.terms[k], float(means[k])) for k in drawn]
    if len(left_out):
        shown.append((f"{len(left_out)} others", parts.terms[left_out].sum(axis=0), float(means[left_out].sum())))
    panels = tuple(
        Panel(
            title=f"{name}   {signed(mean)}",
            values=window.of(term),
            limit=limit,
            sign=int(np.sign(mean)),
            bar=float(np.clip(mean / largest, -1, 1)),
            box=window.box,
            outline=outline,
        )
        for name, term, mean in shown
    )
    where = "inside the box" if view == "box" else "on the whole image"
    notes = ["Title: prototype index and its mean contribution inside the box. Red is positive, blue is negative."]
    if not instance.prediction.has_boxes:
        notes.append(NO_BOXES)
    elif view == "full":
        notes.append("Logits outside the box are not trained: ignore them.")
    sheet = Sheet(
        title=f"Contributions {where}: {instance_title(instance)}",
        subtitle=f"weight x prototype, {_order_words(order)}; together they sum to the logits",
        panels=panels,
        notes=tuple(notes),
        scale=(limit, "contribution", "contribution to the logit"),
    )
    return in_shape(sheet, instance.letterbox)


def assembly_strip(image: ImageLike, instance: Instance) -> Sheet:
    """Return how the mask comes about: positive evidence + negative evidence = logits -> mask."""
    parts = Decomposition(instance)
    window = _box_window(instance, margin=0.15)
    original = read_image(image)
    colour = instance_colours(original, instance.prediction)[instance.index]
    pixels, shown = _at_display_size(original, instance.prediction)
    display = shown[instance.index]
    sides = [window.of(parts.positive), window.of(parts.negative)]
    limit = max(_limits(side[None], "shared")[0] for side in sides)
    logits = window.of(parts.logits)
    span = _image_span(window, display)
    cut, box = _cut(pixels, display, span)
    sheet = Sheet(
        title=f"How the mask is assembled: {instance_title(instance)}",
        subtitle="red is positive evidence, blue is negative; mask = logit > 0"
        + (", cropped to the box" if instance.rule.crops else ""),
        panels=(
            Panel("image", picture=cut, box=box),
            Panel("positive evidence", values=sides[0], limit=limit, sign=1, box=window.box),
            Panel("negative evidence", values=sides[1], limit=limit, sign=-1, box=window.box, joint="+"),
            Panel("mask logits (sum)", values=logits, limit=limit, box=window.box, outline=logits, joint="="),
            _masked("the mask", cut, display.mask("image")[span], colour, box, joint="→"),
        ),
        columns=5,
        scale=(limit, "contribution", "contribution to the logit"),
        size_wh=(2400, 640),
    )
    return in_shape(sheet, instance.letterbox)


def coefficient_view(image: ImageLike, instance: Instance, k: int) -> Sheet:
    """One coefficient: its prototype, what it contributes, and the mask with and without it.

    Raises
    ------
    InputError
        For an index out of range.
    """
    check_indices([k], len(instance.weights))
    parts = Decomposition(instance)
    window = _content_window(instance)
    original = read_image(image)
    colour = instance_colours(original, instance.prediction)[instance.index]
    pixels, shown = _at_display_size(original, instance.prediction)
    display = shown[instance.index]
    without = Edit(drop=[k], instances=[instance.index]).apply(shown)[instance.index].mask("image")
    span = _image_span(window, display)
    cut, box = _cut(pixels, display, span)
    weight, mean = float(instance.weights[k]), float(parts.mean_contributions[k])
    limit = _limits(parts.terms[:, *parts.box_window], "shared")[0]
    sheet = Sheet(
        title=f"Coefficient {k} is {signed(weight)}: {instance_title(instance)}",
        subtitle=f"prototype {k} of 0..{len(instance.weights) - 1}; the contribution is on the scale of all prototypes",
        panels=(
            _masked("the mask", cut, display.mask("image")[span], colour, box),
            Panel(
                f"prototype {k}",
                values=window.of(instance.prototypes[k]),
                limit=_limits(instance.prototypes, "shared")[0],
                map="prototype",
                box=window.box,
            ),
            Panel(
                f"contribution, mean {signed(mean)}",
                values=window.of(parts.terms[k]),
                limit=limit,
                sign=int(np.sign(mean)),
                box=window.box,
                outline=window.of(parts.logits),
            ),
            _masked(f"the mask without {k}", cut, without[span], colour, box),
        ),
        columns=4,
        scale=(limit, "contribution", "contribution to the logit"),
        size_wh=(2000, 560),
    )
    return in_shape(sheet, instance.letterbox)


def crop_view(image: ImageLike, instance: Instance) -> Sheet:
    """Return what the crop to the box removes: logits everywhere, the mask before and after the crop.

    Raises
    ------
    InputError
        For an instance without a box.
    """
    if not instance.prediction.has_boxes:
        raise InputError("the prediction has no boxes, so nothing is cropped and there is no crop to show")
    parts = Decomposition(instance)
    window = _content_window(instance)
    original = read_image(image)
    colour = instance_colours(original, instance.prediction)[instance.index]
    pixels, shown = _at_display_size(original, instance.prediction)
    display = shown[instance.index]
    logits = window.of(parts.logits)
    limit = _limits(parts.logits[None, *parts.box_window], "shared")[0]
    whole = display.alone.with_rule(replace(display.rule, crop="none", crop_image="none")).masks("image")[0]
    kept = display.mask("image")
    span = _image_span(window, display)
    cut, box = _cut(pixels, display, span)
    lost = whole & ~kept
    share = int(np.count_nonzero(lost)) / max(int(np.count_nonzero(whole)), 1)
    sheet = Sheet(
        title=f"Logits outside the box: {instance_title(instance)}",
        subtitle=f"the crop to the box removes {share:.1%} of the pixels with a logit above zero",
        panels=(
            Panel("logits everywhere, and the box", values=logits, limit=limit, box=window.box, outline=logits),
            _masked("logit > 0; striped: cropped", cut, kept[span], colour, box, joint="→", lost=lost[span]),
            _masked("the mask", cut, kept[span], colour, box, joint="→"),
        ),
        columns=3,
        notes=("Logits outside the box are not trained (the loss is cropped to boxes): ignore them.",),
        scale=(limit, "contribution", "logit"),
        size_wh=(2100, 760),
    )
    return in_shape(sheet, instance.letterbox)


def most_effective(parts: Decomposition, order: Order) -> tuple[Int64[np.ndarray, " M"], Int64[np.ndarray, " R"]]:
    """Return the prototypes to draw, in an order: all up to MOST_PANELS, else those of largest effect.

    And the others.
    """
    chosen = np.isin(parts.order(order), parts.order()[:MOST_PANELS])
    return parts.order(order)[chosen], parts.order()[MOST_PANELS:]


def in_shape(sheet: Sheet, letterbox: Letterbox) -> Sheet:
    """Return the sheet with grid values drawn in the shape of the image, where that was stretched for the model."""
    (cell_h, cell_w), (gain_y, gain_x) = (
        (canvas / grid for canvas, grid in zip(letterbox.canvas_hw, letterbox.grid_hw, strict=True)),
        letterbox.gain_yx,
    )
    aspect = cell_w / gain_x / (cell_h / gain_y)
    if letterbox.is_centred_fit or abs(aspect - 1) < _ROUND:  # sides are rounded to whole pixels
        return sheet
    panels = (panel if panel.values is None else replace(panel, pixel_aspect=aspect) for panel in sheet.panels)
    return replace(sheet, panels=tuple(panels))


def _at_least(width: int, height: int, side: int = 720) -> tuple[int, int]:
    """(width, height), enlarged so that labels do not hide a small image."""
    zoom = max(1.0, side / max(width, height))
    return round(width * zoom), round(height * zoom)


def _at_display_size(image: Picture, prediction: Prediction) -> tuple[Picture, Prediction]:
    """Return the image (RGB) shrunk to a size for pictures, and the prediction about that."""
    height, width = image.shape[:2]
    if (height, width) != prediction.image_size:
        raise InputError(
            f"the image is {width} x {height} pixels; the prediction is about one of "
            f"{prediction.image_size[1]} x {prediction.image_size[0]}"
        )
    rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    shrink = IMAGE_SIDE / max(height, width)
    if shrink >= 1:
        return rgb, prediction
    size = (max(round(width * shrink), 1), max(round(height * shrink), 1))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    return small, replace(prediction, letterbox=replace(prediction.letterbox, image_hw=size[::-1]))


def _content_window(instance: Instance) -> Window:
    """Return the cells of the grid that hold the image, without the letterbox padding."""
    letterbox = instance.letterbox
    height, width = letterbox.image_hw
    corners = letterbox.to_grid(letterbox.to_canvas(np.array([0, 0, width, height], dtype=np.float32)))
    return _window(instance, corners)


def _box_window(instance: Instance, margin: float = 0.0) -> Window:
    """Return the cells that the box touches, widened by a share of its sides."""
    x1, y1, x2, y2 = instance.letterbox.to_grid(instance.canvas_box)
    dx, dy = (x2 - x1) * margin, (y2 - y1) * margin
    content = _content_window(instance)
    corners = np.array(
        [
            max(x1 - dx, content.columns.start),
            max(y1 - dy, content.rows.start),
            min(x2 + dx, content.columns.stop),
            min(y2 + dy, content.rows.stop),
        ]
    )
    return _window(instance, corners)


def _window(instance: Instance, corners: Float32[np.ndarray, " 4"]) -> Window:
    height, width = instance.letterbox.grid_hw
    left = int(np.clip(np.floor(corners[0] + 1e-3), 0, width - 1))
    top = int(np.clip(np.floor(corners[1] + 1e-3), 0, height - 1))
    right = int(np.clip(np.ceil(corners[2] - 1e-3), left + 1, width))
    bottom = int(np.clip(np.ceil(corners[3] - 1e-3), top + 1, height))
    x1, y1, x2, y2 = (float(v) for v in instance.letterbox.to_grid(instance.canvas_box))
    return Window(slice(top, bottom), slice(left, right), (x1 - left, y1 - top, x2 - left, y2 - top))


def _image_span(window: Window, instance: Instance) -> tuple[slice, slice]:
    """Return the (rows, columns) of the image under a window of the grid; at least one pixel."""
    letterbox = instance.letterbox
    scale_y = letterbox.canvas_hw[0] / letterbox.grid_hw[0]
    scale_x = letterbox.canvas_hw[1] / letterbox.grid_hw[1]
    corners = np.array(
        [
            window.columns.start * scale_x,
            window.rows.start * scale_y,
            window.columns.stop * scale_x,
            window.rows.stop * scale_y,
        ],
        dtype=np.float32,
    )
    left, top, right, bottom = (round(float(v)) for v in letterbox.to_image(corners, clip=True))
    height, width = letterbox.image_hw
    top, left = min(top, height - 1), min(left, width - 1)
    return slice(top, max(bottom, top + 1)), slice(left, max(right, left + 1))


def _cut(
    image: Picture, instance: Instance, span: tuple[slice, slice]
) -> tuple[Picture, tuple[float, float, float, float]]:
    """Return the part of an image, and the box in its pixels."""
    x1, y1, x2, y2 = (float(v) for v in instance.box)
    rows, columns = span
    return image[span], (x1 - columns.start, y1 - rows.start, x2 - columns.start, y2 - rows.start)


def _masked(
    title: str,
    cut: Picture,
    mask: Bool[np.ndarray, "H W"],
    colour: RGB,
    box: tuple[float, float, float, float],
    *,
    joint: str = "",
    lost: Bool[np.ndarray, "H W"] | None = None,
) -> Panel:
    """Return a panel of a part of an image with its mask; `lost` pixels are striped, black and white.

    Small parts are enlarged first, so that the outline is thin on them, too.
    """
    zoom = max(1, round(_LEAST_SIDE / max(cut.shape[:2])))
    height, width = (length * zoom for length in cut.shape[:2])
    picture = cv2.resize(cut, (width, height), interpolation=cv2.INTER_LINEAR)
    inside = mask.repeat(zoom, axis=0).repeat(zoom, axis=1)
    whole = PaintedMask(slice(0, height), slice(0, width), inside, colour)
    painted = paint_masks(picture, [whole], line_px=line_width((height, width)))
    if lost is not None:
        away = lost.repeat(zoom, axis=0).repeat(zoom, axis=1)
        painted[away] = np.where(hatch((height, width))[away][:, None], np.uint8(0), np.uint8(255))
    x1, y1, x2, y2 = (edge * zoom for edge in box)
    return Panel(title, picture=painted, box=(x1, y1, x2, y2), joint=joint)


def _limits(values: Float32[np.ndarray, "K h w"], scale: Scale) -> list[float]:
    """Per panel the value at the end of the colour map: the 99.5th percentile of |value|, not its outliers."""
    if scale not in ("shared", "each"):
        raise InputError(f"scale is {scale!r}; expected 'shared' or 'each'")
    sizes = np.abs(values)
    if scale == "shared":
        # A sample is enough for a percentile, and sorting 800,000 values is not free.
        flat = sizes.reshape(-1)
        return [float(np.percentile(flat[:: max(1, len(flat) // 50_000)], 99.5)) or 1.0] * len(values)
    return [float(np.percentile(one, 99.5)) or 1.0 for one in sizes]


def signed(value: float) -> str:
    """Two decimals and a sign, unless they are 0.00; the minus is a true minus."""
    rounded = round(float(value), 2)
    return f"{rounded:+.2f}".replace("-", "−") if rounded else "0.00"


def _order_words(order: Order) -> str:
    return {
        "index": "in index order",
        "weight": "most positive weight first",
        "magnitude": "largest |weight| first",
        "effect": "largest effect inside the box first",
    }[order]


def instance_title(instance: Instance) -> str:
    """Number, class, score and image of an instance."""
    where = instance.prediction.source
    name = f" in {where.replace(chr(92), '/').rsplit('/', 1)[-1]}" if where else ""
    return f"instance {instance.index}, {instance.name} {instance.score:.2f}{name}"


def _image_title(prediction: Prediction) -> str:
    return (prediction.source or "image").replace("\\", "/").rsplit("/", 1)[-1]


def best_instances(prediction: Prediction, instance: int | Literal["all"] | None) -> Sequence[int]:
    """Return the instances to explain: the most confident one, one by number, or all.

    Raises
    ------
    InputError
        For a number out of range.
    """
    if instance == "all":
        return range(len(prediction))
    if instance is None:
        return [int(np.argmax(prediction.scores))] if len(prediction) else []
    if not 0 <= instance < len(prediction):
        raise InputError(
            f"instance {instance} is out of range: {_image_title(prediction)} has {len(prediction)} instances"
            + (f" (0..{len(prediction) - 1})" if len(prediction) else "")
        )
    return [instance]
