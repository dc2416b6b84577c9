"""Work on many things at once, results in order: on threads of this process, or on a cluster that Ray runs."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeAlias, TypeVar, get_args

import cv2
from threadpoolctl import ThreadpoolController

from maskprism._common.choices import EngineName
from maskprism.errors import InputError

if TYPE_CHECKING:
    from maskprism._common.ray_engine import RayEngine

MAX_WORKERS = 32

Task = TypeVar("Task")
Answer = TypeVar("Answer")


Engine: TypeAlias = "Threads | RayEngine"
"""Workers that apply a function to tasks. `open_engine` opens one, which serves several functions."""


class Lost(NamedTuple, Generic[Task]):
    """What stands in for the answer where the process that worked on a task died, again and again."""

    task: Task
    message: str


@contextmanager
def open_engine(
    engine: EngineName | Engine = "threads", workers: int | None = None, gpus: float = 0
) -> Iterator[Engine]:
    """Open an engine; a cluster that is started for it ends with it.

    Parameters
    ----------
    engine
        "threads"; or "ray": processes of the cluster that RAY_ADDRESS names or that was started on this machine, or
        else of a new one here. An engine that is open already is given back and stays open.
    workers
        Threads or processes. Default: one per processor (or GPU).
    gpus
        Of each process of the cluster; may be a part of one.

    Raises
    ------
    InputError
        If an argument is out of range, or the cluster lacks what a worker needs.
    MissingExtraError
        For "ray" without Ray.
    """
    if not isinstance(engine, str):
        yield engine
        return
    check_engine(engine, workers)
    if engine == "ray":
        from maskprism._common.ray_engine import open_ray

        with open_ray(workers, gpus) as opened:
            yield opened
        return
    if gpus:
        raise InputError(f"gpus is {gpus}; threads share the device of the model, so leave it out, or use engine='ray'")
    with one_thread_per_call():
        yield Threads(workers or processors())


def check_engine(engine: EngineName | Engine, workers: int | None) -> None:
    """Raise InputError for an engine that does not exist, or a number of workers out of range."""
    if isinstance(engine, str) and engine not in get_args(EngineName):
        raise InputError(f"engine is {engine!r}; expected one of {', '.join(map(repr, get_args(EngineName)))}")
    if workers is not None and workers < 1:
        raise InputError(f"workers is {workers}; expected at least 1")


@dataclass(frozen=True)
class Threads:
    """The threads of this process.

    in_one_process: tasks and answers stay here; those of a `RayEngine` are pickled.
    """

    workers: int
    in_one_process = True

    def map(
        self, function: Callable[[Sequence[Task]], Iterable[Answer]], tasks: Iterable[Task], size: int = 1
    ) -> Generator[Answer | Lost[Task], None, None]:
        """Apply a function to tasks.

        Parameters
        ----------
        function
            Is given `size` tasks at once, and gives an answer to each, in their order.
        tasks
            Drawn one after the other: a bounded number are in flight.

        Yields
        ------
        answer
            In the order of tasks, whichever is finished first.
        """
        with closing(in_order(function, in_lists(tasks, size), self.workers)) as lists:
            for answers in lists:
                yield from answers


def in_lists(tasks: Iterable[Task], size: int) -> Iterator[list[Task]]:
    """Tasks in lists of `size`; the last may be shorter."""
    rest = iter(tasks)
    while some := list(islice(rest, size)):
        yield some


def in_order(function: Callable[[Task], Answer], tasks: Iterable[Task], workers: int) -> Generator[Answer, None, None]:
    """Yield what a function makes of each task, on threads, in the order of tasks; a bounded number are in flight."""
    pool = ThreadPoolExecutor(workers, thread_name_prefix="maskprism")
    flying: deque[Future[Answer]] = deque()
    try:
        for task in tasks:
            flying.append(pool.submit(function, task))
            if len(flying) > 2 * workers:
                yield flying.popleft().result()
        while flying:
            yield flying.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def one_thread_per_call() -> Iterator[None]:
    """Workers are the threads: a library that starts more for each call would only get in their way."""
    before = cv2.getNumThreads()
    with one_thread_in_libraries():
        cv2.setNumThreads(1)
        try:
            yield
        finally:
            cv2.setNumThreads(before)


def one_thread_in_libraries() -> AbstractContextManager[object]:
    """Return a context in which libraries of linear algebra, and OpenMP, use one thread each."""
    return _libraries(len(sys.modules)).limit(limits=1)


@lru_cache(maxsize=1)
def _libraries(n_modules: int) -> ThreadpoolController:
    """Find the libraries of this process, which takes milliseconds: again when modules, and so libraries, have come."""
    return ThreadpoolController()


def processors() -> int:
    """Return how many this process may use, up to MAX_WORKERS."""
    try:
        available = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        available = os.cpu_count() or 1
    return min(available, MAX_WORKERS)
