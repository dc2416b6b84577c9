"""What a family of models is, as one object, and what reading the outputs of any of them takes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from maskprism.core.preprocessing import YOLO, Preprocessing
from maskprism.models.families.rows import RawInstances, Thresholds

if TYPE_CHECKING:
    from jaxtyping import Float32

    from maskprism.core.masks import MaskRule
    from maskprism.models.families import FamilyName
    from maskprism.models.metadata import Metadata
    from maskprism.models.onnx.mask_branch import MaskBranch

    Floats = Float32[np.ndarray, "..."]


_YOLO_THRESHOLDS = Thresholds()


@dataclass(frozen=True)
class Probe:
    """What a model gives for a plain canvas, and what else is known of it.

    Parameters
    ----------
    outputs
        Its output tensors, for one image or a batch.
    canvas_hw
        (height, width) of the letterboxed input that they are for.
    metadata
        What the file says about itself.
    label
        What error messages call the model.
    names
        Of the outputs, as far as the runtime knows them.
    images_last
        Whether the model takes images as (H, W, 3), and so likely gives its prototypes.
    runtime
        What computes the outputs.
    reveal
        Gives a probe of the same model with the factors of its finished masks as outputs, and where they are; None
        where the runtime cannot show them.
    """

    outputs: Sequence[Floats]
    canvas_hw: tuple[int, int]
    metadata: Metadata
    label: str
    names: Sequence[str] = ()
    images_last: bool = False
    runtime: Any = None
    reveal: Callable[[], tuple[Probe, MaskBranch] | None] = lambda: None

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of the outputs."""
        return [output.shape for output in self.outputs]

    @property
    def described(self) -> str:
        """The shapes as text."""
        return ", ".join(str(shape) for shape in self.shapes)


@dataclass(frozen=True)
class Layout(ABC):
    """Where things are in the outputs of one model; each family has a subclass that reads them.

    Parameters
    ----------
    family
        Name of the family.
    rows_output, prototypes_output
        Index of the tensor with the coefficients, and of that with the prototypes.
    channels_last
        Whether a detection is a row rather than a column.
    prototypes_last
        Whether prototypes are (h, w, K) rather than (K, h, w).
    classes
        How many there are; None where the outputs do not tell.
    prototypes
        How many there are, K.
    """

    family: FamilyName
    rows_output: int
    prototypes_output: int
    channels_last: bool
    prototypes_last: bool
    classes: int | None
    prototypes: int

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know of how this model is read, one sentence each."""
        return ()

    @property
    def score_limits(self) -> tuple[float, float]:
        """What raw scores lie between."""
        return 0, 1

    def grid_hw(self, shapes: Sequence[tuple[int, ...]]) -> tuple[int, int]:
        """(height, width) of the prototypes in outputs of these shapes."""
        shape = shapes[self.prototypes_output]
        return (shape[1], shape[2]) if self.prototypes_last else (shape[2], shape[3])

    def count(self, shapes: Sequence[tuple[int, ...]]) -> int:
        """Return how many candidates, or finished rows, outputs of these shapes hold."""
        return shapes[self.rows_output][1 if self.channels_last else 2]

    def level_ends(self, count: int, canvas_hw: tuple[int, int]) -> tuple[int, ...] | None:
        """Return where each level of the pyramid ends among `count` candidates, the finest first.

        None where none are known.
        """
        return None

    def read_prototypes(self, outputs: Sequence[Floats], index: int) -> Float32[np.ndarray, "K h w"]:
        """Return the prototypes of image `index` of the batch."""
        maps = outputs[self.prototypes_output][index]
        return np.ascontiguousarray(np.moveaxis(maps, -1, 0) if self.prototypes_last else maps)

    @abstractmethod
    def raw_scores(self, outputs: Sequence[Floats], index: int) -> Floats | None:
        """Return what image `index` of the batch has as scores, objectness included; None where they are made here."""

    @abstractmethod
    def read_rows(
        self, outputs: Sequence[Floats], index: int, canvas_hw: tuple[int, int], keep: Thresholds
    ) -> RawInstances:
        """Return the detections of image `index` of the batch that pass `keep`, best first.

        Those with NaN or infinity are left out and counted.
        """


@dataclass(frozen=True)
class Family:
    """A family of models: what is the same for all of them.

    Parameters
    ----------
    name
        What `layout=` and `--layout` call it.
    outputs
        What it gives, for error messages.
    detect
        Gives the layout of a model of the family, and the probe that it reads; None for any other model. Raises
        ModelError where a model is of the family and cannot be read. Its second argument is the family that the user
        asks for, None for any.
    rule
        How masks are drawn; None for the rule of the version of Ultralytics that wrote the file.
    preprocessing
        What becomes of images before the model sees them.
    keep
        Which detections its own tools keep.
    side, multiple
        Of the letterboxed input in pixels, where the model takes any, and what its sides are multiples of.
    objectness
        Whether its rows hold an objectness.
    rewritable
        Whether coefficients and prototypes are outputs of the file, so that the file can be rewritten.
    """

    name: FamilyName
    outputs: str
    detect: Callable[[Probe, FamilyName | None], tuple[Layout, Probe] | None]
    rule: MaskRule | None = None
    preprocessing: Preprocessing = YOLO
    keep: Thresholds = _YOLO_THRESHOLDS
    side: int = 640
    multiple: int = 32
    objectness: bool = False
    rewritable: bool = True
