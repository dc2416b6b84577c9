"""Which labels of a data set are wrong, and how?

| name | answers |
|---|---|
| `Measuring` | what is measured of the labels of one image, and of corrupted copies of them? |
| `LabelStudy`, `LabelReport`, `JudgedLabel` | how suspicious is every label, and what is wrong with it? |
| `suspicions`, `Suspicion` | how well are corrupted copies told from given labels? |
| `compare_splits` | does the model remember the labels of a split? |
| `shared_images` | which images of a split are in another one, too? |
| `judged_by_folds` | which images does the model of each fold judge? |
"""

from __future__ import annotations

from maskprism.analysis.labels.held_out import compare_splits, judged_by_folds, shared_images
from maskprism.analysis.labels.study import JudgedLabel, LabelReport, LabelStudy, Measuring
from maskprism.analysis.labels.suspicion import Suspicion, suspicions

__all__ = [
    "JudgedLabel",
    "LabelReport",
    "LabelStudy",
    "Measuring",
    "Suspicion",
    "compare_splits",
    "judged_by_folds",
    "shared_images",
    "suspicions",
]
