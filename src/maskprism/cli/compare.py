"""maskprism compare."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter

from maskprism._common.text import single_line
from maskprism.cli.options import (
    Crowds,
    Detections,
    Labels,
    Limit,
    Out,
    Reading,
    Replace,
    Source,
    check_out,
    load_model,
    named_by,
)
from maskprism.cli.output import DIFFERENT, DONE, Outcome, Output, command, listed

if TYPE_CHECKING:
    from maskprism.models import Model

_SECOND = Group("Reading B; names, rule, size and device as for A unless given", sort_key=12)
_TOLERANCE = Group("Tolerance, on the same canvas", sort_key=9)


SecondReading = Annotated[
    Reading,
    Parameter(name="*", group=_SECOND, name_transform=lambda name: f"{name.replace('_', '-')}-b"),
]
"""The options of `Reading` once more, with -b behind their names."""


def reading_of_b(first: Reading, second: Reading) -> Reading:
    """How B is read: where it is not said, names, rule, size and device are those of A."""
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
    example="compare best.onnx best_int8.onnx --images photos --out comparison",
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
    reading: Reading = Reading(),
    second: SecondReading = Reading(),
    detections: Detections = Detections(),
    output: Output = Output(),
) -> Outcome:
    """Check an export, or compare two networks: what differs, and why.

    Tells which part is to blame. Both run on the same canvas where one of them takes any size, so that
    differences of the letterbox (a .pt sees a rectangle, an export a square) are told from those of the
    network. Ends with exit code 0 within the tolerance, 3 out of it.

    Parameters
    ----------
    a
        What B should be: .onnx, .pt, .tflite, .torchscript, or OpenVINO .xml (or its folder).
    b
        The export, other runtime or other checkpoint; or a .npz with the raw outputs that a device recorded.
    out
        Folder for comparison.json, tables and figures; only a summary is printed unless given.
    min_iou
        Mean mask IoU of matched instances, at least.
    max_unmatched
        Share of instances without a partner of their class, at most.
    max_score_drift
        Mean difference of the scores of matched instances, at most.
    worst
        How many of the pairs of masks that differ most are drawn; with --data also of those that gain and lose most.
    """

    from maskprism.analysis.comparison.paired_run import compare as run
    from maskprism.analysis.comparison.report import Tolerance
    from maskprism.analysis.comparison.summary import sentences
    from maskprism.analysis.truth.labels import open_labels
    from maskprism.cli.terminal import TerminalConsole
    from maskprism.io.sources import Sources, open_source

    tolerance = Tolerance(min_iou, max_unmatched, max_score_drift)
    source = open_source(images, without=out, limit=limit)
    if out is not None:
        check_out(out, overwrite=overwrite, folder=True)
    network_a = load_model(a, reading, detections)
    network_b = load_model(b, reading_of_b(reading, second), detections)
    labels = None if data is None else open_labels(data, Sources((source,)).files, network_a.spec.names, crowds=crowds)
    network_a = named_by(labels, network_a, output)
    if labels is not None and any(map(_is_tuned, (network_a, network_b))):
        output.note("note: a network was tuned; on the images that it was tuned with, its gain is too good to be true")
    with output.bar("comparing", None) as bar:
        found = run(
            network_a,
            network_b,
            source,
            truth=None if labels is None else labels.ground_truth,
            worst=worst,
            on_progress=bar.at,
        )
        for name, reason in found.failed.items():
            bar.fail(name, reason, said=f"failed: {reason}")
    *findings, verdict = sentences(found, tolerance)
    violated = found.violations(tolerance)
    console = TerminalConsole(highlight=False, soft_wrap=True)
    for sentence in findings:
        console.print(single_line(sentence), markup=False)
    console.print(single_line(verdict), markup=False, style="bold red" if violated else "bold green")
    files: dict[Path, str] = {}
    if out is not None:
        from maskprism.reports.comparison import write_comparison

        files = write_comparison(found, out, tolerance)
        output.list_files(files)
    numbers = found.as_dict(tolerance)
    failed = listed(numbers.pop("failed").items())
    return Outcome({"files": list(files), **numbers, "failures": failed}, DIFFERENT if violated else DONE)


def _is_tuned(network: Model) -> bool:
    return network.correction is not None or "maskprism_tuned" in network.runtime.metadata
