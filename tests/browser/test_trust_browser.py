"""Nothing that readers did is lost, and nothing misleads: state, history, touch, keyboard, contrast."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import maskprism
from helpers.contrast import CONTRAST, hovered, low_contrast, ratio
from helpers.pages import coefficients, settle, slider, transitions_end, until
from maskprism.datasets.scenes import draw_scene
from maskprism.viewer.page import write_page

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, CDPSession, Locator, Page

Context = Callable[..., "BrowserContext"]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of three scenes."""
    model = maskprism.load("sample")
    images = [draw_scene(seed).image for seed in (3, 5, 8)]
    path = tmp_path_factory.mktemp("trust") / "page.html"
    return write_page(path, [(image, model.predict(image)) for image in images])


def opened(context: BrowserContext, path: Path, fragment: str = "") -> Page:
    page = context.new_page()
    page.goto(path.as_uri() + fragment)
    page.locator(".stage").wait_for()
    return page


def shows(page: Page, number: int) -> None:
    """The image of this number is open."""
    until(page, lambda: page.locator(".tile").nth(number).get_attribute("aria-current") == "true")
    until(page, lambda: page.locator(".slot[aria-busy]").count() == 0)
    assert page.locator("h1").inner_text() == f"image {number + 1}"
    page.locator(".stage").wait_for()
    settle(page)


def test_the_address_says_which_image_is_open_and_back_returns_to_it(offline: Context, file: Path) -> None:
    page = opened(offline(), file)
    before = coefficients(page)
    slider(page, 0).press("Delete")
    page.locator(".tile").nth(1).click()
    shows(page, 1)
    assert "s=1" in page.evaluate("location.hash")
    slider(page, 2).press("Delete")
    page.locator(".tile").nth(2).click()
    shows(page, 2)
    page.go_back()
    shows(page, 1)
    assert coefficients(page)[2] == 0
    page.go_back()
    shows(page, 0)
    assert coefficients(page)[0] == 0
    slider(page, 3).press("Delete")
    page.go_forward()  # to an address that knows nothing of the last edit
    shows(page, 1)
    page.reload()
    shows(page, 1)
    assert coefficients(page)[2] == 0
    page.go_back()
    shows(page, 0)
    assert np.flatnonzero(coefficients(page) != before).tolist() == [0, 3]


def test_edited_images_are_marked_and_all_are_reset_at_once(offline: Context, file: Path) -> None:
    page = opened(offline(), file)
    reset = page.locator(".reset-all")
    assert reset.get_attribute("aria-disabled") == "true"
    before = coefficients(page)
    slider(page, 0).press("Delete")
    page.locator(".tile").nth(1).click()
    shows(page, 1)
    slider(page, 2).press("Delete")
    marks = "tiles => tiles.map(tile => tile.classList.contains('edited'))"
    assert page.locator(".tile").evaluate_all(marks) == [True, True, False]
    page.reload()
    shows(page, 1)
    assert page.locator(".tile").evaluate_all(marks) == [True, True, False]  # one is not even open
    reset.click()
    assert page.locator(".tile").evaluate_all(marks) == [False, False, False]
    assert "dropped" not in (page.locator('.card[data-k="2"]').get_attribute("class") or "")
    page.get_by_role("button", name="Undo").click()
    assert coefficients(page)[2] == 0
    page.locator(".tile").nth(0).click()
    shows(page, 0)
    assert np.array_equal(coefficients(page), before)


def test_undo_keeps_the_focus_and_one_region_says_what_an_edit_did(offline: Context, file: Path) -> None:
    page = opened(offline(), file)
    assert page.locator("[role=status], [aria-live], output").count() == 1
    assert page.get_by_role("main").locator(".stage").count() == 1
    slider(page, 0).press("Delete")
    iou = page.locator(".measures dd").first
    until(page, lambda: iou.inner_text() in page.get_by_role("status").inner_text())
    assert page.get_by_role("status").inner_text().startswith("IoU vs. unedited mask 0.")
    undo = page.get_by_role("button", name="Undo")
    undo.focus()
    page.keyboard.press("Enter")
    assert undo.get_attribute("aria-disabled") == "true"
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Undo"
    page.keyboard.press("Enter")  # does nothing
    until(page, lambda: "1.000" in page.get_by_role("status").inner_text())


