"""A kind of foreign file: valid ones, how each of their files may be damaged, and what a user does with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from fuzz.mutate import Damage


@dataclass(frozen=True)
class Kind:
    """A kind of foreign file.

    write: writes a valid input into a folder; there may be several. damage: by pattern of file names, the kinds of
    damage it may suffer. use: what a user does with the folder. weight: its part of all cases, small for slow kinds.
    """

    write: tuple[Callable[[Path], None], ...]
    damage: Mapping[str, tuple[Damage, ...]]
    use: Callable[[Path], None]
    weight: int


def image(height: int = 24, width: int = 32, seed: int = 0) -> np.ndarray:
    """A small image, always the same."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_NEAREST)


def write_images(folder: Path, count: int = 2, suffix: str = ".png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        (folder / f"{index}{suffix}").write_bytes(cv2.imencode(suffix, image(seed=index))[1].tobytes())
