"""Where does a model lose mask AP on a data set, and what should be worked on?

| name | answers |
|---|---|
| `diagnose`, `Diagnosis` | everything below, for a whole data set |
| `average_precision` | what is COCO's AP of these detections? |
| `ResampledAP` | what is the AP of resampled images? |
| `ApIntervals`, `costs`, `with_perfect_detection` | what do masks and what does detection cost, and how sure is that? |
| `AP_PROTOCOLS` | which three decodes is mask AP measured under, and by which tools? |
| `Checkpoints` | which checkpoint of a training is best, and how sure is that? |
| `error_cost`, `find_errors` | which kinds of errors (TIDE) cost AP? |
| `findings_of` | what do these numbers say, and what should be tried? |
"""

from __future__ import annotations

from maskprism.analysis.dataset.ap_bootstrap import ApIntervals
from maskprism.analysis.dataset.ap_protocols import AP_PROTOCOLS, ApProtocol
from maskprism.analysis.dataset.checkpoints import Checkpoint, Checkpoints
from maskprism.analysis.dataset.coco_ap import AveragePrecision, average_precision
from maskprism.analysis.dataset.diagnosis import Diagnosis, diagnose
from maskprism.analysis.dataset.findings import Finding, findings_of
from maskprism.analysis.dataset.oracles import costs, with_perfect_detection
from maskprism.analysis.dataset.resampled_ap import ResampledAP
from maskprism.analysis.dataset.tide import ErrorCost, error_cost
from maskprism.analysis.truth.matching import find_errors

__all__ = [
    "AP_PROTOCOLS",
    "ApIntervals",
    "ApProtocol",
    "AveragePrecision",
    "Checkpoint",
    "Checkpoints",
    "Diagnosis",
    "ErrorCost",
    "Finding",
    "ResampledAP",
    "average_precision",
    "costs",
    "diagnose",
    "error_cost",
    "find_errors",
    "findings_of",
    "with_perfect_detection",
]
