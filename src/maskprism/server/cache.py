"""What the server remembers: bytes within a bound, and every computation under way only once."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class ByteCache(Generic[Key]):
    """Byte strings by key, `limit` bytes at most; the ones longest unused go first.

    Belongs to one thread: that of the event loop.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self._entries: OrderedDict[Key, bytes] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: Key) -> bool:
        return key in self._entries

    def get(self, key: Key) -> bytes | None:
        """Return the bytes under a key, which count as used now; None where there are none."""
        if key in self._entries:
            self._entries.move_to_end(key)
        return self._entries.get(key)

    def put(self, key: Key, value: bytes, *, push_out: bool = True) -> bool:
        """Keep a value if it fits; without `push_out` only if nothing has to go for it.

        Gives whether it is kept.
        """
        self.drop(key)
        if len(value) > (self.limit if push_out else self.limit - self.held):
            return False
        while self.held + len(value) > self.limit:
            self.drop(next(iter(self._entries)))
        self._entries[key] = value
        self.held += len(value)
        return True

    def drop(self, key: Key) -> None:
        """Forget a key, known or not."""
        self.held -= len(self._entries.pop(key, b""))


class SingleFlight(Generic[Key, Value]):
    """Calls by key: a caller that asks while a call is under way waits for that one.

    A caller that goes away does not take the call with it, for others may wait.
    """

    def __init__(self) -> None:
        self._under_way: dict[Key, asyncio.Task[Value]] = {}

    def __len__(self) -> int:
        return len(self._under_way)

    async def run(self, key: Key, call: Callable[[], Awaitable[Value]]) -> Value:
        """Return the value of the call under way for this key, or of a new one. Raises what the call raises."""
        task = self._under_way.get(key)
        if task is None:
            task = self._under_way[key] = asyncio.ensure_future(_awaited(call()))
            task.add_done_callback(lambda done: self._finished(key, done))
        return await asyncio.shield(task)

    def _finished(self, key: Key, task: asyncio.Task[Value]) -> None:
        del self._under_way[key]
        if not task.cancelled():
            task.exception()  # has been looked at, even where everybody who asked has gone


async def _awaited(value: Awaitable[Value]) -> Value:
    return await value
