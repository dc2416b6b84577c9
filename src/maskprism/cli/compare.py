"""maskprism compare."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter

from maskprism._common.text import single_line
from maskprism.cli.options import (
    Crowds,
    DetectionOptions,
    Labels,
    Limit,
    Out,
    ReadingOptions,
    Replace,
    Source,
    Work,
    check_out,
    labels_for,
    load_model,
)
from maskprism.cli.output import DIFFERENT, DONE, Outcome, Output, command, listed

if TYPE_CHECKING:
    from maskprism.models import Model

_SECOND = Group("Reading B; default: names, rule, size and device of A", sort_key=12)
_TOLERANCE = Group("Tolerance, on the same canvas", sort_key=9)


SecondReading = Annotated[
    ReadingOptions,
    Parameter(name="*", group=_SECOND, name_transform=lambda name: f"{name.replace('_', '-')}-b"),
]
"""The options of `ReadingOptions` once more, with -b behind their names."""


def reading_of_b(first: ReadingOptions, second: ReadingOptions) -> ReadingOptions:
    """Return how B is read: where it is not said, names, rule, size and device are those of A."""
    return replace(
        second,
        rule=second.rule or first.rule,
        imgsz=second.imgsz or first.imgsz,
        names=second.names or first.names,
        device=second.device or first.device,
    )


@command(
    group="Diagnose",
    order=20,
    page="compare.md",
    examples=(
        "compare best.onnx best_int8.onnx --images photos --out comparison",
        "compare best.pt best.onnx --images photos --data data.yaml --out comparison",
    ),
    answer="`files`, `failures`, and what `comparison.json` holds",
)
def compare(
    a: Path,
    b: Path,
    /,
    *,
    images: Source,
    out: Out | None = None,
    overwrite: Replace = False,
    limit: Limit = None,
    data: Labels = None,
    crowds: Crowds = "left-out",
    min_iou: Annotated[float, Parameter(group=_TOLERANCE)] = 0.99,
    max_unmatched: Annotated[float, Parameter(group=_TOLERANCE)] = 0.01,
    max_score_drift: Annotated[float, Parameter(group=_TOLERANCE)] = 0.01,
    worst: int = 6,
    reading: ReadingOptions = ReadingOptions(),
    second: SecondReading = ReadingOptions(),
    detections: DetectionOptions = DetectionOptions(),
    work: Work = Work(),
    output: Output = Output(),
) -> Outcome:
    """Check an export, or compare two models: what differs, and why.

    Reports which part is responsible. Both run on the same canvas where one of them takes any size, so that
    differences of the letterbox (a .pt sees a rectangle, an export a square) are separated from those of the
    model. Ends with exit code 0 within the tolerance, 3 out of it.

    Parameters
    ----------
    a
        What B should be: .onnx, .pt, .tflite, .torchscript, or OpenVINO .xml (or its folder).
    b
        The export, other runtime or other checkpoint; or a .npz with the raw outputs that a device recorded.
    out
        Folder for comparison.json, tables and figures. Default: only a summary is printed.
    min_iou
        Mean mask IoU of matched instances, at least.
    max_unmatched
        Largest share of instances that are unmatched in their class.
    max_score_drift
        Mean difference of the scores of matched instances, at most.
    worst
        How many of the pairs of masks that differ most are drawn; with --data also of those that gain and lose most.
    """

    from maskprism.analysis.comparison.paired_run import compare as run
    from maskprism.analysis.comparison.report import Tolerance
    from maskprism.analysis.comparison.summary import sentences
    from maskprism.cli.terminal import TerminalConsole
    from maskprism.io.sources import Sources, open_source

    tolerance = Tolerance(min_iou, max_unmatched, max_score_drift)
    source = open_source(images, without=out, limit=limit)
    if out is not None:
        check_out(out, overwrite=overwrite, folder=True)
    network_a = load_model(a, reading, detections, threads=work.threads)
    network_b = load_model(b, reading_of_b(reading, second), detections, threads=work.threads)
    labels, network_a = labels_for(network_a, data, Sources((source,)).files, output, crowds=crowds, every_class=True)
    if labels is not None and any(map(_is_tuned, (network_a, network_b))):
        output.note("note: a model was tuned; on the images that it was tuned with, its gain is too good to be true")
    with output.bar("comparing") as bar, work.open(reading) as engine:
        found = run(
            network_a,
            network_b,
            source,
            truth=None if labels is None else labels.ground_truth,
            worst=worst,
            engine=engine,
            on_progress=bar.at,
        )
    *findings, verdict = sentences(found, tolerance)
    violated = found.violations(tolerance)
    console = TerminalConsole(highlight=False, soft_wrap=True)
    for sentence in findings:
        console.print(single_line(sentence), markup=False)
    style = {"pass": "bold green", "fail": "bold red", "cannot tell": "bold yellow"}
    console.print(single_line(verdict), markup=False, style=style[found.verdict(tolerance).outcome])
    files: dict[Path, str] = {}
    if out is not None:
        from maskprism.reports.comparison import write_comparison

        files = write_comparison(found, out, tolerance)
        output.list_files(files)
    numbers = found.as_dict(tolerance)
    del numbers["failed"]
    return Outcome({"files": list(files), **numbers, "failures": listed(bar.failures)}, DIFFERENT if violated else DONE)


def _is_tuned(network: Model) -> bool:
    return network.correction is not None or "maskprism_tuned" in network.runtime.metadata
