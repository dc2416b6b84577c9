"""The server's page in a browser, started as a user starts it."""

from __future__ import annotations

import base64
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import httpx
import numpy as np
import pytest

import maskprism
from helpers.contrast import hovered, low_contrast
from helpers.pages import ABOUT_SPEED, settle, start, stop, until
from helpers.tiny_models import Tiny, ultralytics_metadata
from maskprism.analysis.truth.error_budget import budgets
from maskprism.analysis.truth.matching import match_masks
from maskprism.datasets import GroundTruth, open_dataset
from maskprism.datasets.scenes import draw_scene, write_dataset

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page, Route

SCENES = 10
HOSTILE = "<img src=x onerror=alert(1)>"
SHIFTS = """window.moved = 0;
new PerformanceObserver(list => { for (const shift of list.getEntries()) window.moved += shift.value; })
  .observe({ type: "layout-shift", buffered: true });"""
Open = Callable[..., "Page"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    write_dataset(folder, SCENES, validation_share=1.0)
    (folder / "images" / "val" / "broken.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """The bundled model over scenes with labels; all of them examined."""
    process, address = start(folder / "images", "--data", folder / "data.yaml")
    while True:
        progress = httpx.get(f"{address}api/progress").json()
        if progress["examined"] == progress["total"]:
            break
        time.sleep(0.1)
    yield address
    stop(process)


@pytest.fixture(scope="module")
def contexts(browser: Browser) -> Iterator[dict[str, BrowserContext]]:
    """Contexts by their options; the first page of each stays open, which keeps the process of its pages warm."""
    contexts: dict[str, BrowserContext] = {}
    yield contexts
    for context in contexts.values():
        context.close()


@pytest.fixture
def open_page(browser: Browser, contexts: dict[str, BrowserContext]) -> Iterator[Open]:
    """Pages that may only talk to their own server; the test fails if one complained of anything."""
    complaints: list[str] = []

    def open_page(address: str, script: str = "", **options: Any) -> Page:
        options = {"viewport": {"width": 1280, "height": 800}, **options}
        if repr(options) not in contexts:
            contexts[repr(options)] = browser.new_context(**options)
            contexts[repr(options)].set_default_timeout(30_000)
            contexts[repr(options)].new_page().goto(f"{origin(address)}api/progress")
        page = contexts[repr(options)].new_page()
        page.add_init_script(script)
        page.on("request", lambda r: r.url.startswith((origin(address), "blob:", "data:")) or complaints.append(r.url))
        page.on("pageerror", lambda e: complaints.append(str(e)))
        page.on("dialog", lambda d: complaints.append(d.message))
        page.on(
            "console",
            lambda m: m.type in ("error", "warning") and ABOUT_SPEED not in m.text and complaints.append(m.text),
        )
        page.goto(address)
        return page

    yield open_page
    for context in contexts.values():
        for page in context.pages[1:]:
            page.evaluate("localStorage.clear()")
            page.close()
    assert [one for one in complaints if not re.search("408|413|422|503", one)] == []


def origin(address: str) -> str:
    return "/".join(address.split("/")[:3]) + "/"


def names(page: Page) -> list[str]:
    return page.locator(".tile .name").all_text_contents()


def shows(page: Page, expected: list[str]) -> None:
    """The list shows these images, in a moment."""
    page.wait_for_function(
        "expected => [...document.querySelectorAll('.tile .name')].map(e => e.textContent).join('\\n') === expected",
        arg="\n".join(expected),
    )


@pytest.fixture(scope="module")
def labelled(folder: Path) -> dict[str, GroundTruth]:
    """The labels of every scene, as its file has them: one outline each, which joins the parts of an object."""
    samples = [sample for sample in open_dataset(folder / "data.yaml") if "scene" in sample.name]
    return {sample.name.removeprefix("images/"): sample.read()[1] for sample in samples}


@pytest.fixture(scope="module")
def truth(labelled: dict[str, GroundTruth]) -> dict[str, tuple[maskprism.Prediction, Any]]:
    """What Python says of every scene: prediction and comparison with the labels."""
    model = maskprism.load("sample")
    found = {}
    for seed in range(SCENES):
        scene = draw_scene(seed)
        prediction = model.predict(scene.image)
        found[f"val/scene_{seed:06d}.png"] = (
            prediction,
            match_masks(prediction, labelled[f"val/scene_{seed:06d}.png"]),
        )
    return found


def test_filters_show_what_python_says(address: str, open_page: Open, truth: dict[str, Any]) -> None:
    page = open_page(address)
    shows(page, ["val/broken.png", *truth])
    assert page.locator("#count").inner_text() == f"{SCENES + 1} images"
    assert page.locator("#progress-text").inner_text() == "1 unreadable"

    page.get_by_role("button", name="star").click()
    stars = [name for name, (prediction, _) in truth.items() if 2 in prediction.classes]
    shows(page, stars)
    assert "class=2" in page.url
    assert page.get_by_role("button", name="star").get_attribute("aria-pressed") == "true"
    assert page.locator("#count").inner_text() == f"{len(stars)} of {SCENES + 1} images"

    lowest = page.get_by_role("slider", name="Lowest score")
    lowest.focus()
    for _ in range(16):
        page.keyboard.press("ArrowRight")
    sure = [n for n, (p, _) in truth.items() if ((p.classes == 2) & (p.scores >= 0.8)).any()]
    shows(page, sure)
    assert "score=0.8-1" in page.url
    page.reload()
    shows(page, sure)  # the address holds the filter
    page.get_by_role("button", name="Clear filters").click()
    shows(page, ["val/broken.png", *truth])
    assert page.url == address

    page.get_by_role("slider", name="Highest IoU").focus()
    for _ in range(6):
        page.keyboard.press("ArrowLeft")
    page.locator("select[name=sort]").select_option("iou")
    lowest = {name: min(found.mask_iou) for name, (_, found) in truth.items()}
    worst = {name: iou for name, iou in lowest.items() if iou <= 0.7}
    shows(page, sorted(worst, key=lambda name: (worst[name], name)))
    page.get_by_role("button", name="Clear filters").click()
    page.locator("select[name=show]").select_option("missed")
    shows(page, [name for name, (_, found) in truth.items() if len(found.missed)])
    page.get_by_role("searchbox").fill("nothing like that")
    shows(page, [])
    assert page.get_by_text("No image fits the filter.").is_visible()


def test_the_way_to_an_image_and_back(address: str, open_page: Open, truth: dict[str, Any]) -> None:
    page = open_page(f"{address}?class=2", viewport={"width": 700, "height": 500})
    stars = [name for name, (prediction, _) in truth.items() if 2 in prediction.classes]
    shows(page, stars)
    tile = page.locator(".tile").nth(2)
    tile.scroll_into_view_if_needed()
    scrolled = page.evaluate("scrollY")
    tile.click()
    prediction, _ = truth[stars[2]]
    page.locator(".maskprism").get_by_text(f"{len(prediction)} instances").wait_for()
    first = int(np.flatnonzero(prediction.classes == 2)[0])
    page.locator(".maskprism").get_by_text(f"instance {first},").wait_for()  # the one that the filter asks for
    assert page.locator("#gallery").is_hidden()
    assert page.locator("#image .place").inner_text() == f"3 of {len(stars)}"
    page.get_by_role("button", name="Next image").click()
    page.locator(".maskprism").get_by_text(f"{len(truth[stars[3]][0])} instances").wait_for()
    assert page.locator("#image .place").inner_text() == f"4 of {len(stars)}"
    page.go_back()
    page.locator("#gallery").wait_for()
    assert page.url == f"{address}?class=2"
    shows(page, stars)
    assert page.evaluate("scrollY") >= scrolled - 1
    assert page.evaluate("document.activeElement.querySelector('.name').textContent") == stars[3]
    page.go_forward()
    page.locator(".maskprism").get_by_text(f"{len(truth[stars[3]][0])} instances").wait_for()
    page.reload()  # a link to an image is a link to an image
    page.locator(".maskprism").get_by_text(f"{len(truth[stars[3]][0])} instances").wait_for()
    page.get_by_role("link", name="Gallery").click()
    shows(page, stars)


def test_edits_stay_while_other_images_are_looked_at(address: str, open_page: Open) -> None:
    page = open_page(address)
    slider = page.get_by_label("Coefficient of prototype 3", exact=True)
    dropped = page.locator('.card[data-k="3"].dropped')
    page.locator(".tile", has_text="scene_000001").click()
    slider.press("Delete")
    dropped.wait_for()
    page.get_by_role("button", name="Next image").click()
    page.locator("h1", has_text="scene_000002.png").wait_for()
    assert dropped.count() == 0
    page.get_by_role("button", name="Previous image").click()
    page.locator("h1", has_text="scene_000001.png").wait_for()
    dropped.wait_for()
    page.get_by_role("link", name="Gallery").click()
    page.locator(".badge.edited").wait_for()
    edited = page.locator(".tile", has=page.locator(".badge.edited"))
    assert edited.locator(".name").all_text_contents() == ["val/scene_000001.png"]
    edited.click()
    dropped.wait_for()
    page.get_by_role("button", name="Undo").click()  # the history is there, too
    assert dropped.count() == 0
    page.get_by_role("button", name="Redo").click()
    page.go_back()
    page.reload()  # the history is gone then, the edits are not
    edited.wait_for()
    assert edited.locator(".name").all_text_contents() == ["val/scene_000001.png"]
    edited.click()
    dropped.wait_for()
    page.reload()
    dropped.wait_for()
    page.get_by_role("link", name="Gallery").click()
    page.get_by_role("button", name="Reset all edits (1 image)").click()
    assert edited.count() == 0
    page.locator(".tile", has_text="scene_000001").click()
    page.locator("h1", has_text="scene_000001.png").wait_for()
    assert dropped.count() == 0
    page.get_by_role("button", name="Undo").click()
    dropped.wait_for()


def test_a_tile_opens_the_instance_that_put_it_there(address: str, open_page: Open, truth: dict[str, Any]) -> None:
    page = open_page(f"{address}?sort=iou")
    for sort, of in (("iou", "ious"), ("score", "scores")):
        page.locator("select[name=sort]").select_option(sort)
        lowest = {}
        for name, (prediction, found) in truth.items():
            matched = range(len(prediction)) if of == "scores" else sorted(found.instances.tolist())
            values = prediction.scores.tolist() if of == "scores" else map(found.mask_iou_of, range(len(prediction)))
            known = dict(enumerate(values))
            index = min(matched, key=lambda i: (known[i], i))
            lowest[name] = float(known[index]), index
        order = sorted(lowest, key=lambda name: (lowest[name][0], name))
        shows(page, [*order, "val/broken.png"])
        tile = page.locator(".tile").first
        prediction, index = truth[order[0]][0], lowest[order[0]][1]
        assert tile.locator(".facts").inner_text().startswith(f"{prediction[index].name} {index} · ")
        tile.click()
        page.locator(".maskprism").get_by_text(f"instance {lowest[order[0]][1]},").wait_for()
        page.go_back()
        page.locator("#gallery").wait_for()


def test_instances_that_lose_most_in_a_part_come_first(
    address: str, open_page: Open, truth: dict[str, Any], labelled: dict[str, GroundTruth]
) -> None:
    page = open_page(f"{address}?view=instances")
    page.locator("select[name=sort]").select_option("coefficients")
    found = [
        (row.coefficients, f"{row.class_name} {row.instance}")
        for name, (prediction, matches) in truth.items()
        for row in budgets(prediction, labelled[name], matches=matches)
    ]
    most, name = max(found)
    page.locator(".tile .facts").first.get_by_text(f"{name} · −{most:.2f} IoU:").wait_for()


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_what_a_tile_is_ordered_by_is_not_cut_off(address: str, open_page: Open, width: int) -> None:
    page = open_page(f"{address}?sort=iou", viewport={"width": width, "height": 844})
    page.locator(".tile .facts", has_text="IoU 0.").first.wait_for()
    cut = page.locator(".tile .facts").evaluate_all(
        "all => all.filter(one => one.scrollWidth > one.clientWidth || one.scrollHeight > one.clientHeight + 2)"
        ".map(one => one.textContent)"
    )
    assert cut == []


def test_the_end_of_a_long_name_is_not_cut_off(address: str, open_page: Open) -> None:
    page = open_page(address, viewport={"width": 320, "height": 800})
    page.locator(".tile").first.wait_for()
    found = page.locator(".tile .name", has_text="scene_").evaluate_all(
        "all => all.map(({ children: [start, end], parentElement: caption }) => [start.scrollWidth > start.clientWidth,"
        " end.textContent, end.getBoundingClientRect().right - caption.getBoundingClientRect().right])"
    )
    assert len(found) > 3
    for cut, end, beyond in found:
        assert cut
        assert re.fullmatch(r"0000\d\d\.png", end)
        assert beyond <= 0


def test_false_positives_are_a_kind_of_their_own(
    open_page: Open, folder: Path, tmp_path: Path, truth: dict[str, Any]
) -> None:
    """Labels of which the first of every image is missing: what the model finds there is false."""
    for kind in ("images", "labels"):
        (tmp_path / kind / "val").mkdir(parents=True)
    (tmp_path / "data.yaml").write_text((folder / "data.yaml").read_text().replace(str(folder), str(tmp_path)))
    for path in sorted((folder / "images" / "val").glob("scene*"))[:4]:
        (tmp_path / "images" / "val" / path.name).write_bytes(path.read_bytes())
        lines = (folder / "labels" / "val" / f"{path.stem}.txt").read_text().splitlines()
        (tmp_path / "labels" / "val" / f"{path.stem}.txt").write_text("\n".join(lines[1:]) + "\n")
    process, address = start(tmp_path / "images", "--data", tmp_path / "data.yaml")
    try:
        page = open_page(f"{address}?show=false-positives")
        page.locator("#progress.done").wait_for(state="attached", timeout=60_000)
        page.reload()
        page.locator(".tile").first.wait_for()
        tiles = page.locator(".tile")
        assert tiles.count() >= 1
        for facts in tiles.locator(".facts").all_inner_texts():
            assert "· false positive" in facts
        assert tiles.first.locator(".badge.false").inner_text().endswith(" FP")
        index = int(re.findall(r"^\w+ (\d+) ·", tiles.first.locator(".facts").inner_text())[0])
        tiles.first.click()
        page.locator(".maskprism").get_by_text(f"instance {index},").wait_for()
        page.go_back()
        page.locator("select[name=show]").select_option("all")
        page.locator("select[name=sort]").select_option("iou")
        page.locator(".tile .facts", has_text="IoU 0.").first.wait_for()
        assert "false positive" not in tiles.first.locator(".facts").inner_text()
        page.close()
    finally:
        stop(process)


def test_a_card_per_instance_and_instances_side_by_side(address: str, open_page: Open, truth: dict[str, Any]) -> None:
    page = open_page(f"{address}?sort=iou", viewport={"width": 1400, "height": 800})
    page.locator(".views").get_by_text("Instances").click()
    page.wait_for_url("**view=instances**")
    objects = sorted(
        (np.inf if iou is None else iou, name, index)
        for name, (_, found) in truth.items()
        for index, iou in enumerate(map(found.mask_iou_of, range(len(found.errors))))
    )
    page.locator("#count").get_by_text(f"{len(objects)} instances").wait_for()
    matched = [(name, index) for iou, name, index in objects if np.isfinite(iou)]
    page.wait_for_function("() => document.querySelectorAll('.tile.instance').length >= 40")

    def cards() -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = [
            tuple(pair)
            for pair in page.locator(".tile").evaluate_all(
                "all => all.map(one => ['.name', '.facts'].map(part => one.querySelector(part).textContent))"
            )
        ]
        return found

    for (name, index), (title, facts) in list(zip(matched, cards(), strict=False))[:40]:
        assert title == name
        assert facts.startswith(f"{truth[name][0][index].name} {index} · IoU ")
    page.locator(".tile img.loaded").first.wait_for()
    page.locator("select[name=sort]").select_option("size")
    smallest = min(
        (float(np.prod(box[2:] - box[:2])), name, index)
        for name, (prediction, _) in truth.items()
        for index, box in enumerate(prediction.boxes)
    )
    page.wait_for_function("name => document.querySelector('.tile .name')?.textContent === name", arg=smallest[1])
    page.get_by_role("button", name="star").click()
    stars = sum(int((prediction.classes == 2).sum()) for prediction, _ in truth.values())
    page.locator("#count").get_by_text(f"{stars} instances").wait_for()  # the same filters
    page.wait_for_function("many => document.querySelectorAll('.tile').length === many", arg=stars)
    chosen = [page.locator(".tile").nth(i).locator(".facts").inner_text().split(" · ")[0] for i in (0, 2)]
    page.locator(".choice input").nth(0).check()
    assert not page.locator("#compare").is_visible()
    page.locator(".choice input").nth(2).check()
    page.get_by_role("button", name="Compare 2 instances").click()
    for place, text in enumerate(chosen):
        name, index = text.rsplit(" ", 1)
        one = page.locator(".side").nth(place)
        one.get_by_text(f"instance {index},").wait_for()
        assert one.locator(".heading .name").inner_text() == name
    left, right = (page.locator(".side").nth(i).bounding_box() for i in (0, 1))
    assert left
    assert right
    assert left["x"] + left["width"] <= right["x"] + 1
    page.reload()  # the address holds the comparison
    page.locator(".side .stage").nth(1).wait_for()
    page.get_by_role("link", name="Gallery").click()
    page.locator("#gallery").wait_for()
    assert page.locator(".side").count() == 0
    page.locator(".tile").nth(1).click()
    page.locator(".maskprism .stage").wait_for()
    assert page.locator("#image .place").inner_text() == f"2 of {stars}"
    page.get_by_role("button", name="Next image").click()
    page.locator("#image .place").get_by_text(f"3 of {stars}").wait_for()
    page.locator(".maskprism").get_by_text(f"instance {chosen[1].rsplit(' ', 1)[1]},").wait_for()


def test_missed_instances_are_where_their_filter_leads(open_page: Open, folder: Path, tmp_path: Path) -> None:
    """A label where nothing is: the tile of its image opens at it, with the ground truth drawn."""
    for kind in ("images", "labels"):
        (tmp_path / kind / "val").mkdir(parents=True)
    (tmp_path / "data.yaml").write_text((folder / "data.yaml").read_text().replace(str(folder), str(tmp_path)))
    for path in sorted((folder / "images" / "val").glob("scene*"))[:3]:
        (tmp_path / "images" / "val" / path.name).write_bytes(path.read_bytes())
        lines = (folder / "labels" / "val" / f"{path.stem}.txt").read_text().splitlines()
        lines.append("9 0.01 0.01 0.05 0.01 0.05 0.05 0.01 0.05")
        (tmp_path / "labels" / "val" / f"{path.stem}.txt").write_text("\n".join(lines) + "\n")
    process, address = start(tmp_path / "images", "--data", tmp_path / "data.yaml")
    try:
        page = open_page(f"{address}?show=missed")
        page.locator("#progress.done").wait_for(state="attached", timeout=60_000)
        page.reload()
        page.locator(".tile").first.click()
        page.get_by_role("status").get_by_text("Missed: ").wait_for()
        assert page.locator("canvas.truth").is_visible()
        assert page.get_by_label("Ground truth").is_checked()
        assert page.locator(".stage.zoomed").count() == 1
        page.close()
    finally:
        stop(process)


def test_what_failed_can_be_tried_again(address: str, open_page: Open) -> None:
    page = open_page(address)
    page.locator(".tile").nth(SCENES).wait_for()
    page.route("**/api/images?*", lambda route: route.fulfill(status=503, json={"error": "not now"}))
    page.get_by_role("button", name="star").click()
    page.get_by_text("The list of images did not come: not now").wait_for()
    assert page.locator(".tile").count() == 0  # rather than tiles that no filter chose
    page.unroute("**/api/images?*")
    page.get_by_role("button", name="Try again").click()
    page.locator(".tile").first.wait_for()
    page.route("**/api/scenes/**", lambda route: route.fulfill(status=503, json={"error": "too busy"}))
    page.locator(".tile").first.click()
    page.get_by_role("alert").get_by_text("too busy").wait_for()
    page.unroute("**/api/scenes/**")
    page.get_by_role("button", name="Try again").click()
    page.locator(".stage").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_control_of_the_gallery_can_be_read(address: str, open_page: Open, scheme: str) -> None:
    page = open_page(f"{address}?view=instances", color_scheme=scheme, reduced_motion="reduce")
    page.locator(".tile img.loaded").nth(1).wait_for()
    page.locator(".choice input").nth(0).check()
    page.locator(".choice input").nth(1).check()
    page.get_by_role("button", name="star").click()
    page.locator(".chip[aria-pressed=true]").wait_for()
    assert low_contrast(page, "#gallery") == []
    controls = "#gallery button:not(:disabled), #gallery select, #gallery .views label, #gallery .check, #gallery .tile"
    assert hovered(page, controls) == []
    page.locator(".tile").first.click()
    page.locator(".stage").wait_for()
    assert low_contrast(page, "#image") == []
    assert hovered(page, "#image > header :is(button, a):not([aria-disabled=true])") == []


def test_fingers_find_the_filters(address: str, open_page: Open) -> None:
    page = open_page(address, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page.locator(".tile img.loaded").first.wait_for()
    low = page.locator(".chip, #filters button, #filters select, .views label, .range input").evaluate_all(
        """all => all.filter(one => one.checkVisibility() && one.getBoundingClientRect().height < 38)
                     .map(one => one.outerHTML.slice(0, 80))"""
    )
    assert low == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_tiles_and_classes_are_one_tab_stop_each(address: str, open_page: Open) -> None:
    page = open_page(address)
    page.locator(".tile").nth(SCENES).wait_for()
    for stops in (".tile", ".chips .chip"):
        assert page.locator(f'{stops}[tabindex="0"]').count() == 1
    stop = "one => one === document.activeElement && one.tabIndex === 0"
    page.locator('.chip[tabindex="0"]').focus()
    page.keyboard.press("ArrowRight")
    assert page.locator(".chips .chip").nth(1).evaluate(stop)
    page.keyboard.press("Enter")
    page.wait_for_url("**class=**")
    assert page.locator(".chips .chip").nth(1).evaluate(stop)


def test_with_the_keyboard_alone(address: str, open_page: Open) -> None:
    page = open_page(address)
    page.locator(".tile").nth(SCENES).wait_for()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the images"
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('.tile')"):
            break
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("End")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert "scene_000000" in page.evaluate("document.activeElement.getAttribute('aria-label')")
    page.keyboard.press("Enter")
    page.locator(".maskprism").get_by_text("instances").first.wait_for()
    assert page.evaluate("document.activeElement.textContent") == "← Gallery"
    page.keyboard.press("Enter")
    page.locator("#gallery").wait_for()
    assert "scene_000000" in page.evaluate("document.activeElement.getAttribute('aria-label')")


def test_the_map_of_the_gallery_opens_instances(address: str, open_page: Open, truth: dict[str, Any]) -> None:
    page = open_page(address)
    page.get_by_role("link", name="Map").click()
    page.wait_for_selector("#maskprism-atlas[data-ready]")
    total = sum(len(prediction) for prediction, _ in truth.values())
    page.get_by_text(f"{total} instances", exact=True).wait_for()
    page.goto(f"{page.url}?x=1")  # a parameter that is not of the filter is ignored
    page.get_by_text(f"{total} instances", exact=True).wait_for()
    page.get_by_role("button", name="Select visible").click()
    one = page.locator(".selection li button").first
    one.locator("img").evaluate("(image) => image.decode()")  # the crop comes
    name, _, index = one.locator(".name").inner_text().partition(" #")
    with page.context.expect_page() as opening:
        one.click()
    shown = opening.value
    shown.get_by_text(f"instance {index}, score").wait_for()
    assert name in shown.locator(".title").first.inner_text()


def test_a_broken_image_says_why(address: str, open_page: Open) -> None:
    page = open_page(address)
    tile = page.locator(".tile", has_text="broken.png")
    tile.get_by_text("not an image that OpenCV can decode (8 bytes)").wait_for()
    tile.click()
    page.get_by_role("alert").get_by_text("val/broken.png: not an image that OpenCV can decode").wait_for()
    page.go_back()
    page.locator("#gallery").wait_for()


def test_uploads_by_button_and_by_dropping(address: str, open_page: Open, tmp_path: Path) -> None:
    scene = draw_scene(77, (200, 300))
    data = cv2.imencode(".png", scene.image)[1].tobytes()
    (tmp_path / "mine ü.png").write_bytes(data)
    count = len(maskprism.load("sample").predict(scene.image))
    page = open_page(address)
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Upload").click()
    chooser.value.set_files(tmp_path / "mine ü.png")
    page.locator(".maskprism").get_by_text(f"{count} instances").wait_for()
    page.go_back()
    page.locator(".tile", has_text="uploaded").get_by_text("mine ü.png").wait_for()
    drop(page, data, "dropped.png")
    page.locator(".maskprism").get_by_text("dropped.png").wait_for()
    page.go_back()
    page.locator("#gallery").wait_for()
    drop(page, b"no image at all", "bad.png")
    page.locator("#toast.failed").get_by_text("bad.png: not an image").wait_for()
    page.evaluate("limit => { window.huge = new File([new Uint8Array(33 * 2 ** 20)], 'huge.png'); }")
    drop(page, None, "huge.png")
    page.locator("#toast.failed").get_by_text("huge.png has 33.0 MB; the limit is 32 MB.").wait_for()


def test_several_images_are_uploaded_at_once(address: str, open_page: Open) -> None:
    pictures = {f"many{seed}.png": cv2.imencode(".png", draw_scene(90 + seed).image)[1].tobytes() for seed in range(6)}
    page = open_page(address)
    drop(page, {**pictures, "bad.png": b"no image at all"})
    page.locator("#toast.failed").get_by_text("bad.png: not an image").wait_for()
    for name in pictures:
        page.locator(".tile", has_text="uploaded").get_by_text(name).wait_for()


def test_uploads_that_never_end_hold_the_page_up_for_a_while(folder: Path, open_page: Open) -> None:
    process, address = start(folder / "images", "--max-upload-seconds", 2)
    try:
        page = open_page(address)
        stuck = []
        for _ in range(4):  # all places, until their time is over; an upload waits for its turn twice as long
            stuck.append(socket.create_connection(("127.0.0.1", int(address.split(":")[-1].strip("/")))))
            stuck[-1].sendall(b"POST /api/uploads HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n")
        drop(page, cv2.imencode(".png", draw_scene(99).image)[1].tobytes(), "mine.png")
        page.locator("#toast").get_by_text("Uploading mine.png").wait_for()
        page.locator(".maskprism").get_by_text("mine.png").wait_for()
        for connection in stuck:
            connection.close()
        page.close()
    finally:
        stop(process)


@pytest.mark.parametrize("status", [408, 503])
def test_the_page_shows_why_an_upload_was_not_taken(address: str, open_page: Open, status: int) -> None:
    page = open_page(address)
    page.route("**/api/uploads*", lambda route: route.fulfill(status=status, json={"error": "the reason"}))
    drop(page, b"any", "mine.png")
    page.locator("#toast.failed").get_by_text("mine.png: the reason").wait_for()


def drop(page: Page, data: bytes | dict[str, bytes] | None, name: str = "") -> None:
    """One image or several, by name; without bytes the page's own huge one."""
    files = data if isinstance(data, dict) else {name: data}
    page.evaluate(
        """files => {
          const dataTransfer = new DataTransfer();
          for (const [name, data] of files) {
            const bytes = data && Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
            dataTransfer.items.add(bytes ? new File([bytes], name) : window.huge);
          }
          for (const type of ["dragenter", "dragover", "drop"]) {
            document.body.dispatchEvent(new DragEvent(type, { dataTransfer, bubbles: true, cancelable: true }));
          }
        }""",
        [[name, None if one is None else base64.b64encode(one).decode()] for name, one in files.items()],
    )


def test_names_of_files_and_classes_are_text(browser: Browser, open_page: Open, tmp_path: Path) -> None:
    names_of = {0: HOSTILE, 1: "</script><script>alert(2)</script>", 2: "fish & \"chips\" 'n' `tick`"}
    model = Tiny(metadata=ultralytics_metadata(names_of)).save(tmp_path / "model.onnx")
    (tmp_path / "photos").mkdir()
    picture = cv2.imencode(".png", cv2.resize(draw_scene(0).image, (96, 72)))[1].tobytes()
    hostile = [
        f"{HOSTILE}.png",
        "javascript:alert(3).png",
        "a%2e%2e?b=1#c&d.png",
        '" onclick="alert(4)".png',
        "ü ✓.png",
    ]
    for name in hostile:
        (tmp_path / "photos" / name).write_bytes(picture)
    (tmp_path / "photos" / "<b>broken<b>.png").write_bytes(b"")
    process, address = start(tmp_path / "photos", "--model", model)
    try:
        page = open_page(address)
        page.locator(".chip", has_text="<img").wait_for()
        assert sorted(names(page)) == sorted([*hostile, "<b>broken<b>.png"])
        assert sorted(page.locator(".chip .chip-name").all_inner_texts()) == sorted(names_of.values())
        for name in hostile:
            page.locator(".tile").filter(has_text=name).first.click()
            page.locator(".maskprism").get_by_text("3 instances").wait_for()
            page.locator("#image").get_by_text(name).first.wait_for()
            page.go_back()
            page.locator("#gallery").wait_for()
        assert page.locator("img[src=x], b").count() == 0
        assert page.locator("script").count() == 1
        page.close()
    finally:
        stop(process)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 768, 1600])
