"""The FiftyOne plugin on real samples of FiftyOne, which need no database until they are in a data set."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import pytest
import yaml

from maskprism import load
from maskprism.datasets.scenes import NAMES, draw_scene

fo = pytest.importorskip("fiftyone")
from fiftyone.server.routes.media import Media  # noqa: E402
from starlette.applications import Starlette  # noqa: E402
from starlette.routing import Route  # noqa: E402
from starlette.testclient import TestClient  # noqa: E402

FOLDER = Path(__file__).resolve().parents[2] / "plugins" / "fiftyone_maskprism"


@pytest.fixture(scope="module")
def plugin() -> ModuleType:
    spec = importlib.util.spec_from_file_location("maskprism_fiftyone_plugin", FOLDER / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def samples(tmp_path: Path) -> list:
    """Two scenes with their labels, and a file that is not an image."""
    found = []
    for seed in (3, 4):
        scene, path = draw_scene(seed), tmp_path / f"{seed}.png"
        cv2.imwrite(str(path), scene.image)
        labels = []
        for class_id, mask in zip(scene.classes, scene.masks, strict=True):
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
            box = [left / 320, top / 320, (right - left) / 320, (bottom - top) / 320]
            name = NAMES[int(class_id)]
            labels.append(fo.Detection(label=name, bounding_box=box, mask=mask[top:bottom, left:right]))
        found.append(fo.Sample(filepath=str(path), ground_truth=fo.Detections(detections=labels)))
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    return [*found, fo.Sample(filepath=str(broken), ground_truth=None)]


def test_labels_become_the_masks_they_were(plugin: ModuleType, samples: list) -> None:
    truth, kept = plugin.ground_truth_of(samples[0]["ground_truth"], (320, 320), NAMES)
    scene = draw_scene(3)
    assert len(kept) == len(scene.masks)
    for segment, mask in zip(truth.segments, scene.masks, strict=True):
        np.testing.assert_array_equal(segment, mask)


def test_every_object_gets_its_outcome_and_its_losses(plugin: ModuleType, samples: list, tmp_path: Path) -> None:
    model = load("sample")
    result = plugin.diagnose_samples(
        samples, model, truth_field="ground_truth", field="maskprism", page=tmp_path / "page.html"
    )
    assert (result["images"], result["failed"]) == (2, 1)
    assert (tmp_path / "page.html").stat().st_size > 100_000
    found = [one for sample in samples[:2] for one in sample["maskprism"].detections]
    matched = [one for one in found if one["outcome"] == "true positive"]
    assert len(matched) == result["found"] > 5
    assert len(found) - len(matched) == result["false_positives"]
    for one in matched:
        assert one["mask_iou"] + sum(one[f"lost_in_{part}"] for part in plugin.PARTS) == pytest.approx(1, abs=1e-6)
    labels = [one for sample in samples[:2] for one in sample["ground_truth"].detections]
    assert sum(one["missed"] for one in labels) == result["missed"] == len(labels) - result["found"]
    assert f"{result['found']} found, {result['missed']} missed" in plugin.summary_of(result)
    address = re.search(r"\((/media\S+)\)", plugin.summary_of(result))
    client = TestClient(Starlette(routes=[Route("/media", Media)]))
    opened = client.get(address[1])
    assert opened.headers["content-type"].startswith("text/html")
    assert opened.content == (tmp_path / "page.html").read_bytes()


def test_the_plugin_declares_what_it_registers(plugin: ModuleType) -> None:
    declared = yaml.safe_load((FOLDER / "fiftyone.yml").read_text(encoding="utf-8"))
    registered: list[type] = []
    plugin.register(SimpleNamespace(register=registered.append))
    names = [kind().config.name for kind in registered]
    assert names == [*declared["operators"], *declared["panels"]]


def test_the_form_offers_the_fields_with_labels(plugin: ModuleType) -> None:
    dataset = SimpleNamespace(get_field_schema=lambda embedded_doc_type: {"ground_truth": None, "maskprism": None})
    form = plugin.DiagnoseMasks().resolve_input(SimpleNamespace(dataset=dataset, params={}))
    assert form.type.properties["truth_field"].type.values == ["ground_truth"]
    assert "maskprism: diagnose masks" in plugin.summary_of(None)
