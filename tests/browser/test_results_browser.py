"""`maskprism serve RESULTS`: one server with overview, gallery, map, labels and reports, over one filter."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from helpers import in_process
from helpers.pages import start, stop, until
from maskprism.datasets.scenes import write_dataset

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SECRET = "this must stay private"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results ü")
    write_dataset(folder / "data", 4, seed=9, validation_share=1.0)
    for line in (
        "diagnose data/data.yaml --model sample --out results/diagnosis --worst 1 --limit 2",
        "labels data/data.yaml --model sample --out results/labels",
        "basis data/images --model sample --out results/basis --pictures 1 --limit 1",
        "page data/images --model sample --out results/page.html --limit 1",
    ):
        done = in_process.command(*line.split(), cwd=folder)
        assert done.returncode == 0, done.stderr
    (folder / "secret.html").write_text(SECRET)
    (folder / "results" / "foreign.html").write_text(
        "<!doctype html><title>calm</title><body><script>document.title = 'taken over'</script></body>"
    )
    (folder / "results" / "link.html").symlink_to(folder / "secret.html")
    return folder


@pytest.fixture(scope="module")
def address(results: Path) -> Iterator[str]:
    process, url = start(results / "results", "--images", results / "data" / "images", "--data", results / "data")
    _wait_for_the_scan(url)
    yield url
    stop(process)


def _wait_for_the_scan(url: str) -> None:
    """Wait until all images are examined: a map without instances is answered with 404."""
    for _ in range(300):
        states = httpx.get(f"{url.replace('reports/', '')}api/images").json()["states"]
        if not states["waiting"]:
            return
        time.sleep(0.1)
    pytest.fail(f"the scan does not end: {states}")


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(15_000)
    complaints: list[str] = []
    context.on("console", lambda m: m.type == "error" and complaints.append(f"{m.text}: {m.location}"))
    context.on("weberror", lambda e: complaints.append(str(e.error)))
    yield context.new_page()
    context.close()
    assert complaints == []


def test_all_pages_lead_to_each_other(page: Page, address: str) -> None:
    assert address.endswith("/reports/")
    page.goto(address)
    assert page.locator(".results li").count() == 4
    titles = ["Overview", "Gallery", "Map", "Labels"]
    for title in titles:
        with page.expect_navigation():
            page.locator(".site").get_by_role("link", name=title, exact=True).click()
        assert page.locator(".site > a").all_inner_texts() == titles
        assert page.locator(".site details a").count() == 4
    for place in range(4):
        page.locator(".site summary").click()
        with page.expect_navigation():
            page.locator(".site details a").nth(place).click()
        assert page.locator(".site > a").count() == 4
        assert page.get_by_role("link", name="All reports").count() == 0  # the overview is that
        assert page.get_by_text("does not work here").count() == 0  # scripts of this version do


def test_one_filter_holds_on_all_pages(page: Page, address: str) -> None:
    page.goto(address.replace("reports/", ""))
    until(page, lambda: page.locator("#progress.done").count() and page.locator(".tile img.loaded").count() == 4)
    until(page, lambda: not page.get_by_text("inference pending").count())
    page.reload()
    page.locator(".chip[data-id]").first.wait_for()
    chip = page.locator(".chip[data-id]").first
    name, count = (chip.locator(f".chip-{one}").inner_text() for one in ("name", "count"))
    chip.click()
    until(page, lambda: "class=" in page.url)
    query = page.url.partition("?")[2]
    page.locator(".site").get_by_role("link", name="Map", exact=True).click()
    page.wait_for_url(re.compile(re.escape(f"/map?{query}")))
    info = page.request.get(f"{address.replace('reports/', '')}api/map?{query}").json()["info"]
    assert [one["name"] for one in info["classes"]] == [name]
    assert info["count"] == int(count)
    page.locator(".site").get_by_role("link", name="Labels", exact=True).click()
    page.wait_for_url(re.compile(re.escape(f"labels.html?{query}")))
    suspicious = page.locator("select[name=class] option").nth(1).get_attribute("value")
    classes = page.request.get(f"{address.replace('reports/', '')}api/images").json()["classes"]
    (number,) = (one["id"] for one in classes if one["name"] == suspicious)
    page.goto(f"{address}labels/labels.html?class={number}")
    assert page.locator("select[name=class]").input_value() == suspicious
    shown = page.locator(".label-card:visible").evaluate_all("all => all.map(one => one.dataset.class)")
    assert set(shown) == {suspicious}
    page.goto(f"{address}labels/labels.html?{query}&sort=name")
    page.locator("select[name=class]").select_option(suspicious)
    page.wait_for_url(f"**/labels.html?sort=name&class={number}")
    page.locator(".site").get_by_role("link", name="Gallery", exact=True).click()
    until(page, lambda: page.locator('.chip[aria-pressed="true"] .chip-name').all_inner_texts() == [suspicious])
    page.goto(f"{address}labels/labels.html?{query}")
    page.locator(".site").get_by_role("link", name="Gallery", exact=True).click()
    until(page, lambda: page.locator('.chip[aria-pressed="true"] .chip-name').all_inner_texts() == [name])


def test_errors_of_the_report_are_in_the_gallery(page: Page, address: str) -> None:
    page.goto(f"{address}diagnosis/report.html")
    page.locator("#errors").get_by_role("link", name="Show them in the gallery").first.click()
    until(page, lambda: page.url.endswith("/?show=missed"))
    until(page, lambda: page.locator("select[name=show]").input_value() == "missed")


def test_nothing_outside_of_the_results_is_served(address: str) -> None:
    with httpx.Client(base_url=address) as client:
        for name in ("../secret.html", "%2e%2e/secret.html", "link.html", "..%2fsecret.html", "diagnosis", "none.html"):
            answer = client.get(f"/reports/{name}")
            assert answer.status_code == 404, name
            assert SECRET not in answer.text
        assert client.get("diagnosis/budget.png").headers["content-type"] == "image/png"
        policy = client.get("diagnosis/report.html").headers["content-security-policy"]
        assert "connect-src" not in policy  # so it is what default-src says: a page of results sends no requests
        assert policy.startswith("default-src 'none'")


def test_scripts_of_others_do_not_run(browser: Browser, address: str) -> None:
    page = browser.new_page()
    page.goto(f"{address}foreign.html")
    assert page.title() == "calm"
    assert "does not work here" in page.get_by_role("alert").inner_text()
    page.close()


def test_without_images_the_overview_is_the_first_page(results: Path, page: Page) -> None:
    process, url = start(results / "results")
    try:
        page.goto(url.replace("reports/", ""))
        assert page.url == url
        assert page.locator(".site > a").all_inner_texts() == ["Overview", "Labels"]
    finally:
        process.terminate()
        process.communicate(timeout=20)
