"""Fixtures and settings that all tests share."""

from __future__ import annotations

import gc
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

settings.register_profile(
    "maskprism",
    derandomize=True,  # the same examples on every run
    deadline=None,  # shared machines stall now and then
    database=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(  # for make mutants: that an example fails is enough, it need not be small
    "mutants", settings.get_profile("maskprism"), phases=(Phase.explicit, Phase.generate)
)
settings.register_profile("few", settings.get_profile("maskprism"), max_examples=5)  # for make test-python
settings.load_profile("maskprism")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a shell: commands would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parents[1]
REAL_DATA = ROOT / (os.environ.get("MASKPRISM_REAL_DATA") or "../shared")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "real_data" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.real)


def pytest_collection_finish() -> None:
    """Leave modules and tests out of garbage collection: they stay to the end."""
    gc.freeze()


def pytest_configure() -> None:
    """Draw scenes once, before test modules import the function."""
    from helpers.drawn_once import draw_once

    draw_once()


@pytest.fixture(scope="session", autouse=True)
def _nothing_twice() -> Iterator[None]:
    """Open models once, and wait for no disk: a test may crash, but the machine stays on."""
    from helpers.opened_once import open_once

    with pytest.MonkeyPatch.context() as patch:
        open_once(patch, REAL_DATA / "models")
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of what stands around figures."""
    from helpers.undrawn import without_drawing

    without_drawing(monkeypatch)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with real models and images; skips the test where there is none."""
    if not (REAL_DATA / "models").is_dir() or not (REAL_DATA / "images").is_dir():
        pytest.skip(f"no real models and images in {REAL_DATA}; name their folder in MASKPRISM_REAL_DATA")
    return REAL_DATA


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """A Ray cluster of two processors, which all modules share: its processes take long to start."""
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    from helpers.cluster import with_tests

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", with_tests())  # for the processes that wait for work, unlike a runtime_env
        patch.setenv("RAY_worker_niceness", "0")  # beside other work they would hardly run
        ray.init("local", num_cpus=2, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
        yield
        ray.shutdown()
