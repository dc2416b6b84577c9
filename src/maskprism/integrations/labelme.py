"""LabelMe: one json per image, beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from maskprism.core.decoding.outlines import TOLERANCE
from maskprism.integrations.rings import part_rings

if TYPE_CHECKING:
    from maskprism.core.prediction import Prediction

VERSION = "5.5.0"
"""Of LabelMe, whose format this is."""


def labelme_document(prediction: Prediction, image_path: str, *, tolerance: float = TOLERANCE) -> dict[str, Any]:
    """Return the instances as the contents of a LabelMe json.

    Parameters
    ----------
    prediction
        Of one image.
    image_path
        The image, relative to the folder of the json.
    tolerance
        How far in pixels polygons may leave the outline. Default: 0.1.

    Returns
    -------
    dict
        One polygon per part of a mask; parts of one instance share their `group_id`. Cuts lead from outlines to their
        holes. Instances with an empty mask are left out.
    """
    shapes = []
    for instance, mask in zip(prediction, prediction.polygons("image", tolerance=tolerance), strict=True):
        rings = part_rings(mask)
        shapes += [
            {
                "label": instance.name,
                "points": ring.round(2).tolist(),
                "group_id": instance.index if len(rings) > 1 else None,
                "description": "",
                "shape_type": "polygon",
                "flags": {},
                "score": instance.score,
            }
            for ring in rings
        ]
    height, width = prediction.image_size
    return {
        "version": VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": image_path,
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }
