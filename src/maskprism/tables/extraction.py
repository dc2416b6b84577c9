"""Images to a coefficient table: decoding, inference and measuring overlap, on threads or on a cluster."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, get_args

import cv2
import pyarrow as pa
from threadpoolctl import threadpool_limits

from maskprism.errors import InputError, ModelError
from maskprism.io.sources import SourceImage, open_source
from maskprism.tables.table import IMAGES, INSTANCES, PROTOTYPES, TablePaths
from maskprism.tables.worker import (
    TOLERATED_NETWORK_FAILURES,
    Shard,
    in_lists,
    instances_of,
    network_gone,
    prototypes_of,
    records_of,
)
from maskprism.tables.writer import UnfinishedTable

if TYPE_CHECKING:
    from maskprism.io.uris import Location, UriPath
    from maskprism.models import Model
    from maskprism.tables.stored_prototypes import Stored

Engine = Literal["threads", "ray"]
MAX_IMAGES_PER_PART = 512
MAX_BYTES_PER_PART = 64 << 20
MAX_WORKERS = 32
_FLUSH_S = 5.0
_FOLDER_FLUSH_S = 60.0
"""Parts of a folder are never merged: fewer and larger ones are read faster."""
_IMAGES_PER_FOLDER_PART = 1 << 14
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
    images_table: the table with one row per image; prototypes_table: the one with what is stored of prototypes;
        settings: the `.meta.json` of a CSV table.
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
    prototypes_table: Location | None
    settings: Location | None

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> list[str]:
        """How many images were done, which failed, and where the tables are, a line each."""
        before = f"{self.skipped} were in the table before" if self.skipped else ""
        if not self.images:
            return [f"nothing new for {self.table}: {before}"]
        rate = f"{self.images / self.seconds:.1f} images/s" if self.seconds else ""
        done = (
            f"{self.images} images in {self.seconds:.1f} s ({rate}): {self.with_instances} with {self.instances} "
            f"instances, {self.empty} without, {self.failed} failed{'; ' if before else ''}{before}"
        )
        failed = [f"  failed: {message}" for message in self.failures]
        if self.failed > len(self.failures):
            failed.append(f"  ... and {self.failed - len(self.failures)} more, all in {self.images_table}")
        tables = [str(one) for one in (self.table, self.images_table, self.prototypes_table) if one is not None]
        return [done, *failed, *tables]


def extract(
    source: str | os.PathLike[str] | UriPath,
    model: Model | Callable[[], Model],
    out: str | os.PathLike[str] | UriPath,
    *,
    on_progress: Progress | None = None,
    engine: Engine = "threads",
    workers: int | None = None,
    gpus: float = 0,
    prototypes: Stored | None = None,
    overwrite: bool = False,
    flush_s: float | None = None,
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
        see `maskprism.load`; or a function without arguments that opens one. On a CPU `load(..., threads=1)` is
        fastest here, because every worker runs the network on an image of its own.
    out
        a `.parquet` or `.csv` file, or a folder for a table in Parquet parts; a path or a URI.
    on_progress
        called with the number of images done (those of earlier runs included), their total or
        None (an estimate for videos), and the number that failed in this call.
    engine
        "threads" of this process, or "ray": processes of a cluster that Ray runs, which is the one that RAY_ADDRESS
        names or that was started on this machine, or else a new one here. For "ray", `model` is a function that can
        be pickled, such as `functools.partial(maskprism.load, "best.onnx", threads=1)`.
    workers
        threads, or processes of the cluster; default: one per processor (or GPU).
    gpus
        of each process of the cluster; may be a part of one.
    prototypes
        what to keep of the prototypes of images with instances, in a table of its own: None, "summary" (mean, extremes
        and Gram matrix), or all of them as "fp16" or "fp32", from which masks can be drawn again.
    overwrite
        start over instead of continuing; replaces only tables of maskprism.
    flush_s
        about this many seconds of work are lost when killed. Default: 5, and 60 for a folder.
    limit
        at most this number of images, evenly spread over the source.

    Raises
    ------
    ImageError
        the source is missing, unreadable or holds no images.
    TableError
        `out` was made with another model or settings, is not ours, is being written by another
        process, or cannot be written.
    ModelError
        the network cannot be opened, or fails on one image after the other.
    InputError
        an argument is out of range, or does not fit the engine.
    """
    started = time.perf_counter()
    if workers is not None and workers < 1:
        raise InputError(f"workers is {workers}; expected at least 1")
    if flush_s is not None and flush_s < 0:
        raise InputError(f"flush_s is {flush_s}; expected at least 0 seconds")
    if engine not in get_args(Engine):
        raise InputError(f"engine is {engine!r}; expected one of {', '.join(map(repr, get_args(Engine)))}")
    paths = TablePaths.of(out)
    images = open_source(source, limit=limit)
    shard = Shard(model, images.root, prototypes=prototypes)
    with (
        _engine(engine, shard, workers, gpus) as work,
        UnfinishedTable(paths, work.settings, overwrite=overwrite) as unfinished,
    ):
        run = _Run(
            unfinished,
            flush_s=flush_s,
            on_progress=on_progress,
            total=images.count(),
            skipped=images.count_done(unfinished.done),
        )
        with closing(work.batches(images.pending(unfinished.done))) as batches:
            run.collect(batches)
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
            prototypes_table=None if prototypes is None else paths.prototypes,
            settings=paths.settings,
        )


