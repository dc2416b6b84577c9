"""The whole story on drawn sample scenes, with the bundled model: pictures, tables, a diagnosis, an atlas, a page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from maskprism._common.extras import installed

SCENES = 24
"""Enough for the diagnosis to say something."""
PICTURED = 8
"""Scenes of which pictures are drawn, and which are on the page."""
FIRST_SEED = 0
"""The training never saw scenes of these seeds."""


@dataclass(frozen=True)
class DemoResult:
    """Where everything is: a data set of scenes, a folder of pictures, a table, charts, a diagnosis, a page, an atlas.

    Attributes
    ----------
    index
        Leads to all that has a page.
    atlas
        None without the packages that it needs.
    """

    scenes: Path
    pictures: Path
    table: Path
    histograms: Path
    correlation: Path
    report: Path
    page: Path
    atlas: Path | None
    index: Path
    instances: int


def run_demo(out: Path, *, on_step: Callable[[str], None] = lambda step: None) -> DemoResult:
    """Draw the sample scenes, explain them, and write table, charts, diagnosis, page and atlas into `out`.

    `on_step` is called with a line before each step.

    Raises
    ------
    MaskprismError
        If `out` cannot be written.
    """
    from dataclasses import replace

    import numpy as np

    from maskprism.analysis.atlas.atlas import make_atlas
    from maskprism.analysis.atlas.mask_quality import judged
    from maskprism.analysis.atlas.points import Points
    from maskprism.analysis.dataset.diagnosis import diagnose
    from maskprism.analysis.truth.labels import open_labels
    from maskprism.cli import COMMANDS
    from maskprism.cli.page import write_page_manifest
    from maskprism.datasets import open_dataset
    from maskprism.datasets.scenes import write_dataset
    from maskprism.drawing import charts
    from maskprism.drawing.figures import save
    from maskprism.drawing.sheets import best_instances
    from maskprism.io.images import read_image
    from maskprism.io.sources import open_source
    from maskprism.models import load
    from maskprism.reports.atlas_files import REPORT, write_atlas
    from maskprism.reports.diagnosis_files import write_diagnosis
    from maskprism.reports.explanation import write_explanation
    from maskprism.reports.index import write_index
    from maskprism.reports.map_thumbnails import thumbnails
    from maskprism.tables.extraction import extract
    from maskprism.tables.table import CoefficientTable
    from maskprism.viewer.page import Page

    on_step(f"drawing {SCENES} scenes that the bundled model has never seen")
    scenes, pictures = out / "scenes", out / "pictures"
    data = write_dataset(scenes, SCENES, seed=FIRST_SEED, validation_share=1.0)
    model, page = load("sample", threads=1), Page()
    labels = open_labels(data, scenes, model.spec.names)
    predictions = {}

    on_step(f"explaining the most confident instance of each of the first {PICTURED}")
    for item in open_source(scenes).pending(frozenset()):
        image = read_image(scenes / item.name)
        prediction = replace(model.predict(image), source=item.name)
        predictions[item.name] = prediction
        if len(predictions) > PICTURED:
            continue
        folder = pictures / Path(item.name).stem
        write_explanation(image, prediction, folder, best_instances(prediction, None))
        page.add(image, prediction, *(labels.match(prediction, scenes / item.name) or ()))

    on_step("writing the coefficients of every instance")
    summary = extract(scenes, model, out / "coefficients.csv", overwrite=True)
    coefficients = CoefficientTable.read(summary.table).coefficients

    on_step("drawing histograms and correlation")
    result = DemoResult(
        scenes=scenes,
        pictures=pictures,
        table=out / "coefficients.csv",
        histograms=out / "histograms.png",
        correlation=out / "correlation.png",
        report=out / "diagnosis" / "report.html",
        page=out / "page.html",
        index=out / "index.html",
        atlas=out / "atlas" / REPORT if installed("sklearn", "scipy") else None,
        instances=len(coefficients),
    )
    save(charts.histograms(coefficients), result.histograms, dpi=130)
    save(charts.correlation(coefficients), result.correlation, dpi=130)

    on_step("comparing all masks with the ground truth")
    validated = load("sample", conf=0.001, multi_label=True, threads=1)
    write_diagnosis(diagnose(open_dataset(data), validated), result.report.parent, model=validated)

    on_step("writing the interactive page")
    write_page_manifest(page.write(result.page), [model.spec.name], page.thumbnail, images=len(page))

    if result.atlas is None:
        on_step("no atlas of all instances: it needs scikit-learn (pip install 'maskprism[atlas]')")
    else:
        on_step("mapping all instances")
        points = judged(Points.read(result.table), predictions, labels, scenes).points
        sheets = thumbnails(points, np.arange(len(points)), predictions, scenes)
        write_atlas(make_atlas(points), result.atlas.parent, "Sample scenes", sheets=sheets, viewer="../page.html")

    on_step("writing an index of all of it")
    write_index([out], result.index, order=[*COMMANDS])
    return result
