"""Recording a training epoch by epoch, and the film strip; with a pretended trainer, without PyTorch."""

from __future__ import annotations

import csv
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from helpers.in_process import command as run
from helpers.tiny_models import Tiny
from maskprism import Decomposition, MaskprismError, Prediction, load
from maskprism.cli.filmstrip import _labels
from maskprism.cli.filmstrip import filmstrip as filmstrip_command
from maskprism.datasets.scenes import draw_scene
from maskprism.drawing import raster
from maskprism.drawing.filmstrip import MOST_COLUMNS, filmstrip_sheet
from maskprism.errors import InputError
from maskprism.integrations import training
from maskprism.integrations.training import STATISTICS, PrototypeCallback, filmstrip, read_records


class Growing:
    """A model whose prototypes change with the epoch, as `training.model_in_training` would give it."""

    def __init__(self, folder: Path) -> None:
        self.model = load(Tiny().save(folder / "tiny.onnx"), conf=0.1)
        self.epoch = 0

    def predict(self, images: list[np.ndarray]) -> list[Prediction]:
        rng = np.random.default_rng(self.epoch)
        return [
            replace(one, prototypes=one.prototypes + rng.normal(0, 0.3, one.prototypes.shape).astype(np.float32))
            for one in self.model.predict(images)
        ]


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Growing:
    found = Growing(tmp_path)

    def of(trainer: SimpleNamespace, conf: float) -> Growing:
        found.epoch = trainer.epoch
        return found

    monkeypatch.setattr(training, "model_in_training", of)
    return found


IMAGES = [cv2.resize(draw_scene(seed).image, size) for seed, size in ((1, (96, 64)), (2, (64, 64)))]


def train(callback: PrototypeCallback, epochs: range, *, end: bool = True) -> None:
    """What Ultralytics does with callbacks."""
    callbacks: dict[str, list] = {}
    callback.attach(SimpleNamespace(add_callback=lambda name, do: callbacks.setdefault(name, []).append(do)))
    for epoch in epochs:
        for do in callbacks["on_train_epoch_end"]:
            do(SimpleNamespace(epoch=epoch))
    if end:
        for do in callbacks["on_train_end"]:
            do(SimpleNamespace(epoch=epochs[-1]))


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "statistics.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_epoch_is_recorded_and_read_again(network: Growing, tmp_path: Path) -> None:
    out = tmp_path / "records ü"
    train(PrototypeCallback(list(IMAGES), out), range(4))
    assert sorted(p.name for p in out.iterdir()) == [
        *[f"epoch_{epoch:04d}.npz" for epoch in range(4)],
        "filmstrip_0.png",
        "filmstrip_1.png",
        "statistics.csv",
    ]
    for number in range(2):
        for epoch, recorded in read_records(out, number).items():
            network.epoch = epoch
            expected = network.predict(list(IMAGES))[number]
            best = expected[[int(expected.scores.argmax())]]
            assert len(recorded) == 1
            np.testing.assert_allclose(recorded.prototypes, best.prototypes, atol=5e-3)
            np.testing.assert_array_equal(recorded.coefficients, best.coefficients)
            np.testing.assert_array_equal(recorded.canvas_boxes, best.canvas_boxes)
            assert recorded.letterbox == best.letterbox
            assert recorded.rule == best.rule
            assert recorded.names == best.names
            assert recorded.source == f"image {number}"


def test_statistics_are_what_they_say(network: Growing, tmp_path: Path) -> None:
    train(PrototypeCallback(IMAGES[0], tmp_path / "r"), range(3))
    rows = rows_of(tmp_path / "r")
    assert list(rows[0]) == list(STATISTICS)
    before = None
    for epoch, row in enumerate(rows):
        network.epoch = epoch
        prediction = network.predict([IMAGES[0]])[0]
        best = prediction[int(prediction.scores.argmax())]
        inside = [p[prediction.letterbox.content_cells].reshape(-1).astype(float) for p in prediction.prototypes]
        assert int(row["epoch"]) == epoch
        assert float(row["instances"]) == len(prediction)
        assert float(row["score"]) == pytest.approx(best.score, rel=1e-4)
        assert float(row["prototype_spread"]) == pytest.approx(np.mean([p.std() for p in inside]), rel=1e-4)
        values = np.linalg.svd(np.array(inside) - np.mean(inside, axis=1, keepdims=True), compute_uv=False)
        shares = values / values.sum()
        assert float(row["effective_rank"]) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-3)
        assert float(row["mean_contribution"]) == pytest.approx(Decomposition(best).effects.mean(), rel=1e-4)
        size = np.sqrt(np.mean(best.coefficients**2))
        assert float(row["coefficient_size"]) == pytest.approx(size, rel=1e-4)
        assert float(row["flat_prototypes"]) == 0
        if before is None:
            assert row["same_as_before"] == ""
        else:
            same = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(before, inside, strict=True)])
            assert float(row["same_as_before"]) == pytest.approx(same, rel=1e-3)
        before = inside


