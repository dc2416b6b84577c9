"""Verdicts: numbers against their tolerances, with the intervals that say whether other images may tell otherwise."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from maskprism._common.text import rounded
from maskprism.analysis.intervals import Interval

VerdictOutcome = Literal["pass", "fail", "cannot tell"]
Bound = Literal["at least", "at most", "above"]


class Check(msgspec.Struct, frozen=True):
    """A number against its tolerance.

    Attributes
    ----------
    low, high
        The ends of its interval; None with too few images for one.
    bound, tolerance
        Such as "at least" .99.
    """

    title: str
    value: float
    low: float | None
    high: float | None
    bound: Bound
    tolerance: float

    @classmethod
    def of(cls, title: str, interval: Interval, bound: Bound, tolerance: float) -> Check:
        """Return the check of a value with its interval, whose ends may be NaN."""
        low, high = (None if math.isnan(end) else end for end in interval[1:])
        return cls(title, interval.mean, low, high, bound, tolerance)

    def holds(self, value: float) -> bool:
        """Return whether a value is within the tolerance."""
        if self.bound == "at most":
            return value <= self.tolerance
        return value >= self.tolerance if self.bound == "at least" else value > self.tolerance

    @property
    def outcome(self) -> VerdictOutcome:
        """Whether the whole interval is within the tolerance, beyond it, or holds it; without one, the value."""
        within = {self.holds(self.value if end is None else end) for end in (self.low, self.high)}
        if len(within) > 1:
            return "cannot tell"
        return "pass" if within == {True} else "fail"

    @property
    def value_text(self) -> str:
        """The value with its interval."""
        if self.low is None or self.high is None:
            return rounded(self.value, 4)
        return f"{rounded(self.value, 4)} ({rounded(self.low, 4)} to {rounded(self.high, 4)})"

    @property
    def tolerance_text(self) -> str:
        """The tolerance."""
        return f"{self.bound} {self.tolerance:g}"

    def __str__(self) -> str:
        return f"{self.title} {self.value_text}, tolerance {self.tolerance_text}"


class Verdict(msgspec.Struct, frozen=True):
    """Whether what was checked is as it should be, why, and the numbers that were checked."""

    outcome: VerdictOutcome
    why: str = ""
    checks: list[Check] = []

    def __str__(self) -> str:
        word = self.outcome.upper()
        return f"{word}: {self.why}" if self.why else word
