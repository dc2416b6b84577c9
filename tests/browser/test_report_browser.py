"""The page of `maskprism diagnose` in a browser: opened from its file, sorted, and narrow."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

import maskprism
from helpers.pages import settle, slider
from maskprism.analysis.dataset.diagnosis import Diagnosis, diagnose
from maskprism.analysis.dataset.findings import Finding, findings_of
from maskprism.analysis.truth.error_budget import PARTS, InstanceBudget
from maskprism.datasets import open_dataset
from maskprism.datasets.scenes import write_dataset
from maskprism.reports.diagnosis_files import FIGURES, write_diagnosis
from maskprism.reports.error_cards import ErrorCards

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

Context = Callable[..., "BrowserContext"]
WORST = 7
COLUMN = "(table, column) => [...table.tBodies[0].rows].map((row) => row.cells[column].textContent)"


@pytest.fixture(scope="module")
def diagnosed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Diagnosis, Path]:
    folder = tmp_path_factory.mktemp("diagnosis ü")
    model = maskprism.load("sample", conf=0.001, multi_label=True, threads=1)
    found = diagnose(open_dataset(write_dataset(folder, 3, seed=9, validation_share=1.0)), model)
    write_diagnosis(found, folder / "out", model=model, worst=WORST)
    return found, folder / "out" / "report.html"


def opened(context: BrowserContext, report: Path) -> Page:
    page = context.new_page()
    page.goto(report.as_uri())
    return page


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_file_shows_everything_and_asks_for_nothing(
    offline: Context, diagnosed: tuple[Diagnosis, Path], scheme: str
) -> None:
    """A violation of its own security policy, too, is reported on the console, which `offline` listens to."""
    found, report = diagnosed
    page = opened(offline(color_scheme=scheme), report)
    assert page.locator(".findings li").count() == len(findings_of(found)) == 0
    assert "ewer than 20 images" in page.locator("body").inner_text()  # why there are none
    for link in page.locator(".advice a").all():
        assert page.locator(str(link.get_attribute("href"))).count() == 1
    pictures = page.locator("img")
    cards = [*ErrorCards.of(found)]
    assert len(cards) > 3
    assert pictures.count() == len(FIGURES) + WORST + len(cards)
    for picture in pictures.all():
        picture.scroll_into_view_if_needed()  # small pictures are decoded when they come into sight
        page.wait_for_function("image => image.complete && image.naturalWidth > 0", arg=picture.element_handle())
    light = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(251, 250, 248)"
    assert light == (scheme == "light")


def test_headings_sort_their_table(offline: Context, diagnosed: tuple[Diagnosis, Path]) -> None:
    found, report = diagnosed
    page = opened(offline(), report)
    table = page.locator("#worst table")
    headings = [heading.rstrip("↕↑↓ ") for heading in table.locator("thead :is(th, td)").all_inner_texts()]
    worst = found.budget.worst(WORST)

    def column(name: str) -> list[str]:
        return list(table.evaluate(f"table => ({COLUMN})(table, {headings.index(name)})"))

    button = table.get_by_role("button", name="coefficients")
    for descending in (False, True):
        button.click()
        shown = [float(text.replace("−", "-")) for text in column("coefficients")]
        expected = sorted((row.coefficients for row in worst), reverse=descending)
        assert shown == pytest.approx(expected, abs=6e-4)
    table.get_by_role("button", name="class").click()
    assert column("class") == sorted(row.class_name for row in worst)
    assert table.locator("th[aria-sort]").count() == 1


def test_findings_lead_to_the_masks_that_they_are_about(
    offline: Context, diagnosed: tuple[Diagnosis, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a server, too: the table of the worst masks is sorted by the part of the finding that is pressed."""
    found, _ = diagnosed
    monkeypatch.setattr("maskprism.reports.diagnosis.too_few", lambda _: False)
    lead = found.budget.leading().part
    keys: dict[str, Callable[[InstanceBudget], float]] = {
        "limit": lambda row: row.iou,
        "part": lambda row: -getattr(row, lead),
        "box": lambda row: -row.box,
        "threshold": lambda row: row.iou,
        "size": lambda row: row.area,
    }
    findings = [Finding(rule, rule, "", "budget") for rule in ("limit", "part", "box", "threshold", "size")]
    write_diagnosis(found, tmp_path, worst=WORST, findings=findings)
    page = opened(offline(), tmp_path / "report.html")
    scores = "table => [...table.tBodies[0].rows].map((row) => [...row.cells].map((cell) => cell.textContent))"
    for rule, key in keys.items():
        page.locator(f"#rule-{rule} a[href='#worst']").click()
        page.wait_for_url("**#worst")
        column = {"part": 6 + PARTS.index(lead), "box": 6 + PARTS.index("box"), "size": 4}.get(rule, 5)
        shown = [row[column].replace("−", "-") for row in page.locator("#worst table").evaluate(scores)]
        expected = [abs(key(row)) for row in sorted(found.budget.worst(WORST), key=key)]
        assert [abs(float(text)) for text in shown] == pytest.approx(expected, abs=6e-4), rule


