"""The page as readers use it: what it shows must be what Python says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

import maskprism
from helpers import pages
from helpers.pages import coefficients, settle, slider, transitions_end, until
from maskprism import Decomposition, Edit, Prediction
from maskprism.analysis.truth.labels import open_labels
from maskprism.datasets.scenes import draw_scene, write_dataset
from maskprism.drawing import palette
from maskprism.drawing.mask_style import INNER_LINE, PaintedMask, instance_colours, paint_masks
from maskprism.io.images import read_image
from maskprism.models.correction import Correction
from maskprism.viewer.page import Page as PageFile
from maskprism.viewer.page import write_page
from maskprism.viewer.payload import as_shown

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

Context = Callable[..., "BrowserContext"]
NEAR = 1e-3  # logits this close to zero may fall to either side
SCENES = 3, 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn scenes with labels, and a page of them made by the installed command."""
    folder = tmp_path_factory.mktemp("page")
    for seed in SCENES:
        write_dataset(folder, 1, seed=seed, validation_share=1.0)
    command = ["page", "images", "--model", "sample", "--data", "data.yaml", "--out", "page.html"]
    subprocess.run(
        [sys.executable, "-m", "maskprism", *command], cwd=folder, check=True, capture_output=True, timeout=120
    )
    return folder


@pytest.fixture(scope="module")
def shown(folder: Path) -> list[Prediction]:
    """What the page shows, in Python."""
    model = maskprism.load("sample")
    return [as_shown(model.predict(path), 8) for path in sorted((folder / "images" / "val").iterdir())]


@pytest.fixture
def page(offline: Context, folder: Path) -> Page:
    return open_page(offline(), folder / "page.html")


# The first instance and all prototypes, of a page of one image or of several.
FIRST = "#i=0&0.i=0&1.i=0&all=on&0.all=on&1.all=on"


def open_page(context: BrowserContext, path: Path, fragment: str = FIRST) -> Page:
    page = context.new_page()
    page.goto(path.as_uri() + fragment)
    page.locator(".stage").wait_for()
    settle(page)
    return page


def pixels(page: Page, layer: str = "mask") -> np.ndarray:
    settle(page)
    return pages.pixels(page.locator(f".layer.{layer}"))


def mask_of(page: Page, instance: int) -> np.ndarray:
    """The pixels in the instance's colour, and the inner line of its outline."""
    picture = pixels(page).astype(int)
    coloured = (picture[..., 3] > 0) & (np.abs(picture[..., :3] - colour_on_page(page, instance)).max(axis=2) < 12)
    return coloured | (picture == (*INNER_LINE, 255)).all(axis=2)


def colour_on_page(page: Page, instance: int) -> np.ndarray:
    """The colour that an instance has on the page."""
    swatch = page.locator(".instances .swatch").nth(instance)
    colour = swatch.evaluate("one => one.style.getPropertyValue('--colour')")
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])


def edited(prediction: Prediction, instance: int, values: np.ndarray) -> Prediction:
    return Edit(set=dict(enumerate(values.tolist())), instances=[instance]).apply(prediction)


def assert_mask(page: Page, prediction: Prediction, instance: int) -> None:
    """The mask on the page is that of the coefficients on the page, as Python decodes it."""
    after = edited(prediction, instance, coefficients(page))[instance]
    decided = np.abs(after.logits("canvas")) > NEAR
    found = mask_of(page, instance)
    assert np.array_equal(found[decided], after.mask("canvas")[decided])


def strongest(prediction: Prediction, instance: int = 0) -> int:
    return int(Decomposition(prediction[instance]).order()[0])


def export(page: Page, item: str) -> Path:
    page.locator("summary").click()
    with page.expect_download() as download:
        page.get_by_role("button", name=item).click()
    return download.value.path()


def test_it_opens_from_disk_without_a_network(page: Page, shown: list[Prediction]) -> None:
    assert page.locator("h1").inner_text() == "scene_000003.png"
    assert page.locator(".card").count() == 32
    assert page.get_by_role("radio", name=re.compile(r"\d\.\d\d$")).count() == len(shown[0])
    assert np.array_equal(coefficients(page), shown[0][0].coefficients)
    assert_mask(page, shown[0], 0)


