"""The shard function on the processes of a Ray cluster, by Ray Data (extra `ray`).

Workers only read images and ask the network. Rows come back to the process that asked, which alone writes the table:
so a table is finished, continued and kept from doubles just as with threads. A worker that dies is started again by
Ray and its images with it; images that kill their worker every time are found one by one and recorded as failed.
"""

from __future__ import annotations

import logging
import math
import os
import pickle
import secrets
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from maskprism._common.extras import require
from maskprism._common.text import brief, one_line
from maskprism.errors import InputError, MaskprismError
from maskprism.tables.schema import ExtractedImage, shard_batch, shard_schema
from maskprism.tables.worker import in_lists

if TYPE_CHECKING:
    from maskprism.io.sources import SourceImage
    from maskprism.tables.worker import Shard

_IMAGES_PER_CALL = 32
_CALLS_PER_WORKER = 4
"""The least number, where there are few images: the last ones must not wait for one worker."""
_REACH_S = 10
_ATTEMPTS = 3
"""How often a worker may die of the same images."""


@contextmanager
def ray_work(shard: Shard, workers: int | None, gpus: float) -> Iterator[RayWork]:
    """The engine around a shard; a cluster that is started here ends with it.

    Raises MissingExtraError without Ray, InputError where the cluster has not what a worker needs; ModelError where
    the model cannot be opened on a worker.
    """
    require("ray.data", "engine 'ray', here and in the environment of every node,")
    import ray

    if gpus < 0:
        raise InputError(f"gpus is {gpus}; expected at least 0")
    pickled = _pickled(shard)
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    started_here = not ray.is_initialized()
    if started_here:
        _start()
    try:
        yield RayWork(pickled, _workers(ray.cluster_resources(), workers, gpus), gpus)
    finally:
        if started_here:
            ray.shutdown()


def _start() -> None:
    """Connect to the cluster that RAY_ADDRESS names or that runs here, or else start one.

    Raises InputError where that fails.
    """
    import ray

    address = os.environ.get("RAY_ADDRESS", "")
    options = {"include_dashboard": False, "logging_level": logging.ERROR, "log_to_driver": False}
    before = signal.getsignal(signal.SIGTERM)
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # Ray's own reports; errors are reported here
    try:
        if address not in ("", "local", "auto"):
            _reach(address)
        try:
            if address == "local":
                raise ConnectionError
            ray.init(address=address or "auto", **options)
        except ConnectionError:
            if address not in ("", "local"):
                raise
            if not (Path.home() / ".ray" / "auth_token").exists():  # Ray would file a token for this cluster there
                os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
            with _without_api_server():
                ray.init(address="local", **options)
    except Exception as error:  # Ray raises a dozen types
        where = f"cannot reach the cluster of RAY_ADDRESS={address}" if address else "Ray cannot be started"
        advice = "set RAY_ADDRESS to the address of a cluster, such as 10.0.0.1:6379, or leave it out for one here"
        raise InputError(f"engine 'ray': {where} ({brief(one_line(error), 200)}); {advice}") from None
    finally:
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGTERM, before)  # Ray's prints a stack


@contextmanager
def _without_api_server() -> Iterator[None]:
    """Start a cluster without the process that serves Ray's dashboard.

    Without a dashboard all that it does is to report usage; told not to, it still asks the metadata services of three
    clouds where it runs. Ray has no setting for it.
    """
    from ray._private.node import Node

    start = Node.start_api_server
    Node.start_api_server = lambda *_, **__: None
    try:
        yield
    finally:
        Node.start_api_server = start


def _reach(address: str) -> None:
    """Try the port of an address, for which Ray itself tries for minutes. Raises OSError or ValueError."""
    host, _, port = address.rpartition("://")[2].partition("/")[0].rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError("it is no HOST:PORT")
    with socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_S):
        pass


def _pickled(shard: Shard) -> bytes:
    """The shard as it travels. Raises InputError for one around an open model, or a function that stays here."""
    try:
        return pickle.dumps(shard)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InputError(
            f"the function that opens the model cannot be sent to workers ({error}); expected one that can be pickled, "
            'such as functools.partial(maskprism.load, "best.onnx", threads=1)'
        ) from None


def _workers(resources: dict[str, float], workers: int | None, gpus: float) -> int:
    """How many processes. Default: as many as the cluster has room for."""
    room = int(resources.get("GPU", 0) / gpus) if gpus else int(resources.get("CPU", 0))
    if room < 1:
        has = f"{resources.get('CPU', 0):.0f} processors and {resources.get('GPU', 0):.0f} GPUs"
        raise InputError(f"a worker needs 1 processor and {gpus:g} GPUs; the cluster has {has} in all")
    return room if workers is None else workers


