"""maskprism search."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from maskprism.cli.output import DONE, Outcome, Output, command
from maskprism.errors import InputError
from maskprism.text import readable

if TYPE_CHECKING:
    from maskprism.search import Metric
    from maskprism.search_index import SearchIndex


@command
def search(
    table: Annotated[str | Path, Parameter(help="A table of coefficients, a path or a URI.")],
    /,
    *,
    like: str,
    metric: Literal["cosine", "mask"] = "cosine",
    count: int = 20,
    index: Path | None = None,
    output: Output = Output(),
) -> Outcome:
    """Find the instances of a table that are most like another one.

    Nearest first, by what their masks are made of.

    Parameters
    ----------
    like
        IMAGE#INSTANCE, as the table names them: holidays/0001.jpg#2.
    metric
        cosine: the same prototypes in the same proportion. mask: the root mean square difference of logits, for a
        table with stored prototypes (a summary is enough).
    count
        How many.
    index
        File with an index of the table, for tables beyond memory and many questions: written if it is not there. It
        finds nearly all of the nearest (extra index).
    """
    from maskprism.search import search as run

    name, mark, number = like.rpartition("#")
    if not mark or not number.isdecimal():
        raise InputError(f"--like is {like!r}; expected IMAGE#INSTANCE, such as holidays/0001.jpg#2")
    if index is None:
        found = run(table, (name, int(number)), metric=metric, count=count)
    else:
        found = _index(table, index, metric, output).search(table, (name, int(number)), count=count)
    columns = ("image", "instance", "class_name", "score", "distance")
    rows = [{column: row[column] for column in columns} for row in found.rows.select(columns).to_pylist()]
    for row in rows:
        print(f"{row['distance']:8.4f}  {row['class_name']}  {row['score']:.2f}  {row['image']}#{row['instance']}")
    spread = found.spread
    if spread is not None:
        output.note(
            f"note: prototypes differ over {spread.images} images: distances with an image's own are {spread.low:.2f} "
            f"to {spread.high:.2f} times these (10th to 90th percentile)"
        )
    neighbours = [{**row, "image": readable(row["image"])} for row in rows]
    return Outcome({"neighbours": neighbours, "spread": None if spread is None else vars(spread)}, DONE)


def _index(table: str | Path, path: Path, metric: Metric, output: Output) -> SearchIndex:
    """The index of that file, written if it is not there."""
    from maskprism.search_index import SearchIndex

    if not path.exists():
        with output.bar("indexing", None, visible=False) as bar:
            return SearchIndex.write(table, path, metric=metric, on_progress=lambda done, total: bar.at(done, total, 0))
    found = SearchIndex.open(path)
    if found.space.metric != metric:
        raise InputError(f"{path}: is an index for --metric {found.space.metric}; give that, or another --index")
    return found
