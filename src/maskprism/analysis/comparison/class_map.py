"""Which class of one model is which of another: by name, by id, and, where instances contradict both, by position."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Int64

    from maskprism.core.prediction import Prediction

_PURE = 0.9
"""Least share of the pairs of a class that go to its best match, and of those of the best match that come from it."""
_MIN_PAIRS = 3
"""Fewer pairs are no evidence that a class has another name: one confused instance looks the same."""
_MIN_RENAMED = 5
"""The same for a class of B whose name A has not: it may well be another thing at the same position."""


def classes_in_a(b: Prediction, a: Prediction, moved: Mapping[int, int]) -> Int64[np.ndarray, " N"]:
    """Return the classes of B's instances as A numbers them; -1 for a class that A has not.

    Parameters
    ----------
    b, a
        Predictions of both models.
    moved
        B's class by A's class where it is not the one of that name; see `ClassPairs.moved`.
    """
    theirs = {class_id: _namesake(class_id, b.names, a.names) for class_id in np.unique(b.classes).tolist()}
    taken, sources = set(moved), {class_b: class_a for class_a, class_b in moved.items()}
    found = [
        sources[class_id] if class_id in sources else -1 if theirs[class_id] in taken else theirs[class_id]
        for class_id in b.classes.tolist()
    ]
    return np.array(found, dtype=np.int64)


def _namesake(class_id: int, own: Mapping[int, str], other: Mapping[int, str]) -> int:
    """Return the id in `other` of the class of that name; the same id if the models share no name, or all of them."""
    if dict(own) == dict(other) or not set(own.values()) & set(other.values()):
        return class_id
    name = own.get(class_id)
    return next((other_id for other_id, other_name in other.items() if other_name == name), -1)


@dataclass
class ClassPairs:
    """How often an instance of a class of A lies where an instance of a class of B does."""

    counts: Counter[tuple[int, int]] = field(default_factory=Counter)

    def update(self, a: Prediction, b: Prediction) -> None:
        """Add N instances of A and the N instances of B at the same positions, whatever their classes."""
        self.counts.update(zip(a.classes.tolist(), b.classes.tolist(), strict=True))

    def moved(self, names_a: Mapping[int, str], names_b: Mapping[int, str]) -> dict[int, int]:
        """Return B's class by A's class for those that are one to one and not of the same name.

        Parameters
        ----------
        names_a, names_b
            Class names by id.

        Returns
        -------
        dict
            Empty where classes are as named, or where there are too few pairs to tell. A class counts with three pairs,
            with five if A has no class of that name. Rarer ones count if most of all pairs have another class than the
            name says, and where a class that counts has taken their name, so that they must be elsewhere.
        """
        of_a, of_b = Counter[int](), Counter[int]()
        for (class_a, class_b), count in self.counts.items():
            of_a[class_a] += count
            of_b[class_b] += count
        pure = {
            pair: count
            for pair, count in self.counts.items()
            if count >= _PURE * max(of_a[pair[0]], of_b[pair[1]]) and pair[1] != _namesake(pair[0], names_a, names_b)
        }
        shared = set(names_a.values()) & set(names_b.values())
        renamed = {pair for pair in pure if shared and names_b.get(pair[1]) not in shared}
        total = sum(pure.values())
        most = total >= (_MIN_RENAMED if renamed else _MIN_PAIRS) and 2 * total > self.counts.total()
        kept = {
            pair for pair, count in pure.items() if most or count >= (_MIN_RENAMED if pair in renamed else _MIN_PAIRS)
        }
        while True:
            used_b, used_a = {class_b for _, class_b in kept}, {class_a for class_a, _ in kept}
            displaced = {
                (class_a, class_b)
                for class_a, class_b in pure.keys() - kept
                if _namesake(class_a, names_a, names_b) in used_b or _namesake(class_b, names_b, names_a) in used_a
            }
            if not displaced:
                return dict(sorted(kept))
            kept |= displaced
