"""Everything a model said about one image, and one instance of it.

A `Prediction` keeps coefficients and prototypes, not masks: masks are decoded when asked for, at
the size asked for, so a prediction stays small and every explanation of it is exact.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex, overload

import numpy as np

from maskprism._common.text import counted
from maskprism.core import decoding
from maskprism.core.decoding import outputs
from maskprism.core.decoding.outlines import TOLERANCE
from maskprism.core.masks import Patch, decode, rule_named, sigmoid
from maskprism.core.preprocessing import YOLO
from maskprism.errors import InputError
from maskprism.io.images import read_image
from maskprism.io.untrusted import is_file

if TYPE_CHECKING:
    from jaxtyping import Bool, Float32, Int64, UInt8

    from maskprism._common.choices import Segmentation
    from maskprism.core.decoding import MaskPolygons
    from maskprism.core.geometry import Letterbox, Size
    from maskprism.core.masks import Crop, MaskRule
    from maskprism.core.preprocessing import Preprocessing
    from maskprism.integrations.coco import Categories
    from maskprism.io.images import ImageLike

_CHUNK = 32
_CLASSES_SHOWN = 5


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model said about one image: N instances over K shared prototypes.

    Attributes
    ----------
    canvas_boxes
        x1, y1, x2, y2 in canvas pixels, as the model gave them (`boxes` has them in image pixels); None where it gives
        none, as models of query masks do. Such masks are never cropped, and the boxes around them stand in (`extents`).
    scores
        Confidence, 0 to 1.
    classes
        Class ids, keys of `names`.
    coefficients
        Coefficients as the model gave them, any sign, unbounded.
    prototypes
        Shared by all instances; may be negative themselves.
    objectness
        The factor that YOLOv5 and YOLOv7 apply to coefficients; None elsewhere.
    source
        Where the image came from, for titles and messages.
    levels
        Levels of the pyramid, 0 for the finest, that each instance comes from; None where the outputs do not tell.
    preprocessing
        What became of the image before the model saw it.

    Raises
    ------
    InputError
        For arrays whose shapes do not fit together, or a rule that crops without boxes.
    """

    canvas_boxes: Float32[np.ndarray, "N 4"] | None
    scores: Float32[np.ndarray, " N"]
    classes: Int64[np.ndarray, " N"]
    coefficients: Float32[np.ndarray, "N K"]
    prototypes: Float32[np.ndarray, "K h w"]
    letterbox: Letterbox
    rule: MaskRule
    names: Mapping[int, str] = field(default_factory=dict)
    objectness: Float32[np.ndarray, " N"] | None = None
    source: str | None = None
    levels: Int64[np.ndarray, " N"] | None = None
    preprocessing: Preprocessing = YOLO

    def __post_init__(self) -> None:
        n = len(self.scores)
        k, *grid = _shape(self.prototypes, "prototypes", ("K", "h", "w"))
        expected: dict[str, tuple[Any, tuple[int, ...]]] = {
            "scores": (self.scores, (n,)),
            "classes": (self.classes, (n,)),
            "coefficients": (self.coefficients, (n, k)),
        }
        if self.canvas_boxes is not None:
            expected["canvas_boxes"] = (self.canvas_boxes, (n, 4))
        elif self.rule.crops:
            raise InputError(
                f"rule {self.rule.name!r} crops masks to their boxes, and this prediction has none; "
                "use a rule that does not, such as 'no-crop'"
            )
        for name in ("objectness", "levels"):
            if (array := getattr(self, name)) is not None:
                expected[name] = (array, (n,))
        for name, (array, shape) in expected.items():
            if np.shape(array) != shape:
                raise InputError(
                    f"{name} has shape {np.shape(array)}; expected {shape} for {n} instances and {k} prototypes"
                )
        if tuple(grid) != self.letterbox.grid_hw:
            raise InputError(
                f"prototypes are {grid[0]} x {grid[1]}; the letterbox says the grid is "
                f"{self.letterbox.grid_hw[0]} x {self.letterbox.grid_hw[1]}"
            )

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Instance]:
        return (Instance(self, index) for index in range(len(self)))

    @overload
    def __getitem__(self, key: int | np.integer[Any]) -> Instance: ...
    @overload
    def __getitem__(self, key: slice | list[int] | list[bool] | np.ndarray[Any, Any]) -> Prediction: ...
    def __getitem__(self, key: Any) -> Instance | Prediction:
        """An int gives an `Instance`; a slice, index list or boolean array a `Prediction`."""
        if isinstance(key, bool | tuple):
            raise IndexError(f"cannot index a prediction with {key!r}; expected an int, a slice, a list or an array")
        if isinstance(key, SupportsIndex) and getattr(key, "ndim", 0) == 0:
            return Instance(self, int(self._rows(np.array([key.__index__()]))[0]))
        rows = key if isinstance(key, slice) else self._rows(np.asarray(key))
        return replace(
            self,
            canvas_boxes=None if self.canvas_boxes is None else self.canvas_boxes[rows],
            scores=self.scores[rows],
            classes=self.classes[rows],
            coefficients=self.coefficients[rows],
            objectness=None if self.objectness is None else self.objectness[rows],
            levels=None if self.levels is None else self.levels[rows],
        )

    def _rows(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return checked indices, counted from the front, or a boolean per instance."""
        if rows.dtype == bool:
            if rows.shape != (len(self),):
                raise IndexError(f"a boolean index has shape {rows.shape}; expected ({len(self)},), one per instance")
            return rows
        rows = rows.astype(np.int64) if rows.size == 0 else rows
        if rows.ndim != 1 or not np.issubdtype(rows.dtype, np.integer):
            raise IndexError(f"an index of {rows.dtype} with shape {rows.shape} is not a list of instance numbers")
        for index in rows[(rows < -len(self)) | (rows >= len(self))][:1]:
            raise IndexError(
                f"instance {index} is out of range: the prediction has {len(self)} instances"
                + (f" (0..{len(self) - 1})" if len(self) else "")
            )
        return np.where(rows < 0, rows + len(self), rows)

    def __repr__(self) -> str:
        height, width = self.image_size
        k, h, w = self.prototypes.shape
        source = f"{self.source!r}, " if self.source else ""
        classes, counts = np.unique(self.classes, return_counts=True)
        most = np.argsort(-counts, kind="stable")
        named = ", ".join(f"{counts[place]} {self.name_of(classes[place])}" for place in most[:_CLASSES_SHOWN])
        more = f" and {len(most) - _CLASSES_SHOWN} more" if len(most) > _CLASSES_SHOWN else ""
        return (
            f"Prediction({source}{width}x{height}: {counted(len(self), 'instance')}"
            + (f" ({named}{more})" if named else "")
            + f"; {k} prototypes of {h}x{w}, rule {self.rule.name!r})"
        )

    def _repr_html_(self) -> str:
        from maskprism.integrations.notebook import prediction_html

        return prediction_html(self)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the image in pixels."""
        return self.letterbox.image_hw

    @property
    def has_boxes(self) -> bool:
        """Whether the model gives boxes, and not masks alone."""
        return self.canvas_boxes is not None

    @cached_property
    def extents(self) -> Float32[np.ndarray, "N 4"]:
        """x1, y1, x2, y2 in canvas pixels of where each instance is.

        Its box, as the model gave it; where it gives none, the smallest one around its mask on the
        canvas, or the whole image where that mask is empty.
        """
        if self.canvas_boxes is not None:
            return self.canvas_boxes
        (top, left), (height, width) = self.letterbox.offset_yx, self.letterbox.content_hw
        found = np.array([[left, top, left + width, top + height]] * len(self), dtype=np.float32).reshape(-1, 4)
        for extent, patch in zip(found, decoding.each_crop(self, "canvas"), strict=True):
            rows, columns = np.flatnonzero(patch.values.any(axis=1)), np.flatnonzero(patch.values.any(axis=0))
            if len(rows):
                extent[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        return found

    @cached_property
    def boxes(self) -> Float32[np.ndarray, "N 4"]:
        """x1, y1, x2, y2 in image pixels, clipped to the image; those of `extents` where there are no boxes."""
        return self.letterbox.to_image(self.extents, clip=True)

    @property
    def broken_prototypes(self) -> Int64[np.ndarray, " B"]:
        """Indices of prototypes that contain NaN or infinity: an export in half precision may have some."""
        return np.flatnonzero(~np.isfinite(self.prototypes).all(axis=(1, 2)))

    @cached_property
    def weights(self) -> Float32[np.ndarray, "N K"]:
        """What multiplies the prototypes in the masks: the coefficients, times objectness if the rule says so."""
        if not self.rule.objectness:
            return self.coefficients
        if self.objectness is None:
            raise InputError(
                f"rule {self.rule.name!r} multiplies coefficients by objectness, and this prediction "
                "has none; use a rule without it, such as 'ultralytics-8.2'"
            )
        return self.coefficients * self.objectness[:, None]

    @cached_property
    def empty(self) -> Bool[np.ndarray, " N"]:
        """Which instances have a mask without a single pixel at the rule's own size.

        YOLO predictors leave such detections out of their results without a word.
        """
        return self.areas(self.rule.size) == 0

    def name_of(self, class_id: int) -> str:
        """Return the name of a class, or "class7" where the model has none."""
        return self.names.get(int(class_id), f"class{int(class_id)}")

    def with_rule(self, rule: MaskRule | str) -> Prediction:
        """Return the same prediction, decoded under another mask rule (or the preset of that name)."""
        return replace(self, rule=rule_named(rule))

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write everything that the prediction holds into one `.npz` file, without loss.

        Parameters
        ----------
        path
            The file, ending in `.npz`. Missing folders are made; an existing file is replaced.

        Returns
        -------
        Path
            The file. `Prediction.load` reads it again.

        Raises
        ------
        InputError
            If the path has another suffix, or the arrays are larger than 1 GiB.
        MaskprismError
            If it cannot be written; an existing file stays as it was.
        """
        from maskprism.core import archive

        if Path(path).suffix.lower() != ".npz":
            raise InputError(f"{os.fspath(path)}: expected a file name ending in .npz")
        return archive.write(path, [self])

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Prediction:
        """Read the prediction that `save` wrote.

        No code in the file is run.

        Raises
        ------
        InputError
            If there is no such file, or it is damaged or of another kind.
        """
        from maskprism.core import archive

        return archive.read(path)

    def source_image(self) -> UInt8[np.ndarray, "H W 3"]:
        """Read the image file again that the prediction was made from.

        Returns
        -------
        array
            (H, W, 3), uint8, BGR.

        Raises
        ------
        InputError
            If it was made from no file of this machine, or the file is gone.
        ImageError
            If the file cannot be read.
        """
        if self.source is None or not is_file(self.source):
            made_from = "an array" if self.source is None else repr(self.source)
            raise InputError(
                f"the prediction was made from {made_from}, which cannot be read again; give the image too"
            )
        return read_image(self.source)

    def plot(self, image: ImageLike | None = None) -> UInt8[np.ndarray, "H W 3"]:
        """Draw the masks, boxes, class names and scores into a copy of the image.

        Parameters
        ----------
        image
            A path, a PIL image or a BGR array. Default: the file that the prediction was made from.

        Returns
        -------
        array
            (H, W, 3), uint8, BGR as in OpenCV and Ultralytics, of the image's size.

        Raises
        ------
        InputError
            If no image is given and the prediction was made from none that can be read again, or for an image of
            another size.
        ImageError
            If the image cannot be read.
        """
        from maskprism.drawing.annotated import annotated

        return annotated(self.source_image() if image is None else image, self)

    def to_supervision(self, *, compact: bool = False) -> Any:
        """Return the instances as `supervision.Detections`, with masks of the image's size.

        Parameters
        ----------
        compact
            Masks as `supervision.CompactMask`: encoded crops, which need little memory for large images. Default:
            booleans, (N, H, W).

        Returns
        -------
        supervision.Detections
            `data` has `class_name`, as supervision's annotators want it; `instance`, the number of the instance; and
            `coefficients`, (N, K). `maskprism.integrations.supervision.from_supervision` leads back.

        Raises
        ------
        MissingExtraError
            If supervision is not installed, or has no CompactMask.
        InputError
            For masks that do not fit into memory together.
        """
        from maskprism.integrations.supervision import to_detections

        return to_detections(self, compact=compact)

    def to_coco(
        self,
        image_id: int | str | None = None,
        *,
        categories: Categories | None = None,
        segmentation: Segmentation = "rle",
        tolerance: float = TOLERANCE,
        coefficients: bool = False,
    ) -> list[dict[str, Any]]:
        """Return the instances as COCO results, for `json.dump` and COCO's evaluation.

        Parameters
        ----------
        image_id
            The id of the image in the annotation file. Default: the name of the image's file without its suffix, as a
            number where it is one.
        categories
            Where category ids come from: the annotation file (a COCO json, or the data set that `open_dataset` gives
            for it), whose categories have the names of the model's classes, or the category id of each class id.
            Default: for the 80 classes of COCO their official ids (1 to 90), whatever their order; for other classes
            the class ids, which begin with 0, with a warning that says so.
        segmentation
            "rle" (compressed, exact), or "polygons". Cuts lead from outlines to their holes.
        tolerance
            How far in pixels polygons may leave the outline. Default: 0.1.
        coefficients
            Add the `coefficients` of each instance, which COCO's tools ignore.

        Returns
        -------
        list of dict
            One per instance: `image_id`, `category_id`, `bbox` (x, y, width, height), `score` and `segmentation`.
            Instances with an empty mask have no polygon and are left out of "polygons".

        Raises
        ------
        InputError
            For a class without a category, or without an `image_id` where the prediction has no source.
        """
        from maskprism.integrations.coco import coco_results

        return coco_results(
            self,
            image_id,
            categories=categories,
            segmentation=segmentation,
            tolerance=tolerance,
            coefficients=coefficients,
        )

    def to_yolo_txt(self, *, tolerance: float = TOLERANCE) -> str:
        """Return the text of a label file of Ultralytics: `class x1 y1 x2 y2 ...`, normalised, a line per instance.

        Parameters
        ----------
        tolerance
            How far in pixels polygons may leave the outline. Default: 0.1.

        Returns
        -------
        str
            A line holds one polygon, so the parts and holes of a mask are joined by cuts of no width. It runs half a
            pixel inside the outline, because Ultralytics fills polygons together with their edges: what it reads is
            the mask. Instances with an empty mask are left out; without instances the text is empty, which means an
            image without objects.
        """
        from maskprism.integrations.yolo_txt import yolo_txt

        return yolo_txt(self, tolerance=tolerance)

    def to_pandas(self) -> Any:
        """Return a `pandas.DataFrame` with one row per instance.

        Returns
        -------
        pandas.DataFrame
            With the columns of a coefficient table (`maskprism extract`): image, class, score, box, area and
            coefficients.

        Raises
        ------
        MissingExtraError
            If pandas is not installed.
        """
        from maskprism.integrations.dataframe import to_dataframe

        return to_dataframe(self)

    def logits(self, size: Size = "grid", *, crop: bool = False) -> Float32[np.ndarray, "N H W"]:
        """Return the weighted sums of prototypes, resized bilinearly.

        With `crop` everything outside the box as the rule crops it is 0, the value at the threshold.
        Logits outside the box are not trained: ignore them in uncropped maps.
        """
        patches = self.patches(size, crop=None if crop else "none", squash=False)
        return self._stack(patches, size, np.float32, "logits")

    def probabilities(self, size: Size = "grid", *, crop: bool = True) -> Float32[np.ndarray, "N H W"]:
        """Soft masks, 0 to 1: what the mask would be before the threshold.

        With `crop` everything outside the box as the rule crops it is 0.
        """
        patches = self.patches(size, crop=None if crop else "none")
        if not self.rule.squash:
            patches = (Patch(p.rows, p.columns, sigmoid(p.values)) for p in patches)
        return self._stack(patches, size, np.float32, "probability maps")

    def masks(self, size: Size | None = None) -> Bool[np.ndarray, "N H W"]:
        """Decode the binary masks under the rule.

        Parameters
        ----------
        size
            "grid", "canvas" (letterboxed input) or "image". Default: that of the rule.

        Raises
        ------
        InputError
            For a stack over MAX_STACK_BYTES: take `crops` or `rle`, or iterate over the instances.
        """
        return decoding.masks(self, size)

    def areas(self, size: Size = "image") -> Int64[np.ndarray, " N"]:
        """Count the pixels of each mask in the frame named `size`."""
        return decoding.areas(self, size)

    def crops(self, size: Size | None = None) -> list[Patch]:
        """Decode each mask in the window of the frame that it can touch; outside of it there is none.

        A `Patch` has the slices `rows` and `columns`, and booleans as `values`.
        """
        return decoding.crops(self, size)

    def rle(self, size: Size | None = None, *, compressed: bool = True) -> list[dict[str, Any]]:
        """Decode each mask as COCO RLE: `{"size": [height, width], "counts": ...}`.

        Counts are bytes, as pycocotools gives and takes them, or a list of numbers without `compressed`. No bitmap is
        made on the way.
        """
        return decoding.rle(self, size, compressed=compressed)

    def polygons(self, size: Size | None = None, *, tolerance: float = TOLERANCE) -> list[MaskPolygons]:
        """Decode each mask as polygons along the level of the threshold, at sub-pixel precision.

        Parameters
        ----------
        size
            Frame of the coordinates. Default: that of the rule.
        tolerance
            How far in pixels an outline may move, so that it needs fewer vertices; 0 keeps them all.
            `MaskPolygons.iou()` says what that costs.

        Returns
        -------
        list of MaskPolygons
            One per instance, with holes and several parts; without outlines where the mask is empty.
        """
        return decoding.polygons(self, size, tolerance=tolerance)

    def patches(self, size: Size, *, crop: Crop | None = None, squash: bool | None = None) -> Iterator[Patch]:
        """Per instance the window of the frame named `size` that it can touch; see `masks.decode`.

        Memory stays that of one mask, however many instances there are.
        """
        flat = self.prototypes.reshape(len(self.prototypes), -1)
        for start in range(0, len(self), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            logits = (self.weights[chunk] @ flat).reshape(-1, *self.letterbox.grid_hw)
            boxes = itertools.repeat(None, len(logits)) if self.canvas_boxes is None else self.canvas_boxes[chunk]
            for grid_logits, box in zip(logits, boxes, strict=True):
                yield decode(grid_logits, box, self.letterbox, self.rule, size, crop=crop, squash=squash)

    def _stack(self, patches: Iterator[Patch], size: Size, dtype: type[np.generic], kind: str) -> np.ndarray[Any, Any]:
        height, width = self.letterbox.size_hw(size)
        needed = len(self) * height * width * np.dtype(dtype).itemsize
        if needed > outputs.MAX_STACK_BYTES:
            raise InputError(
                f"{len(self)} {kind} of {width} x {height} would take {needed / 2**30:.1f} GiB, over the limit "
                f"of {outputs.MAX_STACK_BYTES / 2**30:.0f} GiB; iterate over the instances, take a slice, "
                'or ask for size="canvas" or "grid"'
            )
        stack = np.zeros((len(self), height, width), dtype=dtype)
        for target, patch in zip(stack, patches, strict=True):
            target[patch.rows, patch.columns] = patch.values
        return stack


@dataclass(frozen=True, eq=False)
class Instance:
    """One row of a `Prediction`; nothing is copied."""

    prediction: Prediction
    index: int

    def __repr__(self) -> str:
        box = ", ".join(f"{side:.0f}" for side in self.box)
        source = f", in {self.prediction.source!r}" if self.prediction.source else ""
        return f"Instance({self.index}: {self.name!r}, score {self.score:.2f}, box xyxy ({box}){source})"

    def _repr_png_(self) -> bytes | None:
        from maskprism.integrations.notebook import instance_png

        return instance_png(self)

    @property
    def box(self) -> Float32[np.ndarray, " 4"]:
        """x1, y1, x2, y2 in image pixels; see `Prediction.boxes`."""
        return self.prediction.boxes[self.index]

    @property
    def canvas_box(self) -> Float32[np.ndarray, " 4"]:
        """x1, y1, x2, y2 in canvas pixels, as the model gave it; see `Prediction.extents` where it gives none."""
        return self.prediction.extents[self.index]

    @property
    def score(self) -> float:
        """Confidence, 0 to 1."""
        return float(self.prediction.scores[self.index])

    @property
    def class_id(self) -> int:
        """Class id, a key of the prediction's `names`."""
        return int(self.prediction.classes[self.index])

    @property
    def name(self) -> str:
        """Class name."""
        return self.prediction.name_of(self.class_id)

    @property
    def coefficients(self) -> Float32[np.ndarray, " K"]:
        """As the model gave them."""
        return self.prediction.coefficients[self.index]

    @property
    def weights(self) -> Float32[np.ndarray, " K"]:
        """What multiplies the prototypes in the mask."""
        return self.prediction.weights[self.index]

    @property
    def prototypes(self) -> Float32[np.ndarray, "K h w"]:
        """The prototypes that all instances of the image share."""
        return self.prediction.prototypes

    @property
    def letterbox(self) -> Letterbox:
        """The frames of the image."""
        return self.prediction.letterbox

    @property
    def rule(self) -> MaskRule:
        """How the mask is made of the logits."""
        return self.prediction.rule

    @property
    def alone(self) -> Prediction:
        """The prediction reduced to this instance."""
        return self.prediction[[self.index]]

    def logits(self, size: Size = "grid", *, crop: bool = False) -> Float32[np.ndarray, "H W"]:
        """See `Prediction.logits`."""
        return self.alone.logits(size, crop=crop)[0]

    def probabilities(self, size: Size = "grid", *, crop: bool = True) -> Float32[np.ndarray, "H W"]:
        """See `Prediction.probabilities`."""
        return self.alone.probabilities(size, crop=crop)[0]

    def mask(self, size: Size | None = None) -> Bool[np.ndarray, "H W"]:
        """See `Prediction.masks`."""
        return self.alone.masks(size)[0]

    def area(self, size: Size = "image") -> int:
        """See `Prediction.areas`."""
        return int(self.alone.areas(size)[0])

    def crop(self, size: Size | None = None) -> Patch:
        """See `Prediction.crops`."""
        return self.alone.crops(size)[0]

    def rle(self, size: Size | None = None, *, compressed: bool = True) -> dict[str, Any]:
        """See `Prediction.rle`."""
        return self.alone.rle(size, compressed=compressed)[0]

    def polygons(self, size: Size | None = None, *, tolerance: float = TOLERANCE) -> MaskPolygons:
        """See `Prediction.polygons`."""
        return self.alone.polygons(size, tolerance=tolerance)[0]


def _shape(array: np.ndarray[Any, Any], name: str, axes: tuple[str, ...]) -> tuple[int, ...]:
    if np.ndim(array) != len(axes):
        raise InputError(f"{name} has shape {np.shape(array)}; expected ({', '.join(axes)})")
    return tuple(array.shape)
