"""Predictions as a pandas DataFrame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from maskprism._common.extras import require
from maskprism.tables.schema import instance_columns

if TYPE_CHECKING:
    from maskprism.core.prediction import Prediction


def to_dataframe(prediction: Prediction) -> Any:
    """Return one row per instance; see `Prediction.to_pandas`, which calls this."""
    pandas = require("pandas", "to_pandas")
    columns = instance_columns(
        {"objectness": prediction.objectness is not None, "prototypes": prediction.prototypes.shape[0]}
    )
    height, width = prediction.image_size
    frame = pandas.DataFrame({column.name: list(column.of(prediction)) for column in columns})
    for place, (name, value) in enumerate(
        {"image": prediction.source, "image_width": width, "image_height": height}.items()
    ):
        frame.insert(place, name, value)
    return frame
