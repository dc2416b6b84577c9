"""Drawn scenes with exact ground truth: the images that the bundled model learned from.

Every scene is drawn from its seed alone: objects of ten classes with textured and shaded surfaces,
turned, scaled and partly hidden by each other, over textured backgrounds, under changing light.
Colours and textures are drawn independently of the class, so that only shape tells it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np
import yaml

from maskprism._common.files import write_atomically
from maskprism.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float32, Int64, UInt8

    Generator = np.random.Generator
    Points = np.ndarray[Any, np.dtype[np.float64]]
    Outline = list[Points]

NAMES = {
    0: "disc",
    1: "ring",
    2: "star",
    3: "crescent",
    4: "cross",
    5: "letter",
    6: "blob",
    7: "bar",
    8: "heart",
    9: "arrow",
}
REFERENCE_SIDE = 320
"""Sizes in this module are pixels of a scene whose shorter side is this; other scenes scale them."""
SMALLEST_AREA = 120
"""Visible pixels that every object keeps."""
SMALLEST_SHARE = 0.6
"""Share of its whole shape that every object shows: the rest may be hidden or beyond the border."""
SceneKind = Literal["shapes", "long"]
_KINDS: dict[SceneKind, Sequence[int]] = {"shapes": range(len(NAMES)), "long": (7,)}
_LONGER = 1.5
_FEWEST, _MOST = 3, 12
_TRIES = 12
_SHIFT = 4


@dataclass(frozen=True, eq=False)
class Scene:
    """An image and the ground truth of its N objects, in the order in which they were laid down.

    Attributes
    ----------
    image
        HWC uint8 in BGR.
    classes
        Keys of `NAMES`.
    owners
        Per pixel 0 for the background, i + 1 for object i; so visible masks never overlap.
    """

    image: UInt8[np.ndarray, "H W 3"]
    classes: Int64[np.ndarray, " N"]
    owners: UInt8[np.ndarray, "H W"]

    def __len__(self) -> int:
        return len(self.classes)

    @cached_property
    def masks(self) -> Bool[np.ndarray, "N H W"]:
        """The visible part of every object."""
        return self.owners[None] == np.arange(1, len(self) + 1, dtype=np.uint8)[:, None, None]

    @cached_property
    def boxes(self) -> Float32[np.ndarray, "N 4"]:
        """x1, y1, x2, y2 around the visible part of every object, in pixels."""
        return np.array([_bounds(mask) for mask in self.masks], dtype=np.float32).reshape(-1, 4)


def draw_scene(
    seed: int, size_hw: tuple[int, int] = (REFERENCE_SIDE, REFERENCE_SIDE), *, kind: SceneKind = "shapes"
) -> Scene:
    """Draw 3 to 12 objects; the same seed, size and kind give the same scene.

    Parameters
    ----------
    seed
        Of everything that is drawn at random.
    size_hw
        (height, width) in pixels.
    kind
        "shapes" has objects of all classes; "long" has long thin bars, level or upright, 1.5 times as long as those
        of "shapes".

    Raises
    ------
    InputError
        For a scene of less than 64 pixels, or a kind that there is not.
    """
    if kind not in _KINDS:
        raise InputError(f"kind is {kind!r}; expected one of {', '.join(map(repr, _KINDS))}")
    height, width = size_hw
    if min(height, width) < 64:
        raise InputError(f"size_hw is {height} x {width}; expected at least 64 x 64")
    rng = np.random.default_rng(seed)
    scale = min(height, width) / REFERENCE_SIDE
    picture = _surface(rng, (height, width), scale, contrast=rng.uniform(0.15, 0.6))
    owners = np.zeros((height, width), dtype=np.uint8)
    light = rng.uniform(0, 2 * np.pi)
    classes: list[int] = []
    wholes: list[int] = []  # pixels of every whole shape, and those that still show
    visible: list[int] = []
    wanted = int(rng.integers(_FEWEST, _MOST + 1))
    for attempt in range(4 * _MOST):
        if attempt >= wanted and len(classes) >= _FEWEST:
            break
        class_id = _KINDS[kind][int(rng.integers(len(_KINDS[kind])))]
        placed = _place(rng, class_id, owners, wholes, visible, scale, kind)
        if placed is None:
            continue
        x, y, mask, whole, visible = placed
        _paint(rng, picture, x, y, mask, light, scale)
        window = owners[y : y + mask.shape[0], x : x + mask.shape[1]]
        window[mask > 0] = len(classes) + 1
        classes.append(class_id)
        wholes.append(whole)
    return Scene(_expose(rng, picture), np.array(classes, dtype=np.int64), owners)


def write_dataset(
    folder: str | Path, count: int, *, seed: int = 0, validation_share: float = 0.2, kind: SceneKind = "shapes"
) -> Path:
    """Write scenes as a YOLO-seg data set (images, polygon labels, data.yaml); returns data.yaml.

    Objects of several parts, or with holes, become one polygon whose parts are joined by lines, as the format asks;
    where such a line crosses other ground, Ultralytics takes the pixels on it for the object.
    """
    folder = Path(folder)
    first_validation = count - round(count * validation_share)
    for number in range(count):
        split = "train" if number < first_validation else "val"
        scene = draw_scene(seed + number, kind=kind)
        height, width = scene.owners.shape
        rows = [
            f"{class_id} " + " ".join(f"{value:.5f}" for value in (_polygon(mask) / (width, height)).reshape(-1))
            for class_id, mask in zip(scene.classes, scene.masks, strict=True)
        ]
        stem = f"scene_{seed + number:06d}"
        encoded = cv2.imencode(".png", scene.image)[1]
        write_atomically(folder / "images" / split / f"{stem}.png", encoded.tobytes())
        write_atomically(folder / "labels" / split / f"{stem}.txt", "\n".join(rows) + "\n")
    description = {"path": str(folder.resolve()), "train": "images/train", "val": "images/val", "names": NAMES}
    return write_atomically(folder / "data.yaml", yaml.safe_dump(description, sort_keys=False))


# Outlines: one or more closed polygons within about -1..1, filled by the even-odd rule.


def _circle(radius_x: float, radius_y: float, count: int = 48) -> Points:
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack([radius_x * np.cos(angle), radius_y * np.sin(angle)], axis=1)


def _disc(rng: Generator) -> Outline:
    return [_circle(1, rng.uniform(0.7, 1))]


def _ring(rng: Generator) -> Outline:
    aspect, hole = rng.uniform(0.75, 1), rng.uniform(0.45, 0.65)
    return [_circle(1, aspect), _circle(hole, hole * aspect)]


def _star(rng: Generator) -> Outline:
    points = int(rng.integers(5, 8))
    angle = np.linspace(0, 2 * np.pi, 2 * points, endpoint=False)
    radius = np.where(np.arange(2 * points) % 2 == 0, 1.0, rng.uniform(0.42, 0.55))
    return [np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)]


def _crescent(rng: Generator) -> Outline:
    half = rng.uniform(1.9, 2.3)  # how far the tips reach around
    outer = np.linspace(-half, half, 40)
    tip_x, tip_y = np.cos(half), np.sin(half)
    depth = rng.uniform(0.15, 0.4)  # where the inner edge crosses the axis
    centre = (depth**2 - tip_x**2 - tip_y**2) / (2 * (depth - tip_x))
    radius = depth - centre
    reach = np.arctan2(tip_y, tip_x - centre)
    inner = np.linspace(reach, -reach, 32)
    return [
        np.concatenate(
            [
                np.stack([np.cos(outer), np.sin(outer)], axis=1),
                np.stack([centre + radius * np.cos(inner), radius * np.sin(inner)], axis=1),
            ]
        )
    ]


def _cross(rng: Generator) -> Outline:
    w = rng.uniform(0.26, 0.4)
    x = rng.uniform(0.8, 1)
    return [
        np.array(
            [(-w, -1), (w, -1), (w, -w), (x, -w), (x, w), (w, w), (w, 1), (-w, 1), (-w, w), (-x, w), (-x, -w), (-w, -w)]
        )
    ]


def _letter(rng: Generator) -> Outline:
    w = rng.uniform(0.34, 0.44)
    x = rng.uniform(0.7, 0.85)
    e = [(-x, -1), (x, -1), (x, -1 + w), (-x + w, -1 + w), (-x + w, -w / 2), (x * 0.7, -w / 2), (x * 0.7, w / 2)]
    e += [(-x + w, w / 2), (-x + w, 1 - w), (x, 1 - w), (x, 1), (-x, 1)]
    f = [*e[:8], (-x + w, 1), (-x, 1)]
    h = [(-x, -1), (-x + w, -1), (-x + w, -w / 2), (x - w, -w / 2), (x - w, -1), (x, -1), (x, 1), (x - w, 1)]
    h += [(x - w, w / 2), (-x + w, w / 2), (-x + w, 1), (-x, 1)]
    return [np.array((e, f, h)[rng.integers(3)], dtype=np.float64)]


def _blob(rng: Generator) -> Outline:
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    radius = np.ones_like(angle)
    for waves, strength in ((2, 0.15), (3, 0.22), (5, 0.16)):
        radius += strength * rng.uniform(0.6, 1) * np.cos(waves * angle + rng.uniform(0, 2 * np.pi))
    radius /= radius.max()
    return [np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)]


def _bar(rng: Generator) -> Outline:
    w = rng.uniform(0.12, 0.18)
    end = np.linspace(-np.pi / 2, np.pi / 2, 9)
    cap = np.stack([1 - w + w * np.cos(end), w * np.sin(end)], axis=1)
    return [np.concatenate([cap, -cap])]


def _heart(rng: Generator) -> Outline:
    t = np.linspace(0, 2 * np.pi, 56, endpoint=False)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return [np.stack([16 * np.sin(t), -(y + 2.5) * rng.uniform(0.85, 1.05)], axis=1) / 17]


def _arrow(rng: Generator) -> Outline:
    w, head, neck = rng.uniform(0.17, 0.26), rng.uniform(0.55, 0.72), rng.uniform(-0.1, 0.2)
    return [np.array([(-1, -w), (neck, -w), (neck, -head), (1, 0), (neck, head), (neck, w), (-1, w)])]


_OUTLINES: tuple[Callable[[Generator], Outline], ...] = (
    _disc,
    _ring,
    _star,
    _crescent,
    _cross,
    _letter,
    _blob,
    _bar,
    _heart,
    _arrow,
)
_RADII = {7: (38.0, 78.0)}
"""Range of half the longest side, where it differs from the usual one."""
_USUAL_RADII = (20.0, 66.0)


def _place(
    rng: Generator,
    class_id: int,
    owners: UInt8[np.ndarray, "H W"],
    wholes: list[int],
    visible: list[int],
    scale: float,
    kind: SceneKind,
) -> tuple[int, int, UInt8[np.ndarray, "h w"], int, list[int]] | None:
    """Find a place where the object and all earlier ones still show enough; None if there is none.

    Returns left, top, the mask of the part within the picture, the area of the whole shape, and the
    visible areas of all objects with this one.
    """
    height, width = owners.shape
    needed = np.maximum(SMALLEST_AREA * scale**2, SMALLEST_SHARE * np.array(wholes))
    for _ in range(_TRIES):
        low, high = _RADII.get(class_id, _USUAL_RADII)
        radius = scale * np.exp(rng.uniform(np.log(low), np.log(high)))
        angle = rng.uniform(0, 2 * np.pi)
        if kind == "long":
            radius, angle = radius * _LONGER, rng.integers(4) * np.pi / 2 + rng.normal(0, 0.06)
        turn = np.array([(np.cos(angle), np.sin(angle)), (-np.sin(angle), np.cos(angle))])
        outline = [radius * polygon @ turn for polygon in _OUTLINES[class_id](rng)]
        inset = min(0.6 * radius, 30 * scale)
        centre = rng.uniform((inset, inset), (width - inset, height - inset))
        points = np.concatenate(outline)
        left, top = np.floor(centre + points.min(axis=0)).astype(int)
        right, bottom = np.ceil(centre + points.max(axis=0)).astype(int) + 1
        stamp = np.zeros((bottom - top, right - left), dtype=np.uint8)
        scaled = [np.round((p + centre - (left, top)) * (1 << _SHIFT)).astype(np.int32) for p in outline]
        cv2.fillPoly(stamp, scaled, 255, shift=_SHIFT)
        whole = int(np.count_nonzero(stamp))
        x, y = max(left, 0), max(top, 0)
        stamp = stamp[y - top : height - top, x - left : width - left]
        shown = int(np.count_nonzero(stamp))
        if shown < max(SMALLEST_AREA * scale**2, 0.6 * whole):
            continue
        hidden = owners[y : y + stamp.shape[0], x : x + stamp.shape[1]][stamp > 0]
        left_over = np.array(visible, dtype=int) - np.bincount(hidden, minlength=len(wholes) + 1)[1:]
        if (left_over >= needed).all():
            return x, y, stamp, whole, [*left_over.tolist(), shown]
    return None


def _paint(
    rng: Generator,
    picture: Float32[np.ndarray, "H W 3"],
    x: int,
    y: int,
    mask: UInt8[np.ndarray, "h w"],
    light: float,
    scale: float,
) -> None:
    """Lay a textured, shaded object onto the picture, with a soft shadow beside it."""
    height, width = picture.shape[:2]
    h, w = mask.shape
    blur = rng.uniform(1.5, 5) * scale
    distance = rng.uniform(1, 6) * scale
    margin = int(np.ceil(2 * blur + distance)) + 1
    top, left, bottom, right = (
        max(y - margin, 0),
        max(x - margin, 0),
        min(y + h + margin, height),
        min(x + w + margin, width),
    )
    wide = np.zeros((bottom - top, right - left), dtype=np.float32)
    wide[y - top : y - top + h, x - left : x - left + w] = mask / np.float32(255)
    move = np.array([(1, 0, distance * np.cos(light)), (0, 1, distance * np.sin(light))], dtype=np.float32)
    shadow = cv2.GaussianBlur(cv2.warpAffine(wide, move, wide.shape[::-1]), (0, 0), blur)
    window = picture[top:bottom, left:right]
    window *= 1 - (shadow * np.float32(rng.uniform(0.15, 0.6)))[..., None]

    under = window[wide > 0].mean(axis=0)
    surface = _surface(rng, wide.shape, scale, contrast=rng.uniform(0.1, 0.5), apart_from=under)
    rows = np.linspace(-1, 1, wide.shape[0], dtype=np.float32)[:, None]
    columns = np.linspace(-1, 1, wide.shape[1], dtype=np.float32)
    slope = -(np.cos(light) * columns + np.sin(light) * rows)
    shade = (
        1 + np.float32(rng.uniform(0, 0.3)) * slope - np.float32(rng.uniform(0, 0.25)) * (rows**2 + columns**2 - 0.6)
    )
    surface *= shade[..., None]
    alpha = cv2.GaussianBlur(wide, (3, 3), 0.6)[..., None]
    window += alpha * (surface - window)


def _surface(
    rng: Generator,
    size_hw: tuple[int, ...],
    scale: float,
    contrast: float,
    apart_from: Float32[np.ndarray, " 3"] | None = None,
) -> Float32[np.ndarray, "H W 3"]:
    """Return a textured surface of two colours in 0..1; not of the colour `apart_from`."""
    for _ in range(8):
        base = rng.uniform(0.05, 0.98, 3)
        base += (1 - rng.uniform(0.3, 1)) * (base.mean() - base)
        if apart_from is None or np.abs(base - apart_from).max() > 0.25:
            break
    other = np.clip(base + contrast * rng.uniform(-1, 1, 3), 0, 1)
    weight = _pattern(rng, (size_hw[0], size_hw[1]), scale)[..., None]
    return base.astype(np.float32) + weight * (other - base).astype(np.float32)


def _pattern(rng: Generator, size_hw: tuple[int, int], scale: float) -> Float32[np.ndarray, "H W"]:
    """Weights in 0..1: plain, gradient, stripes, checks, dots, fine or coarse noise."""
    height, width = size_hw
    kind = rng.integers(7)
    if kind >= 5:
        cell = scale * (rng.uniform(1.5, 4) if kind == 5 else rng.uniform(10, 40))
        coarse = rng.random((int(height / cell) + 2, int(width / cell) + 2), dtype=np.float32)
        return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    angle = rng.uniform(0, 2 * np.pi)
    x = np.arange(width, dtype=np.float32)
    y = np.arange(height, dtype=np.float32)[:, None]
    along = np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y
    if kind <= 1:
        along -= along.min()
        return along / max(float(along.max()), 1) if kind else np.zeros(size_hw, dtype=np.float32)
    pitch = 2 * np.pi / (scale * rng.uniform(7, 26))
    wave = np.sin(np.float32(pitch) * along + np.float32(rng.uniform(0, 6)))
    if kind > 2:  # checks and dots: waves in both directions
        across = np.float32(-np.sin(angle)) * x + np.float32(np.cos(angle)) * y
        wave = wave * np.sin(np.float32(pitch) * across)
        wave = wave - np.float32(0.35) if kind == 4 else wave
    return np.clip(np.float32(rng.uniform(1, 4)) * wave + np.float32(0.5), 0, 1)


def _expose(rng: Generator, picture: Float32[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
    """Uneven light, blur, noise, brightness and contrast, then 8 bits."""
    height, width = picture.shape[:2]
    falloff = cv2.resize(
        rng.uniform(0.75, 1.15, (2, 2)).astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR
    )
    picture *= falloff[..., None] * np.float32(rng.uniform(0.85, 1.1))
    if rng.random() < 0.4:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.4, 1.0))
    noise = rng.standard_normal((height, width), dtype=np.float32)
    picture += np.float32(rng.uniform(0.005, 0.03)) * noise[..., None]
    return np.clip(picture * 255 + 0.5, 0, 255).astype(np.uint8)


def _bounds(mask: Bool[np.ndarray, "H W"]) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _polygon(mask: Bool[np.ndarray, "H W"]) -> Points:
    """One closed path around a mask: further parts and holes are joined to it by lines there and back."""
    # At twice the size the path runs around pixel centres, so that drawing it gives every pixel back.
    twice = mask.astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    found, _ = cv2.findContours(twice, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    contours = sorted((contour.reshape(-1, 2) for contour in found if len(contour) > 2), key=len, reverse=True)
    path = contours[0]
    for contour in contours[1:]:
        apart = np.abs(path[:, None] - contour[None]).sum(axis=2)
        here, there = np.unravel_index(int(apart.argmin()), apart.shape)
        detour = np.concatenate([np.roll(contour, -there, axis=0), contour[there : there + 1]])
        path = np.concatenate([path[: here + 1], detour, path[here:]])
    return (path.astype(np.float64) + 0.5) / 2
