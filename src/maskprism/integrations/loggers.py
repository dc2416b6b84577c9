"""Send what a training does to prototypes and masks to TensorBoard, Weights & Biases, MLflow or ClearML.

Examples
--------
>>> from ultralytics import YOLO                                                        # doctest: +SKIP
>>> from maskprism.integrations.loggers import LoggingCallback, TensorBoardLogger
>>> yolo = YOLO("yolov8n-seg.pt")                                                       # doctest: +SKIP
>>> logger = TensorBoardLogger("runs/maskprism")                                        # doctest: +SKIP
>>> callback = LoggingCallback("photo.jpg", logger, out="p", data="data.yaml")          # doctest: +SKIP
>>> callback.attach(yolo)                                                               # doctest: +SKIP
>>> yolo.train(data="data.yaml", epochs=50)                                             # doctest: +SKIP
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from maskprism._common.extras import require
from maskprism.drawing import raster
from maskprism.drawing.filmstrip import filmstrip_sheet
from maskprism.errors import InputError
from maskprism.integrations.training import PrototypeCallback, read_records

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import UInt8

    from maskprism.datasets import Dataset
    from maskprism.io.images import ImageLike
    from maskprism.models import Model

BUDGET = ("resolution", "box", "prototypes", "coefficients")
BUDGET_CONF = 0.25
"""Instances below this score take no part in the error budget, as in `maskprism diagnose`."""


class Logger(Protocol):
    """Where numbers and pictures of each epoch go; anything with these methods will do."""

    def log_numbers(self, numbers: Mapping[str, float], epoch: int) -> None:
        """Record numbers by name."""

    def log_picture(self, name: str, picture: UInt8[np.ndarray, "H W 3"], epoch: int) -> None:
        """Record an RGB picture."""

    def close(self) -> None:
        """Write what is pending, once the training has ended."""


class TensorBoardLogger:
    """Writes event files; needs PyTorch and `pip install tensorboard`.

    Parameters
    ----------
    folder
        For the event files.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        require("tensorboard", "TensorBoardLogger")
        self._writer = require("torch.utils.tensorboard", "TensorBoardLogger").SummaryWriter(os.fspath(folder))

    def log_numbers(self, numbers: Mapping[str, float], epoch: int) -> None:
        """Record numbers by name."""
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, epoch)

    def log_picture(self, name: str, picture: UInt8[np.ndarray, "H W 3"], epoch: int) -> None:
        """Record an RGB picture."""
        self._writer.add_image(name, picture, epoch, dataformats="HWC")

    def close(self) -> None:
        """Write what is pending."""
        self._writer.close()


class WandbLogger:
    """Adds to a run of Weights & Biases; needs `pip install wandb`. WANDB_MODE=offline sends nothing.

    Parameters
    ----------
    run
        Of `wandb.init`. Default: the run that is active, or a new one.
    """

    def __init__(self, run: Any = None) -> None:
        self._wandb = require("wandb", "WandbLogger")
        self._own = run is None and self._wandb.run is None
        self._run = run or self._wandb.run or self._wandb.init(project="maskprism")
        self._run.define_metric("maskprism/*", step_metric="maskprism/epoch")

    def log_numbers(self, numbers: Mapping[str, float], epoch: int) -> None:
        """Record numbers by name."""
        self._run.log({"maskprism/epoch": epoch, **numbers})

    def log_picture(self, name: str, picture: UInt8[np.ndarray, "H W 3"], epoch: int) -> None:
        """Record an RGB picture."""
        self._run.log({"maskprism/epoch": epoch, name: self._wandb.Image(picture)})

    def close(self) -> None:
        """End the run if it was begun here."""
        if self._own:
            self._run.finish()


class MlflowLogger:
    """Adds to the active run of MLflow, or a new one; needs `pip install mlflow`."""

    def __init__(self) -> None:
        self._mlflow = require("mlflow", "MlflowLogger")
        self._own = self._mlflow.active_run() is None
        self._run_id = (self._mlflow.active_run() or self._mlflow.start_run()).info.run_id

    def log_numbers(self, numbers: Mapping[str, float], epoch: int) -> None:
        """Record numbers by name."""
        self._mlflow.log_metrics(dict(numbers), step=epoch, run_id=self._run_id)

    def log_picture(self, name: str, picture: UInt8[np.ndarray, "H W 3"], epoch: int) -> None:
        """Record an RGB picture."""
        self._mlflow.MlflowClient().log_image(self._run_id, picture, key=name.replace("/", "."), step=epoch)

    def close(self) -> None:
        """End the run if it was begun here."""
        if self._own:
            self._mlflow.end_run()


