"""Questions about masks: the figures, tables and files that answer them, and the command that asks."""

from __future__ import annotations

import csv
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

import maskprism
from helpers import in_process
from helpers import reference_attribution as slow
from helpers.by_hand import drawn as four_by_hand
from helpers.by_hand import square
from helpers.tiny_models import Tiny
from maskprism import Letterbox, Prediction
from maskprism.analysis.instance.attribution import explain
from maskprism.analysis.instance.prototype_roles import ROLES, roles
from maskprism.analysis.instance.questions import Questions
from maskprism.analysis.instance.regions import pixel_query, region_blame, truth_blame
from maskprism.analysis.instance.sufficient_sets import knock_out
from maskprism.cli.explain import print_tables
from maskprism.datasets.scenes import draw_scene
from maskprism.drawing import attribution_charts as attribution
from maskprism.drawing import instance_tables as tables
from maskprism.drawing import raster
from maskprism.drawing.roles import ROLE_COLOURS, roles_sheet
from maskprism.drawing.sheets import signed
from maskprism.io.sources import SourceImage
from maskprism.reports.explanation import Explained, explain_images


class Case:
    """A scene and what the bundled model says about it."""

    image = draw_scene(3).image
    truth = draw_scene(3).masks

    def __init__(self) -> None:
        self.prediction: Prediction = replace(maskprism.load("sample").predict(self.image), source="scene ü.png")


@pytest.fixture(scope="module")
def case() -> Case:
    return Case()


# --- figures and tables ---------------------------------------------------------------------------


def test_roles_are_drawn_in_their_colours(case: Case) -> None:
    instance = case.prediction[0]
    found = roles(instance)
    picture = raster.draw(roles_sheet(case.image, instance))
    assert picture.shape[0] > 32 * 34
    for role in ROLES:
        painted = (picture == np.array(ROLE_COLOURS[role], dtype=np.uint8)).all(axis=2).sum()
        assert painted > 2000 * (1 + found.role.count(role))
    given = raster.draw(roles_sheet(case.image, instance, found, knock_out(instance)))
    np.testing.assert_array_equal(given, picture)


def test_roles_of_empty_masks_and_boxes_elsewhere_are_drawn(case: Case) -> None:
    empty = replace(case.prediction[[0]], coefficients=np.full((1, 32), -1e-9, dtype=np.float32))
    away = replace(case.prediction[[0]], canvas_boxes=np.array([[-90, -90, -80, -80]], dtype=np.float32))
    nothing = replace(case.prediction[[0]], coefficients=np.zeros((1, 32), dtype=np.float32))
    for prediction in (empty, away, nothing):
        raster.draw(roles_sheet(case.image, prediction[0]))
        attribution.attribution(prediction[0], explain(prediction[0], permutations=4))
        shown = tables.roles_table(prediction[0], roles(prediction[0]), knock_out(prediction[0]))
        assert all("nan" not in cell for row in shown.rows for cell in row)


def test_tables_of_256_prototypes_show_64_and_the_sum_of_the_others(case: Case) -> None:
    rng = np.random.default_rng(0)
    mixing = np.linalg.qr(rng.normal(size=(256, 32)))[0].astype(np.float32)  # the same masks, of more prototypes
    prototypes = np.tensordot(mixing, case.prediction.prototypes, axes=1)
    many = replace(case.prediction, coefficients=case.prediction.coefficients @ mixing.T, prototypes=prototypes)
    instance = many[0]
    x1, y1, x2, y2 = instance.box
    query = pixel_query(instance, int((x1 + x2) / 2), int((y1 + y2) / 2))
    found, owed = roles(instance), explain(instance, permutations=4, size="grid")
    missing, _ = truth_blame(instance, ~instance.mask("image"))
    shown = (
        (tables.roles_table(instance, found, knock_out(instance), order="index"), 3, found.inside, found.order()),
        (tables.pixel_table(instance, query), 1, query.contributions, query.order),
        (tables.blame_table(instance, missing), 1, missing.contributions, missing.order),
        (tables.attribution_table(instance, owed), 1, owed.shapley.values, owed.shapley.order()),
    )
    for table, column, values, order in shown:
        assert {int(row[0]) for row in table.rows} == set(order[: tables.MOST_ROWS].tolist())
        assert table.totals[0][0] == "192 others"
        assert float(table.totals[0][column].replace("−", "-")) == pytest.approx(values[order[64:]].sum(), abs=0.006)
        assert {len(row) for row in (*table.rows, *table.totals)} == {len(table.headers)}
    assert len(tables.role_rows(found, knock_out(instance))) == 256
    picture = raster.draw(roles_sheet(case.image, instance, found, knock_out(instance)))
    assert picture.shape[0] < 3000
    for axes in attribution.attribution(instance, owed).axes[2:]:
        assert axes.get_xlabel() == "prototype; 192 smaller ones are not drawn"


