"""How do two networks differ, and would fewer prototypes do?

| name | answers |
|---|---|
| `compare`, `Comparison` | what differs between two networks on the same images? |
| `Tolerance`, `summary_of` | is that within bounds, and what does it say in plain words? |
| `pair_instances` | which instance of one is which of the other? |
| `PrototypeSimilarity` | are their prototypes alike, one to one and as a space? |
| `swap` | did the coefficients, the prototypes or the boxes change the mask? |
| `LogitDrift` | which prototypes moved the logits, and flipped pixels? |
| `reductions`, `reduce_file` | how few prototypes would do, and what is the file like then? |
"""

from __future__ import annotations

from maskprism.analysis.networks.comparison import Comparison, Tolerance
from maskprism.analysis.networks.logit_drift import LogitDrift
from maskprism.analysis.networks.paired_run import compare
from maskprism.analysis.networks.pairing import pair_instances
from maskprism.analysis.networks.reduced_file import ReducedFile, reduce_file
from maskprism.analysis.networks.reduction import Reduction, reductions
from maskprism.analysis.networks.similarity import PrototypeSimilarity
from maskprism.analysis.networks.summary import sentences, summary_of
from maskprism.analysis.networks.swap import Swap, swap

__all__ = [
    "Comparison",
    "LogitDrift",
    "PrototypeSimilarity",
    "ReducedFile",
    "Reduction",
    "Swap",
    "Tolerance",
    "compare",
    "pair_instances",
    "reduce_file",
    "reductions",
    "sentences",
    "summary_of",
    "swap",
]
