"""Every recorded epoch goes to the loggers; with the real packages, offline, where they are installed."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from maskprism import load, open_dataset
from maskprism.analysis.truth.error_budget import ErrorBudget, budgets
from maskprism.datasets.scenes import draw_scene, write_dataset
from maskprism.errors import InputError, MissingExtraError
from maskprism.integrations import loggers
from maskprism.integrations.loggers import LoggingCallback

IMAGE = draw_scene(1).image


class Recorder:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.numbers: dict[int, Mapping[str, float]] = {}
        self.pictures: dict[tuple[str, int], np.ndarray[Any, Any]] = {}
        self.closed = 0

    def log_numbers(self, numbers: Mapping[str, float], epoch: int) -> None:
        self.numbers[epoch] = numbers

    def log_picture(self, name: str, picture: np.ndarray[Any, Any], epoch: int) -> None:
        self.pictures[name, epoch] = picture

    def close(self) -> None:
        self.closed += 1


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data"), 5, validation_share=1)


def test_each_epoch_gives_numbers_a_film_strip_and_the_error_budget(data: Path, tmp_path: Path) -> None:
    first, second = Recorder(), Recorder()
    callback = LoggingCallback(IMAGE, [first, second], out=tmp_path / "records", data=data, budget_images=3)
    model = load("sample", conf=0.001)
    for epoch in range(2):
        row = callback.record(epoch, model)
        assert first.numbers[epoch]["maskprism/effective_rank"] == row["effective_rank"]
    callback.finish()
    assert first.numbers == second.numbers
    assert set(first.pictures) == {("maskprism/prototypes", epoch) for epoch in range(2)}
    assert first.pictures["maskprism/prototypes", 1].shape[1] >= first.pictures["maskprism/prototypes", 0].shape[1]
    assert first.pictures["maskprism/prototypes", 1].dtype == np.uint8
    assert first.closed == second.closed == 1
    assert "maskprism/same_as_before" not in first.numbers[0]  # there was none: NaN is not plotted
    assert first.numbers[1]["maskprism/same_as_before"] == pytest.approx(1, abs=1e-6)

    samples = list(open_dataset(data).for_model(model.spec.names))
    rows = []
    for sample in (samples[0], samples[2], samples[4]):
        image, truth = sample.read()
        rows += budgets(load("sample", conf=0.25).predict(image), truth, sample.name)
    expected = ErrorBudget(rows).columns
    for name, key in {"iou": "mask_iou", **{part: f"lost_in/{part}" for part in loggers.BUDGET}}.items():
        assert first.numbers[1][f"maskprism/{key}"] == pytest.approx(expected[name].mean(), abs=1e-6)
    parts = sum(first.numbers[1][f"maskprism/lost_in/{part}"] for part in loggers.BUDGET)
    assert parts + first.numbers[1]["maskprism/mask_iou"] == pytest.approx(1, abs=1e-6)


def test_two_images_have_two_film_strips_and_no_budget_without_data(tmp_path: Path) -> None:
    recorder = Recorder()
    callback = LoggingCallback([IMAGE, cv2.flip(IMAGE, 1)], recorder, out=tmp_path)
    callback.record(0, load("sample", conf=0.001))
    assert set(recorder.pictures) == {("maskprism/prototypes_0", 0), ("maskprism/prototypes_1", 0)}
    assert not any("lost_in" in name for name in recorder.numbers[0])


def test_no_logger_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no loggers were given"):
        LoggingCallback(IMAGE, [], out=tmp_path)


@pytest.mark.parametrize(
    ("kind", "package"),
    [
        ("TensorBoardLogger", "tensorboard"),
        ("WandbLogger", "wandb"),
        ("MlflowLogger", "mlflow"),
        ("ClearmlLogger", "clearml"),
    ],
)
def test_a_missing_package_is_named(kind: str, package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=f"pip install {package}"):
        getattr(loggers, kind)(*([tmp_path] if kind == "TensorBoardLogger" else []))


def recorded(logger: loggers.Logger, out: Path) -> dict[str, Any]:
    """Record two epochs, the row of the last one."""
    callback = LoggingCallback(IMAGE, logger, out=out)
    row = [callback.record(epoch, load("sample", conf=0.001)) for epoch in range(2)][-1]
    callback.finish()
    return row


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    pytest.importorskip("torch")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    row = recorded(loggers.TensorBoardLogger(tmp_path / "events"), tmp_path / "records")
    events = EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    ranks = events.Scalars("maskprism/effective_rank")
    assert [event.step for event in ranks] == [0, 1]
    assert ranks[-1].value == pytest.approx(row["effective_rank"], rel=1e-5)
    assert len(events.Images("maskprism/prototypes")) == 2


def test_mlflow_reads_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/runs.db")
    row = recorded(loggers.MlflowLogger(), tmp_path / "records")
    assert mlflow.active_run() is None  # it was begun by the logger
    client = mlflow.MlflowClient()
    (run,) = client.search_runs(["0"])
    assert run.data.metrics["maskprism/effective_rank"] == pytest.approx(row["effective_rank"])
    assert any("maskprism.prototypes" in file.path for file in client.list_artifacts(run.info.run_id, "images"))


def test_wandb_writes_an_offline_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    recorded(loggers.WandbLogger(), tmp_path / "records")
    (log,) = tmp_path.rglob("run-*.wandb")
    text = log.read_bytes()
    assert b"maskprism/effective_rank" in text
    assert list(tmp_path.rglob("*/media/images/maskprism/prototypes*.png"))


def test_clearml_writes_an_offline_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clearml = pytest.importorskip("clearml")
    monkeypatch.setenv("CLEARML_CACHE_DIR", str(tmp_path))
    clearml.Task.set_offline(True)
    task = clearml.Task.init("maskprism", "test", auto_connect_frameworks=False, auto_resource_monitoring=False)
    folder = Path(task.get_offline_mode_folder())
    recorded(loggers.ClearmlLogger(task), tmp_path / "records")
    task.flush(wait_for_uploads=True)
    task.close()
    assert "effective_rank" in "".join(path.read_text(errors="replace") for path in folder.rglob("*.jsonl"))
