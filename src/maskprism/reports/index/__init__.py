"""One address for what was computed: an index over folders of results, and a page for those that have none.

What `diagnose`, `atlas`, `tune` and `page` write is linked; their reports get a link back. `compare`, `basis` and
`prototypes` write pictures and tables: each of their results gets a page of them in the style of the reports.
"""

from __future__ import annotations

import html
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from maskprism._common.files import write_atomically
from maskprism._common.text import counted
from maskprism.errors import InputError, MaskprismError
from maskprism.io.untrusted import read_regular
from maskprism.reports.html import KICKER, Section, home_link, page
from maskprism.reports.index.pages import page_of
from maskprism.reports.index.result_types import ORDER, PAGE
from maskprism.reports.index.results import MOST_BYTES, OURS, Result, results_in, says


def write_house(folders: Sequence[Path], out: Path) -> list[Path]:
    """Write the index over these folders and their subfolders, the pages that were missing, and links back to it.

    Gives all files that were written. Files of others are left alone.
    Raises InputError where nothing is found or a name is taken, MaskprismError where a file is damaged, or cannot be
    read or written.
    """
    try:
        found = [result for folder in folders for result in results_in(folder)]
        found = list({result.page.resolve(): result for result in found}.values())
        if not found:
            raise InputError(
                f"{', '.join(map(str, folders))}: holds nothing that maskprism {', '.join(ORDER)} wrote; expected a "
                "folder with such results"
            )
        for result in found:
            if result.page.resolve() == out.resolve():
                raise InputError(f"{out}: is the page of a result; expected another name for the index")
            if result.kind.made and os.path.lexists(result.page) and not says(result.page, OURS):
                raise InputError(f"{result.page}: was not written by maskprism; move it away, for the page goes there")
        pages = {
            result.page: text
            for result in found
            if (text := page_of(result, _link(result.page, out)) if result.kind.made else _led_back(result, out))
        }
        for path, text in pages.items():
            write_atomically(path, text)
        write_atomically(out, _index(found, out))
    except UnicodeDecodeError as error:
        raise MaskprismError(f"a report is no longer UTF-8 ({error}); run the command that wrote it again") from None
    except OSError as error:
        raise MaskprismError(
            f"{error.filename or out}: cannot be read or written ({error.strerror or error})"
        ) from None
    return [out, *pages]


def _led_back(result: Result, out: Path) -> str:
    """A report of ours with a link to the index, in place of one to another index; nothing for other files."""
    if result.kind is PAGE or result.page.stat().st_size > MOST_BYTES:
        return ""
    text = read_regular(result.page, MaskprismError).decode("utf-8")  # it says that it is ours
    before, kicker, after = text.partition(KICKER)
    own = f"maskprism {result.kind.command}</p>"
    if not kicker or own not in after[:4096]:
        return ""
    return before + kicker + home_link(_link(result.page, out)) + after[after.find(own) :]


def _index(found: Sequence[Result], out: Path) -> str:
    groups = [[result for result in found if result.kind.command == command] for command in ORDER]
    return page(
        "report",
        title="All that was computed",
        subtitle=counted(len(found), "result"),
        warnings=(),
        tiles=(),
        sections=[_group(group, out) for group in groups if group],
    )


def _group(results: Sequence[Result], out: Path) -> Section:
    kind = results[0].kind
    items = "".join(_entry(result, out) for result in results)
    heading = f"{kind.words[0].upper()}{kind.words[1:]} ({kind.command})"
    return Section(kind.command, heading, f'<ul class="results">{items}</ul>')


def _entry(result: Result, out: Path) -> str:
    link = f'<a href="{_link(out, result.page)}">{html.escape(result.title)}</a>'
    names = "".join(f" <span class=quiet>{html.escape(name)}</span>" for name in result.networks)
    values = "".join(f"<span>{html.escape(name)} <b>{value}</b></span>" for name, value in result.numbers)
    return f"<li><p>{link}{names}</p>{f'<p class=values>{values}</p>' if values else ''}</li>"


def _link(start: Path, target: Path) -> str:
    """The address of a file relative to another, whatever the bytes of its name are."""
    relative = Path(os.path.relpath(target.resolve(), start.resolve().parent)).as_posix()
    return quote(relative.encode(errors="surrogateescape"))