@pytest.mark.parametrize("width", [320, 360, 800, 1400])
def test_no_width_needs_scrolling_sideways(offline: Context, diagnosed: tuple[Diagnosis, Path], width: int) -> None:
    page = opened(offline(viewport={"width": width, "height": 740}), diagnosed[1])
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_figures_fit_phones_and_the_dark(offline: Context, diagnosed: tuple[Diagnosis, Path], scheme: str) -> None:
    """Letters stay as large as on a wide screen, and dots and letters stand out from the page."""
    page = opened(offline(viewport={"width": 390, "height": 844}, color_scheme=scheme), diagnosed[1])
    pictures = page.locator("figure img")
    for picture in pictures.all():
        picture.scroll_into_view_if_needed()
        box, figure = picture.bounding_box(), picture.locator("xpath=ancestor::figure").bounding_box()
        assert box
        assert figure
        assert figure["x"] <= box["x"]
        assert box["x"] + box["width"] <= figure["x"] + figure["width"]  # nothing is cut
        assert 0.8 < picture.evaluate("one => one.clientWidth / one.naturalWidth") < 1.3  # letters keep their size
    score = page.locator("#figure-score")
    ground = page.evaluate("getComputedStyle(document.querySelector('figure')).backgroundColor")
    dark = sum(map(int, re.findall(r"\d+", ground)[:3])) < 384
    assert dark == (scheme == "dark")
    seen = cv2.imdecode(np.frombuffer(score.locator("img").screenshot(), np.uint8), cv2.IMREAD_COLOR).astype(int)
    brightness = seen.sum(axis=2)
    far = np.abs(brightness - np.median(brightness)) > 150
    assert far.mean() > 0.01  # letters, lines and dots
    assert seen[~far].mean() < 80 if dark else seen[~far].mean() > 200


