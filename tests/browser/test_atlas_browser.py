"""The map of the atlas in Chromium: from a file, offline."""

from __future__ import annotations

import base64
import csv
import json
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from helpers.in_process import command as run
from helpers.pages import settle, storing
from maskprism.analysis.atlas.atlas import moments_of
from maskprism.analysis.atlas.points import Points
from maskprism.analysis.atlas.projection import Components
from maskprism.datasets.scenes import write_dataset
from maskprism.models import load
from maskprism.tables.extraction import extract

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

SIZES = [(1280, 800), (768, 1024), (390, 844)]


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with scenes, the table of them, a page of them, and the atlas that opens instances in it."""
    folder = tmp_path_factory.mktemp("atlas")
    data = write_dataset(folder / "scenes", 5, seed=11, validation_share=1.0)
    extract(folder / "scenes", load("sample", threads=1), folder / "t.parquet", prototypes="fp16")
    for command in (
        ("page", folder / "scenes", "--model", "sample", "--out", folder / "atlas" / "page.html"),
        (
            "atlas",
            folder / "t.parquet",
            "--out",
            folder / "atlas",
            "--overwrite",
            "--data",
            data,
            "--viewer",
            "page.html",
        ),
    ):
        done = run(*command)
        assert done.returncode == 0, done.stderr
    return folder


def opened(context: BrowserContext, address: str) -> Page:
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector("#maskprism-atlas[data-ready]", timeout=60_000)
    return page


def place_of(page: Page, points: Points, point: int) -> tuple[float, float]:
    """Where a point is on the screen."""
    box = page.locator(".stage > canvas").bounding_box()
    assert box
    x, y = page.evaluate(
        """async (point) => {
          const read = async (name) => {
            const text = document.getElementById(`maskprism-map-${name}`).textContent;
            const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
            const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
            return new Uint16Array(await new Response(stream).arrayBuffer())[point] / 65534 * 1.9 - 0.95;
          };
          return [await read("x-0"), -await read("y-0")];
        }""",
        point,
    )
    # The shorter side of the canvas shows -1 to 1.
    half = min(box["width"], box["height"]) / 2
    return box["x"] + box["width"] / 2 + half * x, box["y"] + box["height"] / 2 - half * y


def rests(page: Page) -> None:
    """Wait until the view rests: pictures lie over it, and stay where they are."""
    page.wait_for_function(
        """() => {
          const pictures = [...document.querySelectorAll(".overlay .picture")];
          const now = pictures.map((one) => `${one.dataset.point} ${one.style.left} ${one.style.top}`).join();
          if (now !== window.placed) [window.placed, window.since] = [now, performance.now()];
          return now && performance.now() - window.since > 400;
        }"""
    )


def lasso(page: Page, corners: list[tuple[float, float]]) -> None:
    page.get_by_role("button", name="Lasso").click()
    page.mouse.move(*corners[0])
    page.mouse.down()
    for corner in [*corners[1:], corners[0]]:
        page.mouse.move(*corner, steps=10)
    page.mouse.up()


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_map_opens_from_a_file(
    atlas: Path, offline: Callable[..., BrowserContext], width: int, height: int, scheme: str
) -> None:
    context = offline(viewport={"width": width, "height": height}, color_scheme=scheme)
    page = opened(context, (atlas / "atlas" / "map.html").as_uri())
    count = len(Points.read(atlas / "t.parquet"))
    assert page.get_by_role("status").inner_text() == f"{count} instances"
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    drawn = page.evaluate(
        """() => {
          const [from, to] = [document.querySelector("canvas"), document.createElement("canvas")];
          [to.width, to.height] = [from.width, from.height];
          to.getContext("2d").drawImage(from, 0, 0);
          const { data } = to.getContext("2d").getImageData(0, 0, to.width, to.height);
          const seen = new Set();
          for (let i = 0; i < data.length; i += 4) seen.add(data.slice(i, i + 3).join());
          return seen.size;
        }"""
    )
    assert drawn > 5  # the background and the colours of classes
    points = Points.read(atlas / "t.parquet")
    box = page.locator(".stage > canvas").bounding_box()
    assert box
    spread = Components.of(moments_of(points.coefficients)).places(points.coefficients)
    for point in {*spread.argmin(axis=0).tolist(), *spread.argmax(axis=0).tolist()}:
        x, y = place_of(page, points, point)
        assert box["x"] <= x <= box["x"] + box["width"]
        page.mouse.move(box["x"] + 1, box["y"] + 1)
        page.mouse.move(x, y, steps=3)
        page.locator(".card").wait_for()  # the outermost are on the map, where they should be


def test_a_point_shows_its_instance_and_opens_it(atlas: Path, offline: Callable[..., BrowserContext]) -> None:
    context = offline()
    page = opened(context, (atlas / "atlas" / "map.html").as_uri())
    points = Points.read(atlas / "t.parquet")
    point = int(np.argmax(points.numbers["size"]))
    page.mouse.move(5, 5)
    page.mouse.move(*place_of(page, points, point), steps=5)
    card = page.locator(".card")
    card.wait_for()
    image, instance = points.name_of(point)
    card.get_by_text(f"{Path(image).name} #{instance}", exact=True).wait_for()  # not of a point on the way
    assert points.class_names[points.classes[point]] in card.inner_text()
    assert card.locator(".picture").count() == 1
    with context.expect_page() as opening:
        page.mouse.down()
        page.mouse.up()
    shown = opening.value
    shown.wait_for_selector(".maskprism canvas")
    assert shown.url.split("?")[0].split("#")[0].endswith("page.html")
    assert Path(image).name in shown.locator(".title").first.inner_text()
    shown.get_by_text(f"instance {instance}, score").wait_for()


def test_a_lasso_selects_compares_and_exports(
    atlas: Path, offline: Callable[..., BrowserContext], tmp_path: Path
) -> None:
    page = opened(offline(accept_downloads=True), (atlas / "atlas" / "map.html").as_uri())
    points = Points.read(atlas / "t.parquet")
    box = page.locator(".stage > canvas").bounding_box()
    assert box
    half = [
        (box["x"] + 2, box["y"] + 2),
        (box["x"] + box["width"] / 2, box["y"] + 2),
        (box["x"] + box["width"] / 2, box["y"] + box["height"] - 2),
        (box["x"] + 2, box["y"] + box["height"] - 2),
    ]
    lasso(page, half)
    panel = page.locator(".selection")
    panel.wait_for()
    info = json.loads(page.locator("#maskprism-map").inner_text())
    raw = page.locator("#maskprism-map-x-0").evaluate("(element) => element.textContent")
    x = np.frombuffer(zlib.decompress(base64.b64decode(raw)), "<u2")
    expected = {points.name_of(int(i)) for i in np.flatnonzero(x < 32_767)}
    with page.expect_download() as download:
        panel.get_by_role("button", name="Export CSV").click()
    download.value.save_as(tmp_path / "s.csv")
    with (tmp_path / "s.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["image"], int(row["instance"])) for row in rows} == expected
    assert f"{len(expected)} selected" in panel.inner_text()
    assert [quality["name"] for quality in info["qualities"]] == list(rows[0])[3:]
    number = {points.name_of(i): float(points.numbers["score"][i]) for i in range(len(points))}
    for row in rows:
        assert float(row["score"]) == pytest.approx(number[row["image"], int(row["instance"])], abs=1e-3)
    assert panel.locator(".bar").count() > 0
    assert panel.locator("ol li").count() == len(expected)
    panel.get_by_role("button", name="Clear").click()
    panel.wait_for(state="hidden")


def test_classes_and_names_filter_and_colours_change(atlas: Path, offline: Callable[..., BrowserContext]) -> None:
    page = opened(offline(), (atlas / "atlas" / "map.html").as_uri())
    points = Points.read(atlas / "t.parquet")
    count = int((points.classes == 0).sum())
    press = page.locator(".legend button").first
    press.click()
    page.get_by_text(f"{count} of {len(points)} instances").wait_for()
    page.locator(".legend [aria-pressed=true]").wait_for()
    assert press.get_attribute("aria-pressed") == "true"
    page.get_by_role("button", name="Select visible").click()
    page.get_by_text(f"{count} selected").wait_for()
    page.locator(".legend button").first.click()
    name = points.image_names[0]
    page.get_by_role("searchbox").fill(name.upper())
    page.get_by_text(f"{int((points.images == 0).sum())} of {len(points)} instances").wait_for()
    colours = page.get_by_role("combobox", name="Colour")
    colours.select_option(label="mask IoU")
    page.locator(".ramp").wait_for()
    assert "grey: not known" in page.locator(".ramp").inner_text()


def test_what_is_in_view_is_selected(atlas: Path, offline: Callable[..., BrowserContext]) -> None:
    page = opened(offline(), (atlas / "atlas" / "map.html").as_uri())
    count = len(Points.read(atlas / "t.parquet"))
    box = page.locator(".stage > canvas").bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    for _ in range(4):
        page.mouse.wheel(0, -200)
        page.wait_for_timeout(60)
    rests(page)  # each point in view has its picture then
    points = "all => all.map(one => Number(one.dataset.point)).sort((a, b) => a - b)"
    expected = page.locator(".overlay .picture").evaluate_all(points)
    page.get_by_role("button", name="Select visible").click()
    page.locator(".selection h2").wait_for()
    selected = page.locator(".selection ol:not(.nearest) button").evaluate_all(points)
    assert 0 < len(selected) < count
    assert selected == expected


def test_the_map_has_an_address(atlas: Path, offline: Callable[..., BrowserContext]) -> None:
    """A reload shows the same, Back leads to the selection before; names that the map does not have are left out."""
    page = opened(offline(), f"{(atlas / 'atlas' / 'map.html').as_uri()}?x=1#colour=none&class=none&select=none%233")
    points = Points.read(atlas / "t.parquet")
    sizes = np.bincount(points.classes)
    assert page.get_by_role("status").inner_text() == f"{len(points)} instances"
    page.get_by_role("combobox", name="Colour").select_option("quality-iou")
    chosen = page.locator(".legend button").nth(1)
    name = chosen.locator(".name").inner_text()
    many = int(sizes[points.class_names.index(name)])
    chosen.click()
    page.get_by_text(f"{many} of {len(points)} instances").wait_for()
    page.get_by_role("searchbox").fill(".")
    page.get_by_role("button", name="Select visible").click()
    page.get_by_role("heading", name=f"{many} selected").wait_for()
    page.wait_for_function("() => location.hash.includes('select=')")

    def shows(selected: int) -> None:
        page.get_by_text(f"{many} of {len(points)} instances").wait_for()
        assert page.get_by_role("combobox", name="Colour").input_value() == "quality-iou"
        assert page.locator(".legend [aria-pressed=true] .name").all_inner_texts() == [name]
        if selected:
            page.get_by_role("heading", name=f"{selected} selected").wait_for()
        else:
            page.locator(".selection").wait_for(state="hidden")

    page.get_by_role("searchbox").fill("none")  # what a filter hides is no longer selected, nor named
    page.wait_for_function("() => !location.hash.includes('select=')")
    page.locator(".selection").wait_for(state="hidden")
    page.get_by_role("searchbox").fill(".")
    page.get_by_text(f"{many} of {len(points)} instances").wait_for()
    page.get_by_role("button", name="Select visible").click()
    page.wait_for_function("() => location.hash.includes('select=')")
    page.reload()
    shows(many)
    assert page.get_by_role("searchbox").input_value() == "."
    for _ in range(2):  # of the two selections, the first went with the filter
        page.go_back()
        shows(0)
    page.go_back()
    page.get_by_role("status").get_by_text(re.compile(f"^{len(points)} instances")).wait_for()
    assert page.locator(".legend [aria-pressed=true]").count() == 0
    page.go_forward()
    shows(0)


GATED = """const read = Response.prototype.arrayBuffer;
window.opened = new Promise((open) => (window.open_ = open));
let columns = 0;
Response.prototype.arrayBuffer = async function () {
  const found = await read.call(this);
  columns += 1;
  if (columns > AT_ONCE) await window.opened;
  return found;
};"""
"""All columns but the first few come once the test says so, as those of a map of a million points do."""


def test_the_address_counts_that_is_there_once_the_points_are(
    atlas: Path, offline: Callable[..., BrowserContext]
) -> None:
    page = offline().new_page()
    page.add_init_script(GATED.replace("AT_ONCE", "0"))
    page.goto((atlas / "atlas" / "map.html").as_uri())
    page.get_by_role("combobox", name="Colour").wait_for()
    page.evaluate("location.hash = '#colour=quality-iou'")
    page.evaluate("window.open_()")
    page.wait_for_selector("#maskprism-atlas[data-ready]")
    page.locator(".ramp").wait_for()
    assert page.get_by_role("combobox", name="Colour").input_value() == "quality-iou"


def test_a_filter_that_was_taken_back_does_not_come_late(atlas: Path, offline: Callable[..., BrowserContext]) -> None:
    page = offline().new_page()
    page.add_init_script(GATED.replace("AT_ONCE", "3"))
    page.goto((atlas / "atlas" / "map.html").as_uri())
    page.locator("#maskprism-atlas[data-ready]").wait_for()
    count = len(Points.read(atlas / "t.parquet"))
    search = page.get_by_role("searchbox")
    for text in ("none", ""):
        search.fill(text)
        settle(page)
    page.evaluate("window.open_()")
    page.locator(".overlay .picture").first.wait_for()  # the columns are there
    settle(page)
    assert page.get_by_role("status").inner_text() == f"{count} instances"


def test_a_press_on_a_class_is_not_lost_while_the_map_is_drawn(
    atlas: Path, offline: Callable[..., BrowserContext]
) -> None:
    page = opened(offline(), (atlas / "atlas" / "map.html").as_uri())
    first, second = (page.locator(".legend button").nth(number) for number in range(2))
    first.click()
    second.hover()
    page.mouse.down()
    page.locator(".legend [aria-pressed=true]").wait_for()
    first.evaluate("one => one.click()")  # is drawn while the other one is held
    page.wait_for_function("() => !document.querySelector('.legend [aria-pressed=true]')")
    page.mouse.up()
    page.locator(".legend [aria-pressed=true]").wait_for()
    assert second.get_attribute("aria-pressed") == "true"


def test_colours_of_classes_stay_when_classes_are_chosen(atlas: Path, offline: Callable[..., BrowserContext]) -> None:
    page = opened(offline(), (atlas / "atlas" / "map.html").as_uri())
    colours = "all => all.slice(0, 6).map(one => one.style.background)"
    before = page.locator(".legend .dot").evaluate_all(colours)
    page.locator(".legend button").nth(3).click()
    page.locator(".legend [aria-pressed=true]").wait_for()
    assert page.locator(".legend .dot").evaluate_all(colours) == before


def test_statistics_and_map_lead_to_each_other(atlas: Path, offline: Callable[..., BrowserContext]) -> None:
    page = offline().new_page()
    page.goto((atlas / "atlas" / "atlas.html").as_uri())
    page.get_by_role("link", name="Open the map").click()
    page.wait_for_selector("[data-ready]")
    page.get_by_role("link", name="Statistics").click()
    page.get_by_role("heading", name="Findings").wait_for()


def test_the_map_has_a_logo_and_a_switch_of_its_colours(atlas: Path, offline: Callable[..., BrowserContext]) -> None:
    context = offline(color_scheme="light")
    page = opened(context, storing(context, atlas / "atlas" / "map.html"))
    assert page.locator(".brand svg").first.is_visible()
    colour = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(colour)
    page.get_by_role("button", name="Switch colours").click()
    dark = page.evaluate(colour)
    assert dark != light
    page.reload()
    assert page.evaluate(colour) == dark


def test_a_link_that_names_an_instance_opens_it(atlas: Path, offline: Callable[..., BrowserContext]) -> None:
    points = Points.read(atlas / "t.parquet")
    point = len(points) - 1
    image, instance = points.name_of(point)
    page = offline().new_page()
    for name, there in ((f"{image}#{instance}", True), ("none.png#3", False), ("a", False)):
        page.goto("about:blank")
        page.goto(f"{(atlas / 'atlas' / 'page.html').as_uri()}#open={name.replace('#', '%23')}")
        page.wait_for_selector(".maskprism .waterfall, .maskprism canvas")
        shown = Path(image if there else points.image_names[0]).name
        page.get_by_text(shown, exact=True).first.wait_for()
        if there:
            page.get_by_text(f"instance {instance}, score").wait_for()
        assert "open=" not in page.url


def test_thumbnails_names_and_density_lie_over_the_points(atlas: Path, offline: Callable[..., BrowserContext]) -> None:
    page = opened(offline(), (atlas / "atlas" / "map.html").as_uri())
    points = Points.read(atlas / "t.parquet")
    pictures = page.locator(".overlay .picture")
    pictures.first.wait_for()
    shown = [int(point) for point in pictures.evaluate_all("all => all.map(one => one.dataset.point)")]
    assert len(set(shown)) == len(shown) <= len(points)
    box = page.locator(".stage > canvas").bounding_box()
    assert box
    for picture, point in zip(pictures.all(), shown, strict=True):
        own = picture.bounding_box()
        assert own
        x, y = place_of(page, points, point)
        assert own["x"] + own["width"] / 2 == pytest.approx(x, abs=2)
        assert own["y"] + own["height"] / 2 == pytest.approx(y, abs=2)
    legend = page.locator(".dot").evaluate_all("all => all.map(one => getComputedStyle(one).backgroundColor)")
    assert {picture.evaluate("one => getComputedStyle(one).borderTopColor") for picture in pictures.all()} <= set(
        legend
    )
    names = page.locator(".overlay .names span").all_inner_texts()
    assert names
    assert {name.rstrip(" 0123456789") for name in names} <= set(points.class_names)
    page.get_by_label("Thumbnails").uncheck()
    page.get_by_label("Density").check()
    page.locator(".density").wait_for()
    assert pictures.count() == 0


def test_the_nearest_neighbours_of_a_point_are_those_of_its_coefficients(
    atlas: Path, offline: Callable[..., BrowserContext]
) -> None:
    page = opened(offline(), (atlas / "atlas" / "map.html").as_uri())
    points = Points.read(atlas / "t.parquet")
    far = np.linalg.norm(points.coefficients - points.coefficients[0], axis=1)
    name = points.image_names[points.images[0]]
    page.get_by_role("searchbox").fill(name)
    mine = np.flatnonzero(points.images == points.images[0])
    page.get_by_text(f"{len(mine)} of {len(points)} instances").wait_for()
    page.get_by_role("button", name="Lasso").click()  # a selection of one point then opens no viewer
    x, y = place_of(page, points, 0)
    others = np.array([place_of(page, points, int(i)) for i in mine if i])
    reach = min(6.0, float(np.abs(others - [x, y]).max(axis=1).min()) / 2) if len(others) else 6.0
    page.mouse.move(x - reach, y - reach)
    page.mouse.down()
    for corner in ((x + reach, y - reach), (x + reach, y + reach), (x - reach, y + reach), (x - reach, y - reach)):
        page.mouse.move(*corner, steps=6)
    page.mouse.up()
    page.locator(".nearest li").first.wait_for()
    found = [int(k) for k in page.locator(".nearest button").evaluate_all("all => all.map(one => one.dataset.point)")]
    assert len(found) == 5
    expected = np.argsort(far, kind="stable")[1:6]
    assert far[found] == pytest.approx(far[expected], rel=0.05)  # the map has coefficients in 8 bits


def test_a_finger_moves_the_map(atlas: Path, offline: Callable[..., BrowserContext]) -> None:
    context = offline(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page = opened(context, (atlas / "atlas" / "map.html").as_uri())
    picture = page.locator(".overlay .picture").first
    picture.wait_for()
    point = picture.get_attribute("data-point")
    before = picture.bounding_box()
    assert before
    box = page.locator(".stage > canvas").bounding_box()
    assert box
    client = context.new_cdp_session(page)
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def touch(kind: str, *at: tuple[float, float]) -> None:
        client.send(
            "Input.dispatchTouchEvent",
            {"type": kind, "touchPoints": [{"x": a, "y": b, "id": i} for i, (a, b) in enumerate(at)]},
        )

    touch("touchStart", (x, y))
    for step in range(1, 11):
        touch("touchMove", (x + 3 * step, y + 2 * step))
    touch("touchEnd")
    moved = page.locator(f'.overlay .picture[data-point="{point}"]')
    rests(page)
    after = moved.bounding_box()
    assert after
    assert after["x"] - before["x"] == pytest.approx(30, abs=5)
    assert after["y"] - before["y"] == pytest.approx(20, abs=5)


def test_the_list_of_classes_has_the_height_of_the_map(atlas: Path, offline: Callable[..., BrowserContext]) -> None:
    page = opened(offline(viewport={"width": 1280, "height": 800}), (atlas / "atlas" / "map.html").as_uri())
    limit = page.locator(".legend ul").evaluate("one => parseFloat(getComputedStyle(one).maxHeight)")
    assert limit > 0.9 * page.locator(".stage").evaluate("one => one.clientHeight")