def test_the_mask_is_drawn_as_python_draws_it(page: Page, folder: Path, shown: list[Prediction]) -> None:
    """In the same colour, on the same dimmed greys, with the same outline; compared where no other mask is."""
    image = read_image(folder / "images" / "val" / "scene_000003.png")
    exact = maskprism.load("sample").predict(image)
    colours = instance_colours(image, exact)
    for i, colour in enumerate(colours):
        assert tuple(colour_on_page(page, i)) == colour
    picture = read_image(export(page, "Export picture"))[..., ::-1].astype(int)
    mask = shown[0][0].mask("canvas")
    whole = PaintedMask(slice(0, mask.shape[0]), slice(0, mask.shape[1]), mask, colours[0])
    expected = paint_masks(np.ascontiguousarray(image[..., ::-1]), [whole]).astype(int)
    others = exact.masks("canvas")[1:].any(axis=0)
    difference = np.abs(picture - expected).max(axis=2)[~others]
    assert np.median(difference) <= 3  # the page has the image as WebP
    assert (difference > 40).mean() < 0.005


def test_dragging_a_slider_moves_the_mask_as_python_says(page: Page, shown: list[Prediction]) -> None:
    k = strongest(shown[0])
    before = mask_of(page, 0)
    area = slider(page, k).bounding_box()
    assert area
    start = slider(page, k).evaluate("s => (s.valueAsNumber - s.min) / (s.max - s.min)")
    y = area["y"] + area["height"] / 2
    page.mouse.move(area["x"] + 6 + start * (area["width"] - 12), y)
    page.mouse.down()
    for share in (0.6, 0.4, 0.2, 0.05):
        page.mouse.move(area["x"] + share * area["width"], y, steps=3)
        assert_mask(page, shown[0], 0)  # also while it is dragged
    page.mouse.up()
    assert coefficients(page)[k] < shown[0][0].coefficients[k] - 0.5
    assert not np.array_equal(mask_of(page, 0), before)
    page.keyboard.press("Control+z")
    assert np.array_equal(coefficients(page), shown[0][0].coefficients)
    assert np.array_equal(mask_of(page, 0), before)
    page.keyboard.press("Control+Shift+z")
    assert_mask(page, shown[0], 0)


def test_measures_are_those_of_python(page: Page, folder: Path, shown: list[Prediction]) -> None:
    path = folder / "images" / "val" / "scene_000003.png"
    labels = open_labels(folder / "data.yaml", folder, shown[0].names)
    exact = maskprism.load("sample").predict(path)
    matched = labels.match(exact, path)
    assert matched
    truth, matches = matched
    instance = int(matches.instances.min())
    true = truth.masks()[matches.targets[instance]]
    page.get_by_role("radio", name=re.compile(r"\d\.\d\d$")).nth(instance).click()
    slider(page, strongest(shown[0], instance)).press("Delete")
    settle(page)
    after = edited(shown[0], instance, coefficients(page))
    fields = dict(
        zip(page.locator(".measures dt").all_inner_texts(), page.locator(".measures dd").all_inner_texts(), strict=True)
    )
    old, new = shown[0][instance].mask("canvas"), after[instance].mask("canvas")
    assert float(fields["IoU vs. unedited mask"]) == pytest.approx(iou(old, new), abs=2e-3)
    assert float(fields["IoU with ground truth"]) == pytest.approx(iou(true, after[instance].mask("image")), abs=2e-3)
    assert int(re.sub(r"\D", "", fields["Mask area (px at 320×320 input)"])) == pytest.approx(new.sum(), abs=3)
    gained, lost = (int(re.sub(r"\D", "", part)) for part in fields["Pixels added / removed"].split("−"))
    assert gained == pytest.approx((new & ~old).sum(), abs=3)
    assert lost == pytest.approx((old & ~new).sum(), abs=3)


