"""The server: what it may show, to whom, how often it asks the model, and what it answers."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import fields
from functools import cache
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
import httpx
import numpy as np
import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import maskprism
from helpers import in_process
from helpers.tiny_models import Tiny, ultralytics_metadata
from maskprism.analysis.truth.error_budget import PARTS, budgets
from maskprism.analysis.truth.labels import open_labels
from maskprism.analysis.truth.matching import MATCHING_RULE, match_masks
from maskprism.datasets import GroundTruth
from maskprism.datasets.scenes import draw_scene, write_dataset
from maskprism.drawing.mask_style import dimmed
from maskprism.errors import InputError, MaskprismError
from maskprism.models import Model
from maskprism.models.correction import Correction
from maskprism.models.runtimes import FunctionRuntime, NetworkInput
from maskprism.server import Gallery, Limits, create_app, create_static_app, serve
from maskprism.server.images import GalleryImages
from maskprism.server.records import SHOWS, SORTS, Query, Record
from maskprism.server.thumbnails import crops
from maskprism.tables.judged_labels import LabelRow

COMMAND = [sys.executable, "-m", "maskprism"]
BASE = "http://127.0.0.1:8000"
SECRET = b"the secret of the house"
NAMES = ("a.png", "b ü #1?&.png", "sub dir/a.png", "<img src=x onerror=alert(1)>.png", "two\nlines.png")


@cache
def png(seed: int, size_wh: tuple[int, int] = (96, 72)) -> bytes:
    return cv2.imencode(".png", cv2.resize(draw_scene(seed).image, size_wh))[1].tobytes()


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Tiny(metadata=ultralytics_metadata()).save(tmp_path_factory.mktemp("model") / "tiny ü.onnx")


@pytest.fixture(scope="module")
def model(model_file: Path) -> Model:
    return maskprism.load(model_file, threads=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images of every kind of name, a broken one, and beside the folder something that must stay private."""
    folder = tmp_path / "photos"
    (folder / "sub dir").mkdir(parents=True)
    for seed, name in enumerate(NAMES):
        (folder / name).write_bytes(png(seed))
    (folder / "broken.jpg").write_bytes(b"no image")
    (folder / "notes.txt").write_bytes(SECRET)
    (tmp_path / "secret.png").write_bytes(SECRET + png(9))
    (tmp_path / "secret.txt").write_bytes(SECRET)
    return folder


@pytest.fixture
def client(folder: Path, model: Model) -> Iterator[httpx.Client]:
    with serving(Gallery(folder, model)) as client:
        wait_for(client)
        yield client


@pytest.fixture(scope="module")
def any_client(tmp_path_factory: pytest.TempPathFactory, model: Model) -> Iterator[httpx.Client]:
    """One server for tests that do not mind what else it was asked."""
    folder = tmp_path_factory.mktemp("any")
    (folder / "a.png").write_bytes(png(0))
    with serving(Gallery(folder, model)) as client:
        wait_for(client)
        yield client


@contextmanager
def serving(gallery: Gallery) -> Iterator[httpx.Client]:
    """The application behind a real socket, in a thread of this process."""
    server = uvicorn.Server(uvicorn.Config(create_app(gallery), log_level="warning", timeout_graceful_shutdown=1))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{listening.getsockname()[1]}", timeout=60) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join()


def wait_for(client: Any) -> dict[str, Any]:
    """Until the model has seen everything."""
    while True:
        progress = client.get("/api/progress").json()
        if progress["examined"] == progress["total"]:
            return progress
        time.sleep(0.005)


def header_of(scene: bytes) -> dict[str, Any]:
    assert scene[:8] == b"MPRISM\x00\x01"
    (length,) = struct.unpack("<I", scene[8:12])
    return json.loads(scene[12 : 12 + length])


def in_loop(gallery: Gallery, act: Callable[[httpx.AsyncClient], Awaitable[Any]], *, scan: bool = False) -> Any:
    """Run requests in one event loop, by default without the background work, so that all is counted."""

    async def run() -> Any:
        if scan:
            await gallery.start()
        transport = httpx.ASGITransport(app=create_app(gallery))
        try:
            async with httpx.AsyncClient(transport=transport, base_url=BASE) as client:
                return await act(client)
        finally:
            await gallery.stop()

    return asyncio.run(run())


# --- what may be shown ----------------------------------------------------------------------------


def test_only_images_inside_the_folder_are_listed(folder: Path, tmp_path: Path) -> None:
    (folder / "link out.png").symlink_to(tmp_path / "secret.png")
    (folder / "link in.png").symlink_to(folder / "a.png")
    (folder / "dangling.png").symlink_to(folder / "nothing.png")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "folder out").symlink_to(tmp_path)
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "pipe.png")
    images = GalleryImages(folder, upload_bytes=100)
    assert [one.name for one in images] == sorted([*NAMES, "broken.jpg", "link in.png"])
    assert images.left_out == 5
    assert images.find("link out.png") is None


