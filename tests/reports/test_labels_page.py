"""The page of suspicious labels and the files beside it, of labels that were judged by hand."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from helpers.judged import judged, report_of, rle, scene_report
from maskprism._common.text import json_text
from maskprism.analysis.labels.study import JudgedLabel
from maskprism.datasets import Dataset, open_dataset
from maskprism.datasets.scenes import write_dataset
from maskprism.drawing.label_crops import OUTLINE_COLOURS, label_crop
from maskprism.integrations.label_suggestions import write_suggestions
from maskprism.reports.labels import label_cards, labels_page, remedy_of, verdict_of
from maskprism.reports.labels_files import write_labels
from maskprism.reports.manifest import read_manifest
from maskprism.viewer.markup import static_text


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_dataset(write_dataset(tmp_path_factory.mktemp("labels") / "scenes", 2, seed=3, validation_share=1))


def cards_of(text: str) -> list[dict]:
    (data,) = re.findall(r'<script type="application/json" id="maskprism-labels">(.*?)</script>', text)
    return list(json.loads(data)["cards"])


def page_of(rows: Sequence[JudgedLabel], dataset: Dataset, notes: Sequence[str] = ()) -> str:
    return labels_page(report_of(list(rows), dataset), dataset, label_cards(rows, dataset), notes)


def test_cards_hold_what_a_decision_needs(scenes: Dataset) -> None:
    report = scene_report(scenes)
    text = page_of(report.rows, scenes, notes=["judged by hand", "warning: by a person"])
    cards = cards_of(text)
    assert [card["label"]["label_id"] for card in cards] == [row.label_id for row in report.rows]
    remedies = {card["label"]["kind"]: card["remedy"] for card in reversed(cards)}  # of the first of a kind
    assert remedies["wrong class"] == {"action": "reclassify", "category": 4}
    assert remedies["spurious"] == {"action": "delete"}
    assert remedies["missing label"]["action"] == "add"
    assert remedies["shifted"] == {"action": "replace", "mask": report.rows[0].suggestion}
    assert text.count("<article") == len(report.rows)
    assert '<p class="warning">By a person.</p>' in text
    assert "<p>Judged by hand.</p>" in text


def test_labels_below_one_half_and_those_not_judged_are_no_cards(scenes: Dataset, tmp_path: Path) -> None:
    rows = [judged("a.png", number, (0, 0, 1, 1), "", suspicion=value) for number, value in enumerate((0.49, np.nan))]
    write_labels(report_of(rows, scenes), scenes, tmp_path, models=["m"], worst=200, notes=[])
    text = (tmp_path / "labels.html").read_text()
    assert cards_of(text) == []
    assert '<p id="none">' in text
    assert not (tmp_path / "worst.png").exists()


@pytest.mark.parametrize(("suspicion", "outcome"), [(0.85, "pass"), (0.95, "fail")])
def test_only_very_suspicious_labels_fail(scenes: Dataset, suspicion: float, outcome: str) -> None:
    """One label in four with this suspicion, on each of 60 images."""
    rows = [
        judged(f"{image}.png", number, (0, 0, 1, 1), "", suspicion=suspicion if number == 0 else 0.1)
        for image in range(60)
        for number in range(4)
    ]
    report = report_of(rows, scenes)
    assert verdict_of(report).outcome == outcome
    simple = replace(report, suspicion=replace(report.suspicion, score="1 - mask IoU"))
    assert verdict_of(simple).outcome == "cannot tell"


def test_foreign_names_stay_text(scenes: Dataset) -> None:
    evil = '</script><script>alert(1)</script>"><img src=x onerror=alert(1)>'
    row = judged(evil, evil, (0, 0, 1, 1), "shifted", class_name=evil, reason=evil)
    text = page_of([row], scenes, notes=[evil])
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert cards_of(text)[0]["label"]["image"] == evil


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (judged("a", 1, (0, 0, 1, 1), "wrong class"), None),
        (judged("a", 1, (0, 0, 1, 1), "wrong class", suggested_class=99), None),
        (judged("a", 1, (0, 0, 1, 1), "shifted"), None),
        (judged("a", None, (0, 0, 1, 1), "missing label", class_id=99), None),
        (judged("a", 1, (0, 0, 1, 1), "duplicate"), "delete"),
    ],
)
def test_nothing_is_suggested_that_cannot_be_done(scenes: Dataset, row: JudgedLabel, expected: str | None) -> None:
    remedy = remedy_of(row, scenes)
    assert (remedy and remedy.action) == expected
    assert ("There is no suggestion" in page_of([row], scenes)) == (expected is None)


def test_to_accept_everything_loses_and_doubles_no_object(scenes: Dataset) -> None:
    """Two duplicates of each other are not both deleted, and two parts do not both become the whole object."""
    whole = rle(np.ones((4, 4), dtype=bool))
    rows = [
        judged("a", 1, (0, 0, 10, 10), "duplicate"),
        judged("a", 2, (0, 0, 10, 9), "duplicate"),
        judged("a", 3, (50, 50, 60, 60), "duplicate"),
        judged("b", 4, (0, 0, 10, 10), "duplicate"),
        judged("b", 5, (0, 0, 5, 10), "split", suggestion=whole, instance=3),
        judged("b", 6, (5, 0, 10, 10), "split", suggestion=whole, instance=3),
        judged("b", 7, (5, 0, 10, 10), "split", suggestion=whole, instance=4),
    ]
    actions = [card.remedy and card.remedy.action for card in label_cards(rows, scenes)]
    assert actions == ["delete", None, "delete", "delete", "replace", None, "replace"]


def test_files_beside_the_page(scenes: Dataset, tmp_path: Path) -> None:
    report = scene_report(scenes)
    written = write_suggestions(report, tmp_path) | write_labels(
        report, scenes, tmp_path, models=["m"], worst=2, notes=["judged"]
    )
    assert sorted(path.name for path in written) == [
        "labels.html",
        "labels.manifest.json",
        "labels.parquet",
        "suggestions.json",
        "worst.png",
    ]
    assert len(cards_of((tmp_path / "labels.html").read_text())) == 2
    manifest = read_manifest(tmp_path / "labels.manifest.json")
    assert (manifest.page, manifest.models) == ("labels.html", ["m"])
    assert (tmp_path / manifest.tables[0].file).is_file()
    picture = cv2.imread(str(tmp_path / manifest.pictures[0].file))
    assert picture.shape == (240, 480, 3)
    for name in ("label", "prediction", "suggestion"):
        bgr = np.array(OUTLINE_COLOURS[name][::-1])
        assert (np.abs(picture.astype(int) - bgr).max(axis=2) < 8).sum() > 20
        assert f"stroke:#{bytes(OUTLINE_COLOURS[name]).hex()}" in static_text("labels.css")


def test_suggestions_are_a_coco_json_of_their_masks(scenes: Dataset, tmp_path: Path) -> None:
    report = scene_report(scenes)
    write_suggestions(report, tmp_path)
    suggested = open_dataset(tmp_path / "suggestions.json", images=scenes.images.root)
    rows = [row for row in report.rows if row.suggestion and row.kind != "spurious"]
    assert len(rows) > 3
    for sample in suggested:
        _, truth = sample.read()
        own = [row for row in rows if row.image == sample.name]
        assert [json_text(rle(mask)) for mask in truth.masks()] == [json_text(row.suggestion) for row in own]
        named = [row.class_name if row.suggested_class is None else scenes.names[row.suggested_class] for row in own]
        assert [truth.name_of(class_id) for class_id in truth.classes] == named


def test_a_crop_holds_all_masks_and_their_outlines() -> None:
    image = np.zeros((300, 500, 3), np.uint8)
    label, suggestion = np.zeros((2, 300, 500), dtype=bool)
    label[100:120, 40:60] = True
    suggestion[150:250, 100:200] = True
    found = label_crop(image, (40, 100, 60, 120), {"label": label, "suggestion": suggestion}, side=1000)
    height, width = found.picture.shape[:2]
    assert height == width == 256  # 160 pixels, and 30 % on each side
    for name, area in (("label", 400), ("suggestion", 10_000)):
        (ring,) = found.outlines[name]
        assert np.prod(np.ptp(ring, axis=0)) == area
        assert ring.min() >= 0
        assert ring.max() <= width
    small = label_crop(image, (40, 100, 60, 120), {"label": label, "suggestion": suggestion}, side=64)
    assert small.picture.shape[:2] == (64, 64)
    for name in ("label", "suggestion"):
        centre = found.outlines[name][0].mean(axis=0) / 4
        assert small.outlines[name][0].mean(axis=0) == pytest.approx(centre, abs=1)