def iou(a: Any, b: Any) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_masks_from_before_tuning_are_a_key_away(offline: Context, folder: Path) -> None:
    rng = np.random.default_rng(0)
    tuned = maskprism.load("sample").with_correction(Correction(rng.normal(0, 0.1, (1, 32, 32)), np.zeros((1, 32))))
    path = folder / "images" / "val" / "scene_000003.png"
    prediction, untuned = tuned.predict_untuned(path)
    made = PageFile()
    made.add(path, prediction, untuned=untuned)
    page = open_page(offline(), made.write(folder / "tuned.html"))
    shown, plain = as_shown(prediction, 8), replace(as_shown(prediction, 8), coefficients=untuned)
    button = page.get_by_role("button", name="Before tuning")
    assert_mask(page, shown, 0)
    after = mask_of(page, 0)
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    colours = "one => [getComputedStyle(one).color, getComputedStyle(one).backgroundColor]"
    transitions_end(button)
    under_the_pointer = button.evaluate(colours)
    page.mouse.move(5, 5)
    transitions_end(button)
    assert button.evaluate(colours) == under_the_pointer
    before = mask_of(page, 0)
    assert not np.array_equal(before, after)
    decided = np.abs(plain[0].logits("canvas")) > NEAR
    height, width = before.shape
    assert decided.shape == (height, width)
    assert np.array_equal(before[decided], plain[0].mask("canvas")[decided])
    page.keyboard.press("u")
    assert button.get_attribute("aria-pressed") == "false"
    assert np.array_equal(mask_of(page, 0), after)
    page.keyboard.press("u")
    slider(page, strongest(shown, 0)).press("Delete")  # an edit goes from what the tuned model says
    assert button.get_attribute("aria-pressed") == "false"
    assert_mask(page, shown, 0)


def test_a_prototype_has_a_button_that_drops_it_and_brings_it_back(page: Page, shown: list[Prediction]) -> None:
    k = strongest(shown[0])
    drop = page.get_by_role("button", name=f"Drop prototype {k}", exact=True)
    drop.click()
    assert coefficients(page)[k] == 0
    assert drop.get_attribute("aria-pressed") == "true"
    assert_mask(page, shown[0], 0)
    dropped = Edit(drop=[k]).apply(shown[0])
    assert np.array_equal(coefficients(page), dropped[0].coefficients)
    drop.click()
    assert np.array_equal(coefficients(page), shown[0][0].coefficients)
    slider(page, k).press("ArrowLeft")
    moved = coefficients(page)
    page.wait_for_timeout(900)  # what comes later is a step of its own
    drop.dblclick()
    assert np.array_equal(coefficients(page), shown[0][0].coefficients)  # back where it was at first
    page.keyboard.press("Control+z")
    assert np.array_equal(coefficients(page), moved)  # a double click is one step


@pytest.mark.parametrize("chosen", [False, True])
def test_paper_is_light(offline: Context, folder: Path, chosen: bool) -> None:
    page = open_page(offline(color_scheme="light" if chosen else "dark"), folder / "page.html")
    if chosen:
        page.get_by_role("button", name="Light or dark").click()
    background = "[document.body, document.querySelector('.maskprism')].map(e => getComputedStyle(e).backgroundColor)"
    assert page.evaluate(background) == ["rgb(21, 23, 26)"] * 2
    page.emulate_media(media="print")
    assert page.evaluate(background) == ["rgb(251, 250, 248)"] * 2
    assert page.locator(".diverging").first.evaluate("e => getComputedStyle(e).filter") == "none"
    assert not page.locator(".zoom").is_visible()
    page.set_viewport_size({"width": 360, "height": 800})
    assert page.locator(".instances").evaluate(
        "list => list.scrollHeight <= list.clientHeight"
    )  # nothing scrolls there
    # in PDF files, Chromium and Firefox fill what gradients leave transparent: bars become blocks
    images = page.locator(".maskprism *").evaluate_all("all => all.map(e => getComputedStyle(e).backgroundImage)")
    assert [image for image in images if "rgba(0, 0, 0, 0)" in image] == []
    assert "gradient" in page.locator(".slider").first.evaluate("e => getComputedStyle(e).backgroundImage")


def test_a_prototype_is_large_under_the_pointer_and_a_click_keeps_it(page: Page, shown: list[Prediction]) -> None:
    k = strongest(shown[0])
    thumb = page.locator(f'.card[data-k="{k}"] .thumb')
    thumb.click()
    assert np.array_equal(coefficients(page), shown[0][0].coefficients)
    page.mouse.move(5, 5)
    assert page.locator(".layer.prototype").is_visible()
    assert thumb.get_attribute("aria-pressed") == "true"
    slider(page, k).press("ArrowLeft")  # an edit shows the mask
    assert not page.locator(".layer.prototype").is_visible()
    thumb.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    page.locator(".stage").focus()
    assert not page.locator(".layer.prototype").is_visible()
    thumb.hover()
    assert page.locator(".layer.prototype").is_visible()
    assert f"prototype {k}" in page.locator(".caption").inner_text()
    large = pixels(page, "prototype")
    expected = palette.lookup_table("prototype")
    assert {tuple(colour) for colour in large[..., :3].reshape(-1, 3)} <= {tuple(colour) for colour in expected}
    page.mouse.move(5, 5)
    assert not page.locator(".layer.prototype").is_visible()