def test_a_file_that_becomes_a_link_is_not_read(folder: Path, tmp_path: Path) -> None:
    images = GalleryImages(folder, upload_bytes=100)
    image = images.find("a.png")
    (folder / "a.png").unlink()
    with pytest.raises(MaskprismError, match=r"a\.png: is no longer a regular file"):
        images.read(image)
    (folder / "a.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(MaskprismError, match=r"a\.png: is no longer a regular file"):
        images.read(image)
    images.refresh()
    assert images.find("a.png") is None
    with pytest.raises(MaskprismError, match=r"a\.png: is gone"):
        images.read(image)


def test_the_folder_may_be_a_link_itself_and_must_be_a_folder(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    assert len(GalleryImages(tmp_path / "link", upload_bytes=1)) == len(NAMES) + 1
    for wrong in (folder / "a.png", tmp_path / "nothing"):
        with pytest.raises(InputError, match="is not a folder"):
            GalleryImages(wrong, upload_bytes=1)


def test_uploads_are_named_safely_and_bounded(tmp_path: Path) -> None:
    images = GalleryImages(tmp_path, upload_bytes=10)
    titles = {
        "../../etc/passwd.png": "passwd.png",
        "C:\\Windows\\evil.png": "evil.png",
        "a\x00\r\nb\u202egnp.exe": "a b gnp.exe",
        "": "image",
        "/": "image",
    }
    for filename, title in titles.items():
        assert images.add(filename, filename.encode()).title == title
    assert len(images.add("x" * 500, b"x").title) == 120
    for number in range(3):
        images.add(f"{number}.png", bytes([number]) * 4)
        images.trim()
    assert [one.title for one in images] == ["2.png", "1.png"]
    huge = images.add("huge.png", bytes(99))
    images.trim()
    assert [one.title for one in images] == ["huge.png"]  # the latest one stays in any case
    images.remove(huge)
    assert len(images) == 0


# --- security -------------------------------------------------------------------------------------

ESCAPES = [
    "../secret.png",
    "..%2fsecret.png",
    "%2e%2e/secret.png",
    "%2e%2e%2fsecret.png",
    "%252e%252e%252fsecret.png",
    "..%5csecret.png",
    "..\\secret.png",
    "sub%20dir/../../secret.png",
    "sub%20dir/..%2f..%2fsecret.png",
    "....//secret.png",
    "%c0%ae%c0%ae/secret.png",
    "%u002e%u002e/secret.png",
    "{outside}/secret.png",
    "/{outside}/secret.png",
    "%2f{outside}/secret.png",
    "file://{outside}/secret.png",
    "a.png%00../../secret.png",
    "a.png/../../secret.png",
    "./a.png/%2e%2e/%2e%2e/secret.png",
    "C:%5Csecret.png",
    "link out.png",
    "link%20out.png",
    "folder%20out/secret.png",
    "notes.txt",
    "~/secret.png",
    "upload:0/../../secret.png",
]


def test_no_spelling_leads_out_of_the_folder(folder: Path, tmp_path: Path, model_file: Path) -> None:
    """Over a real socket, since clients tidy paths up before they send them."""
    (folder / "link out.png").symlink_to(tmp_path / "secret.png")
    (folder / "folder out").symlink_to(tmp_path)
    with running(folder, "--model", model_file) as (_, port):
        routes = ("/api/images/", "/api/scenes/", "/api/thumbnails/", "/static/", "/")
        for route, escape in product(routes, ESCAPES):
            target = route + escape.replace("{outside}", str(tmp_path)).replace(" ", "%20")
            status, body = raw_request(port, f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            assert status in (400, 404), f"{target}: {status}"
            assert SECRET not in body, target
        status, body = raw_request(port, "GET /api/thumbnails/sub%20dir/a.png HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
        assert status == 200
        assert body.startswith(b"\xff\xd8\xff")


def raw_request(port: int, request: str) -> tuple[int, bytes]:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(request.encode("latin-1"))
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


@pytest.mark.parametrize(
    ("bound", "host", "fits"),
    [
        ("127.0.0.1", "127.0.0.1:8000", True),
        ("127.0.0.1", "localhost:8000", True),
        ("127.0.0.1", "LOCALHOST", True),
        ("127.0.0.1", "[::1]:8000", True),
        ("127.0.0.1", "friend.example", True),
        ("127.0.0.1", "evil.example", False),
        ("127.0.0.1", "127.0.0.1.evil.example", False),
        ("127.0.0.1", "evil.example@localhost", False),
        ("127.0.0.1", "localhost/evil", False),
        ("127.0.0.1", "localhost.", False),
        ("127.0.0.1", "192.168.0.7:8000", False),
        ("127.0.0.1", "[::1", False),
        ("127.0.0.1", "", False),
        ("0.0.0.0", "192.168.0.7:8000", True),
        ("0.0.0.0", "[fe80::1]:8000", True),
        ("0.0.0.0", "localhost", True),
        ("0.0.0.0", "evil.example", False),
        ("workstation", "workstation:8000", True),
    ],
)
def test_the_host_header_must_name_the_server(tmp_path: Path, model: Model, bound: str, host: str, fits: bool) -> None:
    app = create_app(Gallery(tmp_path, model), host=bound, allowed_hosts=["Friend.example"])

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url=BASE) as client:
            return await client.get("/api/progress", headers={"Host": host})

    answer = asyncio.run(ask())
    assert answer.status_code == (200 if fits else 421)
    assert fits or "--allow-host" in answer.json()["error"]


@pytest.mark.parametrize(
    ("headers", "fits"),
    [
        ({}, True),  # no browser
        ({"Origin": "http://{host}"}, True),
        ({"Origin": "http://{host}", "Sec-Fetch-Site": "same-origin"}, True),
        ({"Origin": "http://127.0.0.1:1"}, False),  # another server of this machine
        ({"Origin": "http://evil.example"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "http://["}, False),
        ({"Origin": "http://{host}.evil.example"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
    ],
)
def test_other_sites_cannot_upload(any_client: httpx.Client, headers: dict[str, str], fits: bool) -> None:
    host = any_client.base_url.netloc.decode()
    headers = {name: value.replace("{host}", host) for name, value in headers.items()}
    before = any_client.get("/api/images").json()["total"]
    picture = png(20 + len(headers))  # another one for every case that fits
    answer = any_client.post("/api/uploads?name=a.png", content=picture, headers=headers)
    assert answer.status_code == (201 if fits else 403)
    assert any_client.get("/api/images").json()["total"] == before + fits


def test_only_the_parts_of_the_page_are_served(any_client: httpx.Client) -> None:
    client = any_client
    page = client.get("/").text + client.get("/static/gallery.js").text
    for name in ("gallery.css", "gallery.js", "icon.svg", "viewer.css", "viewer.js"):
        assert name in page
        assert client.get(f"/static/{name}").status_code == 200
    for name in ("gallery.html", "map.html", "report.html", "labels.js"):  # made into pages elsewhere
        assert client.get(f"/static/{name}").status_code == 404


def test_the_map_has_every_instance_found(client: httpx.Client, model: Model, folder: Path) -> None:
    answer = client.get("/api/map").json()
    info = answer["info"]
    expected = {name: model.predict(folder / name) for name in NAMES}
    assert info["count"] == sum(map(len, expected.values())) > 0

    def column(name: str, kind: str) -> Any:
        return np.frombuffer(zlib.decompress(base64.b64decode(answer["columns"][name])), kind)

    names = json.loads(zlib.decompress(base64.b64decode(answer["columns"]["names"])))
    weights = column("weights", "i1").reshape(info["count"], -1) * np.array(info["scales"])
    for image, instance, row in zip(column("image", "<u4"), column("instance", "<u4"), weights, strict=True):
        found = expected[names[image]].coefficients[instance]
        np.testing.assert_allclose(row, found, atol=max(info["scales"]))
    assert info["viewer"] == "/"


def test_a_map_without_instances_says_so(tmp_path: Path, model: Model) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    with serving(Gallery(tmp_path, model)) as client:
        wait_for(client)
        answer = client.get("/api/map")
    assert answer.status_code == 404
    assert "no instance has been found so far" in answer.json()["error"]


def test_only_the_page_of_the_map_may_make_code_from_text(any_client: httpx.Client) -> None:
    for path in ("/", "/map", "/api/map"):
        policies = any_client.get(path).headers.get_list("content-security-policy")
        assert len(policies) == 1
        assert ("'unsafe-eval'" in policies[0]) == (path == "/map")
        assert "default-src 'none'" in policies[0]


def test_every_answer_has_the_security_headers(any_client: httpx.Client) -> None:
    client = any_client
    paths = ["/", "/static/gallery.js", "/static/viewer.js", "/api/images", "/api/scenes/a.png", "/nothing"]
    answers = [client.get(path) for path in paths]
    answers += [client.get("/", headers={"Host": "evil"}), client.post("/"), client.post("/api/uploads", content=b"")]
    assert {answer.status_code for answer in answers} == {200, 404, 405, 421, 422}
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in answer.headers


# --- what is answered -----------------------------------------------------------------------------


def test_the_list_and_the_details_are_those_of_the_predictions(
    client: httpx.Client, folder: Path, model: Model
) -> None:
    answer = client.get("/api/images").json()
    assert answer["model"] == "tiny ü.onnx"
    assert answer["folder"] == "photos"
    assert answer["states"] == {"waiting": 0, "ok": len(NAMES), "empty": 0, "failed": 1}
    assert answer["labels"] is False
    listed = {one["name"]: one for one in answer["images"]}
    assert list(listed) == sorted([*NAMES, "broken.jpg"])
    assert listed["broken.jpg"]["message"] == "broken.jpg: not an image that OpenCV can decode (8 bytes)"
    for name in NAMES:
        prediction = model.predict(folder / name)
        details = client.get(f"/api/images/{quote(name)}").json()
        assert listed[name]["instances"] == len(prediction) == len(details["instances"]) > 0
        assert listed[name]["scores"] == pytest.approx([prediction.scores.min(), prediction.scores.max()])
        assert details["size_hw"] == list(prediction.image_size)
        assert [one["class"] for one in details["instances"]] == prediction.classes.tolist()
        np.testing.assert_allclose([one["box"] for one in details["instances"]], prediction.boxes)
        assert [one["name"] for one in details["instances"]] == [instance.name for instance in prediction]
        assert {one["iou"] for one in details["instances"]} == {None}
    total = {one["id"]: one["instances"] for one in answer["classes"]}
    counted = np.concatenate([model.predict(folder / name).classes for name in NAMES])
    assert total == {int(c): int((counted == c).sum()) for c in np.unique(counted)}
    assert sum(answer["scores"]) == len(counted)


def test_a_scene_is_what_the_viewer_takes(client: httpx.Client, folder: Path, model: Model) -> None:
    answer = client.get("/api/scenes/a.png")
    assert answer.headers["content-type"] == "application/octet-stream"
    header = header_of(answer.content)
    prediction = model.predict(folder / "a.png")
    assert header["source"] == "a.png"  # and no path of this machine
    assert str(folder) not in json.dumps(header)
    np.testing.assert_array_equal([one["coefficients"] for one in header["instances"]], prediction.coefficients)
    assert header["prototypes"]["bits"] == 32


def test_a_corrected_network_serves_its_masks_before_and_after(folder: Path, model: Model) -> None:
    k = model.spec.prototypes
    rng = np.random.default_rng(0)
    tuned = model.with_correction(Correction(rng.normal(0, 0.1, (1, k, k)), rng.normal(0, 0.1, (1, k))))
    with serving(Gallery(folder, tuned)) as client:
        wait_for(client)
        instances = header_of(client.get("/api/scenes/a.png").content)["instances"]
    before, after = model.predict(folder / "a.png"), tuned.predict(folder / "a.png")
    assert len(before) > 0
    np.testing.assert_array_equal([one["coefficients"] for one in instances], after.coefficients)
    np.testing.assert_array_equal([one["untuned"] for one in instances], before.coefficients)


def test_pictures_of_instances_are_drawn_when_they_are_asked_for(folder: Path, model: Model) -> None:
    """The model is asked once more for all of an image, and not by those who look at images alone."""
    gallery = Gallery(folder, model)
    count = len(model.predict(folder / "a.png"))

    async def act(client: httpx.AsyncClient) -> list[tuple[int, bytes, int]]:
        assert (await client.get("/api/thumbnails/a.png?masks=1")).status_code == 200
        before, answers = gallery.predictions, []
        for index in range(count + 1):
            answer = await client.get(f"/api/crops/a.png?index={index}")
            answers.append((answer.status_code, answer.content, gallery.predictions - before))
        return answers

    *found, beyond = in_loop(gallery, act)
    assert count > 1
    assert [status for status, *_ in found] == [200] * count
    assert {asked for *_, asked in found} == {1}
    image = cv2.imread(str(folder / "a.png"))
    assert tuple(picture for _, picture, _ in found) == crops(image, model.predict(image))
    for _, picture, _ in found:
        assert max(cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR).shape[:2]) <= 300
    assert beyond[0] == 422
    assert f"has {count} instances; there is no instance {count}" in beyond[1].decode()


def test_thumbnails_are_small_and_show_masks(folder: Path, model: Model, client: httpx.Client) -> None:
    plain, painted = (
        cv2.imdecode(np.frombuffer(client.get(f"/api/thumbnails/a.png{query}").content, np.uint8), cv2.IMREAD_COLOR)
        for query in ("", "?masks=1")
    )
    assert plain.shape == painted.shape == (72, 96, 3)  # never enlarged
    assert np.abs(plain - cv2.imread(str(folder / "a.png")).astype(int)).mean() < 15  # a noisy image as a JPEG
    masks = model.predict(folder / "a.png").masks("image").any(axis=0).astype(np.uint8)
    inside = cv2.erode(masks, np.ones((3, 3), np.uint8)) > 0
    outside = cv2.dilate(masks, np.ones((33, 33), np.uint8)) == 0  # JPEG blocks reach beyond edges
    moved = np.abs(painted.astype(int) - plain).max(axis=2)
    assert inside.any()
    assert outside.any()
    assert np.median(moved[inside]) > 25
    assert np.median(np.abs(painted.astype(int) - dimmed(plain)).max(axis=2)[outside]) < 12  # greys


def test_large_images_have_small_thumbnails(folder: Path, model: Model) -> None:
    (folder / "large.png").write_bytes(png(3, (900, 300)))
    with serving(Gallery(folder, model)) as client:
        for query in ("", "?masks=1"):
            found = Image.open(BytesIO(client.get(f"/api/thumbnails/large.png{query}").content))
            assert found.size == (400, 133)


def test_a_broken_image_says_why_and_the_rest_goes_on(client: httpx.Client) -> None:
    for path in ("scenes/broken.jpg", "thumbnails/broken.jpg", "thumbnails/broken.jpg?masks=1"):
        answer = client.get(f"/api/{path}")
        assert answer.status_code == 422
        assert answer.json() == {"error": "broken.jpg: not an image that OpenCV can decode (8 bytes)"}
    assert client.get("/api/images/broken.jpg").json()["state"] == "failed"
    assert client.get("/api/scenes/a.png").status_code == 200


def test_a_network_that_fails_on_one_image_costs_that_one(tmp_path: Path, model: Model) -> None:
    """It raises for one image and gives wrong values for another."""

    def function(batch: np.ndarray) -> list[np.ndarray]:
        outputs = model.runtime(batch)
        if batch.max() == 0 and armed:
            raise RuntimeError("out of memory")
        return [output * np.float32(np.nan) if batch.min() == 1 and output.ndim == 4 else output for output in outputs]

    armed: list[int] = []
    network = maskprism.load(FunctionRuntime(function, NetworkInput(1, 64, 64), metadata=model.runtime.metadata))
    armed.append(1)
    for name, colour in (("black.png", 0), ("grey.png", 100), ("white.png", 255)):
        (tmp_path / name).write_bytes(cv2.imencode(".png", np.full((64, 64, 3), colour, np.uint8))[1].tobytes())
    with serving(Gallery(tmp_path, network)) as client:
        assert wait_for(client) == {"total": 3, "examined": 3, "failed": 2}
        messages = [one["message"] for one in client.get("/api/images").json()["images"]]
        assert messages[0] == "black.png: out of memory"
        assert messages[1] == ""
        assert messages[2].startswith("white.png: prototypes 0, 1, 2, 3, 4, 5, 6, 7 hold NaN or infinity")
        assert client.get("/api/scenes/grey.png").status_code == 200


def test_browsers_keep_what_has_not_changed(client: httpx.Client, folder: Path) -> None:
    for path in (
        "/",
        "/static/gallery.css",
        "/api/scenes/a.png",
        "/api/thumbnails/a.png",
        "/api/thumbnails/a.png?masks=1",
    ):
        first = client.get(path)
        assert first.headers["cache-control"] == "private, no-cache"
        again = client.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert client.get(path, headers={"If-None-Match": '"other"'}).content == first.content
    assert client.get("/api/images").headers["cache-control"] == "no-store"


def test_a_changed_file_is_seen_when_the_list_is_asked_for(folder: Path, model: Model) -> None:
    gallery = Gallery(folder, model)

    async def act(client: httpx.AsyncClient) -> None:
        before = (await client.get("/api/thumbnails/a.png?masks=1")).content
        (folder / "a.png").write_bytes(png(7, (64, 64)))
        (folder / "new.png").write_bytes(png(8))
        (folder / "broken.jpg").unlink()
        answer = (await client.get("/api/images")).json()
        assert [one["name"] for one in answer["images"]] == sorted([*NAMES, "new.png"])
        assert answer["states"]["waiting"] == len(NAMES) + 1
        assert (await client.get("/api/thumbnails/a.png?masks=1")).content != before
        assert (await client.get("/api/images/a.png")).json()["size_hw"] == [64, 64]

    in_loop(gallery, act)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("score=2-3", "score is 2 to 3; expected two numbers from 0 to 1"),
        ("score=0.9-0.1", "the lower one first"),
        ("score=nan-1", "score is nan to 1"),
        ("score=high", "a parameter is not a number"),
        ("class=cat", "a parameter is not a number"),
        ("show=everything", "show is 'everything'; expected one of all, ok, empty, failed, missed, false-positives"),
        ("sort=beauty", "expected one of name, score, iou, size, instances"),
        ("limit=0", "limit 0"),
        ("offset=-1", "offset -1"),
        ("colour=red", "there is no parameter 'colour'"),
    ],
)
def test_questions_that_mean_nothing_are_refused(any_client: httpx.Client, query: str, message: str) -> None:
    answer = any_client.get(f"/api/images?{query}")
    assert answer.status_code == 400
    assert message in answer.json()["error"]


# --- filters --------------------------------------------------------------------------------------

records = st.builds(
    lambda instances, missed, state: Record(
        "ok" if instances else state,
        classes=tuple(one[0] for one in instances),
        scores=tuple(one[1] / 4 for one in instances),
        ious=tuple(one[2] / 4 if one[2] else None for one in instances),
        outcomes=tuple("true positive" if one[2] else "false positive" for one in instances),
        errors=tuple("localisation" if one[2] == 1 else None for one in instances),
        missed=tuple(missed),
        losses=tuple(dict.fromkeys(PARTS, one[2] / 8 - 0.25) if one[2] else None for one in instances),
    ),
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4), st.integers(0, 4)), max_size=4),
    st.lists(st.integers(0, 2), max_size=2),
    st.sampled_from(["empty", "failed", "waiting"]),
)
bounds = st.tuples(st.integers(0, 4), st.integers(0, 4)).map(lambda pair: (min(pair) / 4, max(pair) / 4))


