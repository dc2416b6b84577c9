"""Watch prototypes while a model learns: records of every epoch, and a film strip of them.

Examples
--------
>>> from ultralytics import YOLO                                           # doctest: +SKIP
>>> from maskprism.integrations.training import PrototypeCallback
>>> yolo = YOLO("yolov8n-seg.yaml")                                        # doctest: +SKIP
>>> PrototypeCallback("photo.jpg", out="prototypes").attach(yolo)          # doctest: +SKIP
>>> yolo.train(data="data.yaml", epochs=50)                                # doctest: +SKIP
"""

from __future__ import annotations

import csv
import io
import math
import os
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from maskprism._common.files import make_folder, reporting_write_errors, write_atomically
from maskprism._common.text import one_line
from maskprism.analysis.prototypes.covariance import RunningCovariance
from maskprism.core import archive
from maskprism.core.decomposition import Decomposition
from maskprism.core.prediction import Prediction
from maskprism.drawing import raster
from maskprism.drawing.filmstrip import filmstrip_sheet
from maskprism.errors import InputError
from maskprism.io.images import read_image, source_name
from maskprism.models import Model, load

if TYPE_CHECKING:
    from maskprism.io.images import ImageLike

FLAT = 0.01
"""A prototype is flat if its spread over an image is below this share of the largest one's."""
STATISTICS = (
    "epoch",
    "instances",
    "score",
    "effective_rank",
    "flat_prototypes",
    "prototype_spread",
    "same_as_before",
    "mean_contribution",
    "coefficient_size",
)
_RECORD = re.compile(r"epoch_(\d+)\.npz")


class PrototypeCallback:
    """Writes what prototypes and coefficients look like on chosen images, epoch by epoch.

    The model itself is not touched: a copy of the weights that would be saved (the moving average)
    is run. An error in here gives one warning, and the training goes on.

    statistics.csv has one row per epoch, means over the images: instances found; score of the
    best one; effective rank of the prototypes (see `analysis.prototypes.Usage`); flat prototypes;
    prototype_spread, their mean standard deviation; same_as_before, the mean correlation of every
    prototype with itself at the epoch recorded before; mean_contribution, the mean over prototypes of |weight x
    prototype| in the box of the best instance; coefficient_size, the root mean square of its
    coefficients. Fields without a value are empty.

    Parameters
    ----------
    images
        One image, or several.
    out
        Folder for `epoch_0000.npz`, ..., `statistics.csv`, and a film strip for each image at the end of the training.
    every
        Record every n-th epoch (and the first one).
    conf
        The lowest score of an instance.

    Raises
    ------
    ImageError
        For an image that cannot be read.
    InputError
        For none or an `every` below 1.
    """

    def __init__(
        self,
        images: ImageLike | list[ImageLike] | tuple[ImageLike, ...],
        out: str | os.PathLike[str],
        *,
        every: int = 1,
        conf: float = 0.001,
    ) -> None:
        listed: list[ImageLike] = list(images) if isinstance(images, list | tuple) else [images]
        if not listed:
            raise InputError("no images were given; expected at least one")
        if every < 1:
            raise InputError(f"every is {every}; expected at least 1")
        self.images = [read_image(image) for image in listed]
        self.names = [source_name(image) or f"image {number}" for number, image in enumerate(listed)]
        self.out = Path(out)
        self.every = every
        self.conf = conf
        self._before: list[Prediction] | None = None
        self._rows: list[dict[str, Any]] | None = None
        self._warned = False

    def attach(self, yolo: Any) -> PrototypeCallback:
        """Register with an `ultralytics.YOLO`; gives the callback back.

        Ultralytics trains on several GPUs in other processes, which do not see callbacks: there,
        look at saved checkpoints with `maskprism filmstrip` instead.
        """
        if not callable(getattr(yolo, "add_callback", None)):
            raise InputError(f"cannot attach to {type(yolo).__name__}; expected an ultralytics.YOLO")
        yolo.add_callback("on_train_epoch_end", self.on_train_epoch_end)
        yolo.add_callback("on_train_end", self.on_train_end)
        return self

    def on_train_epoch_end(self, trainer: Any) -> None:
        """Record the trainer's model; called by Ultralytics."""
        if trainer.epoch % self.every == 0:
            self._without_breaking(lambda: self.record(trainer.epoch, model_in_training(trainer, self.conf)))

    def on_train_end(self, trainer: Any) -> None:
        """Write the film strips; called by Ultralytics."""
        self._without_breaking(self.finish)

    def record(self, epoch: int, model: Model) -> dict[str, Any]:
        """Write the record of one epoch, for training loops of any kind; gives its row of statistics.

        What an earlier training left in the folder for this epoch and later ones is removed.

        Raises
        ------
        MaskprismError
            If the folder cannot be written.
        """
        found = [_best_alone(prediction) for prediction in model.predict(list(self.images))]
        counts = [count for _, count in found]
        predictions = [
            replace(prediction, source=name) for (prediction, _), name in zip(found, self.names, strict=True)
        ]
        row = {"epoch": epoch, "instances": float(np.mean(counts)), **_statistics(predictions, self._before)}
        make_folder(self.out)
        if self._rows is None:
            with reporting_write_errors(self.out):
                self._rows = _rows_before(self.out, epoch)
        self._rows = [one for one in self._rows if int(one["epoch"]) < epoch] + [row]
        archive.write(self.out / f"epoch_{epoch:04d}.npz", predictions, half=True)
        _write_rows(self.out / "statistics.csv", self._rows)
        self._before = predictions
        return row

    def finish(self) -> list[Path]:
        """Write the film strip of every image; gives their paths."""
        if len(self.names) == 1:
            return [filmstrip(self.out)]
        return [
            filmstrip(self.out, image_index=number, path=self.out / f"filmstrip_{number}.png")
            for number in range(len(self.names))
        ]

    def _without_breaking(self, work: Callable[[], Any]) -> None:
        try:
            work()
        except Exception as error:  # whatever it is, hours of training are worth more
            if not self._warned:
                self._warned = True
                reason = one_line(error)
                warnings.warn(
                    f"maskprism cannot record prototypes, and the training goes on: {reason}",
                    RuntimeWarning,
                    stacklevel=2,
                )


