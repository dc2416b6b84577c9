"""An image and its ground truth, augmented: turned, scaled, moved, mirrored and recoloured by chance."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np

from maskprism.datasets.ground_truth import box_around

if TYPE_CHECKING:
    from jaxtyping import Float64, UInt8

    from maskprism.datasets.ground_truth import GroundTruth, Polygon, Segment

    Picture = UInt8[np.ndarray, "H W 3"]

LONGEST = 4096
"""Larger images are reduced to this side: OpenCV turns none above 32,767, and models see less."""
PADDING = (114, 114, 114)
_SCALES, _DEGREES, _PIXELS = (0.65, 1.5), 8.0, 8.0
_HUE, _SATURATION, _VALUE = 0.015, 0.5, 0.3


@dataclass(frozen=True, eq=False)
class Augmentation:
    """How an image is seen: point p, x and y in image pixels, lies at `linear @ p + shift` of a picture of `size_hw`.

    Attributes
    ----------
    colour
        Added to the hue, as a share of the circle; and what saturation and value are multiplied by.
    """

    linear: Float64[np.ndarray, "2 2"]
    shift: Float64[np.ndarray, " 2"]
    size_hw: tuple[int, int]
    colour: tuple[float, float, float] = (0.0, 1.0, 1.0)

    @classmethod
    def mirror(cls, image_hw: tuple[int, int]) -> Augmentation:
        """In a mirror: `image[:, ::-1]`, reduced where it is larger than LONGEST."""
        height, width = size_hw = _reduced(image_hw)
        return cls(np.diag([-width / image_hw[1], height / image_hw[0]]), np.array([width, 0.0]), size_hw)

    @classmethod
    def drawn(cls, rng: np.random.Generator, image_hw: tuple[int, int]) -> Augmentation:
        """Draw a random view.

        It is 0.65 to 1.5 times as large, turned by up to 8 degrees, moved within what that leaves and 8 pixels more,
        mirrored every other time, and of other colours.
        """
        height, width = size_hw = _reduced(image_hw)
        size = np.array([width, height], dtype=np.float64)
        scale = float(np.exp(rng.uniform(*np.log(_SCALES))))
        angle = np.deg2rad(rng.uniform(-_DEGREES, _DEGREES))
        cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
        turned = np.array([[cosine, -sine], [sine, cosine]])
        if rng.random() < 0.5:
            turned = turned * [-1, 1]
        moved = rng.uniform(-0.5, 0.5, 2) * abs(1 - scale) * size + rng.uniform(-_PIXELS, _PIXELS, 2)
        hue, saturation, value = rng.uniform(-1, 1, 3) * (_HUE, _SATURATION, _VALUE)
        return cls(
            linear=turned * (size / image_hw[::-1]),
            shift=size / 2 - turned @ (size / 2) + moved,
            size_hw=size_hw,
            colour=(float(hue), 1 + float(saturation), 1 + float(value)),
        )

    def image(self, image: Picture) -> Picture:
        """Return the picture, HWC uint8 in BGR; grey where the image does not reach."""
        seen = self._turned(image, cv2.INTER_AREA, cv2.INTER_LINEAR, PADDING)
        hue, saturation, value = self.colour
        if self.colour != (0.0, 1.0, 1.0):
            hsv = cv2.cvtColor(seen, cv2.COLOR_BGR2HSV).astype(np.float32)
            hsv[..., 0] = (hsv[..., 0] + 180 * hue) % 180
            hsv[..., 1:] = np.clip(hsv[..., 1:] * np.array([saturation, value], dtype=np.float32), 0, 255)
            seen = cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2BGR)
        return seen

    def truth(self, truth: GroundTruth) -> GroundTruth:
        """Return the ground truth of the picture; instances that have left it are left out."""
        segments: list[Segment] = []
        boxes, kept = [], []
        for index, (segment, box) in enumerate(zip(truth.segments, truth.boxes, strict=True)):
            seen = self._segment(segment)
            corners = self._points(box[[0, 1, 2, 1, 2, 3, 0, 3]].reshape(4, 2))
            visible = tuple(_within(polygon, *self.size_hw[::-1]) for polygon in seen) if type(seen) is tuple else seen
            around = box_around(visible, [*corners.min(axis=0), *corners.max(axis=0)], self.size_hw)
            if around[2] > around[0] and around[3] > around[1]:
                segments.append(seen)
                boxes.append(around)
                kept.append(index)
        return replace(
            truth.select(kept),
            segments=tuple(segments),
            boxes=np.array(boxes, dtype=np.float32).reshape(-1, 4),
            image_hw=self.size_hw,
        )

    def _turned(
        self, pixels: UInt8[np.ndarray, "..."], reduce_by: int, turn_by: int, border: tuple[int, ...]
    ) -> UInt8[np.ndarray, "..."]:
        height, width = self.size_hw
        linear = self.linear / (np.array([width, height]) / pixels.shape[1::-1])
        if pixels.shape[:2] != self.size_hw:
            pixels = cv2.resize(pixels, (width, height), interpolation=reduce_by).astype(np.uint8, copy=False)
        shift = self.shift + linear @ [0.5, 0.5] - 0.5  # OpenCV counts from the centre of the first pixel
        matrix = np.concatenate([linear, shift[:, None]], axis=1)
        seen = cv2.warpAffine(
            pixels, matrix, (width, height), flags=turn_by, borderMode=cv2.BORDER_CONSTANT, borderValue=border
        )
        return seen.astype(np.uint8, copy=False)

    def _points(self, points: Polygon) -> Float64[np.ndarray, "P 2"]:
        return points.astype(np.float64) @ self.linear.T + self.shift

    def _segment(self, segment: Segment) -> Segment:
        if segment is None:
            return None
        if isinstance(segment, np.ndarray):
            return self._turned(segment.astype(np.uint8), cv2.INTER_NEAREST_EXACT, cv2.INTER_NEAREST, (0,)) > 0
        return tuple(self._points(polygon) for polygon in segment)


def _reduced(image_hw: tuple[int, int]) -> tuple[int, int]:
    height, width = (max(round(side * min(1.0, LONGEST / max(image_hw))), 1) for side in image_hw)
    return height, width


def _within(polygon: Polygon, width: int, height: int) -> Float64[np.ndarray, "Q 2"]:
    """Return what of a polygon lies in a picture: cut along one side after the other (Sutherland and Hodgman, 1974).

    Parts that fall asunder stay joined along the side, where they have no area.
    """
    for axis, limit, sign in ((0, 0, 1), (0, width, -1), (1, 0, 1), (1, height, -1)):
        if not len(polygon):
            break
        beyond = sign * (polygon[:, axis] - limit)
        ends, next_beyond = np.roll(polygon, -1, axis=0), np.roll(beyond, -1)
        crossing = (beyond >= 0) != (next_beyond >= 0)
        share = np.divide(beyond, beyond - next_beyond, out=np.zeros_like(beyond), where=crossing)
        points = np.stack([polygon, polygon + share[:, None] * (ends - polygon)], axis=1)
        polygon = points[np.stack([beyond >= 0, crossing], axis=1)]
    return polygon
