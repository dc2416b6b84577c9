"""What the viewer tells: the equation, names of prototypes, a stage that zooms, ground truth, the tour."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

import maskprism
from helpers.pages import pixels, settle, storing, until
from maskprism import Decomposition, Edit, Letterbox, Prediction
from maskprism.analysis.instance.prototype_roles import roles
from maskprism.analysis.truth.matching import match_masks
from maskprism.core.masks import ULTRALYTICS
from maskprism.datasets import GroundTruth
from maskprism.datasets.scenes import draw_scene
from maskprism.drawing.mask_style import instance_colours
from maskprism.drawing.palette import lookup_table
from maskprism.viewer.page import Page as PageFile
from maskprism.viewer.page import write_page
from maskprism.viewer.payload import as_shown

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

Context = Callable[..., "BrowserContext"]
SEED = 3


@pytest.fixture(scope="module")
def shown() -> Prediction:
    return as_shown(maskprism.load("sample").predict(draw_scene(SEED).image), 8)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One scene; of its labels, which it has all, the model is shown all but one, and one more that is not there."""
    scene = draw_scene(SEED)
    prediction = maskprism.load("sample").predict(scene.image)
    extra = np.zeros(scene.image.shape[:2], bool)
    extra[10:60, 20:90] = True
    truth = GroundTruth.of_masks([*scene.masks, extra], [*scene.classes.tolist(), 2])
    page = PageFile()
    page.add(scene.image, prediction, truth)
    return page.write(tmp_path_factory.mktemp("story") / "page.html")


def opened(context: BrowserContext, path: Path | str, fragment: str = "#i=0") -> Page:
    page = context.new_page()
    page.goto((path if isinstance(path, str) else path.as_uri()) + fragment)
    page.locator(".stage").wait_for()
    settle(page)
    return page


@pytest.fixture
def page(offline: Context, file: Path) -> Page:
    return opened(offline(), file)


def number(text: str) -> float:
    return float(text.replace("−", "-"))


# --- the equation ---------------------------------------------------------------------------------


def side_of_map(picture: np.ndarray) -> np.ndarray:
    """Positions in the map of contributions, -1 to 1, of colours that are in it."""
    table = lookup_table("contribution").astype(int)
    flat = picture[..., :3].reshape(-1, 3).astype(int)
    at = np.abs(flat[:, None] - table[None]).sum(axis=2)
    assert at.min(axis=1).max() == 0
    return ((at.argmin(axis=1) - 127.5) / 127.5).reshape(picture.shape[:2])


def assert_equation(page: Page, after: Prediction, original: Prediction) -> None:
    """For + against = logits, of the instance, around its box; each on the same scale."""
    settle(page)
    parts, first = Decomposition(after[0]), Decomposition(original[0])
    expected = {"positive": parts.positive, "negative": parts.negative, "logits": parts.logits}
    x1, y1, x2, y2 = np.round(after[0].letterbox.from_canvas(after[0].canvas_box, "grid")).astype(int)
    drawn = {name: side_of_map(pixels(page.locator(f".equation .{name} canvas"))) for name in expected}
    height, width = drawn["logits"].shape
    assert height >= y2 - y1
    assert width >= x2 - x1
    # Where the window lies is found by what it shows; then all three must agree with Python there.
    grid_h, grid_w = parts.logits.shape
    limit = max(np.abs(first.positive).max(), np.abs(first.negative).max())
    best = min(
        ((r, c) for r in range(grid_h - height + 1) for c in range(grid_w - width + 1)),
        key=lambda at: np.abs(
            np.sign(drawn["logits"]) - np.sign(parts.logits[at[0] :, at[1] :][:height, :width])
        ).sum(),
    )
    assert best[0] <= max(y1, 0)
    assert best[0] + height >= min(y2, grid_h)
    cut = (slice(best[0], best[0] + height), slice(best[1], best[1] + width))
    scales = []
    for name, whole in expected.items():
        values = whole[cut]
        fit = (np.abs(drawn[name]) < 0.95) & (np.abs(values) > 0.1 * limit)
        assert fit.sum() > 20, name
        scales.append(np.median(values[fit] / drawn[name][fit]))
        assert np.abs(values[fit] - drawn[name][fit] * scales[-1]).max() < 0.03 * limit, name
    assert np.ptp(scales) < 0.02 * scales[0]


