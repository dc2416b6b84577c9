"""maskprism search."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from maskprism._common.text import readable
from maskprism.cli.output import DONE, Outcome, Output, command
from maskprism.errors import InputError
from maskprism.io.untrusted import shortened

_COLUMNS = ("image", "instance", "class_name", "score", "distance")
_DIGITS = 9
_MEANING = {
    "cosine": "1 - cosine of the weights: 0 the same prototypes in the same proportion, 2 the opposite",
    "mask": "root mean square difference of the logits",
}


@command(
    group="Data",
    order=30,
    page="search.md",
    examples=("search table.parquet --like one.jpg#0", "search table.parquet --like one.jpg#0 --metric mask"),
    answer="`neighbours` (each with its image, instance, class_name, score and distance), `spread` (null for cosine)",
)
def search(
    table: Annotated[str | Path, Parameter(help="A table of coefficients, a path or a URI.")],
    /,
    *,
    like: str,
    metric: Literal["cosine", "mask"] = "cosine",
    count: int = 20,
    output: Output = Output(),
) -> Outcome:
    """Find the instances of a table that are most like another one.

    Nearest first, by what their masks are made of.

    Parameters
    ----------
    like
        IMAGE#INSTANCE, as the table names them: holidays/0001.jpg#2.
    metric
        cosine: the same prototypes in the same proportion. mask: the root mean square difference of logits, with the
        prototypes of the image in --like; for a table with stored prototypes (a summary is enough).
    count
        How many, up to 100000.
    """
    from maskprism.tables.similar import search as run

    name, mark, number = like.rpartition("#")
    if not mark or not number.isdecimal():
        raise InputError(f"--like is {like!r}; expected IMAGE#INSTANCE, such as holidays/0001.jpg#2")
    if len(number) > _DIGITS:
        raise InputError(f"--like is {shortened(like)}; expected a number of at most {_DIGITS} digits behind the #")
    found = run(table, (name, int(number)), metric=metric, count=count)
    if found.note:
        output.note(f"note: {found.note}")
    known = [column for column in _COLUMNS if column in found.rows.column_names]
    rows = [{**dict.fromkeys(_COLUMNS), **row} for row in found.rows.select(known).to_pylist()]
    print(f"distance  score  {'class':<16}  instance    ({_MEANING[metric]})")
    for row in rows:
        score = "    –" if row["score"] is None or math.isnan(row["score"]) else f"{row['score']:5.2f}"
        named = f"{readable(row['image'])}#{row['instance']}"
        print(f"{row['distance']:8.4f}  {score}  {readable(row['class_name'] or '–'):<16}  {named}")
    spread = found.spread
    if spread is not None:
        output.note(
            f"note: distances are those of logits drawn with the prototypes of {readable(name)}: exact within that "
            f"image. With the prototypes of the other of {spread.images} images they are {spread.low:.2f} to "
            f"{spread.high:.2f} times these (10th to 90th percentile)"
        )
    neighbours = [{**row, "image": readable(row["image"])} for row in rows]
    return Outcome({"neighbours": neighbours, "spread": None if spread is None else vars(spread)}, DONE)
