"""maskprism takes instance masks of YOLO-seg networks apart and shows how they are made."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from maskprism._common.lazy import lazy_submodules

__version__ = "0.1.0"

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
    from maskprism import interchange as interchange
    from maskprism import views as views
    from maskprism.analysis.instance.regions import pixel_query as pixel_query
    from maskprism.analysis.instance.roles import roles as roles
    from maskprism.analysis.instance.shapley import shapley as shapley
    from maskprism.analysis.instance.sufficiency import knock_out as knock_out
    from maskprism.analysis.instance.sufficiency import sufficiency as sufficiency
    from maskprism.arrays import from_arrays as from_arrays
    from maskprism.core.decoding import decode as decode
    from maskprism.decompose import Decomposition as Decomposition
    from maskprism.decompose import Edit as Edit
    from maskprism.errors import MaskprismError as MaskprismError
    from maskprism.geometry import Letterbox as Letterbox
    from maskprism.images import read_image as read_image
    from maskprism.masks import RULES as RULES
    from maskprism.masks import MaskRule as MaskRule
    from maskprism.models import Model as Model
    from maskprism.models import ModelSpec as ModelSpec
    from maskprism.models import load as load
    from maskprism.prediction import Instance as Instance
    from maskprism.prediction import Prediction as Prediction
    from maskprism.preprocessing import Preprocessing as Preprocessing
    from maskprism.table import CoefficientTable as CoefficientTable
    from maskprism.views.widget import PrismWidget as PrismWidget
    from maskprism.views.widget import show as show

_HOMES = {
    "CoefficientTable": "table",
    "Decomposition": "decompose",
    "Edit": "decompose",
    "Instance": "prediction",
    "Letterbox": "geometry",
    "MaskRule": "masks",
    "MaskprismError": "errors",
    "Model": "models",
    "ModelSpec": "models",
    "Prediction": "prediction",
    "Preprocessing": "preprocessing",
    "PrismWidget": "views.widget",
    "RULES": "masks",
    "decode": "core.decoding",
    "from_arrays": "arrays",
    "knock_out": "analysis.instance.sufficiency",
    "load": "models",
    "pixel_query": "analysis.instance.regions",
    "read_image": "images",
    "roles": "analysis.instance.roles",
    "shapley": "analysis.instance.shapley",
    "show": "views.widget",
    "sufficiency": "analysis.instance.sufficiency",
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
