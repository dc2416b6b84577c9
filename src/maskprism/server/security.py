"""Who may talk to the server, and what browsers may do with its answers.

A server on this machine is within reach of every web page that its user visits. Three things keep
such pages out: the Host header must name this server (a page whose name was pointed at 127.0.0.1
gives its own), requests that change something must come from the server's own pages, and answers
may not be embedded elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.responses import JSONResponse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HOST = re.compile(r"(?:\[(?P<address>[0-9A-Fa-f:.]+)\]|(?P<name>[^\s:/?#@\[\]]+))(?::\d+)?")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Guard:
    """Refuses requests for other hosts and changes asked for by other sites; adds the security headers.

    Parameters
    ----------
    host
        What the server is bound to; with a loopback address only loopback names are allowed, else also every numeric
        address, for it takes a name to point a visitor's browser here.
    allowed
        Further host names.
    headers
        In place of those of HEADERS with the same names, or beside them.
    """

    def __init__(
        self, app: ASGIApp, *, host: str, allowed: Iterable[str] = (), headers: Mapping[str, str] | None = None
    ) -> None:
        self.app = app
        self._headers = [
            (name.lower().encode(), value.encode()) for name, value in {**HEADERS, **(headers or {})}.items()
        ]
        self._names = _LOOPBACK | {host.lower(), *(name.lower() for name in allowed)}
        self._any_address = not is_loopback(host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse to."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [*message.get("headers", ())]
                given = {name for name, _ in own}  # a page may have a policy of its own
                message["headers"] = [*own, *(header for header in self._headers if header[0] not in given)]
            await send(message)

        refusal = self._refusal(scope["method"], Headers(scope=scope))
        if refusal:
            status, message = refusal
            await JSONResponse({"error": message}, status)(scope, receive, send_guarded)
        else:
            await self.app(scope, receive, send_guarded)

    def _refusal(self, method: str, headers: Headers) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if not self._knows(host):
            return 421, f"this server is not {host[:100]!r}; start it with --allow-host to give it that name"
        if method in _SAFE_METHODS:
            return None
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in (f"http://{host}".lower(), f"https://{host}".lower()):
            return 403, "only the server's own pages may do this; the request came from another site"
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return 403, "only the server's own pages may do this; the request came from another site"
        return None

    def _knows(self, host: str) -> bool:
        found = _HOST.fullmatch(host)
        if not found:
            return False
        name = (found["address"] or found["name"]).lower()
        return name in self._names or (self._any_address and _is_address(name))


def is_loopback(host: str) -> bool:
    """Return whether a server bound to this host can be reached from its own machine only."""
    return host.lower() == "localhost" or (_is_address(host) and ip_address(host).is_loopback)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
