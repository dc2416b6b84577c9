"""maskprism diagnose."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from cyclopts import Parameter

from maskprism.cli.options import (
    Crowds,
    Detections,
    Limit,
    ModelFile,
    Out,
    Reading,
    Replace,
    Split,
    Work,
    check_out,
    load_model,
)
from maskprism.cli.output import DONE, FAILED, INTERRUPTED, Outcome, Output, command
from maskprism.errors import InputError, MaskprismError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from maskprism._common.parallel import Engine
    from maskprism.analysis.dataset.diagnosis import Diagnosis
    from maskprism.datasets import Dataset
    from maskprism.models import Model
    from maskprism.reports.html import Section

VALIDATION_CONF = 0.001


@command(
    group="Diagnose",
    order=10,
    page="diagnose.md",
    examples=(
        "diagnose data.yaml --model best.onnx --out diagnosis",
        "diagnose data.yaml --model best.onnx --limit 100 --out quick",
    ),
    answer="`files`, and what `summary.json` holds: `failures` among it",
)
def diagnose(
    data: Path,
    /,
    *,
    model: ModelFile = None,
    out: Out,
    overwrite: Replace = False,
    split: Split = None,
    crowds: Crowds = "left-out",
    images: Path | None = None,
    limit: Limit = None,
    worst: int = 48,
    table: Literal["parquet", "csv"] = "parquet",
    tune: Annotated[bool, Parameter(negative=())] = False,
    reading: Reading = Reading(),
    detections: Detections = Detections(),
    work: Work = Work(),
    output: Output = Output(),
) -> Outcome:
    """Compare masks with their ground truth: which part loses what.

    Mask AP under the three decodes that tools use, AP if parts of the model were perfect, the kinds of errors (TIDE),
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
        Folder of the images of a COCO json; default: found beside the json.
    worst
        How many of the worst masks the page shows.
    table
        Format of the tables.
    tune
        Measure, too, what `maskprism tune` would gain, on images that take no part; takes about twice as long (extra
        tune).
    """
    from maskprism.analysis.dataset.diagnosis import diagnose as run
    from maskprism.analysis.dataset.findings import findings_of
    from maskprism.datasets import open_dataset
    from maskprism.reports.diagnosis_files import summary, write_diagnosis

    if worst < 0:
        raise InputError(f"worst is {worst}; expected 0 or more")
    if tune:
        from maskprism.analysis.tuning.fitting import minimiser

        minimiser()  # says at once what is not installed
    dataset = open_dataset(data, split, images, crowds=crowds)
    check_out(out, overwrite=overwrite, folder=True)
    network = load_model(model, reading, detections, threads=1, multi_label=True)
    conf = network.keep.conf
    network = network.with_thresholds(replace(network.keep, conf=min(VALIDATION_CONF, conf)))
    with output.bar("diagnosing", len(dataset)) as bar, work.open(reading) as engine:
        found = run(dataset, network, conf=conf, limit=limit, engine=engine, on_progress=bar.at)
    if found.interrupted:
        print(f"interrupted after {found.images} of {found.total} images; this is about those")
    tuned = (
        _tuned(dataset, network, conf, limit, work.open(reading), output)
        if tune and not found.interrupted
        else _Tuned()
    )
    suffixes: dict[str, Literal[".parquet", ".csv"]] = {"parquet": ".parquet", "csv": ".csv"}
    written = write_diagnosis(
        found, out, model=network, worst=worst, tables=suffixes[table], more=tuned.sections, numbers=tuned.numbers
    )
    _print(found)
    findings = findings_of(found)
    for number, finding in enumerate(findings, 1):
        print(f"{number}. {finding.says}")
        print(f"   {finding.advice}")
    for sentence in tuned.sentences:
        print(f"Tuning: {sentence}")
    print("Where to look first:")
    output.list_files(written)
    asked = {"--model": model, "--split": split, "--images": images}
    named = [str(word) for option in asked.items() if option[1] is not None for word in option]
    print(f"Which labels are wrong: {shlex.join(['maskprism', 'labels', str(data), *named, '--out', 'labels'])}")
    if tuned.error is not None:
        print(f"maskprism: tuning could not be measured: {tuned.error}", file=sys.stderr)
    answer = {"files": list(written), **summary(found, findings), **tuned.numbers}
    return Outcome(answer, INTERRUPTED if found.interrupted else FAILED if tuned.error is not None else DONE)


class _Tuned(NamedTuple):
    """What the report says of tuning: nothing without --tune; or why it cannot be done."""

    sections: Sequence[Section] = ()
    sentences: Sequence[str] = ()
    numbers: Mapping[str, Any] = {}
    error: MaskprismError | None = None


def _tuned(
    dataset: Dataset,
    network: Model,
    conf: float,
    limit: int | None,
    opening: AbstractContextManager[Engine],
    output: Output,
) -> _Tuned:
    from maskprism.analysis.tuning import tune
    from maskprism.reports.tuning import sentences
    from maskprism.reports.tuning_files import section_of, summary

    with output.bar("tuning", told=False) as bar, opening as engine:  # failures have been printed
        try:
            found = tune(dataset, network, conf=conf, limit=limit, engine=engine, on_progress=bar.at)
        except MaskprismError as error:
            return _Tuned(error=error)
    return _Tuned([section_of(found)], sentences(found), {"tuning": summary(found)})


def _print(found: Diagnosis) -> None:
    """The numbers on one screen."""
    from maskprism.analysis.dataset.ap_protocols import AP_PROTOCOLS
    from maskprism.analysis.truth.error_budget import PARTS
    from maskprism.reports.diagnosis import outcome_of, size_of, title_of, warnings_of

    def number(value: float) -> str:
        return "–" if math.isnan(value) else f"{value:.3f}"

    print(f"{found.spec.name} on {title_of(found)}: {size_of(found)}")
    for warning in warnings_of(found):
        print(f"  {warning}")
    print("  average precision                AP    AP50   AP, 95 % interval")
    names = {name: f"masks, {decode.tool} ({decode.size})" for name, decode in AP_PROTOCOLS.items()} | {
        "boxes": "boxes"
    }
    for name, words in names.items():
        one, sure = found.precision[name], found.intervals.precision[name]
        ends = "" if math.isnan(sure.low) else f"   {sure.low:.3f} to {sure.high:.3f}"
        print(f"    {words:<30} {number(one.ap):>6}  {number(one.ap50):>6}{ends}")
    print(f"  {outcome_of(found)}")
    if len(found.budget):
        mean = found.budget.mean()
        losses = ", ".join(f"{part} {mean.intervals[part].plain()}" for part in PARTS)
        print(f"  mean mask IoU of {mean.instances} instances found: {mean.intervals['iou'].plain()}")
        print(f"  lost in {losses}")
