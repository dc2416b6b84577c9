"""Extraction on a Ray cluster of this machine; skipped without Ray (`pip install "maskprism[ray]"`)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pytest

import maskprism
from helpers import deadly_models
from helpers.bucket import assert_equal, at, upload
from helpers.cluster import with_tests
from helpers.fake_network import fake_model, network, v5_model, write_images
from helpers.written_tables import assert_same, images_of, write_video
from maskprism.errors import InputError, ModelError
from maskprism.models import SAMPLE_MODEL, Model
from maskprism.tables.extraction import ExtractSummary, extract
from maskprism.tables.stored_predictions import StoredPredictions
from maskprism.tables.table import CoefficientTable

pytest.importorskip("ray", reason="Ray is not installed")
pytestmark = pytest.mark.usefixtures("cluster")


def on_ray(folder: Any, model: Callable[[], Model], out: Any, **options: Any) -> ExtractSummary:
    return extract(folder, model, out, engine="ray", workers=2, **options)


def white(path: Path) -> None:
    cv2.imwrite(str(path), np.full((48, 56, 3), 255, np.uint8))


@pytest.mark.parametrize(("make", "suffix"), [(fake_model, ".parquet"), (fake_model, ".csv"), (v5_model, "")])
def test_the_table_is_that_of_threads(tmp_path: Path, make: Callable[[], Model], suffix: str) -> None:
    write_images(tmp_path / "photos", 21)
    (tmp_path / "photos" / "010.png").write_bytes(b"no image")
    extract(tmp_path / "photos", make(), tmp_path / f"reference{suffix}")
    done: list[int] = []
    summary = on_ray(
        tmp_path / "photos", make, tmp_path / f"t{suffix}", on_progress=lambda now, total, failed: done.append(now)
    )
    assert (summary.images, summary.failed) == (21, 1)
    assert done[0] == 0
    assert done[-1] == 21
    assert_same(tmp_path / f"t{suffix}", tmp_path / f"reference{suffix}")
    write_images(tmp_path / "photos", 3, start=21)
    extract(tmp_path / "photos", make(), tmp_path / f"reference{suffix}")
    assert on_ray(tmp_path / "photos", make, tmp_path / f"t{suffix}").images == 3
    assert_same(tmp_path / f"t{suffix}", tmp_path / f"reference{suffix}")
    assert on_ray(tmp_path / "photos", make, tmp_path / f"t{suffix}").skipped == 24


def test_prototypes_travel(tmp_path: Path) -> None:
    paths = write_images(tmp_path / "photos", 6)
    on_ray(tmp_path / "photos", fake_model, tmp_path / "t", prototypes="fp32")
    stored = StoredPredictions.open(tmp_path / "t")
    for path in paths:
        prediction = fake_model().predict(path)
        assert (path.name in stored) == (len(prediction) > 0)
        if len(prediction):
            np.testing.assert_array_equal(stored[path.name].masks("image"), prediction.masks("image"))


def test_a_worker_that_is_killed_costs_nothing(tmp_path: Path) -> None:
    write_images(tmp_path / "photos", 24)
    white(tmp_path / "photos" / "012.png")
    extract(tmp_path / "photos", fake_model(), tmp_path / "reference.parquet")
    marker = tmp_path / "killed"
    summary = on_ray(tmp_path / "photos", partial(deadly_models.kills_once, marker), tmp_path / "t.parquet")
    assert marker.exists()
    assert (summary.images, summary.failed) == (24, 0)
    assert_same(tmp_path / "t.parquet", tmp_path / "reference.parquet")


def test_an_image_that_kills_every_worker_is_recorded(tmp_path: Path) -> None:
    write_images(tmp_path / "photos", 24)
    white(tmp_path / "photos" / "012.png")
    extract(tmp_path / "photos", fake_model(), tmp_path / "reference.parquet")
    summary = on_ray(tmp_path / "photos", deadly_models.kills_always, tmp_path / "t.parquet")
    assert (summary.images, summary.failed) == (24, 1)
    assert "the process that worked on it died, 3 times; it may need more memory" in summary.failures[0].message
    found, expected = images_of(tmp_path / "t.parquet"), images_of(tmp_path / "reference.parquet")
    assert found == expected | {"012.png": "failed"}
    order = [("image", "ascending"), ("instance", "ascending")]
    tables = [CoefficientTable.read(tmp_path / name).arrow for name in ("t.parquet", "reference.parquet")]
    rows = [[row for row in table.sort_by(order).to_pylist() if row["image"] != "012.png"] for table in tables]
    assert rows[0] == rows[1]


def test_errors_of_a_user(tmp_path: Path) -> None:
    write_images(tmp_path / "photos", 12)
    out = tmp_path / "t.parquet"
    with pytest.raises(ModelError, match=r"failed on \d+ images in a row .*device lost"):
        on_ray(tmp_path / "photos", deadly_models.lost, out)
    assert not out.exists()
    with pytest.raises(ModelError, match=r"none\.onnx: there is no such model file"):
        on_ray(tmp_path / "photos", partial(maskprism.load, "none.onnx"), out)
    with pytest.raises(InputError, match=r"the model cannot be sent to workers .*functools\.partial"):
        extract(tmp_path / "photos", fake_model(lambda batch: network(batch)), out, engine="ray")
    with pytest.raises(InputError, match="cannot be sent to workers"):
        on_ray(tmp_path / "photos", lambda: fake_model(), out)
    with pytest.raises(InputError, match="a worker needs 1 processor and 1 GPUs; the cluster has 2 processors and 0"):
        on_ray(tmp_path / "photos", fake_model, out, gpus=1)
    with pytest.raises(InputError, match="gpus is -1"):
        on_ray(tmp_path / "photos", fake_model, out, gpus=-1)
    write_video(tmp_path / "clip.avi", 3)
    with pytest.raises(InputError, match="a video is decoded in one process"):
        on_ray(tmp_path / "clip.avi", fake_model, tmp_path / "v.parquet")


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_the_asking_process_is_killed_and_started_again(tmp_path: Path) -> None:
    write_images(tmp_path / "photos", 40)
    extract(tmp_path / "photos", fake_model(), tmp_path / "reference")
    command = [sys.executable, deadly_models.__file__, str(tmp_path / "photos"), str(tmp_path / "t")]
    # A cluster of its own, that ends with it.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"RAY_ADDRESS": "local", "PYTHONPATH": with_tests()}
    already = []
    for attempt in range(2):
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as process:
            assert process.stdout is not None
            already.append(int(process.stdout.readline()))
            if attempt == 0:
                while int(process.stdout.readline()) < 10:
                    pass
                process.kill()
            process.stdout.read()
        assert process.returncode == (-signal.SIGKILL if attempt == 0 else 0)
    assert already[0] == 0 < already[1] < 40
    assert_same(tmp_path / "t", tmp_path / "reference")
    assert not psutil.pid_exists(process.pid)


def test_from_a_bucket_to_a_bucket(tmp_path: Path, options: str) -> None:
    write_images(tmp_path / "photos", 9)
    upload(tmp_path / "photos", "ray/photos", options)
    extract(tmp_path / "photos", fake_model(), tmp_path / "reference.parquet")
    for name in ("t.parquet", "t"):
        out = at(f"ray/out/{name}", options)
        summary = on_ray(at("ray/photos", options), fake_model, out)
        assert (summary.images, summary.failed) == (9, 0)
        assert_equal(out, tmp_path / "reference.parquet")


def shell(arguments: list[Any], **environment: str) -> subprocess.Popen[str]:
    """The command in a process of its own, with a cluster of its own unless RAY_ADDRESS is given."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {"RAY_ADDRESS": "local"}
    line = [sys.executable, "-m", "maskprism", "extract", *arguments, "--engine", "ray", "--workers", 1]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(list(map(str, line)), text=True, env=own | environment, **pipes)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense", "ray://127.0.0.1:1", "no.such.host.invalid:6379"])
