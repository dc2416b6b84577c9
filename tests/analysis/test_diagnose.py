"""Diagnosing a data set: counts, findings, files, and the command."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
import yaml

import maskprism
from helpers.in_process import command as run
from helpers.in_process import says
from helpers.small_datasets import scenes_of_few_objects
from helpers.tuned import with_little_effort
from helpers.undrawn import without_drawing
from maskprism import Prediction
from maskprism.analysis.dataset import findings
from maskprism.analysis.dataset.ap_protocols import AP_PROTOCOLS, overlaps_under, true_regions, validation_regions
from maskprism.analysis.dataset.coco_ap import average_precision
from maskprism.analysis.dataset.diagnosis import Diagnosis, diagnose, examine
from maskprism.analysis.dataset.edits import Edits
from maskprism.analysis.dataset.findings import LABEL_RULES, RULES, Finding, findings_of
from maskprism.analysis.intervals import Interval, too_few
from maskprism.analysis.truth.error_budget import BESIDE, PARTS, ErrorBudget
from maskprism.analysis.truth.matching import ERROR_TYPES, find_errors, match
from maskprism.analysis.truth.overlaps import mask_overlaps
from maskprism.core.geometry import Letterbox
from maskprism.datasets import GroundTruth, open_dataset
from maskprism.datasets.scenes import NAMES, write_dataset
from maskprism.datasets.visit import Failure
from maskprism.drawing.mask_thumbnails import mask_against_truth
from maskprism.drawing.palette import MISSING, TOO_MUCH
from maskprism.errors import InputError, ModelError
from maskprism.models import Model
from maskprism.models.families.rows import EXPORT_IN_SINGLE_PRECISION, Thresholds
from maskprism.models.runtimes import FunctionRuntime
from maskprism.reports.diagnosis import warnings_of
from maskprism.reports.diagnosis_files import FIGURES, write_diagnosis

SCENES = 6


@pytest.fixture(scope="module")
def model() -> Model:
    return maskprism.load("sample", conf=0.001, multi_label=True, threads=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("scenes"), SCENES, seed=7, validation_share=1.0)


@pytest.fixture(scope="module")
def found(data: Path, model: Model) -> Diagnosis:
    return diagnose(open_dataset(data), model)


@pytest.fixture
def own_data(data: Path, tmp_path: Path) -> Path:
    """A copy of the data set to spoil."""
    shutil.copytree(data.parent, tmp_path / "own")
    described = yaml.safe_load(data.read_text(encoding="utf-8")) | {"path": str(tmp_path / "own")}
    path = tmp_path / "own" / "data.yaml"
    path.write_text(yaml.safe_dump(described), encoding="utf-8")
    return path


# --- what is counted ------------------------------------------------------------------------------


def test_each_step_takes_away_its_part_of_the_loss(data: Path, model: Model) -> None:
    sample = next(iter(open_dataset(data).for_model(model.spec.names)))
    image, truth = sample.read()
    prediction = model.predict(image)
    one = examine(prediction, truth, sample.name)
    matches = match(prediction, truth)
    pairs = (matches.instances, matches.objects)
    assert len(one.budgets) == len(matches) > 2
    sure = prediction[prediction.scores > 0.5]
    few = examine(prediction, truth, sample.name, sure)
    assert few.errors["missed"] == len(match(sure, truth).missed) > one.errors["missed"] == len(matches.missed)
    assert {row.instance for row in few.budgets} == set(match(sure, truth).instances.tolist())
    np.testing.assert_array_equal(one.overlaps["predict"].iou[pairs], [row.iou for row in one.budgets])
    gained = np.zeros(len(matches))
    for part in reversed(PARTS):
        gained += [getattr(row, part) for row in one.budgets]
        np.testing.assert_allclose(one.after(part).iou[pairs], one.overlaps["predict"].iou[pairs] + gained, atol=1e-12)
    np.testing.assert_allclose(one.after("resolution").iou[pairs], 1)
    np.testing.assert_allclose(one.after("true boxes").iou[pairs], [row.true_box_iou for row in one.budgets])
    for part in PARTS:
        expected = one.overlaps["predict"].iou.copy()
        expected[pairs] += [max(getattr(row, part), 0) for row in one.budgets]
        np.testing.assert_allclose(one.after(f"{part} alone").iou, np.minimum(expected, 1), atol=1e-12)
    others = np.setdiff1d(np.arange(len(prediction)), matches.instances)
    for step in one.steps:
        np.testing.assert_array_equal(one.after(step).iou[others], one.overlaps["predict"].iou[others])


def test_of_masks_that_are_off_one_per_object_hides_it(data: Path, model: Model) -> None:
    """Twice the same instance with the left quarter of its box: a localisation error each, one object hidden."""
    image, truth = next(iter(open_dataset(data).for_model(model.spec.names))).read()
    prediction = model.predict(image)
    matches = match(prediction, truth)
    instance, hidden = matches.instances[1], matches.objects[1]
    x1, y1, x2, y2 = prediction.canvas_boxes[instance]
    cut = np.array([x1, y1, x1 + (x2 - x1) / 4, y2], dtype=np.float32)
    twice = replace(
        prediction[[instance, instance]],
        canvas_boxes=np.array([cut, cut]),
        scores=np.array([0.9, 0.5], dtype=np.float32),
    )
    one = examine(twice, truth, "image", twice[[0]])
    iou = mask_overlaps(twice, true_regions(truth, prediction.letterbox, "canvas"), truth.classes, "canvas").iou
    assert 0.1 < iou[0, hidden] < 0.3
    np.testing.assert_array_equal(one.overlaps["predict"].iou[:, hidden], iou[:, hidden])
    assert find_errors(one.overlaps["predict"]).of("localisation").tolist() == [True, True]
    assert [(row.instance, row.object) for row in one.localisation] == [(0, hidden)]
    assert [(found.instance, found.outcome, found.error) for found in one.detections] == [
        (0, "false positive", "localisation")
    ]


def test_everything_adds_up(found: Diagnosis, data: Path) -> None:
    truths = [sample.read()[1] for sample in open_dataset(data)]
    assert found.images == SCENES
    assert len(found.objects) == sum(map(len, truths))
    assert found.missed + len(found.budget) == len(found.objects)
    assert {(row.image, row.object) for row in found.budget.rows} == {
        (one.image, one.object) for one in found.objects if one.instance >= 0
    }
    assert all(row.score > found.conf for row in [*found.budget.rows, *found.detections])
    kinds = [one.error for one in found.detections]
    assert {kind: kinds.count(kind) for kind in ERROR_TYPES if kind != "missed"} == {
        kind: count for kind, count in found.shown.items() if kind != "missed"
    }
    assert found.shown["missed"] == found.missed
    assert found.perfect["as predicted"] == found.precision["predict"]
    assert found.perfect["resolution"].ap >= found.perfect["as predicted"].ap > 0.3
    assert {*found.alone} == {*(f"{part} alone" for part in PARTS), "true boxes"}
    assert all(
        found.perfect["resolution"].ap >= one.ap >= found.perfect["as predicted"].ap for one in found.alone.values()
    )
    assert found.errors.ap50 == pytest.approx(found.precision["predict"].ap50)
    assert not found.failures
    assert not found.interrupted


def test_workers_and_order_change_nothing(found: Diagnosis, data: Path, model: Model) -> None:
    again = diagnose(open_dataset(data), model, workers=1)
    assert again.precision == found.precision
    assert repr(again.budget.rows) == repr(found.budget.rows)  # NaN is NaN
    assert again.objects == found.objects


def test_a_limit_takes_images_from_everywhere(data: Path, model: Model) -> None:
    names = [sample.name for sample in open_dataset(data)]
    few = diagnose(open_dataset(data), model, limit=3)
    assert list(dict.fromkeys(one.image for one in few.objects)) == [names[0], names[2], names[5]]
    with pytest.raises(InputError, match="limit is 0"):
        diagnose(open_dataset(data), model, limit=0)


def test_classes_are_matched_by_name(found: Diagnosis, own_data: Path, model: Model) -> None:
    described = yaml.safe_load(own_data.read_text(encoding="utf-8"))
    # Classes in another order, and one under a name that the model does not know.
    names = list(NAMES.values())[::-1]
    unknown = NAMES[int((own_data.parent / next(iter(labels(own_data)))).read_text().split()[0])]
    for file in labels(own_data):
        rows = [row.split(" ", 1) for row in file.read_text().splitlines()]
        file.write_text("".join(f"{len(NAMES) - 1 - int(c)} {rest}\n" for c, rest in rows))
    own_data.write_text(yaml.safe_dump(described | {"names": names}), encoding="utf-8")
    same = diagnose(open_dataset(own_data), model)
    assert same.precision["predict"] == found.precision["predict"]
    names[names.index(unknown)] = "zeppelin"
    own_data.write_text(yaml.safe_dump(described | {"names": names}), encoding="utf-8")
    fewer = diagnose(open_dataset(own_data), model)
    assert list(fewer.unknown_classes) == ["zeppelin"]
    assert unknown not in {one.class_name for one in [*fewer.objects, *fewer.detections]}
    class_id = next(class_id for class_id, name in NAMES.items() if name == unknown)
    rest = {c: one for c, one in found.precision["predict"].by_class.items() if c != class_id}
    assert fewer.precision["predict"].by_class == rest
    own_data.write_text(yaml.safe_dump(described | {"names": [f"thing {i}" for i in range(10)]}), encoding="utf-8")
    with pytest.raises(InputError, match="none of its 10 classes"):
        diagnose(open_dataset(own_data), model)


def labels(data: Path) -> list[Path]:
    return sorted((data.parent / "labels").rglob("*.txt"))


def test_classes_that_the_model_leaves_out_do_not_count(found: Diagnosis, data: Path) -> None:
    kept = sorted(found.precision["predict"].by_class)[:2]
    model = maskprism.load("sample", conf=0.001, multi_label=True, threads=1, classes=kept)
    few = diagnose(open_dataset(data), model)
    assert {one.class_id for one in few.objects} == set(kept)
    assert few.precision["predict"].by_class == {c: found.precision["predict"].by_class[c] for c in kept}
    assert not few.unknown_classes


def test_what_cannot_be_read_is_told_and_left_out(own_data: Path, model: Model) -> None:
    images = sorted((own_data.parent / "images").rglob("*.png"))
    images[0].write_bytes(b"no image")
    labels(own_data)[1].write_text("0 0.1 0.2\n")
    told = []
    rest = diagnose(open_dataset(own_data), model, on_progress=lambda done, total, failed: told.append((done, failed)))
    assert rest.images == SCENES - 2
    assert [failure.name for failure in rest.failures] == [
        f"images/val/{images[0].name}",
        f"images/val/{images[1].name}",
    ]
    assert [done for done, _ in told] == list(range(1, SCENES + 1))
    assert sum(failed is not None for _, failed in told) == 2
    for image in images:
        image.write_bytes(b"")
    with pytest.raises(InputError, match="not one of 6 images"):
        diagnose(open_dataset(own_data), model)


def test_an_interruption_keeps_what_is_done(data: Path, model: Model) -> None:
    def stop(done: int, total: int, failed: object) -> None:
        if done == 2:
            raise KeyboardInterrupt

    part = diagnose(open_dataset(data), model, on_progress=stop)
    assert part.interrupted
    assert part.images == 2


def test_a_network_that_always_fails_stops_the_work(own_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = maskprism.load("sample", threads=1)
    monkeypatch.setattr(Model, "predict_under", None)
    with pytest.raises(InputError, match=r"not one of 6 images can be examined .*not callable"):
        diagnose(open_dataset(own_data), broken)
    monkeypatch.setattr("maskprism.datasets.visit.TOLERATED_MODEL_FAILURES", 3)
    labels(own_data)[0].write_text("0 0.1 0.2\n")  # is no failure of the model
    told: list[int] = []
    with pytest.raises(ModelError, match=r"failed on all of the first 3 images .*not callable"):
        diagnose(open_dataset(own_data), broken, workers=1, on_progress=lambda done, *_: told.append(done))
    assert told == [1, 2, 3, 4]


def test_prototypes_that_are_no_numbers_are_told(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one image: numbers that came of them would be meaningless, and look like numbers."""
    network = maskprism.load("sample", conf=0.001, multi_label=True, threads=1)
    names = [sample.name for sample in open_dataset(data)]
    spoilt = [sample.read()[0] for sample in open_dataset(data)][1]
    runtime, whole = network.runtime, Model.predict_under

    def compute(batch: np.ndarray) -> list[np.ndarray]:
        outputs = [output.copy() for output in runtime(batch)]
        outputs[network.layout.prototypes_output][0, 3, 5, 7] = np.nan
        return outputs

    broken = replace(network, runtime=FunctionRuntime(compute, runtime.input, runtime.metadata))

    def predict_under(self: Model, image: np.ndarray, thresholds: Sequence[Thresholds]) -> list[Prediction]:
        return whole(broken if np.array_equal(image, spoilt) else self, image, thresholds)

    monkeypatch.setattr(Model, "predict_under", predict_under)
    found = diagnose(open_dataset(data), network)
    (failure,) = found.failures
    assert failure.name == names[1]
    assert failure.message == "prototypes 3 hold NaN or infinity; " + EXPORT_IN_SINGLE_PRECISION
    assert found.images == SCENES - 1


