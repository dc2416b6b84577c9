"""Fuzzing at length: `make fuzz`, or one case again: `make fuzz ARGS="--kind coco --seed 123"`."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.progress import track
from rich.table import Table

from fuzz.attempt import KINDS, Failure
from fuzz.pool import Case, run


def shares(count: int, kinds: Sequence[str]) -> dict[str, int]:
    """How many of `count` cases each kind gets, by weight and at least one."""
    total = sum(KINDS[kind].weight for kind in kinds)
    return {kind: max(1, round(count * KINDS[kind].weight / total)) for kind in kinds}


def cases(of_each: dict[str, int], first: int = 0) -> Iterator[Case]:
    """Seeds from `first` on, kind after kind."""
    return ((kind, first + number) for kind, count in of_each.items() for number in range(count))


def by_cause(failures: Sequence[Failure]) -> dict[tuple[str, str, str], list[Failure]]:
    """Failures of the same kind, type and place together, the most frequent first."""
    counts = Counter((one.kind, one.error, one.where) for one in failures)
    return {
        cause: [one for one in failures if (one.kind, one.error, one.where) == cause]
        for cause, _ in counts.most_common()
    }


def report(failures: Sequence[Failure]) -> str:
    """One paragraph per cause, with a case to run again."""
    return "\n".join(
        f"{len(found)} x {kind}: {error} at {where}: {found[0].message}\n"
        f'    make fuzz ARGS="--kind {kind} --seed {found[0].seed}"  ({found[0].notes})'
        for (kind, error, where), found in by_cause(failures).items()
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="cases of all kinds together")
    parser.add_argument("--kind", action="append", choices=KINDS, help="this kind only; may be given again")
    parser.add_argument("--seed", type=int, help="this case of the kind only")
    parser.add_argument("--first", type=int, default=0, help="the first seed of every kind")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--limit-s", type=float, default=10, help="seconds that one case may take")
    given = parser.parse_args()
    console = Console()
    kinds = given.kind or list(KINDS)
    of_each = shares(given.count, kinds) if given.seed is None else dict.fromkeys(kinds, 1)
    todo = cases(of_each, given.first if given.seed is None else given.seed)
    outcomes = run(todo, workers=given.workers, limit_s=given.limit_s)
    failures = [
        failure for _, failure in track(outcomes, "damaging files", sum(of_each.values()), console=console) if failure
    ]
    table = Table("kind", "cases", "failures")
    failed = Counter(failure.kind for failure in failures)
    for kind, count in of_each.items():
        table.add_row(kind, str(count), str(failed[kind]))
    console.print(table)
    console.print(report(failures), markup=False, highlight=False, soft_wrap=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
