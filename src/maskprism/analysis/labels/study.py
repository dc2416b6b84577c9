"""All labels of a data set: measured image by image, judged together at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from maskprism.analysis.labels.corruption import CORRUPTIONS, MIN_PIXELS, corrupt
from maskprism.analysis.labels.features import ImageEvidence, as_matrix, label_features
from maskprism.analysis.labels.suspicion import Suspicion, kinds, suspicions
from maskprism.analysis.truth.overlaps import Region

if TYPE_CHECKING:
    from jaxtyping import UInt8

    from maskprism.core.prediction import Prediction
    from maskprism.datasets import GroundTruth

COPIES = 3
"""Corrupted copies of each label."""