def test_the_equation_is_pythons_before_and_after_edits(page: Page, shown: Prediction) -> None:
    assert_equation(page, shown, shown)
    k = int(Decomposition(shown[0]).order()[0])
    slider = page.get_by_label(f"Coefficient of prototype {k}", exact=True)
    for _ in range(3):
        slider.press("Shift+ArrowLeft")  # sums are moved, not made anew
    value = slider.evaluate("one => one.valueAsNumber")
    assert_equation(page, Edit(set={k: value}, instances=[0]).apply(shown), shown)
    page.get_by_role("button", name="Keep top-5 prototypes").click()
    kept = Decomposition(shown[0]).order()[:5]
    assert_equation(page, Edit(keep=kept, instances=[0]).apply(shown), shown)


def test_the_equation_in_numbers_is_that_of_the_pixel(page: Page) -> None:
    page.locator(".stage").hover()
    settle(page)
    plus, minus, logit = (number(text) for text in page.locator(".equation .at").all_inner_texts()[:3])
    assert plus > 0 > minus
    assert plus + minus == pytest.approx(logit, abs=0.11)
    total = number(page.locator(".waterfall .total .value").inner_text())
    assert logit == pytest.approx(total, abs=0.051)
    inside = page.locator(".verdict").inner_text().startswith("In the mask")
    assert page.locator(".equation .mask .at").inner_text() == ("in the mask" if inside else "not in the mask")


def test_the_mask_panel_shows_the_mask(page: Page) -> None:
    panel = page.locator(".equation .mask canvas")
    before = pixels(panel)
    page.get_by_label("How many prototypes to keep").fill("0")
    page.get_by_role("button", name="Keep top").click()
    settle(page)
    after = pixels(panel)
    assert before.shape == after.shape
    assert (np.abs(before.astype(int) - after).sum(axis=2) > 30).mean() > 0.1


def test_prototypes_are_ablated_and_coefficients_taken_over(page: Page, shown: Prediction) -> None:
    order = Decomposition(shown[0]).order()
    drop = page.get_by_role("button", name="Ablate strongest")
    values = lambda: np.array(  # noqa: E731
        [
            value
            for _, value in sorted(
                page.locator(".card").evaluate_all(
                    "all => all.map(one => [Number(one.dataset.k), one.querySelector('.slider').valueAsNumber])"
                )
            )
        ],
        np.float32,
    )
    drop.click()
    drop.click()
    assert np.array_equal(values(), Edit(drop=order[:2], instances=[0]).apply(shown)[0].coefficients)
    page.get_by_label("Use coefficients of another instance").select_option("1")
    assert np.array_equal(values(), shown[1].coefficients)


# --- names ----------------------------------------------------------------------------------------


def test_prototypes_have_the_roles_that_python_gives_them(page: Page, shown: Prediction) -> None:
    expected = roles(shown[0]).role
    found = dict(page.locator(".card").evaluate_all("all => all.map(one => [one.dataset.k, one.dataset.role])"))
    assert [found[str(k)] for k in range(len(expected))] == list(expected)
    says = page.locator(".says").inner_text()
    assert says.startswith(f"{shown[0].name}: {expected.count('builds')} prototype")
    strongest = max((k for k, role in enumerate(expected) if role == "builds"), key=lambda k: roles(shown[0]).inside[k])
    assert re.search(rf"raise\w* its inside \((above all )?{strongest}\b", says)


