"""A folder of results over HTTP: the overview, the pages that commands wrote, and the way between all pages."""

from __future__ import annotations

import asyncio
import html
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from maskprism._common.text import readable
from maskprism.errors import InputError, MaskprismError
from maskprism.io.untrusted import read_regular
from maskprism.reports.html import HOME_LINK
from maskprism.reports.index import index_page, results_in
from maskprism.reports.index.pages import Result, page_of
from maskprism.reports.manifest import MOST_BYTES
from maskprism.viewer.markup import content_hash, static_text

if TYPE_CHECKING:
    from starlette.requests import Request

    from maskprism.reports.manifest import ResultManifest

FILTERS = ("class", "score", "iou", "show", "text", "sort", "view")
"""What the address says of the filter, on every page."""
_BASE = "/reports/"
_TYPES = {
    ".html": "text/html",
    ".png": "image/png",
    ".webp": "image/webp",
    ".svg": "image/svg+xml",
    ".csv": "text/csv",
    ".json": "application/json",
    ".parquet": "application/octet-stream",
}
_SCRIPTS = [content_hash(static_text(f"{name}.js")) for name in ("report", "theme", "viewer", "labels", "atlas")]
_SCRIPT = re.compile(r"<script(?: type=.?module.?)?(?: async)?>(.*?)</script>", re.DOTALL)
_BLOCKED = (
    '<p class="warning" role="alert">The scripts of this page are not those of this version of maskprism. They are not '
    "run, so a part of the page does not work here. Open the file itself, or write it again with this version.</p>"
)
HEADERS = {
    # Of what stands in a page only the scripts of this version run, and none may ask the server for anything.
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; "
        f"script-src {' '.join(_SCRIPTS)} 'unsafe-eval'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
}


class ResultPages:
    """The pages of a folder of results, read anew for each request.

    Parameters
    ----------
    folder
        With the manifests of results, in it or in its subfolders.
    order
        Names of commands, in the order of the overview.
    with_gallery
        Whether the server has a gallery of the images, too.
    class_name
        Gives the name of a class by its id, for filters.

    Raises
    ------
    InputError
        If there is no result.
    """

    def __init__(
        self,
        folder: Path,
        *,
        order: Sequence[str] = (),
        with_gallery: bool,
        class_name: Callable[[int], str] = str,
    ) -> None:
        self.root = folder.resolve()
        self.order = order
        self.with_gallery = with_gallery
        self.class_name = class_name
        if not self.results():
            raise InputError(f"{folder}: holds no result with a manifest; expected a folder with results of maskprism")

    @property
    def routes(self) -> list[Route]:
        """The routes of the overview and of all files of results."""
        own = [Route(f"{_BASE}{{path:path}}", self._answer)]
        return own if self.with_gallery else [Route("/", lambda _: RedirectResponse(_BASE)), *own]

    def results(self) -> list[Result]:
        """Return the results that there are now."""
        return results_in([self.root])[0]

    def navigation(self, query: str = "") -> str:
        """Return the links to all pages, which carry the filter along."""
        results = self.results()
        behind = f"?{html.escape(query)}" if query else ""

        def link(address: str, words: str) -> str:
            return f'<a href="{html.escape(address)}{behind}">{html.escape(words)}</a>'

        links = [link(_BASE, "Overview")]
        if self.with_gallery:
            links += [link("/", "Gallery"), link("/map", "Map")]
        links += [link(self._address(one), "Labels") for one in results if one.manifest.command == "labels"][:1]
        reports = "".join(
            link(self._address(one), _title_of(one.manifest)) for one in results if one.page.suffix == ".html"
        )
        more = f"<details><summary>Reports</summary><div>{reports}</div></details>"
        return f'<nav class="site" aria-label="All pages">{"".join(links)}{more}</nav>'

    def _address(self, result: Result) -> str:
        return _BASE + quote(os.fsencode(result.page.resolve().relative_to(self.root).as_posix()))

    async def _answer(self, request: Request) -> Response:
        """One file of the results, or the overview."""
        return await asyncio.to_thread(self._respond, request)

    def _respond(self, request: Request) -> Response:
        query = filter_query(request)
        name = request.path_params["path"]
        try:
            if name in ("", "index.html"):
                results, notes = results_in([self.root])
                return self._page(index_page(results, self.root / "index.html", self.order, notes), query)
            path = self._file(name)
            made = next((one for one in self.results() if one.needs_page and one.page.resolve() == path), None)
            if made is not None:
                return self._page(page_of(made, ""), query)
            if path.suffix not in _TYPES:
                raise HTTPException(404, "results have no such file")
            data = read_regular(path, MaskprismError, limit=4 * MOST_BYTES)
        except (MaskprismError, OSError, ValueError):
            raise HTTPException(404, "results have no such file, or it cannot be read") from None
        if path.suffix == ".html":
            return self._page(data.decode("utf-8", errors="replace"), query)
        return Response(data, headers=HEADERS, media_type=_TYPES[path.suffix])

    def _file(self, name: str) -> Path:
        """Return the file of that name; HTTPException for one outside of the folder."""
        path = (self.root / name).resolve()
        if not path.is_relative_to(self.root):
            raise HTTPException(404, "results have no such file")
        return path

    def _page(self, text: str, query: str) -> Response:
        """Return a page with the links to all others, and what it must know of the filter."""
        classes = [self.class_name(int(one)) for one in re.findall(r"class=(\d{1,9})(?:&|$)", query)]
        about = "".join(f'<meta name="maskprism-class" content="{html.escape(readable(name))}">' for name in classes)
        about += '<meta name="maskprism-gallery" content="/">' if self.with_gallery else ""
        text = re.sub(HOME_LINK, "", text.replace("</head>", f"{about}</head>", 1), count=1)  # the overview is that
        above = self.navigation(query)
        if any(content_hash(script) not in _SCRIPTS for script in _SCRIPT.findall(text)):
            above += _BLOCKED
        text = re.sub(r"<body[^>]*>", lambda found: found[0] + above, text, count=1)
        return Response(text.encode("utf-8", errors="replace"), headers=HEADERS, media_type="text/html")


def _title_of(manifest: ResultManifest) -> str:
    """Return the name of a result with its command, once where they are the same."""
    title, command = manifest.title, manifest.command
    return title if title == command else f"{title} ({command})"


def filter_query(request: Request) -> str:
    """Return the part of a query that is about the filter."""
    return urlencode([(name, value) for name, value in request.query_params.multi_items() if name in FILTERS])
