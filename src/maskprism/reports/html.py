"""Parts of reports: one HTML file that explains itself, offline, without a server or other files."""

from __future__ import annotations

import html
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from string import Template
from typing import TYPE_CHECKING, Any, NamedTuple

from maskprism import __version__
from maskprism._common.text import readable, rounded
from maskprism.drawing.palette import DARK_FILTER
from maskprism.viewer.markup import content_hash, data_url, static_text

if TYPE_CHECKING:
    from maskprism.analysis.verdicts import Verdict, VerdictOutcome
    from maskprism.drawing.responsive_svg import Adaptive

_NARROW_PX = 620
_SHORT = 9
"""The number of letters of a value that fit into a tile; longer ones get two."""
HOME_LINK = re.compile(r'<a href="[^"]*">All reports</a> · ')
"""What `home_link` returns."""
_TAIL = 9
"""The number of letters at the end of a file's name that stay."""


class Illustration(NamedTuple):
    """A figure as two SVGs, what it shows, and its numbers as text, for screen readers."""

    picture: Adaptive
    caption: str
    words: str


class Section(NamedTuple):
    """A part of a report: the id that links lead to, its heading, and what stands under it, as HTML."""

    id: str
    heading: str
    inner: str


def page(
    command: str,
    *,
    title: str,
    subtitle: str,
    warnings: Iterable[str],
    tiles: Iterable[tuple[str, str]],
    sections: Iterable[Section],
    scenes: str = "",
    home: str = "",
    application: str = "",
    verdict: Verdict | None = None,
) -> str:
    """Return a whole report.

    Parameters
    ----------
    command
        That made it. All but the sections is text; tiles are (name, value).
    scenes
        Elements with scenes that buttons of the sections open in the viewer, which is then part of the file.
    home
        The address of the index that the report belongs to.
    application
        The name of a style and a script of the package that are part of the file, too.
    verdict
        What stands first.
    """
    style, script, theme = (static_text(name) for name in ("report.css", "report.js", "theme.js"))
    logo = static_text("icon.svg").strip()
    bundle = application or ("viewer" if scenes else "")
    module = static_text(f"{bundle}.js") if bundle else ""
    style += static_text(f"{bundle}.css") if bundle else ""
    policy = (
        f"default-src 'none'; img-src data:{' blob:' if scenes else ''}; style-src {content_hash(style)}; "
        f"script-src {content_hash(script)} {content_hash(theme)}{f' {content_hash(module)}' if bundle else ''}"
    )
    return Template(static_text("report.html")).substitute(
        policy=policy,
        style=style,
        script=script,
        theme=theme,
        logo=logo.replace("<svg ", '<svg aria-hidden="true" ', 1),
        filter=DARK_FILTER,
        icon=data_url("image/svg+xml", logo.encode()),
        verdict=verdict_banner(verdict) if verdict else "",
        scenes=f'{scenes}\n<script type="module">{module}</script>' if bundle else "",
        version=__version__,
        command=(home_link(home) if home else "") + f"maskprism {html.escape(command)}",
        title=html.escape(title),
        subtitle=html.escape(subtitle),
        warnings="\n".join(f'<p class="warning">{html.escape(text)}</p>' for text in warnings),
        tiles="\n".join(_tile(*one) for one in tiles),
        sections="\n".join(
            f'<section id="{one.id}">\n<h2>{html.escape(one.heading)}</h2>\n{one.inner}\n</section>' for one in sections
        ),
    )


def _tile(name: str, value: str) -> str:
    wide = ' class="wide"' if len(value) > _SHORT else ""
    return f"<div{wide}><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>"


