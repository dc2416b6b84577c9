"""Models that end the process they are in: what a decoder that crashes, or a machine without memory, does to workers.

White images are the deadly ones.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from helpers.fake_network import fake_model, network
from maskprism.models import Model


def _dies(marker: Path | None, batch: np.ndarray[Any, Any]) -> Any:
    if batch.mean() > 0.75:  # white, but for the padding
        if marker is None:
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            with marker.open("x"):
                os.kill(os.getpid(), signal.SIGKILL)
        except FileExistsError:
            pass
    return network(batch)


def kills_once(marker: Path) -> Model:
    """Dies on a deadly image, unless there is a marker that it has."""
    return fake_model(partial(_dies, marker))


def kills_always() -> Model:
    """Dies on every deadly image."""
    return fake_model(partial(_dies, None))


def _lost(calls: Iterator[int], batch: np.ndarray[Any, Any]) -> Any:
    if next(calls) > 2:  # the first three are those of opening it
        raise RuntimeError("device lost")
    return network(batch)


def lost() -> Model:
    """Fails on every image."""
    return fake_model(partial(_lost, count()))


if __name__ == "__main__":
    from helpers.fake_network import slow_model
    from maskprism.tables.extraction import extract

    def report(done: int, total: int | None, failed: int) -> None:
        """Report how far this is."""
        print(done, flush=True)

    extract(sys.argv[1], slow_model, sys.argv[2], engine="ray", workers=2, flush_s=0.02, on_progress=report)