class ClearmlLogger:
    """Adds to a task of ClearML; needs `pip install clearml`. `Task.set_offline(True)` before sends nothing.

    Parameters
    ----------
    task
        Of `Task.init`. Default: the task that is current, or a new one.
    """

    def __init__(self, task: Any = None) -> None:
        kind = require("clearml", "ClearmlLogger").Task
        self._own = task is None and kind.current_task() is None
        self._task = task or kind.current_task() or kind.init(project_name="maskprism", task_name="training")

    def log_numbers(self, numbers: Mapping[str, float], epoch: int) -> None:
        """Record numbers by name: what stands before the last slash is the title of the plot."""
        for name, value in numbers.items():
            title, _, series = name.rpartition("/")
            self._task.get_logger().report_scalar(title, series, value, epoch)

    def log_picture(self, name: str, picture: UInt8[np.ndarray, "H W 3"], epoch: int) -> None:
        """Record an RGB picture."""
        title, _, series = name.rpartition("/")
        self._task.get_logger().report_image(title, series, epoch, image=picture)

    def close(self) -> None:
        """Close the task if it was begun here."""
        if self._own:
            self._task.close()


class LoggingCallback(PrototypeCallback):
    """Records prototypes as `PrototypeCallback` does, and sends every record on.

    Each recorded epoch gives the numbers `maskprism/effective_rank`, `maskprism/flat_prototypes` (dead ones) and the
    other columns of `statistics.csv`, a film strip of the prototypes for each image, and, with `data`, the budget:
    `maskprism/lost_in/resolution`, `box`, `prototypes` and `coefficients`, and `maskprism/mask_iou`, means over the
    instances found.

    Parameters
    ----------
    images
        One image, or several, to record prototypes on.
    loggers
        One, or several.
    out, every, conf
        See `PrototypeCallback`.
    data
        A data set for the error budget: `data.yaml`, a COCO json, or an opened one.
    budget_images
        At most this number of its images are looked at, evenly spread.

    Raises
    ------
    InputError
        For no logger.
    """

    def __init__(
        self,
        images: ImageLike | list[ImageLike] | tuple[ImageLike, ...],
        loggers: Logger | Sequence[Logger],
        *,
        out: str | os.PathLike[str],
        every: int = 1,
        conf: float = 0.001,
        data: str | os.PathLike[str] | Dataset | None = None,
        budget_images: int = 32,
    ) -> None:
        super().__init__(images, out, every=every, conf=conf)
        self.loggers = _listed(loggers)
        if not self.loggers:
            raise InputError("no loggers were given; expected at least one, such as TensorBoardLogger(folder)")
        self._data = _opened(data) if data is not None else None
        self._budget_images = budget_images

    def record(self, epoch: int, model: Model) -> dict[str, Any]:
        """Record an epoch, and send it to every logger."""
        row = super().record(epoch, model)
        if self._data is not None:
            row |= budget_numbers(self._data, model, self._budget_images)
        numbers = {
            f"maskprism/{name}": float(value)
            for name, value in row.items()
            if name != "epoch" and math.isfinite(float(value))
        }
        for logger in self.loggers:
            logger.log_numbers(numbers, epoch)
            for index, picture in enumerate(self._strips()):
                suffix = f"_{index}" if len(self.names) > 1 else ""
                logger.log_picture(f"maskprism/prototypes{suffix}", picture, epoch)
        return row

    def finish(self) -> list[Path]:
        """Write the film strips, and close the loggers."""
        strips = super().finish()
        for logger in self.loggers:
            logger.close()
        return strips

    def _strips(self) -> list[UInt8[np.ndarray, "H W 3"]]:
        return [
            raster.draw(filmstrip_sheet({f"epoch {n}": one for n, one in read_records(self.out, index).items()}))
            for index in range(len(self.names))
        ]


def budget_numbers(dataset: Dataset, model: Model, limit: int) -> dict[str, float]:
    """Measure the error budget of a model on some images of a data set.

    Parameters
    ----------
    dataset, limit
        The data set, and the largest number of its images to look at, evenly spread; unreadable ones are left out.
    model
        Its instances with a score above 0.25 count.

    Returns
    -------
    dict
        The mean mask IoU, and what each part costs of it; empty where no instance is found.
    """
    from maskprism.analysis.truth.error_budget import ErrorBudget, InstanceBudget, budgets
    from maskprism.errors import MaskprismError

    samples = list(dataset.for_model(model.spec.names))
    rows: list[InstanceBudget] = []
    for index in np.unique(np.linspace(0, len(samples) - 1, min(limit, len(samples))).astype(int)).tolist():
        try:
            image, truth = samples[index].read()
        except MaskprismError:
            continue
        prediction = model.predict(image)
        rows += budgets(prediction[prediction.scores > BUDGET_CONF], truth, samples[index].name)
    if not rows:
        return {}
    budget = ErrorBudget(rows)
    means = {name: float(np.mean(budget.columns[name])) for name in ("iou", *BUDGET)}
    return {"mask_iou": means["iou"], **{f"lost_in/{name}": means[name] for name in BUDGET}}


def _listed(loggers: Logger | Sequence[Logger]) -> list[Logger]:
    return [*loggers] if isinstance(loggers, Sequence) else [loggers]


def _opened(data: str | os.PathLike[str] | Dataset) -> Dataset:
    from maskprism.datasets import open_dataset

    return open_dataset(data) if isinstance(data, str | os.PathLike) else data