def test_kinds_say_what_correlates(page: Page, shown: Prediction) -> None:
    until(page, lambda: "semantic" in page.locator(".strip").inner_text())
    content = shown.letterbox.content_cells
    flat = shown.prototypes[:, *content].reshape(len(shown.prototypes), -1)
    related = np.abs(np.corrcoef(flat))
    covered = shown.masks("grid")[:, *content].any(axis=0).reshape(-1)
    explained = np.array([np.corrcoef(row, covered)[0, 1] ** 2 for row in flat])
    for k, text in page.locator(".card").evaluate_all(
        "all => all.map(one => [Number(one.dataset.k), one.querySelector('.role').title])"
    ):
        if abs(explained[k] - 0.25) > 0.01:
            assert ("semantic" in text) == (explained[k] >= 0.25), k
        same = [j for j in range(len(flat)) if j != k and related[k, j] > 0.91]
        said = re.search(r"correlates with ([\d, ]+) by", text)
        listed = [int(one) for one in said[1].split(",")] if said else []
        assert set(same) <= set(listed)
        assert all(related[k, j] > 0.89 for j in listed)


def test_rows_cards_and_the_image_point_at_each_other(page: Page) -> None:
    row = page.locator(".waterfall li").first
    k = row.get_attribute("data-k")
    row.hover()
    card = page.locator(f'.card[data-k="{k}"]')
    assert "highlighted" in (card.get_attribute("class") or "")
    assert page.locator(".layer.prototype").is_visible()
    assert f"prototype {k}" in page.locator(".caption").inner_text()
    page.mouse.move(3, 3)
    assert page.locator(".highlighted").count() == 0
    card.locator(".thumb").hover()
    assert "highlighted" in (row.get_attribute("class") or "")
    page.locator(".stage").hover()
    settle(page)
    rows = page.locator(".waterfall li").evaluate_all(
        "all => all.slice(0, 3).map(one => [one.dataset.k, one.className])"
    )
    for index, style in rows:
        marked = "top-against" if "negative" in style else "top-for"
        assert marked in (page.locator(f'.card[data-k="{index}"]').get_attribute("class") or "")
    assert page.locator(".top-for, .top-against").count() == 3


def test_the_scale_is_that_of_the_thumbnails(page: Page) -> None:
    scale = page.locator(".legend")
    assert scale.count() == 1
    assert "each on its own scale" in (scale.get_attribute("aria-label") or "")
    page.get_by_label("Show").select_option("term")
    assert "red is positive" in (scale.get_attribute("aria-label") or "")


# --- the stage ------------------------------------------------------------------------------------


def scale(page: Page) -> float:
    found: float = page.evaluate(
        "document.querySelector('.plane').clientWidth / document.querySelector('.stage').clientWidth"
    )
    return found


def pixel(page: Page) -> list[int]:
    settle(page)
    return [int(part) for part in re.findall(r"\d+", page.locator(".pixel .where").inner_text())]


def test_the_stage_zooms_by_keys_buttons_and_wheel(page: Page) -> None:
    stage = page.locator(".stage")
    stage.focus()
    assert scale(page) == pytest.approx(1, abs=0.01)
    page.keyboard.press("+")
    assert scale(page) > 1.4
    page.keyboard.press("-")
    assert scale(page) == pytest.approx(1, abs=0.01)
    page.keyboard.press("f")
    x1, y1, x2, y2 = page.evaluate(
        """() => { const [box, stage] = [".marks .box:not(.shadow)", ".stage"]
            .map(one => document.querySelector(one).getBoundingClientRect());
          return [box.left - stage.left, box.top - stage.top, stage.right - box.right, stage.bottom - box.bottom]; }"""
    )
    assert min(x1, y1, x2, y2) > 0  # all of it is in view
    page.keyboard.press("0")
    assert scale(page) == pytest.approx(1, abs=0.01)
    box = stage.bounding_box()
    assert box
    at = box["x"] + box["width"] * 0.7, box["y"] + box["height"] * 0.4
    page.mouse.move(*at)
    before = pixel(page)
    for _ in range(6):
        page.mouse.wheel(0, -60)
    until(page, lambda: scale(page) > 6)  # all six are there
    assert pixel(page) == pytest.approx(before, abs=2)  # what is under the pointer stays there
    page.mouse.down()
    page.mouse.move(at[0] - 60, at[1] - 20, steps=4)
    page.mouse.up()
    assert pixel(page) == pytest.approx(before, abs=2)  # it has come along
    page.get_by_role("button", name="The whole image").click()
    assert scale(page) == pytest.approx(1, abs=0.01)


