"""Cases in processes of their own: one that crashes, hangs or takes all memory is a failure like any other."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path

from fuzz.attempt import Failure, attempt
from helpers.copied_process import copying

Attempt = Callable[[str, int, Path], "Failure | None"]

MEMORY_BYTES = 4 << 30

Case = tuple[str, int]


def run(
    cases: Iterable[Case], *, workers: int = 2, limit_s: float = 10, attempt: Attempt = attempt
) -> Iterator[tuple[Case, Failure | None]]:
    """Every case with what went wrong, in the order of finishing. A case may take `limit_s`."""
    todo = iter(cases)
    with tempfile.TemporaryDirectory(prefix="maskprism-fuzz-") as made:
        everyone = [_Worker(Path(made) / str(number), attempt) for number in range(workers)]
        try:
            working = [worker for worker in everyone if worker.give(next(todo, None), limit_s)]
            while working:
                wait([worker.pipe for worker in working], timeout=0.2)
                for answer, worker in [(worker.answer(), worker) for worker in working]:
                    if answer is not None:
                        yield answer
                        if not worker.give(next(todo, None), limit_s):
                            working.remove(worker)
        finally:
            for worker in everyone:
                worker.stop()


class _Worker:
    """One process, started again when it dies."""

    def __init__(self, folder: Path, attempt: Attempt) -> None:
        self.folder, self.attempt = folder, attempt
        self.start()

    def start(self) -> None:
        context = copying()
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, self.folder, self.attempt), daemon=True)
        self.process.start()
        theirs.close()
        self.ready = False

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()

    def give(self, case: Case | None, limit_s: float) -> bool:
        """Hand over a case; False where there is none."""
        if case is None:
            return False
        self.ready = self.ready or self.pipe.recv()
        self.pipe.send(case)
        self.case, self.limit_s, self.until = case, limit_s, time.monotonic() + limit_s
        return True

    def answer(self) -> tuple[Case, Failure | None] | None:
        """What came of the case; None while it runs."""
        try:
            if self.pipe.poll():
                return self.case, self.pipe.recv()
            if time.monotonic() < self.until:
                return None
            error, message = "Hang", f"it took longer than {self.limit_s:g} s"
        except (EOFError, ConnectionResetError):
            self.process.join()
            code = self.process.exitcode or 0
            error, message = "Crash", signal.Signals(-code).name if code < 0 else f"exit code {code}"
        self.stop()
        self.start()
        return self.case, Failure(*self.case, error, "the process", message, "")


def _work(pipe: Connection, folder: Path, attempt: Attempt) -> None:
    """Attempt what comes through the pipe until it closes."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    pipe.send(True)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # libraries in C complain there
        os.dup2(nowhere, stream)
    with suppress(EOFError):
        while case := pipe.recv():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            os.chdir(folder)
            pipe.send(attempt(*case, folder))
