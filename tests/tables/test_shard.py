"""The function that engines share: what it gives, that it travels, and that it opens a model once."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers.fake_network import fake_model, network, v5_model, write_images
from helpers.tiny_models import Tiny
from maskprism import load
from maskprism.errors import ImageError, ModelError
from maskprism.io.sources import SourceImage, open_source
from maskprism.models import Model
from maskprism.tables.extraction import extract
from maskprism.tables.schema import image_schema, instance_schema
from maskprism.tables.table import CoefficientTable
from maskprism.tables.worker import Shard, instances_of, records_of


def counted_model(folder: Path) -> Model:
    """A model that leaves a note in a folder when it is opened."""
    (folder / f"{os.getpid()}-{len(list(folder.iterdir()))}").touch()
    return fake_model()


def together(batches: list[pa.RecordBatch], folder: Path) -> CoefficientTable:
    """What another engine would write of batches, read again."""
    shards = pa.Table.from_batches(batches)
    pq.write_table(instances_of(shards), folder / "t.parquet")
    pq.write_table(records_of(shards), folder / "t.images.parquet")
    return CoefficientTable.read(folder / "t.parquet")


def assert_same(found: CoefficientTable, expected: CoefficientTable) -> None:
    assert found.arrow.equals(expected.arrow)
    assert found.images is not None
    assert found.images.equals(expected.images)
    assert found.metadata == expected.metadata


@pytest.mark.parametrize("size", [1, 4, 100])
@pytest.mark.parametrize("make", [fake_model, v5_model, partial(fake_model, batch=3)])
def test_shards_of_any_size_make_the_table_of_extract(tmp_path: Path, make: partial[Model], size: int) -> None:
    write_images(tmp_path / "photos", 7)
    (tmp_path / "photos" / "bad.png").write_bytes(b"no image")
    extract(tmp_path / "photos", make(), tmp_path / "reference.parquet")
    source = open_source(tmp_path / "photos")
    shard = Shard(make(), source.root)
    images = list(source.pending(()))
    batches = [shard(images[start : start + size]) for start in range(0, len(images), size)]
    assert all(batch.schema.equals(shard.schema, check_metadata=True) for batch in batches)
    assert_same(together(batches, tmp_path), CoefficientTable.read(tmp_path / "reference.parquet"))
    # ... which extract takes for its own.
    again = extract(tmp_path / "photos", make(), tmp_path / "t.parquet")
    assert (again.images, again.skipped) == (0, 8)


def test_one_row_per_image_says_what_became_of_it(tmp_path: Path) -> None:
    path = write_images(tmp_path, 1)[0]
    pixels = cv2.imread(str(path))
    images = [
        SourceImage("path", path),
        ("text", str(path)),
        ("uri", path.as_uri()),
        ("bytes", path.read_bytes()),
        ("pixels", pixels),
        ("damaged", path.read_bytes()[:100]),
        ("missing", tmp_path / "none.png"),
        ("none", ImageError("frame 3 cannot be decoded")),
        ("path", path),  # names need not be different
    ]
    batch = Shard(fake_model())(images)
    assert batch["image"].to_pylist() == [name for name, _ in images]
    instances = len(fake_model().predict(pixels))
    assert instances > 0
    assert batch["status"].to_pylist() == ["ok"] * 5 + ["failed"] * 3 + ["ok"]
    assert batch["instances"].to_pylist() == [instances] * 5 + [0] * 3 + [instances]
    assert [len(rows) for rows in batch["rows"].to_pylist()] == batch["instances"].to_pylist()
    assert batch["message"].to_pylist()[5:8] == [
        "the image is truncated; its end is missing",
        "there is no such file",
        "frame 3 cannot be decoded",
    ]
    assert batch["width"].to_pylist() == [pixels.shape[1]] * 5 + [None] * 3 + [pixels.shape[1]]
    assert not any(batch["network_failed"].to_pylist())


def test_no_images_and_no_instances() -> None:
    shard = Shard(fake_model(conf=0.99))
    grey = np.full((40, 50, 3), 127, np.uint8)
    for images in ([], [("a", grey), ("b", grey)]):
        shards = pa.Table.from_batches([shard(images)])
        assert len(shards) == len(images)
        assert records_of(shards).schema.equals(image_schema(shard.settings), check_metadata=True)
        assert instances_of(shards).equals(instance_schema(shard.settings).empty_table(), check_metadata=True)


def test_a_network_that_fails_is_told_from_an_image_that_does() -> None:
    images = [(f"{n}", np.full((40, 50, 3), n, np.uint8)) for n in range(9)]

    def fails(shades: set[int], batch: np.ndarray) -> object:
        if any(round(float(image.mean()) * 255) in shades for image in batch):
            raise RuntimeError("device\nlost")
        return network(batch)

    for batch_size in (1, 4):
        model = fake_model(batch=batch_size)
        runtime = type(model.runtime)(partial(fails, {2, 5}), model.runtime.input)
        model = replace(model, runtime=runtime)  # the letterbox is exact here
        images = [(f"{n}", np.full((64, 64, 3), n, np.uint8)) for n in range(9)]
        batch = Shard(model)(images)
        assert [i for i, failed in enumerate(batch["network_failed"].to_pylist()) if failed] == [2, 5]
        assert [i for i, status in enumerate(batch["status"].to_pylist()) if status == "failed"] == [2, 5]
        assert batch["message"][2].as_py() == "device lost"
        assert batch["width"][2].as_py() == 64

        model = replace(model, runtime=replace(runtime, function=partial(fails, set(range(256)))))
        few = Shard(model)(images[:7])
        assert all(few["network_failed"].to_pylist())  # too few to tell: it is for the engine to judge
        for others in ([], [("bad", b"no image")]):
            with pytest.raises(ModelError, match=r"failed on 9 images in a row .*\(0: device lost\)"):
                Shard(model)([*images, *others])


def test_copies_work_in_other_processes_and_open_the_model_once_each(tmp_path: Path) -> None:
    write_images(tmp_path / "photos", 12)
    (tmp_path / "photos" / "bad.png").write_bytes(b"no image")
    (tmp_path / "opened").mkdir()
    source = open_source(tmp_path / "photos")
    shard = Shard(partial(counted_model, tmp_path / "opened"), source.root)
    images = list(source.pending(()))
    lists = [images[start : start + 2] for start in range(0, len(images), 2)]
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as processes:
        batches = list(processes.map(shard, lists))  # sends a copy of the function with every list
    opened = [note.name.split("-")[0] for note in (tmp_path / "opened").iterdir()]
    assert str(os.getpid()) not in opened  # not before it is needed
    assert 1 <= len(opened) == len(set(opened)) <= 2
    extract(tmp_path / "photos", fake_model(), tmp_path / "reference.parquet")
    assert_same(together(batches, tmp_path), CoefficientTable.read(tmp_path / "reference.parquet"))


def test_copies_in_one_process_share_the_model(tmp_path: Path) -> None:
    shard = Shard(partial(counted_model, tmp_path))
    copies = [pickle.loads(pickle.dumps(shard)) for _ in range(3)]
    batches = [copy([("grey", np.full((40, 50, 3), 120, np.uint8))]) for copy in (*copies, shard)]
    assert all(batch.equals(batches[0]) for batch in batches)
    assert len(list(tmp_path.iterdir())) == 1
    assert Shard(partial(counted_model, tmp_path)).settings == shard.settings
    assert len(list(tmp_path.iterdir())) == 2  # another shard, another model


def test_an_open_model_travels_as_the_file_that_it_is_of(tmp_path: Path) -> None:
    file = Tiny().save(tmp_path / "tiny.onnx")
    image = ("grey", np.full((40, 50, 3), 120, np.uint8))
    model = load(file, conf=0.1).with_names({0: "a", 1: "b", 2: "c"})
    shard = Shard(model)
    pickled = pickle.dumps(shard)
    assert len(pickled) < 1 << 16
    copy = pickle.loads(pickled)
    assert copy.settings == shard.settings
    assert copy([image]).equals(shard([image]))
    Tiny(prototypes=5).save(file)
    with pytest.raises(ModelError, match="the model file is another one here"):
        pickle.loads(pickled)


def test_a_model_that_cannot_be_opened_is_an_error_of_every_call() -> None:
    shard = pickle.loads(pickle.dumps(Shard(partial(load, "none.onnx"))))
    for _ in range(2):
        with pytest.raises(ModelError, match=r"none\.onnx: there is no such model file"):
            shard([])
