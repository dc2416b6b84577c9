"""What a model says about many images, in files for other tools.

`write_predictions` goes over the images; `formats` makes what is written, `journal` records finished images.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from maskprism._common.choices import EngineName, ExportName, Segmentation
from maskprism._common.files import write_atomically
from maskprism._common.parallel import open_engine
from maskprism._common.text import counted
from maskprism.core.decoding.outlines import TOLERANCE
from maskprism.datasets.coco import read_image_ids
from maskprism.datasets.visit import Failure, visit
from maskprism.errors import InputError
from maskprism.integrations.coco import annotation_categories, category_ids
from maskprism.integrations.exports.formats import FORMATS, ExportFormat, Rendered
from maskprism.integrations.exports.journal import NAME as JOURNAL
from maskprism.integrations.exports.journal import ImageRecord, Journal
from maskprism.integrations.exports.video import VideoPiece, frames_per_second
from maskprism.io.sources import DistinctStems, ImageFiles, LiveStream, Sources, VideoFile
from maskprism.tables.schema import settings_of

if TYPE_CHECKING:
    from maskprism._common.choices import EngineName
    from maskprism._common.parallel import Engine
    from maskprism.datasets.visit import OnProgress
    from maskprism.models import Model

__all__ = ["FORMATS", "JOURNAL", "ExportSummary", "write_predictions"]

_OF_COCO = ("coco", "coco-annotations")


@dataclass(frozen=True)
class ExportSummary:
    """What one call of `write_predictions` did.

    Attributes
    ----------
    images
        Worked on in this call, those in `failures` included.
    skipped
        Done before.
    instances
        Instances of all images that are done, by class name.
    files
        What to look at.
    notes
        What a reader should know of them.
    """

    images: int
    skipped: int
    instances: Mapping[str, int]
    failures: tuple[Failure, ...]
    files: tuple[Path, ...]
    notes: tuple[str, ...]
    seconds: float

    @property
    def all_failed(self) -> bool:
        """Whether not one image could be used, in this call or before."""
        return not self.skipped and len(self.failures) == self.images


def write_predictions(
    sources: Sources,
    model: Model,
    out: Path,
    format: ExportName,
    *,
    categories: Path | None = None,
    segmentation: Segmentation | None = None,
    tolerance: float = TOLERANCE,
    copy_images: bool = False,
    overwrite: bool = False,
    engine: EngineName | Engine = "threads",
    on_progress: OnProgress | None = None,
) -> ExportSummary:
    """Ask a model about every image, and write what it says.

    Called again after an interruption, or over more images, it goes on with those that are not done or failed.

    Parameters
    ----------
    sources
        The images, as `open_sources` gives them.
    model
        The model.
    out
        The folder; it gets `images.jsonl`, the record of each image.
    format
        See `formats`.
    categories
        A COCO json whose category ids are taken, by class name, and its image ids, by file name. For COCO formats.
    segmentation
        "rle" or "polygons", for COCO formats. Default: "rle" for results, "polygons" for annotations.
    tolerance
        How far in pixels polygons may leave the outline.
    copy_images
        For "yolo": copy the images beside the labels, and describe both in a data.yaml.
    overwrite
        Remove what an earlier call wrote, and begin anew.
    engine
        "threads", "ray", or an open engine.
    on_progress
        Called with how many images are done, their total (None: not known), and a failure, if the last one is one.

    Returns
    -------
    ExportSummary
        The counts, files and failures.

    Raises
    ------
    InputError
        If an option does not belong to the format, or the folder holds results of other settings.
    ModelError
        If the model fails on the first images.
    MaskprismError
        If a file cannot be written.
    """
    started = time.perf_counter()
    if format not in get_args(ExportName):
        raise InputError(f"format is {format!r}; expected one of {', '.join(get_args(ExportName))}")
    for option, value, owners in (
        ("categories", categories, _OF_COCO),
        ("segmentation", segmentation, _OF_COCO),
        ("copy_images", copy_images or None, ("yolo",)),
    ):
        if value is not None and format not in owners:
            raise InputError(f"{option} is given with the format {format}; it belongs to {' and '.join(owners)}")
    sources = sources.named_apart()
    names = dict(model.spec.names)
    ids = None
    if format == "coco":
        ids = category_ids(names, categories)
    elif format == "coco-annotations":
        ids = annotation_categories(names, categories)
    writer = FORMATS[format](
        out=out,
        names=names,
        category_ids=ids,
        segmentation=segmentation,
        tolerance=tolerance,
        copy_images=copy_images,
    )
    settings = settings_of(model, "") | {
        "format": format,
        "segmentation": segmentation,
        "tolerance": tolerance,
        "copy_images": copy_images,
        "category_ids": None if ids is None else {str(class_id): value for class_id, value in ids.items()},
    }
    del settings["maskprism"], settings["source"]
    listed = read_image_ids(categories) if format == "coco" and categories is not None else {}
    with ExitStack() as stack:
        opened = stack.enter_context(open_engine(engine))
        journal = stack.enter_context(closing(Journal(out, settings, overwrite=overwrite)))
        run = _Run(writer, journal, format, listed, sources.count(), on_progress)
        for part in sources.parts:
            run.go_over(part, model, opened)
        files = writer.finish(journal.records())
    return ExportSummary(
        images=run.n_images,
        skipped=run.n_skipped,
        instances={
            names.get(class_id, f"class{class_id}"): count
            for class_id, count in sorted(journal.instances.items(), key=lambda item: -item[1])
        },
        failures=tuple(run.failures),
        files=(*files, *run.videos),
        notes=tuple(run.notes(ids, names)),
        seconds=time.perf_counter() - started,
    )


@dataclass
class _Run:
    """One call: takes over what is made of each image."""

    writer: ExportFormat
    journal: Journal
    format: ExportName
    listed_ids: Mapping[str, int | str]
    total: int | None
    on_progress: OnProgress | None
    n_images: int = 0
    n_skipped: int = 0
    failures: list[Failure] = field(default_factory=list)
    videos: list[Path] = field(default_factory=list)
    n_empty: int = 0
    n_without_category: int = 0
    renamed: list[str] = field(default_factory=list)
    not_listed: list[str] = field(default_factory=list)
    ids_taken: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stems = DistinctStems(self.journal.done.values())
        self._by_basename = _by_basename(self.listed_ids)

    def go_over(self, part: ImageFiles | VideoFile | LiveStream, model: Model, engine: Engine) -> None:
        """Ask the model about the images of one source that are not done."""
        self.n_skipped += part.count_done(self.journal.done)
        self._report(None)
        pending = part.pending(self.journal.done)
        waiting: list[ImageRecord] = []
        piece: VideoPiece | None = None
        try:
            known = list(pending) if isinstance(part, ImageFiles) else pending
            with closing(visit(known, model, self.writer, engine=engine)) as results:
                for result in results:
                    self.n_images += 1
                    if isinstance(result, Failure):
                        self.failures.append(result)
                        self.journal.append(ImageRecord(result.name, failed=result.message))
                        self._report(result)
                        continue
                    record = self._written(result)
                    if result.frame is None:
                        self.journal.append(record)
                    else:
                        piece = piece or self._piece(part, result.name)
                        piece.add(result.frame)
                        waiting.append(record)
                    self._report(None)
        finally:
            if piece is not None and piece.close():
                self.videos.append(piece.path)
                for record in waiting:
                    record.files.append(piece.path.relative_to(self.writer.out).as_posix())
                    self.journal.append(record)

    def notes(self, ids: Mapping[int, Any] | None, names: Mapping[int, str]) -> Iterable[str]:
        """Return what a reader should know of the files."""
        if self.n_empty and self.writer.leaves_empty_out:
            yield f"{counted(self.n_empty, 'instance')} left out: their mask is empty"
        if self.n_without_category:
            missing = [name for class_id, name in names.items() if ids is not None and class_id not in ids]
            yield (
                f"{counted(self.n_without_category, 'instance')} left out: the file of --categories has none for "
                f"{', '.join(missing[:5])}{', ...' * (len(missing) > 5)}"
            )
        if self.format == "coco" and ids is None and self.journal.instances:
            first = min(self.journal.instances)
            yield (
                f"category ids are the class ids of the model, which begin with 0 ({first} is {names.get(first)}); if "
                "the annotation file numbers its categories otherwise, name it with --categories"
            )
        for told, what in (
            (self.renamed, "with the name of another one, so that their files keep the suffix of the image"),
            (self.not_listed, "not listed in the file of --categories, with their own name as id"),
            (self.ids_taken, "with the file name of another one, with their whole name as id"),
        ):
            if told:
                yield f"{counted(len(told), 'image')} {what}: {', '.join(told[:3])}{', ...' * (len(told) > 3)}"

    def _written(self, result: Rendered) -> ImageRecord:
        """Write the files about an image; gives its record."""
        height, width = result.image_hw
        stem = self._stems.next(result.name)
        if result.files and stem != DistinctStems().next(result.name):
            self.renamed.append(result.name)
        names = [f"{folder}/{stem}{suffix}".lstrip("/") for folder, suffix, _ in result.files]
        for name, file in zip(names, result.files, strict=True):
            write_atomically(self.writer.out / name, file.content)
        self.n_empty += result.n_empty
        self.n_without_category += result.n_without_category
        return ImageRecord(
            result.name,
            width=width,
            height=height,
            instances=dict(result.instances),
            stem=stem,
            files=names,
            image_id=self._image_id(result.name, stem),
            entries=list(result.entries),
        )

    def _image_id(self, name: str, stem: str) -> int | str | None:
        """Return the id of an image: in annotations its number, in results that of the data set, or else its name's."""
        if self.format == "coco-annotations":
            return len(self.journal.done) + 1
        if self.format != "coco":
            return None
        base = stem.rpartition("/")[2]
        image_id: int | str = int(base) if base.isascii() and base.isdigit() else base
        if self.listed_ids:
            own = self.listed_ids.get(name, self._by_basename.get(name.rpartition("/")[2]))
            if own is None:
                self.not_listed.append(name)
            image_id = image_id if own is None else own
        if image_id in self.journal.image_ids:
            self.ids_taken.append(name)
            return name
        return image_id

    def _piece(self, part: ImageFiles | VideoFile | LiveStream, first: str) -> VideoPiece:
        """The annotated video of a source, named after it, and after its first frame where others were done before."""
        address = part.address if isinstance(part, LiveStream) else str(getattr(part, "path", ""))
        name, _, number = first.rpartition("#")
        stem = name if isinstance(part, LiveStream) else name.rpartition(".")[0] or name
        continued = any(done.startswith(f"{name}#") for done in self.journal.done)
        return VideoPiece(
            self.writer.out / f"{stem}{f'-{number}' if continued else ''}.mp4", frames_per_second(address)
        )

    def _report(self, failure: Failure | None) -> None:
        if self.on_progress is not None:
            self.on_progress(self.n_skipped + self.n_images, self.total, failure)


def _by_basename(ids: Mapping[str, int | str]) -> dict[str, int | str]:
    """Ids by file names without folders, of those that are unique."""
    found: dict[str, int | str] = {}
    twice = set()
    for name, image_id in ids.items():
        base = name.replace("\\", "/").rpartition("/")[2]
        if base in found:
            twice.add(base)
        found[base] = image_id
    return {base: image_id for base, image_id in found.items() if base not in twice}
