"""The examples in docstrings run, in an empty folder, and print what they say."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest

import maskprism

SOURCE = Path(maskprism.__file__).parent
MODULES = sorted(
    ".".join(("maskprism", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")
    for path in SOURCE.rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    failed, run = doctest.testmod(import_module(name))
    assert run > 0
    assert failed == 0, f"see the output: {failed} of {run} lines of the examples in {name}"


def test_every_headline_name_has_an_example() -> None:
    """Those that somebody meets first; constants and classes that others give back need none."""
    names = (
        *("load", "from_arrays", "open_dataset", "explain", "extract", "diagnose", "compare", "tune", "decode", "show"),
        *("Decomposition", "Edit", "roles", "shapley", "pixel_query", "sufficiency"),
    )
    assert [name for name in names if ">>> " not in (getattr(maskprism, name).__doc__ or "")] == []
