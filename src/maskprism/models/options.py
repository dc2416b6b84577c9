"""What a user can say about a model: how its file is read, and which detections are kept.

The command line makes its options of the same fields (`maskprism.cli.options`). Importing this imports no runtime.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskprism._common.choices import Precision, RuntimeName
from maskprism.errors import InputError
from maskprism.io.class_names import class_ids
from maskprism.models.families import FamilyName

if TYPE_CHECKING:
    from maskprism.core.masks import MaskRule
    from maskprism.core.preprocessing import Preprocessing
    from maskprism.models.correction import Correction
    from maskprism.models.families.rows import Thresholds
else:  # hints are evaluated for the command line, which has types of its own for these fields
    MaskRule = Preprocessing = Correction = object

SAMPLE = "sample"
"""What the bundled demo model is called in `load` and behind `--model`."""
SAMPLE_MODEL = Path(__file__).parents[1] / "data" / "sample.onnx"
"""Its file. It knows the shapes of `maskprism.datasets.scenes`, and nothing else."""
NO_MODEL = (
    'no model is given; expected a file, such as --model best.pt or maskprism.load("best.pt"), or the bundled demo '
    'model, which knows drawn shapes only: --model sample or maskprism.load("sample")'
)


@dataclass(frozen=True)
class Reading:
    """How the model file is read."""

    runtime: RuntimeName | None = None
    """What computes the model. Default: by the file's suffix; `.onnx` also runs with openvino."""

    layout: FamilyName | None = None
    """How the outputs are packed. Default: found from shapes and metadata."""

    rule: MaskRule | str | None = None
    """Mask post-processing rule, by name ("retina", "validation", "yolov5", "no-crop", ...). Default: that of the
    model's version."""

    preprocessing: Preprocessing | str | None = None
    """What becomes of images before the model sees them, by name. Default: that of the family."""

    imgsz: int | tuple[int, int] | None = None
    """Side of the letterboxed input in pixels, for models that take more than one. Default: 640 (YOLACT: 550), for
    .pt files the size that they were trained with."""

    names: str | os.PathLike[str] | Mapping[int, str] | Sequence[str] | None = None
    """Class names, for a model that has none or wrong ones: a data.yaml, a .txt file with one per line, a COCO json, a
    model. Default: those of the model."""

    correction: Correction | str | os.PathLike[str] | None = None
    """Correction of the mask coefficients: a .json file that `maskprism tune` wrote for this model.
    Default: none."""

    device: str | int | None = None
    """Where to compute: cpu, cuda, cuda:1, or a device of the runtime. Default: cpu."""

    precision: Precision = "f32"
    """Number format of the computation; others than f32 with OpenVINO only."""

    threads: int | None = None
    """Threads of one call of the model, where the runtime has such an option."""


@dataclass(frozen=True)
class Detections:
    """Which detections are kept. Default: those that the family's own tools keep."""

    conf: float | None = None
    """Keep detections with a score above this. Default: 0.25 (YOLACT: 0.15, queries: 0.5)."""

    iou: float | None = None
    """Drop a box that overlaps a better one of its class by more than this. Default: 0.7 (YOLACT: 0.5)."""

    max_det: int | None = None
    """Keep at most this many detections per image. Default: 300 (YOLACT and queries: 100)."""

    classes: Iterable[int | str] | None = None
    """Keep only these classes, by id or by name. Default: all."""

    multi_label: bool | None = None
    """Whether a box counts for every class above `conf`, as in Ultralytics' validation, not only for its best."""

    agnostic: bool | None = None
    """Whether a box falls to a better one of any class, not only of its own. Default: as YOLOE's own predict has it
    for a YOLOE in PyTorch, not for others."""

    def over(self, thresholds: Thresholds, names: Mapping[int, str]) -> Thresholds:
        """Change thresholds where something is given.

        Parameters
        ----------
        thresholds
            What holds otherwise.
        names
            Class names of the model by class id.

        Raises
        ------
        InputError
            If a value is out of range, or a class is not in the model.
        """
        given = {key: value for key, value in vars(self).items() if value is not None}
        if self.classes is not None:
            given["classes"] = class_ids(self.classes, names)
        return replace(thresholds, **given)


def with_keywords(keywords: Mapping[str, Any], reading: Reading, detections: Detections) -> tuple[Reading, Detections]:
    """Set fields of the two option objects by their names.

    Raises
    ------
    InputError
        If neither has a field of that name, with names that are close to it.
    """
    own = {options: {field.name for field in fields(options)} for options in (Reading, Detections)}
    for name in keywords.keys() - own[Reading] - own[Detections]:
        raise InputError(unknown_option(name, own[Reading] | own[Detections]))
    read, keep = ({name: keywords[name] for name in keywords.keys() & known} for known in own.values())
    return replace(reading, **read), replace(detections, **keep)


def unknown_option(name: str, known: Iterable[str]) -> str:
    """Say that there is no option of that name, and which there are."""
    close = get_close_matches(name, known, n=1)
    return f"there is no option {name}=; " + (
        f"did you mean {close[0]}=?" if close else f"expected {', '.join(sorted(known))}"
    )