def test_an_address_without_a_cluster_is_one_sentence(tmp_path: Path, address: str) -> None:
    write_images(tmp_path / "photos", 1)
    with shell(
        [tmp_path / "photos", "--out", tmp_path / "t.parquet", "--model", SAMPLE_MODEL], RAY_ADDRESS=address
    ) as run:
        out, errors = run.communicate(timeout=120)
    assert (run.returncode, out) == (1, "")
    assert errors.count("\n") == 1
    assert errors.startswith(f"maskprism: engine 'ray': cannot reach the cluster of RAY_ADDRESS={address} (")


def test_sigterm_prints_no_stack_and_nothing_goes_to_stdout(tmp_path: Path) -> None:
    (image,) = write_images(tmp_path / "photos", 1)
    for index in range(1, 20_000):  # more than any machine reads before its first part is written
        os.link(image, image.with_name(f"{index:05d}.png"))
    arguments = [tmp_path / "photos", "--out", tmp_path / "t.parquet", "--model", SAMPLE_MODEL, "--quiet"]
    with shell(arguments) as run:
        while not list((tmp_path / "t.parquet.parts").glob("*/*.parquet")):
            assert run.poll() is None
            time.sleep(0.1)
        run.terminate()
        out, errors = run.communicate(timeout=60)
    assert run.returncode == -signal.SIGTERM
    assert out == ""
    told = [line for line in errors.splitlines() if "Set ray log level" not in line]  # by Ray, before it is silent
    assert not told
