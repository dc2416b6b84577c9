"""The registry of families: how the outputs of each are recognised and read, and what its own tools do around it.

A family is one `Family`, declared in a module of this folder. Two places name it, both in this file: `FamilyName`, for
type checkers and the command line, and `known_families`.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Literal

from maskprism._common.lazy import lazy_submodules

if TYPE_CHECKING:
    from maskprism.models.families.family import Family
else:  # type checkers shall know the names that are here
    __getattr__, __dir__ = lazy_submodules(__name__)

FamilyName = Literal["yolov5", "yolov8", "end2end", "yolact", "query", "solov2"]
"""How the outputs of a model are packed."""


@cache
def known_families() -> dict[FamilyName, Family]:
    """Import all families, the most general first.

    Returns
    -------
    dict
        Each `Family` by its name, in the order of `FamilyName`. The last is asked first whether a model is of it.
    """
    from maskprism.models.families import query, solov2, yolact, yolo

    return {family.name: family for family in (*yolo.FAMILIES, yolact.FAMILY, query.FAMILY, solov2.FAMILY)}
