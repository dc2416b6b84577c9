"""Predictions for other tools, and training with Ultralytics.

| module | what it makes of a prediction |
|---|---|
| `coco` | COCO results and annotations |
| `yolo_txt` | label files of Ultralytics |
| `labelme` | LabelMe json |
| `supervision`, `fiftyone` | detections of these packages |
| `dataframe` | pandas |
| `notebook` | what notebooks show |
| `exports` | the files that `maskprism predict` writes |
| `training` | records of prototypes while a model learns |
| `loggers` | the same records, and the error budget, for TensorBoard, Weights & Biases, MLflow and ClearML |

Tables need nothing of this: pandas, polars, DuckDB and Hugging Face `datasets` read their Parquet unchanged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from maskprism._common.lazy import lazy_submodules

if not TYPE_CHECKING:  # type checkers shall know the names that are here
    __getattr__, __dir__ = lazy_submodules(__name__)
