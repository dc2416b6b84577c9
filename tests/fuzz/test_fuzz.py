"""Damaged files of every kind end in a result or in one of our errors: some of them here, more with `make fuzz`."""

from __future__ import annotations

import pytest

from fuzz.attempt import KINDS, put, valid
from fuzz.misbehave import misbehave
from fuzz.pool import run
from fuzz.run import cases, report, shares


@pytest.mark.parametrize("kind", KINDS)
def test_undamaged_files_are_taken(kind, tmp_path, monkeypatch):
    for number, files in enumerate(valid(kind)):
        folder = tmp_path / str(number)
        put(files, folder)
        monkeypatch.chdir(folder)
        KINDS[kind].use(folder)


@pytest.mark.parametrize("count", [50, pytest.param(2000, marks=pytest.mark.study)])
def test_damaged_files_end_in_a_result_or_an_error_of_ours(count):
    failures = [failure for _, failure in run(cases(shares(count, list(KINDS))), limit_s=30) if failure]
    assert not failures, report(failures)


@pytest.mark.study
def test_crashes_and_hangs_are_failures_too():
    todo = [("nothing", 0), ("crash", 1), ("nothing", 2), ("hang", 3), ("nothing", 4)]
    outcomes = dict(run(todo, workers=1, limit_s=0.5, attempt=misbehave))
    assert {case: failure and (failure.error, failure.message) for case, failure in outcomes.items()} == {
        ("nothing", 0): None,
        ("crash", 1): ("Crash", "SIGSEGV"),
        ("nothing", 2): None,
        ("hang", 3): ("Hang", "it took longer than 0.5 s"),
        ("nothing", 4): None,
    }
