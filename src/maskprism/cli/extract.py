"""maskprism extract."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

from cyclopts import Parameter

from maskprism._common.text import readable
from maskprism.cli.options import (
    Detections,
    Limit,
    ModelFile,
    Overwrite,
    Reading,
    Source,
    Table,
    load_model,
    model_file,
)
from maskprism.cli.output import DONE, FAILED, Outcome, Output, command
from maskprism.datasets.visit import Failure


@command(
    group="Data",
    order=10,
    page="tables.md",
    example="extract photos --model best.onnx --out table.parquet",
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
    engine: Literal["threads", "ray"] = "threads",
    workers: int | None = None,
    gpus: Annotated[float | None, Parameter(name="--gpus")] = None,
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
        The table: TABLE.csv or TABLE.parquet, or a folder TABLE for one in Parquet parts; a path or a URI
        (s3://bucket/TABLE.parquet).
    overwrite
        Start over, even if the table exists with another model or other settings.
    prototypes
        Also keep prototypes, in TABLE.prototypes: a summary of each (3 KB an image), or all of them in half or single
        precision (1.2 or 2.6 MB an image), from which masks can be drawn again.
    engine
        Threads of this machine, or a cluster that Ray runs: the one that RAY_ADDRESS names or that was started here,
        or else a new one here.
    workers
        Threads, or processes of the cluster; one per processor (or GPU) unless given.
    gpus
        Of each process of the cluster; 1 with --device cuda unless given.
    """
    from maskprism.tables.extraction import extract as run

    opening = partial(load_model, model_file(model), reading, detections, threads=1)
    network = opening if engine == "ray" else opening()
    on_gpu = engine == "ray" and (reading.device or "").startswith("cuda")
    with output.bar("extracting", None, visible=False) as bar:
        failed: list[Failure] = []

        def show(done: int, total: int | None, failure: Failure | None) -> None:
            failed.extend([failure] if failure else [])
            bar.at(done, total, len(failed))

        summary = run(
            source,
            network,
            out,
            on_progress=show,
            engine=engine,
            workers=workers,
            gpus=float(on_gpu) if gpus is None else gpus,
            prototypes=prototypes,
            overwrite=overwrite,
            limit=limit,
        )
    for line in summary.lines():
        print(line)
    answer = dict(vars(summary))
    answer["first_failures"] = [readable(f"{name}: {message}") for name, message, *_ in answer.pop("failures")]
    for name in ("table", "images_table", "prototypes_table", "settings"):  # paths or URIs
        answer[name] = None if answer[name] is None else readable(str(answer[name]))
    return Outcome(answer, FAILED if summary.all_failed else DONE)
