"""What the commands share: options that are declared once, loading the model they name, and the progress bar."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Group, Parameter

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from maskprism.analysis.truth.labels import DatasetLabels
    from maskprism.models import Model

_READING = Group("Reading the model", sort_key=10)
_DETECTIONS = Group("Detections", sort_key=11)


@Parameter(name="*")
@dataclass(frozen=True)
class Reading:
    """How the model file is read."""

    runtime: Annotated[
        Literal["onnxruntime", "openvino", "litert", "ultralytics"] | None, Parameter(group=_READING)
    ] = None
    """What computes the network; by the file's suffix unless given."""

    layout: Annotated[Literal["yolov5", "yolov8", "end2end"] | None, Parameter(group=_READING)] = None
    """How the outputs are packed; found from shapes and metadata unless given."""

    rule: Annotated[str | None, Parameter(group=_READING)] = None
    """Mask rule, by name ("retina", "validation", "yolov5", "no-crop", ...); by the model's version unless given."""

    imgsz: Annotated[int | None, Parameter(group=_READING)] = None
    """Side of the network input in pixels, for models that take more than one."""

    names: Annotated[Path | None, Parameter(group=_READING)] = None
    """Class names, for a model that has none: a data.yaml, a .txt file with one per line, a COCO json, a model."""

    device: Annotated[str | None, Parameter(group=_READING)] = None
    """Where to compute: cpu, cuda, cuda:1, or a device of the runtime."""

    precision: Annotated[Literal["f32", "bf16", "f16"], Parameter(group=_READING)] = "f32"
    """Number format of the computation; others than f32 with OpenVINO only."""


@Parameter(name="*")
@dataclass(frozen=True)
class Detections:
    """Which detections are kept."""

    conf: Annotated[float, Parameter(group=_DETECTIONS)] = 0.25
    """Keep detections with a score above this."""

    iou: Annotated[float, Parameter(group=_DETECTIONS)] = 0.7
    """Drop a box that overlaps a better one of its class by more than this."""

    max_det: Annotated[int, Parameter(group=_DETECTIONS)] = 300
    """Keep at most this many detections per image."""

    classes: Annotated[list[int] | None, Parameter(group=_DETECTIONS, consume_multiple=True, negative=())] = None
    """Keep only these class ids."""


def load_model(
    path: Path | None,
    reading: Reading,
    detections: Detections,
    *,
    threads: int | None = None,
    multi_label: bool = False,
) -> Model:
    """The model that the options name."""
    from maskprism.models import load

    return load(
        path,
        runtime=reading.runtime,
        layout=reading.layout,
        rule=reading.rule,
        imgsz=reading.imgsz,
        names=reading.names,
        device=reading.device,
        precision=reading.precision,
        conf=detections.conf,
        iou=detections.iou,
        max_det=detections.max_det,
        classes=detections.classes,
        multi_label=multi_label,
        threads=threads,
    )


def named_by(labels: DatasetLabels | None, network: Model) -> Model:
    """The network with the class names of the labels where it has none; that is said on stderr."""
    if labels is None or not labels.notice:
        return network
    print(f"note: {labels.notice}", file=sys.stderr)
    return network.with_names(labels.names)


@contextmanager
def progress_bar(verb: str, total: int | None, *, visible: bool = True) -> Iterator[tuple[Progress, TaskID]]:
    """A progress bar on stderr with rate and remaining time."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:.1f} images/s" if task.speed else "- images/s", style="cyan")

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
        TextColumn("[red]{task.fields[failed]}"),
        console=Console(stderr=True),
    ) as progress:
        yield progress, progress.add_task(verb, total=total, failed="", visible=visible)


def failures(count: int) -> str:
    """How many failed, to be written behind a count; nothing for none."""
    return f", {count} failed" if count else ""
