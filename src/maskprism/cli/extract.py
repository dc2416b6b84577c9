"""maskprism extract."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from maskprism._common.text import readable
from maskprism.cli.options import (
    DetectionOptions,
    Limit,
    ModelFile,
    Overwrite,
    ReadingOptions,
    Source,
    Table,
    Work,
    load_model,
    model_file,
)
from maskprism.cli.output import DONE, FAILED, Outcome, Output, command

if TYPE_CHECKING:
    from maskprism.models import Model
    from maskprism.tables.extraction import ExtractSummary


@command(
    group="Data",
    order=10,
    page="tables.md",
    examples=(
        "extract photos --model best.onnx --out table.parquet",
        "extract photos --model best.onnx --prototypes fp16 --out table.parquet",
    ),
    answer="`images`, `with_instances`, `empty`, `failed`, `skipped`, `instances`, `all_failed`, `seconds`, `table`, "
    "`images_table` (which says why images failed), `prototypes_table`, `settings`, `first_failures`",
    resumes=True,
)
def extract(
    source: Source,
    /,
    *,
    model: ModelFile = None,
    out: Table,
    limit: Limit = None,
    overwrite: Overwrite = False,
    prototypes: Literal["summary", "fp16", "fp32"] | None = None,
    reading: ReadingOptions = ReadingOptions(),
    detections: DetectionOptions = DetectionOptions(),
    work: Work = Work(),
    output: Output = Output(),
) -> Outcome:
    """Write the coefficients of every instance into a table.

    One row per instance; a second table beside it, TABLE.images, has one row per image, also for
    images without instances and images that failed. Interrupted and started again with the same
    command, it goes on where it stopped.

    Parameters
    ----------
    out
        The table: TABLE.csv or TABLE.parquet, or a folder TABLE for one in Parquet parts; a path or a URI
        (s3://bucket/TABLE.parquet).
    overwrite
        Start over, even if the table exists with another model or other settings.
    prototypes
        Also keep prototypes, in TABLE.prototypes: a summary of each (3 KB an image), or all of them in half or single
        precision (1.2 or 2.6 MB an image), from which masks can be drawn again. Default: none.
    """
    from maskprism.tables.extraction import extract as run

    opening = partial(load_model, model_file(model), reading, detections, threads=1)
    network = opening if work.engine == "ray" else opening()
    with output.bar("extracting", visible=False, told=False) as bar:
        summary = run(
            source,
            network,
            out,
            on_progress=bar.at,
            engine=work.engine,
            workers=work.workers,
            gpus=work.gpus_for(reading),
            prototypes=prototypes,
            overwrite=overwrite,
            limit=limit,
        )
    if isinstance(summary.table, Path):  # a table at a URI has none: `report` looks at folders of this machine
        _write_manifest(summary.table, summary, model_file(model).name, network, source)
    for line in summary.lines():
        print(line)
    answer = dict(vars(summary))
    answer["first_failures"] = [readable(f"{name}: {message}") for name, message, *_ in answer.pop("failures")]
    for name in ("table", "images_table", "prototypes_table", "settings"):  # paths or URIs
        answer[name] = None if answer[name] is None else readable(str(answer[name]))
    return Outcome(answer, FAILED if summary.all_failed else DONE)


def _write_manifest(
    table: Path, summary: ExtractSummary, name: str, model: Model | partial[Model], source: str | Path
) -> None:
    from maskprism.io.sources import open_source
    from maskprism.reports.manifest import Number, ResultManifest, file_url, first_masks, write_manifest

    manifest = ResultManifest(
        command="extract",
        about="tables of coefficients",
        page=file_url(table, table.parent),
        models=[name],
        numbers=[
            Number("images", summary.images + summary.skipped, ","),
            Number("instances of the last run" if summary.skipped else "instances", summary.instances, ","),
            Number("failed images of the last run" if summary.skipped else "failed images", summary.failed, ","),
        ],
        thumbnail=first_masks(lambda: (model() if isinstance(model, partial) else model, open_source(source, limit=1))),
    )
    write_manifest(table, manifest)
