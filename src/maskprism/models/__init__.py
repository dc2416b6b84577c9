"""Models: a runtime (how tensors are computed) plus a family (how tensors are read).

`load` opens one; `Model.predict` turns images into `Prediction`s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from maskprism._common.lazy import lazy_submodules

if TYPE_CHECKING:  # for type checkers and editors; at run time __getattr__ imports on first use
    from maskprism.models.loading import load as load
    from maskprism.models.model import Model as Model
    from maskprism.models.model import ModelSpec as ModelSpec
    from maskprism.models.options import NO_MODEL as NO_MODEL
    from maskprism.models.options import SAMPLE as SAMPLE
    from maskprism.models.options import SAMPLE_MODEL as SAMPLE_MODEL
    from maskprism.models.options import Detections as Detections
    from maskprism.models.options import Reading as Reading
else:
    __getattr__, __dir__ = lazy_submodules(
        __name__,
        {"load": "loading"}
        | dict.fromkeys(("Model", "ModelSpec"), "model")
        | dict.fromkeys(("NO_MODEL", "SAMPLE", "SAMPLE_MODEL", "Detections", "Reading"), "options"),
    )
