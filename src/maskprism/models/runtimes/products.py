"""What a PyTorch model multiplies, seen while it runs: no layer has to be known by name, nothing is changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch.overrides import TorchFunctionMode


class Product(NamedTuple):
    """One product: its factors and what came out.

    Attributes
    ----------
    equation
        Equation of an einsum; None for a matrix product.
    """

    equation: str | None
    left: Any
    right: Any
    result: Any


class LastProduct(TorchFunctionMode):  # type: ignore[misc]  # torch is not there where types are checked
    """While it is entered, remembers the last einsum or matrix product that `wanted` says yes to."""

    def __init__(self, wanted: Callable[[Product], bool]) -> None:
        super().__init__()
        self._wanted = wanted
        self.found: Product | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Let every function do what it does, and look at the products."""
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        product = None
        if name == "einsum" and len(args) == 3:
            product = Product(str(args[0]).replace(" ", ""), args[1], args[2], result)
        elif name in ("matmul", "__matmul__", "bmm") and len(args) == 2:
            product = Product(None, args[0], args[1], result)
        if product is not None and self._wanted(product):
            self.found = product
        return result