class RayWork:
    """Workers of a cluster around one shard."""

    def __init__(self, shard: bytes, workers: int, gpus: float) -> None:
        import ray

        self._shard, self._workers, self._gpus = shard, workers, gpus
        # The process that asks may have no GPU, so a worker tells what the model is like.
        ask = ray.remote(num_cpus=1, num_gpus=gpus)(_described)
        try:
            found = ray.get(ask.remote(shard))
        except ray.exceptions.RayError as error:
            raise MaskprismError(
                f"engine 'ray': a worker cannot open the model ({brief(one_line(error), 200)})"
            ) from None
        if isinstance(found, MaskprismError):
            raise found
        self.settings, self._batch = found
        self._schema = shard_schema(self.settings)

    def batches(self, pending: Iterator[SourceImage]) -> Generator[pa.RecordBatch, None, None]:
        """The rows of all images, each once, in the order of images; those that killed a worker come last.

        Raises InputError for decoded images, such as frames of a video; ModelError where the network fails on one
        image after the other.
        """
        images = list(pending)
        if any(isinstance(image.image, np.ndarray) for image in images[:1]):
            raise InputError("a video is decoded in one process; leave engine='ray' out for it")
        size = min(_IMAGES_PER_CALL, math.ceil(len(images) / (_CALLS_PER_WORKER * self._workers)))
        size = math.ceil(max(size, 1) / self._batch) * self._batch
        lost: list[SourceImage] = []
        yield from self._round(list(in_lists(images, size)), lost)
        alone, lost = lost, []
        yield from self._round([(image,) for image in alone], lost)
        for image in lost:
            message = f"the process that worked on it died, {_ATTEMPTS} times; it may need more memory"
            yield shard_batch([ExtractedImage(image.name, message=message)], self._schema)

    def _round(
        self, lists: Sequence[Sequence[SourceImage]], lost: list[SourceImage]
    ) -> Generator[pa.RecordBatch, None, None]:
        """The rows of each list of images; the images of lists that never came back are added to `lost`."""
        import ray

        if not lists:
            return
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = True
        # Started again where its process dies: it begins to count anew, and no image is lost.
        attempts = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Attempts).remote()
        # One row per list, so that a list is what is tried again; a file system is sent once for it.
        blocks = [
            pa.table({"list": [number], "images": pa.array([pickle.dumps(images)], pa.large_binary())})
            for number, images in enumerate(lists)
        ]
        found = ray.data.from_arrow(blocks).map_batches(
            _Worker,
            fn_constructor_kwargs={"shard": self._shard, "attempts": attempts},
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=min(self._workers, len(lists))),
            num_cpus=1,
            num_gpus=self._gpus,
        )
        blocks_found = iter(found.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1))
        while (block := _next(blocks_found)) is not None:
            for row in block.to_pylist():
                answer = pickle.loads(row["answer"])
                if isinstance(answer, MaskprismError):
                    raise answer
                if answer is None:
                    lost += lists[row["list"]]
                else:
                    yield answer


def _next(blocks: Iterator[pa.Table]) -> pa.Table | None:
    """The next block; None after the last one. Raises MaskprismError where Ray itself fails."""
    import ray.exceptions

    try:
        return next(blocks, None)
    except (ray.exceptions.RayError, ConnectionError) as error:
        reason = brief(" ".join(str(error).split("\n", 1)[0].split()) or type(error).__name__, 200)
        raise MaskprismError(
            f"engine 'ray': the cluster failed ({reason}); images already extracted are kept: run the same command "
            "again to go on"
        ) from None


class _Attempts:
    """Counts how often each list was begun: Ray tries without end what a worker dies of."""

    def __init__(self) -> None:
        self._begun: Counter[int] = Counter()

    def begin(self, number: int) -> int:
        """One more; how many that makes."""
        self._begun[number] += 1
        return self._begun[number]


@dataclass
class _Worker:
    """A process of the cluster; it opens the model with its first images."""

    shard: bytes
    attempts: Any

    def __post_init__(self) -> None:
        import cv2

        cv2.setNumThreads(1)
        self._call: Callable[[Any], pa.RecordBatch] = pickle.loads(self.shard)

    def __call__(self, rows: pa.Table) -> pa.Table:
        """A pickled batch for each row; an error of ours, or None for images that workers died of, stands in for it."""
        answers = [pickle.dumps(self._answer(row["list"], row["images"])) for row in rows.to_pylist()]
        return pa.table({"list": rows["list"], "answer": pa.array(answers, pa.large_binary())})

    def _answer(self, number: int, images: bytes) -> pa.RecordBatch | MaskprismError | None:
        import ray

        if ray.get(self.attempts.begin.remote(number)) > _ATTEMPTS:
            return None
        try:
            return self._call(pickle.loads(images))
        except MaskprismError as error:
            return error


def _described(shard: bytes) -> tuple[dict[str, Any], int] | MaskprismError:
    """The settings of a shard and how many images its network takes at once, or why it cannot be opened."""
    opened: Shard = pickle.loads(shard)
    try:
        return opened.settings, opened.batch
    except MaskprismError as error:
        return error
