"""The one loop over images: read, predict, check, examine; failures, progress and Ctrl-C.

Every command that goes over images uses `visit`, so that all of them have the same workers, the same failures and the
same progress.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence, Sized
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from threading import Lock
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar, overload

import cv2
import numpy as np

from maskprism._common.choices import EngineName
from maskprism._common.parallel import Engine, Lost, in_lists, open_engine
from maskprism._common.text import one_line
from maskprism.core.prediction import Prediction
from maskprism.datasets.samples import Dataset
from maskprism.errors import InputError, MaskprismError, ModelError
from maskprism.io.sources import ImageFiles, SourceImage, Sources, VideoFile

if TYPE_CHECKING:
    from jaxtyping import UInt8

    from maskprism.datasets.ground_truth import GroundTruth
    from maskprism.datasets.samples import Sample

    Pixels = UInt8[np.ndarray, "H W 3"]

LARGE_PIXELS = 50_000_000
"""Images over this many pixels are worked on one at a time, to bound memory."""
TOLERATED_MODEL_FAILURES = 8
"""A model that fails on this many images, and has worked on none, is taken for gone."""
_IMAGES_PER_CALL = 32
_CALLS_PER_WORKER = 4
"""At least this many, where there are few images: the last ones must not wait for one process."""
_ONE_LARGE = Lock()

Said = TypeVar("Said")
SaidAgain = TypeVar("SaidAgain", covariant=True)
Result = TypeVar("Result")


class Failure(NamedTuple):
    """One image that could not be used, and why.

    Attributes
    ----------
    by_model
        The model failed on it; otherwise the image or its labels cannot be read, or nothing can be made of them.
    size_hw
        (height, width) of the image; None where it was not read.
    """

    name: str
    message: str
    by_model: bool = False
    size_hw: tuple[int, int] | None = None


OnProgress = Callable[[int, int | None, Failure | None], None]
"""Called with how many images (or steps) are done, their total (None: not known), and a failure, if the last is one."""


class VisitedImage(NamedTuple, Generic[Said]):
    """One image and what the model says about it.

    Attributes
    ----------
    number
        Position in the order of images, from 0.
    truth
        The ground truth; None without a data set.
    item
        Where the image comes from: a `Sample` of a data set, or else a `SourceImage`.
    """

    number: int
    name: str
    image: Pixels
    truth: GroundTruth | None
    item: Sample | SourceImage
    prediction: Said


class Predictor(Protocol[SaidAgain]):
    """What images can be given to: a `Model`, or one that is asked in another way (`Asking`)."""

    @property
    def batch(self) -> int:
        """How many images it takes at once."""
        ...

    @property
    def grey(self) -> bool:
        """Whether files are decoded to grey for it: it has one channel."""
        ...

    def predict(self, images: list[Any], /) -> Sequence[SaidAgain]:
        """Return what it says about each image."""
        ...


@dataclass(frozen=True)
class Asking(Generic[Said]):
    """A model, or several, asked in another way than by `predict`, about one image at a time.

    Attributes
    ----------
    ask
        Called with an image; what it raises is a failure of the model.
    grey, batch
        See `Predictor`.
    """

    ask: Callable[[Any], Said]
    grey: bool = False
    batch: int = 1

    def predict(self, images: list[Any], /) -> Sequence[Said]:
        """Return what is answered about each image."""
        return [self.ask(image) for image in images]


Images = Dataset | Sources | ImageFiles | VideoFile | Iterable[SourceImage]


@overload
def visit(
    images: Images,
    model: Predictor[Said],
    examine: None = None,
    *,
    engine: EngineName | Engine = ...,
    workers: int | None = ...,
    on_progress: OnProgress | None = ...,
) -> Generator[VisitedImage[Said] | Failure, None, None]: ...
@overload
def visit(
    images: Images,
    model: Predictor[Said],
    examine: Callable[[VisitedImage[Said]], Result],
    *,
    engine: EngineName | Engine = ...,
    workers: int | None = ...,
    on_progress: OnProgress | None = ...,
) -> Generator[Result | Failure, None, None]: ...
def visit(
    images: Images,
    model: Predictor[Said],
    examine: Callable[[VisitedImage[Said]], Any] | None = None,
    *,
    engine: EngineName | Engine = "threads",
    workers: int | None = None,
    on_progress: OnProgress | None = None,
) -> Generator[Any, None, None]:
    """Ask a model about one image after the other.

    An image that cannot be read, that the model fails on, or that a worker died of, is a `Failure`, and the rest goes
    on. To stop early, close the generator (`contextlib.closing`): nothing more is begun then.

    Parameters
    ----------
    images
        A data set, whose images come with their ground truth; a source of images; or `SourceImage`s.
    model
        A `Model`, or an `Asking`.
    examine
        Called where the model runs, with each `VisitedImage`; only its result is sent back. A `MaskprismError` that it
        raises is a failure of the image (a `ModelError` of the model). With the engine "ray" it must be one that can
        be pickled. Default: the `VisitedImage` itself is the result.
    engine
        "threads", "ray", or what `open_engine` opened, which serves several visits.
    workers
        How many threads or processes. Default: one per processor.
    on_progress
        Called once per image, when its result has been dealt with; see `OnProgress`.

    Yields
    ------
    result or Failure
        One per image, in the order of images.

    Raises
    ------
    ModelError
        If the model fails on the first 8 images that can be read.
    InputError
        For frames of a video, or a model that cannot be pickled, and the engine "ray".
    """
    dataset = images if isinstance(images, Dataset) else None
    total = count_of(images)
    done = worked = 0
    gone: list[Failure] = []
    with open_engine(engine, workers) as opened:
        tasks = enumerate(_listed(images) if opened.in_one_process else map(_without_frames, _listed(images)))
        size = model.batch
        if not opened.in_one_process:
            few = _IMAGES_PER_CALL if total is None else math.ceil(total / (_CALLS_PER_WORKER * opened.workers))
            size = math.ceil(max(min(few, _IMAGES_PER_CALL), 1) / size) * size
        with closing(opened.map(_Visitor(model, examine, dataset), tasks, size)) as answers:
            for answer in answers:
                result = Failure(answer.task[1].name, answer.message) if isinstance(answer, Lost) else answer
                failure = result if isinstance(result, Failure) else None
                yield result
                done += 1
                if on_progress is not None:
                    on_progress(done, total, failure)
                worked += failure is None
                gone += [failure] if failure is not None and failure.by_model else []
                if not worked and len(gone) >= TOLERATED_MODEL_FAILURES:
                    raise ModelError(f"the model failed on all of the first {len(gone)} images ({gone[0].message})")


def look_at(
    items: Sequence[SourceImage | Sample],
    model: Predictor[Said],
    examine: Callable[[VisitedImage[Said]], Result],
) -> list[Result | Failure]:
    """Return what `visit` does with a few images, here and now."""
    return list(_Visitor(model, examine, None)(list(enumerate(items))))


def predicted(model: Predictor[Said], image: Pixels) -> Said:
    """Return what a model says about one image more, asked while another is examined.

    Raises
    ------
    ModelError
        If it fails.
    """
    (said,) = _said(model, [image])
    if isinstance(said, _Raised):
        raise ModelError(one_line(said.error)) from said.error
    return said


def check_finite(said: object) -> None:
    """Raise ModelError for a `Prediction` (or several) with NaN or infinity: it can be neither measured nor drawn."""
    if isinstance(said, tuple | list):
        for part in said:
            check_finite(part)
    if not isinstance(said, Prediction):
        return
    for name in ("canvas_boxes", "scores", "coefficients", "prototypes"):
        values = getattr(said, name)
        if values is not None and not np.isfinite(values).all():
            raise ModelError(f"the model gave {name} that hold NaN or infinity")


@dataclass(frozen=True)
class _Visitor(Generic[Said]):
    """What a worker does with images, given with their positions."""

    model: Predictor[Said]
    examine: Callable[[VisitedImage[Said]], Any] | None
    dataset: Dataset | None

    def __call__(self, tasks: Sequence[tuple[int, SourceImage | Sample]]) -> Iterator[Any]:
        for some in in_lists(tasks, self.model.batch):
            read = [self._read(*task) for task in some]
            images = [one.image for one in read if isinstance(one, VisitedImage)]
            with _ONE_LARGE if sum(image.size // 3 for image in images) > LARGE_PIXELS else nullcontext():
                said = iter(_said(self.model, images))
                results = [one if isinstance(one, Failure) else self._examined(one, next(said)) for one in read]
            yield from results

    def _read(self, number: int, given: SourceImage | Sample) -> VisitedImage[None] | Failure:
        item = given if self.dataset is None or not isinstance(given, SourceImage) else self.dataset.sample(given)
        try:
            read = item.read(grey=self.model.grey)
        except (MaskprismError, MemoryError, cv2.error) as error:
            return Failure(item.name, _why(error, item))
        image, truth = read if isinstance(read, tuple) else (read, None)
        return VisitedImage(number, item.name, image, truth, item, None)

    def _examined(self, read: VisitedImage[None], said: Said | _Raised) -> Any:
        name, size_hw = read.name, (read.image.shape[0], read.image.shape[1])
        if isinstance(said, _Raised):
            return Failure(name, _why(said.error, read.item), by_model=True, size_hw=size_hw)
        named = replace(said, source=name) if isinstance(said, Prediction) and said.source is None else said
        visited = VisitedImage(read.number, name, read.image, read.truth, read.item, named)
        try:
            return visited if self.examine is None else self.examine(visited)
        except (MaskprismError, MemoryError, cv2.error) as error:
            return Failure(name, _why(error, read.item), isinstance(error, ModelError), size_hw)


def _said(model: Predictor[Said], images: list[Pixels]) -> Sequence[Said | _Raised]:
    """Return what a model says about each image; where it fails on several, they are given to it one by one."""
    if not images:
        return []
    try:
        answers = model.predict(images)
        for said in answers:
            check_finite(said)
    except Exception as error:  # runtimes raise what they like
        return [_Raised(error)] if len(images) == 1 else [said for one in images for said in _said(model, [one])]
    return answers


def _why(error: Exception, item: SourceImage | Sample) -> str:
    """Return what an error says on one line, without the name of the image before it, which a `Failure` has anyway."""
    source = item if isinstance(item, SourceImage) else item.image
    named = [source.name] if isinstance(source.image, bytes | np.ndarray) else [source.name, str(source.image)]
    message = one_line(error)
    return next((message[len(name) + 2 :] for name in named if message.startswith(f"{name}: ")), message)


class _Raised(NamedTuple):
    """What the model raises in place of an answer."""

    error: Exception


def count_of(images: Images) -> int | None:
    """Return how many images there are, as far as they tell."""
    if isinstance(images, Sources | ImageFiles | VideoFile):
        return images.count()
    return len(images) if isinstance(images, Sized) else None


def _listed(images: Images) -> Iterator[SourceImage]:
    if isinstance(images, Dataset):
        return images.images.pending(frozenset())
    return images.pending(frozenset()) if isinstance(images, ImageFiles | VideoFile) else iter(images)


def _without_frames(image: SourceImage) -> SourceImage:
    """Return an image that can be read elsewhere.

    Raises
    ------
    InputError
        For one that is decoded.
    """
    if isinstance(image.image, np.ndarray):
        raise InputError("a video is decoded in one process, and arrays stay there; leave engine='ray' out for them")
    return image
