"""Contrast of texts as a browser draws them, by WCAG's definition."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from playwright.sync_api import Page

CONTRAST = """element => {
  const parse = (text) => {
    const [r, g, b, alpha = 1] = (text.match(/[\\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
    return text.startsWith("color(srgb") ? [r * 255, g * 255, b * 255, alpha] : [r, g, b, alpha];
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3]));
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const luminance = (c) => [0.2126, 0.7152, 0.0722].reduce((sum, share, i) => sum + share * linear(c[i] / 255), 0);
  const chain = [];
  for (let one = element; one; one = one.parentElement) chain.unshift(one);
  let ground = [255, 255, 255];
  let opacity = 1;
  for (const one of chain) {
    const style = getComputedStyle(one);
    opacity *= Number(style.opacity);
    ground = over(parse(style.backgroundColor), ground);
  }
  const colour = parse(getComputedStyle(element).color);
  const ink = over([...colour.slice(0, 3), colour[3] * opacity], ground);
  const [a, b] = [luminance(ink), luminance(ground)].sort((x, y) => y - x);
  return (a + 0.05) / (b + 0.05);
}"""
TEXTS = """root => {
  const own = (one) => [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  return [...root.querySelectorAll("*")].filter((one) => own(one) && one.checkVisibility({ opacityProperty: false })
    && !one.closest(":disabled, [aria-disabled=true], .unseen, legend, option, script, style, .caption, .badges"));
}"""


def low_contrast(page: Page, root: str) -> list[str]:
    """Texts below 4.5 : 1, in their current state: all at once, for a page may draw some of them anew meanwhile."""
    of_each = f"[(one.className + one.textContent).trim().slice(0, 60), ({CONTRAST})(one)]"
    found = page.locator(root).evaluate(f"root => ({TEXTS})(root).map((one) => {of_each})")
    return [f"{text}: {ratio:.2f}" for text, ratio in found if ratio < 4.5]


def hovered(page: Page, controls: str) -> list[str]:
    """Texts below 4.5 : 1 in controls under the pointer."""
    low = []
    for control in page.locator(controls).all():
        if not control.is_visible():
            continue
        control.scroll_into_view_if_needed()
        control.hover(force=True)
        inside = [control, *control.locator("span").all()]
        ratios = [one.evaluate(CONTRAST) for one in inside if (one.text_content() or "").strip()]
        if ratios and min(ratios) < 4.5:
            low.append(f"{(control.text_content() or '')[:40]}: {min(ratios):.2f}")
    return low


def ratio(a: str, b: str) -> float:
    """The contrast of two colours #rrggbb, by WCAG's definition."""

    def luminance(colour: str) -> float:
        channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    high, low = sorted([luminance(a), luminance(b)], reverse=True)
    return (high + 0.05) / (low + 0.05)
