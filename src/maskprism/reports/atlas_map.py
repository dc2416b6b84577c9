"""The map as one HTML file that works offline, without a server or other files."""

from __future__ import annotations

import html
from string import Template
from typing import TYPE_CHECKING

from maskprism.viewer.markup import base64_text, content_hash, data_url, script_json, static_text

if TYPE_CHECKING:
    from maskprism.drawing.map_payload import MapData
    from maskprism.reports.map_thumbnails import Sheets

SERVER = "http://127.0.0.1:8000/"
"""Where `maskprism serve` listens by default."""


def map_page(data: MapData, sheets: Sheets | None = None, *, viewer: str = SERVER, statistics: str = "") -> str:
    """Return the whole file.

    Parameters
    ----------
    viewer
        Where instances open, see `Info` of the viewer.
    statistics
        The address of that page.
    """
    style, script = static_text("report.css") + static_text("atlas.css"), static_text("atlas.js")
    theme, switch, logo = static_text("theme.js"), static_text("report.js"), static_text("icon.svg").strip()
    info = {**data.info, "viewer": viewer, "thumbnails": None}
    columns = dict(data.columns)
    elements = []
    if sheets is not None and sheets.pictures:
        columns["pictured"] = sheets.points
        info["thumbnails"] = {"side": sheets.side, "across": sheets.across, "down": sheets.down, "count": sheets.count}
        elements = [_element(f"maskprism-sheet-{number}", one) for number, one in enumerate(sheets.pictures)]
    link = f' · <a href="{html.escape(statistics)}">Statistics</a>' if statistics else ""
    policy = (
        # the renderer makes its WebGL commands from text, which takes unsafe-eval; it is given no text from elsewhere
        f"default-src 'none'; script-src {content_hash(script)} {content_hash(theme)} "
        f"{content_hash(switch)} 'unsafe-eval'; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    first = [name for name in ("x-0", "y-0", "class") if name in columns]
    return Template(static_text("map.html")).substitute(
        policy=f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n',
        title=html.escape(data.info["title"]),
        head=f'<link rel="icon" href="{data_url("image/svg+xml", logo.encode())}">\n<style>{style}</style>\n'
        f"<script>{theme}</script>",
        logo=logo.replace("<svg ", '<svg aria-hidden="true" ', 1),
        kicker=f"maskprism atlas{link}",
        data="\n".join(
            [
                f'<script type="application/json" id="maskprism-map">{script_json(info)}</script>',
                *(_element(f"maskprism-map-{name}", columns[name]) for name in first),
                *(_element(f"maskprism-map-{name}", one) for name, one in columns.items() if name not in first),
                *elements,
                f"<script>{switch}</script>",
                f'<script type="module">{script}</script>',
            ]
        ),
    )


def _element(name: str, data: bytes) -> str:
    return f'<script type="application/octet-stream" id="{name}">{base64_text(data)}</script>'
