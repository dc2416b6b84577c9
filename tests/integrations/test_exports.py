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
from maskprism.errors import ImageError, InputError, MaskprismError
from maskprism.integrations.exports import write_predictions
from maskprism.integrations.exports.journal import ImageRecord, Journal
from maskprism.integrations.exports.video import VideoPiece
from maskprism.io.sources import DistinctStems, open_source, open_sources


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
    """A TCP server that sends a file to every client."""
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
        open_sources([url])
    summary = write_predictions(open_sources([url], limit=4), fake_model(), tmp_path / "o", "coco-annotations")
    assert (summary.images, summary.failures) == (4, ())
    images = json.loads((tmp_path / "o" / "annotations.json").read_text())["images"]
    assert [one["file_name"] for one in images] == [f"127.0.0.1#{number:06d}" for number in range(4)]
    more = write_predictions(open_sources([url], limit=6), fake_model(), tmp_path / "o", "coco-annotations")
    assert (more.skipped, more.images) == (4, 2)
    ended = write_predictions(open_sources([url], limit=12), fake_model(), tmp_path / "video", "overlay")
    assert [failure.message for failure in ended.failures] == ["the stream ended, or sent nothing more, after 8 frames"]
    assert ended.files[-1].name == "127.0.0.1.mp4"
    assert open_sources([str(ended.files[-1])]).count() == 8


def test_a_camera_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (camera,) = open_sources(["99"], limit=2).parts
    assert camera.name == "camera99"
    (image,) = camera.pending(frozenset())
    assert str(image.image) == "camera99: there is no camera of this number, or another program uses it"
    secret = open_sources(["rtsp://user:secret@host:554/live/1"], limit=1).parts[0]
    assert secret.name == "host-live-1"
    write_images(tmp_path / "7", 1)
    assert open_sources(["7"]).count() == 1  # a folder of that name


def test_odd_frames_are_kept_whole_and_beside_labelme_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cv2, "VideoCapture", lambda address: FakeCamera(2, size=(49, 65)))
    write_predictions(open_sources(["7"], limit=2), fake_model(), tmp_path / "labels", "labelme")
    document = json.loads((tmp_path / "labels" / "camera7#000001.json").read_text())
    frame = cv2.imread(str(tmp_path / "labels" / document["imagePath"]))
    assert frame.shape == (document["imageHeight"], document["imageWidth"], 3) == (49, 65, 3)
    monkeypatch.undo()
    piece = VideoPiece(tmp_path / "odd.mp4", 10)
    piece.add(np.full((49, 65, 3), 127, np.uint8))
    assert piece.close()
    assert cv2.VideoCapture(str(piece.path)).read()[1].shape == (50, 66, 3)


def test_a_video_that_lacks_frames_is_refused(tmp_path: Path) -> None:
    piece = VideoPiece(tmp_path / "full.mp4", 10)
    for _ in range(3):
        piece.add(np.zeros((48, 64, 3), np.uint8))
    piece._writer.release()  # as if nothing more could be written
    (tmp_path / ".full.partial.mp4").write_bytes(b"")
    with pytest.raises(MaskprismError, match=r"full.mp4: cannot be written \(0 of 3 frames were; is the disk full\?\)"):
        piece.close()
    assert list(tmp_path.iterdir()) == []


class FakeCamera:
    """A `cv2.VideoCapture` that gives `n_frames`."""

    def __init__(self, n_frames: int, opened: bool = True, size: tuple[int, int] = (48, 64)) -> None:
        self.left, self.opened, self.released, self.size = n_frames, opened, False, size

    def isOpened(self) -> bool:  # noqa: N802 (OpenCV names it so)
        return self.opened

    def read(self) -> tuple[bool, Any]:
        self.left -= 1
        return (True, np.zeros((*self.size, 3), np.uint8)) if self.left >= 0 else (False, None)

    def release(self) -> None:
        self.released = True


@pytest.mark.parametrize(
    ("n_frames", "opened", "message"),
    [
        (3, True, "camera7: the camera ended, or sent nothing more, after 3 frames"),
        (0, True, "camera7: the camera was opened, but no frame came"),
        (0, False, "camera7: there is no camera of this number, or another program uses it"),
    ],
)
def test_frames_before_a_camera_ends_are_kept(
    n_frames: int, opened: bool, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    camera = FakeCamera(n_frames, opened)
    monkeypatch.setattr(cv2, "VideoCapture", lambda address: camera)
    *frames, last = open_sources(["7"], limit=5).parts[0].pending(frozenset())
    assert [frame.name for frame in frames] == [f"camera7#{number:06d}" for number in range(n_frames)]
    assert (str(last.image), camera.released) == (message, True)


def test_a_camera_is_not_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImageError, match="camera0: a camera or stream cannot be used here; expected images or a video"):
        open_source("0")


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
