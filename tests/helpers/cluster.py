"""What the workers of a cluster need to find: the package and the helpers of tests."""

from __future__ import annotations

import os
from pathlib import Path


def with_tests() -> str:
    """The places of PYTHONPATH, and the folder of all tests."""
    return os.pathsep.join(filter(None, (str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH"))))
