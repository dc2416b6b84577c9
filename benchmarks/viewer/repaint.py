"""How long the viewer takes to repaint after a coefficient has moved, measured inside Chromium.

    python benchmarks/viewer/repaint.py

One image of 640 x 640, 32 prototypes of 160 x 160, and a box that is the whole image: the worst case. Each
repaint computes the mask of the model's input size, compares it with the original and paints it. "whole product"
multiplies all 32 prototypes anew, "one slider moved" adds the change of one of them; the baseline is the same repaint
written plainly: every pixel interpolates all 32 prototypes by itself. "retina" is an image of 2000 x 1480 under the
rule that decides its masks at the image's own size. A repaint includes the equation above the image.
"""

from __future__ import annotations

import base64
import os
import shutil
import sys
from functools import partial
from importlib.resources import files
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from maskprism import Letterbox, Prediction
from maskprism.core.masks import RETINA, ULTRALYTICS, MaskRule
from maskprism.datasets.scenes import draw_scene
from maskprism.viewer.payload import viewer_scene

RUNS, PLAIN_RUNS = 200, 5
BUDGET_MS, RETINA_BUDGET_MS = 4, 16

MEASURE = """async ({ text, runs, plainRuns }) => {
  const { mount } = await import("/viewer.js");
  const host = document.body.appendChild(document.createElement("div"));
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
  const { app, ready } = mount(host, bytes, { hash: false });
  await ready;
  const { stage, state, equation } = app.viewer;
  const frame = () => new Promise((done) => requestAnimationFrame(done));
  const all = async (count, prepare, paint) => {
    const times = [];
    for (let n = 0; n < count; n++) {
      prepare(n);
      const start = performance.now();
      paint();
      times.push(performance.now() - start);
      if (n % 10 === 9) await frame();
    }
    return times;
  };
  const repaint = () => (stage.repaint(), equation.repaint());
  repaint();
  // Around the original, so that the mask keeps its edges: those are what painting costs.
  const value = (n, k) => state.original[state.selected][k] + 0.4 * Math.sin(n / 9);
  const paint = repaint;
  const anew = (n) => { state.move(n % 32, value(n, n % 32)); stage.fresh = false; };
  await all(50, anew, paint);  // until it is compiled
  const whole = await all(runs, anew, paint);
  const moved = await all(runs, (n) => state.move(5, value(n, 5)), paint);
  const { scene } = app.viewer;
  const plain = await all(plainRuns, () => {}, () => {
    const pixels = stage.mask.context.createImageData(640, 640);
    const { cells, values } = scene.prototypes;
    const weights = state.coefficients();
    for (let y = 0; y < 640; y++) {
      for (let x = 0; x < 640; x++) {
        const fy = Math.min(Math.max((y + 0.5) / 4 - 0.5, 0), 159);
        const fx = Math.min(Math.max((x + 0.5) / 4 - 0.5, 0), 159);
        const [r, c] = [Math.min(Math.floor(fy), 158), Math.min(Math.floor(fx), 158)];
        const [v, u] = [fy - r, fx - c];
        let logit = 0;
        for (let k = 0; k < 32; k++) {
          const at = k * cells + r * 160 + c;
          const top = values[at] * (1 - u) + values[at + 1] * u;
          const bottom = values[at + 160] * (1 - u) + values[at + 161] * u;
          logit += weights[k] * (top * (1 - v) + bottom * v);
        }
        if (logit > 0) pixels.data.set([230, 159, 0, 128], 4 * (y * 640 + x));
      }
    }
    stage.mask.context.putImageData(pixels, 0, 0);
  });
  return { whole, moved, plain };
}"""


def scene(size_hw: tuple[int, int], rule: MaskRule) -> bytes:
    """Prototypes as smooth as those of a model, and a mask of about half of the image."""
    rng = np.random.default_rng(0)
    raw = np.stack([rng.normal(0, 3, (20, 20)).repeat(8, 0).repeat(8, 1) for _ in range(32)])
    prediction = Prediction(
        canvas_boxes=np.array([[0, 0, 640, 640]], np.float32),
        scores=np.array([0.9], np.float32),
        classes=np.array([0]),
        coefficients=rng.normal(0, 1, (1, 32)).astype(np.float32),
        prototypes=(raw / (1 + np.exp(-raw))).astype(np.float32),
        letterbox=Letterbox.fit(size_hw, (640, 640)),
        rule=rule,
    )
    return viewer_scene(draw_scene(0, size_hw).image, prediction).pack()


def measure(executable: str) -> tuple[dict[str, list[float]], str]:
    """Times in milliseconds by what was repainted, and the browser's version."""
    from playwright.sync_api import Route, sync_playwright

    def answer(route: Route, **content: Any) -> None:
        route.fulfill(**content)

    bundle = (files("maskprism.viewer") / "static" / "viewer.js").read_text(encoding="utf-8")
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        page = chromium.new_page()
        page.route("http://bench.test/", partial(answer, body="<!doctype html>", content_type="text/html"))
        page.route("http://bench.test/viewer.js", partial(answer, body=bundle, content_type="text/javascript"))
        page.goto("http://bench.test/")
        text = base64.b64encode(scene((640, 640), ULTRALYTICS)).decode()
        times = page.evaluate(MEASURE, {"text": text, "runs": RUNS, "plainRuns": PLAIN_RUNS})
        page.reload()
        text = base64.b64encode(scene((1480, 2000), RETINA)).decode()
        retina = page.evaluate(MEASURE, {"text": text, "runs": RUNS, "plainRuns": 0})
        times |= {f"retina {name}": retina[name] for name in ("whole", "moved")}
        version = chromium.version
        chromium.close()
    return times, version


def main() -> None:
    names = ("chromium", "chromium-browser", "google-chrome")
    executable = os.environ.get("MASKPRISM_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if executable is None:
        sys.exit("needs Chromium (apt-get install chromium); name another one in MASKPRISM_CHROMIUM")
    times, version = measure(executable)
    table = Table(title=f"repaint of 32 x 160 x 160 to 640 x 640, Chromium {version}, {os.cpu_count()} cores")
    for column in ("", "p50 ms", "p95 ms", "against plain"):
        table.add_column(column, justify="left" if not column else "right")
    plain = float(np.median(times["plain"]))
    labels = {
        "whole": "whole product",
        "moved": "one slider moved",
        "plain": "plain loop (baseline)",
        "retina whole": "whole product, retina",
        "retina moved": "one slider moved, retina",
    }
    for name, label in labels.items():
        p50, p95 = np.percentile(times[name], [50, 95])
        table.add_row(label, f"{p50:.2f}", f"{p95:.2f}", "" if "retina" in name else f"{plain / p50:.0f}x")
    console = Console(width=100)
    console.print(table)
    for name in ("moved", "whole", "retina moved", "retina whole"):
        p95, budget = float(np.percentile(times[name], 95)), RETINA_BUDGET_MS if "retina" in name else BUDGET_MS
        verdict = "within" if p95 < budget else "OVER"
        console.print(f"{labels[name]}: p95 {p95:.2f} ms, {verdict} the budget of {budget} ms")


if __name__ == "__main__":
    main()
