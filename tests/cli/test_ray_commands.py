"""Commands on a Ray cluster of this machine give what they give on threads; skipped without Ray."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest

from helpers import in_process
from helpers.tiny_models import Tiny
from maskprism import load
from maskprism.analysis.dataset.diagnosis import diagnose
from maskprism.datasets import open_dataset
from maskprism.datasets.scenes import write_dataset
from maskprism.datasets.visit import Failure, visit
from maskprism.io.sources import open_source
from maskprism.models import SAMPLE_MODEL

pytest.importorskip("ray", reason="Ray is not installed")
pytestmark = [
    pytest.mark.usefixtures("cluster"),
    pytest.mark.timeout(600),  # two runs of a command, and the processes of a cluster start slowly
]
IMAGES = 8


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes that are drawn, one of them not an image."""
    described = write_dataset(tmp_path_factory.mktemp("scenes"), IMAGES, seed=40, validation_share=1.0)
    sorted((described.parent / "images").rglob("*.png"))[3].write_bytes(b"no image")
    return described


def content(path: Path) -> Any:
    """What a file of results holds."""
    if path.suffix == ".parquet":
        return repr(pq.read_table(path).to_pylist())  # NaN is not equal to NaN
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return {name: arrays[name].tobytes() for name in arrays.files}
    if path.suffix == ".png":
        return cv2.imread(str(path)).tobytes()
    return path.read_bytes()


@pytest.mark.parametrize(
    ("name", "arguments", "compared"),
    [
        ("diagnose", ["{data}", "--model", "sample", "--worst", 2], {".json", ".parquet"}),
        ("labels", ["{data}", "--model", "sample"], {".parquet"}),
        ("compare", ["{sample}", "{other}", "--images", "{images}"], {".json", ".parquet", ".csv"}),
        ("prototypes", ["{images}", "--model", "sample", "--moved", 2, "--cards", 0], {".csv", ".png"}),
        ("basis", ["{images}", "--model", "sample", "--pictures", 1], {".json", ".csv", ".npz", ".png"}),
        ("tune", ["--model", "sample", "--data", "{data}", "--folds", 3, "--force"], {".correction.json", ".json"}),
        ("extract", ["{images}", "--model", "sample", "--prototypes", "fp16"], {".parquet"}),
    ],
)
def test_a_command_gives_what_it_gives_on_threads(
    name: str, arguments: list[Any], compared: set[str], data: Path, tmp_path: Path
) -> None:
    places = {
        "data": data,
        "images": data.parent / "images",
        "sample": SAMPLE_MODEL,
        "other": Tiny(prototypes=8, canvas_hw=(128, 128)).save(tmp_path / "other.onnx"),
    }
    given = [str(one).format(**places) for one in arguments]
    results = {}
    for engine in ("threads", "ray"):
        folder = tmp_path / engine
        folder.mkdir()
        out = {"tune": folder / "tuned.json", "extract": folder / "table.parquet"}.get(name, folder / "out")
        done = in_process.command(name, *given, "--out", out, "--engine", engine, "--workers", 2)
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode in (0, 3), done.stderr
        files = sorted(path for path in folder.rglob("*") if path.suffix in compared and path.is_file())
        results[engine] = {path.relative_to(folder): content(path) for path in files}
    threads, others = results.values()
    assert threads.keys() == others.keys()
    assert threads
    if name == "tune":  # says how long it took
        threads, others = (
            {path: read for path, read in one.items() if "tune.json" not in path.name} for one in (threads, others)
        )
    for path, expected in threads.items():
        assert others[path] == expected, path


def kill_a_worker(killed: list[int]) -> Callable[[int, int | None, Failure | None], None]:
    """Once the first image is done."""

    def kill(done: int, total: int | None, failure: Failure | None) -> None:
        for process in psutil.Process().children(recursive=True) if not killed else ():
            with suppress(psutil.Error):  # it has ended since
                if "ray::_Worker" in " ".join(process.cmdline()):
                    process.kill()
                    killed.append(process.pid)
                    break

    return kill


def test_a_worker_that_is_killed_changes_nothing(data: Path) -> None:
    killed: list[int] = []
    model = load("sample", conf=0.001, multi_label=True, threads=1)
    found = diagnose(open_dataset(data), model, engine="ray", workers=2, on_progress=kill_a_worker(killed))
    expected = diagnose(open_dataset(data), model)
    assert killed
    assert (found.images, found.failures) == (IMAGES - 1, expected.failures)
    for name in ("precision", "perfect", "alone", "intervals", "objects", "detections"):
        assert repr(getattr(found, name)) == repr(getattr(expected, name)), name  # NaN is not equal to NaN
    assert repr(found.budget.rows) == repr(expected.budget.rows)


def test_visited_images_travel(data: Path) -> None:
    model = load("sample", threads=1).with_names({0: "a", 1: "b", 2: "c", 3: "d"})
    source = open_source(data.parent / "images")
    for here, there in zip(visit(source, model), visit(source, model, engine="ray", workers=2), strict=True):
        if isinstance(here, Failure) or isinstance(there, Failure):
            assert here == there
        else:
            assert (here.number, here.name, there.prediction.names) == (there.number, there.name, model.spec.names)
            np.testing.assert_array_equal(here.image, there.image)
            np.testing.assert_array_equal(here.prediction.prototypes, there.prediction.prototypes)
            np.testing.assert_array_equal(here.prediction.coefficients, there.prediction.coefficients)
            there.prediction.prototypes[:] = 0  # which is not read-only
