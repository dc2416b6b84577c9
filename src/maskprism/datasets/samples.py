"""The images of a data set one by one: rows of annotation in, ground truth out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

import numpy as np

from maskprism._common.text import counted
from maskprism.datasets.ground_truth import GroundTruth, box_around
from maskprism.errors import InputError
from maskprism.io.class_names import are_placeholders
from maskprism.io.sources import ImageFiles, SourceImage

if TYPE_CHECKING:
    from jaxtyping import UInt8

    from maskprism.datasets.augmentation import Augmentation
    from maskprism.datasets.ground_truth import Outlines, Segment


LOCAL_ONLY = "a data set is only read from files of this machine; copy it there"


class Annotation(NamedTuple):
    """One annotated instance, before classes are renumbered and coordinates are clipped."""

    class_id: int | str
    segment: Segment
    box: Sequence[float] | None = None
    crowd: bool = False
    label_id: int | str = -1


class ImageAnnotations(NamedTuple):
    """The annotated instances of an image, and what was corrected while reading them."""

    rows: list[Annotation]
    remarks: tuple[str, ...]
    outlines: Outlines = "coco"
    repeats: tuple[tuple[int | str, int | str], ...] = ()
    mistakes: tuple[tuple[int | str, str], ...] = ()


class Annotations(Protocol):
    """Where rows of ground truth come from."""

    def leniently(self) -> Self:
        """Return the same, where rows with mistakes are left out and listed."""
        ...

    def of(self, image: SourceImage, image_hw: tuple[int, int]) -> ImageAnnotations:
        """Return the rows about one image.

        Raises
        ------
        LabelError
        """
        ...


@dataclass(frozen=True)
class Sample:
    """One image of a data set, and where its ground truth stands; nothing is read before it is asked for."""

    image: SourceImage
    annotations: Annotations
    class_ids: Mapping[int | str, int]
    names: Mapping[int, str]

    @property
    def name(self) -> str:
        """The image's path, relative to the data set where it lies in it."""
        return self.image.name

    def read(self, *, grey: bool = False) -> tuple[UInt8[np.ndarray, "H W 3"], GroundTruth]:
        """The image, HWC uint8 in BGR, and its ground truth;

        An image with a mistake in one of its labels is left out as a whole, as in Ultralytics: half of its ground truth
        would make false alarms of good detections.

        Parameters
        ----------
        grey
            Grey as `read_image` has it.

        Raises
        ------
        ImageError
            Which say what is wrong with which file: take the next sample then.
        LabelError
            Which say what is wrong with which file: take the next sample then.
        """
        pixels = self.image.read(grey=grey)
        return pixels, self.truth((pixels.shape[0], pixels.shape[1]))

    def augmented(
        self, image: UInt8[np.ndarray, "H W 3"], truth: GroundTruth, how: Augmentation
    ) -> tuple[UInt8[np.ndarray, "H W 3"], GroundTruth]:
        """Return what `read` gave, augmented."""
        return how.image(image), how.truth(truth)

    def truth(self, image_hw: tuple[int, int]) -> GroundTruth:
        """Return the ground truth alone, for an image of this (height, width).

        Raises
        ------
        LabelError
        """
        rows, remarks, outlines, repeats, mistakes = self.annotations.of(self.image, image_hw)
        boxes = [box_around(row.segment, row.box, image_hw) for row in rows]
        return GroundTruth(
            classes=np.array([self.class_ids[row.class_id] for row in rows], dtype=np.int64),
            segments=tuple(row.segment for row in rows),
            boxes=np.array(boxes, dtype=np.float32).reshape(-1, 4),
            crowd=np.array([row.crowd for row in rows], dtype=bool),
            image_hw=image_hw,
            names=self.names,
            remarks=remarks,
            outlines=outlines,
            label_ids=tuple(row.label_id for row in rows),
            repeats=repeats,
            mistakes=mistakes,
        )


