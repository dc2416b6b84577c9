"""maskprism report."""

from __future__ import annotations

from pathlib import Path

from maskprism._common.text import counted
from maskprism.cli.options import Out, Replace, check_out
from maskprism.cli.output import Outcome, Output, command


@command(
    group="Diagnose",
    order=30,
    page="diagnose.md#one-address-for-all-results",
    examples=("report results --out results/index.html", "report diagnosis comparison --out index.html"),
    answer="`files`, `notes` (results that are not in the index, and what to do)",
)
def report(folders: list[Path], /, *, out: Out, overwrite: Replace = False, output: Output = Output()) -> Outcome:
    """Write an index over results: one address for all of them.

    Reads the manifests that commands write beside their results (NAME.manifest.json). Links what has a page, writes a
    page of pictures and tables for what has none, and shows numbers and verdicts. Reports lead back to the index.
    Nothing is computed anew. A result of an older version has no manifest: run its command again.

    Parameters
    ----------
    folders
        With results; their subfolders are looked at, too.
    out
        File of the index, such as results/index.html.
    """
    from maskprism.cli import COMMANDS
    from maskprism.reports.index import write_index

    check_out(out, overwrite=overwrite, suffix=".html")
    written, notes = write_index(folders, out, order=[*COMMANDS])
    for note in notes:
        output.note(f"note: {note}")
    pages = len(written) - 1
    print(f"{out}, and {counted(pages, 'page')} that {'leads' if pages == 1 else 'lead'} back to it")
    return Outcome({"files": written, "notes": notes})
