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
    """An image by its name in the gallery, the record of its instances, and which of them are on the map."""

    name: str
    record: Record
    instances: Sequence[int]


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
    found = [one for one in known if one.record.coefficients is not None and one.instances]
    if not found:
        raise TableError("no instance has been found so far, or none fits the filter; wait for the model, and reload")
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
    of = [(one, index) for one in known for index in one.instances]
    sizes = np.array([one.record.size_hw or (1, 1) for one, _ in of])
    of_images = [one.record.coefficients[one.instances] for one in known if one.record.coefficients is not None]
    coefficients = np.concatenate(of_images)
    columns: dict[str, Any] = {
        "image": [one.name for one, _ in of],
        "instance": [index for _, index in of],
        "class_name": [names[one.record.classes[index]] for one, index in of],
        "score": [one.record.scores[index] for one, index in of],
        **dict(
            zip(
                ("x1", "y1", "x2", "y2"),
                np.array([one.record.boxes[index] for one, index in of], dtype=np.float32).T,
                strict=True,
            )
        ),
        "image_height": sizes[:, 0],
        "image_width": sizes[:, 1],
        "mask_coefficients": pa.FixedSizeListArray.from_arrays(
            pa.array(coefficients.reshape(-1)), coefficients.shape[1]
        ),
    }
    if any(one.record.ious is not None for one in known):
        ious = [None if one.record.ious is None else one.record.ious[index] for one, index in of]
        columns["iou"] = pa.array(ious, pa.float32())
    if any(one.record.losses is not None for one in known):
        lost = [None if one.record.losses is None else one.record.losses[index] for one, index in of]
        columns |= {part: pa.array([one and one[part] for one in lost], pa.float32()) for part in PARTS}
    return pa.table(columns)