@dataclass(frozen=True)
class Dataset:
    """The images of one split with their ground truth; iterating gives a `Sample` each.

    Attributes
    ----------
    split
        "val", "test", "train", or None where the file is one split.
    names
        Class names by class id.
    notices
        What a reader must know: images that are not there, crowds, how its classes became those of a model.
    by_index
        Its classes became those of a model by their numbers, because one of the two has no class names.
    nothing_counts
        Why no mask of it counts, where that is known.
    """

    path: Path
    split: str | None
    names: Mapping[int, str]
    images: ImageFiles
    annotations: Annotations
    class_ids: Mapping[int | str, int]
    notices: tuple[str, ...] = ()
    by_index: bool = False
    nothing_counts: str = ""

    def __len__(self) -> int:
        return len(self.images.paths)

    def __iter__(self) -> Iterator[Sample]:
        return map(self.sample, self.images.pending(frozenset()))

    def sample(self, image: SourceImage) -> Sample:
        """One of its images with the ground truth."""
        return Sample(image, self.annotations, self.class_ids, self.names)

    def take(self, positions: Iterable[int]) -> Self:
        """Return the same data set with the images at these positions alone."""
        return replace(self, images=self.images.take(positions))

    def check_masks_count(self) -> None:
        """Refuse a data set that has masks and none that counts.

        Raises
        ------
        InputError
            If all its masks are crowds.
        """
        if self.nothing_counts:
            raise InputError(f"{self.path}: no mask counts: {self.nothing_counts}")

    def leniently(self) -> Self:
        """Return the same data set, in which a label with a mistake costs that label alone: `GroundTruth.mistakes`."""
        return replace(self, annotations=self.annotations.leniently())

    def __repr__(self) -> str:
        split = f", split {self.split!r}" if self.split else ""
        return f"Dataset({str(self.path)!r}{split}, {len(self)} images, {len(self.names)} classes)"

    def for_model(self, names: Mapping[int, str]) -> Dataset:
        """Return the same data set with the class ids of a model.

        Parameters
        ----------
        names
            The class names of the model by class id.

        Returns
        -------
        Dataset
            Classes are matched by their order where both have the same names in the same order, even if a name occurs
            twice; otherwise by name (case and spaces do not matter), and classes that the model does not know get ids
            behind its own. Where one of the two has no names and they have equally many classes (or it is unknown how
            many the model has), they are matched by index. `notices` lists that, and names that occur twice.

        Raises
        ------
        InputError
            If no name at all is common to both.
        """
        nameless = are_placeholders(names)
        if (nameless or are_placeholders(self.names)) and len(names) in (0, len(self.names)):
            which = "the model" if nameless else self.path.name
            notice = (
                f"{which} has no class names: class 0 of the model is taken for class 0 of the data set, and so "
                f"on for all {len(self.names)}; if their order is another one, name the model's with --names"
            )
            return replace(
                self,
                names=self.names if nameless else names,
                notices=(*self.notices, notice),
                by_index=True,
            )
        known: dict[str, list[int]] = {}
        for class_id, name in sorted(names.items()):
            known.setdefault(_plain(name), []).append(class_id)
        own: dict[str, list[int]] = {}
        for class_id, name in sorted(self.names.items()):
            own.setdefault(_plain(name), []).append(class_id)
        if self.names and not own.keys() & known.keys():
            raise InputError(
                f"{self.path}: none of its {len(self.names)} classes ({_some(self.names)}) is one of the "
                f"{len(names)} of the model ({_some(names)}); use the model that was trained for this data set, or "
                "name its classes with --names"
            )
        new, merged = {}, dict(names)
        for name, class_ids in own.items():
            theirs = known.get(name, [])
            for position, class_id in enumerate(class_ids):
                if len(theirs) == len(class_ids):
                    new[class_id] = theirs[position]
                else:
                    new[class_id] = theirs[0] if theirs else max(merged) + 1
                merged.setdefault(new[class_id], self.names[class_id])
        notices = []
        if _in_order(names) != _in_order(self.names):
            for name, class_ids in own.items():
                theirs = known.get(name, [])
                if theirs and max(len(class_ids), len(theirs)) > 1:
                    how = f"class {theirs[0]} of the model is taken for it"
                    if len(theirs) == len(class_ids):
                        how = "they are matched in their order"
                    notices.append(
                        f"the class name {name!r} occurs {counted(len(class_ids), 'time')} in {self.path.name} and "
                        f"{counted(len(theirs), 'time')} in the model: {how}; give every class a name of its own"
                    )
        return replace(
            self,
            names=merged,
            class_ids={row: new[old] for row, old in self.class_ids.items()},
            notices=(*self.notices, *notices),
        )


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").split())


def _in_order(names: Mapping[int, str]) -> list[str]:
    return [_plain(name) for _, name in sorted(names.items())]


def _some(names: Mapping[int, str]) -> str:
    listed = list(names.values())
    return ", ".join(listed[:5]) + (", ..." if len(listed) > 5 else "")