def test_nothing_found_and_nothing_labelled(own_data: Path, model: Model, tmp_path: Path) -> None:
    silent = diagnose(open_dataset(own_data), model, conf=1.0, limit=2)
    assert len(silent.budget) == 0
    assert silent.missed == len(silent.objects)
    with pytest.MonkeyPatch.context() as patch:
        without_drawing(patch)
        write_diagnosis(diagnose(open_dataset(own_data), model, limit=2), tmp_path / "silent")
    files = write_diagnosis(silent, tmp_path / "silent", model=model)  # over an earlier run
    assert not {"budget.png", "score.png"} & {path.name for path in files}
    assert set(files) == set((tmp_path / "silent").iterdir())
    for file in labels(own_data):
        file.write_text("")
    empty = diagnose(open_dataset(own_data), model, limit=2)
    assert np.isnan(empty.precision["predict"].ap)
    assert empty.errors.counts["background"] > 0
    write_diagnosis(empty, tmp_path / "empty", model=model)
    assert json.loads((tmp_path / "empty" / "summary.json").read_text())["average_precision"]["predict"]["ap"] is None


# --- decodes --------------------------------------------------------------------------------------


def test_truth_on_the_grid_is_that_of_validation() -> None:
    """Filled on whole pixels of the canvas, the middle of every cell asked, the smallest instance in front."""
    letterbox = Letterbox.fit((64, 64), (64, 64)).with_grid((16, 16))
    large = np.array([(4.6, 4.6), (40.9, 4.6), (40.9, 40.9), (4.6, 40.9)], dtype=np.float32)
    small = np.array([(20, 20), (31, 20), (31, 31), (20, 31)], dtype=np.float32)
    crowd = np.array([(0, 0), (63, 0), (63, 63), (0, 63)], dtype=np.float32)
    truth = GroundTruth(
        np.array([0, 1, 1]),
        ((large,), (small,), (crowd,)),
        np.zeros((3, 4), dtype=np.float32),
        np.array([False, False, True]),
        (64, 64),
    )
    expected = np.zeros((3, 16, 16), dtype=bool)
    for index, (first, last) in enumerate(((4, 40), (20, 31), (0, 63))):
        for y in range(16):
            for x in range(16):
                middle = [(4 * y + dy, 4 * x + dx) for dy in (1, 2) for dx in (1, 2)]
                expected[index, y, x] = sum(first <= a <= last and first <= b <= last for a, b in middle) >= 2
    expected[0] &= ~expected[1]
    for mask, region in zip(expected, validation_regions(truth, letterbox), strict=True):
        drawn = np.zeros((16, 16), dtype=bool)
        drawn[region.rows, region.columns] = region.inside
        np.testing.assert_array_equal(drawn, mask)


