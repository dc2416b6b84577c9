"""The routes of the server: its pages, and a JSON API over the gallery (docs/server.md)."""

from __future__ import annotations

import asyncio
import hashlib
import html
import math
import secrets
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from string import Template
from typing import Any

from starlette.applications import Starlette
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from maskprism.errors import ImageError, InputError, TableError
from maskprism.server.gallery import Gallery
from maskprism.server.images import GalleryImage
from maskprism.server.records import Query
from maskprism.server.results import ResultPages, filter_query
from maskprism.server.security import HEADERS, Guard

STATIC = Path(__file__).parents[1] / "viewer" / "static"
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_ASSETS = (
    *("atlas.css", "atlas.js", "gallery.css", "gallery.js", "icon.svg", "report.css", "report.js", "theme.js"),
    *("viewer.css", "viewer.js"),
)
_UPLOADS_AT_ONCE = 4
_PATIENCE = 2


class _FileConvertor(PathConvertor):
    """The name of a file: any characters, line breaks among them."""

    regex = r"[\s\S]*"


register_url_convertor("file", _FileConvertor())
"""An upload waits for its turn this many times as long as one may take: those before it are cut off by then."""


def create_app(
    gallery: Gallery,
    *,
    host: str = "127.0.0.1",
    allowed_hosts: Iterable[str] = (),
    results: ResultPages | None = None,
) -> ASGIApp:
    """Return the application over a gallery, for any ASGI server; with results, over these, too.

    `host` is what it is bound to and `allowed_hosts` further names it goes by: requests for other
    names are refused, see `security.Guard`.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await gallery.start()
        try:
            yield
        finally:
            await gallery.stop()

    api = Api(gallery)
    routes = [
        Route("/", _page(STATIC / "gallery.html", labelled=gallery.labels is not None, results=results)),
        Route("/map", _map_page(results)),
        *(results.routes if results else ()),
        *(Route(f"/static/{name}", _page(STATIC / name)) for name in _ASSETS),
        Route("/api/map", api.map),
        Route("/api/images", api.images),
        Route("/api/progress", api.progress),
        Route("/api/images/{name:file}", api.image),
        Route("/api/scenes/{name:file}", api.scene),
        Route("/api/thumbnails/{name:file}", api.thumbnail),
        Route("/api/crops/{name:file}", api.crop),
        Route("/api/prototypes", api.prototypes),
        Route("/api/uploads", api.upload, methods=["POST"]),
    ]
    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        exception_handlers={
            HTTPException: lambda _, error: _error(error.status_code, error.detail, error.headers),
            InputError: lambda _, error: _error(400, str(error)),
            ImageError: lambda _, error: _error(422, str(error)),
            TableError: lambda _, error: _error(404, str(error)),
            Exception: lambda _, error: _error(500, f"the server failed ({type(error).__name__})"),
        },
    )
    return Guard(app, host=host, allowed=allowed_hosts)


class Api:
    """What the gallery page asks for."""

    def __init__(self, gallery: Gallery) -> None:
        self.gallery = gallery
        self._run = secrets.token_hex(4)  # another run may have another model
        self._uploading = asyncio.Semaphore(_UPLOADS_AT_ONCE)

    async def images(self, request: Request) -> Response:
        """One page of images under a filter."""
        query = parse_query(request)
        if query.offset == 0:
            await self.gallery.refresh()
        answer = await self.gallery.answer(query)
        spec = self.gallery.model.spec
        return _json({"model": spec.name, "folder": self.gallery.images.root.name, **answer})

    async def progress(self, request: Request) -> Response:
        """Return how many images the model has seen."""
        return _json(await asyncio.to_thread(self.gallery.progress))

    async def map(self, request: Request) -> Response:
        """Return all instances found so far that fit the filter, as points (see `map_payload.map_data`)."""
        return _json(await asyncio.to_thread(self.gallery.map, parse_query(request)))

    async def prototypes(self, request: Request) -> Response:
        """Of which kind each prototype is, over the images examined so far; null with too few."""
        return _json({"kinds": await asyncio.to_thread(self.gallery.kinds.found)})

    async def image(self, request: Request) -> Response:
        """Return all instances of one image."""
        image = self._named(request)
        return _json(self.gallery.details(image, await self.gallery.examined(image)))

    async def scene(self, request: Request) -> Response:
        """One image as the viewer takes it (see `views.scene.pack`)."""
        image = self._named(request)
        return await _tagged(
            request,
            f"{self._run}-{image.stamp}",
            "application/octet-stream",
            lambda: self.gallery.scene(image),
        )

    async def thumbnail(self, request: Request) -> Response:
        """Return a small JPEG, with ?masks=1 with the masks in it."""
        image = self._named(request)
        masks = request.query_params.get("masks") == "1"
        return await _tagged(
            request,
            f"{self._run}-{image.stamp}-{masks:d}",
            "image/jpeg",
            lambda: self.gallery.thumbnail(image, masks=masks),
        )

    async def crop(self, request: Request) -> Response:
        """Return a small JPEG of one instance of an image: ?index=0 and so on."""
        image = self._named(request)
        text = request.query_params.get("index", "0")
        if not text.isdecimal() or len(text) > 6:
            raise InputError(f"index is {text[:20]!r}; expected the number of an instance, from 0 on")
        return await _tagged(
            request,
            f"{self._run}-{image.stamp}-o{int(text)}",
            "image/jpeg",
            lambda: self.gallery.crop(image, int(text)),
        )

    async def upload(self, request: Request) -> Response:
        """Take an image as the body of the request, which has to arrive in time; so has its turn."""
        limits = self.gallery.limits
        if int(_length(request) or 0) > limits.upload_bytes:
            raise _too_large(limits.upload_bytes)
        patience = _PATIENCE * limits.upload_s
        try:
            async with asyncio.timeout(patience):
                await self._uploading.acquire()
        except TimeoutError:
            raise HTTPException(
                503,
                f"{_UPLOADS_AT_ONCE} other uploads were under way for {patience:g} s; try again later",
                {"Retry-After": f"{math.ceil(limits.upload_s)}"},
            ) from None
        try:
            data = await self._body(request)
            image, record = await self.gallery.upload(request.query_params.get("name", ""), data)
        except ClientDisconnect:
            return Response(status_code=400)
        finally:
            self._uploading.release()
        return _json(self.gallery.details(image, record), 201)

    async def _body(self, request: Request) -> bytes:
        """Return an uploaded file.

        Raises
        ------
        HTTPException
            If it is too large or too slow.
        """
        limits = self.gallery.limits
        data = bytearray()
        try:
            async with asyncio.timeout(limits.upload_s):
                async for chunk in request.stream():
                    data += chunk
                    if len(data) > limits.upload_bytes:
                        raise _too_large(limits.upload_bytes)
        except TimeoutError:
            came = f"{len(data)} of {_length(request) or 'an unknown number of'} bytes came"
            raise HTTPException(
                408,
                f"the image took longer than {limits.upload_s:g} s to arrive ({came}); "
                "upload a smaller file, or start the server with more --max-upload-seconds",
                {"Connection": "close"},  # the rest of it is not waited for
            ) from None
        return bytes(data)

    def _named(self, request: Request) -> GalleryImage:
        name = request.path_params["name"]
        image = self.gallery.images.find(name)
        if image is None:
            raise HTTPException(404, "there is no such image in the folder")
        return image


def parse_query(request: Request) -> Query:
    """Return the filter that the query of a URL spells.

    Raises
    ------
    InputError
        For what it cannot mean.
    """
    given = request.query_params
    known = {"class", "score", "iou", "show", "text", "sort", "view", "offset", "limit"}
    for name in given.keys() - known:
        raise InputError(f"there is no parameter {name[:50]!r}; expected some of {', '.join(sorted(known))}")
    try:
        return Query(
            classes=frozenset(int(value) for value in given.getlist("class")),
            score=_bounds(given.get("score", "")),
            iou=_bounds(given.get("iou", "")),
            show=given.get("show", "all"),  # type: ignore[arg-type]  # checked by Query
            text=given.get("text", ""),
            sort=given.get("sort", "name"),  # type: ignore[arg-type]
            view=given.get("view", "images"),  # type: ignore[arg-type]
            offset=int(given.get("offset", 0)),
            limit=int(given.get("limit", 60)),
        )
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"a parameter is not a number ({error}); expected such as class=3, score=0.5-1") from None


def _bounds(text: str) -> tuple[float, float]:
    """Return "0.25-0.5" as two numbers; nothing is all."""
    if not text:
        return 0.0, 1.0
    low, _, high = text.partition("-")
    return float(low), float(high)


def _page(path: Path, *, labelled: bool = False, results: ResultPages | None = None) -> Callable[[Request], Any]:
    """Return a file of the package; small, so held in memory. `labelled` pages have room for IoU from the start."""
    data = path.read_bytes()
    if results:
        data = data.replace(b'<a class="plain map" href="/map">Map</a>', results.navigation().encode())
    if labelled:
        data = data.replace(b'<form id="filters"', b'<form id="filters" class="labelled"')
    tag = hashlib.sha256(data).hexdigest()[:16]
    media_type = _TYPES[path.suffix]

    async def page(request: Request) -> Response:
        return await _tagged(request, tag, media_type, lambda: _at_once(data))

    return page


def _map_page(results: ResultPages | None) -> Callable[[Request], Any]:
    """Return the page of the map, which asks for its points.

    Its renderer makes its WebGL commands from text (unsafe-eval).
    """
    head = '<link rel="icon" href="/static/icon.svg" type="image/svg+xml">\n' + "\n".join(
        f'<link rel="stylesheet" href="/static/{name}">' for name in ("report.css", "atlas.css")
    )
    data = Template((STATIC / "map.html").read_text(encoding="utf-8")).substitute(
        policy="",
        title="Map",
        head="\n".join(
            [
                head,
                '<script src="/static/theme.js"></script>',
                *(f'<script type="module" src="/static/{name}.js"></script>' for name in ("report", "atlas")),
            ]
        ),
        logo='<img src="/static/icon.svg" alt="" width="22" height="22">',
        kicker="$kicker",
        data="",
    )
    policy = HEADERS["Content-Security-Policy"].replace("script-src 'self'", "script-src 'self' 'unsafe-eval'")

    async def page(request: Request) -> Response:
        query = filter_query(request)
        gallery = f'<a href="/{html.escape(f"?{query}" if query else "")}">Gallery</a>'
        kicker = f"{'' if results else f'{gallery} · '}maskprism serve"
        if query:
            kicker += ' · under the filter of the gallery (<a href="/map">all instances</a>)'
        text = data.replace("$kicker", kicker)
        if results:
            text = text.replace("<header>", f"{results.navigation(query)}<header>", 1)
        return Response(text, headers={"Content-Security-Policy": policy}, media_type="text/html")

    return page


async def _at_once(data: bytes) -> bytes:
    return data


async def _tagged(request: Request, tag: str, media_type: str, make: Callable[[], Any]) -> Response:
    """Bytes that browsers keep and ask again about: 304 where theirs are still the right ones."""
    headers = {"ETag": f'"{tag}"', "Cache-Control": "private, no-cache"}
    if f'"{tag}"' in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(await make(), headers=headers, media_type=media_type)


def _length(request: Request) -> str:
    """Return how many bytes a request says that its body has; empty where it says nothing that can be true."""
    length = request.headers.get("content-length", "")
    return length if length.isdecimal() and len(length) < 20 else ""


def _too_large(limit: int) -> HTTPException:
    return HTTPException(413, f"the image is larger than the limit of {limit / 2**20:.0f} MB")


def _json(content: Any, status_code: int = 200) -> Response:
    return JSONResponse(content, status_code, headers={"Cache-Control": "no-store"})


def _error(status: int, message: str, headers: Any = None) -> Response:
    return JSONResponse({"error": message}, status, headers={**(headers or {}), "Cache-Control": "no-store"})
