"""Processes that begin as copies of one that has imported the package: importing takes longer than what they do."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing.context import ForkServerContext
from multiprocessing.forkserver import ensure_running

import pytest

from helpers.cluster import with_tests

PRELOADED = ["fuzz.attempt", "helpers.fake_network"]


def copying() -> ForkServerContext:
    """The context that starts them.

    Their server gets neither `sys.path` of this process nor an error where a module is not there; without PYTHONPATH it
    would preload nothing.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "PYTHONPATH", with_tests())
        ensure_running()
    return context
