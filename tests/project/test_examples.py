"""The examples in docstrings of the public names run."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

import maskprism

VERBS = ("compare", "decode", "diagnose", "explain", "extract", "from_arrays", "load", "open_dataset", "show", "tune")


def examples(name: str) -> list[doctest.DocTest]:
    thing = getattr(maskprism, name)
    if not callable(thing):
        return []
    return [one for one in doctest.DocTestFinder(recurse=False).find(thing, name) if one.examples]


@pytest.mark.parametrize("name", [name for name in maskprism.__all__ if examples(name)])
def test_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for one in examples(name):
        one.globs = {}  # as in a new session: nothing of the module is there
        assert runner.run(one).failed == 0, f"the example of {name} fails; see the output"


def test_every_verb_has_an_example() -> None:
    assert all(examples(name) for name in VERBS)
