"""What are the prototypes of a model, and in which basis can they be read?

| name | answers |
|---|---|
| `Usage`, `CanonicalBasis`, `CanonicalModel` | how many dimensions are really used, and which basis shows them? |
| `study_prototypes`, `DependenceStudy` | does a prototype know where it is, or what it sees? |
| `MovementTest`, `move` | does it follow the picture when that is shifted, flipped or padded? |

`covariance` sums up many samples batch by batch, `position_maps` how a prototype depends on the position.
"""

from __future__ import annotations

from maskprism.analysis.prototypes.basis import CanonicalBasis, CanonicalModel, Usage, change_basis
from maskprism.analysis.prototypes.covariance import RunningCovariance
from maskprism.analysis.prototypes.positional import Dependence, DependenceStudy, study_prototypes
from maskprism.analysis.prototypes.translation import Movement, MovementTest, move

__all__ = [
    "CanonicalBasis",
    "CanonicalModel",
    "Dependence",
    "DependenceStudy",
    "Movement",
    "MovementTest",
    "RunningCovariance",
    "Usage",
    "change_basis",
    "move",
    "study_prototypes",
]