def test_the_waterfall_ends_at_the_logit(case: Case) -> None:
    instance = case.prediction[0]
    x1, y1, x2, y2 = instance.box
    query = pixel_query(instance, int((x1 + x2) / 2), int((y1 + y2) / 2))
    figure = attribution.waterfall(instance, query, named=5)
    (ax,) = figure.axes
    bars = list(ax.patches)
    assert len(bars) == 7  # five by name, the rest, the logit
    level = 0.0
    for bar in bars[:-1]:
        assert bar.get_y() == pytest.approx(level, abs=1e-6)
        level += bar.get_height()
    assert level == pytest.approx(query.logit)
    assert bars[-1].get_height() == query.logit
    low, high = ax.get_ylim()
    assert all(low <= bar.get_y() <= high and low <= bar.get_y() + bar.get_height() <= high for bar in bars)
    assert "Why pixel" in figure.get_suptitle()
    assert len(attribution.waterfall(instance, query, image=case.image).axes) == 2


def test_the_blame_is_drawn_for_every_region(case: Case) -> None:
    instance = case.prediction[0]
    blames = truth_blame(instance, np.roll(instance.mask("image"), 4, axis=1))
    figure = attribution.blame(case.image, instance, blames, named=6)
    assert len(figure.axes) == 4
    for ax, one in zip(figure.axes[1::2], blames, strict=True):
        widths = [bar.get_width() for bar in ax.patches]
        np.testing.assert_allclose(widths, one.contributions[one.order[:6]])
        assert ax.get_title(loc="left").startswith("what pushes")
    perfect = truth_blame(instance, instance.mask("image"))
    attribution.blame(case.image, instance, perfect)
    assert tables.blame_table(instance, perfect[0]).rows == ()
    on_canvas = region_blame(instance, instance.mask("canvas"))
    attribution.blame(case.image, instance, [on_canvas])


def test_text_tables_say_what_the_numbers_say(case: Case) -> None:
    instance = case.prediction[0]
    found, without = roles(instance), knock_out(instance)
    shown = tables.roles_table(instance, found, without)
    assert [int(row[0]) for row in shown.rows] == found.order().tolist()
    assert {name for row in shown.rows for name in row[1].split("/")} <= set(ROLES)
    assert len(shown.rows[0]) == len(shown.headers)
    assert "scene ü.png" in shown.title
    rows = tables.role_rows(found, without)
    assert rows[0]["iou_without"] == without[int(rows[0]["prototype"])]
    owed = explain(instance, permutations=8)
    table = tables.attribution_table(instance, owed)
    assert sum(row[-1] == "yes" for row in table.rows) == len(owed.smallest.members)
    assert [row["prototype"] for row in tables.attribution_rows(owed)] == owed.shapley.order().tolist()
    against = explain(instance, permutations=4, target=np.ones(case.prediction.image_size, bool))
    table = tables.attribution_table(instance, against)
    assert "no set " in table.note
    assert {row[-1] for row in table.rows} == {""}
    assert "ground truth" in attribution.attribution(instance, against).get_suptitle()


def test_the_pixel_table_ends_in_the_sum() -> None:
    prediction = replace(four_by_hand(square(2, -1), np.ones((16, 16)), weights=[1.5, -0.5]), source="s")
    shown = tables.pixel_table(prediction[0], pixel_query(prediction[0], 32, 32))
    assert shown.rows == (("0", "+3.00", "−1.25"), ("1", "−0.50", "−2.50"))
    assert shown.totals == (("logit", "+2.50", ""),)
    assert shown.note == "in the mask; coefficient 0 changed by −1.25 would flip it"
    outside = replace(prediction, canvas_boxes=np.array([[0, 0, 8, 8]], dtype=np.float32))
    shown = tables.pixel_table(outside[0], pixel_query(outside[0], 32, 32))
    assert "outside the crop" in shown.note
    assert shown.rows[0][2] == "∞"


