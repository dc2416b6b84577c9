"""The command line: thin over the package; every option is declared once."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Group, Parameter

from maskprism import __version__
from maskprism.errors import MaskprismError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from maskprism.models import Model

app = App(
    name="maskprism",
    help="Take YOLO-seg instance masks apart: prototypes, coefficients, and how they add up.",
    version=__version__,
    help_format="markdown",
    suppress_keyboard_interrupt=False,
)

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


@app.command
def info(
    model: Path | None = None,
    /,
    *,
    json: Annotated[bool, Parameter(negative=())] = False,
    reading: Reading = Reading(),
) -> None:
    """Print what a model is: family, runtime, input size, prototypes, classes, mask rule, fingerprint.

    Parameters
    ----------
    model
        Model file: .onnx, .pt, .tflite, or OpenVINO .xml (or its folder); the bundled sample model unless given.
    json
        Print JSON instead of a table.
    """
    spec = _load(model, reading, Detections()).spec
    entries = {
        "model": spec.name,
        "layout": spec.layout,
        "runtime": spec.runtime,
        "input": f"{spec.input_hw[0]} x {spec.input_hw[1]}"
        + (" at most, cut to a rectangle around each photograph" if spec.rectangular else ""),
        "prototypes": f"{spec.prototypes} of {spec.grid_hw[0]} x {spec.grid_hw[1]} (stride {spec.stride})",
        "mask rule": spec.rule.name,
        "version": f"Ultralytics {spec.version}" if spec.version else "unknown",
        "classes": _classes(spec.names),
        "sha256": spec.sha256,
    }
    if json:
        import dataclasses
        import json as json_module

        print(json_module.dumps(dataclasses.asdict(spec), indent=2))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for key, value in entries.items():
        table.add_row(Text(key, style="bold"), Text(value))
    Console().print(table)


@app.command
def explain(
    images: list[str],
    /,
    *,
    model: Path | None = None,
    out: Path,
    instance: int | Literal["all"] | None = None,
    order: Literal["index", "weight", "magnitude", "effect"] = "effect",
    scale: Literal["shared", "each"] = "shared",
    reading: Reading = Reading(),
    detections: Detections = Detections(),
) -> int:
    """Draw how the masks of photographs are made of prototypes and coefficients.

    Writes one folder per photograph: `overview.png`, and per chosen instance the prototype grid,
    the contribution grids, the assembly strip and what the crop cuts away.

    Parameters
    ----------
    images
        Images, folders, patterns, videos, or .txt lists of paths.
    model
        Model file: .onnx, .pt, .tflite, or OpenVINO .xml (or its folder); the bundled sample model unless given.
    out
        Folder for the pictures.
    instance
        Number of the instance to explain, as in the overview; "all" for every one. The most
        confident one unless given.
    order
        Order of the panels: by prototype index, weight, size of the weight, or effect in the box.
    scale
        Colour scale of the prototype grid: one for all prototypes, or one for each.
    """
    from maskprism.sources import open_source
    from maskprism.views.explain import explain_photographs

    sources = [open_source(source, without=out) for source in images]
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MaskprismError(f"{out}: cannot be written ({error.strerror or error}); choose another --out") from None
    network = _load(model, reading, detections)
    total = sum(source.count() or 0 for source in sources) or None
    with _progress("explaining", total) as (progress, task):
        items = (item for source in sources for item in source.pending(frozenset()))
        done = failed = pictures = 0
        for explained in explain_photographs(items, network, out, instance, order=order, scale=scale):
            done += 1
            failed += explained.failed
            pictures += len(explained.pictures)
            if explained.message:
                progress.console.print(explained.message, markup=False, highlight=False, soft_wrap=True)
            progress.update(task, completed=done, failed=_failed(failed))
    print(f"{pictures} pictures of {done - failed} images in {out}" + _failed(failed))
    return 1 if failed == done else 0


@app.command
def extract(
    source: str,
    /,
    *,
    model: Path | None = None,
    out: Path,
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
        A folder (with its subfolders), a pattern in quotes, an image, a video, or a .txt list of paths.
    model
        Model file: .onnx, .pt, .tflite, or OpenVINO .xml (or its folder); the bundled sample model unless given.
    out
        The table: TABLE.csv or TABLE.parquet.
    overwrite
        Start over, even if the table exists with another model or other settings.
    """
    from maskprism.extract import extract as run

    network = _load(model, reading, detections, threads=1)
    with _progress("extracting", None, visible=False) as (progress, task):

        def show(done: int, total: int | None, failed: int) -> None:
            if not progress.tasks[task].visible:  # what earlier runs did is no part of the rate
                progress.reset(task, completed=done, total=total, visible=True)
            progress.update(task, completed=done, total=total, failed=_failed(failed))

        summary = run(source, network, out, on_progress=show, overwrite=overwrite)
    print(summary)
    return 1 if summary.all_failed else 0


@app.command
def demo(*, out: Path = Path("maskprism-demo")) -> None:
    """Show everything on sample scenes, with the bundled model: nothing else is needed.

    Draws scenes with exact ground truth, explains the most confident object of each, writes the
    coefficient table of all objects, and draws its histograms and correlation.

    Parameters
    ----------
    out
        Folder for the results.
    """
    from maskprism.demo import run_demo

    result = run_demo(out, on_step=lambda step: print(f"... {step}", file=sys.stderr))
    first = min(path for path in result.pictures.iterdir() if path.is_dir())
    found = {
        first / "00-assembly.png": "how one mask adds up",
        first / "00-prototypes.png": "the 32 prototypes, and what this object makes of them",
        first / "00-contributions.png": "what each of them adds",
        result.table: "the coefficients of all objects",
        result.histograms: "how they are distributed",
        result.correlation: "which of them go together",
        result.scenes / "data.yaml": "the scenes with their ground truth",
    }
    width = max(len(str(path)) for path in found)
    print(f"{result.instances} objects in {len(list(result.pictures.iterdir()))} scenes. Where to look first:")
    for path, what in found.items():
        print(f"  {path!s:<{width}}  {what}")
    print("With your own model: maskprism explain photo.jpg --model yours.pt --out pictures")


def main() -> None:
    """Run the command; a mistake of the user ends in one line and a non-zero exit code."""
    try:
        status = app(result_action="return_value")
    except MaskprismError as error:
        print(f"maskprism: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        resumes = "extract" in sys.argv[1:2]
        print(
            "maskprism: interrupted" + ("; the same command goes on where it stopped" if resumes else ""),
            file=sys.stderr,
        )
        sys.exit(130)
    sys.exit(status if isinstance(status, int) else 0)


def _classes(names: Mapping[int, str]) -> str:
    if all(name == f"class{i}" for i, name in names.items()):
        return f"{len(names)}, without names"
    return f"{len(names)}: " + ", ".join(f"{i} {name}" for i, name in names.items())


def _load(path: Path | None, reading: Reading, detections: Detections, *, threads: int | None = None) -> Model:
    from maskprism.models import load

    return load(
        path,
        runtime=reading.runtime,
        layout=reading.layout,
        rule=reading.rule,
        imgsz=reading.imgsz,
        device=reading.device,
        precision=reading.precision,
        conf=detections.conf,
        iou=detections.iou,
        max_det=detections.max_det,
        classes=detections.classes,
        threads=threads,
    )


@contextmanager
def _progress(verb: str, total: int | None, *, visible: bool = True) -> Iterator[tuple[Progress, TaskID]]:
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


def _failed(count: int) -> str:
    return f", {count} failed" if count else ""


if __name__ == "__main__":
    main()