@given(
    found=st.lists(records, max_size=6),
    classes=st.frozensets(st.integers(0, 2)),
    score=bounds,
    iou=bounds,
    show=st.sampled_from(["all", "ok", "empty", "failed", "missed", "false-positives", "localisation"]),
    sort=st.sampled_from(["name", "score", "iou", "instances", "box"]),
    text=st.sampled_from(["", "1", "X"]),
)
def test_filters_against_their_definition(found: list[Record], **asked: Any) -> None:
    query = Query(**asked)
    titles = [f"{number}.Jpg x" for number in range(len(found))]
    answer = [
        (query.rank(record, query.fitting(record)), title)
        for title, record in zip(titles, found, strict=True)
        if query.takes(title, record, query.fitting(record))
    ]
    expected = []
    for title, record in zip(titles, found, strict=True):
        fitting = []
        for class_id, score, iou in zip(record.classes, record.scores, record.ious, strict=True):
            right_class = not asked["classes"] or class_id in asked["classes"]
            if (
                right_class
                and asked["score"][0] <= score <= asked["score"][1]
                and (asked["iou"] == (0, 1) or (iou is not None and asked["iou"][0] <= iou <= asked["iou"][1]))
                and (asked["show"] != "false-positives" or iou is None)
                and (asked["show"] != "localisation" or iou == 0.25)
            ):
                fitting.append((score, iou))
        everything = not asked["classes"] and asked["score"] == asked["iou"] == (0, 1)
        everything &= asked["show"] not in ("false-positives", "localisation")
        wanted = bool(fitting) or everything
        if asked["show"] == "missed":
            wanted = bool([one for one in record.missed if not asked["classes"] or one in asked["classes"]])
        elif asked["show"] not in ("all", "false-positives", "localisation"):
            wanted = wanted and record.state == asked["show"]
        if not wanted or asked["text"].lower() not in title.lower():
            continue
        rank = {
            "name": 0,
            "score": min([score for score, _ in fitting], default=np.inf),
            "iou": min([iou for _, iou in fitting if iou is not None], default=np.inf),
            "instances": -len(fitting),
            "box": min([0.25 - iou / 2 for _, iou in fitting if iou is not None], default=np.inf),
        }[asked["sort"]]
        expected.append((rank, title))
    assert answer == expected


