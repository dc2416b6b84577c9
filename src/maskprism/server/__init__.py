"""A local server: a gallery of a folder with what a model says about it, and the interactive viewer.

`serve` runs it; `create_app` gives the ASGI application for another server. Needs the extra `serve`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from maskprism._common.extras import require
from maskprism.errors import InputError, MaskprismError

if require("starlette", "the server") and require("uvicorn", "the server"):  # says which extra installs them
    import uvicorn
    from starlette.applications import Starlette

from maskprism.server.app import create_app as create_app
from maskprism.server.closing import Closing, Server
from maskprism.server.gallery import Gallery as Gallery
from maskprism.server.gallery import Labels as Labels
from maskprism.server.gallery import Limits as Limits
from maskprism.server.results import ResultPages
from maskprism.server.security import Guard
from maskprism.server.security import is_loopback as is_loopback
from maskprism.server.static import create_drop_app as create_drop_app
from maskprism.server.static import create_static_app as create_static_app

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from maskprism.models import Model
    from maskprism.tables.judged_labels import JudgedLabels


def serve(
    folder: str | os.PathLike[str],
    model: Model,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    allowed_hosts: Iterable[str] = (),
    labels: Labels | None = None,
    judged: JudgedLabels | None = None,
    limits: Limits | None = None,
    results: str | os.PathLike[str] | None = None,
    order: Sequence[str] = (),
    on_ready: Callable[[str, Gallery], None] = lambda url, gallery: None,
) -> None:
    """Serve the images of a folder until interrupted.

    Parameters
    ----------
    folder
        its images and those of its subfolders are shown; nothing outside of it can be reached.
    host, port
        where to listen; port 0 takes a free one. Everybody who can reach the address sees the images.
    allowed_hosts
        further names that the server goes by, as in a Host header.
    labels
        gives the labelled instances of an image, for IoU.
    judged
        what `maskprism labels` found, to filter by.
    results, order
        a folder of results whose pages are served, too, and names of commands in the order of their overview.
    on_ready
        called with the URL and the gallery once requests are answered.

    Raises
    ------
    InputError
        the folder is none, or cannot be read.
    MaskprismError
        the address cannot be used.
    """
    gallery = Gallery(folder, model, labels=labels, judged=judged, limits=limits)
    pages = None
    if results is not None:
        pages = ResultPages(Path(results), order=order, with_gallery=True, class_name=gallery.name_of)
    app = create_app(gallery, host=host, allowed_hosts=allowed_hosts, results=pages)
    run_app(app, host=host, port=port, on_ready=lambda url: on_ready(url, gallery))


def create_results_app(
    folder: str | os.PathLike[str],
    *,
    order: Sequence[str] = (),
    host: str = "127.0.0.1",
    allowed_hosts: Iterable[str] = (),
) -> ASGIApp:
    """Return the application over a folder of results, for any ASGI server: an overview of them, and their pages.

    Parameters
    ----------
    order
        Names of commands, in the order of the overview.
    host, allowed_hosts
        As for `serve`.

    Raises
    ------
    InputError
        For a folder without a result.
    """
    routes = ResultPages(Path(folder), order=order, with_gallery=False).routes
    return Guard(Starlette(routes=routes), host=host, allowed=allowed_hosts)


def run_app(inner: ASGIApp, *, host: str, port: int, on_ready: Callable[[str], None]) -> None:
    """Answer requests to an application until interrupted; the parameters and errors are those of `serve`."""
    with _listen(host, port) as listening:
        app = Closing(inner)
        config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False)
        name = f"[{host}]" if ":" in host else host
        url = f"http://{name}:{listening.getsockname()[1]}/"
        with suppress(KeyboardInterrupt):  # uvicorn has shut down by then
            Server(config, app, lambda: on_ready(url)).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise InputError(f"port is {port}; expected 0 to 65535 (0 for a free one)")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=256)
    except (OSError, UnicodeError) as error:
        number = getattr(error, "errno", None) or 0
        reason = os.strerror(number) if number > 0 else getattr(error, "strerror", None) or error
        raise MaskprismError(
            f"cannot listen on {host}, port {port} ({reason}); choose another --port (0 takes a free one) or --host"
        ) from None
