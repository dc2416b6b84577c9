"""Images to a coefficient table: decoding, inference and measuring overlap, on threads or on a cluster."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from maskprism._common.choices import EngineName
from maskprism._common.parallel import Engine, Lost, check_engine, open_engine
from maskprism._common.text import counted
from maskprism.datasets.visit import TOLERATED_MODEL_FAILURES, Failure, OnProgress, visit
from maskprism.errors import InputError, MaskprismError
from maskprism.io.sources import ImageFiles, open_source
from maskprism.tables.schema import ExtractedImage, shard_batch
from maskprism.tables.table import IMAGES, INSTANCES, PROTOTYPES, TablePaths
from maskprism.tables.worker import Shard, instances_of, model_gone, prototypes_of, records_of
from maskprism.tables.writer import UnfinishedTable

if TYPE_CHECKING:
    from maskprism.io.uris import Location, UriPath
    from maskprism.models import Model
    from maskprism.tables.stored_prototypes import Stored

MAX_IMAGES_PER_PART = 512
MAX_BYTES_PER_PART = 64 << 20
_FLUSH_S = 5.0
_FOLDER_FLUSH_S = 60.0
"""Parts of a folder are never merged: fewer and larger ones are read faster."""
_IMAGES_PER_FOLDER_PART = 1 << 14
_MESSAGES = 5


@dataclass(frozen=True)
class ExtractSummary:
    """What one call of `extract` did.

    Counts are of images, `instances` of rows.

    Attributes
    ----------
    images
        Worked on in this call; of these with_instances, empty and failed.
    skipped
        Already in the table before.
    all_failed
        Not one image of the table, old or new, could be used.
    failures
        The first few images of this call that failed.
    images_table
        The table with one row per image.
    prototypes_table
        The one with what is stored of prototypes; settings: the `.meta.json` of a CSV table.
    """

    images: int
    with_instances: int
    empty: int
    failed: int
    skipped: int
    instances: int
    all_failed: bool
    seconds: float
    failures: tuple[Failure, ...]
    table: Location
    images_table: Location
    prototypes_table: Location | None
    settings: Location | None

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> list[str]:
        """Return how many images were done, which failed, and where the tables are, a line each."""
        before = f"{self.skipped} were in the table before" if self.skipped else ""
        if not self.images:
            return [f"nothing new for {self.table}: {before}"]
        rate = f"{self.images / self.seconds:.1f} images/s" if self.seconds else ""
        after = f"; {before}" if before else ""
        done = (
            f"{counted(self.images, 'image')} in {self.seconds:.1f} s ({rate}): {self.with_instances} with "
            f"{counted(self.instances, 'instance')}, {self.empty} without, {self.failed} failed{after}"
        )
        failed = [f"  failed: {failure.name}: {failure.message}" for failure in self.failures]
        if self.failed > len(self.failures):
            failed.append(f"  ... and {self.failed - len(self.failures)} more, all in {self.images_table}")
        tables = [str(one) for one in (self.table, self.images_table, self.prototypes_table) if one is not None]
        return [done, *failed, *tables]


def extract(
    source: str | os.PathLike[str] | UriPath,
    model: Model | Callable[[], Model],
    out: str | os.PathLike[str] | UriPath,
    *,
    on_progress: OnProgress | None = None,
    engine: EngineName | Engine = "threads",
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
        fastest here, because every worker runs the model on an image of its own.
    out
        a `.parquet` or `.csv` file, or a folder for a table in Parquet parts; a path or a URI.
    on_progress
        see `maskprism.datasets.visit.OnProgress`; images of earlier runs are included, and the total of a video is an
        estimate.
    engine
        "threads" of this process, or "ray": processes of a cluster that Ray runs, which is the one that RAY_ADDRESS
        names or that was started on this machine, or else a new one here. For "ray", `model` is one that was opened
        from a file; or, where this machine cannot open it, a function that can be pickled, such as
        `functools.partial(maskprism.load, "best.onnx", device="cuda")`.
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
        the model cannot be opened, or fails on one image after the other.
    InputError
        an argument is out of range, or does not fit the engine.

    Examples
    --------
    >>> import maskprism
    >>> from maskprism.datasets.scenes import write_dataset
    >>> data = write_dataset("scenes", 4, validation_share=1)
    >>> summary = maskprism.extract("scenes/images/val", maskprism.load("sample"), "table.csv", overwrite=True)
    >>> summary.images, summary.failed
    (4, 0)
    >>> len(maskprism.CoefficientTable.read("table.csv")) == summary.instances
    True
    """
    started = time.perf_counter()
    if flush_s is not None and flush_s < 0:
        raise InputError(f"flush_s is {flush_s}; expected at least 0 seconds")
    check_engine(engine, workers)
    paths = TablePaths.of(out)
    images = open_source(source, limit=limit)
    shard = Shard(model, images.root, prototypes=prototypes)
    with (
        _opened(engine, workers, gpus, shard) as opened,
        UnfinishedTable(paths, shard.settings, overwrite=overwrite) as unfinished,
    ):
        run = _Run(
            unfinished,
            shard.schema,
            flush_s=flush_s,
            on_progress=on_progress,
            total=images.count(),
            skipped=images.count_done(unfinished.done),
        )
        pending = images.pending(unfinished.done)
        known = list(pending) if isinstance(images, ImageFiles) else pending
        with closing(visit(known, shard, shard.extracted, engine=opened)) as results:
            run.collect(results)
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