def test_the_gallery_asks_for_suspicious_labels() -> None:
    rows = [LabelRow(number, "cat", (0, 0, 1, 1), "hole", suspicion) for number, suspicion in enumerate((0.6, 0.8))]
    query = Query(show="suspicious", sort="suspicion")
    suspected, other = Record("empty", suspicious=tuple(rows)), Record("ok")
    assert query.takes("a.png", suspected, [])
    assert not query.takes("b.png", other, [])
    assert query.rank(suspected, []) == -0.8
    assert query.rank(other, []) == 0


def test_an_image_stands_for_the_instance_that_put_it_there() -> None:
    """The lowest IoU, and not the false positive beside it, which has no IoU."""
    record = Record(
        "ok",
        classes=(0, 1, 0, 0),
        scores=(0.9, 0.4, 0.3, 0.5),
        ious=(0.939, None, 0.12, None),
        outcomes=("true positive", "false positive", "true positive", "false positive"),
        errors=(None, "class", "localisation", None),
    )
    everything = list(range(4))
    assert Query(sort="iou").stands_for(record, everything) == 2
    assert Query(sort="iou").rank(record, everything) == 0.12
    assert Query(sort="score").stands_for(record, everything) == 2
    false = Query(show="false-positives", sort="score")
    assert false.fitting(record) == [1, 3]
    assert false.stands_for(record, false.fitting(record)) == 1
    assert Query(show="localisation").fitting(record) == [2]
    assert Query(show="false-positives", sort="iou").stands_for(record, [1, 3]) == 1  # neither has an IoU
    assert Query(classes=frozenset({1})).stands_for(record, [1]) == 1
    assert Query().stands_for(record, everything) is None
    assert Query(sort="iou", classes=frozenset({7})).stands_for(record, []) is None
    unlabelled = Record("ok", classes=(0,), scores=(0.9,))
    assert Query(sort="iou").stands_for(unlabelled, [0]) is None
    assert Query(show="false-positives").fitting(unlabelled) == []


