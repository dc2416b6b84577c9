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
    example="report results --out results/index.html",
    answer="`files`",
)
def report(folders: list[Path], /, *, out: Out, overwrite: Replace = False, output: Output = Output()) -> Outcome:
    """Write an index over results: one address for all of them.

    Links what diagnose, atlas, tune and page wrote, and writes a page of their pictures and tables for the results of
    prototypes, basis and compare. All but page lead back to it. Nothing is computed anew.

    Parameters
    ----------
    folders
        Folders with results; their subfolders are looked at, too.
    out
        File of the index, such as results/index.html.
    """
    from maskprism.reports.index import write_house

    check_out(out, overwrite=overwrite, suffix=".html")
    written = write_house(folders, out)
    print(f"{out}, and {counted(len(written) - 1, 'page')} that lead back to it")
    return Outcome({"files": written})