def test_a_box_without_a_mask_excuses_what_lies_in_it(model: Model, data: Path) -> None:
    image, truth = next(iter(open_dataset(data).for_model(model.spec.names))).read()
    prediction = model.predict(image)
    boxes_only = replace(truth, segments=(None, *truth.segments[1:]))
    for decode in AP_PROTOCOLS:
        overlaps = overlaps_under(prediction, boxes_only, decode)
        assert overlaps.crowd.tolist() == [True] + [False] * (len(truth) - 1)
        of_class = prediction.classes == truth.classes[0]
        assert overlaps.iou[of_class, 0].max() > 0.5
        assert average_precision([overlaps]).by_class.get(int(truth.classes[0])) is None or len(truth) > 1


# --- findings ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Diagnosis:
    """Of enough images for findings."""
    return diagnose(open_dataset(scenes_of_few_objects(tmp_path_factory.mktemp("many"))), model)


class Assumed:
    """Gains of AP that are positive, whatever is fixed: for diagnoses whose numbers were changed by hand."""

    def __getattr__(self, name: str) -> object:
        return lambda *better: Interval(0.1, 0.05, 0.15)


def read(found: Diagnosis) -> list[Finding]:
    return findings_of(replace(found, gains=Assumed()))


def said(found: Diagnosis) -> set[str]:
    return {finding.rule for finding in read(found)}