class _Work(Protocol):
    """What an engine does: images in, batches of a shard out, in the order of images unless a worker died."""

    @property
    def settings(self) -> dict[str, Any]:
        """What determines the rows."""
        ...

    def batches(self, pending: Iterator[SourceImage]) -> Generator[pa.RecordBatch, None, None]:
        """The rows of all images, each once."""
        ...


@contextmanager
def _engine(engine: Engine, shard: Shard, workers: int | None, gpus: float) -> Iterator[_Work]:
    if engine == "ray":
        from maskprism.tables.ray_engine import ray_work

        with ray_work(shard, workers, gpus) as work:
            yield work
        return
    if gpus:
        raise InputError(f"gpus is {gpus}; threads share the device of the model, so leave it out, or use engine='ray'")
    with one_thread_per_call():
        yield _Threads(shard, workers or processors())


@dataclass(frozen=True)
class _Threads:
    """The threads of this process."""

    shard: Shard
    workers: int

    @property
    def settings(self) -> dict[str, Any]:
        return self.shard.settings

    def batches(self, pending: Iterator[SourceImage]) -> Generator[pa.RecordBatch, None, None]:
        return in_order(self.shard, in_lists(pending, self.shard.batch), self.workers)


class _Run:
    """Collects finished images in order and commits them in parts."""

    def __init__(
        self,
        unfinished: UnfinishedTable,
        *,
        flush_s: float | None,
        on_progress: Progress | None,
        total: int | None,
        skipped: int,
    ) -> None:
        self._unfinished = unfinished
        in_folder = unfinished.paths.is_folder
        self._flush_s = (_FOLDER_FLUSH_S if in_folder else _FLUSH_S) if flush_s is None else flush_s
        self._most_images = _IMAGES_PER_FOLDER_PART if in_folder else MAX_IMAGES_PER_PART
        self._on_progress, self._total = on_progress, total
        self.skipped = skipped
        self.counts = {"ok": 0, "empty": 0, "failed": 0}
        self.instances = 0
        self.failures: list[str] = []
        self._waiting: list[pa.RecordBatch] = []  # of one image each
        self._waiting_bytes = 0
        self._suspect: list[pa.RecordBatch] = []
        self._flushed_at = time.monotonic()

    def collect(self, batches: Iterator[pa.RecordBatch]) -> None:
        """Take over every batch; what is finished is committed even if this is interrupted."""
        self._report()
        try:
            for batch in batches:
                for index in range(len(batch)):
                    self._add(batch.slice(index, 1))
                self._waiting_bytes += batch.nbytes
                elapsed_s = time.monotonic() - self._flushed_at
                full = len(self._waiting) >= self._most_images or self._waiting_bytes >= MAX_BYTES_PER_PART
                if full or elapsed_s >= self._flush_s:
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
        images, self._waiting, self._waiting_bytes = self._waiting, [], 0
        if images:
            shards = pa.Table.from_batches(images)
            self._unfinished.commit(
                {INSTANCES: instances_of(shards), PROTOTYPES: prototypes_of(shards), IMAGES: records_of(shards)}
            )

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
