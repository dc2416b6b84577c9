"""The index of results and the pages that it leads to, in a browser: narrow and wide, light and dark."""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from helpers import in_process
from helpers.contrast import low_contrast
from maskprism.datasets.scenes import draw_scene, write_dataset
from maskprism.drawing.palette import INK, INSTANCE_COLOURS, MUTED, NEGATIVE, PAPER, POSITIVE
from maskprism.drawing.photo_boxes import photos_of, with_photos
from maskprism.models import SAMPLE_MODEL
from maskprism.reports.html import Section, page
from maskprism.reports.manifest import PictureFile, ResultManifest, write_manifest

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext

Context = Callable[..., "BrowserContext"]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index over a basis and a comparison of a model with itself."""
    folder = tmp_path_factory.mktemp("house")
    write_dataset(folder / "data", 2, validation_share=1.0)
    for line in (
        f"compare {SAMPLE_MODEL} {SAMPLE_MODEL} --images data/images --out results/compare",
        "basis data/images --model sample --out results/basis --pictures 1",
        "report results --out results/index.html",
    ):
        done = in_process.command(*line.split(), cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder / "results" / "index.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_pages_lead_there_and_back_and_show_all(offline: Context, index: Path, width: int, scheme: str) -> None:
    page = offline(viewport={"width": width, "height": 844}, color_scheme=scheme).new_page()
    page.goto(index.as_uri())
    pages = page.locator(".results a")
    assert pages.all_inner_texts() == ["basis", "compare"]
    for number in range(pages.count()):
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert low_contrast(page, "body") == []
        with page.expect_navigation():
            pages.nth(number).click()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert low_contrast(page, "body") == []
        pictures = page.locator("figure svg.sheet")
        assert pictures.count() > 1
        assert pictures.evaluate_all("all => all.every((one) => one.getBoundingClientRect().height > 50)")
        page.get_by_role("link", name="All reports").click()
        page.wait_for_url(index.as_uri())


def test_sheets_are_dark_on_dark_pages_and_their_photographs_are_as_they_are(offline: Context, index: Path) -> None:
    path = next(index.parent.glob("basis/prototypes-*.png"))
    ((x1, y1, x2, y2),) = photos_of(path.read_bytes()) or ()
    shown = {}
    for scheme in ("light", "dark"):
        page = offline(viewport={"width": 1280, "height": 900}, color_scheme=scheme).new_page()
        page.goto((index.parent / "basis" / "basis.html").as_uri())
        sheet = page.locator("svg.sheet").last
        shown[scheme] = cv2.imdecode(np.frombuffer(sheet.screenshot(), np.uint8), cv2.IMREAD_COLOR).astype(int)
        page.emulate_media(media="print")
        printed = cv2.imdecode(np.frombuffer(sheet.screenshot(), np.uint8), cv2.IMREAD_COLOR)
        assert printed[2, 8].min() > 240
    light, dark = shown["light"], shown["dark"]
    scale = light.shape[1] / cv2.imread(str(path)).shape[1]
    top, bottom, left, right = (round(side * scale) + inset for side, inset in ((y1, 2), (y2, -2), (x1, 2), (x2, -2)))
    assert np.abs(light - dark)[top:bottom, left:right].max() <= 2
    assert light[2, 8].min() > 240
    assert dark[2, 8].max() < 45


def test_charts_on_phones_keep_their_letters_and_scroll(offline: Context, index: Path) -> None:
    page = offline(viewport={"width": 390, "height": 844}).new_page()
    page.goto((index.parent / "compare" / "compare.html").as_uri())
    for sheet in page.locator("figure svg.sheet").all():
        box, natural = sheet.bounding_box(), sheet.evaluate("one => one.viewBox.baseVal.width")
        assert box
        assert box["width"] >= 0.59 * natural  # letters of 9 points at 130 dpi: 9.6 pixels
        frame = sheet.locator("xpath=ancestor::div[@class='sideways']")
        assert frame.evaluate("one => one.scrollWidth") == pytest.approx(box["width"], abs=1)
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_charts_keep_their_hues_on_dark_pages(offline: Context, index: Path, tmp_path: Path) -> None:
    """Red stays red, orange does not become brown; paper, ink and the order of greys are turned round."""
    colours = [*INSTANCE_COLOURS, POSITIVE, NEGATIVE, PAPER, MUTED, INK]
    picture = np.array(colours, dtype=np.uint8)[None, :, ::-1].repeat(20, axis=1).repeat(40, axis=0)
    png = with_photos(cv2.imencode(".png", picture)[1].tobytes(), ())
    (tmp_path / "chart.png").write_bytes(png)
    write_manifest(tmp_path, ResultManifest(command="basis", about="x", pictures=[PictureFile("chart.png", "x")]))
    assert in_process.command("report", ".", "--out", "index.html", cwd=tmp_path).returncode == 0
    page = offline(viewport={"width": 1280, "height": 900}, color_scheme="dark").new_page()
    page.goto((tmp_path / "basis.html").as_uri())
    shown = cv2.imdecode(np.frombuffer(page.locator("svg.sheet").screenshot(), np.uint8), cv2.IMREAD_COLOR)
    places = ((np.arange(len(colours)) + 0.5) * shown.shape[1] / len(colours)).astype(int)
    seen = [hls(shown[shown.shape[0] // 2, place, ::-1].tolist()) for place in places]
    wanted = [hls(colour) for colour in colours]
    *of_data, paper, muted, ink = zip(seen, wanted, strict=True)
    for (hue, lightness, saturation), (own, own_lightness, _) in of_data:
        assert abs((hue - own + 0.5) % 1 - 0.5) < 0.01
        assert lightness == pytest.approx(1 - 0.885 * own_lightness, abs=0.02)
        assert saturation > 0.3
    assert paper[0][1] < 0.15 < 0.5 < muted[0][1] < ink[0][1]


def hls(rgb: Sequence[int]) -> tuple[float, float, float]:
    red, green, blue = (channel / 255 for channel in rgb)
    return colorsys.rgb_to_hls(red, green, blue)


def test_tables_come_sorted_and_are_sorted_anew(offline: Context, index: Path) -> None:
    page = offline().new_page()
    page.goto((index.parent / "basis" / "basis.html").as_uri())
    table = page.locator("#table-prototypes table")
    column = "table => [...table.tBodies[0].rows].map((row) => Number(row.cells[{}].textContent))"
    largest_first = table.evaluate(column.format(1))
    assert largest_first == sorted(largest_first, reverse=True)
    assert len(set(largest_first)) > 2
    table.get_by_role("button", name="prototype").first.click()
    assert table.evaluate(column.format(0)) == list(range(len(largest_first)))


def test_long_lines_of_code_scroll_within_the_page(offline: Context, tmp_path: Path) -> None:
    code = Section("rule", "The mask rule", f"<pre tabindex='0'><code>{'x = 1; ' * 60}</code></pre>")
    report = tmp_path / "report.html"
    report.write_text(page("tune", title="t", subtitle="", warnings=(), tiles=(), sections=[code]), encoding="utf-8")
    shown = offline(viewport={"width": 390, "height": 844}).new_page()
    shown.goto(report.as_uri())
    assert shown.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert shown.locator("pre").evaluate("one => one.scrollWidth > one.clientWidth")


def test_the_way_home_can_be_read_on_pages(offline: Context, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "scene.png"), draw_scene(1).image)
    for line in ("page scene.png --model sample --out results/page.html", "report results --out results/index.html"):
        done = in_process.command(*line.split(), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    for scheme in ("light", "dark"):
        shown = offline(color_scheme=scheme).new_page()
        shown.goto((tmp_path / "results" / "page.html").as_uri())
        shown.locator(".stage").wait_for()
        assert low_contrast(shown, ".brand") == []
        shown.get_by_role("navigation").get_by_role("link", name="All reports").click()
        shown.wait_for_url((tmp_path / "results" / "index.html").as_uri())