def with_ap(found: Diagnosis, group: str, name: str, **values: object) -> Diagnosis:
    """The same with other numbers of one average precision."""
    return replace(found, **{group: {**getattr(found, group), name: replace(getattr(found, group)[name], **values)}})


def with_rows(found: Diagnosis, **values: object) -> Diagnosis:
    """The same with these numbers in every row of the budget."""
    return replace(found, budget=ErrorBudget([replace(row, **values) for row in found.budget.rows]))


def with_intervals(found: Diagnosis, **values: object) -> Diagnosis:
    """The same with other intervals of average precisions."""
    return replace(found, intervals=replace(found.intervals, **values))


def test_every_rule_is_documented_and_its_figure_exists(many: Diagnosis) -> None:
    assert len(findings._RULES) == len(RULES)
    assert {"limit", "part"} <= said(many) <= set(RULES)
    for finding in findings_of(many):
        assert finding.figure in FIGURES
        assert finding.says.endswith(".")
        assert finding.advice.endswith(".")


def test_findings_are_ranked_and_no_advice_stands_twice(many: Diagnosis) -> None:
    found = findings_of(many)
    assert found[0].rule == "limit"
    gains = [one.gain for one in found[1:]]
    known = [one for one in gains if one is not None]
    assert gains[: len(known)] == known  # what has no gain comes last
    means = [one.mean for one, finding in zip(known, found[1:], strict=False) if finding.rule not in LABEL_RULES]
    assert means == sorted(means, reverse=True)
    for one, finding in zip(known, found[1:], strict=False):
        assert one.low <= one.mean <= one.high
        assert f"Fixing it would add at most {one.plain()} to mask AP." in finding.says
    every = read(with_rows(many, iou=0.4, true_box_iou=0.5, threshold_iou=0.6, **dict.fromkeys(PARTS, 0.15)))
    sentences = [sentence for one in every for sentence in re.split(r"(?<=\.) (?=[A-Z])", one.advice)]
    own = [sentence for sentence in sentences if "helps here" not in sentence]
    assert len(own) == len(set(own)), own


def test_gains_are_those_of_the_oracles(many: Diagnosis) -> None:
    for part in PARTS:
        gain = many.gains.of_masks(f"{part} alone")
        expected = many.alone[f"{part} alone"].ap - many.precision["predict"].ap
        assert gain.mean == pytest.approx(expected, abs=1e-6)
    assert many.gains.of_detection().mean == pytest.approx(
        many.perfect_detection.ap - many.precision["predict"].ap, abs=1e-6
    )
    objects: dict[str, set[int]] = {}
    for one in many.objects:
        objects.setdefault(one.image, set()).add(one.object)
    every = many.gains.of_objects(objects)
    assert every.mean == pytest.approx(many.perfect["resolution"].ap - many.precision["predict"].ap, abs=1e-6)
    assert many.gains.of_objects({}).mean == pytest.approx(0, abs=1e-9)
    assert many.gains.of_scores().mean > 0
    assert 0 < many.gains.of_masks("threshold").mean < every.mean


