"""The scene that the viewer is given, and the page around it; tests/browser looks at them in a browser."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import re
import struct
import zlib
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import maskprism
from helpers import decode_cases, in_process, viewer_cases
from helpers.strategies import predictions, seeds
from maskprism import Letterbox, Prediction
from maskprism.analysis.truth.matching import Matches
from maskprism.core.masks import ULTRALYTICS
from maskprism.datasets import GroundTruth
from maskprism.datasets.scenes import draw_scene, write_dataset
from maskprism.errors import InputError, MaskprismError
from maskprism.io.sources import open_sources
from maskprism.reports.explanation import explain_images
from maskprism.reports.manifest import read_manifest
from maskprism.viewer.page import Page, write_page, write_pair
from maskprism.viewer.payload import MAGIC, as_shown, viewer_scene

HOSTILE = '</script><img src=x onerror="window.hacked = 1"> & \u2028 <!-- \udce9'


def unpack(message: bytes) -> tuple[dict[str, Any], bytes]:
    """The slow twin of what the viewer does."""
    assert message[:8] == MAGIC
    length = struct.unpack("<I", message[8:12])[0]
    return json.loads(message[12 : 12 + length]), message[12 + length :]


def section(header: dict[str, int], buffer: bytes) -> bytes:
    return buffer[header["offset"] : header["offset"] + header["length"]]


def prototypes_of(header: dict[str, Any], buffer: bytes) -> np.ndarray:
    """Number by number."""
    about = header["prototypes"]
    data, bits = section(about, buffer), about["bits"]
    k, h, w = about["k"], about["h"], about["w"]
    if bits == 32:
        return np.frombuffer(data, "<f4").reshape(k, h, w)
    raw = zlib.decompress(data)
    values = np.empty((k, h, w), np.float32)
    level = 0
    for index in range(k * h * w):
        row, column = divmod(index, w)
        difference = raw[index] + (raw[k * h * w + index] << 8 if bits == 16 else 0)
        level = (difference + (level if column else 0)) % (1 << bits)
        prototype = row // h
        values[prototype, row % h, column] = about["low"][prototype] + about["step"][prototype] * level
    return values


def image_for(prediction: Prediction) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (*prediction.image_size, 3), dtype=np.uint8)


@settings(max_examples=30)
@given(predictions(), st.sampled_from([8, 16, 32]))
def test_a_scene_holds_the_prediction(prediction: Prediction, bits: Any) -> None:
    header, buffer = unpack(viewer_scene(image_for(prediction), prediction, bits=bits).pack())
    shown = as_shown(prediction, bits)
    assert np.array_equal(prototypes_of(header, buffer), shown.prototypes)
    for said, instance in zip(header["instances"], prediction, strict=True):
        assert np.array_equal(np.float32(said["coefficients"]), instance.coefficients)
        assert np.array_equal(np.float32(said["canvas_box"]), instance.canvas_box)
        assert (said["class"], said["name"], said["score"]) == (instance.class_id, instance.name, instance.score)
    letterbox = Letterbox(**{name: tuple(value) for name, value in header["letterbox"].items()})
    assert letterbox == prediction.letterbox
    assert header["rule"] == {
        **{name: getattr(prediction.rule, name) for name in prediction.rule.__dataclass_fields__},
        "threshold": prediction.rule.threshold,
    }
    picture = cv2.imdecode(np.frombuffer(section(header["image"], buffer), np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape[:2] == tuple(header["image"]["size_hw"]) == prediction.image_size


@settings(max_examples=30)
@given(predictions(), st.sampled_from([8, 16]))
def test_no_logit_is_further_off_than_the_bound_says(prediction: Prediction, bits: Any) -> None:
    header, _ = viewer_scene(image_for(prediction), prediction, bits=bits)
    shown = as_shown(prediction, bits)
    for size in ("grid", "canvas", "image"):
        off = np.abs(prediction.logits(size) - shown.logits(size)).max(axis=(1, 2))
        for found, said in zip(off, header["instances"], strict=True):
            assert found <= said["logit_error"] + 1e-4
    assert (as_shown(prediction, 8).prototypes.min() == prediction.prototypes.min()) or len(prediction.prototypes) == 0


def test_prototypes_of_one_value_stay_exact() -> None:
    prediction = viewer_cases.prediction_of("ultralytics", viewer_cases.LETTERBOXES["fit"], 0)
    flat = replace(prediction, prototypes=np.full_like(prediction.prototypes, -0.1))
    assert np.array_equal(as_shown(flat, 8).prototypes, flat.prototypes)


@settings(max_examples=20)
@given(seeds, st.floats(0, 1))
def test_ground_truth_is_kept_as_runs(seed: int, share: float) -> None:
    prediction = viewer_cases.prediction_of("retina", viewer_cases.LETTERBOXES["fit"], 1)
    mask = np.random.default_rng(seed).random(prediction.image_size) < share
    truth, pair = GroundTruth.of_masks([mask], [0]), Matches.given([1], [0], [1])
    header, buffer = viewer_scene(image_for(prediction), prediction, truth=truth, matches=pair)
    assert header["instances"][0]["truth"] is None
    said = header["instances"][1]["truth"]
    flat = [index % 2 for index, run in enumerate(np.frombuffer(section(said, buffer), "<u4")) for _ in range(run)]
    assert np.array_equal(np.array(flat, dtype=bool).reshape(mask.shape), mask)
    assert said["area"] == mask.sum()


def test_large_images_are_shrunk_and_their_frames_are_not() -> None:
    letterbox = Letterbox.fit((300, 900), (32, 32)).with_grid((8, 8))
    prediction = viewer_cases.prediction_of("ultralytics", letterbox, 0)
    header, buffer = viewer_scene(image_for(prediction), prediction, image_side=300)
    picture = cv2.imdecode(np.frombuffer(section(header["image"], buffer), np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (100, 300, 3)
    assert header["letterbox"]["image_hw"] == (300, 900)


def test_what_does_not_fit_together_is_refused() -> None:
    prediction = viewer_cases.prediction_of("ultralytics", viewer_cases.LETTERBOXES["fit"], 0)
    image = image_for(prediction)
    with pytest.raises(InputError, match="the image is 3 x 4 pixels"):
        viewer_scene(np.zeros((4, 3, 3), np.uint8), prediction)
    with pytest.raises(InputError, match="bits is 12"):
        viewer_scene(image, prediction, bits=12)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="the ground truth is about an image of 2 x 2 pixels"):
        viewer_scene(image, prediction, truth=GroundTruth.of_masks([np.ones((2, 2), bool)], [0]))
    broken = replace(prediction, prototypes=np.full_like(prediction.prototypes, np.nan))
    with pytest.raises(InputError, match="prototypes hold values that are not finite"):
        viewer_scene(image, broken)
    with pytest.raises(InputError, match="no image"):
        Page().html()
    with pytest.raises(InputError, match="bits is 32"):
        Page(bits=32)  # type: ignore[arg-type]


def test_the_shared_table_is_what_maskprism_says() -> None:
    """`node --test` holds the viewer against the same file."""
    assert json.loads(decode_cases.PATH.read_text(encoding="utf-8")) == json.loads(decode_cases.text())
    committed = json.loads(viewer_cases.PATH.read_text(encoding="utf-8"))
    assert committed["palette"] == viewer_cases.tables()
    assert committed["colours"] == json.loads(json.dumps(viewer_cases.colour_cases()))
    assert [case["found"] for case in committed["roles"]] == [
        case["found"] for case in json.loads(json.dumps(viewer_cases.role_cases()))
    ]
    found = json.loads(json.dumps(viewer_cases.cases()))
    assert [one["name"] for one in found] == [one["name"] for one in committed["cases"]]
    for one, other in zip(found, committed["cases"], strict=True):
        for state in ("original", "edited"):
            for mine, its in zip(one[state], other[state], strict=True):
                assert mine["order"] == its["order"]
                for size, patch in mine["patches"].items():
                    assert_same_patch(patch, its["patches"][size])
                assert_same_patch(mine["uncropped"], its["uncropped"])
                for name in ("weights", "effects"):
                    assert mine[name] == pytest.approx(its[name], rel=1e-5)
                assert mine["pixel"]["terms"] == pytest.approx(its["pixel"]["terms"], rel=1e-4, abs=1e-6)


def assert_same_patch(mine: dict[str, Any], its: dict[str, Any]) -> None:
    assert (mine["rows"], mine["columns"]) == (its["rows"], its["columns"])
    a, b = (np.frombuffer(base64.b64decode(one["values"]), np.float32) for one in (mine, its))
    np.testing.assert_allclose(a, b, atol=2e-5)


class Elements(HTMLParser):
    """The elements of a page as a browser reads them, with their text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=False)
        self.found: list[tuple[str, dict[str, str | None], str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        self.found.append(("", {}, ""))  # what follows is no text of the element

    def handle_data(self, data: str) -> None:
        if self.found:
            tag, attributes, text = self.found[-1]
            self.found[-1] = (tag, attributes, text + data)

    def of(self, tag: str) -> list[tuple[dict[str, str | None], str]]:
        return [(attributes, text) for name, attributes, text in self.found if name == tag]


@pytest.fixture
def hostile() -> tuple[np.ndarray, Prediction]:
    prediction = viewer_cases.prediction_of("ultralytics", viewer_cases.LETTERBOXES["fit"], 3)
    return image_for(prediction), replace(prediction, names={0: HOSTILE, 7: "'\"`"}, source=f"a/{HOSTILE}.png")


def test_names_stay_text(hostile: tuple[np.ndarray, Prediction], tmp_path: Path) -> None:
    elements = Elements(write_page(tmp_path / "p.html", [hostile]).read_text(encoding="utf-8"))
    assert {tag for tag, _, _ in elements.found if tag} == set(
        "html head meta title style body nav div p svg path noscript script".split()  # the logo, and the name beside it
    )
    scripts = elements.of("script")
    assert [a.get("type") for a, _ in scripts] == ["application/json", "application/octet-stream", "module"]
    index = json.loads(scripts[0][1])
    assert index["scenes"][0]["title"] == hostile[1].source
    header, _ = unpack(base64.b64decode(scripts[1][1]))
    assert header["instances"][0]["name"] == HOSTILE


def test_the_policy_allows_this_script_and_style_alone(hostile: tuple[np.ndarray, Prediction], tmp_path: Path) -> None:
    elements = Elements(write_page(tmp_path / "p.html", [hostile]).read_text(encoding="utf-8"))
    policy = next(a["content"] for a, _ in elements.of("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert "unsafe" not in policy
    for name, text in (("script-src", elements.of("script")[-1][1]), ("style-src", elements.of("style")[0][1])):
        assert rules[name] == f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
    script = elements.of("script")[-1][1]
    assert "<!--" not in script
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", script)


def test_an_image_of_640_pixels_takes_at_most_a_megabyte_and_a_half(tmp_path: Path) -> None:
    """Even with prototypes that no compression makes smaller."""
    image = draw_scene(1, (640, 640)).image
    rng = np.random.default_rng(0)
    prediction = Prediction(
        canvas_boxes=np.array([[0, 0, 640, 640]], np.float32),
        scores=np.array([0.9], np.float32),
        classes=np.array([0]),
        coefficients=rng.normal(size=(1, 32)).astype(np.float32),
        prototypes=rng.random((32, 160, 160), dtype=np.float32),
        letterbox=Letterbox.fit((640, 640), (640, 640)),
        rule=ULTRALYTICS,
    )
    assert write_page(tmp_path / "p.html", [(image, prediction)]).stat().st_size <= 1_500_000


def test_a_page_that_cannot_be_written(hostile: tuple[np.ndarray, Prediction], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MaskprismError, match="cannot be written"):
        write_page(tmp_path / "file" / "p.html", [hostile])
    (tmp_path / "folder").mkdir()
    with pytest.raises(MaskprismError, match="cannot be written"):
        write_page(tmp_path / "folder", [hostile])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]  # and nothing half done


run = partial(in_process.command, "page")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes ü")
    write_dataset(folder, 2, seed=3, validation_share=1.0)
    return folder


def test_a_large_page_is_announced_before_it_is_written(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (
        "maskprism serve" not in run("images", "--model", "sample", "--out", tmp_path / "small.html", cwd=scenes).stderr
    )
    monkeypatch.setattr("maskprism.viewer.page.LARGE_BYTES", 100_000)
    done = run("images", "--model", "sample", "--out", tmp_path / "p.html", cwd=scenes)
    assert done.returncode == 0
    assert "p.html will have" in done.stderr
    assert "`maskprism serve FOLDER` shows a folder of any size" in done.stderr


def test_the_command_writes_one_file(scenes: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    result = run(
        scenes / "images",
        tmp_path / "broken.png",
        "--data",
        scenes / "data.yaml",
        "--model",
        "sample",
        "--out",
        "a b/ü.html",
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    assert "2 images in a b/ü.html" in result.stdout
    assert ", 1 failed" in result.stdout
    assert re.search(r"prototypes in 8 bits: logits within 0\.\d+ of the model's, [\d,]+ of [\d,]+ mask", result.stdout)
    assert "broken.png: failed: " in result.stderr
    scripts = Elements((tmp_path / "a b" / "ü.html").read_text(encoding="utf-8")).of("script")
    index = json.loads(scripts[0][1])
    assert [scene["title"] for scene in index["scenes"]] == ["val/scene_000003.png", "val/scene_000004.png"]
    assert "mask pixels differ" in index["note"]
    header, _ = unpack(base64.b64decode(scripts[1][1]))
    assert any(instance["truth"] for instance in header["instances"])
    assert not list((tmp_path / "a b").glob("*.partial*"))


def test_the_command_without_anything_to_show(scenes: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    result = run("broken.png", "--model", "sample", "--out", "p.html", cwd=tmp_path)
    assert result.returncode == 1
    assert "none of the 1 images could be shown" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "p.html").exists()
    result = run(scenes / "images", "--out", ".", cwd=tmp_path)
    assert result.returncode == 1
    assert "is a folder; expected the name of a file" in result.stderr


def test_two_models_are_shown_on_one_image(scenes: Path, tmp_path: Path) -> None:
    image = sorted((scenes / "images").rglob("*.png"))[0]
    result = run(image, "--model", "sample", "--against", "sample", "--out", "pair.html", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "1 image in pair.html" in result.stdout
    index = json.loads(Elements((tmp_path / "pair.html").read_text()).of("script")[0][1])
    assert len(index["scenes"]) == 2
    assert len(index["pair"]) == 2
    name = maskprism.load("sample").spec.name
    assert f"<title>{image.name}, {name} and {name} · maskprism</title>" in (tmp_path / "pair.html").read_text()
    assert read_manifest(tmp_path / "pair.html.page.manifest.json").models == [name, name]
    result = run(scenes / "images", "--model", "sample", "--against", "sample", "--out", "two.html", cwd=tmp_path)
    assert result.returncode == 1
    assert "compares two models on one image; 2 came" in result.stderr
    prediction = maskprism.load("sample").predict(image)
    with pytest.raises(InputError, match="a pair has two predictions; 1 came"):
        write_pair(tmp_path / "p.html", image, {"a": prediction})


def test_the_command_without_detections_still_shows_prototypes(scenes: Path, tmp_path: Path) -> None:
    result = run(
        scenes / "images", "--model", "sample", "--conf", "0.999", "--bits", "16", "--out", "p.html", cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    header, _ = unpack(base64.b64decode(Elements((tmp_path / "p.html").read_text()).of("script")[1][1]))
    assert header["instances"] == []
    assert header["prototypes"]["bits"] == 16


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_a_scene_has_the_roles_of_the_exact_prototypes(bits: Any) -> None:
    """Those that `explain` prints: few bits change no role that is shown."""
    prediction = maskprism.load("sample", threads=1).predict(draw_scene(0).image)
    header, _ = viewer_scene(draw_scene(0).image, prediction, bits=bits)
    found = [instance["roles"] for instance in header["instances"]]
    assert found == [maskprism.roles(instance).named for instance in prediction]


@pytest.mark.usefixtures("undrawn")
def test_roles_of_explain_and_page_are_the_same_on_a_real_image(real_data: Path, tmp_path: Path) -> None:
    model, image = maskprism.load(real_data / "models" / "yolov8n-seg.onnx"), real_data / "images" / "bus.jpg"
    prediction = model.predict(image)
    header, _ = viewer_scene(image, prediction, bits=8)
    (shown,) = list(explain_images(open_sources([image]), model, tmp_path, "all"))
    tables = sorted(path for path in shown.files if path.name.endswith("-roles.csv"))
    assert len(tables) == len(prediction) > 4
    for path, instance in zip(tables, header["instances"], strict=True):
        with path.open(encoding="utf-8") as file:
            rows = {int(row["prototype"]): (row["role"], row["second_role"]) for row in csv.DictReader(file)}
        assert tuple(tuple(name for name in rows[k] if name) for k in range(32)) == instance["roles"]
