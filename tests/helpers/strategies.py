"""Hypothesis strategies for letterboxes, boxes and predictions."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from maskprism import Letterbox, MaskRule, Prediction, Preprocessing
from maskprism.core.masks import RULES

seeds = st.integers(0, 2**32 - 1)


@st.composite
def letterboxes(draw: st.DrawFn, largest: int = 60) -> Letterbox:
    """Fitted, cut to a rectangle, in a corner, with a limit, or stretched; over grids of stride 2, 4 or 8."""
    side = st.integers(1, largest)
    canvas_side = st.sampled_from([16, 32, 48])
    image_hw, canvas_hw = (draw(side), draw(side)), (draw(canvas_side), draw(canvas_side))
    kind = draw(st.sampled_from(["fit", "fit", "rectangle", "corner", "shortest", "stretch"]))
    rule = Preprocessing(
        "any",
        resize="stretch" if kind == "stretch" else "corner" if kind in ("corner", "shortest") else "letterbox",
        shortest_side=draw(st.integers(1, 48)) if kind == "shortest" else None,
    )
    stride = 16 if kind == "rectangle" or (kind == "shortest" and draw(st.booleans())) else None
    found = rule.letterbox(image_hw, canvas_hw, rectangle_stride=stride)
    stride = draw(st.sampled_from([2, 4, 8]))
    return found.with_grid((found.canvas_hw[0] // stride, found.canvas_hw[1] // stride))


@st.composite
def boxes(draw: st.DrawFn, hw: tuple[int, int], count: int) -> np.ndarray:
    """Boxes in quarter pixels: inside, across the border, outside, without area, and inside out."""
    rng = np.random.default_rng(draw(seeds))
    height, width = hw
    low, high = np.array([-4, -4]), np.array([width + 4, height + 4])
    corners = rng.integers(low * 4, high * 4, (2, count, 2)) / 4
    found = np.concatenate([corners.min(axis=0), corners.max(axis=0)], axis=1)
    kind = draw(st.lists(st.sampled_from(["proper"] * 6 + ["flat", "inside out"]), min_size=count, max_size=count))
    for box, what in zip(found, kind, strict=True):
        if what == "flat":
            box[3] = box[1]
        elif what == "inside out":
            box[[0, 2]] = box[[2, 0]]
    return found.astype(np.float32)


@st.composite
def predictions(
    draw: st.DrawFn,
    rule: MaskRule | None = None,
    letterbox: Letterbox | None = None,
    min_count: int = 1,
    max_count: int = 4,
) -> Prediction:
    """Random coefficients of both signs, prototypes through SiLU, boxes of every kind, or none where nothing crops."""
    letterbox = letterbox or draw(letterboxes())
    rule = rule or draw(st.sampled_from(list(RULES.values())))
    n, k = draw(st.integers(min_count, max_count)), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(seeds))
    raw = rng.normal(0, 2, (k, *letterbox.grid_hw))
    return Prediction(
        canvas_boxes=draw(boxes(letterbox.canvas_hw, n)) if rule.crops or draw(st.booleans()) else None,
        scores=np.sort(rng.random(n))[::-1].astype(np.float32),
        classes=rng.integers(0, 3, n),
        coefficients=rng.normal(0, 1, (n, k)).astype(np.float32),
        prototypes=(raw / (1 + np.exp(-raw))).astype(np.float32),
        letterbox=letterbox,
        rule=rule,
        names={0: "cat", 1: "dog", 2: "fish"},
        objectness=rng.uniform(0.3, 1, n).astype(np.float32) if rule.objectness else None,
    )
