"""What the server remembers: bytes within a bound, and every computation under way only once."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from maskprism.server.cache import ByteCache, SingleFlight


@given(
    limit=st.integers(0, 12),
    steps=st.lists(st.tuples(st.sampled_from("abcd"), st.none() | st.integers(0, 14), st.booleans()), max_size=30),
)
def test_the_cache_is_a_bounded_lru(limit: int, steps: list[tuple[str, int | None, bool]]) -> None:
    """Against the obvious twin: a list of pairs, the latest used last."""
    cache: ByteCache[str] = ByteCache(limit)
    twin: list[tuple[str, bytes]] = []
    for key, size, push_out in steps:
        if size is None:
            found = dict(twin).get(key)
            assert cache.get(key) == found
            if found is not None:
                twin = [pair for pair in twin if pair[0] != key] + [(key, found)]
            continue
        twin = [pair for pair in twin if pair[0] != key]
        used = sum(len(value) for _, value in twin)
        fits = size <= limit if push_out else used + size <= limit
        assert cache.put(key, bytes(size), push_out=push_out) == fits
        if fits:
            while sum(len(value) for _, value in twin) + size > limit:
                twin.pop(0)
            twin.append((key, bytes(size)))
        assert cache.held == sum(len(value) for _, value in twin) <= limit
        assert len(cache) == len(twin)
        assert all(key in cache for key, _ in twin)


def test_one_call_at_a_time_for_each_key() -> None:
    async def run() -> None:
        flights: SingleFlight[str, int] = SingleFlight()
        calls = 0
        go = asyncio.Event()

        async def call() -> int:
            nonlocal calls
            calls += 1
            await go.wait()
            if calls == 1:
                raise ValueError("the first one fails")
            return calls

        first = [asyncio.create_task(flights.run("a", call)) for _ in range(5)]
        await asyncio.sleep(0)
        first[0].cancel()  # the one that began it goes away; the others still get their answer
        await asyncio.sleep(0)
        go.set()
        found = await asyncio.gather(*first, return_exceptions=True)
        assert isinstance(found[0], asyncio.CancelledError)
        assert [str(error) for error in found[1:]] == ["the first one fails"] * 4
        assert calls == 1
        assert len(flights) == 0
        assert await asyncio.gather(flights.run("a", call), flights.run("b", call), flights.run("a", call)) == [2, 3, 2]

    asyncio.run(run())