def test_pages_of_the_list_make_up_the_whole(client: httpx.Client) -> None:
    whole = client.get("/api/images?sort=score").json()
    pages = [client.get(f"/api/images?sort=score&offset={offset}&limit=2").json() for offset in range(0, 6, 2)]
    assert [one["name"] for page in pages for one in page["images"]] == [one["name"] for one in whole["images"]]
    assert {page["matches"] for page in pages} == {len(NAMES) + 1}
    fitting = client.get("/api/images?class=1&score=0.5-1").json()
    assert 0 < fitting["matches"] <= len(NAMES)
    for one in fitting["images"]:
        details = client.get(f"/api/images/{quote(one['name'])}").json()["instances"]
        right = [i for i, thing in enumerate(details) if thing["class"] == 1 and thing["score"] >= 0.5]
        assert one["fitting"] == right != []


# --- labels ---------------------------------------------------------------------------------------


def test_labels_of_a_data_set_are_compared(tmp_path: Path) -> None:
    """With the bundled model on scenes, whose ground truth is known."""
    data = write_dataset(tmp_path, 4, seed=0, validation_share=0.5)
    broken = sorted((tmp_path / "labels" / "train").iterdir())[0]
    broken.write_text("no label\n")
    network = maskprism.load("sample", threads=1)
    labels = open_labels(data, tmp_path / "images", network.spec.names)
    assert len(labels) == 4  # of both splits
    assert len(open_labels(data, tmp_path / "images", network.spec.names, "val")) == 2
    gallery = Gallery(tmp_path / "images", network, labels=labels.match)
    with serving(gallery) as client:
        wait_for(client)
        answer = client.get("/api/images").json()
        assert answer["labels"] is True
        assert answer["matching"]["rule"] == MATCHING_RULE
        listed = {one["name"]: one for one in answer["images"]}
        first = listed.pop(f"train/{broken.stem}.png")
        assert "its labels cannot be used" in first["message"]
        assert first["state"] == "ok"
        assert first["ious"] is None
        for name, one in listed.items():
            scene = draw_scene(int(name[-10:-4]))
            prediction = network.predict(scene.image)
            truth = GroundTruth.of_masks(scene.masks, scene.classes.tolist())
            expected = match_masks(prediction, truth)
            lost_by = {row.instance: {part: getattr(row, part) for part in PARTS} for row in budgets(prediction, truth)}
            details = client.get(f"/api/images/{name}").json()
            assert tuple(thing["outcome"] for thing in details["instances"]) == expected.outcomes
            assert tuple(thing["error"] for thing in details["instances"]) == expected.errors
            assert one["false_positives"] == len(expected.false_positives)
            assert [thing["class"] for thing in details["missed"]] == truth.classes[expected.missed].tolist()
            for index, thing in enumerate(details["instances"]):
                lost = lost_by.get(index)
                assert thing["losses"] == (None if lost is None else pytest.approx(lost, abs=0.02))
                if lost is not None:
                    assert thing["iou"] == pytest.approx(expected.mask_iou_of(index), abs=0.02)
                    assert sum(thing["losses"].values()) == pytest.approx(1 - thing["iou"], abs=1e-9)
            assert len(expected.missed) == one["missed"]
            truths = [
                thing["truth"] is not None
                for thing in header_of(client.get(f"/api/scenes/{name}").content)["instances"]
            ]
            assert truths == [outcome == "true positive" for outcome in expected.outcomes]
        for part in PARTS:
            cards = client.get(f"/api/images?view=instances&sort={part}").json()["images"]
            lost = [one["stands_for"]["losses"][part] for one in cards if one["stands_for"]["losses"]]
            assert lost == sorted(lost, reverse=True)
            assert len(lost) > 3
            assert all(one["stands_for"]["outcome"] != "true positive" for one in cards[len(lost) :])
        poor = client.get("/api/images?iou=0-0.7&sort=iou").json()["images"]
        assert [one["name"] for one in poor] == sorted(
            (name for name, one in listed.items() if one["ious"][0] <= 0.7), key=lambda name: listed[name]["ious"][0]
        )


# --- work: once, bounded, never in the way --------------------------------------------------------


def test_one_image_is_examined_once_however_many_ask(folder: Path, model: Model) -> None:
    gallery = Gallery(folder, model)

    async def act(client: httpx.AsyncClient) -> None:
        paths = ["/api/scenes/a.png", "/api/images/a.png", "/api/scenes/a.png"] * 10
        answers = await asyncio.gather(*(client.get(path) for path in paths))
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.content for answer in answers}) == 2
        assert gallery.predictions == 1
        await client.get("/api/thumbnails/a.png?masks=1")
        assert gallery.predictions == 1
        await asyncio.gather(*(client.get("/api/scenes/broken.jpg") for _ in range(5)))
        await client.get("/api/scenes/broken.jpg")
        assert gallery.predictions == 2

    in_loop(gallery, act)


