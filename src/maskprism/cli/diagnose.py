"""maskprism diagnose."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from cyclopts import Parameter

from maskprism.cli.options import (
    Crowds,
    DetectionOptions,
    Limit,
    ModelFiles,
    Out,
    ReadingOptions,
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
    from maskprism.analysis.dataset.checkpoints import Checkpoints
    from maskprism.analysis.dataset.diagnosis import Diagnosis
    from maskprism.analysis.dataset.findings import Finding
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
        "diagnose data.yaml --model epoch10.pt epoch20.pt epoch30.pt --out checkpoints",
    ),
    answer="`files`, and what `summary.json` holds: `failures` among it; of several models `checkpoints`, a row of the "
    "table for each",
)
def diagnose(
    data: Path,
    /,
    *,
    model: ModelFiles = None,
    out: Out,
    overwrite: Replace = False,
    split: Split = None,
    crowds: Crowds = "left-out",
    images: Path | None = None,
    limit: Limit = None,
    worst: int = 48,
    table: Literal["parquet", "csv"] = "parquet",
    tune: Annotated[bool, Parameter(negative=())] = False,
    reading: ReadingOptions = ReadingOptions(),
    detections: DetectionOptions = DetectionOptions(),
    work: Work = Work(),
    output: Output = Output(),
) -> Outcome:
    """Compare masks with their ground truth: which part loses what.

    Mask AP under the three decodes that tools use, AP if parts of the model were perfect, the kinds of errors (TIDE),
    and the error budget of every instance found: resolution, box, prototypes, coefficients. Writes
    `report.html`, one page with figures, the worst masks and what to try; `instances` and
    `detections`, tables of every ground-truth instance and detection; `summary.json`; and the figures.
    Findings are ranked by the mask AP to be gained, and each says what to change.

    With several models (`--model a.pt b.pt c.pt`) it compares checkpoints: `checkpoints.csv`, one table;
    `checkpoints.png`, one curve with intervals, over epochs where the names carry them (epoch10.pt); and
    the results of each in a folder of its own.

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
    from maskprism.analysis.dataset.checkpoints import Checkpoint, Checkpoints, epoch_of, names_of
    from maskprism.datasets import open_dataset

    if worst < 0:
        raise InputError(f"worst is {worst}; expected 0 or more")
    models = [*(model or ())]
    names = names_of(models) if len(models) > 1 else [""]
    if tune and len(models) > 1:
        raise InputError("--tune is for one model; call it for the checkpoint that you choose")
    if tune:
        from maskprism.analysis.tuning.fitting import minimiser

        minimiser()  # says at once what is not installed
    dataset = open_dataset(data, split, images, crowds=crowds)
    dataset.check_masks_count()  # before the model is opened
    check_out(out, overwrite=overwrite, folder=True)
    options = _Options(conf=0.0, limit=limit, worst=worst, table=table, tune=tune, work=work, reading=reading)
    loaded = [_load(one, reading, detections) for one in models or [None]]  # all of them before any work
    done = [
        _diagnosed(dataset, network, out / name, replace(options, conf=conf), output)
        for (network, conf), name in zip(loaded, names, strict=True)
    ]
    answers = [one.answer for one in done]
    interrupted = any(one.found.interrupted for one in done)
    if len(done) > 1 and not interrupted:
        rows = [Checkpoint(name, epoch_of(name), one.found) for name, one in zip(names, done, strict=True)]
        answers = [_compared(Checkpoints(rows), out, answers, output)]
    first = models[0] if models else Path("sample")
    asked = {"split": split, "images": images, "crowds": None if crowds == "left-out" else crowds}
    if len(done) == 1:
        from maskprism.cli.next_commands import commands_after

        print("Next:")
        for line in commands_after(done[0].found, done[0].findings, data, first, out, asked, reading, detections):
            print(f"  {line}")
    failed = any(one.failed for one in done)
    return Outcome(answers[0], INTERRUPTED if interrupted else FAILED if failed else DONE)


