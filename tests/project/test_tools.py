"""Benchmarks and maintainers' tools go with the package: what they import from it is there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NEED_TORCH = {"train_sample_model.py", "labels_worth.py"}
TOOLS = [
    path
    for path in (*sorted((ROOT / "benchmarks").rglob("*.py")), *sorted((ROOT / "utils").glob("*.py")))
    if path.name not in NEED_TORCH
]


def test_benchmarks_and_tools_can_be_imported() -> None:
    assert len(TOOLS) > 10
    code = (
        "import runpy, sys\n"
        "for path in sys.argv[1:]:\n"
        "    print(path, flush=True)\n"
        "    sys.path[0] = path.rpartition('/')[0]\n"
        "    runpy.run_path(path, run_name='imported')\n"
    )
    command = [sys.executable, "-c", code, *(path.as_posix() for path in TOOLS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{done.stdout.splitlines()[-1]}\n{done.stderr}"
