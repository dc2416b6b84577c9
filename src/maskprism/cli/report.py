"""maskprism report."""

from __future__ import annotations

from pathlib import Path

from maskprism.cli.options import Out
from maskprism.cli.output import Outcome, Output, command
from maskprism.text import counted


@command
def report(folders: list[Path], /, *, out: Out, output: Output = Output()) -> Outcome:
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
    from maskprism.errors import InputError
    from maskprism.foreign import is_folder
    from maskprism.views.house import write_house

    if is_folder(out):
        raise InputError(f"{out}: is a folder; expected the name of the index, such as {out / 'index.html'}")
    written = write_house(folders, out)
    print(f"{out}, and {counted(len(written) - 1, 'page')} that lead back to it")
    return Outcome({"files": written})
