"""The end of the server: requests under way are answered at once, and nothing is printed."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

import uvicorn
from starlette.responses import JSONResponse

from maskprism.server.security import HEADERS

if TYPE_CHECKING:
    import socket
    from types import FrameType

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LINGER_S = 1.0
"""How long clients may take to fetch the answers they have been given."""


class Closing:
    """An application whose requests can be ended: what is not answered by then gets 503.

    Without it a server that stops cancels them, and reports each as a failure of the application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._closed = False
        self._waiting: set[asyncio.Task[object]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, unless it is closed before the answer begins."""
        task = asyncio.current_task()
        if scope["type"] != "http" or task is None:
            await self.app(scope, receive, send)
            return

        async def send_answer(message: Message) -> None:
            self._waiting.discard(task)  # an answer that has begun is not broken off
            await send(message)

        refusal = JSONResponse({"error": "the server is stopping"}, 503, headers={**HEADERS, "Connection": "close"})
        if self._closed:
            await refusal(scope, receive, send)
            return
        self._waiting.add(task)
        try:
            await self.app(scope, receive, send_answer)
        except asyncio.CancelledError:
            if not (self._closed and task in self._waiting):
                raise
            task.uncancel()
            await refusal(scope, receive, send)
        finally:
            self._waiting.discard(task)

    def close(self) -> None:
        """End all requests that wait for their answer, and those that still come."""
        self._closed = True
        for task in self._waiting:
            task.cancel()


class Server(uvicorn.Server):
    """uvicorn that closes its application before it waits for clients, and waits for none of them long.

    Parameters
    ----------
    on_ready
        Called once interrupts are in uvicorn's hands and requests are answered.
    """

    def __init__(self, config: uvicorn.Config, closing: Closing, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._closing = closing
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer, and say so."""
        await super().startup(sockets)
        self._on_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal ends the server within seconds; at a second one uvicorn would end in a traceback."""
        if sig == signal.SIGINT:  # uvicorn would raise it again at its end, where it counts as a second Ctrl-C
            self.should_exit = True
        elif not self.should_exit:
            super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the requests, then the connections."""
        self._closing.close()
        asyncio.get_running_loop().call_later(_LINGER_S, self._cut)
        await super().shutdown(sockets)

    def _cut(self) -> None:
        for connection in self.server_state.connections:
            connection.transport.abort()
