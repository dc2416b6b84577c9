"""Points as the map takes them: small numbers in columns, and what they mean."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from maskprism._common.text import readable

if TYPE_CHECKING:
    from jaxtyping import Float32, Int32

    from maskprism.analysis.atlas.points import Points

UNKNOWN = 65_535
"""What stands for a number that is not known; known ones are 0 to UNKNOWN - 1."""
_MOST_WEIGHTS = 48_000_000
"""More coefficients than these are left out: the map then compares no signatures."""
QUALITY_TITLES = {
    "score": "score",
    "size": "box size",
    "x": "x centre (0-1)",
    "y": "y centre (0-1)",
    "aspect": "log(w/h)",
    "iou": "mask IoU",
    "resolution": "IoU lost: resolution",
    "box": "IoU lost: box crop",
    "prototypes": "IoU lost: prototypes",
    "coefficients": "IoU lost: coefficients",
    "outlier": "distance from its class",
}
LOGARITHMIC = ("size", "outlier")


class MapLayout(NamedTuple):
    """One way to lay the points out.

    Attributes
    ----------
    note
        What the reader must know of it.
    """

    title: str
    note: str
    places: Float32[np.ndarray, "N 2"]


class MapData(NamedTuple):
    """`x-0` and `y-0` and so on have the places of each layout, uint16 over the range of the wider axis.

    `class`, `image` and `instance` uint32; `quality-NAME` uint16 between `low` and `high` of the info, and UNKNOWN;
    `cluster` uint8; `weights` int8, N rows of K, to be multiplied by `scales`; `names` the names of images, as JSON.

    Attributes
    ----------
    info
        What the columns mean, as JSON.
    columns
        Their bytes, little-endian and deflated (zlib).
    """

    info: dict[str, Any]
    columns: dict[str, bytes]


def map_data(
    points: Points,
    layouts: list[MapLayout],
    *,
    title: str,
    clusters: Int32[np.ndarray, " N"] | None = None,
    more: Mapping[str, Float32[np.ndarray, " N"]] | None = None,
) -> MapData:
    """Pack points.

    Parameters
    ----------
    clusters
        Within classes.
    more
        Further numbers of each.
    """
    columns: dict[str, bytes] = {}
    for number, layout in enumerate(layouts):
        for name, values in zip("xy", _placed(layout.places), strict=True):
            columns[f"{name}-{number}"] = deflated(values)
    columns["class"] = deflated(points.classes.astype("<u4"))
    columns["image"] = deflated(points.images.astype("<u4"))
    columns["instance"] = deflated(points.instances.astype("<u4"))
    columns["names"] = zlib.compress(json.dumps([readable(name) for name in points.image_names]).encode(), 1)
    qualities = []
    for name, values in {**points.numbers, **(more or {})}.items():
        packed, low, high = _scaled(np.log(values) if name in LOGARITHMIC else values)
        if packed is not None:
            columns[f"quality-{name}"] = deflated(packed)
            qualities.append(
                {"name": name, "title": QUALITY_TITLES[name], "low": low, "high": high, "log": name in LOGARITHMIC}
            )
    if clusters is not None and clusters.any():
        columns["cluster"] = deflated(clusters.astype("u1"))
    scales = None
    if points.coefficients.size <= _MOST_WEIGHTS:
        limits = np.maximum(np.abs(points.coefficients).max(axis=0), np.float32(1e-12)) / np.float32(127)
        columns["weights"] = deflated(np.rint(points.coefficients / limits).astype("i1"))
        scales = limits.tolist()
    counts = np.bincount(points.classes, minlength=len(points.class_names)).tolist()
    info = {
        "title": title,
        "count": len(points),
        "layouts": [{"title": layout.title, "note": layout.note} for layout in layouts],
        "classes": [{"name": name, "count": count} for name, count in zip(points.class_names, counts, strict=True)],
        "qualities": qualities,
        "clusters": "cluster" in columns,
        "labels": list(points.labels),
        "scales": scales,
    }
    return MapData(info, columns)


def _placed(places: Float32[np.ndarray, "N 2"]) -> np.ndarray:
    """Places as uint16, x and y in the same scale, in the middle of the range."""
    low, high = places.min(axis=0), places.max(axis=0)
    reach = max(float((high - low).max()), 1e-12)
    return np.rint(((places - (low + high) / 2) / reach + 0.5) * (UNKNOWN - 1)).astype("<u2").T


def _scaled(values: Float32[np.ndarray, " N"]) -> tuple[np.ndarray | None, float, float]:
    """Values as uint16 between their lowest and highest; None where nothing is known."""
    known = np.isfinite(values)
    if not known.any():
        return None, 0.0, 0.0
    low, high = float(values[known].min()), float(values[known].max())
    packed = np.full(len(values), UNKNOWN, dtype="<u2")
    packed[known] = np.rint((values[known] - low) / max(high - low, 1e-12) * (UNKNOWN - 1))
    return packed, low, high


def deflated(values: np.ndarray) -> bytes:
    """Numbers as a column has them."""
    return zlib.compress(np.ascontiguousarray(values).tobytes(), 1)
