"""Make the pictures of docs/images that a browser shows: the page, still and with a slider moving,
the gallery, the map, and a report.

python utils/picture_pages.py

Needs Chromium and the package playwright.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from maskprism.datasets.scenes import draw_scene, write_dataset
from maskprism.models import load
from maskprism.viewer.page import write_page

if TYPE_CHECKING:
    from playwright.sync_api import Page

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
SCENE = 1
SERVED_SEED, MAPPED = 100, 300
DRAG_WH = (1000, 625)
SETTLED = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


@contextmanager
def page_of_scene(width: int, height: int) -> Iterator[Page]:
    """The page of a drawn scene that the bundled model has never seen, its largest instance chosen."""
    from playwright.sync_api import sync_playwright

    image = draw_scene(SCENE, (480, 640)).image
    prediction = replace(load("sample").predict(image), source=f"scene {SCENE}.png")
    largest = int(prediction.areas().argmax())
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as driver:
        file = write_page(Path(scratch) / "page.html", [(image, prediction)])
        chromium = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": width, "height": height}, reduced_motion="reduce")
        page.goto(f"{file.as_uri()}#i={largest}")
        page.locator(".stage").wait_for()
        page.get_by_role("button", name="No, thanks").click()
        page.mouse.move(0, 0)
        yield page
        chromium.close()


def image_of(page: Page) -> Image.Image:
    """What the page shows, once it is drawn."""
    page.evaluate(SETTLED)
    return Image.open(io.BytesIO(page.screenshot())).convert("RGB")


def still(target: Path) -> None:
    """The whole page, one coefficient moved a little."""
    with page_of_scene(1440, 860) as page:
        page.locator(".slider").nth(1).press("Shift+ArrowLeft")
        page.evaluate("document.activeElement.blur()")
        image_of(page).save(target, quality=86, method=6)


def drag(target: Path, steps: int = 9) -> None:
    """The coefficient of the strongest prototype goes to the far end of its slider and back."""
    with page_of_scene(1280, 800) as page:
        slider = page.locator(".slider").first
        area = slider.bounding_box()
        assert area
        start = slider.evaluate("s => (s.valueAsNumber - s.min) / (s.max - s.min)")
        end = 1.0 if start < 0.5 else 0.0
        way = [start + (end - start) * step / steps for step in range(steps + 1)]
        frames = [image_of(page)]
        page.mouse.move(area["x"] + 6 + start * (area["width"] - 12), area["y"] + area["height"] / 2)
        page.mouse.down()
        for share in way[1:] + way[-2::-1]:
            page.mouse.move(area["x"] + 6 + share * (area["width"] - 12), area["y"] + area["height"] / 2)
            frames.append(image_of(page))
        frames = [frame.resize(DRAG_WH, Image.Resampling.LANCZOS) for frame in frames]
        durations = [1200] + [110] * (len(frames) - 1)
        frames[0].save(
            target,
            save_all=True,
            append_images=frames[1:],
            duration=durations,
            loop=0,
            quality=66,
            method=6,
            minimize_size=True,
        )


def gallery(target: Path) -> None:
    """The server's gallery over drawn scenes with labels."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as driver:
        data = write_dataset(Path(scratch) / "scenes", 24, seed=SERVED_SEED, validation_share=1.0)
        command = [sys.executable, "-m", "maskprism", "serve", data.parent, "--model", "sample"]
        command += ["--data", data, "--port", "0"]
        with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                address = re.findall(r"http://[^ ]+", server.stdout.readline())[0]
                chromium = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
                page = chromium.new_page(viewport={"width": 1280, "height": 800})
                page.goto(address)
                page.locator("#progress.done").wait_for(state="attached", timeout=300_000)
                page.goto(f"{address}?iou=0-0.9&sort=iou")
                page.locator(".tile img.loaded").nth(9).wait_for()
                page.wait_for_timeout(1500)
                image_of(page).save(target, quality=80, method=6)
                chromium.close()
            finally:
                server.terminate()


def atlas(target: Path) -> None:
    """The map of all instances of drawn scenes, some of them selected."""
    from playwright.sync_api import sync_playwright

    from maskprism.analysis.atlas.atlas import make_atlas
    from maskprism.analysis.atlas.points import Points
    from maskprism.reports.atlas_files import MAP, write_atlas
    from maskprism.reports.map_thumbnails import thumbnails
    from maskprism.tables.extraction import extract
    from maskprism.tables.stored_predictions import StoredPredictions

    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as driver:
        folder = Path(scratch)
        write_dataset(folder / "scenes", MAPPED, seed=SERVED_SEED, validation_share=1.0)
        extract(folder / "scenes", load("sample", threads=1), folder / "t.parquet", prototypes="fp16")
        points = Points.read(folder / "t.parquet")
        every = np.arange(len(points))
        sheets = thumbnails(points, every, StoredPredictions.open(folder / "t.parquet"), folder / "scenes")
        write_atlas(make_atlas(points), folder, f"{MAPPED} drawn scenes", sheets=sheets)
        chromium = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1280, "height": 860})
        page.goto((folder / MAP).as_uri())
        page.wait_for_selector("[data-ready]")
        area = page.locator(".stage > canvas").bounding_box()
        assert area
        page.get_by_role("button", name="Lasso").click()
        corners = [(0.08, 0.1), (0.3, 0.05), (0.42, 0.25), (0.36, 0.5), (0.12, 0.5), (0.08, 0.1)]
        places = [(area["x"] + area["width"] * x, area["y"] + area["height"] * y) for x, y in corners]
        page.mouse.move(*places[0])
        page.mouse.down()
        for place in places[1:]:
            page.mouse.move(*place, steps=12)
        page.mouse.up()
        page.locator(".selection").wait_for()
        step = 0
        while not page.locator(".card").is_visible() and step < 200:
            step += 1
            page.mouse.move(area["x"] + area["width"] * (0.5 + step / 500), area["y"] + area["height"] * 0.55)
            page.wait_for_timeout(20)
        page.wait_for_timeout(400)
        image_of(page).save(target, quality=84, method=6)
        chromium.close()


def report(target: Path) -> None:
    """The top of the report of `maskprism diagnose` over drawn scenes."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as driver:
        data = write_dataset(Path(scratch) / "scenes", 64, validation_share=1.0)
        command = [
            sys.executable,
            "-m",
            "maskprism",
            "diagnose",
            data,
            "--model",
            "sample",
            "--out",
            scratch + "/out",
        ]
        subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
        chromium = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1280, "height": 800})
        page.goto((Path(scratch) / "out" / "report.html").as_uri())
        image_of(page).save(target, quality=84, method=6)
        chromium.close()


if __name__ == "__main__":
    report(IMAGES / "report.webp")
    still(IMAGES / "page.webp")
    drag(IMAGES / "page-drag.webp")
    gallery(IMAGES / "server.webp")
    atlas(IMAGES / "atlas.webp")