@contextmanager
def _opened(engine: EngineName | Engine, workers: int | None, gpus: float, shard: Shard) -> Iterator[Engine]:
    """The engine, and with it what is to be known of the model: this process may have no GPU, so a worker tells."""
    with open_engine(engine, workers, gpus) as opened:
        if not opened.in_one_process:
            (described,) = opened.map(_described, [shard])
            if isinstance(described, Lost):
                raise MaskprismError(f"engine 'ray': a worker cannot open the model ({described.message})")
            shard.describe(described)
        yield opened


def _described(shards: Sequence[Shard]) -> list[tuple[dict[str, Any], int]]:
    return [shard.described() for shard in shards]


class _Run:
    """Collects finished images in order and commits them in parts."""

    def __init__(
        self,
        unfinished: UnfinishedTable,
        schema: pa.Schema,
        *,
        flush_s: float | None,
        on_progress: OnProgress | None,
        total: int | None,
        skipped: int,
    ) -> None:
        self._unfinished, self._schema = unfinished, schema
        in_folder = unfinished.paths.is_folder
        self._flush_s = (_FOLDER_FLUSH_S if in_folder else _FLUSH_S) if flush_s is None else flush_s
        self._most_images = _IMAGES_PER_FOLDER_PART if in_folder else MAX_IMAGES_PER_PART
        self._on_progress, self._total = on_progress, total
        self.skipped = skipped
        self.counts = {"ok": 0, "empty": 0, "failed": 0}
        self.instances = 0
        self.failures: list[Failure] = []
        self._waiting: list[ExtractedImage] = []
        self._waiting_bytes = 0
        self._suspect: list[ExtractedImage] = []
        self._flushed_at = time.monotonic()

    def collect(self, results: Iterable[ExtractedImage | Failure]) -> None:
        """Take over every image; what is finished is committed even if this is interrupted."""
        self._report()
        try:
            for result in results:
                self._add(ExtractedImage.of(result) if isinstance(result, Failure) else result)
                elapsed_s = time.monotonic() - self._flushed_at
                full = len(self._waiting) >= self._most_images or self._waiting_bytes >= MAX_BYTES_PER_PART
                if full or elapsed_s >= self._flush_s:
                    self._flush()
                self._report(result if isinstance(result, Failure) else None)
            self._settle()
        except (KeyboardInterrupt, MaskprismError):
            self._flush()
            raise
        self._flush()

    def _add(self, image: ExtractedImage) -> None:
        # A model that fails once may dislike the image. One that fails on everything (a device that
        # is gone, say) must not mark the rest of the images as done.
        if image.network_failed:
            self._suspect.append(image)
            if len(self._suspect) >= TOLERATED_MODEL_FAILURES:
                raise model_gone(self._suspect)
            return
        self._take([*self._suspect, image])
        self._suspect.clear()

    def _settle(self) -> None:
        """At the end of the source: failures of the model count as failures of images, unless it never worked."""
        worked = self._unfinished.records > self._unfinished.failed or self.counts["ok"] + self.counts["empty"] > 0
        if self._suspect and not worked:
            raise model_gone(self._suspect)
        self._take(self._suspect)
        self._suspect.clear()
        self._report()

    def _take(self, images: Sequence[ExtractedImage]) -> None:
        self._waiting += images
        for image in images:
            self._waiting_bytes += image.nbytes
            self.counts[image.status] += 1
            self.instances += image.instances
            if image.status == "failed" and len(self.failures) < _MESSAGES:
                self.failures.append(Failure(image.name, image.message, image.network_failed))

    def _flush(self) -> None:
        self._flushed_at = time.monotonic()
        # Taken off the list first: an interruption from here on must not commit them a second time.
        images, self._waiting, self._waiting_bytes = self._waiting, [], 0
        if images:
            shards = pa.Table.from_batches([shard_batch(images, self._schema)])
            self._unfinished.commit(
                {INSTANCES: instances_of(shards), PROTOTYPES: prototypes_of(shards), IMAGES: records_of(shards)}
            )

    def _report(self, failure: Failure | None = None) -> None:
        if self._on_progress is not None:
            self._on_progress(self.skipped + sum(self.counts.values()), self._total, failure)
