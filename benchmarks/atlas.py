"""How long the atlas of a generated table takes and how much memory, beside pandas and scikit-learn doing the same.

python benchmarks/atlas.py [--rows 1000000] [--chromium /usr/bin/chromium]
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

CLASSES, K, PER_IMAGE = 80, 32, 10
SECONDS = 4
RENDERER = """(() => {
  const gl = document.createElement("canvas").getContext("webgl");
  return gl.getParameter(gl.getExtension("WEBGL_debug_renderer_info").UNMASKED_RENDERER_WEBGL);
})()"""


def generated(rows: int, seed: int = 0) -> pa.Table:
    """A table as `extract` writes: classes of unequal size, each in two kinds; boxes that coefficients depend on."""
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(1, CLASSES + 1)
    classes = rng.choice(CLASSES, rows, p=share / share.sum()).astype(np.int32)
    kinds = rng.integers(0, 2, rows)
    means = rng.normal(size=(CLASSES, 2, K)).astype(np.float32)
    centre, side = rng.random((rows, 2), dtype=np.float32), np.exp(rng.normal(4, 0.8, (rows, 2))).astype(np.float32)
    mixing = rng.normal(size=(K, K)).astype(np.float32) / K**0.5
    coefficients = means[classes, kinds] + 0.4 * (rng.standard_normal((rows, K), dtype=np.float32) @ mixing)
    coefficients[:, :2] += 2 * (centre - 0.5)
    copies = rng.choice(rows, (2, rows // 1000), replace=False)
    coefficients[copies[0]] = coefficients[copies[1]]
    middle = centre * np.float32(640)
    names = np.array([f"class{number}" for number in range(CLASSES)])
    return pa.table(
        {
            "image": pa.array([f"{row // PER_IMAGE:08d}.jpg" for row in range(rows)]),
            "image_width": pa.array(np.full(rows, 640, np.int32)),
            "image_height": pa.array(np.full(rows, 640, np.int32)),
            "instance": pa.array((np.arange(rows) % PER_IMAGE).astype(np.int32)),
            "class_id": pa.array(classes),
            "class_name": pa.array(names[classes]),
            "score": pa.array(rng.random(rows, dtype=np.float32)),
            **{
                name: pa.array(middle[:, axis] + sign * side[:, axis] / 2)
                for name, axis, sign in (("x1", 0, -1), ("y1", 1, -1), ("x2", 0, 1), ("y2", 1, 1))
            },
            "iou": pa.array(rng.beta(8, 2, rows).astype(np.float32)),
            "coefficients": pa.FixedSizeListArray.from_arrays(pa.array(coefficients.reshape(-1)), K),
        }
    )


def plain(rows: pa.Table) -> None:
    """What of an atlas is a line each in pandas and scikit-learn: classes, correlation, ranks, components, values."""
    import pandas as pd
    from sklearn.decomposition import PCA

    matrix = rows["coefficients"].combine_chunks().flatten().to_numpy().reshape(-1, K)
    frame = pd.DataFrame(matrix)
    frame.groupby(rows["class_name"].to_pandas()).agg(["mean", "std", "sem"])
    frame.corr()
    for name in ("score", "iou", "x1"):
        frame.corrwith(rows[name].to_pandas(), method="spearman")
    PCA(2).fit_transform(matrix)
    for column in matrix.T:
        np.histogram(column, 61)


def ours(rows: pa.Table) -> None:
    """The same parts of the atlas, with effect sizes and false discovery rates."""
    from maskprism.analysis.atlas.atlas import moments_of
    from maskprism.analysis.atlas.class_signatures import signatures
    from maskprism.analysis.atlas.points import Points
    from maskprism.analysis.atlas.projection import Components
    from maskprism.analysis.atlas.rank_correlation import dependence
    from maskprism.drawing.atlas import value_counts
    from maskprism.tables.instance_rows import InstanceRows

    points = Points.of(InstanceRows([rows], "generated"))
    moments = moments_of(points.coefficients)
    signatures(points.coefficients, points.classes, len(points.class_names), points.images)
    numbers = {name: points.numbers[name] for name in ("score", "iou", "x")}
    dependence(points.coefficients, numbers, points.images)
    Components.of(moments).places(points.coefficients)
    value_counts(points.coefficients, 3.0)


def whole(table: Path, folder: Path) -> None:
    """Everything, in a process of its own: the time of each step, and the most memory."""
    from maskprism.analysis.atlas.atlas import make_atlas
    from maskprism.analysis.atlas.points import Points
    from maskprism.reports.atlas import report_page
    from maskprism.reports.atlas_files import write_atlas

    began = time.perf_counter()
    steps: list[tuple[str, float]] = [("reading", began)]
    points = Points.read(table)
    found = make_atlas(points, on_step=lambda step: steps.append((step, time.perf_counter())))
    steps.append(("figures and page", time.perf_counter()))
    (folder / "atlas.html").write_text(report_page(found, "generated"), encoding="utf-8")
    ended = time.perf_counter()
    for (name, start), (_, end) in zip(steps, [*steps[1:], ("", ended)], strict=True):
        print(f"  {name:<22} {end - start:6.2f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"  statistics, components and figures: {ended - began:.1f} s, {peak:.2f} GB")
    write_atlas(found, folder, "generated")
    print(f"  map and tables: {time.perf_counter() - ended:.1f} s (the page once more)")


def in_browser(page: Path, chromium: str) -> None:
    """How long the first frame of the map takes, and how many frames a second there are while it is dragged."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--enable-unsafe-swiftshader"])
        shown = browser.new_page(viewport={"width": 1280, "height": 900})
        shown.goto(page.as_uri(), wait_until="commit")
        shown.wait_for_selector("[data-ready]", timeout=120_000)
        first = shown.evaluate("performance.now()") / 1000
        box = shown.locator("canvas").bounding_box()
        assert box is not None
        shown.evaluate("frames = 0; (function next() { frames += 1; requestAnimationFrame(next); })()")
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        shown.mouse.move(x, y)
        shown.mouse.down()
        before, began, step = shown.evaluate("frames"), time.perf_counter(), 0
        while time.perf_counter() - began < SECONDS:
            step += 1
            shown.mouse.move(x + step % 90, y + step % 70)
        frames = (shown.evaluate("frames") - before) / (time.perf_counter() - began)
        renderer = shown.evaluate(RENDERER)
        browser.close()
    print(f"  map in Chromium: first frame {first:.1f} s, {frames:.1f} frames a second while dragged ({renderer})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--chromium", help="a Chromium or Chrome: measures the map in it, too")
    parser.add_argument("--whole", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.whole:
        whole(*options.whole)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = generated(options.rows)
        pq.write_table(rows, folder / "table.parquet", compression="zstd", row_group_size=1 << 16)
        print(f"Atlas of {options.rows:,} x {K}:")
        subprocess.run([sys.executable, __file__, "--whole", folder / "table.parquet", folder], check=True)
        took = {}
        for way in (ours, plain):
            began = time.perf_counter()
            way(rows)
            took[way.__name__] = time.perf_counter() - began
        ratio = took["plain"] / took["ours"]
        print(
            f"  what pandas and scikit-learn do in lines: {took['ours']:.2f} s, {ratio:.1f} times as fast as they "
            f"({took['plain']:.1f} s)"
        )
        if options.chromium:
            in_browser(folder / "map.html", options.chromium)


if __name__ == "__main__":
    main()
