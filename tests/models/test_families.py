"""What comes after reading does not know the family: budgets, tables, comparisons, pictures and pages."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

import maskprism
from helpers.tiny_models import Tiny, ultralytics_metadata
from helpers.tiny_queries import TinyQueries
from helpers.tiny_yolact import TinyYolact
from maskprism.analysis.comparison import compare
from maskprism.analysis.truth.error_budget import budgets
from maskprism.analysis.truth.matching import Matches
from maskprism.datasets.ground_truth import GroundTruth
from maskprism.models.families import known_families
from maskprism.reports.explanation import write_explanation
from maskprism.tables.extraction import extract
from maskprism.viewer.page import write_page

CASES = {
    "yolov8": Tiny(),
    "yolov5": Tiny(family="yolov5"),
    "end2end": Tiny(family="end2end", metadata=ultralytics_metadata(end2end=True)),
    "yolact": TinyYolact(),
    "query, masks alone": TinyQueries(queries=12),
    "query, with boxes and a bias": TinyQueries("rf-detr", queries=12, bias=-0.5),
    "query, 256 prototypes": TinyQueries(k=256),
    "query, without classes": TinyQueries("sam", queries=4, k=32),
}


@pytest.fixture
def image(tmp_path):
    rng = np.random.default_rng(3)
    soft = cv2.resize(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8), (90, 70), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(tmp_path / "photo.png"), soft)
    return tmp_path / "photo.png"


@pytest.fixture(params=CASES)
def model(request, tmp_path):
    return maskprism.load(CASES[request.param].save(tmp_path / "net.onnx"), conf=0.05)


def test_terms_add_up_and_an_edit_of_nothing_changes_nothing(model, image):
    prediction = model.predict(image)
    assert len(prediction)
    for instance in prediction:
        logits = instance.logits() if not instance.rule.objectness else None
        terms = maskprism.Decomposition(instance).terms.sum(axis=0)
        if logits is not None:
            np.testing.assert_allclose(terms, logits, rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(maskprism.Edit().apply(prediction).masks(), prediction.masks())


def test_the_error_budget_adds_up(model, image):
    """Ground truth is the lower half of every other mask: everything costs something, and the parts are 1 - IoU."""
    prediction = model.predict(image)
    masks = prediction.masks("image")
    masks[:, : masks.shape[1] // 2] = False
    chosen = [i for i in range(len(masks)) if masks[i].sum() > 20][:4]
    assert chosen
    boxes = [cv2.boundingRect(masks[i].astype(np.uint8)) for i in chosen]
    truth = GroundTruth(
        prediction.classes[chosen],
        tuple(masks[i] for i in chosen),
        np.array([[x, y, x + w, y + h] for x, y, w, h in boxes], dtype=np.float32),
        np.zeros(len(chosen), dtype=bool),
        masks.shape[1:],
    )
    pairs = Matches.given(np.array(chosen), np.arange(len(chosen)), np.ones(len(chosen)))
    rows = list(budgets(prediction, truth, "photo", pairs))
    assert len(rows) == len(chosen)
    for row in rows:
        assert row.resolution + row.box + row.prototypes + row.coefficients == pytest.approx(1 - row.iou, abs=1e-9)
        if not prediction.has_boxes:
            assert row.box == 0


def test_tables_hold_its_coefficients(model, image, tmp_path):
    extract(image, model, tmp_path / "table.parquet")
    table = maskprism.CoefficientTable.read(tmp_path / "table.parquet")
    np.testing.assert_allclose(table.coefficients, model.predict(image).coefficients, atol=1e-6)
    extract(image, model, tmp_path / "table.csv")


def test_it_is_compared_with_itself_and_with_another_family(model, image, tmp_path):
    same = compare(model, model, [image])
    assert same.matched.num_rows == len(model.predict(image))
    assert same.mean_iou == 1
    other = maskprism.load(Tiny(prototypes=16).save(tmp_path / "other.onnx"), conf=0.05)
    assert compare(model, other, [image]).images == 1


def test_pictures_and_pages_are_written(model, image, tmp_path):
    prediction = model.predict(image)
    assert write_explanation(image, prediction, tmp_path / "pictures", instances=[0])
    write_page(tmp_path / "page.html", [(image, prediction)])
    assert (tmp_path / "page.html").stat().st_size < 3_000_000
    assert maskprism.roles(prediction[0]).rows()


def test_the_documentation_has_a_row_for_every_case():
    text = (Path(__file__).resolve().parents[2] / "docs" / "families.md").read_text(encoding="utf-8")
    for words in ("YOLOv8", "YOLOv5", "YOLACT", "Mask2Former", "RF-DETR", "SAM 2", "CondInst", "from_arrays"):
        assert words in text
    table = text.split("\n\n")[2]
    rows = [row for row in table.splitlines()[2:] if row.startswith("|")]
    assert rows
    assert all("../tests/" in row for row in rows)
    models = (Path(__file__).resolve().parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    assert all(f"| `{layout}` |" in models for layout in known_families())


def test_boxes_that_crop_nothing_are_no_crop(image, tmp_path):
    """RF-DETR gives boxes and draws whole masks: its logits outside were trained, and no picture mentions a crop."""
    model = maskprism.load(TinyQueries("rf-detr", bias=-0.5).save(tmp_path / "net.onnx"), conf=0.05)
    prediction = model.predict(image)
    assert prediction.has_boxes
    written = {path.name for path in write_explanation(image, prediction, tmp_path / "pictures", instances=[0])}
    assert "00-assembly.png" in written
    assert "00-crop.png" not in written
    cropped = prediction.with_rule("ultralytics")
    written = {path.name for path in write_explanation(image, cropped, tmp_path / "cropped", instances=[0])}
    assert "00-crop.png" in written
