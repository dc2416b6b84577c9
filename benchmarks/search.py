"""How long a neighbour query takes over a generated table, beside the plainest way in NumPy.

python benchmarks/search.py [--rows 1000000]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from maskprism.tables.similar import Index, Space

QUERIES = 7


def median_ms(ask: Callable[[np.ndarray[Any, Any]], Any], queries: np.ndarray[Any, Any]) -> float:
    took = []
    for query in queries:
        began = time.perf_counter()
        ask(query)
        took.append(1000 * (time.perf_counter() - began))
    return statistics.median(took)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(rows, 32)).astype(np.float32)
    queries = weights[:QUERIES] + np.float32(0.1)
    root = rng.normal(size=(32, 32)).astype(np.float32)
    gram = root @ root.T

    def plain_cosine(query: np.ndarray[Any, Any]) -> Any:
        cosine = weights @ query / (np.linalg.norm(weights, axis=1) * np.linalg.norm(query))
        return np.argsort(-cosine)[:20]

    def plain_mask(query: np.ndarray[Any, Any]) -> Any:
        difference = weights - query
        return np.argsort(np.einsum("ni,ij,nj->n", difference, gram, difference, optimize=True))[:20]

    for name, plain, space in (
        ("cosine", plain_cosine, Space("cosine")),
        ("mask", plain_mask, Space("mask", gram)),
    ):
        began = time.perf_counter()
        index = Index(space, weights)
        ready_s = time.perf_counter() - began
        ours, theirs = (
            median_ms(lambda query, index=index: index.nearest(query, 20), queries),
            median_ms(plain, queries),
        )
        print(
            f"{name:>6}: {ours:6.1f} ms a query over {rows:,} vectors (made ready in {ready_s:.2f} s); "
            f"plain NumPy {theirs:6.0f} ms, {theirs / ours:.1f} x"
        )


if __name__ == "__main__":
    main()