def test_it_fits_and_nothing_jumps(address: str, open_page: Open, width: int, scheme: str) -> None:
    page = open_page(address, script=SHIFTS, viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.locator(".tile img.loaded").nth(2).wait_for()
    page.wait_for_load_state("networkidle")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("window.moved") < 0.02
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background))) > 3 * 128) == (scheme == "light")
    page.get_by_role("button", name="Switch to").click()
    switched = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert switched != background
    page.locator(".tile").nth(1).click()
    page.locator(".maskprism canvas").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("getComputedStyle(document.querySelector('.maskprism')).backgroundColor") == switched


def test_a_list_of_before_the_model_was_done_is_brought_up_to_date(open_page: Open, address: str) -> None:
    """Also where the model was done before the page first asked how far it is."""

    def early(route: Route) -> None:
        answer = route.fetch()
        page = answer.json()
        page["states"] = {**dict.fromkeys(page["states"], 0), "waiting": page["total"]}
        page["images"] = [{**image, "state": "waiting"} for image in page["images"]]
        route.fulfill(response=answer, json=page)

    page = open_page(address)
    page.locator(".tile[data-state=ok]").first.wait_for()
    page.route("**/api/images?*", early, times=1)
    asked = held(page, "**/api/progress")
    page.reload()
    page.locator(".tile[data-state=waiting]").nth(SCENES).wait_for()
    until(page, lambda: asked)
    page.unroute("**/api/progress")
    page.wait_for_function("() => !document.querySelector('.tile[data-state=waiting]')")
    assert page.locator(".tile[data-state=failed]").count() == 1


