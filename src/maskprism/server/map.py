"""The instances that the gallery knows so far, as the map takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from maskprism.analysis.atlas.atlas import moments_of
from maskprism.analysis.atlas.points import Points
from maskprism.analysis.atlas.projection import Components
from maskprism.analysis.truth.error_budget import PARTS
from maskprism.drawing.map_payload import MapLayout, map_data
from maskprism.errors import TableError
from maskprism.tables.instance_rows import InstanceRows
from maskprism.viewer.markup import base64_text

if TYPE_CHECKING:
    from maskprism.server.records import Record


class Known(NamedTuple):
    """An image by its name in the gallery, and the record of its instances."""

    name: str
    record: Record


def gallery_map(known: Sequence[Known], names: dict[int, str], *, title: str, waiting: int) -> dict[str, Any]:
    """Return the map of all instances of these images, columns as base64.

    Parameters
    ----------
    waiting
        Images that are not examined yet.

    Raises
    ------
    TableError
        Where there is no instance.
    """
    found = [one for one in known if one.record.coefficients is not None and len(one.record.coefficients)]
    if not found:
        raise TableError("no instance has been found so far; wait for the model, and reload")
    points = Points.of(InstanceRows([_rows(found, names)], title))
    components = Components.of(moments_of(points.coefficients))
    left = f" {waiting} images wait for the model: reload for theirs." if waiting else ""
    note = (
        "The two directions in which coefficients differ most (principal components); they have "
        f"{sum(components.shares):.0%} of the variance.{left}"
    )
    layout = MapLayout("principal components", note, components.places(points.coefficients))
    data = map_data(points, [layout], title=title)
    info = {**data.info, "viewer": "/", "thumbnails": None}
    return {"info": info, "columns": {name: base64_text(column) for name, column in data.columns.items()}}


def _rows(known: Sequence[Known], names: dict[int, str]) -> pa.Table:
    """One row per instance, with the columns that `Points.of` knows."""
    records = [one.record for one in known]
    counts = [len(record.classes) for record in records]
    sizes = np.repeat([record.size_hw or (1, 1) for record in records], counts, axis=0)
    boxes = np.array([box for record in records for box in record.boxes], dtype=np.float32)
    coefficients = np.concatenate([record.coefficients for record in records if record.coefficients is not None])
    columns: dict[str, Any] = {
        "image": [one.name for one, count in zip(known, counts, strict=True) for _ in range(count)],
        "instance": [index for count in counts for index in range(count)],
        "class_name": [names[class_id] for record in records for class_id in record.classes],
        "score": [score for record in records for score in record.scores],
        **dict(zip(("x1", "y1", "x2", "y2"), boxes.T, strict=True)),
        "image_height": sizes[:, 0],
        "image_width": sizes[:, 1],
        "mask_coefficients": pa.FixedSizeListArray.from_arrays(
            pa.array(coefficients.reshape(-1)), coefficients.shape[1]
        ),
    }
    if any(record.ious is not None for record in records):
        columns["iou"] = pa.array(
            [iou for record in records for iou in record.ious or (None,) * len(record.classes)], pa.float32()
        )
    if any(record.losses is not None for record in records):
        lost = [one for record, count in zip(records, counts, strict=True) for one in record.losses or (None,) * count]
        columns |= {part: pa.array([one and one[part] for one in lost], pa.float32()) for part in PARTS}
    return pa.table(columns)
