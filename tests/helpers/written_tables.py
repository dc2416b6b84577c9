"""Written tables compared, and what interrupts their writing."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from maskprism.tables.stored_predictions import StoredPredictions
from maskprism.tables.table import CoefficientTable


def assert_same(out: Path, reference: Path) -> None:
    ours, expected = CoefficientTable.read(out), CoefficientTable.read(reference)
    assert ours.arrow.equals(expected.arrow)
    assert ours.images is not None
    assert ours.images.equals(expected.images)
    assert ours.metadata == expected.metadata
    if "stored" in ours.metadata:
        kept, wanted = (list(StoredPredictions.open(path).grams()) for path in (out, reference))
        assert [name for name, _ in kept] == [name for name, _ in wanted]
        assert len({name for name, _ in kept}) == len(kept) > 0
        assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(kept, wanted, strict=True))


def images_of(out: Path) -> dict[str, str]:
    images = CoefficientTable.read(out).images
    assert images is not None
    return dict(zip(images["image"].to_pylist(), images["status"].to_pylist(), strict=True))


def write_video(path: Path, frames: int) -> Path:
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    assert video.isOpened()
    for index in range(frames):
        video.write(cv2.blur(np.random.default_rng(index).integers(0, 256, (48, 64, 3), dtype=np.uint8), (7, 7)))
    video.release()
    return path


class Crash(BaseException):
    """Not an Exception, so that nothing handles it: the closest to a kill within one process."""