HOLD = """window.held = [];
const decode = createImageBitmap;
window.createImageBitmap = async (...given) => {
  if (window.holding) await new Promise((go) => window.held.push(go));
  return decode(...given);
};
window.letGo = () => { window.holding = false; window.held.forEach((go) => go()); };"""
"""Pictures are decoded once the test says so: what a reader does meanwhile may not be lost."""


def held(page: Page, url: str) -> list[Route]:
    """What the page asks for from now on, which is answered once the test says `page.unroute`."""
    routes: list[Route] = []
    page.route(url, lambda route: routes.append(route))
    return routes


def test_an_image_that_was_left_while_it_opened_leaves_the_address_alone(address: str, open_page: Open) -> None:
    script = f"{HOLD} window.holding = true;"
    page = open_page(f"{address}?image=val%2Fscene_000001.png#i=0&e0=3:0", script=script)
    page.locator("#image .place", has_text=" of ").wait_for()
    page.wait_for_function("() => window.held.length === 1")
    scenes = held(page, "**/api/scenes/**")
    page.get_by_role("button", name="Next image").click()
    page.wait_for_url("**image=val%2Fscene_000002.png")
    page.evaluate("window.letGo()")
    settle(page)
    assert page.evaluate("location.hash") == ""
    until(page, lambda: scenes)
    page.unroute("**/api/scenes/**")
    page.locator("h1", has_text="scene_000002.png").wait_for()
    page.locator(".card").first.wait_for()
    assert page.locator(".card.dropped").count() == 0


