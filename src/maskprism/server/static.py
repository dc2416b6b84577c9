"""A folder of finished files over HTTP, such as the page that runs models in the browser."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from maskprism.errors import InputError
from maskprism.models import SAMPLE_MODEL
from maskprism.server import security

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp

_TYPES = {".mjs": "text/javascript", ".js": "text/javascript", ".wasm": "application/wasm", ".webp": "image/webp"}
HEADERS = {
    "Content-Security-Policy": security.HEADERS["Content-Security-Policy"].replace(
        "script-src 'self'", "script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:"
    ),
    "Cross-Origin-Embedder-Policy": "require-corp",  # with it, models may run on several threads
    "Permissions-Policy": "camera=(self), geolocation=(), microphone=()",
}
_PACKAGED = Path(__file__).parents[1] / "viewer" / "static"
_RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
"""The files of onnxruntime-web that a wheel holds beside the page; WebGPU needs twice as many bytes more."""


def drop_files() -> dict[str, Path]:
    """Return the page that runs models in the browser, from the package: the file of each name.

    Raises
    ------
    InputError
        Where this installation has no onnxruntime-web.
    """
    page = _PACKAGED / "drop"
    installed = [page, Path(__file__).parents[3] / "viewer" / "node_modules" / "onnxruntime-web" / "dist"]
    runtime = next((folder for folder in installed if (folder / _RUNTIME[-1]).is_file()), None)
    if runtime is None:
        raise InputError(
            "this installation was built without onnxruntime-web, which runs the model in the browser; install a "
            "released wheel, or write the page in a checkout (make static) and serve it with --static"
        )
    own = {name: page / name for name in ("index.html", "drop.js", "worker.js", "drop.css", "sample.webp")}
    shared = {name: _PACKAGED / name for name in ("viewer.css", "icon.svg")}
    return own | shared | {name: runtime / name for name in _RUNTIME} | {"sample.onnx": SAMPLE_MODEL}


def create_drop_app(*, host: str = "127.0.0.1", allowed_hosts: Iterable[str] = ()) -> ASGIApp:
    """Return the application that serves the page that runs models in the browser, for any ASGI server."""
    files = drop_files()

    async def answer(request: Request) -> Response:
        path = files.get(request.path_params.get("name", "index.html"))
        if path is None:
            raise HTTPException(404)
        return FileResponse(path, media_type=_TYPES.get(path.suffix))

    routes = [Route("/", answer), Route("/{name}", answer)]
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
