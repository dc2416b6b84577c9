"""Images to a coefficient table: decoding, inference and measuring overlap on a few threads."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

import cv2
from threadpoolctl import threadpool_limits

from maskprism.columns import image_records, instance_columns, instance_schema, instance_table, settings_of
from maskprism.errors import InputError, MaskprismError, ModelError
from maskprism.sources import SourceImage, open_source
from maskprism.table import TablePaths
from maskprism.unfinished_table import UnfinishedTable

if TYPE_CHECKING:
    import numpy as np

    from maskprism.models import Model

MAX_IMAGES_PER_PART = 512
MAX_WORKERS = 32
LARGE_PIXELS = 50_000_000
"""Images over this many pixels are worked on one at a time, to bound memory."""
_TOLERATED_NETWORK_FAILURES = 8
_MESSAGES = 5

Progress = Callable[[int, int | None, int], None]
Task = TypeVar("Task")
Done = TypeVar("Done")


@dataclass(frozen=True)
class ExtractSummary:
    """What one call of `extract` did. Counts are of images, `instances` of rows.

    images: worked on in this call; of these with_instances, empty and failed.
    skipped: already in the table before.
    all_failed: not one image of the table, old or new, could be used.
    failures: the first few messages of failed images of this call.
    images_table: the table with one row per image; settings: the `.meta.json` of a CSV table.
    """

    images: int
    with_instances: int
    empty: int
    failed: int
    skipped: int
    instances: int
    all_failed: bool
    seconds: float
    failures: tuple[str, ...]
    table: Path
    images_table: Path
    settings: Path | None

    def __str__(self) -> str:
        before = f"{self.skipped} were in the table before" if self.skipped else ""
        if not self.images:
            return f"nothing new for {self.table}: {before}"
        rate = f"{self.images / self.seconds:.1f} images/s" if self.seconds else ""
        done = (
            f"{self.images} images in {self.seconds:.1f} s ({rate}): {self.with_instances} with {self.instances} "
            f"instances, {self.empty} without, {self.failed} failed{'; ' if before else ''}{before}"
        )
        failed = [f"  failed: {message}" for message in self.failures]
        if self.failed > len(self.failures):
            failed.append(f"  ... and {self.failed - len(self.failures)} more, all in {self.images_table}")
        return "\n".join([done, *failed, f"{self.table}", f"{self.images_table}"])


@dataclass(frozen=True)
class _Extracted:
    """One image, finished: a record, and rows unless it failed."""

    name: str
    size_hw: tuple[int, int] | None
    columns: dict[str, Any] | None
    message: str = ""
    network_failed: bool = False

    @property
    def instances(self) -> int:
        return 0 if self.columns is None else len(self.columns["image"])

    @property
    def status(self) -> str:
        return "failed" if self.columns is None else "ok" if self.instances else "empty"


def extract(
    source: str | os.PathLike[str],
    model: Model,
    out: str | os.PathLike[str],
    *,
    on_progress: Progress | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    flush_s: float = 5.0,
    limit: int | None = None,
) -> ExtractSummary:
    """Write one row per instance of every image of `source` to the table `out`.

    Killed and called again it continues, and ends with the rows of an uninterrupted run. Called
    again over more images it adds theirs at the end. An image that fails is recorded with a
    message, and the rest goes on.

    Parameters
    ----------
    source
        a folder (with its subfolders), a glob pattern, an image, a video, or a `.txt` file with one path per line.
    model
        see `maskprism.load`. On a CPU `load(..., threads=1)` is fastest here, because every worker
        runs the network on an image of its own.
    out
        a `.parquet` or `.csv` file.
    on_progress
        called with the number of images done (those of earlier runs included), their total or
        None (an estimate for videos), and the number that failed in this call.
    workers
        threads; one per processor unless given.
    overwrite
        start over instead of continuing; replaces only tables of maskprism.
    flush_s
        about this many seconds of work are lost when killed.
    limit
        only so many images, evenly spread over the source.

    Raises
    ------
    ImageError
        the source is missing, unreadable or holds no images.
    TableError
        `out` was made with another model or settings, is not ours, is being written by another
        process, or cannot be written.
    ModelError
        the network fails on one image after the other.
    InputError
        an argument is out of range.
    """
    started = time.perf_counter()
    if workers is not None and workers < 1:
        raise InputError(f"workers is {workers}; expected at least 1")
    if flush_s < 0:
        raise InputError(f"flush_s is {flush_s}; expected at least 0 seconds")
    paths = TablePaths.of(out)
    images = open_source(source, limit=limit)
    settings = settings_of(model, images.root)
    with UnfinishedTable(paths, settings, overwrite=overwrite) as unfinished:
        run = _Run(
            unfinished,
            settings,
            flush_s=flush_s,
            on_progress=on_progress,
            total=images.count(),
            skipped=images.count_done(unfinished.done),
        )
        with one_thread_per_call():
            run.work_through(images.pending(unfinished.done), model, workers or processors())
        unfinished.finish()
        return ExtractSummary(
            images=run.counts["ok"] + run.counts["empty"] + run.counts["failed"],
            with_instances=run.counts["ok"],
            empty=run.counts["empty"],
            failed=run.counts["failed"],
            skipped=run.skipped,
            instances=run.instances,
            all_failed=unfinished.records > 0 and unfinished.failed == unfinished.records,
            seconds=time.perf_counter() - started,
            failures=tuple(run.failures),
            table=paths.table,
            images_table=paths.images,
            settings=paths.settings,
        )


class _Run:
    """Collects finished images in order and commits them in parts."""

    def __init__(
        self,
        unfinished: UnfinishedTable,
        settings: dict[str, Any],
        *,
        flush_s: float,
        on_progress: Progress | None,
        total: int | None,
        skipped: int,
    ) -> None:
        self._unfinished, self._settings = unfinished, settings
        self._schema = instance_schema(settings)
        self._flush_s, self._on_progress, self._total = flush_s, on_progress, total
        self.skipped = skipped
        self.counts = {"ok": 0, "empty": 0, "failed": 0}
        self.instances = 0
        self.failures: list[str] = []
        self._waiting: list[_Extracted] = []
        self._suspect: list[_Extracted] = []
        self._flushed_at = time.monotonic()

    def work_through(self, pending: Iterator[SourceImage], model: Model, workers: int) -> None:
        """Extract every pending image; what is finished is committed even if this is interrupted."""
        self._report()
        try:
            with closing(in_order(_Extractor(model), _batches(pending, model.batch), workers)) as batches:
                for batch in batches:
                    for image in batch:
                        self._add(image)
                    elapsed_s = time.monotonic() - self._flushed_at
                    if len(self._waiting) >= MAX_IMAGES_PER_PART or elapsed_s >= self._flush_s:
                        self._flush()
                    self._report()
            self._settle()
        except (KeyboardInterrupt, ModelError):
            self._flush()
            raise
        self._flush()

    def _add(self, image: _Extracted) -> None:
        # A network that fails once may dislike the image. One that fails on everything (a device that
        # is gone, say) must not mark the rest of the images as done.
        if image.network_failed:
            self._suspect.append(image)
            if len(self._suspect) >= _TOLERATED_NETWORK_FAILURES:
                self._blame_network()
            return
        self._waiting += [*self._suspect, image]
        for one in (*self._suspect, image):
            self._tally(one)
        self._suspect.clear()

    def _settle(self) -> None:
        """At the end of the source: failures of the network count as failures of images, unless it never worked."""
        worked = self._unfinished.records > self._unfinished.failed or any(one.columns for one in self._waiting)
        if self._suspect and not worked:
            self._blame_network()
        self._waiting += self._suspect
        for one in self._suspect:
            self._tally(one)
        self._suspect.clear()
        self._report()

    def _blame_network(self) -> None:
        first = self._suspect[0]
        raise ModelError(
            f"the network failed on {len(self._suspect)} images in a row and the extraction stopped "
            f"({first.name}: {first.message}); run the same command again to continue once it works"
        )

    def _tally(self, image: _Extracted) -> None:
        self.counts[image.status] += 1
        self.instances += image.instances
        if image.status == "failed" and len(self.failures) < _MESSAGES:
            self.failures.append(f"{image.name}: {image.message}")

    def _flush(self) -> None:
        self._flushed_at = time.monotonic()
        # Taken off the list first: an interruption from here on must not commit them a second time.
        images, self._waiting = self._waiting, []
        if not images:
            return
        rows = instance_table([image.columns for image in images if image.columns is not None], self._schema)
        records: list[tuple[Any, ...]] = []
        for image in images:
            height, width = image.size_hw or (None, None)
            records.append((image.name, width, height, image.status, image.instances, image.message))
        self._unfinished.commit(rows, image_records(records, self._settings))

    def _report(self) -> None:
        if self._on_progress is not None:
            done = self.skipped + sum(self.counts.values())
            self._on_progress(done, self._total, self.counts["failed"])


class _Extractor:
    """What a worker does with a batch: decode, ask the network, measure the masks."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._one_large = Lock()

    def __call__(self, batch: tuple[SourceImage, ...]) -> list[_Extracted]:
        finished: dict[str, _Extracted] = {}
        decoded: dict[str, np.ndarray[Any, Any]] = {}
        for name, image in batch:
            try:
                decoded[name] = SourceImage(name, image).read()
            except (MaskprismError, MemoryError, cv2.error) as error:
                finished[name] = _Extracted(name, None, None, _one_line(error).removeprefix(f"{image}: "))
        if sum(image.size // 3 for image in decoded.values()) > LARGE_PIXELS:
            with self._one_large:
                finished |= self._ask(decoded)
        elif decoded:
            finished |= self._ask(decoded)
        return [finished[image.name] for image in batch]

    def _ask(self, decoded: dict[str, np.ndarray[Any, Any]]) -> dict[str, _Extracted]:
        try:
            predictions = self._model.predict(list(decoded.values()))
            return {
                name: _Extracted(name, prediction.image_size, instance_columns(name, prediction))
                for name, prediction in zip(decoded, predictions, strict=True)
            }
        except InputError:  # an argument of the caller, not the image
            raise
        except Exception as error:  # runtimes raise what they like
            if len(decoded) > 1:
                return {
                    key: value for name, image in decoded.items() for key, value in self._ask({name: image}).items()
                }
            ((name, image),) = decoded.items()
            return {name: _Extracted(name, image.shape[:2], None, _one_line(error), network_failed=True)}


def in_order(function: Callable[[Task], Done], tasks: Iterator[Task], workers: int) -> Generator[Done, None, None]:
    """What `function` makes of each task, in the order of tasks; a bounded number are in flight."""
    pool = ThreadPoolExecutor(workers, thread_name_prefix="extract")
    flying: deque[Future[Done]] = deque()
    try:
        for task in tasks:
            flying.append(pool.submit(function, task))
            if len(flying) >= 2 * workers + 1:
                yield flying.popleft().result()
        while flying:
            yield flying.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _batches(images: Iterator[SourceImage], size: int) -> Iterator[tuple[SourceImage, ...]]:
    while batch := tuple(islice(images, size)):
        yield batch


@contextmanager
def one_thread_per_call() -> Iterator[None]:
    """Workers are the threads: a library that starts more for each call would only get in their way."""
    before = cv2.getNumThreads()
    with threadpool_limits(1):
        cv2.setNumThreads(1)
        try:
            yield
        finally:
            cv2.setNumThreads(before)


def processors() -> int:
    """How many this process may use, up to MAX_WORKERS."""
    try:
        available = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        available = os.cpu_count() or 1
    return min(available, MAX_WORKERS)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