def test_what_is_chosen_while_an_image_opens_is_shown(address: str, open_page: Open) -> None:
    page = open_page(f"{address}?view=instances", script=HOLD, color_scheme="light")
    page.locator(".tile").nth(2).wait_for()
    page.evaluate("window.holding = true")
    page.locator(".tile").first.click()
    page.wait_for_function("() => window.held.length === 1")
    page.get_by_role("button", name="Next image").click()
    page.wait_for_url("**#i=1")
    page.get_by_role("button", name="Light or dark").click()
    page.evaluate("window.letGo()")
    page.locator(".maskprism").get_by_text("instance 1,").wait_for()
    page.wait_for_function("() => document.documentElement.dataset.theme === 'dark'")


def test_tiles_go_with_the_switch_of_masks_whatever_comes_late(address: str, open_page: Open) -> None:
    page = open_page(address, script="localStorage.setItem('maskprism-masks', 'off')")
    page.locator(".tile img.loaded").nth(2).wait_for()
    late = held(page, "**/api/thumbnails/**masks=1")
    page.get_by_label("Masks").check()
    until(page, lambda: late)
    page.get_by_label("Masks").uncheck()
    with page.expect_response("**/api/thumbnails/**masks=1"):
        page.unroute("**/api/thumbnails/**masks=1")
    page.wait_for_load_state("networkidle")
    settle(page)
    assert page.locator(".tile img[src*='masks=1']").count() == 0