def test_the_wheel_scrolls_the_page_unless_the_image_has_the_focus(page: Page) -> None:
    page.locator(".stage").hover()
    page.mouse.wheel(0, 300)
    until(page, lambda: page.evaluate("scrollY") > 100)
    assert scale(page) == pytest.approx(1, abs=0.01)


def test_two_fingers_zoom(offline: Context, file: Path) -> None:
    page = opened(offline(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True), file)
    box = page.locator(".stage").bounding_box()
    assert box
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    session = page.context.new_cdp_session(page)
    for kind, apart in [("touchStart", 20), *(("touchMove", 20 + 6 * step) for step in range(1, 12))]:
        points = [{"x": x - apart, "y": y, "id": 0}, {"x": x + apart, "y": y, "id": 1}]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        page.wait_for_timeout(16)
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    until(page, lambda: scale(page) > 2)
    assert page.evaluate("visualViewport.scale") == 1  # the image, not the page


def test_a_long_image_can_be_used(offline: Context, tmp_path: Path) -> None:
    """4000 x 300: the stage is no strip, and opens on the instance."""
    scene = cv2.resize(draw_scene(SEED).image, (300, 300))
    image = np.full((300, 4000, 3), 120, np.uint8)
    image[:, 1800:2100] = scene
    prediction = maskprism.load("sample", conf=0.01).predict(image)
    assert len(prediction)
    page = opened(offline(), write_page(tmp_path / "long.html", [(image, prediction)]), "")
    stage = page.locator(".stage").bounding_box()
    assert stage
    assert stage["height"] > 150
    assert scale(page) > 1.5
    page.get_by_role("button", name="The whole image").click()
    assert scale(page) == pytest.approx(1, abs=0.01)
    page.mouse.click(stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2)
    assert pixel(page) == pytest.approx([2000, 150], abs=14)


