"""Would fewer prototypes do?

| name | answers |
|---|---|
| `reductions`, `Reduction` | how well do the masks hold with each number of prototypes? |
| `reduce_file`, `ReducedFile` | the model file that has fewer, and what it is like |
"""

from __future__ import annotations

from maskprism.analysis.reduction.reduced_file import ReducedFile, reduce_file
from maskprism.analysis.reduction.trade_off import Reduction, reductions

__all__ = ["ReducedFile", "Reduction", "reduce_file", "reductions"]