def update(page: Page) -> None:
    """Let the page ask for its list anew, which it does while the model is at work."""

    def early(route: Route) -> None:
        answer = route.fetch()
        progress = answer.json()
        route.fulfill(response=answer, json={**progress, "examined": progress["examined"] - 1})

    page.route("**/api/progress", early)
    with page.expect_response("**/api/images?*"):
        pass
    page.unroute("**/api/progress")
    page.locator("#tiles:not(.waiting)").wait_for()
    settle(page)


def test_an_update_of_the_list_keeps_a_press_on_a_filter(address: str, open_page: Open) -> None:
    page = open_page(address)
    chip = page.get_by_role("button", name="star")
    chip.hover()
    page.mouse.down()
    update(page)
    page.mouse.up()
    page.wait_for_url("**class=2")
    thumb = page.get_by_role("slider", name="Lowest score").bounding_box()
    assert thumb
    page.mouse.move(thumb["x"] + 8, thumb["y"] + thumb["height"] / 2)
    page.mouse.down()
    page.mouse.move(thumb["x"] + thumb["width"] / 2, thumb["y"] + thumb["height"] / 2, steps=3)
    chosen = page.locator(".score output").inner_text()
    update(page)
    page.mouse.up()
    page.wait_for_url(f"**score={chosen.split()[0].rstrip('0')}-1")


