"""The options that several commands share, each declared once, and the model that they name.

Those with a help text here mean the same in every command. Of the others (`Out`, `Overwrite`) name and type are the
same, and the docstring of the command says what is written.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Group, Parameter, validators

# Hints of the library's options are evaluated here, for they are inherited.
from maskprism._common.choices import EngineName
from maskprism._common.choices import Precision as Precision
from maskprism._common.choices import RuntimeName as RuntimeName
from maskprism._common.extras import called_command
from maskprism._common.files import make_folder, reporting_write_errors
from maskprism.errors import InputError
from maskprism.io.untrusted import is_folder
from maskprism.models import options
from maskprism.models.families import FamilyName as FamilyName

if TYPE_CHECKING:
    from maskprism._common.parallel import Engine
    from maskprism.analysis.truth.labels import DatasetLabels
    from maskprism.cli.output import Output
    from maskprism.models import Model

ModelFile = Annotated[
    Path | None,
    Parameter(
        help="Model file, needed: .onnx, .pt, .tflite, .torchscript, OpenVINO .xml or its folder; sample is the "
        "bundled demo model, which knows drawn shapes only."
    ),
]
ModelFiles = Annotated[
    list[Path] | None,
    Parameter(
        consume_multiple=True,
        negative=(),
        help="Model file, needed: .onnx, .pt, .tflite, .torchscript, OpenVINO .xml or its folder; several compare "
        "checkpoints; sample is the bundled demo model, which knows drawn shapes only.",
    ),
]
# A shell completes paths; the text stays unchanged, as a pattern is not a path.
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
Limit = Annotated[int | None, Parameter(help="At most this number of images, evenly spread. Default: all.")]
Seed = Annotated[
    int,
    Parameter(
        help="Seed of random draws, 0 to 4294967295: the same seed gives the same result.",
        validator=validators.Number(gte=0, lt=1 << 32),
    ),
]
Split = Annotated[
    Literal["train", "val", "test"] | None,
    Parameter(help="Part of a data.yaml. Default: the first of val, test, train that it has."),
]
Crowds = Annotated[
    Literal["left-out", "as-instances"],
    Parameter(
        help="Masks that a COCO json marks as crowds (iscrowd: 1): left out, as COCO counts, or taken for single "
        "objects, as CVAT means every brush mask that it marks so."
    ),
]
Labels = Annotated[
    Path | None,
    Parameter(
        help="A data set with labels of these images (data.yaml of Ultralytics, or COCO json), for the IoU with the "
        "ground truth. Default: none."
    ),
]

_READING = Group("Reading the model", sort_key=10)
_DETECTIONS = Group("Detections", sort_key=11)
_WORK = Group("Where the work is done", sort_key=13)


@Parameter(name="*", group=_READING)
@dataclass(frozen=True)
class ReadingOptions(options.Reading):
    """How the model file is read. Help and defaults are those of the library; the types are what can be typed."""

    rule: str | None = None
    preprocessing: Annotated[str | None, Parameter(parse=False)] = None
    imgsz: int | None = None
    names: Path | None = None
    correction: Path | None = None
    device: str | None = None
    threads: Annotated[int | None, Parameter(parse=False)] = None


@Parameter(name="*", group=_DETECTIONS)
@dataclass(frozen=True)
class DetectionOptions(options.Detections):
    """Which detections are kept."""

    classes: Annotated[list[int | str] | None, Parameter(consume_multiple=True, negative=())] = None
    multi_label: Annotated[bool | None, Parameter(parse=False)] = None
    agnostic: Annotated[bool | None, Parameter(parse=False)] = None


@Parameter(name="*", group=_WORK)
@dataclass(frozen=True)
class Work:
    """Which machines work on the images, and how many at once."""

    engine: EngineName = "threads"
    """Threads of this machine, or a cluster that Ray runs: the one that RAY_ADDRESS names or that was started here, or
    else a new one here. The results are the same."""

    workers: int | None = None
    """Threads, or processes of the cluster; default: one per processor (or GPU)."""

    gpus: float | None = None
    """Of each process of the cluster; default: 1 with --device cuda."""

    def open(self, reading: ReadingOptions) -> AbstractContextManager[Engine]:
        """Return the engine; see `open_engine`."""
        from maskprism._common.parallel import open_engine

        return open_engine(self.engine, self.workers, self.gpus_for(reading))

    def gpus_for(self, reading: ReadingOptions) -> float:
        """GPUs of each process, for a model that is read so."""
        on_gpu = self.engine == "ray" and (reading.device or "").startswith("cuda")
        return float(on_gpu) if self.gpus is None else self.gpus

    @property
    def threads(self) -> int | None:
        """Threads of one call of the model: one on a cluster, whose processes share processors."""
        return 1 if self.engine == "ray" else None


def model_file(path: Path | None) -> Path:
    """Return the file that `--model` names: the path itself, or the bundled demo model for the word sample.

    Raises
    ------
    InputError
        For none.
    """
    if path is None:
        raise InputError(options.NO_MODEL)
    return options.SAMPLE_MODEL if str(path) == options.SAMPLE else path


def check_out(
    out: Path,
    *,
    overwrite: bool,
    folder: bool = False,
    option: str = "--out",
    suffix: str = "",
    beside: Callable[[Path], Iterable[Path]] = lambda _: (),
) -> None:
    """Refuse an --out that cannot be written, or that holds something already; asked before any work.

    Parameters
    ----------
    out
        A file, or a folder for several.
    overwrite
        Whether what is there may be replaced.
    folder
        Whether it is a folder; it is made.
    option
        The option that names it.
    suffix
        How the name of a file must end.
    beside
        What gives the further files that will be written, of the file.

    Raises
    ------
    MaskprismError
        If it exists (a folder: with anything in it) and may not be replaced, is a folder where a file is expected or
        the other way round, or cannot be made.
    """
    from maskprism.reports.manifest import manifest_path

    if folder:
        if out.exists() and not is_folder(out):
            raise InputError(f"{out}: cannot be written (it is a file); expected a folder; choose another {option}")
        make_folder(out, f"choose another {option}")
        if not overwrite and any(out.iterdir()):
            raise InputError(f"{out}: exists and is not empty; choose another {option}, or give --overwrite")
        return
    if is_folder(out):
        raise InputError(f"{out}: is a folder; expected the name of a file, such as {out / f'NAME{suffix}'}")
    if not out.name.lower().endswith(suffix):
        raise InputError(f"{out}: expected a file name ending in {suffix}, such as {out.with_suffix(suffix)}")
    for path in (out, manifest_path(out, called_command.get()), *beside(out)):
        if is_folder(path):
            raise InputError(f"{path}: is a folder; expected the name of a file that can be written")
        if not overwrite and os.path.lexists(path):
            raise InputError(f"{path}: exists; choose another {option}, or give --overwrite")
    with reporting_write_errors(out, f"choose another {option}"):
        out.parent.mkdir(parents=True, exist_ok=True)


def load_model(
    path: Path | None,
    reading: ReadingOptions,
    detections: DetectionOptions,
    *,
    threads: int | None = None,
    multi_label: bool = False,
) -> Model:
    """Return the model that the options name.

    Raises
    ------
    InputError
        Where they name none.
    """
    from maskprism.models import load

    return load(
        model_file(path),
        reading=replace(reading, threads=threads),
        detections=replace(detections, multi_label=multi_label),
    )


def labels_for(
    model: Model,
    data: Path | None,
    images: Path | Collection[Path],
    output: Output,
    *,
    crowds: Crowds,
    split: str | None = None,
    every_class: bool = False,
) -> tuple[DatasetLabels | None, Model]:
    """Open the labels of `--data`, where it is given, and note what there is to know of them.

    Parameters
    ----------
    model
        The model whose predictions are compared with them.
    data, crowds, split
        The options.
    images
        The folder of the images, or the files; see `open_labels`.
    output
        Where notes go.
    every_class
        Whether labels count of classes, too, that `--classes` leaves out.

    Returns
    -------
    tuple
        The labels, and the model: with the class names of the labels, where it has none.
    """
    from maskprism.analysis.truth.labels import open_labels

    if data is None:
        return None, model
    kept = None if every_class else model.keep.classes
    labels = open_labels(data, images, model.spec.names, split, kept, crowds=crowds)
    output.notices(labels.notices)
    return labels, model.with_names(labels.names) if labels.by_index else model
