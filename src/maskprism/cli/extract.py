"""maskprism extract."""

from __future__ import annotations

from maskprism.cli.options import Detections, Limit, ModelFile, Overwrite, Reading, Source, Table, load_model
from maskprism.cli.output import DONE, FAILED, Outcome, Output, command
from maskprism.text import readable


@command
def extract(
    source: Source,
    /,
    *,
    model: ModelFile = None,
    out: Table,
    limit: Limit = None,
    overwrite: Overwrite = False,
    reading: Reading = Reading(),
    detections: Detections = Detections(),
    output: Output = Output(),
) -> Outcome:
    """Write the coefficients of every instance into a table.

    One row per instance; a second table beside it, TABLE.images, has one row per image, also for
    images without instances and images that failed. Interrupted and started again with the same
    command, it goes on where it stopped.

    Parameters
    ----------
    out
        The table: TABLE.csv or TABLE.parquet, a path or a URI (s3://bucket/TABLE.parquet).
    overwrite
        Start over, even if the table exists with another model or other settings.
    """
    from maskprism.extract import extract as run

    network = load_model(model, reading, detections, threads=1)
    with output.bar("extracting", None, visible=False) as bar:
        summary = run(source, network, out, on_progress=bar.at, overwrite=overwrite, limit=limit)
    print(summary)
    answer = dict(vars(summary))
    answer["first_failures"] = [readable(message) for message in answer.pop("failures")]
    for name in ("table", "images_table", "settings"):  # paths or URIs
        answer[name] = None if answer[name] is None else readable(str(answer[name]))
    return Outcome(answer, FAILED if summary.all_failed else DONE)
