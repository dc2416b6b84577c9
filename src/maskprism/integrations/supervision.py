"""supervision: `Detections` there and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from maskprism._common.extras import require
from maskprism.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from maskprism.core.prediction import Prediction

_INSTANCE = "instance"
"""Under this name supervision carries which instance of the prediction a detection is."""


def to_detections(prediction: Prediction, *, compact: bool = False) -> Any:
    """Return the instances as `supervision.Detections`; see `Prediction.to_supervision`, which calls this."""
    supervision = require("supervision", "to_supervision")
    return supervision.Detections(
        xyxy=prediction.boxes.astype(np.float32),
        mask=_compact(supervision, prediction) if compact else prediction.masks("image"),
        confidence=prediction.scores.astype(np.float32),
        class_id=prediction.classes.astype(int),
        data={
            "class_name": np.array([prediction.name_of(class_id) for class_id in prediction.classes], dtype=np.str_),
            _INSTANCE: np.arange(len(prediction)),
            "coefficients": prediction.coefficients,
        },
    )


def _compact(supervision: Any, prediction: Prediction) -> Any:
    """Return the masks as supervision's own compact form, each from the window that it can touch."""
    if not hasattr(supervision, "CompactMask"):
        raise MissingExtraError(
            f"to_supervision(compact=True) needs CompactMask, which supervision {supervision.__version__} does not "
            "have; install a newer one with: pip install --upgrade supervision"
        )
    of_masks, image_hw, masks = supervision.CompactMask.from_dense, prediction.image_size, []
    for rows, columns, values in prediction.crops("image"):
        height, width = values.shape
        if values.size:
            box = np.array([[0, 0, width - 1, height - 1]])
            masks.append(of_masks(values[None], box, values.shape).with_offset(columns.start, rows.start, image_hw))
        else:
            masks.append(of_masks(np.zeros((1, 1, 1), dtype=bool), np.zeros((1, 4)), image_hw))
    none = of_masks(np.zeros((0, 1, 1), dtype=bool), np.zeros((0, 4)), image_hw)
    return supervision.CompactMask.merge([none, *masks])


def from_supervision(detections: Any, prediction: Prediction) -> Prediction:
    """Return the instances of a prediction that are left of its detections, in their order, with their coefficients.

    Parameters
    ----------
    detections
        Of `prediction.to_supervision()`; they may be filtered, sorted, or have other coefficients.
    prediction
        The one that they come from.

    Returns
    -------
    Prediction
        Everything else is that of `prediction`.

    Raises
    ------
    InputError
        For detections that come from elsewhere.
    """
    data = getattr(detections, "data", None)
    if not isinstance(data, Mapping) or not {_INSTANCE, "coefficients"} <= data.keys():
        raise InputError(
            "these detections do not say which instances they are; expected detections of Prediction.to_supervision, "
            f"whose data has {_INSTANCE!r} and 'coefficients'"
        )
    chosen = np.asarray(data[_INSTANCE], dtype=np.int64).reshape(-1)
    if ((chosen < 0) | (chosen >= len(prediction))).any():
        raise InputError(
            f"the detections name instance {chosen.max()}; the prediction has {len(prediction)}. Is it another one?"
        )
    coefficients = np.asarray(data["coefficients"], dtype=np.float32)
    expected = (len(chosen), prediction.coefficients.shape[1])
    if coefficients.size and coefficients.shape != expected:
        raise InputError(f"coefficients have shape {coefficients.shape}; expected {expected}")
    return replace(prediction[chosen], coefficients=coefficients.reshape(expected))
