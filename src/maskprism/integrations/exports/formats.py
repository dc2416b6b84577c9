"""The formats of files: what is written for one image, made where the model runs, and what for all of them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
import yaml

from maskprism._common.choices import ExportName, Segmentation
from maskprism._common.files import write_atomically
from maskprism._common.text import json_text
from maskprism.core import archive
from maskprism.core.decoding.outlines import TOLERANCE
from maskprism.drawing.annotated import annotated
from maskprism.errors import ImageError
from maskprism.integrations.coco import coco_annotations, coco_results
from maskprism.integrations.labelme import labelme_document
from maskprism.integrations.yolo_txt import yolo_txt
from maskprism.io.sources import DistinctStems
from maskprism.io.untrusted import read_regular

if TYPE_CHECKING:
    from jaxtyping import UInt8

    from maskprism.core.prediction import Prediction
    from maskprism.datasets.visit import VisitedImage
    from maskprism.integrations.exports.journal import ImageRecord

_JPEG_QUALITY = 92


class ImageFile(NamedTuple):
    """A file about one image: in a folder of the output, named after the image with a suffix."""

    folder: str
    suffix: str
    content: bytes


@dataclass(frozen=True, eq=False)
class Rendered:
    """What is to be written for one image.

    Attributes
    ----------
    instances
        Their number by class id.
    n_empty
        Those with an empty mask.
    n_without_category
        Those left out because their class has no category.
    entries
        The part of a file about all images.
    frame
        The picture for a video.
    """

    name: str
    image_hw: tuple[int, int]
    instances: Mapping[int, int]
    n_empty: int
    n_without_category: int
    files: tuple[ImageFile, ...] = ()
    entries: tuple[dict[str, Any], ...] = ()
    frame: UInt8[np.ndarray, "H W 3"] | None = None


@dataclass(frozen=True)
class ExportFormat:
    """One format; called with an image where the model runs, so it can be pickled.

    Attributes
    ----------
    out
        The folder.
    names
        Names of the model's classes.
    category_ids
        Category ids by class id, where the format has some. segmentation: how COCO files write masks.
    tolerance
        How far in pixels polygons may leave the outline.
    copy_images
        Copy them, too.
    """

    out: Path
    names: Mapping[int, str]
    category_ids: Mapping[int, int | str] | None = None
    segmentation: Segmentation | None = None
    tolerance: float = TOLERANCE
    copy_images: bool = False

    @property
    def leaves_empty_out(self) -> bool:
        """Whether instances with an empty mask are not written."""
        return True

    def __call__(self, visited: VisitedImage[Prediction]) -> Rendered:
        """Make what is to be written for an image."""
        prediction, ids = visited.prediction, self.category_ids
        known = np.isin(prediction.classes, list(prediction.names if ids is None else ids))
        kept = prediction if ids is None else prediction[known]
        classes, counts = np.unique(kept.classes, return_counts=True)
        plain = Rendered(
            visited.name,
            prediction.image_size,
            dict(zip(classes.tolist(), counts.tolist(), strict=True)),
            int(np.count_nonzero(kept.areas("image") == 0)),
            len(prediction) - len(kept),
        )
        return self._render(plain, kept, visited)

    def _render(self, plain: Rendered, prediction: Prediction, visited: VisitedImage[Prediction]) -> Rendered:
        """Add files, entries or a frame to what all formats tell of an image."""
        raise NotImplementedError

    def finish(self, records: Iterable[ImageRecord]) -> list[Path]:
        """Write the file about all images, if there is one, and say what to look at."""
        return [self.out]


class CocoResultsFormat(ExportFormat):
    """`results.json`: COCO results."""

    @property
    def leaves_empty_out(self) -> bool:
        """See `ExportFormat.leaves_empty_out`."""
        return self.segmentation == "polygons"

    def _render(self, plain: Rendered, prediction: Prediction, visited: VisitedImage[Prediction]) -> Rendered:
        ids = self.category_ids or {class_id: class_id for class_id in prediction.classes.tolist()}
        entries = coco_results(
            prediction, 0, categories=ids, segmentation=self.segmentation or "rle", tolerance=self.tolerance
        )
        return replace(plain, entries=tuple(entries))

    def finish(self, records: Iterable[ImageRecord]) -> list[Path]:
        """See `ExportFormat.finish`."""
        entries = (entry | {"image_id": record.image_id} for record in records for entry in record.entries)
        return [_write_json(self.out / "results.json", {"": entries})]


class CocoAnnotationsFormat(ExportFormat):
    """`annotations.json`: images, categories and annotations of COCO, as labelling tools import them."""

    def _render(self, plain: Rendered, prediction: Prediction, visited: VisitedImage[Prediction]) -> Rendered:
        assert self.category_ids is not None
        entries = coco_annotations(
            prediction,
            0,
            categories=self.category_ids,
            segmentation=self.segmentation or "polygons",
            tolerance=self.tolerance,
        )
        return replace(plain, entries=tuple(entries))

    def finish(self, records: Iterable[ImageRecord]) -> list[Path]:
        """See `ExportFormat.finish`."""
        assert self.category_ids is not None
        named = {
            self.category_ids[class_id]: name for class_id, name in self.names.items() if class_id in self.category_ids
        }
        kept = list(records)
        images = (
            {"id": record.image_id, "file_name": record.image, "width": record.width, "height": record.height}
            for record in kept
        )
        categories = ({"id": number, "name": name, "supercategory": ""} for number, name in named.items())
        rows = (entry | {"image_id": record.image_id} for record in kept for entry in record.entries)
        annotations = ({"id": number, **entry} for number, entry in enumerate(rows, 1))
        parts = {
            "info": {"description": "masks of a model, written by maskprism predict"},
            "licenses": [],  # Roboflow's uploader asks for both
            "images": images,
            "categories": categories,
            "annotations": annotations,
        }
        return [_write_json(self.out / "annotations.json", parts)]


class YoloFormat(ExportFormat):
    """`labels/`: a text file per image, as Ultralytics trains with; with copies, also `images/` and a `data.yaml`."""

    def _render(self, plain: Rendered, prediction: Prediction, visited: VisitedImage[Prediction]) -> Rendered:
        files = [ImageFile("labels", ".txt", yolo_txt(prediction, tolerance=self.tolerance).encode())]
        if self.copy_images:
            path = _path_of(visited)
            if path is None:
                files.append(ImageFile("images", ".png", _encoded(".png", visited.image)))
            else:
                files.append(ImageFile("images", path.suffix, read_regular(path, ImageError)))
        return replace(plain, files=tuple(files))

    def finish(self, records: Iterable[ImageRecord]) -> list[Path]:
        """See `ExportFormat.finish`."""
        if not self.copy_images:
            return [self.out / "labels"]
        described = {"train": "images", "val": "images", "names": dict(self.names)}
        text = yaml.safe_dump(described, allow_unicode=True, sort_keys=False)
        return [write_atomically(self.out / "data.yaml", text)]


class LabelMeFormat(ExportFormat):
    """A LabelMe json per image; frames of a video are written beside theirs."""

    def _render(self, plain: Rendered, prediction: Prediction, visited: VisitedImage[Prediction]) -> Rendered:
        folder = self.out.resolve() / PurePosixPath(DistinctStems().next(visited.name)).parent
        path = _path_of(visited)
        shown = PurePosixPath(visited.name).name if path is None else Path(os.path.relpath(path, folder)).as_posix()
        frames: tuple[ImageFile, ...] = ()
        if isinstance(_given(visited), np.ndarray):
            shown, frames = f"{shown}.png", (ImageFile("", ".png", _encoded(".png", visited.image)),)
        document = labelme_document(prediction, shown, tolerance=self.tolerance)
        return replace(plain, files=(ImageFile("", ".json", json_text(document).encode()), *frames))


class PngFormat(ExportFormat):
    """Index images (0 is the background, then instance or class id plus 1), and a mask (0, 255) per instance."""

    @property
    def leaves_empty_out(self) -> bool:
        """See `ExportFormat.leaves_empty_out`."""
        return False

    def _render(self, plain: Rendered, prediction: Prediction, visited: VisitedImage[Prediction]) -> Rendered:
        largest = max(len(prediction), int(prediction.classes.max(initial=0)) + 1)
        instances = np.zeros(prediction.image_size, dtype=np.uint8 if largest < 256 else np.uint16)
        classes = np.zeros_like(instances)
        crops = prediction.crops("image")
        for number in np.argsort(prediction.scores, kind="stable").tolist():  # the most confident ones on top
            rows, columns, mask = crops[number]
            instances[rows, columns][mask] = number + 1
            classes[rows, columns][mask] = int(prediction.classes[number]) + 1
        files = [
            ImageFile("", ".instances.png", _encoded(".png", instances)),
            ImageFile("", ".classes.png", _encoded(".png", classes)),
        ]
        alone = np.zeros(prediction.image_size, dtype=np.uint8)
        for instance, (rows, columns, mask) in zip(prediction, crops, strict=True):
            alone[rows, columns][mask] = 255
            name = re.sub(r"[^\w-]+", "_", instance.name)[:60]
            files.append(ImageFile("", f"/{instance.index:03d}-{name}.png", _encoded(".png", alone)))
            alone[rows, columns] = 0
        return replace(plain, files=tuple(files))


class NpzFormat(ExportFormat):
    """The whole prediction, coefficients and prototypes included; `Prediction.load` reads it."""

    @property
    def leaves_empty_out(self) -> bool:
        """See `ExportFormat.leaves_empty_out`."""
        return False

    def _render(self, plain: Rendered, prediction: Prediction, visited: VisitedImage[Prediction]) -> Rendered:
        path = _path_of(visited)
        named = replace(prediction, source=visited.name if path is None else str(path))
        return replace(plain, files=(ImageFile("", ".npz", archive.packed([named])),))


class OverlayFormat(ExportFormat):
    """The image with its instances drawn into it; one video where the images are frames."""

    @property
    def leaves_empty_out(self) -> bool:
        """See `ExportFormat.leaves_empty_out`."""
        return False

    def _render(self, plain: Rendered, prediction: Prediction, visited: VisitedImage[Prediction]) -> Rendered:
        of_video = "#" in visited.name and isinstance(_given(visited), np.ndarray)
        picture = annotated(visited.image, prediction, by_class=of_video)
        if of_video:
            return replace(plain, frame=picture)
        return replace(plain, files=(ImageFile("", ".jpg", _encoded(".jpg", picture)),))


FORMATS: dict[ExportName, type[ExportFormat]] = {
    "coco": CocoResultsFormat,
    "coco-annotations": CocoAnnotationsFormat,
    "yolo": YoloFormat,
    "labelme": LabelMeFormat,
    "png": PngFormat,
    "npz": NpzFormat,
    "overlay": OverlayFormat,
}


def _given(visited: VisitedImage[Prediction]) -> Any:
    return getattr(visited.item, "image", None)


def _path_of(visited: VisitedImage[Prediction]) -> Path | None:
    """Return the file of this machine that the image was read from."""
    given = _given(visited)
    return given if isinstance(given, Path) else None


def _encoded(suffix: str, pixels: np.ndarray[Any, Any]) -> bytes:
    settings = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY] if suffix == ".jpg" else [cv2.IMWRITE_PNG_COMPRESSION, 1]
    return cv2.imencode(suffix, pixels, settings)[1].tobytes()


def _write_json(path: Path, parts: Mapping[str, Mapping[str, str] | Iterable[Any]]) -> Path:
    """Write lists one entry after the other, so that memory does not grow with them; "" is the key of a bare list."""

    def pieces() -> Iterator[str]:
        yield "" if "" in parts else "{"
        for place, (key, values) in enumerate(parts.items()):
            yield "" if key == "" else f"{',' * (place > 0)}\n{json.dumps(key)}: "
            if isinstance(values, Mapping):
                yield json.dumps(values)
                continue
            yield "["
            for number, value in enumerate(values):
                yield f"{',' * (number > 0)}\n{json.dumps(value)}"
            yield "\n]"
        yield "\n" if "" in parts else "\n}\n"

    def write(partial: Path) -> None:
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(pieces())

    return write_atomically(path, write)
