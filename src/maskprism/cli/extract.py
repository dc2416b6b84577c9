"""maskprism extract."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from maskprism.cli.options import Detections, Reading, failures, load_model, progress_bar


def extract(
    source: str,
    /,
    *,
    model: Path | None = None,
    out: str,
    overwrite: Annotated[bool, Parameter(negative=())] = False,
    reading: Reading = Reading(),
    detections: Detections = Detections(),
) -> int:
    """Write the coefficients of every instance of many images into a table.

    One row per instance; a second table beside it, TABLE.images, has one row per image, also for
    images without instances and images that failed. Interrupted and started again with the same
    command, it goes on where it stopped.

    Parameters
    ----------
    source
        A folder (with its subfolders), a pattern in quotes, an image, a video, or a .txt list of paths; all but videos
        also by URI (s3://bucket/photos).
    model
        Model file: .onnx, .pt, .tflite, or OpenVINO .xml (or its folder); the bundled sample model unless given.
    out
        The table: TABLE.csv or TABLE.parquet, a path or a URI (s3://bucket/TABLE.parquet).
    overwrite
        Start over, even if the table exists with another model or other settings.
    """
    from maskprism.extract import extract as run

    network = load_model(model, reading, detections, threads=1)
    with progress_bar("extracting", None, visible=False) as (progress, task):

        def show(done: int, total: int | None, failed: int) -> None:
            if not progress.tasks[task].visible:  # what earlier runs did is no part of the rate
                progress.reset(task, completed=done, total=total, visible=True)
            progress.update(task, completed=done, total=total, failed=failures(failed))

        summary = run(source, network, out, on_progress=show, overwrite=overwrite)
    print(summary)
    return 1 if summary.all_failed else 0
