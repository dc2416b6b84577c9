"""Of which kind the prototypes of a model are, over the images that a page or a server shows."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from maskprism.analysis.intervals import too_few
from maskprism.analysis.prototypes.positional import TAG_RULES, DependenceStudy

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import UInt8

    from maskprism.core.prediction import Prediction


class Kinds:
    """Collects images and their predictions, from any thread; see `DependenceStudy`."""

    def __init__(self) -> None:
        self.images = 0
        self._study: DependenceStudy | None = None
        self._prototypes = 0
        self._lock = threading.Lock()

    def add(self, picture: UInt8[np.ndarray, "H W 3"], prediction: Prediction) -> None:
        """Add one image (BGR). Images of a model with another number of prototypes end the count."""
        with self._lock:
            if self._study is None:
                self._prototypes = len(prediction.prototypes)
                self._study = DependenceStudy(self._prototypes, prediction.names, top=1)
            if self._prototypes != len(prediction.prototypes):
                self._prototypes = -1
                return
            self._study.update(picture, prediction)
            self.images += 1

    def found(self) -> dict[str, Any] | None:
        """Return how many images, the tags of every prototype, and what each means; None with too few images."""
        with self._lock:
            if self._study is None or self._prototypes < 0 or too_few(self.images):
                return None
            dependence = self._study.compute()
        return {
            "images": self.images,
            "tags": [list(dependence.tags(k)) for k in range(len(dependence))],
            "rules": TAG_RULES,
        }