def test_names_under_the_pointer(page: Page, shown: Prediction) -> None:
    y, x = np.argwhere(shown[0].mask("image"))[shown[0].mask("image").sum() // 2]
    stage = page.locator(".stage").bounding_box()
    assert stage
    height, width = shown.image_size
    page.mouse.move(stage["x"] + (x + 0.5) / width * stage["width"], stage["y"] + (y + 0.5) / height * stage["height"])
    assert page.locator(".pointed").inner_text() == f"{shown[0].name} {shown[0].score:.2f}"
    page.mouse.move(2, 2)
    assert not page.locator(".pointed").is_visible()


def test_a_press_that_ends_outside_the_image_is_over(page: Page, shown: Prediction) -> None:
    stage = page.locator(".stage").bounding_box()
    assert stage
    y, x = np.argwhere(shown[0].mask("image"))[shown[0].mask("image").sum() // 2]
    height, width = shown.image_size
    at = stage["x"] + (x + 0.5) / width * stage["width"], stage["y"] + (y + 0.5) / height * stage["height"]
    page.mouse.move(*at)
    page.mouse.down()
    page.mouse.move(2, 2)
    page.mouse.up()
    page.mouse.move(at[0] + 1, at[1])
    page.mouse.move(*at)
    page.locator(".pointed").wait_for()


def test_ground_truth_and_what_was_missed(page: Page) -> None:
    truth = page.locator("canvas.truth")
    assert not truth.is_visible()
    page.get_by_label("Ground truth").check()
    picture = pixels(truth)
    white, pink = ((picture == colour).all(axis=2) for colour in ([255, 255, 255, 255], [255, 92, 224, 255]))
    scene = draw_scene(SEED)
    prediction = maskprism.load("sample").predict(scene.image)
    found = match_masks(prediction, GroundTruth.of_masks(scene.masks, scene.classes.tolist()))
    edges = np.zeros(white.shape, bool)
    for mask in scene.masks[found.objects]:
        inner = cv2.erode(mask.astype(np.uint8), np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8), borderValue=0)
        edges |= mask & ~inner.astype(bool)
    assert not (white & ~edges).any()
    assert (edges & ~white & ~pink).sum() < 0.02 * edges.sum()
    assert pink[10, 20:90].all()
    assert pink[10:60, 20].all()
    page.get_by_role("button", name=re.compile(r"^\d+ missed$")).click()
    until(page, lambda: page.get_by_role("status").inner_text().startswith("Missed: "))
    assert scale(page) > 1.5
    until(page, lambda: "truth=on" in page.evaluate("location.hash"))


def test_the_iou_stays_in_view_while_something_moves(page: Page, shown: Prediction) -> None:
    k = int(Decomposition(shown[0]).order()[0])
    page.get_by_label(f"Coefficient of prototype {k}", exact=True).press("Delete")
    settle(page)
    text = page.locator(".iou").inner_text()
    measures = page.locator(".measures dd").all_inner_texts()
    assert text == f"IoU {measures[0]} · with ground truth {measures[1]}"


def test_colours_are_those_of_all_pictures(offline: Context, tmp_path: Path) -> None:
    scene = draw_scene(SEED)
    prediction = maskprism.load("sample").predict(scene.image)
    page = opened(offline(), write_page(tmp_path / "colours.html", [(scene.image, prediction)]))
    colours = page.locator(".instances .swatch").evaluate_all(
        "all => all.map(one => one.style.getPropertyValue('--colour'))"
    )
    assert colours == [f"#{bytes(colour).hex()}" for colour in instance_colours(scene.image, prediction)]
    assert len(set(colours)) >= min(4, len(colours))


def test_the_page_opens_on_the_instance_that_says_most(offline: Context, file: Path, shown: Prediction) -> None:
    page = opened(offline(), file, "")
    says = []
    for instance in shown:
        parts = Decomposition(instance)
        x1, y1, x2, y2 = np.rint(np.clip(instance.letterbox.from_canvas(instance.canvas_box, "grid"), 0, 80)).astype(
            int
        )
        terms = parts.terms[:, y1:y2, x1:x2]
        plus, minus = terms[terms > 0].sum(), -terms[terms < 0].sum()
        says.append(instance.score * np.sqrt(max((x2 - x1) * (y2 - y1), 0)) * 2 * min(plus, minus) / (plus + minus))
    assert page.locator(".heading .quiet").inner_text().startswith(f"instance {int(np.argmax(says))},")
    page.locator(".instances button").first.click()
    settle(page)
    again = opened(offline(), file, page.evaluate("location.hash"))
    assert again.locator(".heading .quiet").inner_text().startswith("instance 0,")


# --- screens and the tour -------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_first_screen_holds_the_story(offline: Context, file: Path, scheme: str) -> None:
    page = opened(offline(viewport={"width": 1280, "height": 800}, color_scheme=scheme), file)
    for part in (".stage", ".equation", ".says", ".tools", ".waterfall", ".instances", ".legend"):
        box = page.locator(part).bounding_box()
        assert box, part
        assert box["y"] >= 0, part
        assert box["y"] + box["height"] <= 801, part
    sliders = [page.locator(".card .slider").nth(i).bounding_box() for i in range(4)]
    assert all(box and box["y"] + box["height"] < 770 for box in sliders)


def test_one_row_of_controls_and_one_sentence_come_before_the_prototypes(offline: Context, file: Path) -> None:
    page = opened(offline(viewport={"width": 1280, "height": 800}), file)
    assert page.locator(".lead").inner_text() == "This mask = 32 shared maps × 32 weights. Drag one weight."
    middles = page.locator(".tools :is(button, select, input)").evaluate_all(
        "all => all.map((one) => { const box = one.getBoundingClientRect(); return box.top + box.height / 2; })"
    )
    assert len(middles) > 6
    assert max(middles) - min(middles) <= 2
    names = page.get_by_role("button").all_inner_texts()
    assert sum(name.startswith("Keep top") for name in names) == 1
    assert sum(name.startswith("Reset") for name in names) == 1
    assert page.locator(".mix :is(button, select, input):not(.card *, .more)").count() == 0


PAUSED = "addEventListener('animationstart', ({ target }) => target.getAnimations().forEach(one => one.pause()))"


def test_the_first_slider_draws_attention_once(offline: Context, file: Path) -> None:
    for motion, animated in (("no-preference", "nudge"), ("reduce", "none")):
        page = offline(reduced_motion=motion).new_page()
        page.add_init_script(PAUSED)
        page.goto(file.as_uri())
        page.locator(".stage").wait_for()
        settle(page)
        assert page.locator(".nudged").count() == 1
        name = "one => getComputedStyle(one).animationName"
        assert page.locator(".nudged .track").evaluate(name) == animated
        assert page.locator(".card").first.evaluate("one => one.classList.contains('nudged')")
        if motion == "no-preference":
            page.evaluate("document.getAnimations().forEach(one => one.finish())")
            until(page, lambda page=page: page.locator(".nudged").count() == 0)


def test_prototypes_that_contribute_little_are_folded(offline: Context, file: Path, shown: Prediction) -> None:
    page = opened(offline(), file, "#i=0")
    little = [k for k, role in enumerate(roles(shown[0]).role) if role == "negligible"]
    assert little
    hidden = (
        "all => all.filter((one) => !one.checkVisibility()).map((one) => Number(one.dataset.k)).sort((a, b) => a - b)"
    )
    assert page.locator(".card").evaluate_all(hidden) == little
    more = page.locator(".more")
    assert more.inner_text().startswith(f"{len(little)} more contribute")
    more.click()
    assert page.locator(".card").evaluate_all(hidden) == []
    until(page, lambda: "all=on" in page.url)
    page.reload()
    page.locator(".card").first.wait_for()
    assert page.locator(".card").evaluate_all(hidden) == []
    slider = page.get_by_label(f"Coefficient of prototype {little[0]}", exact=True)
    slider.press("Home")
    page.locator(".more").click()
    assert page.locator(".card").evaluate_all(hidden) == little[1:]  # what is edited stays in sight


def test_cards_show_what_surrounds_the_box_or_the_whole_image(offline: Context, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    prediction = Prediction(
        canvas_boxes=np.array([[40, 150, 60, 170]], np.float32),
        scores=np.array([0.9], np.float32),
        classes=np.array([0]),
        coefficients=rng.normal(0, 1, (1, 8)).astype(np.float32),
        prototypes=rng.normal(0, 1, (8, 80, 80)).astype(np.float32),
        letterbox=Letterbox.fit((300, 4000), (320, 320)),
        rule=ULTRALYTICS,
    )
    image = np.full((300, 4000, 3), 90, np.uint8)
    page = opened(offline(), write_page(tmp_path / "panorama.html", [(image, prediction)]), "")
    thumb = page.locator(".card .thumb canvas").first
    near = thumb.bounding_box()
    assert near
    assert near["height"] > 40
    page.get_by_role("button", name="Whole image", exact=True).click()
    settle(page)
    whole = thumb.bounding_box()
    assert whole
    assert whole["height"] < 12
    assert whole["width"] == near["width"]
    until(page, lambda: "whole=on" in page.url)


def test_without_an_instance_cards_show_the_middle_of_a_long_image(offline: Context, tmp_path: Path) -> None:
    image = np.full((300, 4000, 3), 90, np.uint8)
    nothing = maskprism.load("sample").predict(image)[:0]
    page = opened(offline(), write_page(tmp_path / "panorama.html", [(image, nothing)]), "")
    thumb = page.locator(".card .thumb canvas").first
    middle = thumb.bounding_box()
    assert middle
    assert middle["height"] == pytest.approx(middle["width"], rel=0.2)
    page.get_by_role("button", name="Whole image", exact=True).click()
    settle(page)
    whole = thumb.bounding_box()
    assert whole
    assert whole["height"] < 12


def test_one_prototype_is_one_map_and_one_weight(offline: Context, tmp_path: Path) -> None:
    image = draw_scene(SEED).image
    found = maskprism.load("sample").predict(image)
    single = maskprism.from_arrays(image, np.ones((1, 1), np.float32), found.prototypes[:1], preprocessing="yolo")
    page = opened(offline(), write_page(tmp_path / "single.html", [(image, single)]), "")
    assert page.locator(".lead").inner_text() == "This mask = 1 shared map × 1 weight. Drag the weight."


def test_a_backslash_in_a_name_is_a_letter(offline: Context, tmp_path: Path) -> None:
    image = draw_scene(SEED).image
    found = maskprism.load("sample").predict(image)
    names = ["folder/back\\slash.png", "C:\\folder\\windows.png"]
    pictures = [(image, replace(found, source=name)) for name in names]
    page = opened(offline(), write_page(tmp_path / "names.html", pictures), "")
    assert page.locator("h1").inner_text() == "back\\slash.png"
    assert page.locator(".tile .name").all_text_contents() == ["back\\slash.png", "windows.png"]


def test_values_lie_under_no_button(offline: Context, file: Path) -> None:
    for options in ({}, {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}):
        page = opened(offline(**options), file)
        overlaps = page.locator(".card:not(.folded)").evaluate_all(
            """cards => cards.filter((card) => {
              const [a, b] = [".value", ".drop"].map((one) => card.querySelector(one).getBoundingClientRect());
              return a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
            }).length"""
        )
        assert overlaps == 0


def test_the_order_on_a_phone(offline: Context, file: Path) -> None:
    page = opened(offline(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True), file)
    parts = (".lead", ".stage", ".equation", ".slider", ".waterfall")
    tops = [page.locator(part).first.bounding_box() for part in parts]
    assert tops[0]
    assert tops[0]["y"] + tops[0]["height"] < 300
    assert [box["y"] for box in tops if box] == sorted(box["y"] for box in tops if box)
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 390


def test_a_chosen_instance_is_in_sight_in_its_list_and_the_page_stays(offline: Context, file: Path) -> None:
    page = opened(offline(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True), file)
    list_, chosen = page.locator(".instances"), page.locator('.instances [aria-checked="true"]')
    assert list_.evaluate("one => one.scrollHeight > one.clientHeight")
    page.evaluate("scrollTo(0, 40)")
    page.locator(".stage").evaluate("one => one.focus({ preventScroll: true })")
    page.keyboard.press("ArrowLeft")
    for _ in range(2):  # the last one, and the one before it
        outer, inner = list_.bounding_box(), chosen.bounding_box()
        assert outer
        assert inner
        assert outer["y"] <= inner["y"]
        assert inner["y"] + inner["height"] <= outer["y"] + outer["height"]
        assert page.evaluate("scrollY") == 40
        page.keyboard.press("ArrowLeft")


def test_in_the_dark_prototypes_do_not_glare(offline: Context, file: Path) -> None:
    page = opened(offline(color_scheme="dark", viewport={"width": 1280, "height": 900}), file)
    for part in (".card .thumb", ".equation .logits canvas"):
        seen = cv2.imdecode(np.frombuffer(page.locator(part).nth(0).screenshot(), np.uint8), cv2.IMREAD_GRAYSCALE)
        assert seen.mean() < 140
    page.get_by_label("Light or dark").click()
    seen = cv2.imdecode(np.frombuffer(page.locator(".equation .logits canvas").screenshot(), np.uint8), 0)
    assert seen.mean() > 140


def test_the_tour_has_four_steps_and_comes_uninvited_once(offline: Context, file: Path) -> None:
    context = offline()
    page = opened(context, storing(context, file))
    page.get_by_role("button", name="Take the tour").click()
    box = page.get_by_role("dialog", name="Tour")
    for step in range(1, 5):
        assert f"{step} of 4" in box.inner_text()
        assert page.locator(".toured").count() == 1
        inside, toured = box.bounding_box(), page.locator(".toured").bounding_box()
        assert inside
        assert toured
        assert inside["x"] >= 0
        assert inside["x"] + inside["width"] <= 1280
        assert page.evaluate("document.activeElement.closest('.tour') !== null")
        page.keyboard.press("Enter")
    assert not box.is_visible()
    assert page.evaluate("document.activeElement.textContent") == "Tour"
    assert not page.locator(".invitation").is_visible()
    page.reload()
    page.locator(".stage").wait_for()
    assert not page.locator(".invitation").is_visible()
    page.get_by_role("button", name="Tour", exact=True).click()
    page.keyboard.press("Escape")
    assert not box.is_visible()
    other = opened(context, storing(context, file))
    other.get_by_role("button", name="No, thanks").click()
    other.reload()
    other.locator(".stage").wait_for()
    assert not other.locator(".invitation").is_visible()
