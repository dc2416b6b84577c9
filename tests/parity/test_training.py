"""A real training, seconds long, with the callback: it is recorded, and it is the same training as without."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from maskprism.datasets.scenes import draw_scene, write_dataset
from maskprism.integrations.training import PrototypeCallback, read_records

EPOCHS = 2


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("scenes"), 10, validation_share=0.2)


def trained(data, folder, callback=None):
    from ultralytics import YOLO

    yolo = YOLO("yolov8n-seg.yaml", verbose=False)
    if callback is not None:
        assert callback.attach(yolo) is callback
    settings = {"imgsz": 64, "batch": 4, "workers": 0, "device": "cpu", "seed": 1, "plots": False, "verbose": False}
    yolo.train(data=str(data), epochs=EPOCHS, project=str(folder), name="run", amp=False, **settings)
    return yolo


def test_a_training_is_recorded_and_not_changed(data, tmp_path):
    import torch
    from ultralytics import YOLO

    images = [draw_scene(1).image, draw_scene(2, (320, 480)).image]
    seen = []

    class Watch(PrototypeCallback):
        def on_train_epoch_end(self, trainer):
            network = trainer.ema.ema
            before = (
                network.training,
                next(network.parameters()).dtype,
                {k: v.clone() for k, v in network.state_dict().items()},
            )
            super().on_train_epoch_end(trainer)
            assert (network.training, next(network.parameters()).dtype) == before[:2]
            assert all(torch.equal(v, before[2][k]) for k, v in network.state_dict().items())
            assert trainer.model.training
            seen.append(trainer.epoch)

    watch = Watch(images, tmp_path / "records")
    trained(
        data, tmp_path / "first"
    )  # the first training of a process differs from later ones, with Ultralytics alone too
    with_callback = trained(data, tmp_path / "with", watch)
    without = trained(data, tmp_path / "without")
    assert seen == list(range(EPOCHS))
    last = [
        torch.load(folder / "run/weights/last.pt", weights_only=False)["model"].state_dict()
        for folder in (tmp_path / "with", tmp_path / "without")
    ]
    assert all(torch.equal(last[0][name], last[1][name]) for name in last[0])
    assert with_callback.task == without.task == "segment"

    for number, size in enumerate([(320, 320), (320, 480)]):
        records = read_records(tmp_path / "records", number)
        assert list(records) == list(range(EPOCHS))
        for prediction in records.values():
            assert prediction.image_size == size
            assert prediction.prototypes.shape[0] == 32
            assert prediction.names[2] == "star"
            assert np.isfinite(prediction.prototypes).all()
        assert (tmp_path / "records" / f"filmstrip_{number}.png").stat().st_size > 1000
    with (tmp_path / "records" / "statistics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == list(range(EPOCHS))
    assert rows[0]["same_as_before"] == ""
    assert -1 <= float(rows[1]["same_as_before"]) <= 1
    assert all(1 <= float(row["effective_rank"]) <= 32 for row in rows)

    # What was recorded is what the saved checkpoint says.
    import maskprism

    saved = maskprism.load(YOLO(tmp_path / "with/run/weights/last.pt"), imgsz=64, conf=0.001)
    final, recorded = saved.predict(images[0]), read_records(tmp_path / "records")[EPOCHS - 1]
    np.testing.assert_allclose(recorded.prototypes, final.prototypes, atol=5e-3)


def test_an_error_does_not_end_the_training(data, tmp_path):
    (tmp_path / "file").write_text("in the way")
    callback = PrototypeCallback(draw_scene(1).image, tmp_path / "file" / "records")
    with pytest.warns(RuntimeWarning, match="the training goes on") as caught:
        trained(data, tmp_path / "runs", callback)
    assert len([w for w in caught if "maskprism cannot record" in str(w.message)]) == 1
    assert (tmp_path / "runs/run/weights/last.pt").exists()
