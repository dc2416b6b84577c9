"""Slow and obvious twins of YOLACT's decoding, one prior, one box, one class at a time, from the papers' equations."""

from __future__ import annotations

import math

from helpers.reference import iou

RATIOS = (1.0, 1 / 2, 2.0)


def priors(canvas_hw: tuple[int, int], scales: list[list[float]], square: bool) -> list[list[float]]:
    """cx, cy, w, h as shares of the canvas: levels, rows, cells, scales, ratios, the last the fastest."""
    sides = [math.ceil(canvas_hw[0] / 8), math.ceil(canvas_hw[1] / 8)]
    found = []
    for of_level in scales:
        for row in range(sides[0]):
            for column in range(sides[1]):
                for scale in of_level:
                    for ratio in RATIOS:
                        width = scale * math.sqrt(ratio) / max(canvas_hw)
                        height = width if square else scale / math.sqrt(ratio) / max(canvas_hw)
                        found.append([(column + 0.5) / sides[1], (row + 0.5) / sides[0], width, height])
        sides = [math.ceil(side / 2) for side in sides]
    return found


def decoded(offset: list[float], prior: list[float]) -> list[float]:
    """SSD: the centre moves by a tenth of the prior's side for each unit, sides grow by exp of a fifth."""
    dx, dy, dw, dh = offset
    cx, cy, w, h = prior
    x, y = cx + dx * 0.1 * w, cy + dy * 0.1 * h
    width, height = w * math.exp(dw * 0.2), h * math.exp(dh * 0.2)
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]


def fast_nms(boxes: list[list[float]], scores: list[float], threshold: float, most: int) -> list[int]:
    """A box stays if no better one overlaps it too much, whether that one stays or not."""
    order = sorted(range(len(boxes)), key=lambda i: (-scores[i], i))[:most]
    return [
        i for place, i in enumerate(order) if all(iou(boxes[i], boxes[better]) <= threshold for better in order[:place])
    ]


def detections(
    boxes: list[list[float]], scores: list[list[float]], conf: float, threshold: float, most: int, per_class: int = 200
) -> list[tuple[int, int]]:
    """(candidate, class) as YOLACT finds them; scores per candidate, the background first.

    Candidates are those that are above `conf` in some class. In every class all of them take part in Fast NMS, also
    those that are not above `conf` in this one; those are left out at the end only.
    """
    candidates = [i for i, row in enumerate(scores) if max(row[1:]) > conf]
    found = []
    for class_id in range(len(scores[0]) - 1 if scores else 0):
        of_class = [scores[i][1 + class_id] for i in candidates]
        kept = fast_nms([boxes[i] for i in candidates], of_class, threshold, per_class)
        found += [(candidates[i], class_id) for i in kept]
    found.sort(key=lambda pair: -scores[pair[0]][1 + pair[1]])
    return [(i, class_id) for i, class_id in found[:most] if scores[i][1 + class_id] > conf]