def test_thumbnails_are_one_tab_stop(offline: Context, file: Path) -> None:
    page = opened(offline(), file)
    assert page.locator('.tile[tabindex="0"]').count() == 1
    page.locator('.tile[tabindex="0"]').focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.locator(".tile").nth(2).evaluate("tile => tile === document.activeElement && tile.tabIndex === 0")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    shows(page, 1)
    page.keyboard.press("Tab")
    assert not page.evaluate("document.activeElement.matches('.tile')")


def test_an_empty_number_zeroes_nothing(offline: Context, file: Path) -> None:
    page = opened(offline(), file)
    before = coefficients(page)
    count = page.get_by_label("How many prototypes to keep")
    count.fill("")
    count.press("Enter")
    assert np.array_equal(coefficients(page), before)
    assert count.input_value() == "5"
    page.get_by_text("Keep how many prototypes? Expected a number from 0 to 32.").wait_for()


def test_one_large_coefficient_leaves_the_other_sliders_alone(offline: Context, file: Path) -> None:
    plain = opened(offline(), file, "#0.i=0")
    far = opened(offline(), file, "#0.i=0&0.e0=7:50")
    ends = "cards => cards.map(card => [card.dataset.k, card.querySelector('.slider').max])"
    expected = dict(plain.locator(".card").evaluate_all(ends))
    found = dict(far.locator(".card").evaluate_all(ends))
    assert float(found.pop("7")) == 50
    del expected["7"]
    assert found == expected
    assert coefficients(far)[7] == 50
    far.get_by_label("Coefficient of prototype 7", exact=True).press("ArrowLeft")
    assert coefficients(far)[7] == pytest.approx(50 - float(next(iter(expected.values()))) / 100, abs=1e-4)


def test_the_menu_closes_on_a_press_anywhere_else(offline: Context, file: Path) -> None:
    page = opened(offline(), file)
    page.locator("summary").click()
    assert page.get_by_role("button", name="Save state to a file").is_visible()
    page.locator(".lead").click()  # takes no focus
    assert not page.get_by_role("button", name="Save state to a file").is_visible()


# --- a page that is large -------------------------------------------------------------------------


@pytest.fixture
def slow(file: Path) -> Iterator[tuple[str, threading.Event]]:
    """The page at an address that sends it up to its first image, and the rest when the event is set."""
    whole = file.read_bytes()
    at = whole.index(b'id="maskprism-scene-1"') + 4000  # in the middle of the second image
    go_on = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != "/":
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(whole)))
            self.end_headers()
            self.wfile.write(whole[:at])
            self.wfile.flush()
            go_on.wait(20)
            self.wfile.write(whole[at:])

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", go_on
    go_on.set()
    server.shutdown()
    server.server_close()


def test_the_first_image_is_there_before_the_others_are_read(
    browser: Browser, slow: tuple[str, threading.Event]
) -> None:
    address, go_on = slow
    context = browser.new_context()
    page = context.new_page()
    page.goto(address, wait_until="commit")
    page.locator(".stage").wait_for()
    assert page.evaluate("document.readyState") == "loading"
    slider(page, 0).press("Delete")
    assert coefficients(page)[0] == 0
    page.locator(".tile").nth(1).click()  # one that is still to come
    page.wait_for_timeout(200)
    assert page.locator(".slot[aria-busy]").count() == 1
    go_on.set()
    shows(page, 1)
    page.locator(".tile").nth(0).click()
    shows(page, 0)
    assert coefficients(page)[0] == 0
    context.close()


def test_a_file_that_was_cut_off_says_so(offline: Context, file: Path, tmp_path: Path) -> None:
    whole = file.read_bytes()
    (tmp_path / "cut.html").write_bytes(whole[: whole.index(b'id="maskprism-scene-2"') - 40])
    page = opened(offline(), tmp_path / "cut.html")
    page.locator(".tile").nth(2).click()
    page.get_by_text("This image cannot be shown: the file is not whole; get or write it anew").wait_for()


# --- fingers --------------------------------------------------------------------------------------


@pytest.fixture
def phone(offline: Context, file: Path) -> Page:
    context = offline(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True, device_scale_factor=2)
    return opened(context, file)


