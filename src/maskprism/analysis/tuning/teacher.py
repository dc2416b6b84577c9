"""A model in the place of labels: its masks are what the masks of another should be."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from maskprism.datasets import Dataset, GroundTruth, Sample
from maskprism.datasets.samples import LOCAL_ONLY, Annotation, ImageAnnotations
from maskprism.errors import InputError, ModelError
from maskprism.io.class_names import are_placeholders
from maskprism.io.sources import ImageFiles, SourceImage, open_source

if TYPE_CHECKING:
    from jaxtyping import UInt8

    from maskprism.datasets.augmentation import Augmentation
    from maskprism.models import Model

    Picture = UInt8[np.ndarray, "H W 3"]


@dataclass(frozen=True)
class Teacher:
    """What a model finds, as annotations.

    Attributes
    ----------
    frame
        The model, this one or that which learns, that decides how an image lies on the canvas of both.
    """

    model: Model
    frame: Model

    def leniently(self) -> Teacher:
        """Return the same: what a model finds has no row that cannot be read."""
        return self

    def of(self, image: SourceImage, image_hw: tuple[int, int]) -> ImageAnnotations:
        """Return the instances on a canvas, each with its box and its mask on the canvas; empty masks are left out.

        Raises
        ------
        ImageError
            If an image is missing.
        ModelError
            Where the model fails.
        """
        canvas = image.read()
        try:
            said = self.model.predict(canvas)
        except Exception as error:  # runtimes raise what they like
            raise ModelError(f"the teacher {self.model.spec.name} failed ({' '.join(str(error).split())})") from error
        found = zip(said.classes.tolist(), said.masks("canvas"), said.boxes.tolist(), strict=True)
        return ImageAnnotations([Annotation(class_id, mask, box) for class_id, mask, box in found if mask.any()], ())

    def canvas(self, image: Picture) -> Picture:
        """Return an image as it lies on the canvas, padding and all."""
        return self.frame.spec.preprocessing.canvas(image, self.frame.letterbox((image.shape[0], image.shape[1])))


@dataclass(frozen=True)
class PseudoLabelledSample(Sample):
    """An image as it lies on the canvas, the same pixels for both models, and what the teacher finds there."""

    annotations: Teacher

    def read(self, *, grey: bool = False) -> tuple[Picture, GroundTruth]:
        """Return the canvas, HWC uint8 in BGR, and the teacher's instances on it.

        Raises
        ------
        ImageError
        ModelError
        """
        canvas = self.annotations.canvas(self.image.read(grey=grey))
        return canvas, self._taught(canvas)

    def augmented(self, image: Picture, truth: GroundTruth, how: Augmentation) -> tuple[Picture, GroundTruth]:
        """Return the canvas augmented, and what the teacher finds there."""
        seen = how.image(image)
        return seen, self._taught(seen)

    def _taught(self, canvas: Picture) -> GroundTruth:
        image_hw = (canvas.shape[0], canvas.shape[1])
        rows = self.annotations.of(SourceImage(self.name, canvas), image_hw).rows
        return GroundTruth(
            classes=np.array([self.class_ids.get(row.class_id, -1) for row in rows], dtype=np.int64),
            segments=tuple(row.segment for row in rows),
            boxes=np.array([row.box for row in rows], dtype=np.float32).reshape(-1, 4),
            crowd=np.zeros(len(rows), dtype=bool),
            image_hw=image_hw,
            names=self.names,
        )


@dataclass(frozen=True, repr=False)
class PseudoLabels(Dataset):
    """Images without labels, and a teacher that says what is on them: a data set for `tune`; see `pseudo_labels`."""

    annotations: Teacher

    def for_model(self, names: Mapping[int, str]) -> Dataset:
        """Return the same with the class ids of a model, matched by name, or by index where one has lost its names."""
        return replace(super().for_model(names), notices=())

    def sample(self, image: SourceImage) -> Sample:
        """Return one of its images with pseudo-labels."""
        return PseudoLabelledSample(image, self.annotations, self.class_ids, self.names)


def teacher_of(dataset: Dataset) -> Model | None:
    """Return the model whose masks stand in for labels; None for a data set that has labels."""
    return dataset.annotations.model if isinstance(dataset, PseudoLabels) else None


def pseudo_labels(teacher: Model, model: Model, images: str | os.PathLike[str]) -> PseudoLabels:
    """Return what a teacher finds on images, as ground truth for a model that should draw the same masks.

    Both see the same canvas: the size of the model where the teacher takes any.

    Parameters
    ----------
    teacher
        Finds instances above the score that it is loaded with.
    images
        A folder, pattern, image or `.txt` list.

    Raises
    ------
    ImageError
        For images that are not there.
    InputError
        For a video, images behind a URI, models that see other canvases, and classes of which none is common.
    """
    source = open_source(images)
    if not isinstance(source, ImageFiles):
        raise InputError(f"{source.path}: is a video; give its frames as image files")
    if not isinstance(source.root, Path):
        raise InputError(f"{images}: {LOCAL_ONLY}")
    if teacher.spec.rectangular:
        teacher = teacher.on_canvas(model.spec.input_hw, rectangular=True)
    own, other = model.spec, teacher.spec
    if own.input_hw != other.input_hw or own.preprocessing != other.preprocessing:
        seen = [
            f"{one.name} sees {one.input_hw[1]} x {one.input_hw[0]} ({one.preprocessing.name})" for one in (other, own)
        ]
        raise InputError(f"{' and '.join(seen)}; both must see the same: export the teacher for the size of the model")
    names = other.names
    if len(own.names) == len(names) and (are_placeholders(own.names) or are_placeholders(names)):
        names = own.names if are_placeholders(names) else names  # the same model; one file has lost its names
    elif not set(own.names.values()) & set(names.values()):
        raise InputError(
            f"{other.name} and {own.name} have no class in common; the teacher must be the model that the model was "
            "made from, or one of the same classes"
        )
    return PseudoLabels(
        path=source.root,
        split=None,
        names=names,
        images=source,
        annotations=Teacher(teacher, model if other.rectangular else teacher),
        class_ids={class_id: class_id for class_id in names},
    )
