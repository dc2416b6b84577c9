"""An atlas as files: the page of statistics, the map, and all numbers as Parquet and JSON."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from maskprism import __version__
from maskprism._common.files import write_atomically
from maskprism._common.text import json_text, readable
from maskprism.analysis.atlas.findings import findings_of
from maskprism.drawing.atlas import map_dots
from maskprism.drawing.map_payload import MapLayout, map_data
from maskprism.reports.atlas import report_page
from maskprism.reports.atlas_map import SERVER, map_page
from maskprism.reports.manifest import Number, ResultManifest, thumbnail_url, withdraw_manifest, write_manifest

if TYPE_CHECKING:
    from maskprism.analysis.atlas.atlas import Atlas
    from maskprism.reports.map_thumbnails import Sheets

REPORT, MAP = "atlas.html", "map.html"


def write_atlas(
    atlas: Atlas, out: Path, title: str, *, sheets: Sheets | None = None, viewer: str = SERVER
) -> dict[Path, str]:
    """Write all files into a folder; gives each with what it holds.

    Parameters
    ----------
    sheets
        Small pictures for the map.
    viewer
        Where the map opens instances: a server, or a page of `maskprism page`.

    Raises
    ------
    MaskprismError
        If the folder cannot be written.
    """
    points = atlas.points
    withdraw_manifest(out, "atlas")
    data = map_data(
        points,
        layouts_of(atlas),
        title=title,
        clusters=atlas.clusters.numbers,
        more={"outlier": np.maximum(atlas.outliers, np.float32(1e-3))},
    )
    write_atomically(out / MAP, map_page(data, sheets, viewer=viewer, statistics=REPORT))
    del data
    write_atomically(out / REPORT, report_page(atlas, title, map_address=MAP))
    write_atomically(out / "atlas.json", json_text(summary(atlas, title)) + "\n")
    for name, table in (("points.parquet", point_table(atlas)), ("classes.parquet", class_table(atlas))):
        write_atomically(out / name, partial(pq.write_table, table, compression="zstd"))
    manifest = ResultManifest(
        command="atlas",
        about="all instances at once: a map, and what coefficients say of classes, sizes and positions",
        page=REPORT,
        numbers=[
            Number("instances", len(points), ","),
            Number("images", len(points.image_names), ","),
            Number("effective rank", atlas.moments.effective_rank(), ".1f"),
            Number("with a near duplicate", atlas.duplicates.instances, ","),
        ],
        findings=findings_of(atlas),
        thumbnail=thumbnail_url(map_dots(atlas)),
    )
    return {
        out / REPORT: "statistics, with what they say",
        out / MAP: "the map: hover, select, compare, open in the viewer",
        out / "points.parquet": "per instance: its place on the map, kind, distance from its class, duplicates",
        out
        / "classes.parquet": "per class and coefficient: mean, effect size, its standard error, false discovery rate",
        out / "atlas.json": "the numbers of the page",
        **write_manifest(out, manifest),
    }


def layouts_of(atlas: Atlas) -> list[MapLayout]:
    """Return the ways in which the map lays instances out."""
    first, second = atlas.components.shares
    found = [
        MapLayout(
            "principal components",
            f"The two directions in which coefficients differ most; they have {first + second:.0%} of the variance. "
            "What lies far apart is different, what lies together need not be alike.",
            atlas.places,
        )
    ]
    if atlas.neighbours is not None:
        found.append(
            MapLayout(
                "neighbours (UMAP)",
                "Neighbours among the coefficients are neighbours here; distances between groups, and their sizes, "
                "mean little.",
                atlas.neighbours,
            )
        )
    return found


def summary(atlas: Atlas, title: str) -> dict[str, Any]:
    """Return the numbers of the page; what does not exist is None."""
    points, found = atlas.points, atlas.signatures
    return {
        "maskprism": __version__,
        "title": readable(title),
        "instances": len(points),
        "images": len(points.image_names),
        "prototypes": len(points.labels),
        "effective_rank": atlas.moments.effective_rank(),
        "explained_variance": list(atlas.components.shares),
        "classes": [
            {
                "name": name,
                "instances": int(found.counts[row]),
                "images": int(found.images[row]),
                "silhouette": atlas.clusters.silhouettes.get(row),
            }
            for row, name in enumerate(points.class_names)
        ],
        "clusters": [
            {
                "class": points.class_names[one.of_class],
                "kind": one.number,
                "instances": one.instances,
                "example": _named(atlas, one.example),
            }
            for one in atlas.clusters.found
        ],
        "coefficients": {
            "labels": list(points.labels),
            "mean": atlas.moments.mean,
            "standard_deviation": np.sqrt(np.diag(atlas.moments.covariance)),
            "correlation": atlas.moments.correlation,
            "between_classes": found.shares,
        },
        "dependence": {
            "instances": atlas.dependence.instances,
            "rho": dict(zip(atlas.dependence.names, atlas.dependence.rho, strict=True)),
            "false_discovery_rate": dict(zip(atlas.dependence.names, atlas.dependence.p, strict=True)),
        },
        "duplicates": {
            "instances": atlas.duplicates.instances,
            "groups": [
                {
                    "instances": group.instances,
                    "images": group.images,
                    "distance": group.distance,
                    "examples": [_named(atlas, group.first), _named(atlas, group.second)],
                }
                for group in atlas.duplicates.groups
            ],
        },
        "findings": findings_of(atlas),
    }


def point_table(atlas: Atlas) -> pa.Table:
    """One row per instance; joins the table that the atlas is of by image and instance."""
    points = atlas.points
    columns: dict[str, Any] = {
        "image": _dictionary(points.images, list(points.image_names)),
        "instance": points.instances,
        "class_name": _dictionary(points.classes, list(points.class_names)),
        "pca_1": atlas.places[:, 0],
        "pca_2": atlas.places[:, 1],
        "kind": atlas.clusters.numbers,
        "distance": atlas.outliers,
        "duplicates": atlas.duplicates.numbers,
    }
    if atlas.neighbours is not None:
        columns |= {"umap_1": atlas.neighbours[:, 0], "umap_2": atlas.neighbours[:, 1]}
    for name in ("iou", "resolution", "box", "prototypes", "coefficients"):
        if name in points.numbers:
            columns["iou" if name == "iou" else f"lost_{name}"] = points.numbers[name]
    return pa.table(columns)


def class_table(atlas: Atlas) -> pa.Table:
    """One row per class and coefficient."""
    points, found = atlas.points, atlas.signatures
    classes, k = len(points.class_names), len(points.labels)
    columns = {name: getattr(found, name).reshape(-1) for name in ("mean", "effect", "error", "p")}
    return pa.table(
        {
            "class_name": _dictionary(np.repeat(np.arange(classes, dtype=np.int32), k), list(points.class_names)),
            "instances": np.repeat(found.counts, k),
            "images": np.repeat(found.images, k),
            "coefficient": np.tile(np.arange(k, dtype=np.int32), classes),
            **{name: pa.array(values, from_pandas=True) for name, values in columns.items()},
        }
    )


def _dictionary(codes: Any, names: list[str]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(names, pa.string()))


def _named(atlas: Atlas, point: int) -> dict[str, Any]:
    image, instance = atlas.points.name_of(point)
    return {"image": readable(image), "instance": instance}