def pan(page: Page, start: tuple[float, float], way: tuple[float, float]) -> None:
    """A finger that goes from a place along a way, as the device's own events."""
    session: CDPSession = page.context.new_cdp_session(page)
    touch = lambda kind, at: session.send(  # noqa: E731
        "Input.dispatchTouchEvent",
        {"type": kind, "touchPoints": [{"x": at[0], "y": at[1]}] if at else []},
    )
    touch("touchStart", start)
    for step in range(1, 13):
        touch("touchMove", (start[0] + way[0] * step / 12, start[1] + way[1] * step / 12))
        page.wait_for_timeout(16)
    touch("touchEnd", None)
    page.wait_for_timeout(300)
    session.detach()


def middle(element: Locator) -> tuple[float, float]:
    box = element.bounding_box()
    assert box
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_a_finger_that_goes_up_from_a_slider_scrolls_and_edits_nothing(phone: Page) -> None:
    before = coefficients(phone)
    track = phone.locator(".card .slider").nth(6)
    track.evaluate("one => scrollTo(0, one.getBoundingClientRect().top + scrollY - 640)")
    phone.wait_for_timeout(100)
    scrolled = phone.evaluate("scrollY")
    pan(phone, middle(track), (14, -180))
    until(phone, lambda: phone.evaluate("scrollY") > scrolled + 60)
    assert np.array_equal(coefficients(phone), before)
    assert phone.get_by_role("button", name="Undo").get_attribute("aria-disabled") == "true"


def test_a_finger_that_goes_sideways_moves_the_thumb_along(phone: Page) -> None:
    before = coefficients(phone)
    track = phone.locator(".card .slider").nth(6)
    k = int(phone.locator(".card").nth(6).get_attribute("data-k") or -1)
    track.evaluate("one => scrollTo(0, one.getBoundingClientRect().top + scrollY - 640)")
    phone.wait_for_timeout(100)
    scrolled = phone.evaluate("scrollY")
    width = track.evaluate("one => one.clientWidth - parseFloat(getComputedStyle(one).getPropertyValue('--thumb'))")
    reach = float(track.get_attribute("max") or 0)
    way = 24 if before[k] < 0 else -24
    undo = phone.get_by_role("button", name="Undo")
    pan(phone, middle(track), (way, 3))
    until(phone, lambda: undo.get_attribute("aria-disabled") == "false")  # the drag has ended
    assert phone.evaluate("scrollY") == scrolled
    moved = (coefficients(phone)[k] - before[k]) / (2 * reach / width)
    assert moved == pytest.approx(way, abs=8)  # pixels; less the way until it was clear where the finger goes
    assert np.array_equal(np.delete(coefficients(phone), k), np.delete(before, k))
    undo.tap()
    until(phone, lambda: np.array_equal(coefficients(phone), before))
    phone.locator(".card .slider").nth(6).tap(force=True)  # a touch alone is no edit
    settle(phone)
    assert np.array_equal(coefficients(phone), before)


def test_a_tap_enlarges_a_prototype_and_another_button_drops_it(phone: Page) -> None:
    before = coefficients(phone)
    card = phone.locator(".card").nth(2)
    card.locator(".thumb").tap()  # the click comes after the touch
    phone.locator(".layer.prototype").wait_for()
    assert np.array_equal(coefficients(phone), before)
    card.locator(".thumb").tap()
    phone.locator(".layer.prototype").wait_for(state="hidden")
    card.locator(".drop").tap()
    k = int(card.get_attribute("data-k") or -1)
    until(phone, lambda: coefficients(phone)[k] == 0)
    card.locator(".drop").tap()
    until(phone, lambda: np.array_equal(coefficients(phone), before))


def test_fingers_find_their_targets(phone: Page) -> None:
    sizes = phone.locator(".card").first.evaluate(
        """card => ({ slider: card.querySelector(".slider").getBoundingClientRect().height,
                      thumb: parseFloat(getComputedStyle(card.querySelector(".slider")).getPropertyValue("--thumb")),
                      drop: card.querySelector(".drop").getBoundingClientRect().width })"""
    )
    assert sizes["slider"] >= 44
    assert sizes["thumb"] >= 24
    assert sizes["drop"] >= 44
    opacity = phone.get_by_label("Opacity").evaluate(
        "one => [one.clientHeight, parseFloat(getComputedStyle(one).getPropertyValue('--thumb'))]"
    )
    assert opacity[0] >= 44
    assert opacity[1] >= 24
    assert phone.evaluate("document.scrollingElement.scrollWidth") <= 390