def test_buttons_keep_and_swap(page: Page, shown: list[Prediction]) -> None:
    first, order = shown[0][0].coefficients, Decomposition(shown[0][0]).order()
    page.get_by_label("How many prototypes to keep").fill("3")
    page.get_by_role("button", name="Keep top").click()
    assert np.array_equal(coefficients(page), Edit(keep=order[:3]).apply(shown[0])[0].coefficients)
    assert_mask(page, shown[0], 0)
    page.get_by_role("button", name="Only w > 0").click()
    assert np.array_equal(coefficients(page), np.maximum(first, 0))
    page.get_by_role("button", name="Only w < 0").click()
    assert np.array_equal(coefficients(page), np.minimum(first, 0))
    assert_mask(page, shown[0], 0)
    page.get_by_label("Use coefficients of another instance").select_option("1")
    assert np.array_equal(coefficients(page), shown[0][1].coefficients)
    assert_mask(page, shown[0], 0)
    page.get_by_role("button", name="Before").click()
    assert np.array_equal(mask_of(page, 0), mask_before(page, shown[0]))
    page.get_by_role("button", name="Before").click()
    page.get_by_role("button", name="Reset", exact=True).click()
    assert np.array_equal(coefficients(page), first)
    page.keyboard.press("Control+z")  # the button can take no keys any more; the page does
    assert np.array_equal(coefficients(page), shown[0][1].coefficients)


def mask_before(page: Page, prediction: Prediction) -> np.ndarray:
    """The unedited mask, with pixels that rounding decides as the page has them."""
    undecided = np.abs(prediction[0].logits("canvas")) <= NEAR
    return np.where(undecided, mask_of(page, 0), prediction[0].mask("canvas"))


def test_without_the_crop_the_mask_goes_beyond_its_box(page: Page, shown: list[Prediction]) -> None:
    page.get_by_label("Crop to box").uncheck()
    whole = shown[0].with_rule("no-crop")
    decided = np.abs(whole[0].logits("canvas")) > NEAR
    assert np.array_equal(mask_of(page, 0)[decided], whole[0].mask("canvas")[decided])


def test_the_pixel_follows_the_crop_and_the_look_at_what_was_before(page: Page, shown: list[Prediction]) -> None:
    assert shown[0][0].box[1] > 9  # so that the corner is outside
    page.evaluate("location.hash = '#0.pixel=0,0'")
    verdict = page.locator(".verdict")
    until(page, lambda: page.evaluate("document.querySelector('.verdict').textContent.includes('outside the box')"))
    page.get_by_label("Crop to box").uncheck()
    assert "outside the box" not in verdict.inner_text()
    page.get_by_label("Crop to box").check()
    assert "outside the box" in verdict.inner_text()

    before = page.locator(".waterfall").inner_text()
    slider(page, strongest(shown[0])).press("Home")
    after = page.locator(".waterfall").inner_text()
    assert after != before
    page.get_by_role("button", name="Before").click()
    assert page.locator(".waterfall").inner_text() == before
    page.get_by_role("button", name="Before").click()
    assert page.locator(".waterfall").inner_text() == after


def test_a_rule_without_a_crop_offers_none(offline: Context, tmp_path: Path, shown: list[Prediction]) -> None:
    image = draw_scene(3).image
    whole = maskprism.load("sample", rule="no-crop").predict(image)
    page = open_page(offline(), write_page(tmp_path / "p.html", [(image, whole)]), "#i=0&pixel=99999,3")
    crop = page.get_by_label("Crop to box")
    assert crop.is_disabled()
    assert not crop.is_checked()
    assert page.locator(".lead").inner_text() == "This mask = 32 shared maps × 32 weights. Drag one weight."
    assert "99999" not in page.locator(".pixel .where").inner_text()  # a link to another image
    assert_mask(page, as_shown(whole, 8), 0)


