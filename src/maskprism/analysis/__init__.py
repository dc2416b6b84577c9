"""Why masks look as they do: exact attribution, error budgets against ground truth, comparison of models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from maskprism._common.lazy import lazy_submodules

if not TYPE_CHECKING:  # type checkers shall know the names that are here
    __getattr__, __dir__ = lazy_submodules(__name__)
