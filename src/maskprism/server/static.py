"""A folder of finished files over HTTP, such as the page that runs models in the browser."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from maskprism.errors import InputError
from maskprism.models import SAMPLE_MODEL
from maskprism.server import security

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp

_TYPES = {
    ".gz": "application/gzip",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".onnx": "application/octet-stream",
    ".webp": "image/webp",
}
HEADERS = {
    "Content-Security-Policy": security.HEADERS["Content-Security-Policy"].replace(
        "script-src 'self'", "script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:"
    ),
    "Cross-Origin-Embedder-Policy": "require-corp",  # with it, models may run on several threads
    "Permissions-Policy": "camera=(self), geolocation=(), microphone=()",
}
OFFLINE_PAGE = "maskprism-offline.html"
_PACKAGED = Path(__file__).parents[1] / "viewer" / "static"
_RUNTIME = "ort-wasm-simd-threaded.wasm.gz"
_OFFLINE_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' blob: 'wasm-unsafe-eval'; worker-src blob:; "
    "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
)


def drop_files() -> dict[str, Path]:
    """Return the page that runs models in the browser, from the package: the file of each name."""
    page = ("index.html", "drop.js", "worker.js", "drop.css", "sample.webp")
    runtime = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", _RUNTIME)  # onnxruntime-web; WebGPU needs 27 MB more
    shared = {name: _PACKAGED / name for name in ("viewer.css", "icon.svg")}
    return {name: _PACKAGED / "drop" / name for name in page + runtime} | shared | {"sample.onnx": SAMPLE_MODEL}


def offline_page() -> str:
    """Return that page as one HTML file (8 MB), which needs no server; it runs models on one thread, without WebGPU."""
    files = drop_files() | {"worker": _PACKAGED / "drop" / "worker-offline.js"}

    def text(name: str) -> str:
        return files[name].read_text(encoding="utf-8")

    def packed(name: str) -> str:
        return base64.b64encode(files[name].read_bytes()).decode("ascii")

    held = {"runtime": _RUNTIME, "worker": "worker", "sample-model": "sample.onnx", "sample-image": "sample.webp"}
    parts = [
        f'<script type="application/octet-stream" id="maskprism-{identifier}">{packed(name)}</script>\n'
        for identifier, name in held.items()
    ]
    script = text("drop.js").replace("</script", "<\\/script")
    icon = f"data:image/svg+xml;base64,{packed('icon.svg')}"
    changes = [
        (r'content="default-src[^"]*"', f'content="{_OFFLINE_POLICY}"'),
        (r'(?<=["=])icon\.svg(?=")', icon),
        (r'<link rel="stylesheet" href="viewer\.css">\n', f"<style>{text('viewer.css')}</style>\n"),
        (r'<link rel="stylesheet" href="drop\.css">\n', f"<style>{text('drop.css')}</style>\n"),
        (r'<script type="module" src="drop\.js"></script>\n', ""),
        (r' *<p class="save">.*</p>\n', ""),
        ("</body>", f'{"".join(parts)}<script type="module">{script}</script>\n</body>'),
    ]
    whole = text("index.html")
    for pattern, replacement in changes:
        whole, count = re.subn(pattern, replacement.replace("\\", r"\\"), whole)
        if not count:
            raise RuntimeError(f"index.html has nothing like {pattern}")
    return whole


def create_drop_app(*, host: str = "127.0.0.1", allowed_hosts: Iterable[str] = ()) -> ASGIApp:
    """Return the application that serves the page that runs models in the browser, for any ASGI server."""
    files = drop_files()

    async def answer(request: Request) -> Response:
        path = files.get(request.path_params.get("name", "index.html"))
        if path is None:
            raise HTTPException(404)
        return FileResponse(path, media_type=_TYPES.get(path.suffix))

    def whole(request: Request) -> Response:
        return HTMLResponse(offline_page(), headers={"Content-Disposition": f'attachment; filename="{OFFLINE_PAGE}"'})

    routes = [Route("/", answer), Route(f"/{OFFLINE_PAGE}", whole), Route("/{name}", answer)]
    return security.Guard(Starlette(routes=routes), host=host, allowed=allowed_hosts, headers=HEADERS)


def create_static_app(
    folder: str | os.PathLike[str], *, host: str = "127.0.0.1", allowed_hosts: Iterable[str] = ()
) -> ASGIApp:
    """Return the application over a folder with an index.html, for any ASGI server; links are not followed out of it.

    Raises
    ------
    InputError
        For a folder that has no such file.
    """
    root = Path(folder)
    if not (root / "index.html").is_file():
        raise InputError(
            f"{root}: has no index.html; expected a folder of finished pages, such as one written by `make static`"
        )
    files = Mount("/", StaticFiles(directory=root, html=True))
    return security.Guard(Starlette(routes=[files]), host=host, allowed=allowed_hosts, headers=HEADERS)