# --- the keyboard in a zoomed page ----------------------------------------------------------------

COVERED = """() => {
  const one = document.activeElement;
  if (!one || one === document.body) return null;
  const box = one.getBoundingClientRect();
  const [x, y] = [box.left + box.width / 2, box.top + Math.min(box.height / 2, innerHeight / 4)];
  const within = (at, length) => Math.min(Math.max(at, 1), length - 1);
  const hit = document.elementFromPoint(within(x, innerWidth), within(y, innerHeight));
  const inside = y >= 0 && y <= innerHeight;
  const around = hit?.closest(".track, label");
  const own = hit && (one.contains(hit) || around?.contains(one));
  return { name: one.getAttribute("aria-label") || one.textContent, covered: !inside || !own };
}"""


@pytest.mark.parametrize("size", [(640, 400), (640, 800), (1280, 800), (320, 256)])
def test_nothing_covers_what_has_the_focus(offline: Context, file: Path, size: tuple[int, int]) -> None:
    """At 640 x 400 as in a window of 1280 x 800 at 200 %."""
    page = opened(offline(viewport={"width": size[0], "height": size[1]}), file)
    page.locator("summary").focus()
    seen, covered = 0, []
    for key in ["Tab"] * 46 + ["Shift+Tab"] * 46:
        page.keyboard.press(key)
        found = page.evaluate(COVERED)
        if found is None:
            continue
        seen += 1
        if found["covered"]:
            covered.append(found["name"])
    assert seen > 60
    assert covered == []


# --- contrast -------------------------------------------------------------------------------------

CONTROLS = (
    ".maskprism button:not(.thumb, .drop, [aria-disabled=true]), .maskprism summary, .maskprism select,"
    " .maskprism .segments label, .maskprism .check"
)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_control_can_be_read_in_every_state(offline: Context, file: Path, scheme: str) -> None:
    """WCAG 1.4.3 in computed colours: plain, pressed, chosen, edited, and each under the pointer."""
    page = opened(offline(color_scheme=scheme, reduced_motion="reduce"), file)
    assert low_contrast(page, ".maskprism") == []
    page.get_by_role("button", name="Keep top").click()
    page.get_by_role("button", name="Before").click()
    page.locator(".card .drop").first.click()
    page.get_by_role("button", name="Before").click()
    page.locator("summary").click()
    assert low_contrast(page, ".maskprism") == []
    assert hovered(page, ".maskprism .items button") == []
    page.keyboard.press("Escape")
    assert hovered(page, CONTROLS) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_thumbs_bars_and_the_focus_stand_out(offline: Context, file: Path, scheme: str) -> None:
    """WCAG 1.4.11: 3 : 1 for what says where a slider is, which way a bar goes, and what has the focus."""
    page = opened(offline(color_scheme=scheme), file)
    colours = page.locator(".maskprism").evaluate(
        "one => Object.fromEntries(['page', 'surface', 'ink', 'positive', 'negative', 'focus', 'line'].map(name => "
        "[name, getComputedStyle(one).getPropertyValue('--' + name).trim()]))"
    )
    for name in ("ink", "positive", "negative", "focus"):
        assert ratio(colours[name], colours["page"]) >= 3, name
        assert ratio(colours[name], colours["surface"]) >= 3, name


def test_forced_colours_tell_what_is_pressed(offline: Context, file: Path) -> None:
    page = opened(offline(forced_colors="active"), file)
    slider(page, 0).press("Delete")
    button = page.get_by_role("button", name="Before")
    ground = "one => getComputedStyle(one).backgroundColor"
    plain = button.evaluate(ground)
    button.click()
    transitions_end(button)
    assert button.evaluate(ground) != plain
    assert button.evaluate(CONTRAST) >= 4.5
    chosen = page.locator('.instances [aria-checked="true"]')
    other = page.locator('.instances [aria-checked="false"]').first
    assert chosen.evaluate(ground) != other.evaluate(ground)
    assert slider(page, 0).evaluate("one => getComputedStyle(one).backgroundImage").startswith("linear-gradient")