def test_views_are_painted_in_the_colours_of_their_sign(page: Page, shown: list[Prediction]) -> None:
    parts, instance = Decomposition(shown[0][0]), shown[0][0]
    for name, values in (("Logits", parts.logits), ("Positive", parts.positive), ("Negative", parts.negative)):
        page.get_by_text(name, exact=True).click()
        picture = pixels(page)[..., :3].astype(int)
        expected = instance.letterbox.resample(values, "canvas")
        patch = next(instance.alone.patches("canvas"))
        inside = np.zeros(expected.shape, bool)
        inside[patch.rows, patch.columns] = True
        strong = inside & (np.abs(expected) > 0.1 * np.abs(expected[inside]).max())
        strong &= picture.max(axis=2) - picture.min(axis=2) > 12  # not on the outline
        assert strong.any()
        assert np.array_equal((picture[..., 0] > picture[..., 2])[strong], (expected > 0)[strong]), name
        assert not pixels(page)[~inside][:, :3].any()  # dimmed alone


def test_clicking_a_pixel_shows_what_made_it(page: Page, shown: list[Prediction]) -> None:
    instance = shown[0][0]
    stage = page.locator(".stage").bounding_box()
    assert stage
    x1, y1, x2, y2 = instance.box
    x, y = int((x1 + x2) / 2), int(y1 + (y2 - y1) * 0.4)
    height, width = instance.letterbox.image_hw
    page.mouse.click(stage["x"] + (x + 0.5) / width * stage["width"], stage["y"] + (y + 0.5) / height * stage["height"])
    page.mouse.move(2, 2)
    settle(page)
    where = page.locator(".pixel .where").inner_text()
    found = [int(part) for part in re.findall(r"\d+", where)]
    assert found == pytest.approx([x, y], abs=1)  # a click lies on whole pixels of the screen
    x, y = found
    at = np.array([instance.letterbox.resample(p, "canvas")[y, x] for p in instance.prototypes])
    terms = instance.weights * at
    rows = page.locator(".waterfall li").all_inner_texts()
    names, values = zip(*((row.split("\n")[0], number(row.split("\n")[-1])) for row in rows), strict=True)
    order = np.argsort(-np.abs(terms), kind="stable")
    assert names == (*map(str, order[:9]), "23 others", "logit")
    expected = [*terms[order[:9]], terms[order[9:]].sum(), terms.sum()]
    assert values == pytest.approx(expected, abs=0.0051)
    verdict = page.locator(".verdict").inner_text()
    assert verdict.startswith("In the mask" if terms.sum() > 0 else "Not in the mask")
    changes = -terms.sum() / at
    k = int(np.argmin(np.abs(changes)))
    said = re.search(r"w(\d+) (\S+) → (\S+) \(Δ (\S+)\)", verdict)
    assert said
    assert int(said[1]) == k
    assert [number(said[i]) for i in (2, 3, 4)] == pytest.approx(
        [instance.coefficients[k], instance.coefficients[k] + changes[k], changes[k]], abs=0.0051
    )


def number(text: str) -> float:
    return float(text.replace("−", "-"))


def test_everything_works_from_the_keyboard(page: Page, shown: list[Prediction]) -> None:
    assert len(shown[0]) > 1
    stage = page.locator(".stage")
    stage.focus()
    page.keyboard.press("ArrowRight")
    assert np.array_equal(coefficients(page), shown[0][1].coefficients)
    assert_mask(page, shown[0], 1)
    page.keyboard.press("ArrowLeft")
    assert np.array_equal(coefficients(page), shown[0][0].coefficients)
    where = page.locator(".pixel .where").inner_text()
    page.keyboard.press("Shift+ArrowDown")
    assert page.locator(".pixel .where").inner_text() != where

    k = strongest(shown[0])
    slider(page, k).focus()
    assert slider(page, k).evaluate("s => getComputedStyle(s).outlineStyle") == "solid"  # focus can be seen
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    step = slider(page, k).evaluate("s => s.max / 100")
    assert coefficients(page)[k] == pytest.approx(shown[0][0].coefficients[k] + 13 * step, abs=1e-5)
    assert_mask(page, shown[0], 0)
    assert "originally" in (slider(page, k).get_attribute("aria-valuetext") or "")
    page.keyboard.press("Delete")
    assert coefficients(page)[k] == 0
    page.keyboard.press("r")
    assert coefficients(page)[k] == shown[0][0].coefficients[k]
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.activeElement.className") == "thumb"
    page.keyboard.press("Enter")
    assert page.locator(".layer.prototype").is_visible()
    page.wait_for_timeout(900)  # what follows is a step of its own
    page.keyboard.press("Delete")
    assert coefficients(page)[k] == 0
    page.keyboard.press("Control+z")
    assert coefficients(page)[k] == shown[0][0].coefficients[k]


