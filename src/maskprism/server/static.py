"""A folder of finished files over HTTP, such as the page that runs models in the browser."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from maskprism.errors import InputError
from maskprism.server import security

if TYPE_CHECKING:
    from starlette.types import ASGIApp

HEADERS = {
    "Content-Security-Policy": security.HEADERS["Content-Security-Policy"].replace(
        "script-src 'self'", "script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:"
    ),
    "Cross-Origin-Embedder-Policy": "require-corp",  # with it, models may run on several threads
}


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
