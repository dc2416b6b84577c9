"""Pictures of the error budget."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

import maskprism
from maskprism.analysis.intervals import MIN_IMAGES
from maskprism.analysis.truth.counterfactual_masks import counterfactuals_of
from maskprism.analysis.truth.error_budget import PARTS, ErrorBudget, budgets
from maskprism.analysis.truth.matching import match
from maskprism.analysis.truth.worst_masks import worst_cases
from maskprism.datasets import Dataset, GroundTruth, open_dataset
from maskprism.datasets.scenes import write_dataset
from maskprism.drawing import error_budget as views
from maskprism.drawing import palette, raster
from maskprism.drawing.responsive_svg import adaptive
from maskprism.errors import InputError
from maskprism.models import Model


@pytest.fixture(scope="module")
def model() -> Model:
    return maskprism.load("sample")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, model: Model) -> Dataset:
    path = write_dataset(tmp_path_factory.mktemp("scenes"), 2, seed=60, validation_share=1)
    return open_dataset(path).for_model(model.spec.names)


@pytest.fixture(scope="module")
def budget(dataset: Dataset, model: Model) -> ErrorBudget:
    rows = []
    for sample in dataset:
        image, truth = sample.read()
        rows += budgets(model.predict(image), truth, sample.name)
    return ErrorBudget(rows)


def texts(figure) -> str:
    figure.canvas.draw()
    ax = figure.axes[0]
    found = [*ax.texts, *ax.get_yticklabels(), figure._suptitle]
    return "\n".join(text.get_text() for text in found)


def test_the_waterfall_overprints_nothing_in_either_width(budget):
    twins = [replace(row, image=f"{copy}.jpg") for copy in range(MIN_IMAGES) for row in budget.rows]
    for lost in (0.0, 0.5):  # bars beside the values, and bars that leave no room beside them
        rows = [replace(row, coefficients=row.coefficients + lost, iou=row.iou - lost) for row in twins]
        figure = views.waterfall(ErrorBudget(rows))
        ax = figure.axes[0]
        for _ in ("wide", "narrow"):
            figure.canvas.draw()
            texts = [text.get_window_extent() for text in [*ax.texts, *ax.get_yticklabels()]]
            assert not [pair for pair in combinations(texts, 2) if pair[0].overlaps(pair[1])]
            values = [text.get_window_extent() for text in ax.texts if " to " in text.get_text()]
            bars = [bar.get_window_extent() for bar in ax.patches]
            assert len(values) == 5
            assert not [1 for value in values for bar in bars if value.overlaps(bar)]
            adaptive(figure)  # makes it narrow


def test_the_waterfall_ends_at_the_iou(budget):
    figure = views.waterfall(budget)
    mean = budget.mean()
    shown = texts(figure)
    for expected in (f"{mean.iou:.3f}", f"{mean.instances} instances", f"−{mean.coefficients:.3f}", *PARTS):
        assert expected in shown
    *bars, left = [bar for bar in figure.axes[0].patches if bar.get_height() == pytest.approx(0.4)]
    assert left.get_width() == pytest.approx(mean.iou)
    assert [bar.get_width() for bar in bars] == pytest.approx([-getattr(mean, part) for part in PARTS])
    assert bars[-1].get_x() + bars[-1].get_width() == pytest.approx(mean.iou)
    with pytest.raises(InputError, match="no matched instance"):
        views.waterfall(ErrorBudget(()))


def test_groups_show_sizes_and_classes(budget):
    shown = texts(views.groups(budget, most=2))
    for mean in (*budget.means("size"), *budget.means("class_name")[:2]):
        assert f"{mean.group}  ({mean.instances})" in shown
        assert f"IoU {mean.iou:.2f}" in shown
    assert f"{len(budget.means('class_name')) - 2} more classes" in shown
    gain = ErrorBudget([replace(row, prototypes=-0.1) for row in budget.rows])
    assert views.groups(gain).axes[0].get_xlim()[0] <= -0.1
    with pytest.raises(InputError, match="no matched instance"):
        views.groups(ErrorBudget(()))


def test_the_strip_shows_the_stages_in_their_colours(dataset, model):
    sample = next(iter(dataset))
    image, truth = sample.read()
    prediction = model.predict(image)
    _, stages = next(iter(counterfactuals_of(prediction, truth, match(prediction, truth))))
    sheet = views.instance_strip(image, stages)
    first, *others = sheet.panels
    assert [panel.joint for panel in sheet.panels] == ["", "→", "→", "→", "→"]
    assert first.title == "ground truth  1.00"
    orange = np.array(palette.TOO_MUCH)
    # Where nothing is wrong nothing is orange; an empty mask has only blue.
    empty = replace(stages, truth=stages.truth, real=replace_inside(stages.real))
    blank = views.instance_strip(image, empty).panels[-1]
    assert blank.title.startswith("its own mask  0.00")
    for panel in (first, blank):
        closeness = np.abs(panel.picture.astype(float) - orange).sum(axis=2)
        assert closeness.min() > 60
    assert all(panel.size_hw == first.size_hw for panel in others)
    assert raster.draw(sheet).ndim == 3


def replace_inside(region):
    return region._replace(inside=np.zeros_like(region.inside))


def test_the_worst_instances(dataset, model, budget):
    sheet = views.worst_sheet(worst_cases(dataset, model, budget, count=5), of=len(budget))
    worst = budget.worst(5)
    assert len(sheet.panels) == 5
    for panel, row in zip(sheet.panels, worst, strict=True):
        assert panel.title.startswith(f"{row.iou:.2f}  {row.class_name} {row.score:.2f}")
        assert any(part in panel.title for part in PARTS)
    assert raster.draw(sheet).shape[2] == 3
    (leaky,) = worst_cases(dataset, model, budget, count=1, by="leak")
    assert leaky.row.leak == max(row.leak for row in budget.rows)
    assert leaky.masks.real.iou_with(leaky.masks.truth) == leaky.row.iou
    assert "by leak" in views.worst_sheet([leaky], of=len(budget), by="leak").title
    with pytest.raises(InputError, match="no instance to show"):
        views.worst_sheet(worst_cases(dataset, model, ErrorBudget(())), of=0)
    strange = ErrorBudget([replace(budget.rows[0], image="else.png")])
    with pytest.raises(InputError, match=r"has no image 'else\.png'"):
        worst_cases(dataset, model, strange)


def test_real_weights(real_data: Path, tmp_path: Path):
    model = maskprism.load(real_data / "models" / "yolov8n-seg.onnx")
    image = maskprism.read_image(real_data / "images" / "bus.jpg")
    prediction = model.predict(image)
    truth = GroundTruth(  # its own masks
        prediction.classes, tuple(prediction.masks("image")), prediction.boxes,
        np.zeros(len(prediction), dtype=bool), prediction.image_size,
    )  # fmt: skip
    for _, stages in counterfactuals_of(prediction, truth):
        assert raster.save(views.instance_strip(image, stages), tmp_path / "strip.png").exists()