def test_flat_prototypes_are_counted_and_do_no_harm(network: Growing, tmp_path: Path) -> None:
    callback = PrototypeCallback(IMAGES[0], tmp_path / "r")
    whole = network.predict

    def flattened(images: list[np.ndarray]) -> list[Prediction]:
        found = []
        for prediction in whole(images):
            prototypes = prediction.prototypes.copy()
            prototypes[[1, 4]] = 0.5
            found.append(replace(prediction, prototypes=prototypes))
        return found

    network.predict = flattened  # type: ignore[method-assign]
    train(callback, range(2))
    assert [row["flat_prototypes"] for row in rows_of(tmp_path / "r")] == ["2", "2"]


def test_every_so_many_epochs(network: Growing, tmp_path: Path) -> None:
    train(PrototypeCallback(IMAGES[0], tmp_path / "r", every=3), range(8))
    assert list(read_records(tmp_path / "r")) == [0, 3, 6]


def test_a_training_that_goes_on_keeps_earlier_records_and_drops_later_ones(network: Growing, tmp_path: Path) -> None:
    train(PrototypeCallback(IMAGES[0], tmp_path / "r"), range(6))
    train(PrototypeCallback(IMAGES[0], tmp_path / "r"), range(2, 4))
    assert list(read_records(tmp_path / "r")) == [0, 1, 2, 3]
    assert [row["epoch"] for row in rows_of(tmp_path / "r")] == ["0", "1", "2", "3"]


def test_nothing_found_is_no_problem(network: Growing, tmp_path: Path) -> None:
    network.model = network.model.with_thresholds(replace(network.model.keep, conf=0.99))
    train(PrototypeCallback(IMAGES[0], tmp_path / "r"), range(2))
    assert [row["score"] for row in rows_of(tmp_path / "r")] == ["", ""]
    assert [len(prediction) for prediction in read_records(tmp_path / "r").values()] == [0, 0]
    assert (tmp_path / "r" / "filmstrip.png").exists()


def test_errors_are_told_once_and_break_nothing(network: Growing, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    callback = PrototypeCallback(IMAGES[0], tmp_path / "file" / "r")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(callback, range(3))
    (warning,) = [w for w in caught if issubclass(w.category, RuntimeWarning)]
    assert "maskprism cannot record prototypes, and the training goes on" in str(warning.message)
    assert "cannot be written" in str(warning.message)
    with pytest.raises(MaskprismError, match="cannot be written"):
        callback.record(0, network)  # type: ignore[arg-type]


def test_mistakes_are_told(tmp_path: Path) -> None:
    with pytest.raises(MaskprismError, match="there is no such file"):
        PrototypeCallback(tmp_path / "none.jpg", tmp_path)
    with pytest.raises(InputError, match="no images"):
        PrototypeCallback([], tmp_path)
    with pytest.raises(InputError, match="every is 0"):
        PrototypeCallback(IMAGES[0], tmp_path, every=0)
    with pytest.raises(InputError, match=r"expected an ultralytics.YOLO"):
        PrototypeCallback(IMAGES[0], tmp_path).attach(object())
    with pytest.raises(InputError, match="holds no epoch_0000"):
        filmstrip(tmp_path)
    (tmp_path / "epoch_0000.npz").write_bytes(b"no zip")
    with pytest.raises(InputError, match=r"is damaged .*; expected a file that"):
        read_records(tmp_path)


def test_a_record_of_words(network: Growing, tmp_path: Path) -> None:
    train(PrototypeCallback(IMAGES[0], tmp_path), range(1))
    with np.load(tmp_path / "epoch_0000.npz") as stored:
        arrays = dict(stored)
    words = np.full(arrays["canvas_boxes_0"].shape, "a word")
    np.savez_compressed(tmp_path / "epoch_0000.npz", **(arrays | {"canvas_boxes_0": words}))
    with pytest.raises(InputError, match=r"is damaged .*; expected a file that"):
        read_records(tmp_path)


def test_an_image_out_of_range(network: Growing, tmp_path: Path) -> None:
    train(PrototypeCallback(IMAGES[0], tmp_path / "r"), range(1))
    with pytest.raises(InputError, match=r"image 1 is out of range: .* holds 1"):
        read_records(tmp_path / "r", 1)


# The film strip


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Prediction]:
    grown = Growing(tmp_path_factory.mktemp("tiny"))
    found = {}
    for grown.epoch in range(13):
        found[f"epoch {grown.epoch}"] = grown.predict([IMAGES[0]])[0]
    return found


