"""The one loop over images: order, failures, the check for NaN, progress, and grey images for models of one channel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from helpers.fake_network import fake_model, network, write_images
from helpers.tiny_models import Tiny
from maskprism import load
from maskprism.core.prediction import Prediction
from maskprism.datasets import open_dataset
from maskprism.datasets.scenes import write_dataset
from maskprism.datasets.visit import Asking, Failure, VisitedImage, look_at, visit
from maskprism.errors import InputError, ModelError
from maskprism.io.images import read_image
from maskprism.io.sources import SourceImage, open_source, open_sources
from maskprism.models import Model


def scores(visited: VisitedImage[Prediction]) -> tuple[int, str, list[float]]:
    return visited.number, visited.name, visited.prediction.scores.tolist()


def fails_on(shades: set[int], batch: np.ndarray[Any, Any]) -> Any:
    if any(round(float(image.mean()) * 255) in shades for image in batch):
        raise RuntimeError("device\nlost")
    return network(batch)


def failing(shades: set[int], batch: int = 1) -> Model:
    model = fake_model(batch=batch)
    model.runtime = type(model.runtime)(partial(fails_on, shades), model.runtime.input)
    return model


def plain(count: int) -> list[SourceImage]:
    return [SourceImage(f"{n}", np.full((64, 64, 3), n, np.uint8)) for n in range(count)]


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("workers", [1, 3])
def test_every_image_once_in_order_with_what_predict_says(tmp_path: Path, batch: int, workers: int) -> None:
    paths = write_images(tmp_path, 8)
    (tmp_path / "003.png").write_bytes(b"no image")
    model = fake_model(batch=batch)
    told: list[tuple[int, int | None, Failure | None]] = []
    source = open_source(tmp_path)
    results = list(visit(source, model, scores, workers=workers, on_progress=lambda *step: told.append(step)))
    broken = Failure("003.png", "not an image that OpenCV can decode (8 bytes)")
    assert results == [
        broken if path.name == "003.png" else (n, path.name, fake_model().predict(path).scores.tolist())
        for n, path in enumerate(paths)
    ]
    assert told == [(n + 1, 8, broken if n == 3 else None) for n in range(8)]
    everything = list(visit(open_sources([tmp_path]), model))
    assert [one.name for one in everything] == [path.name for path in paths]
    first = everything[0]
    assert isinstance(first, VisitedImage)
    np.testing.assert_array_equal(first.image, read_image(paths[0]))
    assert first.prediction.source == "000.png"


@pytest.mark.parametrize("batch", [1, 4])
def test_a_model_that_fails_on_one_image_of_a_batch_is_asked_one_by_one(batch: int) -> None:
    results = list(visit(plain(9), failing({2, 5}, batch), scores))
    assert [n for n, one in enumerate(results) if isinstance(one, Failure)] == [2, 5]
    assert results[2] == Failure("2", "device lost", by_model=True, size_hw=(64, 64))


def test_a_model_that_works_on_none_is_given_up_after_eight() -> None:
    results: list[Any] = []
    with pytest.raises(ModelError, match=r"failed on all of the first 8 images \(device lost\)"):
        results.extend(visit(plain(20), failing(set(range(256))), scores, workers=1))
    found = [*visit(plain(20), failing(set(range(1, 256))), scores, workers=1)]
    assert sum(isinstance(one, Failure) for one in found) == 19


@pytest.mark.parametrize("name", ["scores", "coefficients", "prototypes", "canvas_boxes"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_are_failures_of_the_model(name: str, value: float) -> None:
    def broken(image: Any) -> tuple[Prediction, None]:
        said = fake_model().predict(image)
        return replace(said, **{name: np.full_like(getattr(said, name), value)}), None

    results = list(visit(plain(3), Asking(broken)))
    assert results[2] == Failure("2", f"the model gave {name} that hold NaN or infinity", True, (64, 64))


def test_what_examining_raises_is_a_failure_of_the_image_and_a_bug_is_raised() -> None:
    def refuses(error: type[Exception], visited: VisitedImage[Prediction]) -> int:
        if visited.number == 1:
            raise error("1: there is no such instance")
        return visited.number

    results = list(visit(plain(3), fake_model(), partial(refuses, InputError)))
    assert results == [0, Failure("1", "there is no such instance", size_hw=(64, 64)), 2]
    with pytest.raises(KeyError):
        list(visit(plain(3), fake_model(), partial(refuses, KeyError)))
    assert look_at(plain(3), fake_model(), partial(refuses, InputError)) == results


def test_a_data_set_gives_its_ground_truth(tmp_path: Path) -> None:
    dataset = open_dataset(write_dataset(tmp_path, 4, seed=3, validation_share=1.0))
    visited = [*visit(dataset.take([1, 3]), load("sample"))]
    samples = list(dataset)
    for one, sample in zip(visited, (samples[1], samples[3]), strict=True):
        image, truth = sample.read()
        assert isinstance(one, VisitedImage)
        assert one.truth is not None
        assert one.name == sample.name
        np.testing.assert_array_equal(one.image, image)
        np.testing.assert_array_equal(one.truth.boxes, truth.boxes)


@pytest.mark.parametrize("by_callback", [True, False])
def test_an_interruption_begins_nothing_more(by_callback: bool) -> None:
    begun: list[int] = []

    def images() -> Any:
        for n, image in enumerate(plain(100)):
            begun.append(n)
            yield image

    def stop(done: int, total: int | None, failure: Failure | None) -> None:
        if done == 3:
            raise KeyboardInterrupt

    results = []

    def run() -> None:
        for one in visit(images(), fake_model(), scores, workers=2, on_progress=stop if by_callback else None):
            results.append(one)
            if not by_callback and len(results) == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert len(results) == 3
    assert len(begun) <= 3 + 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "dask"}, "engine is 'dask'; expected one of 'threads', 'ray'"),
        ({"workers": 0}, "workers is 0; expected at least 1"),
    ],
)
def test_arguments_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        list(visit(plain(1), fake_model(), **options))


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("colours", [True, False])
def test_a_model_of_one_channel_sees_files_as_opencv_decodes_them_to_grey(
    tmp_path: Path, suffix: str, colours: bool
) -> None:
    pixels = 255 * np.random.default_rng(5).integers(0, 2, (64, 64, 3), np.uint8)  # so that colours are clipped
    path = tmp_path / f"photo{suffix}"
    cv2.imwrite(str(path), pixels if colours else pixels[:, :, 0])
    grey = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    assert grey is not None
    made_grey = cv2.cvtColor(read_image(path), cv2.COLOR_BGR2GRAY)
    if suffix == ".jpg" and colours:
        assert not np.array_equal(grey, made_grey)  # otherwise there is nothing to test
    model = load(Tiny(channels=1).save(tmp_path / "grey.onnx"), conf=0.1)
    expected = model.predict(grey)
    ways: dict[str, Callable[[], Prediction]] = {
        "a path": lambda: model.predict(path),
        "several": lambda: model.predict([path, path])[1],
        "the loop": lambda: next(iter(visit(open_source(path), model))).prediction,  # type: ignore[union-attr]
        "bytes": lambda: look_at([SourceImage("a", path.read_bytes())], model, lambda one: one.prediction)[0],  # type: ignore[dict-item, return-value]
    }
    for way, predict in ways.items():
        found = predict()
        np.testing.assert_array_equal(found.prototypes, expected.prototypes, err_msg=way)
        np.testing.assert_array_equal(found.scores, expected.scores, err_msg=way)
    for read in (read_image(path, grey=True), SourceImage("a", path).read(grey=True)):
        np.testing.assert_array_equal(read, np.stack([grey] * 3, axis=2))
    colour_model = load(Tiny().save(tmp_path / "colour.onnx"), conf=0.1)
    np.testing.assert_array_equal(
        colour_model.predict(path).prototypes, colour_model.predict(read_image(path)).prototypes
    )