def test_memory_stays_within_the_bound(folder: Path, model: Model) -> None:
    """Room for two scenes: the others are computed again when asked for, and still come out right."""
    size = len(in_loop(Gallery(folder, model), lambda client: client.get("/api/scenes/a.png")).content)
    gallery = Gallery(folder, model, limits=Limits(cache_bytes=int(2.5 * size / 7 * 8)))

    async def act(client: httpx.AsyncClient) -> None:
        seen = [(await client.get(f"/api/scenes/{quote(name)}")).content for name in NAMES]
        assert gallery.predictions == len(NAMES)
        assert len(gallery.scenes) == 2
        assert gallery.scenes.held <= gallery.scenes.limit
        assert (await client.get(f"/api/scenes/{quote(NAMES[-1])}")).content == seen[-1]
        assert gallery.predictions == len(NAMES)
        assert (await client.get(f"/api/scenes/{quote(NAMES[0])}")).content == seen[0]
        assert gallery.predictions == len(NAMES) + 1
        assert gallery.thumbnails.held <= gallery.thumbnails.limit

    in_loop(gallery, act)
    tiny = Gallery(folder, model, limits=Limits(cache_bytes=100))
    answers = in_loop(tiny, lambda client: asyncio.gather(*(client.get("/api/scenes/a.png") for _ in range(3))))
    assert {answer.status_code for answer in answers} == {200}
    assert len(tiny.scenes) == len(tiny.thumbnails) == 0


def test_the_background_pushes_nothing_out(folder: Path, model: Model) -> None:
    size = len(in_loop(Gallery(folder, model), lambda client: client.get("/api/scenes/a.png")).content)
    gallery = Gallery(folder, model, limits=Limits(cache_bytes=int(1.5 * size / 7 * 8)))

    async def act(client: httpx.AsyncClient) -> None:
        await client.get("/api/scenes/sub%20dir/a.png")
        await gallery.start()
        while (await client.get("/api/progress")).json()["examined"] < len(NAMES) + 1:
            await asyncio.sleep(0.01)
        asked = gallery.predictions
        await client.get("/api/scenes/sub%20dir/a.png")
        assert gallery.predictions == asked == len(NAMES) + 1

    in_loop(gallery, act)


def test_a_slow_network_does_not_hold_up_other_answers(folder: Path, model: Model) -> None:
    """While every thread of the model is stuck, lists, pictures and pages are answered."""
    stuck, go = threading.Semaphore(0), threading.Event()

    def function(batch: np.ndarray) -> list[np.ndarray]:
        if armed:
            stuck.release()
            assert go.wait(60)
        return model.runtime(batch)

    armed: list[int] = []
    network = maskprism.load(FunctionRuntime(function, NetworkInput(1, 64, 64), metadata=model.runtime.metadata))
    armed.append(1)
    gallery = Gallery(folder, network, limits=Limits(workers=2))

    async def act(client: httpx.AsyncClient) -> None:
        slow = [asyncio.create_task(client.get(f"/api/scenes/{quote(name)}")) for name in NAMES]
        for _ in range(2):
            await asyncio.to_thread(stuck.acquire)
        for path in ("/api/images?class=1", "/api/thumbnails/a.png", "/api/progress", "/", "/static/viewer.js"):
            assert (await client.get(path)).status_code == 200
        assert not any(task.done() for task in slow)
        go.set()
        assert {answer.status_code for answer in await asyncio.gather(*slow)} == {200}

    in_loop(gallery, act)


# --- uploads --------------------------------------------------------------------------------------