@pytest.mark.parametrize(("height", "width"), [(1, 50), (2000, 2), (3, 3)])
def test_a_pixel_is_shown_in_images_of_any_shape(height: int, width: int) -> None:
    square_one = four_by_hand(square(2, -1), np.ones((16, 16)), weights=[1.5, -0.5])
    letterbox = Letterbox.fit((height, width), square_one.letterbox.canvas_hw).with_grid((16, 16))
    prediction = replace(square_one, letterbox=letterbox)
    image = np.zeros((height, width, 3), dtype=np.uint8)
    figure = attribution.waterfall(prediction[0], pixel_query(prediction[0], 0, 0), image=image)
    figure.canvas.draw()


def test_thin_regions_of_large_images_are_seen() -> None:
    square_one = four_by_hand(square(2, -1), np.ones((16, 16)), weights=[1.5, -0.5], box=(0, 0, 64, 64))
    letterbox = Letterbox.fit((2400, 2400), square_one.letterbox.canvas_hw).with_grid((16, 16))
    prediction = replace(square_one, letterbox=letterbox)
    region = np.zeros((2400, 2400), dtype=bool)
    region[1201, 100:2300] = True
    image = np.zeros((2400, 2400, 3), dtype=np.uint8)
    figure = attribution.blame(image, prediction[0], [region_blame(prediction[0], region)])
    shown = np.asarray(figure.axes[0].images[0].get_array())
    assert max(shown.shape) < 1000
    assert np.count_nonzero(shown.any(axis=2)) >= 2200 // 3


def test_questions_are_true_when_something_is_asked() -> None:
    assert not Questions()
    assert Questions(at=(0, 0))
    assert Questions(attribution=True)
    assert Questions(truth=np.zeros((2, 2), dtype=bool))


@pytest.mark.parametrize(("network", "rule"), [("yolov8n-seg", None), ("yolov8n-seg", "yolact"), ("yolov5n-seg", None)])
def test_real_networks(network: str, rule: str | None, real_data: Path) -> None:
    """Knock-outs are those of edits, and contributions decide pixels, for every family."""
    prediction = maskprism.load(real_data / "models" / f"{network}.onnx", threads=1).predict(
        real_data / "images" / "bus.jpg"
    )
    instance = (prediction if rule is None else prediction.with_rule(rule))[1]
    size = "canvas"
    full, without = instance.mask(size), knock_out(instance, size=size)
    for k in (0, 3, 31):
        rest = slow.subset_mask(instance, [other for other in range(32) if other != k], size)
        assert without[k] == pytest.approx(slow.iou(rest, full), abs=2e-4)  # a tie or two may fall otherwise
    mask = instance.mask("image")
    x1, y1, x2, y2 = instance.box
    places = np.random.default_rng(0).uniform((x1 - 9, y1 - 9), (x2 + 9, y2 + 9), (30, 2)).astype(int)
    for x, y in places.clip(0, (prediction.image_size[1] - 1, prediction.image_size[0] - 1)):
        query = pixel_query(instance, int(x), int(y))
        assert query.in_mask == mask[y, x]
        assert query.contributions.sum() + query.crop == pytest.approx(query.logit)
    assert roles(instance).share.sum() == pytest.approx(1, abs=1e-3)


# --- the command ----------------------------------------------------------------------------------


run = partial(in_process.command, "explain", columns=100)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "a ü.png"
    path.write_bytes(cv2.imencode(".png", cv2.resize(draw_scene(0).image, (160, 120)))[1].tobytes())
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Tiny().save(tmp_path_factory.mktemp("model") / "tiny.onnx")


def read(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


@pytest.mark.usefixtures("undrawn")
def test_roles_are_printed_and_written(model: Path, image: Path, tmp_path: Path) -> None:
    result = run(image, "--model", model, "--out", tmp_path, "--overwrite", "--top", 3)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].startswith("Roles: instance 0, class0")
    assert "share" in result.stdout
    assert "5 more rows in the CSV file" in result.stdout
    assert max(map(len, lines[:10])) <= 100
    rows = read(tmp_path / "a ü" / "00-roles.csv")
    assert len(rows) == 8
    assert {row["role"] for row in rows} <= set(ROLES)
    prediction = maskprism.load(model).predict(image)
    np.testing.assert_allclose([float(row["ring"]) for row in rows], roles(prediction[0]).ring[
        [int(row["prototype"]) for row in rows]
    ], rtol=1e-5)  # fmt: skip
    assert "share" not in run(image, "--model", model, "--out", tmp_path, "--overwrite", "--top", 0).stdout
    ranked = run(image, "--model", model, "--out", tmp_path, "--overwrite", "--top", 8, "--rank", "spread").stdout
    first = [line.split()[0] for line in ranked.splitlines() if line.strip()]
    assert [int(word) for word in first if word.isdigit()][:8] == roles(prediction[0]).order("spread").tolist()