def verdict_banner(verdict: Verdict) -> str:
    """Return a verdict with the numbers behind it, their intervals and tolerances."""
    several = len(verdict.checks) > 1
    checks = "".join(
        f"<li>{outcome_badge(check.outcome) if several else ''}{html.escape(check.title)} <b>{check.value_text}</b>, "
        f"tolerance {html.escape(check.tolerance_text)}</li>"
        for check in verdict.checks
    )
    why = f"<p>{outcome_badge(verdict.outcome)}{html.escape(verdict.why)}</p>"
    return f'<div class="verdict {_class_of(verdict.outcome)}">{why}{f"<ul>{checks}</ul>" if checks else ""}</div>'


def outcome_badge(outcome: VerdictOutcome) -> str:
    """Return the word of an outcome in its colour."""
    return f'<strong class="outcome {_class_of(outcome)}">{outcome.upper()}</strong>'


def _class_of(outcome: VerdictOutcome) -> str:
    return outcome.replace(" ", "-")


def home_link(address: str) -> str:
    """Return the way back to the index; it stands behind KICKER."""
    return f'<a href="{html.escape(address)}">All reports</a> · '


def findings(items: Iterable[str]) -> Section:
    """Return what the numbers say, a list of HTML items."""
    return Section("reading", "Findings", '<ol class="findings">\n' + "\n".join(items) + "\n</ol>")


def figures(shown: Mapping[Any, Illustration]) -> str:
    """Figures in a grid, each with its caption."""
    return '<div class="figures">\n' + "\n".join(figure(name, one) for name, one in shown.items()) + "\n</div>"


def figure(name: str, shown: Illustration) -> str:
    """Return a figure with its caption, in the width that the reader's window has room for."""
    wide, narrow = (data_url("image/svg+xml", one) for one in shown.picture)
    caption, words = html.escape(shown.caption), html.escape(f"{shown.caption} {shown.words}")
    return (
        f'<figure id="figure-{name}"><picture><source media="(max-width: {_NARROW_PX}px)" srcset="{narrow}">'
        f'<img src="{wide}" alt="{words}"></picture><figcaption>{caption}</figcaption></figure>'
    )


def definitions(entries: Iterable[tuple[str, str]]) -> str:
    """Terms and what they mean."""
    found = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>" for name, text in entries)
    return f'<dl class="method">{found}</dl>'


def table(
    headings: Sequence[str],
    rows: Iterable[str],
    *,
    text: int | Collection[int] = 0,
    sortable: bool = False,
    tall: bool = False,
) -> str:
    """Return a table of finished cells; the first `text` columns are of text, or those that it names."""
    of_text = range(text) if isinstance(text, int) else text

    def heading(number: int, name: str) -> str:
        kind = " class=text" if number in of_text else ""
        if not name:
            return f"<td{kind}></td>"  # screen readers would say a heading that is not there
        inner = html.escape(name)
        if sortable:
            inner = f'<button type="button">{inner}</button>'
        return f'<th scope="col"{kind}>{inner}</th>'

    head = "".join(heading(number, name) for number, name in enumerate(headings))
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return (
        f'<div class="scroll{" tall" if tall else ""}" tabindex="0"><table{" class=sortable" if sortable else ""}>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def file_name(path: str) -> str:
    """Return the name of a file, of which the middle is left out where room is short: the end tells names apart."""
    name = readable(PurePosixPath(path).name)
    head, tail = html.escape(name[:-_TAIL]), html.escape(name[-_TAIL:])
    title = html.escape(readable(path))
    return f'<span class="file" title="{title}"><span>{head}</span><span>{tail}</span></span>'


def cell(text: str, style: str = "", *, title: str = "") -> str:
    """One cell of a table."""
    return (
        "<td"
        + (f' class="{style}"' if style else "")
        + (f' title="{html.escape(title)}"' if title else "")
        + f">{html.escape(text)}</td>"
    )


def row(name: str, values: Iterable[float]) -> str:
    """Return the cells of a row: a name and numbers."""
    return cell(name, "text") + "".join(cell(number(value)) for value in values)


def number(value: float) -> str:
    """Three digits, or as many as tell it from a whole number; a dash for nan."""
    return rounded(value)
