"""How long the atlas of a generated table takes and how much memory, beside pandas and scikit-learn doing the same.

python benchmarks/atlas.py [--rows 1000000]
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