@dataclass(frozen=True)
class _Options:
    """How a model is diagnosed."""

    conf: float
    limit: int | None
    worst: int
    table: Literal["parquet", "csv"]
    tune: bool
    work: Work
    reading: ReadingOptions


class _Done(NamedTuple):
    """A model that was diagnosed: its findings, and its part of the JSON."""

    found: Diagnosis
    findings: Sequence[Finding]
    answer: dict[str, Any]
    failed: bool


def _load(path: Path | None, reading: ReadingOptions, detections: DetectionOptions) -> tuple[Model, float]:
    """Return a model with the detections that AP takes, and the score from which they are shown."""
    network = load_model(path, reading, detections, threads=1, multi_label=True)
    conf = network.keep.conf
    return network.with_thresholds(replace(network.keep, conf=min(VALIDATION_CONF, conf))), conf


def _diagnosed(dataset: Dataset, network: Model, out: Path, options: _Options, output: Output) -> _Done:
    """Diagnose one model, and write and print the results."""
    from maskprism._common.files import written_together
    from maskprism.analysis.dataset.diagnosis import diagnose as run
    from maskprism.analysis.dataset.findings import findings_of
    from maskprism.reports.diagnosis_files import summary, write_diagnosis

    limit, conf, work, reading = options.limit, options.conf, options.work, options.reading
    with output.bar("diagnosing", len(dataset)) as bar, work.open(reading) as engine:
        found = run(dataset, network, conf=conf, limit=limit, engine=engine, on_progress=bar.at)
    if found.interrupted:
        print(f"interrupted after {found.images} of {found.total} images; this is about those")
    tuned = (
        _tuned(dataset, network, conf, limit, work.open(reading), output)
        if options.tune and not found.interrupted
        else _Tuned()
    )
    findings = findings_of(found)
    suffixes: dict[str, Literal[".parquet", ".csv"]] = {"parquet": ".parquet", "csv": ".csv"}
    with written_together():
        written = write_diagnosis(
            found,
            out,
            model=network,
            worst=options.worst,
            tables=suffixes[options.table],
            more=tuned.sections,
            numbers=tuned.numbers,
            findings=findings,
        )
    _print(found)
    for number, finding in enumerate(findings, 1):
        print(f"{number}. {finding.says}")
        print(f"   {finding.advice}")
    for sentence in tuned.sentences:
        print(f"Tuning: {sentence}")
    print("Where to look first:")
    output.list_files(written)
    if found.doubtful:
        print(f"The {len(found.doubtful)} most suspicious labels, by a score that learns nothing:")
    for label in found.doubtful:
        print(f"  {label.image}, label {label.label_id} ({label.class_name}): {label.reason}")
    if tuned.error is not None:
        print(f"maskprism: tuning could not be measured: {tuned.error}", file=sys.stderr)
    answer = {"files": list(written), **summary(found, findings), **tuned.numbers}
    return _Done(found, findings, answer, tuned.error is not None)


def _compared(found: Checkpoints, out: Path, answers: Sequence[Mapping[str, Any]], output: Output) -> dict[str, Any]:
    """Write and print which checkpoint is best."""
    from maskprism.reports.checkpoints_files import checkpoint_rows, write_checkpoints

    written = write_checkpoints(found, out)
    rows = checkpoint_rows(found)
    width = max(len(row["checkpoint"]) for row in rows)
    print(f"{'checkpoint':<{width}}  mask AP                    box AP                     mask IoU")
    for row, one in zip(rows, found.rows, strict=True):
        masks, boxes = (one.diagnosis.intervals.precision[name].plain() for name in ("predict", "boxes"))
        iou = "–" if row["mask_iou"] is None else f"{row['mask_iou']:.3f}"
        print(f"{row['checkpoint']:<{width}}  {masks:<25}  {boxes:<25}  {iou}")
    for sentence in found.sentences():
        print(sentence)
    output.list_files(written)
    files = [*written, *(file for answer in answers for file in answer["files"])]
    return {"files": files, "checkpoints": rows, "failures": [one for answer in answers for one in answer["failures"]]}


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
