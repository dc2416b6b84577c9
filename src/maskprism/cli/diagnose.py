"""maskprism diagnose."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from maskprism.cli.options import Detections, Limit, ModelFile, Out, Reading, Split, load_model
from maskprism.cli.output import DONE, INTERRUPTED, Outcome, Output, command
from maskprism.errors import InputError, MaskprismError

if TYPE_CHECKING:
    from maskprism.analysis.dataset.diagnosis import Diagnosis, Failed

VALIDATION_CONF = 0.001


@command
def diagnose(
    data: Path,
    /,
    *,
    model: ModelFile = None,
    out: Out,
    split: Split = None,
    images: Path | None = None,
    limit: Limit = None,
    worst: int = 48,
    table: Literal["parquet", "csv"] = "parquet",
    reading: Reading = Reading(),
    detections: Detections = Detections(),
    output: Output = Output(),
) -> Outcome:
    """Compare masks with their ground truth: which part loses what.

    Mask AP under the three decodes that tools use, AP if parts of the network were perfect, the kinds of errors (TIDE),
    and the error budget of every instance found: resolution, box, prototypes, coefficients. Writes
    `report.html`, one page with figures, the worst masks and what to try; `instances` and
    `detections`, tables of every ground-truth instance and detection; `summary.json`; and the figures.

    AP takes detections as Ultralytics validates (scores above 0.001, every class of a box); `--conf`
    is for the tables and the error budget. Interrupted, it reports on the images done.

    Parameters
    ----------
    data
        A data.yaml of Ultralytics, a COCO json, or a folder that holds just one of them.
    out
        Folder for the results.
    images
        Folder of the images of a COCO json; found beside the json unless given.
    worst
        How many of the worst masks the page shows.
    table
        Format of the tables.
    """
    from maskprism.analysis.dataset.diagnosis import diagnose as run
    from maskprism.analysis.dataset.findings import findings_of
    from maskprism.datasets import open_dataset
    from maskprism.views.dataset.files import summary, write_diagnosis

    if worst < 0:
        raise InputError(f"worst is {worst}; expected 0 or more")
    dataset = open_dataset(data, split, images)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MaskprismError(f"{out}: cannot be written ({error.strerror or error}); choose another --out") from None
    lowest = replace(detections, conf=min(VALIDATION_CONF, detections.conf))
    network = load_model(model, reading, lowest, threads=1, multi_label=True)
    with output.bar("diagnosing", len(dataset)) as bar:

        def show(done: int, total: int, failure: Failed | None) -> None:
            if failure is not None:
                bar.fail(failure.name, failure.message)
            bar.at(done, total, len(bar.failures))

        found = run(dataset, network, conf=detections.conf, limit=limit, on_progress=show)
    if found.interrupted:
        print(f"interrupted after {found.images} of {found.total} images; this is about those")
    suffixes: dict[str, Literal[".parquet", ".csv"]] = {"parquet": ".parquet", "csv": ".csv"}
    written = write_diagnosis(found, out, model=network, worst=worst, tables=suffixes[table])
    _print(found)
    findings = findings_of(found)
    for number, finding in enumerate(findings, 1):
        print(f"{number}. {finding.says}\n   {finding.advice}")
    width = max(len(str(path)) for path in written)
    print("Where to look first:")
    for path, what in written.items():
        print(f"  {path!s:<{width}}  {what}")
    return Outcome({"files": list(written), **summary(found, findings)}, INTERRUPTED if found.interrupted else DONE)


def _print(found: Diagnosis) -> None:
    """The numbers on one screen."""
    from maskprism.analysis.dataset.ap_protocols import AP_PROTOCOLS
    from maskprism.analysis.truth.error_budget import PARTS
    from maskprism.views.dataset.report import size_of, title_of, warnings_of

    def number(value: float) -> str:
        return "–" if math.isnan(value) else f"{value:.3f}"

    print(f"{found.spec.name} on {title_of(found)}: {size_of(found)}")
    for warning in warnings_of(found):
        print(f"  {warning}")
    print("  average precision                AP    AP50")
    for name, decode in AP_PROTOCOLS.items():
        one = found.precision[name]
        print(f"    {f'masks, {decode.tool} ({decode.size})':<30} {number(one.ap):>6}  {number(one.ap50):>6}")
    boxes = found.precision["boxes"]
    print(f"    {'boxes':<30} {number(boxes.ap):>6}  {number(boxes.ap50):>6}")
    if len(found.budget):
        mean = found.budget.mean()
        losses = "  ".join(f"{part} {getattr(mean, part):.3f}" for part in PARTS)
        print(f"  mean mask IoU of {mean.instances} instances found: {mean.iou:.3f}; lost: {losses}")