def test_descriptions_carry_the_numbers(offline: Context, diagnosed: tuple[Diagnosis, Path]) -> None:
    found, report = diagnosed
    page = opened(offline(), report)
    text = {name: page.locator(f"#figure-{name} img").get_attribute("alt") or "" for name in FIGURES}
    assert f"as predicted {found.perfect['as predicted'].ap:.3f}" in text["perfect"]
    assert f"mean mask IoU {found.budget.mean().iou:.3f}" in text["budget"]
    assert f"localisation {found.errors.gain['localisation']:.3f}" in text["errors"]
    assert f"AP {found.precision['predict'].ap:.3f}" in text["decodes"]
    assert f"small masks {found.precision['predict'].by_size['small']:.3f}" in text["sizes"]
    assert f"rank correlation {found.budget.ranking().spearman:.3f}" in text["score"]
    for mean in found.budget.means("class_name"):
        assert f"{mean.group} ({mean.instances}), IoU {mean.iou:.3f}" in text["classes"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_worst_mask_opens_in_the_viewer(offline: Context, diagnosed: tuple[Diagnosis, Path], scheme: str) -> None:
    """In the file itself, offline, and as the row says."""
    found, report = diagnosed
    page = opened(offline(color_scheme=scheme, viewport={"width": 1280, "height": 800}), report)
    buttons = page.locator("#worst .open")
    assert buttons.count() == WORST
    for number, row in list(enumerate(found.budget.worst(WORST)))[:3]:
        buttons.nth(number).click()
        dialog = page.get_by_role("dialog")
        dialog.locator(".stage").wait_for()
        assert dialog.locator(".heading .name").inner_text() == row.class_name
        assert f"score {row.score:.2f}" in dialog.locator(".heading .quiet").inner_text()
        fields = dict(
            zip(
                dialog.locator(".measures dt").all_inner_texts(),
                dialog.locator(".measures dd").all_inner_texts(),
                strict=True,
            )
        )
        assert float(fields["IoU with ground truth"]) == pytest.approx(row.iou, abs=0.06)  # there on the canvas
        slider(page, 3).press("Delete")
        assert dialog.locator('.card[data-k="3"]').evaluate("card => card.classList.contains('dropped')")
        page.keyboard.press("Escape")
        page.wait_for_function("() => !location.hash")  # the page has gone back
        assert page.get_by_role("dialog").count() == 0
        assert page.evaluate("document.activeElement.classList.contains('open')")


def test_the_address_says_which_instance_is_open(offline: Context, diagnosed: tuple[Diagnosis, Path]) -> None:
    """Back closes the dialog and stays on the report, Forward opens it anew, and a link of it opens it at once."""
    found, report = diagnosed
    context = offline()
    page = opened(context, report)
    dialog = page.get_by_role("dialog")
    page.locator("#worst .open").nth(1).click()
    dialog.locator(".stage").wait_for()
    row = found.budget.worst(WORST)[1]
    assert page.evaluate("decodeURIComponent(location.hash)") == f"#view={row.image},{row.instance}"
    address = page.url
    page.go_back()
    dialog.wait_for(state="detached")
    assert page.url == report.as_uri()
    page.go_forward()
    dialog.locator(".stage").wait_for()
    dialog.get_by_role("button", name="Back to the report").click()
    dialog.wait_for(state="detached")
    page.wait_for_function("() => location.hash === ''")
    page.goto("about:blank")
    page.goto(address)
    dialog.locator(".stage").wait_for()
    assert dialog.locator(".heading .name").inner_text() == row.class_name
    page.keyboard.press("Escape")
    page.wait_for_url(report.as_uri())
    assert dialog.count() == 0


def test_forward_right_after_back_opens_the_instance_again(offline: Context, diagnosed: tuple[Diagnosis, Path]) -> None:
    """The event of the dialog that Back has closed comes late."""
    page = opened(offline(), diagnosed[1])
    page.evaluate(
        """() => document.addEventListener("close", (event) => {
          if (!event.isTrusted) return;
          event.stopImmediatePropagation();
          window.tell = () => event.target.dispatchEvent(new Event("close"));
        }, true)"""
    )
    page.locator("#worst .open").nth(1).click()
    stage = page.get_by_role("dialog").locator(".stage")
    stage.wait_for()
    address = page.url
    page.go_back()
    page.wait_for_function("() => window.tell")
    page.go_forward()
    stage.wait_for()
    page.evaluate("window.tell()")
    settle(page)
    page.wait_for_timeout(200)  # for a way back that would begin now
    assert page.url == address
    assert page.locator("dialog").count() == 1


def test_an_address_that_is_changed_by_hand_opens_one_dialog(
    offline: Context, diagnosed: tuple[Diagnosis, Path]
) -> None:
    found, report = diagnosed
    page = opened(offline(), report)
    dialog = page.get_by_role("dialog")
    first, second = (f"#view={row.image},{row.instance}" for row in found.budget.worst(2))
    for address in (first, second, first):
        page.evaluate(
            """address => new Promise((changed) => {
              addEventListener("hashchange", changed, { once: true });
              location.hash = address;
            }).then(() => 0)""",
            address,
        )
        dialog.first.wait_for()
        page.wait_for_function("() => !document.querySelector('dialog:not([open])')")
        assert dialog.count() == 1
    page.evaluate("location.hash = ''")
    dialog.wait_for(state="detached")


def test_strips_show_what_was_missed_and_what_is_wrong(offline: Context, diagnosed: tuple[Diagnosis, Path]) -> None:
    """The strips hold what the table of detections says, and open it in the viewer."""
    found, report = diagnosed
    page = opened(offline(), report)
    missed = [one for one in found.objects if one.instance < 0]
    strips = page.locator("#errors .strip")
    assert strips.nth(0).locator("li").count() == min(len(missed), 12) > 0
    false = [one for one in found.detections if one.outcome == "false positive" and one.error != "class"]
    surest = max(false, key=lambda one: one.score)
    text = strips.nth(1).locator("li").first.inner_text()
    assert text.startswith(f"{surest.class_name} {surest.score:.2f}")
    assert page.locator("#errors").get_by_text(f"{found.missed} of {len(found.objects)} labelled").is_visible()
    strips.nth(0).locator(".open").first.click()
    dialog = page.get_by_role("dialog")
    largest = max(missed, key=lambda one: one.area)
    dialog.get_by_text(re.compile(f"Missed: {largest.class_name} ")).wait_for()
    page.go_back()
    dialog.wait_for(state="detached")
    names = strips.nth(0).locator(".file").first
    tail = names.locator("span").nth(1)
    assert tail.evaluate("one => one.scrollWidth <= one.clientWidth")  # the end of the name is whole


def test_the_table_of_worst_masks_fits(offline: Context, diagnosed: tuple[Diagnosis, Path]) -> None:
    page = opened(offline(viewport={"width": 1280, "height": 800}), diagnosed[1])
    assert page.locator("#worst .scroll").evaluate("one => one.scrollWidth <= one.clientWidth")


def test_what_does_not_fit_leads_to_the_server(
    offline: Context, diagnosed: tuple[Diagnosis, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, _ = diagnosed
    monkeypatch.setattr("maskprism.reports.embedded_viewers.EMBEDDED_BYTES", 1000)
    write_diagnosis(found, tmp_path, model=maskprism.load("sample", conf=0.001, multi_label=True, threads=1), worst=2)
    page = opened(offline(), tmp_path / "report.html")
    assert page.locator("#worst .open").count() == 0
    row = found.budget.worst(1)[0]
    link = page.locator("#worst tbody a").first
    expected = f"http://127.0.0.1:8000/?image={row.image.replace('/', '%2F')}&i={row.instance}"
    assert link.get_attribute("href") == expected
    assert page.get_by_text("maskprism serve FOLDER").is_visible()
    assert page.locator("script").count() == 2  # the viewer is in files that need it
