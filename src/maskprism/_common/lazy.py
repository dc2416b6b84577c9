"""Names and modules of a package that are imported when they are first used."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules
from typing import Any


def lazy_submodules(
    package: str, homes: Mapping[str, str] | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make the ``__getattr__`` and ``__dir__`` of a package whose modules need no import statement of their own.

    Parameters
    ----------
    package
        The package's ``__name__``.
    homes
        Names that the package offers, and in which of its modules each is.

    Returns
    -------
    tuple
        Two functions: one imports what a name stands for, and raises AttributeError where there is nothing; the other
        lists the names that the package has and its modules. Names that begin with an underscore are private.
    """
    homes = homes or {}

    def attribute(name: str) -> Any:
        if name in homes:
            return getattr(import_module(f"{package}.{homes[name]}"), name)
        if name.startswith("_") or find_spec(f"{package}.{name}") is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return import_module(f"{package}.{name}")

    def names() -> list[str]:
        module = sys.modules[package]
        known = {submodule.name for submodule in iter_modules(module.__path__)} | set(vars(module)) | set(homes)
        return sorted(name for name in known if not name.startswith("_"))

    return attribute, names
