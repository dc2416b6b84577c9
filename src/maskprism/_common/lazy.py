"""Modules of a package that are imported when they are first named."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules
from types import ModuleType
from typing import Any


def lazy_submodules(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make the ``__getattr__`` and ``__dir__`` of a package whose modules need no import statement of their own.

    Parameters
    ----------
    package
        The package's ``__name__``.

    Returns
    -------
    tuple
        Two functions: one imports the module of a name, and raises AttributeError where there is none; the other
        lists the names that the package has and its modules. Names that begin with an underscore are private.
    """

    def submodule(name: str) -> ModuleType:
        if name.startswith("_") or find_spec(f"{package}.{name}") is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return import_module(f"{package}.{name}")

    def names() -> list[str]:
        module = sys.modules[package]
        found = {one.name for one in iter_modules(module.__path__)} | set(vars(module))
        return sorted(name for name in found if not name.startswith("_"))

    return submodule, names