def model_in_training(trainer: Any, conf: float = 0.001) -> Model:
    """Return the model that an Ultralytics trainer would save, as a `Model` of its own.

    The trainer's is left unchanged.
    """
    from maskprism.models.runtimes.pytorch import unwrapped
    from maskprism.models.runtimes.ultralytics import UltralyticsRuntime

    average = getattr(trainer, "ema", None)
    network = unwrapped(average.ema if average is not None else trainer.model)
    device = str(next(network.parameters()).device)
    yolo = SimpleNamespace(model=network, task=getattr(trainer.args, "task", "segment"))
    runtime = UltralyticsRuntime(yolo, "0" * 64, device=device, label="model in training")
    return load(runtime, name="model in training", imgsz=trainer.args.imgsz, conf=conf)


def read_records(folder: str | os.PathLike[str], image_index: int = 0) -> dict[int, Prediction]:
    """Return what every recorded epoch said about an image: its prototypes and its best instance, if it had one.

    Raises
    ------
    InputError
        For a folder without records, a record that is damaged, or an image that is not in them.
    """
    paths = {
        int(match[1]): path for path in Path(folder).glob("epoch_*.npz") if (match := _RECORD.fullmatch(path.name))
    }
    if not paths:
        raise InputError(f"{folder}: holds no epoch_0000.npz or later; expected a folder that PrototypeCallback wrote")
    return {epoch: archive.read(paths[epoch], image_index) for epoch in sorted(paths)}


def filmstrip(
    folder: str | os.PathLike[str],
    *,
    image_index: int = 0,
    prototypes: Sequence[int] | None = None,
    path: str | os.PathLike[str] | None = None,
) -> Path:
    """Draw the film strip of a folder of records; `filmstrip.png` in it unless `path` is given.

    See `views.filmstrip.filmstrip_sheet`.

    Raises
    ------
    InputError
        For a folder without records.
    """
    records = read_records(folder, image_index)
    source = next(iter(records.values())).source or "image"
    sheet = filmstrip_sheet(
        {f"epoch {epoch}": prediction for epoch, prediction in records.items()},
        prototypes=prototypes,
        title=f"Prototypes from epoch to epoch: {source.replace(chr(92), '/').rsplit('/', 1)[-1]}",
    )
    return raster.save(sheet, Path(folder) / "filmstrip.png" if path is None else path)


def _best_alone(prediction: Prediction) -> tuple[Prediction, int]:
    """Return the prediction with its most confident instance alone, and how many there were."""
    return (prediction[[int(prediction.scores.argmax())]] if len(prediction) else prediction), len(prediction)


def _statistics(predictions: list[Prediction], before: list[Prediction] | None) -> dict[str, float]:
    """One row of numbers, each the mean over images of the known values; nan without any."""
    found: dict[str, list[float]] = {name: [] for name in STATISTICS[2:]}
    for index, prediction in enumerate(predictions):
        flat = prediction.prototypes[:, *prediction.letterbox.content_cells].reshape(len(prediction.prototypes), -1)
        moments = RunningCovariance.of(flat.T)
        spread = np.sqrt(np.diag(moments.covariance))
        found["effective_rank"].append(moments.effective_rank())
        found["flat_prototypes"].append(float(np.count_nonzero(spread <= FLAT * spread.max())))
        found["prototype_spread"].append(float(spread.mean()))
        if before is not None and before[index].prototypes.shape == prediction.prototypes.shape:
            earlier = before[index].prototypes[:, *prediction.letterbox.content_cells].reshape(flat.shape)
            found["same_as_before"].append(_mean_correlation(earlier, flat))
        if len(prediction):
            found["score"].append(float(prediction.scores[0]))
            found["mean_contribution"].append(float(Decomposition(prediction[0]).effects.mean()))
            found["coefficient_size"].append(float(np.sqrt(np.mean(prediction.coefficients[0] ** 2))))
    return {name: _known_mean(values) for name, values in found.items()}


def _mean_correlation(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    """Mean over rows of the correlation of a row of `a` with that of `b`; constant rows do not count."""
    a, b = (x.astype(np.float64) - x.mean(axis=1, keepdims=True, dtype=np.float64) for x in (a, b))
    sizes = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    told = sizes > 1e-12
    return _known_mean(((a * b).sum(axis=1)[told] / sizes[told]).tolist())


def _known_mean(values: list[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return float(np.mean(known)) if known else math.nan


def _rows_before(folder: Path, epoch: int) -> list[dict[str, Any]]:
    """Return the statistics of earlier epochs, when a training goes on; records of later ones are removed."""
    for path in folder.glob("epoch_*.npz"):
        if (match := _RECORD.fullmatch(path.name)) and int(match[1]) >= epoch:
            path.unlink()
    table = folder / "statistics.csv"
    if not table.is_file():
        return []
    with table.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if (row.get("epoch") or "").isdigit()]


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, STATISTICS, extrasaction="ignore")
    writer.writeheader()
    for row in rows:
        values = {name: row.get(name, "") for name in STATISTICS}
        writer.writerow(
            {
                k: "" if isinstance(v, float) and math.isnan(v) else f"{v:.6g}" if isinstance(v, float) else v
                for k, v in values.items()
            }
        )
    write_atomically(path, text.getvalue())
