"""Predictions of many images in files: names, records, resuming, videos, streams, engines."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from helpers.fake_network import fake_model, network, write_images
from maskprism import load
from maskprism._common.parallel import open_engine
from maskprism.datasets import open_dataset
from maskprism.datasets.scenes import write_dataset
from maskprism.errors import InputError
from maskprism.integrations.exports import write_predictions
from maskprism.integrations.exports.journal import ImageRecord, Journal
from maskprism.io.sources import DistinctStems, open_sources


def test_records_remove_nothing_outside_of_their_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("")
    journal = Journal(tmp_path / "o", {})
    journal.append(ImageRecord("a", files=["../mine.txt", str(tmp_path / "mine.txt")]))
    journal.close()
    Journal(tmp_path / "o", {}, overwrite=True).close()
    assert (tmp_path / "mine.txt").exists()


def test_images_of_several_folders_stay_apart(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_images(tmp_path / folder, 2)
    sources = open_sources([tmp_path / "a", tmp_path / "b" / "000.png", tmp_path / "b" / "001.png"])
    summary = write_predictions(sources, fake_model(), tmp_path / "o", "coco")
    assert summary.images == 4
    records = [json.loads(line) for line in (tmp_path / "o" / "images.jsonl").read_text().splitlines()[1:]]
    assert [(one["image"], one["image_id"]) for one in records] == [
        ("a/000.png", 0),
        ("a/001.png", 1),
        ("b/000.png", "b/000.png"),
        ("b/001.png", "b/001.png"),
    ]
    assert "2 images with the file name of another one" in " ".join(summary.notes)


def test_stems_lead_nowhere_else() -> None:
    stems = DistinctStems(["a/one"])
    given = ["a/one.jpg", "a/one.png", "../../b.jpg", "/etc/c.png", "clip.mp4#000001", "a/two.jpg", "a/two.jpg"]
    assert [stems.next(name) for name in given] == [
        *("a/one.jpg", "a/one.png", "b", "etc/c", "clip.mp4#000001", "a/two", "a/two.jpg")
    ]


def video(path: Path, count: int = 6) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (64, 48))
    for number in range(count):
        writer.write(np.full((48, 64, 3), 20 + 30 * number, np.uint8))
    writer.release()
    return path


def frames(path: Path) -> int:
    opened = cv2.VideoCapture(str(path))
    return sum(1 for _ in iter(lambda: opened.read()[0], False))


def test_a_video_becomes_an_annotated_video(tmp_path: Path) -> None:
    clip = video(tmp_path / "clip.mp4")
    progress: list[int] = []

    def stop(done: int, total: int | None, failure: object) -> None:
        progress.append(done)
        if done == 3:
            raise KeyboardInterrupt

    go = partial(write_predictions, open_sources([clip]), fake_model(), tmp_path / "o", "overlay")
    with pytest.raises(KeyboardInterrupt):
        go(on_progress=stop)
    assert frames(tmp_path / "o" / "clip.mp4") == 3
    summary = go()
    assert (summary.skipped, summary.images) == (3, 3)
    assert frames(tmp_path / "o" / "clip-000003.mp4") == 3
    assert summary.files[-1] == tmp_path / "o" / "clip-000003.mp4"
    write_predictions(open_sources([clip]), fake_model(), tmp_path / "t", "yolo", copy_images=True)
    assert len(open_dataset(tmp_path / "t" / "data.yaml")) == 6


def serve_once(path: Path) -> tuple[int, threading.Thread]:
    """A TCP server that sends a file to whoever connects."""
    server = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        while True:
            with suppress(OSError):
                connection, _ = server.accept()
                with connection:
                    connection.sendall(path.read_bytes())
                continue
            return

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    return server.getsockname()[1], thread


def test_a_stream_gives_as_many_frames_as_are_asked_for(tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "s.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for number in range(8):
        writer.write(np.full((48, 64, 3), 25 * number, np.uint8))
    writer.release()
    port, _ = serve_once(tmp_path / "s.avi")
    url = f"tcp://127.0.0.1:{port}"
    with pytest.raises(InputError, match="has no end; say how many frames with --limit"):
        write_predictions(open_sources([url]), fake_model(), tmp_path / "none", "coco")
    summary = write_predictions(open_sources([url], limit=4), fake_model(), tmp_path / "o", "coco-annotations")
    assert (summary.images, summary.failures) == (4, ())
    images = json.loads((tmp_path / "o" / "annotations.json").read_text())["images"]
    assert [one["file_name"] for one in images] == [f"127.0.0.1#{number:06d}" for number in range(4)]
    more = write_predictions(open_sources([url], limit=6), fake_model(), tmp_path / "o", "coco-annotations")
    assert (more.skipped, more.images) == (4, 2)


def test_a_camera_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (camera,) = open_sources(["99"], limit=2).parts
    assert camera.name == "camera99"
    (image,) = camera.pending(frozenset())
    assert "cannot be opened as a camera or stream" in str(image.image)
    secret = open_sources(["rtsp://user:secret@host:554/live/1"], limit=1).parts[0]
    assert secret.name == "host-live-1"
    write_images(tmp_path / "7", 1)
    assert open_sources(["7"]).count() == 1  # a folder of that name


def test_batches(tmp_path: Path) -> None:
    write_images(tmp_path / "photos", 5)
    sizes: list[int] = []

    def counting(batch: Any) -> Any:
        sizes.append(len(batch))
        return network(batch)

    model = fake_model(counting, batch=None).in_batches(2)
    sizes.clear()
    write_predictions(open_sources([tmp_path / "photos"]), model, tmp_path / "o", "coco", engine="threads")
    assert max(sizes) == 2
    with pytest.raises(InputError, match="batch is 3; fake takes 1 at once"):
        fake_model().in_batches(3)


@pytest.mark.usefixtures("cluster")
def test_ray_gives_the_same(tmp_path: Path) -> None:
    write_dataset(tmp_path, 4, validation_share=1)
    photos = tmp_path / "images" / "val"
    (photos / "broken.jpg").write_bytes(b"no image")
    write_predictions(open_sources([photos]), load("sample"), tmp_path / "local", "coco")
    with open_engine("ray", 2) as engine:
        write_predictions(open_sources([photos]), load("sample", threads=1), tmp_path / "ray", "coco", engine=engine)
    local, ray = ((tmp_path / name / "results.json").read_text() for name in ("local", "ray"))
    assert local == ray
