"""Tunings of little effort: few settings, one augmentation, short fits."""

from __future__ import annotations

from functools import partial

import pytest

from maskprism.analysis.tuning import tuning
from maskprism.analysis.tuning.fitting import Effort

LITTLE = Effort(ridges=(3.0, 0.3), views=1, steps=25)
tune = partial(tuning.tune, effort=LITTLE)


def with_little_effort(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every call of `tune` search as little by default; commands have no option for that."""
    defaults = tuning.tune.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "effort", LITTLE)