def test_back_in_the_gallery_no_image_opens_by_itself(address: str, open_page: Open) -> None:
    """The next image was asked for, and was still to come."""

    def shortened(route: Route) -> None:
        answer = route.fetch()
        page = answer.json()
        last = [image["name"] for image in page["images"]].index("val/scene_000001.png")
        route.fulfill(response=answer, json={**page, "images": page["images"][: last + 1]})

    page = open_page(address)
    page.route("**/api/images?*", shortened)
    page.goto(f"{address}?image=val%2Fscene_000001.png")
    page.locator("#image .place", has_text=" of ").wait_for()
    page.unroute("**/api/images?*")
    late = held(page, "**/api/images?*")
    page.get_by_role("button", name="Next image").click()
    until(page, lambda: late)
    page.get_by_role("link", name="Gallery").click()
    page.unroute("**/api/images?*")
    page.locator(".tile", has_text="scene_000002.png").wait_for()
    settle(page)
    assert page.locator("#gallery").is_visible()
    assert page.url == address


def test_the_gallery_is_where_it_was_after_a_comparison(address: str, open_page: Open) -> None:
    page = open_page(f"{address}?view=instances", viewport={"width": 700, "height": 500})
    page.locator(".tile").nth(9).wait_for()
    for number in (8, 9):
        page.locator(".choice input").nth(number).check()
    scrolled = page.evaluate("scrollY")
    assert scrolled > 100
    page.locator("#compare").click()
    page.locator("#comparison .stage").nth(1).wait_for()
    page.locator("#comparison .back").click()
    page.locator("#gallery").wait_for()
    assert page.evaluate("scrollY") == pytest.approx(scrolled, abs=2)


