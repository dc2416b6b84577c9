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
from typing import TYPE_CHECKING, Any, TypeVar

import cv2
import pyarrow as pa
from threadpoolctl import threadpool_limits

from maskprism.errors import InputError, ModelError
from maskprism.shard import TOLERATED_NETWORK_FAILURES, Shard, instances_of, network_gone, records_of
from maskprism.sources import SourceImage, open_source
from maskprism.table import TablePaths
from maskprism.unfinished_table import UnfinishedTable

if TYPE_CHECKING:
    from maskprism.locations import Location, UriPath
    from maskprism.models import Model

MAX_IMAGES_PER_PART = 512
MAX_WORKERS = 32
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
    table: Location
    images_table: Location
    settings: Location | None

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


def extract(
    source: str | os.PathLike[str] | UriPath,
    model: Model,
    out: str | os.PathLike[str] | UriPath,
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
        a folder (with its subfolders), a glob pattern, an image, a video, or a `.txt` file with one path per line;
        all but videos also by URI (`s3://bucket/photos`).
    model
        see `maskprism.load`. On a CPU `load(..., threads=1)` is fastest here, because every worker
        runs the network on an image of its own.
    out
        a `.parquet` or `.csv` file, a path or a URI.
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
    shard = Shard(model, images.root)
    with UnfinishedTable(paths, shard.settings, overwrite=overwrite) as unfinished:
        run = _Run(
            unfinished,
            flush_s=flush_s,
            on_progress=on_progress,
            total=images.count(),
            skipped=images.count_done(unfinished.done),
        )
        with one_thread_per_call():
            run.work_through(shard, images.pending(unfinished.done), model.batch, workers or processors())
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
        *,
        flush_s: float,
        on_progress: Progress | None,
        total: int | None,
        skipped: int,
    ) -> None:
        self._unfinished = unfinished
        self._flush_s, self._on_progress, self._total = flush_s, on_progress, total
        self.skipped = skipped
        self.counts = {"ok": 0, "empty": 0, "failed": 0}
        self.instances = 0
        self.failures: list[str] = []
        self._waiting: list[pa.RecordBatch] = []  # of one image each
        self._suspect: list[pa.RecordBatch] = []
        self._flushed_at = time.monotonic()

    def work_through(self, shard: Shard, pending: Iterator[SourceImage], size: int, workers: int) -> None:
        """Extract every pending image; what is finished is committed even if this is interrupted."""
        self._report()
        try:
            with closing(in_order(shard, _batches(pending, size), workers)) as batches:
                for batch in batches:
                    for index in range(len(batch)):
                        self._add(batch.slice(index, 1))
                    elapsed_s = time.monotonic() - self._flushed_at
                    if len(self._waiting) >= MAX_IMAGES_PER_PART or elapsed_s >= self._flush_s:
                        self._flush()
                    self._report()
            self._settle()
        except (KeyboardInterrupt, ModelError):
            self._flush()
            raise
        self._flush()

    def _add(self, image: pa.RecordBatch) -> None:
        # A network that fails once may dislike the image. One that fails on everything (a device that
        # is gone, say) must not mark the rest of the images as done.
        if _value(image, "network_failed"):
            self._suspect.append(image)
            if len(self._suspect) >= TOLERATED_NETWORK_FAILURES:
                self._blame_network()
            return
        self._waiting += [*self._suspect, image]
        for one in (*self._suspect, image):
            self._tally(one)
        self._suspect.clear()

    def _settle(self) -> None:
        """At the end of the source: failures of the network count as failures of images, unless it never worked."""
        worked = self._unfinished.records > self._unfinished.failed or any(
            _value(one, "status") != "failed" for one in self._waiting
        )
        if self._suspect and not worked:
            self._blame_network()
        self._waiting += self._suspect
        for one in self._suspect:
            self._tally(one)
        self._suspect.clear()
        self._report()

    def _blame_network(self) -> None:
        first = self._suspect[0]
        raise network_gone(len(self._suspect), _value(first, "image"), _value(first, "message"))

    def _tally(self, image: pa.RecordBatch) -> None:
        self.counts[_value(image, "status")] += 1
        self.instances += _value(image, "instances")
        if _value(image, "status") == "failed" and len(self.failures) < _MESSAGES:
            self.failures.append(f"{_value(image, 'image')}: {_value(image, 'message')}")

    def _flush(self) -> None:
        self._flushed_at = time.monotonic()
        # Taken off the list first: an interruption from here on must not commit them a second time.
        images, self._waiting = self._waiting, []
        if images:
            shards = pa.Table.from_batches(images)
            self._unfinished.commit(instances_of(shards), records_of(shards))

    def _report(self) -> None:
        if self._on_progress is not None:
            done = self.skipped + sum(self.counts.values())
            self._on_progress(done, self._total, self.counts["failed"])


def _value(image: pa.RecordBatch, column: str) -> Any:
    return image[column][0].as_py()


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
