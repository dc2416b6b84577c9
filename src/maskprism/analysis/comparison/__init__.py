"""How do two models differ?

| name | answers |
|---|---|
| `compare`, `Comparison` | what differs between two models on the same images? |
| `Tolerance`, `summary_of` | is that within bounds, and what does it say in plain words? |
| `pair_instances` | which instance of one is which of the other? |
| `PrototypeSimilarity` | are their prototypes alike, one to one and as a space? |
| `swap` | did the coefficients, the prototypes or the boxes change the mask? |
| `LogitDrift` | which prototypes moved the logits, and flipped pixels? |
"""

from __future__ import annotations

from maskprism.analysis.comparison.logit_drift import LogitDrift
from maskprism.analysis.comparison.paired_run import compare
from maskprism.analysis.comparison.pairing import pair_instances
from maskprism.analysis.comparison.part_swaps import Swap, swap
from maskprism.analysis.comparison.report import Comparison, Tolerance
from maskprism.analysis.comparison.similarity import PrototypeSimilarity
from maskprism.analysis.comparison.summary import sentences, summary_of

__all__ = [
    "Comparison",
    "LogitDrift",
    "PrototypeSimilarity",
    "Swap",
    "Tolerance",
    "compare",
    "pair_instances",
    "sentences",
    "summary_of",
    "swap",
]