def test_the_rules_stand_in_the_documentation() -> None:
    page = (Path(__file__).parents[2] / "docs" / "diagnose.md").read_text(encoding="utf-8")
    for rule, condition in RULES.items():
        assert f"| {rule} | {condition} |" in page


def test_of_too_few_images_nothing_is_said(found: Diagnosis, many: Diagnosis) -> None:
    assert too_few(found.images)
    assert findings_of(found) == []
    assert any("Only 6 images" in warning for warning in warnings_of(found))
    assert not any("Only" in warning for warning in warnings_of(many))
    for interval in (found.intervals.difference, *found.intervals.precision.values()):
        assert np.isnan(interval.low)
    assert not found.intervals.by_class
    few = [row for row in many.budget.rows if row.image in {one.image for one in many.budget.rows[:3]}]
    assert not said(replace(many, budget=ErrorBudget(few))) & {"part", "class", "box", "threshold", "score"}


def test_whether_masks_or_detection_limit(many: Diagnosis) -> None:
    for difference, expected in (
        (Interval(0.1, 0.02, 0.2), "Work on the masks first; they cost more by 0.100 (0.020 to 0.200)."),
        (Interval(-0.1, -0.2, -0.02), "Work on detection first; it costs more by 0.100 (0.020 to 0.200)."),
        (Interval(0.1, -0.02, 0.2), "About equal: the difference is 0.100 (−0.020 to 0.200), so these images cannot"),
    ):
        (limit,) = (one for one in read(with_intervals(many, difference=difference)) if one.rule == "limit")
        assert limit.advice.startswith(expected)
        assert many.intervals.masks.plain() in limit.says


@pytest.mark.parametrize("part", PARTS)
def test_the_leading_part_gets_its_advice(many: Diagnosis, part: str) -> None:
    losses = dict.fromkeys(PARTS, 0.1) | {part: 0.21}
    every = read(with_rows(many, iou=0.49, **losses))
    (finding,) = (one for one in every if one.rule == "part")
    assert f"Most is lost in the {part}, 0.210 (0.210 to 0.210), which is 41% of all losses" in finding.says
    assert findings.PART_REASONS[part] in finding.says
    assert all(sentence in " ".join(one.advice for one in every) for sentence in Edits(many.spec).part(part))
    equal = with_rows(many, iou=0.6, **dict.fromkeys(PARTS, 0.1))
    (finding,) = (one for one in read(equal) if one.rule == "part")
    assert "No part of the model is known to lose more than the others" in finding.says
    gaining = {next(one for one in PARTS if one != part): -0.1}  # a part that gains makes no share exceed the whole
    (finding,) = (one for one in read(with_rows(many, iou=0.69, **losses | gaining)) if one.rule == "part")
    assert "which is 51% of all losses" in finding.says


