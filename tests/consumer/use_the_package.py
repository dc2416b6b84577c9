"""What a user's typed program sees of an installed maskprism: `make package` checks it with mypy --strict and runs it.

`assert_type` fails where a name has lost its type, and an unused `type: ignore` where a mistake goes unnoticed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import assert_type

import maskprism
from maskprism.analysis.instance import PixelQuery, Roles, ShapleyValues, Sufficiency
from maskprism.datasets.scenes import write_dataset
from maskprism.errors import ImageError, InputError, MissingExtraError, ModelError, TableError
from maskprism.models import Detections, Reading
from maskprism.tables.extraction import ExtractSummary, extract


def main(folder: Path) -> None:
    """The bundled model on drawn scenes, taken apart."""
    write_dataset(folder, 2, seed=1, validation_share=1)
    images = sorted((folder / "images").rglob("*.png"))
    assert_type(maskprism.__version__, str)

    model = maskprism.load("sample", reading=Reading(rule="retina"), conf=0.3)
    assert_type(model(maskprism.datasets.scenes.draw_scene(0).image, conf=0.5), list[maskprism.Prediction])
    assert_type(model, maskprism.Model)
    assert_type(model.spec, maskprism.ModelSpec)
    assert_type(model.spec.prototypes, int)
    assert_type(model.spec.rule, maskprism.MaskRule)
    assert_type(maskprism.RULES, dict[str, maskprism.MaskRule])

    prediction = model.predict(images[0])
    assert_type(prediction, maskprism.Prediction)
    assert_type(model.predict([images[0], images[1]]), list[maskprism.Prediction])
    assert_type(prediction[:2], maskprism.Prediction)
    assert_type(prediction.letterbox, maskprism.Letterbox)
    instance = prediction[0]
    assert_type(instance, maskprism.Instance)
    assert_type(instance.name, str)
    assert_type(instance.score, float)

    parts = maskprism.Decomposition(instance)
    assert abs(parts.terms.sum(axis=0) - parts.logits).max() < 1e-3
    edit = maskprism.Edit(drop=[0, 1], scale={2: 0.5})
    assert_type(edit.apply(prediction), maskprism.Prediction)

    assert_type(maskprism.roles(instance), Roles)
    assert_type(maskprism.sufficiency(instance), Sufficiency)
    assert_type(maskprism.shapley(instance, permutations=4), ShapleyValues)
    assert_type(maskprism.pixel_query(instance, 5, 5), PixelQuery)
    assert maskprism.knock_out(instance).shape == (model.spec.prototypes,)
    assert maskprism.read_image(images[0]).ndim == 3

    assert_type(extract(folder / "images", model, folder / "table.parquet"), ExtractSummary)
    table = maskprism.CoefficientTable.read(folder / "table.parquet")
    assert_type(table, maskprism.CoefficientTable)
    assert len(table.coefficients) >= len(prediction)

    ours: Sequence[type[maskprism.MaskprismError]] = (ImageError, InputError, MissingExtraError, ModelError, TableError)
    try:
        model.predict(folder / "missing.png")
    except tuple(ours) as error:
        assert_type(error, maskprism.MaskprismError)
    else:
        raise AssertionError("a missing image was read")


def mistakes(model: maskprism.Model) -> None:
    """Never called: what a type checker must not let through."""
    Detections(conf="much")  # type: ignore[arg-type]
    maskprism.Edit(scale=[0.5])  # type: ignore[arg-type]
    maskprism.roles(model.predict("image.png"))  # type: ignore[arg-type]
    maskprism.load("sample").forecast("image.png")  # type: ignore[attr-defined]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
