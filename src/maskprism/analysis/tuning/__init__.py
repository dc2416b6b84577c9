"""What would better coefficients gain, and how are they had without training?

| name | answers |
|---|---|
| `tune`, `Tuning` | which correction of the coefficients is best, and what does it gain on images that took no part? |
| `Effort` | how long is searched for it? |
| `fit`, `Setting` | which correction is best on given evidence? |
| `evidence_of`, `Evidence` | what can be learned from an image with its ground truth? |
| `pseudo_labels`, `PseudoLabels` | what can be learned from a better model, where there are no labels? |
| `choose_decode_rule`, `DecodeRuleChoice` | which crop margin and logit threshold draw the best masks? |
| `cross_fit` | how are settings chosen, and corrections measured, without deceiving oneself? |
"""

from __future__ import annotations

from maskprism.analysis.tuning.decode_rule import DecodeRuleChoice, choose_decode_rule
from maskprism.analysis.tuning.evidence import Evidence, evidence_of
from maskprism.analysis.tuning.fitting import Effort, Setting, fit
from maskprism.analysis.tuning.teacher import PseudoLabels, pseudo_labels
from maskprism.analysis.tuning.tuning import Tuning, tune
from maskprism.analysis.tuning.validation import CrossFit, cross_fit

__all__ = [
    "CrossFit",
    "DecodeRuleChoice",
    "Effort",
    "Evidence",
    "PseudoLabels",
    "Setting",
    "Tuning",
    "choose_decode_rule",
    "cross_fit",
    "evidence_of",
    "fit",
    "pseudo_labels",
    "tune",
]