def test_every_control_has_a_name(page: Page) -> None:
    nameless = page.locator("button, input, select, summary, [tabindex]").evaluate_all(
        """all => all.filter(e => !(e.getAttribute("aria-label") || e.textContent.trim() ||
             e.closest("label")?.innerText.trim())).map(e => e.outerHTML.slice(0, 120))"""
    )
    assert nameless == []


def test_a_click_on_another_instance_chooses_it(page: Page, shown: list[Prediction]) -> None:
    masks = shown[0].masks("canvas")
    alone = masks[1] & (masks.sum(axis=0) == 1)
    assert alone.any()
    y, x = np.argwhere(alone)[alone.sum() // 2]
    stage = page.locator(".stage").bounding_box()
    assert stage
    height, width = alone.shape
    page.mouse.click(stage["x"] + (x + 0.5) / width * stage["width"], stage["y"] + (y + 0.5) / height * stage["height"])
    assert page.locator('.instances [aria-checked="true"]').inner_text().startswith(shown[0][1].name)
    assert np.array_equal(coefficients(page), shown[0][1].coefficients)


def test_a_link_restores_the_state(page: Page, offline: Context, folder: Path, shown: list[Prediction]) -> None:
    k = strongest(shown[0])
    slider(page, k).press("ArrowLeft")
    page.get_by_role("radio", name=re.compile(r"\d\.\d\d$")).nth(1).click()
    page.get_by_role("button", name="Only w > 0").click()
    page.get_by_text("Negative", exact=True).click()
    until(page, lambda: page.evaluate("location.hash.includes('view=negative')"))
    fragment = page.evaluate("location.hash")
    again = open_page(offline(), folder / "page.html", fragment)
    assert np.array_equal(coefficients(again), coefficients(page))
    assert np.array_equal(pixels(again), pixels(page))
    again.get_by_role("radio", name=re.compile(r"\d\.\d\d$")).nth(0).click()
    page.get_by_role("radio", name=re.compile(r"\d\.\d\d$")).nth(0).click()
    assert np.array_equal(coefficients(again), coefficients(page))
    assert coefficients(again)[k] != shown[0][0].coefficients[k]


def test_the_state_goes_into_a_file_and_back(page: Page, shown: list[Prediction], tmp_path: Path) -> None:
    page.get_by_role("button", name="Only w < 0").click()
    saved = tmp_path / "state.json"
    saved.write_bytes(export(page, "Save state to a file").read_bytes())
    page.get_by_role("button", name="Reset", exact=True).click()
    page.locator('input[type="file"]').set_input_files(saved)
    page.get_by_text("State restored.").wait_for()
    toast = page.locator(".status").bounding_box()
    assert toast
    assert toast["y"] + toast["height"] <= 900  # of the window
    assert np.array_equal(coefficients(page), np.minimum(shown[0][0].coefficients, 0))
    (tmp_path / "other.json").write_text('{"a": 1}')
    page.locator('input[type="file"]').set_input_files(tmp_path / "other.json")
    page.get_by_text("other.json is no state file of this page.").wait_for()


def test_exports_are_what_python_takes(page: Page, folder: Path, shown: list[Prediction]) -> None:
    slider(page, 4).press("Delete")
    slider(page, 6).press("ArrowRight")
    said = json.loads(export(page, "Export coefficients").read_text())
    assert said["source"] == "val/scene_000003.png"
    (one,) = said["instances"]
    assert set(one["set"]) == {"4", "6"}
    changes = {int(k): value for k, value in one["set"].items()}
    again = Edit(set=changes, instances=[one["instance"]]).apply(shown[0])
    assert np.array_equal(again[0].coefficients, coefficients(page))
    picture = read_image(export(page, "Export picture"))
    image = read_image(folder / "images" / "val" / "scene_000003.png")
    assert picture.shape == image.shape
    inside = again[0].mask("canvas")
    bgr = colour_on_page(page, 0)[::-1]
    core = cv2.erode(inside.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)[..., None]
    assert np.abs(picture[core] - (grey[core] * 0.5 + bgr * 0.5)).mean() < 8  # the page has the image as WebP


def test_the_gallery_keeps_what_was_done(page: Page, shown: list[Prediction]) -> None:
    slider(page, 0).press("Delete")
    page.locator(".tile").nth(1).click()
    page.get_by_role("heading", name="scene_000005.png").wait_for()
    until(page, lambda: not page.locator(".slot[aria-busy]").count())
    assert page.locator(".instances button").count() == len(shown[1])
    assert np.array_equal(coefficients(page), shown[1][0].coefficients)
    assert_mask(page, shown[1], 0)
    page.locator(".tile").nth(0).click()
    until(page, lambda: page.evaluate("document.querySelector('[data-k=\"0\"]').classList.contains('dropped')"))
    assert coefficients(page)[0] == 0


def test_nothing_jumps(page: Page, shown: list[Prediction]) -> None:
    parts = [".stage", ".measures", ".strip", ".waterfall", ".card:last-child", ".instances"]
    places = lambda: [page.locator(part).bounding_box() for part in parts]  # noqa: E731
    before = places()
    slider(page, strongest(shown[0])).press("Home")
    page.locator(".stage").hover()
    settle(page)
    after = places()
    assert [box["y"] for box in after[:5] if box] == [box["y"] for box in before[:5] if box]
    assert [box["height"] for box in after[:5] if box] == [box["height"] for box in before[:5] if box]


@pytest.mark.parametrize("width", [360, 768, 1920])
def test_it_fits_screens(offline: Context, folder: Path, width: int) -> None:
    page = open_page(offline(viewport={"width": width, "height": 800}), folder / "page.html")
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width
    stage = page.locator(".stage").bounding_box()
    assert stage
    assert 0 <= stage["x"] <= stage["x"] + stage["width"] <= width
    page.set_viewport_size({"width": width, "height": 420})  # a small image, whose scale has little room
    page.get_by_text("Logits", exact=True).click()
    caption, stage = page.locator(".caption"), page.locator(".stage").bounding_box()
    caption.wait_for()
    box = caption.bounding_box()
    assert box
    assert stage
    assert box["x"] + box["width"] <= stage["x"] + stage["width"]
    assert caption.evaluate("caption => caption.scrollWidth <= caption.clientWidth")
    page.set_viewport_size({"width": width, "height": 800})
    if width == 360:  # the image stays in sight while the last slider moves
        page.locator(".slider").last.scroll_into_view_if_needed()
        stage = page.locator(".stage").bounding_box()
        assert stage
        assert 0 <= stage["y"] < 100


def test_names_that_are_too_long_keep_their_ends(page: Page, shown: list[Prediction]) -> None:
    names = page.locator(".tile .name")
    assert len(set(names.all_text_contents())) == len(shown)
    for name in names.all():
        head, end = name.locator("span").all()
        assert head.evaluate("one => one.scrollWidth > one.clientWidth")
        inside = "(one) => one.getBoundingClientRect().right <= one.parentElement.getBoundingClientRect().right + 0.5"
        assert end.evaluate(inside)


def test_light_and_dark(offline: Context, folder: Path) -> None:
    page = open_page(offline(color_scheme="dark"), folder / "page.html")
    brightness = "getComputedStyle(document.querySelector('.maskprism')).backgroundColor"
    assert sum(map(int, re.findall(r"\d+", page.evaluate(brightness))[:3])) < 150
    page.get_by_label("Light or dark").click()
    assert sum(map(int, re.findall(r"\d+", page.evaluate(brightness))[:3])) > 600


def test_hostile_names_are_shown_as_they_are(offline: Context, tmp_path: Path) -> None:
    hostile = '</script><img src=x onerror="window.hacked = 1">'
    image = draw_scene(3, (320, 240)).image
    prediction = maskprism.load("sample").predict(image)
    named = replace(prediction, names={int(c): hostile for c in prediction.classes}, source=f"{hostile} ü.png")
    page = open_page(offline(), write_page(tmp_path / "p.html", [(image, named)], bits=16))
    assert page.locator(".heading .name").inner_text() == hostile
    assert page.locator("h1").inner_text() == 'script><img src=x onerror="window.hacked = 1"> ü.png'
    assert page.evaluate("window.hacked") is None
    assert page.locator(".maskprism img").count() == 0
    assert_mask(page, as_shown(named, 16), 0)


def test_an_image_without_instances(offline: Context, tmp_path: Path) -> None:
    image = draw_scene(3).image
    nothing = maskprism.load("sample").predict(image)[:0]
    page = open_page(offline(), write_page(tmp_path / "p.html", [(image, nothing)]))
    assert page.get_by_text("The model found no instance here.").is_visible()
    page.locator(".thumb").first.click()
    page.locator(".stage").click()
    assert page.locator(".slider").first.is_disabled()
    assert page.locator(".dropped").count() == 0  # all prototypes in full colours
    assert set(page.locator(".card .value").all_inner_texts()) == {""}
    assert page.locator(".lead").inner_text().startswith("Without an instance")
    assert page.get_by_role("button", name="Fit the instance").count() == 0
    lead, tools = (page.locator(part).bounding_box() for part in (".lead", ".tools"))
    assert lead
    assert tools
    assert tools["y"] - lead["y"] - lead["height"] < 70  # no room is left for a sentence about an instance
    assert page.get_by_role("button", name="Whole image", exact=True).is_disabled()
    assert page.locator("footer").inner_text().startswith("Prototypes are kept in 8 bits. Mask rule")
    assert "no logit and no mask differs" in page.locator("footer").inner_text()


@pytest.mark.parametrize("rule", ["validation", "retina", "yolact", "ultralytics-8.2", "ultralytics-8.3"])
def test_other_rules_and_odd_images(offline: Context, tmp_path: Path, rule: str) -> None:
    image = draw_scene(3, (200, 333)).image
    prediction = maskprism.load("sample", rule=rule).predict(image)
    page = open_page(offline(), write_page(tmp_path / "p.html", [(image, prediction)]))
    slider(page, 1).press("Home")
    slider(page, 9).press("PageUp")
    after = edited(as_shown(prediction, 8), 0, coefficients(page))[0]
    soft = next(after.alone.patches(after.rule.size))
    decided = np.ones(after.mask().shape, bool)
    decided[soft.rows, soft.columns] = np.abs(soft.values - after.rule.threshold) > NEAR
    assert np.array_equal(mask_of(page, 0)[decided], after.mask()[decided])


def test_of_256_prototypes_64_are_shown_at_first_and_masks_alone_have_no_box(offline: Context, tmp_path: Path) -> None:
    image = draw_scene(3).image
    found = maskprism.load("sample").predict(image)
    mixing = np.linalg.qr(np.random.default_rng(0).normal(size=(256, 32)))[0].astype(np.float32)
    many = maskprism.from_arrays(
        image, found.coefficients @ mixing.T, np.tensordot(mixing, found.prototypes, axes=1), preprocessing="yolo"
    )
    page = open_page(offline(), write_page(tmp_path / "many.html", [(image, many)]), "#i=0")
    shown = as_shown(many, 8)[0]

    def indices() -> list[int]:
        return page.locator(".card").evaluate_all("cards => cards.map(card => Number(card.dataset.k))")

    assert indices() == Decomposition(shown).order()[:64].tolist()
    assert "hidden" in (page.locator(".marks .box").first.get_attribute("class") or "")
    page.get_by_label("Order").select_option("index")
    assert indices() == sorted(Decomposition(shown).order()[:64].tolist())
    page.get_by_role("button", name="Show all 256 prototypes").click()
    assert indices() == list(range(256))
    last = page.locator(".card").last.locator("canvas")
    assert last.evaluate("canvas => canvas.width * canvas.height") > 1  # it is painted, too
    page.get_by_role("button", name="Show the 64 with the largest effect").click()
    page.locator(".instances button").nth(1).click()
    settle(page)
    second = as_shown(many, 8)[1]
    assert indices() == sorted(Decomposition(second).order()[:64].tolist())
