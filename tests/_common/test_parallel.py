"""Threads of libraries, while workers are the threads."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from maskprism._common.parallel import _libraries, one_thread_in_libraries


def threads() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def test_libraries_have_one_thread_and_afterwards_what_they_had() -> None:
    with threadpool_limits(2):
        with one_thread_in_libraries():
            assert threads() == {1}
        assert threads() == {2}


def test_libraries_are_looked_for_again_when_modules_have_come(monkeypatch: pytest.MonkeyPatch) -> None:
    with one_thread_in_libraries():
        before = _libraries(len(sys.modules))
    monkeypatch.setitem(sys.modules, "a module that brings a library", ModuleType("library"))
    assert _libraries(len(sys.modules)) is not before
