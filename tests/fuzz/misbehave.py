"""Cases that end badly: what a pool must notice."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def misbehave(what: str, seed: int, folder: Path) -> None:
    """Crash, hang, or do nothing."""
    if what == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "hang":
        time.sleep(600)
