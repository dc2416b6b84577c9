"""An engine of processes on a Ray cluster (extra `ray`).

Answers come back to the process that asked, which alone writes anything. A worker that dies is started again by Ray,
and its tasks with it; tasks that kill their worker every time are found one by one, and answered by `Lost`.
"""

from __future__ import annotations

import logging
import os
import pickle
import secrets
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
from threadpoolctl import threadpool_limits

from maskprism._common.extras import require
from maskprism._common.parallel import Answer, Lost, Task, in_lists
from maskprism._common.text import brief, one_line
from maskprism.errors import InputError, MaskprismError

_REACH_S = 10
_ATTEMPTS = 3
"""How often a worker may die of the same tasks."""


@contextmanager
def open_ray(workers: int | None, gpus: float) -> Iterator[RayEngine]:
    """Connect to a cluster, or start one, which then ends with this.

    Raises
    ------
    MissingExtraError
        Without Ray.
    InputError
        If the cluster lacks what a worker needs.
    """
    require("ray", "engine 'ray', here and in the environment of every node,")
    import ray

    if gpus < 0:
        raise InputError(f"gpus is {gpus}; expected at least 0")
    started_here = not ray.is_initialized()
    if started_here:
        _start()
    try:
        yield RayEngine(_workers(ray.cluster_resources(), workers, gpus), gpus)
    finally:
        if started_here:
            ray.shutdown()


def _start() -> None:
    """Connect to the cluster that RAY_ADDRESS names or that runs here, or else start one.

    Raises
    ------
    InputError
        Where that fails.
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
    """Try the port of an address, for which Ray itself tries for minutes.

    Raises
    ------
    OSError
    ValueError
    """
    host, _, port = address.rpartition("://")[2].partition("/")[0].rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError("it is no HOST:PORT")
    with socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_S):
        pass


def _workers(resources: dict[str, float], workers: int | None, gpus: float) -> int:
    """Return the number of processes. Default: as many as the cluster has room for."""
    room = int(resources.get("GPU", 0) / gpus) if gpus else int(resources.get("CPU", 0))
    if room < 1:
        has = f"{resources.get('CPU', 0):.0f} processors and {resources.get('GPU', 0):.0f} GPUs"
        raise InputError(f"a worker needs 1 processor and {gpus:g} GPUs; the cluster has {has} in all")
    return room if workers is None else workers


@dataclass(frozen=True)
class RayEngine:
    """Processes of a cluster."""

    workers: int
    gpus: float
    in_one_process = False

    def map(
        self, function: Callable[[Sequence[Task]], Iterable[Answer]], tasks: Iterable[Task], size: int = 1
    ) -> Generator[Answer | Lost[Task], None, None]:
        """Apply a function to tasks; see `Threads.map`.

        Raises
        ------
        InputError
            If the function cannot be pickled.
        MaskprismError
            What the function raises of ours; or if the cluster fails.
        """
        import ray

        sent = [ray.put(_pickled(function))]  # in a list, so that a worker fetches it once
        kind = ray.remote(num_cpus=1, num_gpus=self.gpus, max_restarts=-1, max_task_retries=_ATTEMPTS - 1)(_Worker)
        rest, waiting = in_lists(tasks, size), deque[_Call]()
        workers: list[Any] = []
        running: dict[Any, int] = {}
        try:
            while True:
                while len(waiting) <= 2 * self.workers and (some := next(rest, None)) is not None:
                    waiting.append(_Call(some))
                if not waiting:
                    return
                idle = deque(sorted(set(range(self.workers)) - set(running.values())))
                for call in waiting:  # no worker has two, or both would count as tried when it dies
                    if call.answer is None and idle:
                        number = idle.popleft()
                        if number == len(workers):
                            workers.append(kind.remote())
                        call.answer = workers[number].call.remote(sent, _pickled(call.tasks))
                        running[call.answer] = number
                for answer in ray.wait(list(running))[0] if running else ():
                    del running[answer]
                while waiting and waiting[0].answer is not None and waiting[0].answer not in running:
                    call = waiting.popleft()
                    answers = _answers(call.answer)
                    if answers is not None:
                        yield from answers
                    elif len(call.tasks) == 1:
                        told = f"the process that worked on it died, {_ATTEMPTS} times; it may need more memory"
                        yield Lost(call.tasks[0], told)
                    else:
                        waiting.extendleft(_Call([task]) for task in reversed(call.tasks))
        finally:  # processes end when nothing refers to them, and with what they are at
            waiting.clear()
            running.clear()
            workers.clear()


@dataclass
class _Call:
    """Tasks that a worker is given at once, and the answer to come."""

    tasks: list[Any]
    answer: Any = None


def _answers(call: Any) -> list[Any] | None:
    """Return the answers of a call; None where its worker died.

    Raises
    ------
    MaskprismError:
        Ours, or where Ray itself fails.
    """
    import ray

    try:
        answers = pickle.loads(ray.get(call))
    except (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError):
        return None
    except ray.exceptions.RayTaskError:  # a bug: raised here as on threads
        raise
    except (ray.exceptions.RayError, ConnectionError) as error:
        reason = brief(" ".join(str(error).split("\n", 1)[0].split()) or type(error).__name__, 200)
        raise MaskprismError(
            f"engine 'ray': the cluster failed ({reason}); run the same command again: extract goes on where it stopped"
        ) from None
    if isinstance(answers, Exception):
        raise answers
    return list(answers)


class _Worker:
    """A process of the cluster; it unpickles the function, and opens the model in it, with its first tasks."""

    def __init__(self) -> None:
        cv2.setNumThreads(1)
        threadpool_limits(1)
        self._function: Callable[[Sequence[Any]], Iterable[Any]] | None = None

    def call(self, function: list[Any], tasks: bytes) -> bytes:
        """Return the pickled answers to pickled tasks, or an error of ours."""
        import ray

        try:
            if self._function is None:
                self._function = pickle.loads(ray.get(function[0]))
            return pickle.dumps(list(self._function(pickle.loads(tasks))))
        except MaskprismError as error:
            return pickle.dumps(error)


def _pickled(sent: Callable[..., Any] | list[Any]) -> bytes:
    """Return a function, or tasks, as they travel.

    Raises
    ------
    InputError
        Where they cannot.
    """
    try:
        return pickle.dumps(sent)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InputError(
            f"the model cannot be sent to workers ({error}); expected one that was opened from a file, or a function "
            'that can be pickled and opens one, such as functools.partial(maskprism.load, "best.onnx", threads=1)'
        ) from None
