"""A drawn scene with a prediction about it, made by construction rather than by a network.

For teaching and for tests: it needs no weights, and the ground truth is known. The prototypes are
what real networks tend to learn (positions, colours, edges, groups of objects), pushed through
SiLU as in YOLO; the coefficients are fitted to the true masks by least squares, so the masks are
good and, as in real networks, not perfect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from maskprism.geometry import Letterbox
from maskprism.masks import ULTRALYTICS
from maskprism.prediction import Prediction

if TYPE_CHECKING:
    from jaxtyping import Bool, Float32, UInt8

    Grid = Float32[np.ndarray, "h w"]

NAMES = {0: "disc", 1: "ring", 2: "star", 3: "crescent", 4: "bar"}
_STRIDE = 4
_TARGET_LOGIT = 6.0


class Scene(NamedTuple):
    """A photograph (HWC uint8 in BGR), a prediction about it, and the visible part of every object."""

    photograph: UInt8[np.ndarray, "H W 3"]
    prediction: Prediction
    masks: Bool[np.ndarray, "N H W"]


def scene(seed: int = 0, *, size_hw: tuple[int, int] = (480, 640), prototypes: int = 32) -> Scene:
    """Draw five objects, partly occluding each other, and explain them with that many prototypes.

    `size_hw` must be multiples of 32; `prototypes` at least 8.
    """
    rng = np.random.default_rng(seed)
    photograph, masks = _draw(rng, size_hw)
    letterbox = Letterbox.fit(size_hw, size_hw)
    grid_hw = letterbox.grid_hw
    basis = _silu(_features(rng, photograph, masks, grid_hw, prototypes)).astype(np.float32)
    boxes = np.array([_bounds(mask) for mask in masks], dtype=np.float32)
    coefficients = np.stack([_fit(basis, mask, box) for mask, box in zip(masks, boxes, strict=True)])
    return Scene(
        photograph,
        Prediction(
            canvas_boxes=boxes + rng.normal(0, 1.0, boxes.shape).astype(np.float32),
            scores=np.sort(rng.uniform(0.6, 0.97, len(masks)).astype(np.float32))[::-1].copy(),
            classes=np.arange(len(masks)),
            coefficients=coefficients,
            prototypes=basis,
            letterbox=letterbox.with_grid(grid_hw),
            rule=ULTRALYTICS,
            names=NAMES,
            source=f"scene {seed}",
        ),
        masks,
    )


def _draw(
    rng: np.random.Generator, size_hw: tuple[int, int]
) -> tuple[UInt8[np.ndarray, "H W 3"], Bool[np.ndarray, "N H W"]]:
    height, width = size_hw
    canvas = _texture(rng, size_hw, np.array([150, 160, 165]), contrast=22)
    colours = np.array([[60, 90, 200], [190, 120, 40], [70, 170, 210], [150, 70, 150], [80, 150, 70]])
    masks = np.zeros((len(NAMES), height, width), dtype=bool)
    unit = min(size_hw)
    for index, (x, y) in enumerate([(0.22, 0.32), (0.5, 0.27), (0.79, 0.36), (0.33, 0.68), (0.66, 0.7)]):
        centre = np.array([x * width, y * height]) + rng.normal(0, unit * 0.03, 2)
        radius = unit * rng.uniform(0.17, 0.23)
        shape = _silhouette(NAMES[index], centre, radius, rng.uniform(0, 2 * np.pi), size_hw)
        masks[:index] &= ~shape  # later objects lie on top
        masks[index] = shape
        surface = _texture(rng, size_hw, colours[index], contrast=14)
        shade = np.linspace(1.12, 0.8, height, dtype=np.float32)[:, None, None]
        canvas = np.where(shape[:, :, None], surface * shade, canvas)
    noisy = cv2.GaussianBlur(canvas, (0, 0), 0.8) + rng.normal(0, 4, canvas.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8), masks


def _silhouette(
    name: str, centre: Float32[np.ndarray, " 2"], radius: float, angle: float, size_hw: tuple[int, int]
) -> Bool[np.ndarray, "H W"]:
    ys, xs = np.mgrid[: size_hw[0], : size_hw[1]]
    dx, dy = xs - centre[0], ys - centre[1]
    u, v = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
    distance = np.hypot(u, v)
    if name == "disc":
        return distance < radius
    if name == "ring":
        return (distance < radius) & (distance > radius * 0.5)
    if name == "star":
        return distance < radius * (0.72 + 0.33 * np.cos(5 * np.arctan2(v, u)))
    if name == "crescent":
        return (distance < radius) & (np.hypot(u - radius * 0.5, v) > radius * 0.72)
    return (np.abs(u) < radius * 1.35) & (np.abs(v) < radius * 0.3)


def _texture(
    rng: np.random.Generator, size_hw: tuple[int, int], colour: Float32[np.ndarray, " 3"], contrast: float
) -> Float32[np.ndarray, "H W 3"]:
    coarse = rng.normal(0, 1, (size_hw[0] // 16, size_hw[1] // 16)).astype(np.float32)
    pattern = cv2.resize(coarse, size_hw[::-1], interpolation=cv2.INTER_CUBIC)
    return colour.astype(np.float32) + contrast * pattern[:, :, None]


def _features(
    rng: np.random.Generator,
    photograph: UInt8[np.ndarray, "H W 3"],
    masks: Bool[np.ndarray, "N H W"],
    grid_hw: tuple[int, int],
    count: int,
) -> Float32[np.ndarray, "K h w"]:
    """Grid images in the units of a last layer before SiLU: positions, colours, edges, object groups."""
    height, width = grid_hw
    small = cv2.resize(photograph, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j].astype(np.float32)
    grey = small.mean(axis=2)
    edges = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    shapes = [
        cv2.GaussianBlur(
            cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA), (0, 0), 0.7
        )
        for mask in masks
    ]
    centred = (small - small.mean((0, 1))).transpose(2, 0, 1)
    found = [x - 0.5, y - 0.5, 0.5 - x, 0.5 - y, 3 * edges, *centred]
    while len(found) < count:
        # Never one object alone: masks have to be carved out of groups, as in real networks.
        members = rng.choice(len(shapes), rng.integers(2, len(shapes)), replace=False)
        group = np.sum([shapes[i] for i in members], axis=0) - 0.35
        kind = rng.integers(3)
        if kind == 0:  # what of the group lies on one side
            side = np.cos(angle := rng.uniform(0, 2 * np.pi)) * (x - 0.5) + np.sin(angle) * (y - 0.5)
            found.append(np.minimum(group, 4 * side))
        elif kind == 1:  # the group against its surroundings and edges
            found.append(group + rng.normal(0, 1.5) * edges)
        else:  # the group under a colour
            found.append(group + rng.normal(0, 1.5) * centred[rng.integers(3)])
    stacked = np.stack(found[:count]).astype(np.float32)
    stacked = stacked / np.maximum(stacked.std(axis=(1, 2), keepdims=True), 1e-6)
    return 1.2 * stacked[rng.permutation(count)] - 0.3


def _silu(x: Float32[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
    return x / (1 + np.exp(-x))


def _fit(
    basis: Float32[np.ndarray, "K h w"], mask: Bool[np.ndarray, "H W"], box: Float32[np.ndarray, " 4"]
) -> Float32[np.ndarray, " K"]:
    """Ridge regression of the prototypes inside the box onto positive logits in the mask, negative outside."""
    x1, y1, x2, y2 = (int(v) for v in (*np.floor(box[:2] / _STRIDE), *np.ceil(box[2:] / _STRIDE)))
    area = cv2.resize(mask.astype(np.float32), basis.shape[:0:-1], interpolation=cv2.INTER_AREA)[y1:y2, x1:x2]
    inputs = basis[:, y1:y2, x1:x2].reshape(len(basis), -1).T
    target = (2 * area.reshape(-1) - 1) * _TARGET_LOGIT
    gram = inputs.T @ inputs + 0.02 * len(inputs) * np.eye(len(basis), dtype=np.float32)
    return np.linalg.solve(gram, inputs.T @ target).astype(np.float32)


def _bounds(mask: Bool[np.ndarray, "H W"]) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
