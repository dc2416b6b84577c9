"""The page of suspicious labels in a browser: looked at, filtered, decided on, exported and applied."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from helpers import in_process
from helpers.contrast import low_contrast
from helpers.judged import scene_report
from helpers.pages import storing
from maskprism.datasets import open_dataset
from maskprism.datasets.scenes import write_dataset
from maskprism.reports.labels_files import write_labels

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

Context = Callable[..., "BrowserContext"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set and its page, of labels that were judged by hand."""
    folder = tmp_path_factory.mktemp("labels ü")
    dataset = open_dataset(write_dataset(folder / "scenes", 2, seed=3, validation_share=1))
    write_labels(scene_report(dataset), dataset, folder, models=["m"], worst=200, notes=[])
    return folder


def opened(context: BrowserContext, folder: Path) -> Page:
    page = context.new_page()
    page.goto((folder / "labels.html").as_uri())
    return page


def current(page: Page) -> int:
    """The number of the card that keys are about."""
    return int(page.locator(".label-card.current").get_attribute("data-number") or -1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280, 1920])
def test_it_can_be_read_at_all_sizes(offline: Context, folder: Path, width: int, scheme: str) -> None:
    page = opened(offline(viewport={"width": width, "height": 844}, color_scheme=scheme), folder)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert low_contrast(page, "body") == []
    crops = page.locator(".crop")
    assert crops.count() == page.locator(".label-card").count() > 6
    strokes = page.locator(".crop").first.locator("path:not(.casing)")
    assert strokes.evaluate_all("all => all.map((one) => getComputedStyle(one).strokeWidth)") == ["2px"] * 3
    assert len(set(strokes.evaluate_all("all => all.map((one) => getComputedStyle(one).stroke)"))) == 3


def test_decisions_are_there_again_where_the_browser_lost_what_was_stored(offline: Context, folder: Path) -> None:
    page = opened(offline(), folder)
    page.keyboard.press("a")
    page.evaluate("window.before = JSON.stringify(localStorage)")
    page.keyboard.press("k")
    page.evaluate("Object.entries(JSON.parse(window.before)).forEach(([key, text]) => localStorage.setItem(key, text))")
    page.reload()
    assert page.locator("#count").inner_text().endswith("2 decided")


def test_filters_show_the_labels_of_a_kind_and_class(offline: Context, folder: Path) -> None:
    page = opened(offline(), folder)
    every = page.locator(".label-card").count()
    page.locator("select[name='kind']").select_option("shifted")
    shown = page.locator(".label-card:not([hidden])")
    assert {one.get_attribute("data-kind") for one in shown.all()} == {"shifted"}
    assert page.locator("#count").inner_text().startswith(f"{shown.count()} of {every} shown")
    name = str(shown.first.get_attribute("data-class"))
    page.locator("select[name='class']").select_option(name)
    assert {one.get_attribute("data-class") for one in shown.all()} == {name}
    page.locator("select[name='kind']").select_option("")
    page.locator("select[name='class']").select_option("")
    assert shown.count() == every
    page.get_by_role("checkbox", name="suggested mask").uncheck()
    assert not page.locator(".crop .of-suggestion").first.is_visible()
    assert page.locator(".crop .of-label").first.is_visible()


def test_decisions_are_made_by_keys_and_buttons_and_are_there_again(offline: Context, folder: Path) -> None:
    context = offline()
    page = context.new_page()
    page.goto(storing(context, folder / "labels.html"))
    assert page.get_by_role("button", name="Export").is_disabled()
    for key, expected in (("a", 1), ("k", 2), ("s", 3), ("b", 2), ("d", 3)):
        page.keyboard.press(key)
        assert current(page) == expected
    pressed = page.locator('.choices button[aria-pressed="true"]')
    assert [one.get_attribute("value") for one in pressed.all()] == ["accept", "keep", "delete"]
    page.reload()
    pressed.nth(2).wait_for()
    assert [one.get_attribute("value") for one in pressed.all()] == ["accept", "keep", "delete"]
    page.locator('.label-card[data-number="1"] button[value="keep"]').click()  # again: taken back
    assert [one.get_attribute("value") for one in pressed.all()] == ["accept", "delete"]
    page.locator("select[name='state']").select_option("open")
    assert page.locator("#count").inner_text().endswith("2 decided")
    assert not page.locator('.label-card[data-number="0"]').is_visible()
    page.locator("select[name='kind']").focus()
    page.keyboard.press("a")  # belongs to the list of kinds
    assert pressed.count() == 2
    missing = page.locator('.label-card[data-kind="missing label"]').first
    missing.get_by_role("button", name="Skip").focus()
    page.keyboard.press("d")  # there is no label to delete
    assert pressed.count() == 2


def test_what_is_decided_in_one_tab_stays_decided_in_another(offline: Context, folder: Path) -> None:
    context = offline()
    address = storing(context, folder / "labels.html")
    one, other = context.new_page(), context.new_page()
    for page in (one, other):
        page.goto(address)
    one.keyboard.press("k")
    other.locator("#count", has_text="1 decided").wait_for()
    other.keyboard.press("s")
    other.keyboard.press("k")
    one.locator("#count", has_text="2 decided").wait_for()
    one.reload()
    assert one.locator("#count").inner_text().endswith("2 decided")


def test_exported_decisions_are_written_into_a_copy(offline: Context, folder: Path) -> None:
    page = opened(offline(), folder)
    for _ in range(page.locator(".label-card").count()):
        page.keyboard.press("a")
    with page.expect_download() as download:
        page.get_by_role("button", name="Export").click()
    assert download.value.suggested_filename == "decisions.json"
    download.value.save_as(folder / "decisions.json")
    actions = [one["action"] for one in json.loads((folder / "decisions.json").read_text())["decisions"]]
    assert {"replace", "reclassify", "delete", "add"} == set(actions)
    done = in_process.command(*"labels scenes/data.yaml --apply decisions.json --write new --json".split(), cwd=folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["actions"] == {action: actions.count(action) for action in set(actions)}
    before, after = (
        [len(sample.read()[1]) for sample in open_dataset(folder / name / "data.yaml")] for name in ("scenes", "new")
    )
    assert sum(after) == sum(before) + actions.count("add") - actions.count("delete")


def test_the_installed_command_makes_a_page_to_decide_on(offline: Context, tmp_path: Path) -> None:
    """With labels moved by hand: their cards come with all three outlines, and a click decides."""
    write_dataset(tmp_path / "scenes", 6, seed=40, validation_share=1)
    for file in sorted((tmp_path / "scenes" / "labels").rglob("*.txt")):
        first, *rest = file.read_text().splitlines()
        class_id, *numbers = first.split()
        moved = [f"{min(max(float(number) + 0.15, 0), 1):.5f}" for number in numbers]
        file.write_text("\n".join([" ".join([class_id, *moved]), *rest]) + "\n")
    line = "labels scenes/data.yaml --model sample --out out --quiet"
    command = [str(Path(sys.executable).with_name("maskprism")), *line.split()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    page = opened(offline(), tmp_path / "out")
    cards = page.locator(".label-card")
    assert cards.count() > 2
    assert page.locator(".crop image").count() == cards.count()
    assert page.locator(".crop .of-suggestion:not(.casing)").count() > 0
    cards.first.get_by_role("button", name="Keep").click()
    assert page.locator("#count").inner_text().endswith("1 decided")