def test_the_strip_has_checkpoints_across_and_prototypes_down(frames: dict[str, Prediction]) -> None:
    few = dict(list(frames.items())[:4])
    sheet = filmstrip_sheet(few, prototypes=[5, 0])
    assert (sheet.columns, len(sheet.panels)) == (4, 12)
    assert [panel.title.split(":")[0] for panel in sheet.panels[:4]] == list(few)
    for column, prediction in enumerate(few.values()):
        best = prediction[int(prediction.scores.argmax())]
        window = prediction.letterbox.content_cells
        np.testing.assert_allclose(sheet.panels[column].values, best.logits()[window], atol=1e-5)
        for row, k in enumerate((5, 0), start=1):
            panel = sheet.panels[4 * row + column]
            np.testing.assert_array_equal(panel.values, prediction.prototypes[k][window])
            assert panel.sign == np.sign(best.weights[k])
    assert len({panel.limit for panel in sheet.panels[4:]}) == 1
    assert raster.draw(sheet).ndim == 3


def test_many_checkpoints_are_thinned_evenly(frames: dict[str, Prediction]) -> None:
    sheet = filmstrip_sheet(frames)
    shown = [panel.title.split(":")[0] for panel in sheet.panels[:MOST_COLUMNS]]
    assert sheet.columns == MOST_COLUMNS
    assert (shown[0], shown[-1]) == ("epoch 0", "epoch 12")
    assert len(set(shown)) == MOST_COLUMNS
    best = list(frames.values())[-1]
    order = Decomposition(best[int(best.scores.argmax())]).order()[:5]
    rows = [int(panel.title.split()[0]) for panel in sheet.panels[MOST_COLUMNS::MOST_COLUMNS]]
    assert rows == order.tolist()


def test_strips_of_different_things_are_refused(frames: dict[str, Prediction]) -> None:
    one = frames["epoch 0"]
    with pytest.raises(InputError, match="no checkpoints"):
        filmstrip_sheet({})
    with pytest.raises(InputError, match="out of range"):
        filmstrip_sheet(frames, prototypes=[8])
    with pytest.raises(InputError, match="no prototypes to show"):
        filmstrip_sheet(frames, prototypes=[])
    fewer = replace(one, prototypes=one.prototypes[:4], coefficients=one.coefficients[:, :4])
    with pytest.raises(InputError, match="b has 4 prototypes and a has 8"):
        filmstrip_sheet({"a": one, "b": fewer})
    other = replace(one, letterbox=replace(one.letterbox, image_hw=(10, 10)))
    with pytest.raises(InputError, match="expected the same image"):
        filmstrip_sheet({"a": one, "b": other})


def test_the_command_draws_checkpoints_and_records(network: Growing, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "photo.png"), IMAGES[0])
    models = [Tiny().save(tmp_path / f"{name}.onnx") for name in ("a", "b ü")]
    out = tmp_path / "new" / "strip.png"
    result = run("filmstrip", *models, "--image", tmp_path / "photo.png", "--out", out, "--prototypes", 1, 2)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == str(out)
    assert cv2.imread(str(out)) is not None
    train(PrototypeCallback(IMAGES[0], tmp_path / "r"), range(2))
    filmstrip_command([tmp_path / "r"], out=tmp_path / "of records.png")
    assert (tmp_path / "of records.png").exists()
    with pytest.raises(InputError, match="which image"):
        filmstrip_command(models, out=tmp_path / "other.png")
    with pytest.raises(InputError, match="expected a file name ending in"):
        filmstrip_command(models, out=tmp_path / "strip.gif", image=tmp_path / "photo.png")


def test_labels_tell_files_of_one_name_apart() -> None:
    assert _labels([Path("a/last.pt"), Path("a/best.pt")]) == ["last", "best"]
    assert _labels([Path("runs/1/best.pt"), Path("runs/2/best.pt")]) == ["1/best", "2/best"]
    assert _labels([Path("best.pt"), Path("best.pt")]) == ["0: best", "1: best"]
