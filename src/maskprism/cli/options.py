"""The options that several commands share, each declared once, and the model that they name.

Those with a help text here mean the same in every command. Of the others (`Out`, `Overwrite`) name and type are the
same, and the docstring of the command says what is written.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Group, Parameter

from maskprism._common.files import make_folder, reporting_write_errors
from maskprism.errors import InputError
from maskprism.foreign import is_folder

if TYPE_CHECKING:
    from maskprism.analysis.truth.labels import DatasetLabels
    from maskprism.cli.output import Output
    from maskprism.models import Model

ModelFile = Annotated[
    Path | None,
    Parameter(
        help="Model file: .onnx, .pt, .tflite, .torchscript, OpenVINO .xml or its folder; the bundled one unless given."
    ),
]
# A shell completes paths; what is typed is kept as it is, for a pattern is no path.
Images = Annotated[
    list[str | Path],
    Parameter(help="Images, folders, patterns, videos, or .txt lists of paths; all but videos also by URI."),
]
Source = Annotated[
    str | Path,
    Parameter(
        help="A folder (with its subfolders), a pattern in quotes, an image, a video, or a .txt list of paths; all but "
        "videos also by URI (s3://bucket/photos)."
    ),
]
Out = Annotated[Path, Parameter(name="--out")]
Table = Annotated[str | Path, Parameter(name="--out")]
Overwrite = Annotated[bool, Parameter(name="--overwrite", negative=())]
Replace = Annotated[bool, Parameter(name="--overwrite", negative=(), help="Replace results that are there already.")]
Limit = Annotated[int | None, Parameter(help="Only so many images, evenly spread.")]
Seed = Annotated[int, Parameter(help="Of what is drawn at random: the same seed gives the same result.")]
Split = Annotated[
    Literal["train", "val", "test"] | None,
    Parameter(help="Part of a data.yaml; the first of val, test, train that it has unless given."),
]
Labels = Annotated[
    Path | None,
    Parameter(
        help="A data set with labels of these images (data.yaml of Ultralytics, or COCO json), for the IoU with the "
        "ground truth."
    ),
]

Family = Literal["yolov5", "yolov8", "end2end", "yolact", "query"]

_READING = Group("Reading the model", sort_key=10)
_DETECTIONS = Group("Detections", sort_key=11)


@Parameter(name="*")
@dataclass(frozen=True)
class Reading:
    """How the model file is read."""

    runtime: Annotated[
        Literal["onnxruntime", "openvino", "litert", "torchscript", "ultralytics"] | None, Parameter(group=_READING)
    ] = None
    """What computes the network; by the file's suffix unless given."""

    layout: Annotated[Family | None, Parameter(group=_READING)] = None
    """How the outputs are packed; found from shapes and metadata unless given."""

    rule: Annotated[str | None, Parameter(group=_READING)] = None
    """Mask rule, by name ("retina", "validation", "yolov5", "no-crop", ...); by the model's version unless given."""

    imgsz: Annotated[int | None, Parameter(group=_READING)] = None
    """Side of the network input in pixels, for models that take more than one."""

    names: Annotated[Path | None, Parameter(group=_READING)] = None
    """Class names, for a model that has none: a data.yaml, a .txt file with one per line, a COCO json, a model."""

    correction: Annotated[Path | None, Parameter(group=_READING)] = None
    """Correction of the mask coefficients: a .json file that `maskprism tune` wrote for this model."""

    device: Annotated[str | None, Parameter(group=_READING)] = None
    """Where to compute: cpu, cuda, cuda:1, or a device of the runtime."""

    precision: Annotated[Literal["f32", "bf16", "f16"], Parameter(group=_READING)] = "f32"
    """Number format of the computation; others than f32 with OpenVINO only."""


@Parameter(name="*")
@dataclass(frozen=True)
class Detections:
    """Which detections are kept."""

    conf: Annotated[float | None, Parameter(group=_DETECTIONS)] = None
    """Keep detections with a score above this; 0.25 unless given (YOLACT: 0.15, queries: 0.5)."""

    iou: Annotated[float | None, Parameter(group=_DETECTIONS)] = None
    """Drop a box that overlaps a better one of its class by more than this; 0.7 unless given (YOLACT: 0.5)."""

    max_det: Annotated[int | None, Parameter(group=_DETECTIONS)] = None
    """Keep at most this many detections per image; 300 unless given (YOLACT and queries: 100)."""

    classes: Annotated[list[int] | None, Parameter(group=_DETECTIONS, consume_multiple=True, negative=())] = None
    """Keep only these class ids."""


def check_out(out: Path, *, overwrite: bool, folder: bool = False, suffix: str = "") -> None:
    """Refuse an --out that cannot be written, or that holds something already; asked before any work.

    Parameters
    ----------
    out
        A file, or a folder for several.
    overwrite
        Whether what is there may be replaced.
    folder
        Whether it is a folder; it is made.
    suffix
        How the name of a file must end.

    Raises
    ------
    MaskprismError
        If it exists (a folder: with anything in it) and may not be replaced, is a folder where a file is expected or
        the other way round, or cannot be made.
    """
    if folder:
        if out.exists() and not is_folder(out):
            raise InputError(f"{out}: cannot be written (it is a file); expected a folder; choose another --out")
        make_folder(out, "choose another --out")
        if not overwrite and any(out.iterdir()):
            raise InputError(f"{out}: exists and is not empty; choose another --out, or give --overwrite")
        return
    if is_folder(out):
        raise InputError(f"{out}: is a folder; expected the name of a file, such as {out / f'NAME{suffix}'}")
    if not out.name.lower().endswith(suffix):
        raise InputError(f"{out}: expected a file name ending in {suffix}, such as {out.with_suffix(suffix)}")
    if not overwrite and os.path.lexists(out):
        raise InputError(f"{out}: exists; choose another --out, or give --overwrite")
    with reporting_write_errors(out, "choose another --out"):
        out.parent.mkdir(parents=True, exist_ok=True)


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
        correction=reading.correction,
        device=reading.device,
        precision=reading.precision,
        conf=detections.conf,
        iou=detections.iou,
        max_det=detections.max_det,
        classes=detections.classes,
        multi_label=multi_label,
        threads=threads,
    )


def named_by(labels: DatasetLabels | None, network: Model, output: Output) -> Model:
    """The network with the class names of the labels where it has none; that is noted."""
    if labels is None or not labels.notice:
        return network
    output.note(f"note: {labels.notice}")
    return network.with_names(labels.names)
