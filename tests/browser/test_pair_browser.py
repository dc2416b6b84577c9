"""Two viewers side by side: linked sliders, linked pixel, differences of coefficients."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import maskprism
from helpers.pages import settle
from maskprism import Prediction
from maskprism.datasets.scenes import draw_scene
from maskprism.viewer.page import write_pair

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

Context = Callable[..., "BrowserContext"]


@pytest.fixture(scope="module")
def both() -> dict[str, Prediction]:
    """What a model says, and another one that gives the instances in the opposite order and other coefficients."""
    found = replace(maskprism.load("sample").predict(draw_scene(3).image), source="scene")
    rng = np.random.default_rng(0)
    other = found[list(range(len(found)))[::-1]]
    noise = rng.normal(0, 0.1, other.coefficients.shape).astype(np.float32)
    return {"first.onnx": found, "second.onnx": replace(other, coefficients=other.coefficients + noise)}


@pytest.fixture(scope="module")
def file(both: dict[str, Prediction], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pair(tmp_path_factory.mktemp("pair") / "pair.html", draw_scene(3).image, both)


@pytest.fixture
def page(offline: Context, file: Path) -> Page:
    page = offline(viewport={"width": 1600, "height": 900}).new_page()
    page.goto(file.as_uri())
    page.locator(".differences li").first.wait_for()
    settle(page)
    return page


def weights(page: Page, side: int) -> np.ndarray:
    pairs = (
        page.locator(".side")
        .nth(side)
        .locator(".card")
        .evaluate_all("all => all.map(one => [Number(one.dataset.k), one.querySelector('.slider').valueAsNumber])")
    )
    return np.array([value for _, value in sorted(pairs)], np.float32)


def chosen(page: Page, side: int) -> int:
    marks = (
        page.locator(".side")
        .nth(side)
        .locator(".instances button")
        .evaluate_all("all => all.map(one => one.getAttribute('aria-checked'))")
    )
    return marks.index("true")


def test_the_instances_of_both_models_go_together(page: Page, both: dict[str, Prediction]) -> None:
    many = len(both["first.onnx"])
    assert chosen(page, 1) == many - 1 - chosen(page, 0)
    page.locator(".side").nth(0).locator(".instances button").nth(1).click()
    assert chosen(page, 1) == many - 2
    page.locator(".side").nth(1).locator(".instances button").nth(0).click()
    assert chosen(page, 0) == many - 1


def test_the_column_has_both_coefficients_and_the_largest_difference_first(
    page: Page, both: dict[str, Prediction]
) -> None:
    a, b = both.values()
    wa, wb = a.coefficients[chosen(page, 0)], b.coefficients[chosen(page, 1)]
    rows = page.locator(".differences li").evaluate_all(
        """all => all.map((one) => [Number(one.dataset.k),
          ...[...one.querySelectorAll("span:nth-child(2), span:nth-child(3), b")].map(
            (cell) => Number(cell.textContent.replace("−", "-")))])"""
    )
    assert [row[0] for row in rows] == np.argsort(-np.abs(wb - wa), kind="stable").tolist()
    for k, first, second, difference in rows:
        assert first == pytest.approx(wa[k], abs=0.0051)
        assert second == pytest.approx(wb[k], abs=0.0051)
        assert difference == pytest.approx(wb[k] - wa[k], abs=0.0051)


def test_an_edit_of_one_side_is_made_on_the_other_unless_they_are_apart(page: Page) -> None:
    before = weights(page, 0), weights(page, 1)
    order = [
        int(k) for k in page.locator(".side").nth(0).locator(".card").evaluate_all("all => all.map(o => o.dataset.k)")
    ]
    sliders = page.locator(".side").nth(0).get_by_label(f"Coefficient of prototype {order[0]}", exact=True)
    sliders.press("Shift+ArrowRight")
    moved = weights(page, 0)[order[0]] - before[0][order[0]]
    assert moved > 0
    assert weights(page, 1)[order[0]] - before[1][order[0]] == pytest.approx(moved, abs=1e-5)
    sliders.press("Delete")
    assert weights(page, 1)[order[0]] == 0
    page.locator(".side").nth(0).get_by_role("button", name="Reset", exact=True).click()
    assert np.array_equal(weights(page, 0), before[0])
    assert np.array_equal(weights(page, 1), before[1])
    page.get_by_label("Link sliders").uncheck()
    sliders.press("Delete")
    assert np.array_equal(weights(page, 1), before[1])


def test_the_pixel_and_the_view_are_linked(page: Page) -> None:
    box = page.locator(".side").nth(0).locator(".stage").bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.6)
    settle(page)
    where = page.locator(".pixel .where").all_inner_texts()
    assert where[0] == where[1]
    page.locator(".side").nth(1).get_by_text("Logits", exact=True).click()
    assert page.locator(".side").nth(0).locator("input[value=logits]").is_checked()


def test_one_is_shown_at_the_place_of_the_other(page: Page) -> None:
    show = page.get_by_role("group", name="Show")
    sides = page.locator(".side")
    show.get_by_text("A", exact=True).click()
    assert [sides.nth(i).is_visible() for i in range(2)] == [True, False]
    left = sides.nth(0).bounding_box()
    show.get_by_text("B", exact=True).click()
    assert [sides.nth(i).is_visible() for i in range(2)] == [False, True]
    assert left == {**(sides.nth(1).bounding_box() or {}), "height": left and left["height"]}


def test_the_address_holds_the_state_of_both(page: Page) -> None:
    page.locator(".side").nth(0).locator(".slider").first.press("Shift+ArrowRight")
    page.get_by_role("group", name="Show").get_by_text("B", exact=True).click()
    page.get_by_text("Link sliders").click()
    page.wait_for_url(re.compile(r"#.*A\.e\d+=.*B\.e\d+=.*shown=B.*linked=0"))
    before = [weights(page, side) for side in range(2)]
    page.reload()
    page.locator(".differences li").first.wait_for(state="attached")
    settle(page)
    for side in range(2):
        np.testing.assert_allclose(weights(page, side), before[side], atol=1e-6)
    assert [page.locator(".side").nth(side).is_visible() for side in range(2)] == [False, True]
    assert not page.get_by_label("Link sliders").is_checked()


def test_it_fits_a_phone(offline: Context, file: Path) -> None:
    page = offline(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True).new_page()
    page.goto(file.as_uri())
    page.locator(".differences li").first.wait_for()
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 390


def test_parts_of_both_have_names_of_their_own(page: Page) -> None:
    names = page.locator("section[aria-label]").evaluate_all("all => all.map(one => one.ariaLabel)")
    assert len(names) > 8
    assert len(set(names)) == len(names)
    assert page.locator("main").count() == 1
