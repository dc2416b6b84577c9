"""maskprism atlas."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from maskprism._common.extras import require
from maskprism._common.text import readable
from maskprism.cli.options import Crowds, Labels, Out, Replace, Seed, check_out
from maskprism.cli.output import Outcome, Output, command, listed
from maskprism.errors import InputError
from maskprism.io.untrusted import is_folder

if TYPE_CHECKING:
    from maskprism.analysis.atlas.mask_quality import Judged
    from maskprism.analysis.atlas.points import Points
    from maskprism.analysis.truth.labels import DatasetLabels
    from maskprism.datasets.visit import Failure
    from maskprism.tables.stored_predictions import StoredPredictions

_MANY = 50_000
"""Instances from which on the steps take long enough to be printed."""


@command(
    group="Data",
    order=20,
    page="atlas.md",
    examples=("atlas table.parquet --out atlas", "atlas table.parquet --data data.yaml --out atlas"),
    answer="`files`, `failures`, and what `atlas.json` holds",
)
def atlas(
    table: Annotated[str | Path, Parameter(help="A table of coefficients, a path or a URI.")],
    /,
    *,
    out: Out,
    overwrite: Replace = False,
    images: Path | None = None,
    data: Labels = None,
    split: str | None = None,
    crowds: Crowds = "left-out",
    umap: Annotated[bool, Parameter(negative=())] = False,
    thumbnails: int = 3000,
    viewer: str = "http://127.0.0.1:8000/",
    seed: Seed = 0,
    output: Output = Output(),
) -> Outcome:
    """Map all instances of a table, and tell what their coefficients say.

    Writes `atlas.html` (which coefficients separate classes, follow size and position, kinds within classes, outliers,
    near duplicates), `map.html` (a million points to hover, select, compare and open), and the numbers as Parquet and
    JSON. Any table will do: of extract, or a CSV with columns mask_1 and so on (extra atlas).

    Parameters
    ----------
    out
        Folder for the results.
    images
        Folder that the names of images start from, for small pictures on the map. Default: that of the
        extraction. Pictures need a table with stored prototypes (fp16 or fp32), and so does --data.
    split
        Split of the data set, such as val. Default: all that list these images.
    umap
        A second map, on which neighbours stay together (extra umap).
    thumbnails
        How many instances have small pictures at most.
    viewer
        Where the map opens instances: the address of maskprism serve, or a page of maskprism page (page.html).
    """
    from maskprism._common.files import written_together
    from maskprism.analysis.atlas.atlas import make_atlas
    from maskprism.analysis.atlas.findings import findings_of
    from maskprism.analysis.atlas.points import Points
    from maskprism.reports.atlas_files import summary, write_atlas
    from maskprism.reports.map_thumbnails import thumbnails as draw

    if thumbnails < 0:
        raise InputError(f"--thumbnails is {thumbnails}; expected 0 or more")
    require("sklearn", "the atlas")
    if umap:
        require("umap", "this map")
    title = readable(Path(str(table).rstrip("/")).stem)
    points = Points.read(table)
    if points.note:
        output.note(f"note: {points.note}")
    stored = _stored(table)
    folder = images or _folder_of(stored)
    failures: list[Failure] = []
    labels = None if data is None else _labels(stored, data, split, folder, crowds, output)
    check_out(out, overwrite=overwrite, folder=True)
    if labels is not None and stored is not None and folder is not None:
        points, failures = _judged(points, stored, labels, folder, output)
    many = len(points) > _MANY
    found = make_atlas(points, umap=umap, seed=seed, on_step=lambda step: output.note(f"{step} ...") if many else None)
    sheets = None
    if stored is not None and thumbnails:
        with output.bar("drawing", None, visible=False) as bar:
            sheets = draw(points, found.notable(thumbnails, seed=seed), stored, folder, on_progress=bar.at)
            for failure in sheets.failures:
                bar.fail(failure)
            failures += [failure for failure in sheets.failures if failure not in failures]
    with written_together():
        written = write_atlas(found, out, title, sheets=sheets, viewer=viewer)
    for number, finding in enumerate(findings_of(found), 1):
        print(f"{number}. {finding}")
    output.list_files(written)
    return Outcome({"files": list(written), "failures": listed(failures), **summary(found, title)})


def _stored(table: str | Path) -> StoredPredictions | None:
    """Return the predictions of a table that has prototypes; None for any other."""
    from maskprism.errors import TableError
    from maskprism.tables.stored_predictions import StoredPredictions
    from maskprism.tables.table import TablePaths, read_settings

    try:
        settings = read_settings(TablePaths.of(table))
    except TableError:  # a table of something else, which has been read as one
        return None
    return StoredPredictions.open(table) if settings and settings.get("stored") in ("fp16", "fp32") else None


def _folder_of(stored: StoredPredictions | None) -> Path | None:
    """Return the folder that a table was extracted from, if it is still there."""
    source = "" if stored is None else str(stored.table.metadata.get("source", ""))
    return Path(source) if source and is_folder(source) else None


def _labels(
    stored: StoredPredictions | None, data: Path, split: str | None, folder: Path | None, crowds: Crowds, output: Output
) -> DatasetLabels:
    """Return the labels of `--data`.

    Raises
    ------
    InputError
        Where the table cannot be compared with them.
    """
    from maskprism.analysis.truth.labels import open_labels

    if stored is None:
        raise InputError("--data needs masks: extract the table with --prototypes fp16, or fp32")
    if folder is None:
        raise InputError("--data needs the images, whose folder is not where it was; give it by --images")
    names = {int(class_id): name for class_id, name in stored.table.metadata["names"].items()}
    labels = open_labels(data, folder, names, split, crowds=crowds)
    output.notices(labels.notices)
    return labels


def _judged(points: Points, stored: StoredPredictions, labels: DatasetLabels, folder: Path, output: Output) -> Judged:
    from maskprism.analysis.atlas.mask_quality import judged

    with output.bar("comparing", None, visible=False) as bar:
        found = judged(points, stored, labels, folder, on_progress=bar.at)
        for failure in found.failures:
            bar.fail(failure)
    return found
