"""maskprism demo."""

from __future__ import annotations

from pathlib import Path

from maskprism.cli.options import Out, Replace, check_out
from maskprism.cli.output import Outcome, Output, command


@command(
    group="Visualise",
    order=40,
    page="model_card.md",
    examples=("demo", "demo --out try"),
    answer="`scenes`, `pictures`, `table`, `histograms`, `correlation`, `report`, `page`, `atlas` (null without its "
    "extra), `index`, `instances`",
)
def demo(*, out: Out = Path("maskprism-demo"), overwrite: Replace = False, output: Output = Output()) -> Outcome:
    """Show everything on sample scenes: no model, no image is needed.

    Draws scenes with exact ground truth, and with the bundled model explains the most confident instance
    of some, writes the coefficient table of all instances, draws its histograms and correlation, diagnoses the
    masks against the ground truth, writes an interactive page of these scenes, and maps all instances (extra atlas).

    Parameters
    ----------
    out
        Folder for the results.
    """
    from dataclasses import asdict

    from maskprism.cli.sample_story import run_demo

    check_out(out, overwrite=overwrite, folder=True)
    result = run_demo(out, on_step=lambda step: output.note(f"... {step}"))
    first = min(path for path in result.pictures.iterdir() if path.is_dir())
    found = {
        result.index: "open it in a browser: it leads to all pages",
        result.page: "move a coefficient, watch the mask",
        result.report: "where the masks lose, and what to work on",
        **({} if result.atlas is None else {result.atlas: "all instances at once, and a map of them"}),
        first / "00-assembly.png": "how one mask adds up",
        first / "00-prototypes.png": "the 32 prototypes, and what this instance makes of them",
        first / "00-contributions.png": "what each of them adds",
        result.table: "the coefficients of all instances",
        result.histograms: "how they are distributed",
        result.correlation: "which of them go together",
        result.scenes / "data.yaml": "the scenes with their ground truth",
    }
    pictured = len(list(result.pictures.iterdir()))
    print(f"{result.instances} instances in all scenes, pictures of {pictured} of them. Where to look first:")
    output.list_files(found)
    print("With your own model: maskprism explain photo.jpg --model yours.pt --out pictures")
    return Outcome(asdict(result))