def test_an_upload_is_examined_and_never_written(client: httpx.Client, folder: Path, model: Model) -> None:
    before = sorted(path.name for path in folder.rglob("*"))
    data = png(5)
    answer = client.post("/api/uploads?name=..%2F..%2Fholiday%20%C3%BC.png", content=data)
    assert answer.status_code == 201
    found = answer.json()
    assert found["title"] == "holiday ü.png"
    assert re.fullmatch(r"upload:[0-9a-f]{16}/holiday ü\.png", found["name"])
    prediction = model.predict(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))
    assert [one["score"] for one in found["instances"]] == pytest.approx(prediction.scores.tolist())
    scene = client.get(f"/api/scenes/{quote(found['name'])}")
    assert header_of(scene.content)["source"] == "holiday ü.png"
    listed = client.get("/api/images").json()["images"]
    assert (listed[0]["name"], listed[0]["uploaded"]) == (found["name"], True)
    again = client.post("/api/uploads?name=holiday%20%C3%BC.png", content=data).json()
    assert again == found  # the same image is the same entry
    assert client.get("/api/images").json()["total"] == len(NAMES) + 2
    assert sorted(path.name for path in folder.rglob("*")) == before


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header claims a size, and nothing behind it that would need to be unpacked."""
    held = BytesIO()
    Image.new("1", (width, height)).save(held, "PNG")
    return held.getvalue()


def test_uploads_have_limits(folder: Path, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = Gallery(folder, model, limits=Limits(upload_bytes=50_000, upload_pixels=100_000))
    with serving(gallery) as client:
        wait_for(client)
        assert client.get("/api/images").json()["upload_bytes"] == 50_000
        assert client.post("/api/uploads?name=ok.png", content=png(2)).status_code == 201

        def chunks() -> Iterator[bytes]:  # a body that does not say how long it is
            for _ in range(10):
                yield bytes(10_000)

        decoded: list[int] = []
        monkeypatch.setattr(cv2, "imdecode", lambda *_: decoded.append(1))
        for content, status, message in (
            (bytes(50_001), 413, "larger than the limit"),
            (chunks(), 413, "larger than the limit"),
            (bomb(400, 400), 422, "unpacks to 400 x 400"),
            (b"GIF89a" + bytes(2000), 422, "bad.png: not an image whose header tells its size (2006 bytes)"),
            (b"<script>alert(1)</script>", 422, "not an image"),
            (b"", 422, "the file is empty"),
        ):
            answer = client.post("/api/uploads?name=bad.png", content=content)
            assert answer.status_code == status
            assert message in answer.json()["error"]
        assert not decoded  # all of them were refused by size or header
        assert client.get("/api/images").json()["total"] == len(NAMES) + 2


def test_old_uploads_make_room(folder: Path, model: Model) -> None:
    data = [png(seed) for seed in range(8)]
    limit = max(map(len, data))
    gallery = Gallery(folder, model, limits=Limits(upload_bytes=limit))
    with serving(gallery) as client:
        names = [client.post(f"/api/uploads?name={i}.png", content=one).json()["name"] for i, one in enumerate(data)]
        kept = [one["name"] for one in client.get("/api/images").json()["images"] if one["uploaded"]]
        assert kept == names[::-1][: len(kept)]
        assert 4 <= len(kept) < 8
        assert client.get(f"/api/scenes/{names[0]}").status_code == 404


class Unfinished:
    """An upload that claims a megabyte, and sends only a part of it."""

    def __init__(self, port: int, begun: bytes = b"\x89PNG") -> None:
        self.connection = socket.create_connection(("127.0.0.1", port), timeout=20)
        head = "POST /api/uploads?name=slow.png HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000\r\n\r\n"
        self.connection.sendall(head.encode() + begun)

    def answer(self, drip_s: float | None = None) -> tuple[int, dict[str, Any], float]:
        """Status, JSON and seconds until the server hung up, while a byte is sent now and then."""
        began = time.monotonic()
        self.connection.settimeout(drip_s or 20)
        answer = b""
        while True:
            try:
                came = self.connection.recv(65536)
            except TimeoutError:
                assert drip_s is not None, "no answer"
                self.connection.sendall(b"x")
                continue
            except ConnectionResetError:  # a byte crossed the end of the connection
                came = b""
            if not came:
                break
            answer += came
        self.connection.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(body), time.monotonic() - began


def port_of(client: httpx.Client) -> int:
    assert client.base_url.port is not None
    return client.base_url.port


@pytest.mark.parametrize("drip_s", [None, 0.05], ids=["silent", "dripping"])
def test_an_upload_that_does_not_end_is_cut_off(folder: Path, model: Model, drip_s: float | None) -> None:
    with serving(Gallery(folder, model, limits=Limits(upload_s=0.5))) as client:
        status, said, seconds = Unfinished(port_of(client)).answer(drip_s)
        assert status == 408
        assert re.fullmatch(
            r"the image took longer than 0\.5 s to arrive \(\d+ of 1000000 bytes came\); "
            "upload a smaller file, or start the server with more --max-upload-seconds",
            said["error"],
        )
        assert 0.3 < seconds < 5
        assert client.get("/api/images").json()["total"] == len(NAMES) + 1


def test_uploads_wait_for_their_turn(folder: Path, model: Model) -> None:
    """Four that never end hold the others up only as long as one of them may take."""
    with serving(Gallery(folder, model, limits=Limits(upload_s=1.0))) as client:
        wait_for(client)
        stuck = [Unfinished(port_of(client)) for _ in range(4)]
        time.sleep(0.2)  # they have the four places
        with ThreadPoolExecutor(6) as pool:
            answers = pool.map(lambda seed: client.post(f"/api/uploads?name={seed}.png", content=png(seed)), range(6))
            assert [answer.status_code for answer in answers] == [201] * 6
        assert [one.answer()[0] for one in stuck] == [408] * 4


def test_an_upload_whose_turn_does_not_come_is_refused(folder: Path, model: Model) -> None:
    gallery = Gallery(folder, model, limits=Limits(upload_s=0.15))

    async def busy(client: httpx.AsyncClient) -> httpx.Response:
        free = threading.Event()
        network = ThreadPoolExecutor(1)
        gallery._network = network
        network.submit(free.wait)  # the model is at something long
        holding = [asyncio.create_task(client.post("/api/uploads?name=a.png", content=png(n))) for n in range(4)]
        try:
            await asyncio.sleep(0.1)  # they have the four places
            refused = await client.post("/api/uploads?name=b.png", content=png(5))
        finally:
            free.set()
        assert [answer.status_code for answer in await asyncio.gather(*holding)] == [201] * 4  # slow is no failure
        again = await client.post("/api/uploads?name=b.png", content=png(5))
        assert again.status_code == 201
        return refused

    refused = in_loop(gallery, busy)
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "1"
    assert refused.json()["error"] == ("4 other uploads were under way for 0.3 s; try again later")


# --- the installed command ------------------------------------------------------------------------


class running:  # noqa: N801  # a context manager
    """`maskprism serve` as a user starts it, on a free port."""

    def __init__(self, folder: Path, *options: object) -> None:
        model = () if "--model" in options else ("--model", "sample")
        self.arguments = [*COMMAND, "serve", str(folder), "--port", "0", *map(str, (*options, *model))]

    def __enter__(self) -> tuple[subprocess.Popen[str], int]:
        self.process = subprocess.Popen(self.arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"http://[^ ]+:(\d+)/", line)
        assert found, line + self.process.communicate(timeout=20)[1]
        self.line = line
        return self.process, int(found[1])

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate(timeout=20)


@pytest.mark.study
def test_fifty_at_once_and_a_clean_end(folder: Path, model_file: Path) -> None:
    for number in range(12):
        (folder / f"{number:02d}.png").write_bytes(png(number))
    with running(folder, "--model", model_file) as (process, port):
        together = threading.Barrier(50)

        def ask(number: int) -> int:
            name = ("00.png", f"{number % 12:02d}.png", "broken.jpg", "nothing.png")[number % 4]
            path = (f"/api/scenes/{name}", f"/api/thumbnails/{name}?masks=1", "/api/images?class=1")[number % 3]
            together.wait(60)
            return httpx.get(f"http://127.0.0.1:{port}{path}", timeout=60).status_code

        with ThreadPoolExecutor(50) as pool:
            answers = list(pool.map(ask, range(50)))
        for number, status in enumerate(answers):
            assert status == (200 if number % 3 == 2 else (200, 200, 422, 404)[number % 4])
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=30)
        assert process.returncode == 0, errors
        assert output == "stopped\n"
        assert errors == ""


def test_ctrl_c_again_changes_nothing(folder: Path) -> None:
    for number in range(40):
        (folder / f"{number:02d}.png").write_bytes(png(number % 4, (320, 320)))
    with running(folder) as (process, port):
        asked = scenes(port)
        for _ in range(3):
            process.send_signal(signal.SIGINT)
            time.sleep(0.02)
        output, errors = process.communicate(timeout=30)
        assert (process.returncode, output, errors) == (0, "stopped\n", "")
        for connection in asked:
            connection.close()


Ask = Callable[[int], list[socket.socket]]


def nothing(port: int) -> list[socket.socket]:
    return []


def scenes(port: int) -> list[socket.socket]:
    """Requests that wait for the model, one after the other of the same connection, and are never read."""
    asked = []
    for number in range(20, 40):
        asked.append(socket.create_connection(("127.0.0.1", port), timeout=20))
        request = f"GET /api/scenes/{number:02d}.png HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        asked[-1].sendall(request.encode() * 3)
    return asked


def uploads(port: int) -> list[socket.socket]:
    """Four that do not end, and two that wait for their turn."""
    return [Unfinished(port).connection for _ in range(6)]


SIGINT, SIGTERM = (signal.SIGINT, 0, "stopped\n"), (signal.SIGTERM, -signal.SIGTERM, "")


@pytest.mark.study
@pytest.mark.parametrize(
    ("number", "code", "said", "ask", "wait_s"),
    [
        (*SIGINT, nothing, 0),
        (*SIGINT, scenes, 0),
        (*SIGINT, scenes, 0.3),
        (*SIGINT, uploads, 0.3),
        (*SIGTERM, scenes, 0.3),
        (*SIGTERM, uploads, 0.3),
    ],
)
def test_it_ends_quietly_whatever_is_under_way(
    folder: Path, number: signal.Signals, code: int, said: str, ask: Ask, wait_s: float
) -> None:
    for seed in range(40):
        (folder / f"{seed:02d}.png").write_bytes(png(seed % 4))
    with running(folder) as (process, port):
        asked = ask(port)
        time.sleep(wait_s)
        process.send_signal(number)
        output, errors = process.communicate(timeout=30)
        assert (process.returncode, output, errors) == (code, said, "")
        for connection in asked:
            connection.close()


def test_requests_that_wait_are_answered_at_the_end(folder: Path, model_file: Path) -> None:
    with running(folder, "--model", model_file) as (process, port):
        upload = Unfinished(port)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        assert upload.answer()[:2] == (503, {"error": "the server is stopping"})
        assert process.communicate(timeout=30)[1] == ""


def test_the_deadline_of_uploads_can_be_set(folder: Path, model_file: Path) -> None:
    with running(folder, "--model", model_file, "--max-upload-seconds", 1) as (process, port):
        stuck = [Unfinished(port) for _ in range(4)]
        answer = httpx.post(f"http://127.0.0.1:{port}/api/uploads?name=a.png", content=png(3), timeout=20)
        assert answer.status_code == 201
        for one in stuck:
            status, said, _ = one.answer(drip_s=0.2)
            assert status == 408
            assert "the image took longer than 1 s to arrive" in said["error"]
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30) == ("stopped\n", "")


def fails(*arguments: object) -> str:
    """The one line that a command which cannot work says."""
    result = in_process.command("serve", *arguments, "--model", "sample")
    assert result.returncode == 1, result.stdout + result.stderr
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr


@pytest.mark.timeout(60)  # else it would serve, in this process
def test_mistakes_end_in_one_line(folder: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = fails(folder, "--port", port)
        assert said.startswith(f"maskprism: cannot listen on 127.0.0.1, port {port} (Address already in use)")
        assert "choose another --port" in said
    assert "is not a folder" in fails(tmp_path / "nothing")
    assert "--cache-mb is 0" in fails(folder, "--cache-mb", 0)
    assert "--max-upload-seconds is 0" in fails(folder, "--max-upload-seconds", 0)


def test_addresses_that_cannot_be_used(folder: Path, model: Model) -> None:
    with pytest.raises(InputError, match="port is 70000; expected 0 to 65535"):
        serve(folder, model, port=70000)
    with pytest.raises(MaskprismError, match=r"cannot listen on no\.such\.host\.invalid"):
        serve(folder, model, host="no.such.host.invalid")


def test_an_empty_folder_is_served(tmp_path: Path, model_file: Path) -> None:
    with running(tmp_path, "--model", model_file) as (_, port):
        answer = httpx.get(f"http://127.0.0.1:{port}/api/images").json()
        assert (answer["total"], answer["images"]) == (0, [])
        assert httpx.get(f"http://127.0.0.1:{port}/").status_code == 200


def test_what_the_command_says(folder: Path, tmp_path: Path, model_file: Path) -> None:
    (folder / "out.png").symlink_to(tmp_path / "secret.png")
    server = running(folder, "--model", model_file, "--host", "0.0.0.0")
    with server as (process, port):
        assert server.line == f"{len(NAMES) + 1} images of {folder} at http://0.0.0.0:{port}/ (Ctrl-C stops)\n"
        assert httpx.get(f"http://127.0.0.1:{port}/api/progress").status_code == 200
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=30)[1]
        assert "left out: 1 link" in errors
        assert "everybody who can reach 0.0.0.0 can see these images" in errors


def test_without_the_extra_it_names_the_install_command() -> None:
    code = (
        "import sys; sys.modules['uvicorn'] = None; sys.argv = ['maskprism', 'serve', '.']\n"
        "from maskprism.cli import main; main()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert result.stderr == (
        "maskprism: the server needs the package uvicorn, which is not installed; "
        "install it with: pip install 'maskprism[serve]'\n"
    )


def test_serve_can_be_called_from_python(folder: Path, model: Model) -> None:
    seen: list[str] = []

    def ready(url: str, gallery: Gallery) -> None:
        seen.append(url)
        raise InterruptedError

    with pytest.raises(InterruptedError):
        serve(folder, model, port=0, on_ready=ready)
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", seen[0])


def test_the_api_is_documented(folder: Path, model: Model) -> None:
    page = (Path(__file__).parents[2] / "docs" / "server.md").read_text(encoding="utf-8")
    routes = [route for route in create_app(Gallery(folder, model)).app.routes if route.path.startswith("/api/")]
    assert len(routes) == 9
    for route in routes:
        method = "POST" if "POST" in route.methods else "GET"
        assert f"`{method} {route.path.replace('{name:file}', 'NAME')}" in page
    for name in (*(field.name for field in fields(Query) if field.name != "classes"), "class"):
        assert f"`{name}" in page
    for kind in (*SHOWS, *SORTS):
        assert f"`{kind}`" in page


# --- finished pages -------------------------------------------------------------------------------


def test_a_folder_of_finished_pages_is_served_and_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    folder = tmp_path / "pages"
    folder.mkdir()
    with pytest.raises(InputError, match=r"has no index\.html"):
        create_static_app(folder)
    (folder / "index.html").write_text("<title>here</title>")
    (folder / "network.wasm").write_bytes(b"\0asm")
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    transport = httpx.ASGITransport(app=create_static_app(folder))

    async def act() -> None:
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            page = await client.get("/")
            assert "here" in page.text
            assert "'wasm-unsafe-eval'" in page.headers["content-security-policy"]
            assert page.headers["cross-origin-embedder-policy"] == "require-corp"
            assert (await client.get("/network.wasm")).headers["content-type"] == "application/wasm"
            for path in ("/../secret.txt", "/%2e%2e/secret.txt", "/link.txt", "/nothing"):
                assert (await client.get(path)).status_code == 404, path
            assert (await client.get("/", headers={"host": "elsewhere.test"})).status_code == 421

    asyncio.run(act())


def test_serve_takes_one_kind_of_folder(tmp_path: Path) -> None:
    for arguments in ((), (tmp_path, "--static", tmp_path)):
        done = in_process.command("serve", *arguments)
        assert done.returncode == 1
        assert "name a folder with images or results, or one of finished pages with --static DIR" in done.stderr
