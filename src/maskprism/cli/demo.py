"""maskprism demo."""

from __future__ import annotations

import sys
from pathlib import Path


def demo(*, out: Path = Path("maskprism-demo")) -> None:
    """Show everything on sample scenes, with the bundled model: nothing else is needed.

    Draws scenes with exact ground truth, explains the most confident instance of each, writes the
    coefficient table of all instances, draws its histograms and correlation, diagnoses the masks
    against the ground truth, and ends with an interactive page of all scenes.

    Parameters
    ----------
    out
        Folder for the results.
    """
    from maskprism.demo import run_demo

    result = run_demo(out, on_step=lambda step: print(f"... {step}", file=sys.stderr))
    first = min(path for path in result.pictures.iterdir() if path.is_dir())
    found = {
        result.page: "open it in a browser: move a coefficient, watch the mask",
        result.report: "open it, too: where the masks lose, and what to work on",
        first / "00-assembly.png": "how one mask adds up",
        first / "00-prototypes.png": "the 32 prototypes, and what this instance makes of them",
        first / "00-contributions.png": "what each of them adds",
        result.table: "the coefficients of all instances",
        result.histograms: "how they are distributed",
        result.correlation: "which of them go together",
        result.scenes / "data.yaml": "the scenes with their ground truth",
    }
    width = max(len(str(path)) for path in found)
    print(f"{result.instances} instances in {len(list(result.pictures.iterdir()))} scenes. Where to look first:")
    for path, what in found.items():
        print(f"  {path!s:<{width}}  {what}")
    print("With your own model: maskprism explain photo.jpg --model yours.pt --out pictures")
