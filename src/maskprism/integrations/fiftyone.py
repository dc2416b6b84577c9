"""FiftyOne: instances as a field of a sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from maskprism._common.extras import require

if TYPE_CHECKING:
    from maskprism.core.prediction import Prediction


def to_fiftyone(prediction: Prediction) -> Any:
    """Return the instances as `fiftyone.Detections`: `sample["maskprism"] = to_fiftyone(prediction)`.

    Parameters
    ----------
    prediction
        Of the sample's image.

    Returns
    -------
    fiftyone.Detections
        Boxes are shares of the image, x, y, width, height, widened to whole pixels, because FiftyOne stretches the mask
        of an object over its box. `coefficients` is a list of K numbers, which `compute_visualization` and
        `compute_similarity` take as embeddings.

    Raises
    ------
    MissingExtraError
        If FiftyOne is not installed.
    """
    fiftyone = require("fiftyone", "to_fiftyone")
    height, width = prediction.image_size
    found = []
    for instance in prediction:
        left, top = np.floor(instance.box[:2]).astype(int).tolist()
        right, bottom = np.ceil(instance.box[2:]).astype(int).tolist()
        right, bottom = min(max(right, left + 1), width), min(max(bottom, top + 1), height)
        left, top = min(left, right - 1), min(top, bottom - 1)
        found.append(
            fiftyone.Detection(
                label=instance.name,
                bounding_box=[left / width, top / height, (right - left) / width, (bottom - top) / height],
                confidence=instance.score,
                mask=instance.mask("image")[top:bottom, left:right],
                coefficients=instance.coefficients.tolist(),
            )
        )
    return fiftyone.Detections(detections=found)
