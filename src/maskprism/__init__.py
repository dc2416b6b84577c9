"""maskprism takes instance masks of YOLO-seg models apart and shows how they are made.

`load` opens a model, whose `predict` gives a `Prediction` for each image. `explain` takes a mask apart,
`diagnose` where a model loses mask AP on a data set, `compare` how two models differ, `tune` what better coefficients
gain, and `extract` writes the coefficients of many images into a table.

Examples
--------
>>> import maskprism
>>> from maskprism.datasets.scenes import draw_scene
>>> prediction = maskprism.load("sample").predict(draw_scene(3).image)
>>> prediction.name_of(prediction.classes[0])
'arrow'
>>> decomposition = maskprism.Decomposition(prediction[0])
>>> decomposition.terms.shape  # weight times prototype; they sum to the logits
(32, 80, 80)
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from maskprism._common.lazy import lazy_submodules

__version__ = "0.2.0"

# Libraries that report how they are used read these when they are imported, which is always after this line.
for _variable, _value in {
    "ORT_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}.items():
    os.environ.setdefault(_variable, _value)

if TYPE_CHECKING:  # for type checkers and editors; at run time __getattr__ imports on first use
    from maskprism import analysis as analysis
    from maskprism import datasets as datasets
    from maskprism import drawing as drawing
    from maskprism import integrations as integrations
    from maskprism import reports as reports
    from maskprism import viewer as viewer
    from maskprism.analysis.comparison.paired_run import compare as compare
    from maskprism.analysis.dataset.diagnosis import diagnose as diagnose
    from maskprism.analysis.instance.attribution import explain as explain
    from maskprism.analysis.instance.prototype_roles import roles as roles
    from maskprism.analysis.instance.regions import pixel_query as pixel_query
    from maskprism.analysis.instance.shapley_values import shapley as shapley
    from maskprism.analysis.instance.sufficient_sets import knock_out as knock_out
    from maskprism.analysis.instance.sufficient_sets import sufficiency as sufficiency
    from maskprism.analysis.tuning.tuning import tune as tune
    from maskprism.core.arrays import from_arrays as from_arrays
    from maskprism.core.decoding import decode as decode
    from maskprism.core.decomposition import Decomposition as Decomposition
    from maskprism.core.decomposition import Edit as Edit
    from maskprism.core.geometry import Letterbox as Letterbox
    from maskprism.core.masks import RULES as RULES
    from maskprism.core.masks import MaskRule as MaskRule
    from maskprism.core.prediction import Instance as Instance
    from maskprism.core.prediction import Prediction as Prediction
    from maskprism.core.preprocessing import Preprocessing as Preprocessing
    from maskprism.datasets import open_dataset as open_dataset
    from maskprism.errors import MaskprismError as MaskprismError
    from maskprism.io.images import read_image as read_image
    from maskprism.models import Model as Model
    from maskprism.models import ModelSpec as ModelSpec
    from maskprism.models import load as load
    from maskprism.models.raw import from_raw as from_raw
    from maskprism.tables.extraction import extract as extract
    from maskprism.tables.table import CoefficientTable as CoefficientTable
    from maskprism.viewer.widget import PrismWidget as PrismWidget
    from maskprism.viewer.widget import show as show

_HOMES = {
    "CoefficientTable": "tables.table",
    "Decomposition": "core.decomposition",
    "Edit": "core.decomposition",
    "Instance": "core.prediction",
    "Letterbox": "core.geometry",
    "MaskRule": "core.masks",
    "MaskprismError": "errors",
    "Model": "models",
    "ModelSpec": "models",
    "Prediction": "core.prediction",
    "Preprocessing": "core.preprocessing",
    "PrismWidget": "viewer.widget",
    "RULES": "core.masks",
    "compare": "analysis.comparison.paired_run",
    "decode": "core.decoding",
    "diagnose": "analysis.dataset.diagnosis",
    "explain": "analysis.instance.attribution",
    "extract": "tables.extraction",
    "from_arrays": "core.arrays",
    "from_raw": "models.raw",
    "knock_out": "analysis.instance.sufficient_sets",
    "load": "models",
    "open_dataset": "datasets",
    "pixel_query": "analysis.instance.regions",
    "read_image": "io.images",
    "roles": "analysis.instance.prototype_roles",
    "shapley": "analysis.instance.shapley_values",
    "show": "viewer.widget",
    "sufficiency": "analysis.instance.sufficient_sets",
    "tune": "analysis.tuning.tuning",
}
__all__ = ["__version__", *_HOMES]


_submodule, _names = lazy_submodules(__name__)


def __getattr__(name: str) -> Any:
    """Import on first use, so that `import maskprism` stays quick."""
    if name in _HOMES:
        return getattr(import_module(f"maskprism.{_HOMES[name]}"), name)
    return _submodule(name)


def __dir__() -> list[str]:
    return sorted({*_names(), *__all__})
