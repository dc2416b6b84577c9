"""Labels that hold several objects, recognised by the detections that fill them side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Bool

    from maskprism.analysis.truth.overlaps import Overlaps

_INSIDE, _PART, _FILLED = 0.8, 0.75, (0.7, 1.15)
"""Share of a detection that lies in the label; share of the label that it fills at most; what all of them fill."""


def held_detections(image: Overlaps, conf: float) -> Bool[np.ndarray, "N G"]:
    """Return which detections lie side by side in one ground-truth instance of their class, and together fill it.

    Parameters
    ----------
    image
        With areas.
    conf
        Lowest score that counts.

    Returns
    -------
    array of (N, G)
        True for two or more of an instance that each lie in it and fill only a part of it, and together fill it without
        covering each other.
    """
    if image.areas is None or image.true_areas is None or not image.iou.size:
        return np.zeros(image.iou.shape, dtype=bool)
    own, true = np.maximum(image.areas[:, None], 1), np.maximum(image.true_areas[None], 1)
    shared = image.iou * (own + true) / (1 + image.iou)
    inside = image.same_class & ~image.crowd & (image.scores >= conf)[:, None]
    inside &= (shared / own >= _INSIDE) & (shared / true <= _PART)
    filled = (shared / true * inside).sum(axis=0)
    return inside & (inside.sum(axis=0) > 1) & (filled >= _FILLED[0]) & (filled <= _FILLED[1])
