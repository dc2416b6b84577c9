"""One address for what was computed: an index over results, made from their manifests, and pages for those without one.

A result whose manifest names a page is linked, and a report gets a link back. Of every other one, a page shows its
pictures and tables.
"""

from __future__ import annotations

import html
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from maskprism._common.files import write_atomically
from maskprism._common.text import counted
from maskprism.errors import InputError, MaskprismError
from maskprism.io.untrusted import read_regular
from maskprism.reports.html import Section, home_link, outcome_badge, page
from maskprism.reports.index.pages import RERUN, Result, missing, page_of
from maskprism.reports.manifest import MOST_BYTES, SUFFIX, read_manifest
from maskprism.viewer.page import KICKER

_OURS = b'<meta name="generator" content="maskprism">'
_HEAD_BYTES = 1 << 20
_MAP = "map.html"
"""Beside the page of an atlas."""


def write_index(folders: Sequence[Path], out: Path, *, order: Sequence[str] = ()) -> tuple[list[Path], list[str]]:
    """Write the index over the results in folders and their subfolders, the pages that were missing, and links back.

    Files of others are left alone; links to folders are not followed.

    Parameters
    ----------
    folders
        The folders.
    out
        The file of the index.
    order
        Names of commands: their results come first, in this order.

    Returns
    -------
    tuple
        All files that were written, and what to know of results that are not in the index.

    Raises
    ------
    InputError
        If there is no result, or a name is taken.
    MaskprismError
        If a file cannot be read or written.
    """
    try:
        results, notes = results_in(folders)
        if not results:
            raise InputError(
                f"{', '.join(map(str, folders))}: holds no result with a manifest (NAME{SUFFIX}); expected a folder "
                f"with results of maskprism; {'; '.join(notes) or RERUN}"
            )
        for result in results:
            if result.page.resolve() == out.resolve():
                raise InputError(f"{out}: is the page of a result; expected another name for the index")
            if result.needs_page and os.path.lexists(result.page) and not _is_ours(result.page):
                raise InputError(f"{result.page}: was not written by maskprism; move it: the page is written there")
        pages: dict[Path, str] = {}
        for result in results:
            own, command = result.page, result.manifest.command
            if result.needs_page:
                pages[own] = page_of(result, _link(own, out))
                continue
            map_page = own.with_name(_MAP)
            for path in [own, map_page] if command == "atlas" and _is_ours(map_page) else [own]:
                if text := _led_back(path, command, out):
                    pages[path] = text
        for path, text in pages.items():
            write_atomically(path, text)
        write_atomically(out, index_page(results, out, order, notes))
    except UnicodeDecodeError as error:
        raise MaskprismError(f"a report is not UTF-8 any more ({error}); {RERUN}") from None
    except OSError as error:
        raise MaskprismError(
            f"{error.filename or out}: cannot be read or written ({error.strerror or error})"
        ) from None
    return [out, *pages], notes


def results_in(folders: Sequence[Path]) -> tuple[list[Result], list[str]]:
    """Return the results in folders, each once, and notes on damaged manifests and on pages that are not among them."""
    results: dict[Path, Result] = {}
    pages: dict[Path, Path] = {}
    notes = []
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder}: is not a folder; expected one with results of maskprism")
        for path in _files_in(folder):
            if path.name.endswith(SUFFIX):
                try:
                    results.setdefault(path.resolve(), Result(path, read_manifest(path)))
                except MaskprismError as error:
                    notes.append(str(error))
            elif path.suffix == ".html" and _is_ours(path):
                pages.setdefault(path.resolve(), path)
    for path, result in list(results.items()):
        pages.pop(result.page.resolve(), None)
        if not result.needs_page and not (_is_ours if result.page.suffix == ".html" else Path.exists)(result.page):
            notes.append(missing(result.page))
            del results[path]
        elif result.needs_page:
            notes += [*result.pictures()[1], *result.tables()[1]]
    notes += [f"{path}: has no manifest; {RERUN}" for path in pages.values() if _wants_manifest(path)]
    return list(results.values()), notes


def _files_in(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders.sort()
        yield from (Path(root, name) for name in sorted(names))


def _head(path: Path) -> bytes:
    """Return the beginning of a file that is no link; nothing of anything else."""
    if path.is_symlink() or not path.is_file():
        return b""
    with path.open("rb") as file:
        return file.read(_HEAD_BYTES)


def _is_ours(path: Path) -> bool:
    return _OURS in _head(path)


def _wants_manifest(path: Path) -> bool:
    """Return whether a page of ours is that of a result, and no index, nor the map of an atlas."""
    head = _head(path)
    return not any(mark in head for mark in (b"maskprism report</p>", b'id="maskprism-map"'))


def _led_back(path: Path, command: str, out: Path) -> str:
    """Return a page of ours with a link to the index, in place of one to another index; nothing for other files."""
    if path.suffix != ".html" or path.stat().st_size > MOST_BYTES:
        return ""
    text = read_regular(path, MaskprismError).decode("utf-8")  # it says that it is ours
    before, kicker, after = text.partition(KICKER)
    at = after.find(f"maskprism {command}", 0, 4096)
    return before + kicker + home_link(_link(path, out)) + after[at:] if kicker and at >= 0 else ""


def index_page(results: Sequence[Result], out: Path, order: Sequence[str], notes: Sequence[str]) -> str:
    """Return the index over results.

    Parameters
    ----------
    results, notes
        As `results_in` gives them.
    out
        The file that it is for: links are relative to it.
    order
        Names of commands: their results come first, in this order.
    """
    commands = {result.manifest.command for result in results}
    known = [command for command in order if command in commands]
    groups = (
        [result for result in results if result.manifest.command == command]
        for command in (*known, *sorted(commands.difference(known)))
    )
    return page(
        "report",
        title=_title(results),
        subtitle=counted(len(results), "result"),
        warnings=notes,
        tiles=(),
        sections=[_group(group, out) for group in groups],
    )


def _title(results: Sequence[Result]) -> str:
    """Return whose results these are: the models, where there are few."""
    names = sorted({name for result in results for name in result.manifest.models if name})
    return f"Results for {' and '.join(names)}" if 0 < len(names) <= 2 else "Results"


def _group(results: Sequence[Result], out: Path) -> Section:
    first = results[0]
    items = "".join(_entry(result, out) for result in results)
    heading = f"{first.about} ({first.manifest.command})"
    return Section(first.manifest.command, heading, f'<ul class="results">{items}</ul>')


def _entry(result: Result, out: Path) -> str:
    link = f'<a href="{_link(out, result.page)}">{html.escape(result.manifest.title)}</a>'
    names = "".join(f" <span class=quiet>{html.escape(name)}</span>" for name in result.models)
    values = "".join(f"<span>{html.escape(name)} <b>{value}</b></span>" for name, value in result.numbers)
    given = result.manifest.verdict
    verdict = f"<p>{outcome_badge(given.outcome)}{html.escape(given.why)}</p>" if given else ""
    checks = "".join(f"<p class=quiet>{html.escape(str(check))}</p>" for check in (given.checks if given else ()))
    thumbnail = f'<span class="thumbnail" aria-hidden="true">{result.thumbnail}</span>'
    return (
        f"<li>{thumbnail}<div><p>{link}{names}</p>{verdict}{checks}"
        f"{f'<p class=values>{values}</p>' if values else ''}</div></li>"
    )


def _link(start: Path, target: Path) -> str:
    """Return the address of a file relative to another, whatever the bytes of its name are."""
    relative = Path(os.path.relpath(target.resolve(), start.resolve().parent)).as_posix()
    return quote(relative.encode(errors="surrogateescape"))