def test_more_images_than_fit_on_a_page(browser: Browser, open_page: Open, tmp_path: Path) -> None:
    """They come while scrolling, and the list fills in while the model is at work."""
    model = Tiny(metadata=ultralytics_metadata()).save(tmp_path / "model.onnx")
    (tmp_path / "photos").mkdir()
    for number in range(150):
        picture = np.full((48, 64, 3), 80 + number, dtype=np.uint8)
        cv2.imwrite(str(tmp_path / "photos" / f"{number:03d}.png"), picture)
    process, address = start(tmp_path / "photos", "--model", model)
    try:
        early = open_page(f"{address}?show=ok")  # a filter that knows hardly anything yet
        page = open_page(address)
        page.locator(".tile").nth(59).wait_for()
        page.locator("#count").get_by_text("150 images").wait_for()
        for _ in range(100):
            page.mouse.wheel(0, 4000)
            page.wait_for_timeout(100)
            if page.locator(".tile").count() == 150:
                break
        assert names(page) == [f"{number:03d}.png" for number in range(150)]
        page.wait_for_function("() => !document.querySelector('.tile:not([data-state=ok])')")
        page.locator("#progress.done").wait_for(state="attached", timeout=60_000)
        early.locator("#progress.done").wait_for(state="attached")
        early.wait_for_function("() => document.querySelectorAll('.tile').length >= 60 || !found.hidden")
        if early.locator("#found").is_visible():  # nothing moved by itself
            early.locator("#found").click()
        early.locator("#count").get_by_text("150 of 150 images").wait_for()
        early.locator(".tile").nth(59).wait_for()
        assert names(early)[:60] == [f"{number:03d}.png" for number in range(60)]
        early.close()
        (tmp_path / "photos" / "added later.png").write_bytes((tmp_path / "photos" / "007.png").read_bytes())
        for _ in range(20):  # listed anew every two seconds at most, and less often where listing is slow
            page.wait_for_timeout(1000)
            page.reload()
            page.locator("#count").get_by_text(re.compile("15[01] images")).wait_for()
            if page.locator("#count").get_by_text("151 images").count():
                break
        page.locator("#count").get_by_text("151 images").wait_for()
        page.close()
    finally:
        stop(process)