@pytest.mark.parametrize("columns", [40, 80])
def test_no_cell_of_a_table_is_cut(
    columns: int, case: Case, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    instance = case.prediction[0]
    shown = tables.roles_table(instance, roles(instance), knock_out(instance))
    print_tables([shown], 32)
    title, *lines, _note, _empty = capsys.readouterr().out.split("\n")
    assert title == shown.title
    assert [tuple(line.replace(" %", "%").split()) for line in lines if "%" in line] == [
        tuple(cell.replace(" %", "%") for cell in row) for row in shown.rows
    ]
    assert columns < 80 or max(map(len, lines)) <= 80


def test_every_question_is_answered(model: Path, image: Path, tmp_path: Path) -> None:
    truth = np.zeros((120, 160), dtype=np.uint8)
    truth[30:70, 30:70] = 1  # an index image: 1 is bright where nothing is brighter
    cv2.imwrite(str(tmp_path / "truth.png"), truth)
    result = run(
        image, "--model", model, "--out", tmp_path / "out", "--instance", 0, "--at", "60,50",
        "--truth", tmp_path / "truth.png", "--region", tmp_path / "truth.png", "--attribution",
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    assert "11 pictures of 1 image in" in result.stdout
    for title in ("Roles:", "Pixel 60,50:", "Region:", "False positives:", "False negatives:", "against the ground"):
        assert title in result.stdout
    folder = tmp_path / "out" / "a ü"
    for name in ("pixel-60-50", "region", "truth", "attribution"):
        assert (folder / f"00-{name}.png").exists()
        assert (folder / f"00-{name}.csv").exists()
    prediction = maskprism.load(model).predict(image)
    rows = read(folder / "00-pixel-60-50.csv")
    assert sum(float(row["contribution"]) for row in rows) == pytest.approx(pixel_query(prediction[0], 60, 50).logit)
    kinds = {row["kind"] for row in read(folder / "00-truth.csv")}
    assert kinds == {"false positives", "false negatives"}
    blame = region_blame(prediction[0], truth > 0)
    assert float(read(folder / "00-region.csv")[0]["contribution"]) == pytest.approx(
        float(blame.contributions[blame.order[0]]), rel=1e-5
    )


@pytest.mark.usefixtures("undrawn")
def test_other_baselines_and_metrics(model: Path, image: Path, tmp_path: Path) -> None:
    asked = ("--instance", 0, "--at", "60,50", "--baseline", "mean", "--attribution", "--metric", "dice")
    result = run(image, "--model", model, "--out", tmp_path, "--overwrite", *asked)
    assert result.returncode == 0, result.stdout + result.stderr
    instance = maskprism.load(model).predict(image)[0]
    query = pixel_query(instance, 60, 50, baseline="mean")
    rows = read(tmp_path / "a ü" / "00-pixel-60-50.csv")
    assert sum(float(row["contribution"]) for row in rows) == pytest.approx(query.logit - query.level)
    (level,) = (line for line in result.stdout.splitlines() if line.split()[:1] == ["level"])
    assert signed(query.level) in level
    assert "Dice of all 1.000" in result.stdout
    owed = explain(instance, metric="dice")
    assert owed.shapley.metric == "dice"
    rows = read(tmp_path / "a ü" / "00-attribution.csv")
    assert [float(row["shapley"]) for row in rows] == pytest.approx(sorted(owed.shapley.values, reverse=True))
    assert sum(float(row["shapley"]) for row in rows) == pytest.approx(owed.shapley.full - owed.shapley.none)
    drawn = attribution.attribution(instance, owed)
    assert [ax.get_ylabel() for ax in drawn.axes][2] == "Dice"


@pytest.mark.usefixtures("undrawn")
def test_a_pixel_chooses_its_instance(model: Path, image: Path, tmp_path: Path) -> None:
    prediction = maskprism.load(model).predict(image)
    x1, y1, x2, y2 = prediction[1].box
    x, y = int((x1 + x2) / 2), int((y1 + y2) / 2)
    result = run(image, "--model", model, "--out", tmp_path, "--overwrite", "--at", f"{x},{y}", "--top", 2)
    assert result.returncode == 0, result.stderr
    assert f"Pixel {x},{y}: instance 1, class1" in result.stdout
    result = run(image, "--model", model, "--out", tmp_path, "--overwrite", "--at", "159,0")
    assert result.returncode == 1
    assert "pixel 159,0 lies in the box of no instance; choose one with --instance" in result.stderr
    asked = run(image, "--model", model, "--out", tmp_path, "--overwrite", "--at", "159,0", "--instance", 0)
    assert asked.returncode == 0
    assert "not in the mask; it lies outside the crop" in asked.stdout


@pytest.mark.parametrize("question", ["truth", "region"])
def test_a_true_mask_and_a_region_choose_their_instance(
    question: str, case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every labelled instance finds its own; what lies in no box finds none; black images keep the choice."""
    monkeypatch.setattr(raster, "save", lambda sheet, path: Path(path))  # which pictures there are tells the choice
    monkeypatch.setattr("maskprism.drawing.figures.save", lambda figure, path, **settings: None)
    model = maskprism.load("sample")

    def explained(image: np.ndarray) -> Explained:
        given = Questions(**{question: image})
        item = SourceImage("a.png", case.image)
        (found,) = explain_images([item], model, tmp_path, questions=given)
        return found

    for index in (2, len(case.prediction) - 1):
        asked = case.prediction[index].mask("image")
        asked[::3] = False
        found = explained(asked)
        assert {path.name[:2] for path in found.pictures if path.name != "overview.png"} == {f"{index:02d}"}
    beside = np.zeros(case.prediction.image_size, dtype=bool)
    x1, y1, x2, y2 = (round(v) for v in case.prediction[0].box.tolist())
    beside[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1] = True
    for one in case.prediction:
        beside &= ~one.mask("image")
    assert beside.any()  # in a box, in no mask
    assert "00-roles.png" in {path.name for path in explained(beside).pictures}
    outside = np.ones(case.prediction.image_size, dtype=bool)
    for x1, y1, x2, y2 in case.prediction.boxes.tolist():
        outside[max(int(y1) - 2, 0) : int(y2) + 3, max(int(x1) - 2, 0) : int(x2) + 3] = False
    failure = explained(outside).failure
    assert failure is not None
    assert "lies in the box of no instance; choose one with --instance" in failure.message
    black = explained(np.zeros(case.prediction.image_size, dtype=bool))
    assert "00-roles.png" in {path.name for path in black.pictures}
    assert (black.failure is not None and "the region is empty" in black.failure.message) == (question == "region")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--at", "160,5"], "pixel 160,5 is outside the image; expected x from 0 to 159 and y from 0 to 119"),
        (["--at", "12"], "--at is '12'; expected a pixel X,Y of the image, such as 120,80"),
        (["--at", "1.5,x"], "--at is '1.5,x'"),
        (["--truth", "missing.png"], "missing.png: there is no such file"),
        (["--region", "SMALL"], "region has shape (5, 5); expected that of the image, (120, 160)"),
        (["--region", "BLACK"], "the region is empty"),
    ],
)
def test_mistakes_in_questions_are_told(
    arguments: list[str], message: str, model: Path, image: Path, tmp_path: Path
) -> None:
    for name, size in (("SMALL", (5, 5)), ("BLACK", (120, 160))):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full(size, 255 if name == "SMALL" else 0, dtype=np.uint8))
    arguments = [str(tmp_path / f"{one}.png") if one in ("SMALL", "BLACK") else one for one in arguments]
    result = run(image, "--model", model, "--out", tmp_path / "out", *arguments)
    assert result.returncode == 1
    output = " ".join((result.stdout + result.stderr).split())
    assert message in output
    assert "Traceback" not in output


@pytest.mark.parametrize("rule", ["retina", "validation", "ultralytics-8.2", "yolact", "no-crop"])
def test_every_rule_is_explained(rule: str, case: Case, tmp_path: Path) -> None:
    from maskprism.reports.explanation import write_explanation

    written = write_explanation(case.image, case.prediction[:1].with_rule(rule), tmp_path, [0])
    assert {"00-roles.png", "00-roles.csv"} <= {path.name for path in written}