def test_thresholds_of_the_rules(many: Diagnosis) -> None:
    gains = dict.fromkeys(ERROR_TYPES, 0.0)
    surely, hardly = Interval(0.01, 0.005, 0.02), Interval(0.01, -0.005, 0.02)
    for gain, ahead, expected in ((0.01, surely, True), (0.0099, surely, False), (0.01, hardly, False)):
        given = replace(many, errors=replace(many.errors, gain=gains | {"duplicate": gain}))
        given = with_intervals(
            given, errors=dict.fromkeys(ERROR_TYPES, surely), ahead={"class": surely, "missed": ahead}
        )
        assert ("errors" in said(given)) == expected
    half = [one._replace(instance=-1 if i % 2 else 0) for i, one in enumerate(many.objects)]
    assert "missed" not in said(replace(many, objects=[one._replace(instance=0) for one in half]))
    most = [one._replace(instance=-1 if i % 3 else 0) for i, one in enumerate(many.objects)]
    assert "missed" in said(replace(many, objects=most))
    one_image = [one._replace(instance=-1 if one.image < many.objects[0].image else 0) for one in many.objects]
    assert "missed" not in said(replace(many, objects=one_image))
    base = many.precision["predict"].ap
    same = with_ap(with_ap(many, "precision", "validation", ap=base), "precision", "native", ap=base)
    apart = with_ap(same, "precision", "native", ap=base + 0.0051)
    for given, gap, expected in ((same, surely, False), (apart, surely, True), (apart, hardly, False)):
        assert ("decodes" in said(with_intervals(given, decodes=gap))) == expected
    sizes = [one._replace(area=100 if i % 2 else 10_000) for i, one in enumerate(many.objects)]
    for behind, expected in ((surely, True), (hardly, False)):
        given = with_intervals(replace(many, objects=sizes), small_behind=behind)
        assert ("size" in said(given)) == expected
        assert "size" not in said(replace(given, objects=[one._replace(area=100) for one in sizes]))
    for gain, expected in ((0.021, True), (0.019, False)):
        assert ("box" in said(with_rows(many, iou=0.5, true_box_iou=0.5 + gain))) == expected
    for gain, expected in ((0.031, True), (0.029, False)):
        assert ("threshold" in said(with_rows(many, iou=0.5, threshold_iou=0.5 + gain))) == expected
    own = many.spec.rule.threshold
    rows = [
        replace(row, iou=0.5, threshold_iou=0.6, threshold=own + (i % 10 < 3) - (i % 10 >= 9))
        for i, row in enumerate(many.budget.rows[: 10 * (len(many.budget) // 10)])
    ]  # six of ten are right already
    (finding,) = (one for one in read(replace(many, budget=ErrorBudget(rows))) if one.rule == "threshold")
    assert "30% of them are too large, 10% too small" in finding.says


def made_budget(found: Diagnosis, columns: dict[str, list[object]]) -> Diagnosis:
    """The same with a budget of these values, one row after the other."""
    row = found.budget.rows[0]
    values = zip(*columns.values(), strict=True)
    return replace(found, budget=ErrorBudget([replace(row, **dict(zip(columns, one, strict=True))) for one in values]))


def test_rules_about_classes_and_scores(many: Diagnosis) -> None:
    images = [f"{i // 2:02d}" for i in range(80)]
    names = ["poor" if i % 2 else "good" for i in range(80)]
    ious = [0.5 if i % 2 else 0.8 for i in range(80)]
    given = made_budget(many, {"image": images, "class_name": names, "iou": ious})
    (finding,) = (one for one in read(given) if one.rule == "class")
    assert "Masks of poor are worse" in finding.says
    assert "0.300 (0.300 to 0.300) below the others" in finding.says
    near = made_budget(many, {"image": images, "class_name": names, "iou": [0.75 + 0.05 * (i % 2) for i in range(80)]})
    assert "class" not in said(near)
    few = made_budget(many, {"image": images[:38], "class_name": names[:38], "iou": ious[:38]})  # in 19 images
    assert "class" not in said(few)
    scores = [i / 100 for i in range(80)]
    ranked = made_budget(many, {"image": images, "score": scores, "iou": scores})
    assert "score" not in said(ranked)
    assert ranked.budget.rank_correlation().mean == pytest.approx(ranked.budget.ranking().spearman)
    unranked = scores[::-1]
    assert "score" in said(made_budget(many, {"image": images, "score": scores, "iou": unranked}))
    assert "score" not in said(made_budget(many, {"image": images[:38], "score": scores[:38], "iou": unranked[:38]}))


# --- what is written ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(found: Diagnosis, model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written") / "out ü"
    assert set(write_diagnosis(found, folder, model=model, worst=5)) == set(folder.iterdir())
    return folder


@pytest.mark.usefixtures("undrawn")
def test_tables_hold_every_object_and_detection(found: Diagnosis, written: Path, tmp_path: Path) -> None:
    objects = pyarrow.parquet.read_table(written / "instances.parquet").to_pylist()
    assert len(objects) == len(found.objects)
    assert sum(row["found"] for row in objects) == len(found.budget)
    for row in objects:
        losses = [row[part] for part in PARTS]
        if row["found"]:
            assert sum(losses) + row["iou"] == pytest.approx(1)
            assert row["x1"] < row["x2"]
        else:
            assert {*losses, row["iou"], row["instance"]} == {None}
    detections = pyarrow.parquet.read_table(written / "detections.parquet").to_pylist()
    assert len(detections) == len(found.detections)
    assert {row["error"] for row in detections} <= {None, *ERROR_TYPES}
    write_diagnosis(found, tmp_path, tables=".csv")
    assert pyarrow.csv.read_csv(tmp_path / "instances.csv").num_rows == len(objects)
    assert pyarrow.csv.read_csv(tmp_path / "detections.csv").num_rows == len(detections)


def test_summary_has_every_number(found: Diagnosis, written: Path) -> None:
    said = json.loads((written / "summary.json").read_text(encoding="utf-8"))
    assert said["average_precision"]["validation"]["ap"] == found.precision["validation"].ap
    assert list(said["if_perfect"]) == list(found.perfect)
    assert {step: one["ap"] for step, one in said["if_perfect_alone"].items()} == {
        step: one.ap for step, one in found.alone.items()
    }
    assert said["errors"]["gain"] == dict(found.errors.gain)
    assert said["error_budget"]["mean"]["coefficients"] == found.budget.mean().coefficients
    assert [one["rule"] for one in said["reading"]] == [one.rule for one in findings_of(found)]
    assert said["error_budget"]["beside"]["all"] == found.budget.means_beside()["all"]
    common = said["error_budget"]["common_threshold"]
    assert (common["probability"], common["mean_iou"]) == found.budget.common_threshold()
    assert common["gain"]["low"] is None  # too few images
    assert said["too_few_images"]
    assert said["costs"]["masks"]["mean"] + said["costs"]["detection"]["mean"] == pytest.approx(
        1 - found.precision["predict"].ap, abs=1e-6
    )


def test_the_page_says_what_stands_beside_the_budget(found: Diagnosis, written: Path) -> None:
    page = (written / "report.html").read_text(encoding="utf-8")
    for group, means in found.budget.means_beside().items():
        (row,) = re.findall(rf"<tr><td class=\"text\">{group}</td>(.*?)</tr>", page)
        cells = [float(cell.replace("–", "nan")) for cell in re.findall(r"<td>(.*?)</td>", row)]
        assert cells == pytest.approx([means[column] for column in BESIDE], abs=6e-4, nan_ok=True)
    assert f"all ({len(found.budget)})" in page
    assert "all, the box put right first" in page


def test_the_page_is_whole_and_loads_nothing(found: Diagnosis, written: Path) -> None:
    page = (written / "report.html").read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1]
    assert policy.startswith("default-src 'none'; img-src data: blob:;")
    for tag, kind, many in (("style", "", 1), ("script", "", 2), ("script", ' type="module"', 1)):
        texts = re.findall(rf"<{tag}{kind}>(.*?)</{tag}>", page, re.DOTALL)
        assert len(texts) == many
        for text in texts:
            digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            assert re.search(rf"{tag}-src [^;]*'sha256-{re.escape(digest)}'", policy)
    body = re.sub(r"<(style|script)\b[^>]*>.*?</\1>", "", page, flags=re.DOTALL)
    body = body.replace('xmlns="http://www.w3.org/2000/svg"', "")  # of the logo
    assert not re.search(r"https?://|style=|\son\w+=|javascript:", re.sub(r'"data:[^"]+"', '""', body))
    assert not re.search(r"\$\w", re.sub(r'"data:[^"]+"', '""', body)), "a placeholder was left"
    worst = page.partition('<section id="worst">')[2].partition("</section>")[0]
    assert worst.count("data:image/webp") == 5
    assert body.count("fewer than 20 the numbers may be chance") == 1
    assert 'id="reading"' not in body
    assert "too few images" in body


@pytest.mark.usefixtures("undrawn")
def test_findings_lead_to_figures(many: Diagnosis, tmp_path: Path) -> None:
    write_diagnosis(many, tmp_path, worst=0)
    body = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert len(findings_of(many)) > 1
    for finding in findings_of(many):
        assert html.escape(finding.says) in body
        assert f'id="figure-{finding.figure}"' in body
        assert f'href="#figure-{finding.figure}"' in body


def test_names_cannot_break_the_page(found: Diagnosis, tmp_path: Path) -> None:
    evil = "</table><script>alert('x')</script>\"&$title"
    rows = [replace(row, image=evil, class_name=evil) for row in found.budget.rows]
    names = dict.fromkeys(found.dataset.names, evil)
    given = replace(
        found,
        spec=replace(found.spec, name=evil),
        dataset=replace(found.dataset, names=names),
        budget=ErrorBudget(rows),
        failures=[Failure(evil, evil)],
        remarks=[evil],
        unknown_classes=[evil],
    )
    write_diagnosis(given, tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert evil not in page
    assert page.count("<script>") == 2
    assert html.escape(evil) in page


def test_a_folder_that_cannot_be_written_is_named(found: Diagnosis, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(maskprism.MaskprismError, match="cannot be written"):
        write_diagnosis(found, tmp_path / "file" / "out")


def test_small_pictures_show_errors_solid_or_striped_on_dimmed_greys() -> None:
    image = np.full((40, 100, 3), 100, dtype=np.uint8)
    mask, true = np.zeros((2, 40, 100), dtype=bool)
    mask[5:35, 10:50] = True
    true[5:35, 30:70] = True
    picture = mask_against_truth(image, mask, true, np.array([10, 5, 50, 35], dtype=np.float32), side=240)
    assert picture.shape[1] == 240
    colours = {tuple(int(c) for c in colour) for colour in picture.reshape(-1, 3)}
    assert {(55, 55, 55), (100, 100, 100), MISSING[::-1], TOO_MUCH[::-1]} <= colours
    tiny = mask_against_truth(image[:3, :3], mask[:3, :3], true[:3, :3], np.zeros(4, dtype=np.float32))
    assert tiny.shape == (232, 232, 3)


# --- the command ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("undrawn")
def test_command(data: Path, tmp_path: Path) -> None:
    (tmp_path / "scenes").symlink_to(data.parent)
    result = run(
        "diagnose",
        "scenes/data.yaml",
        "--model",
        "sample",
        "--out",
        "out",
        "--limit",
        3,
        "--table",
        "csv",
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    for text in (
        "sample.onnx on",
        "3 images",
        "masks, val save_json (image)",
        "Where to look first",
        "Only 3 images: with fewer than 20 the numbers may be chance",
    ):
        assert text in result.stdout
    names = {"report.html", "instances.csv", "detections.csv", "summary.json", *(f"{name}.png" for name in FIGURES)}
    names.add("diagnose.manifest.json")
    assert {path.name for path in (tmp_path / "out").iterdir()} == names


@pytest.mark.usefixtures("undrawn")
def test_command_says_what_tuning_would_give(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_little_effort(monkeypatch)
    result = run("diagnose", data, "--model", "sample", "--out", tmp_path / "o", "--tune", "--worst", 0)
    assert result.returncode == 0, result.stderr
    assert "Tuning: On images that took no part, the mean mask IoU of" in result.stdout
    page = (tmp_path / "o" / "report.html").read_text(encoding="utf-8")
    assert "What tuning would gain" in page
    assert page.index('id="tuning"') < page.index('id="figures"')
    numbers = json.loads((tmp_path / "o" / "summary.json").read_text())["tuning"]
    assert numbers["data"]["images"] == 6
    gain = numbers["mask_iou"]["all"]
    assert gain["after"] - gain["before"] == pytest.approx(gain["gain"]["mean"])
    assert len(numbers["folds"]) == 5


@pytest.mark.usefixtures("undrawn")
def test_where_tuning_cannot_be_measured_the_rest_is_written(data: Path, tmp_path: Path) -> None:
    result = run("diagnose", data, "--model", "sample", "--out", tmp_path / "o", "--tune", "--limit", 2, "--worst", 0)
    assert result.returncode == 1
    assert "maskprism: tuning could not be measured: 2 of 2 images have an instance" in result.stderr
    assert "What tuning would gain" not in (tmp_path / "o" / "report.html").read_text(encoding="utf-8")
    assert "tuning" not in json.loads((tmp_path / "o" / "summary.json").read_text())


def test_command_refuses_in_one_line(data: Path, tmp_path: Path) -> None:
    says(run("diagnose", tmp_path / "none.yaml", "--model", "sample", "--out", tmp_path / "o"), "there is no such file")
    (tmp_path / "file").write_text("")
    says(
        run("diagnose", data, "--model", "sample", "--out", tmp_path / "file" / "o"),
        "cannot be written",
        "choose another --out",
    )
    says(
        run("diagnose", data, "--model", "sample", "--out", tmp_path / "o", "--limit", 0),
        "limit is 0; expected at least 1",
    )
    says(
        run("diagnose", data, "--model", "sample", "--out", tmp_path / "o", "--worst", -1),
        "worst is -1; expected 0 or more",
    )


def test_labels_without_masks_are_told(own_data: Path, tmp_path: Path) -> None:
    for file in labels(own_data):
        file.write_text("0 0.5 0.5 0.3 0.3\n")
    result = run("diagnose", own_data, "--model", "sample", "--out", tmp_path / "o", "--limit", 1)
    assert result.returncode == 0, result.stderr
    assert "1 image, 0 ground-truth instances" in result.stdout
    assert "1 remark about labels" in result.stdout
    assert "Nothing in these images is labelled with a mask" in result.stdout
    assert "nan" not in result.stdout
    written = {path.stem for path in (tmp_path / "o").glob("*.png")}
    assert written == {"decodes", "sizes"}
    assert "with fewer than 20 the numbers may be chance" in (tmp_path / "o" / "report.html").read_text(
        encoding="utf-8"
    )


@pytest.mark.usefixtures("undrawn")
def test_masks_that_are_all_crowds_are_told_before_the_network_runs(tmp_path: Path) -> None:
    """As CVAT exports brush masks: `iscrowd: 1` and uncompressed RLE."""
    cv2.imwrite(str(tmp_path / "1.png"), np.full((64, 64, 3), 90, np.uint8))
    runs = [8 * 64 + 8, *[32, 32] * 31, 32, 64 * 64 - 8 * 64 - 8 - 32 * 63]
    tree = {
        "images": [{"id": 1, "file_name": "1.png", "width": 64, "height": 64}],
        "categories": [{"id": 1, "name": "disc"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 1, "area": 1024, "bbox": [8, 8, 32, 32]}
            | {"segmentation": {"size": [64, 64], "counts": runs}}
        ],
    }
    data = tmp_path / "instances_default.json"
    data.write_text(json.dumps(tree))
    says(
        run("diagnose", data, "--model", "sample", "--out", tmp_path / "o"),
        "1 of 1 mask in instances_default.json is a crowd (iscrowd: 1)",
        "CVAT marks every brush mask so",
        "take --crowds as-instances",
    )
    result = run("diagnose", data, "--model", "sample", "--out", tmp_path / "p", "--crowds", "as-instances")
    assert result.returncode == 0, result.stderr
    assert "1 image, 1 ground-truth instance" in result.stdout
    assert "is a crowd (iscrowd: 1), counted as single objects" in result.stdout


@pytest.mark.usefixtures("undrawn")
def test_an_interrupted_command_reports_what_is_done(
    found: Diagnosis,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(*_: object, **__: object) -> Diagnosis:
        return replace(found, images=2, interrupted=True)

    monkeypatch.setattr("maskprism.analysis.dataset.diagnosis.diagnose", interrupted)
    from maskprism.cli.diagnose import diagnose as command

    assert command(data, model=[Path("sample")], out=tmp_path, worst=1) == 130
    assert "interrupted after 2 of 6 images" in capsys.readouterr().out
    assert "Interrupted: this is about 2 of 6" in (tmp_path / "report.html").read_text(encoding="utf-8")
