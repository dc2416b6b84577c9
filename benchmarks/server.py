"""`maskprism serve` under 50 clients at once, against a bare Starlette application that answers from memory.

    python benchmarks/server.py

Every client keeps one connection and asks one thing after another. "Cached" answers come from memory, "uncached" ones
make the model look at an image; their baseline is `model.predict` in a loop on one thread, without any server.
The clients run on the same machine, in one process, and take their share of it.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np
import uvicorn
from rich.console import Console
from rich.table import Table
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import maskprism
from maskprism.datasets.scenes import write_dataset
from maskprism.io.images import read_image

CLIENTS = 50
IMAGES = 100
REQUESTS = 1000


class Load(NamedTuple):
    """What came of many requests."""

    requests_per_s: float
    median_ms: float
    p95_ms: float
    size: int


async def _client(port: int, paths: Sequence[str], elapsed_ms: list[float], sizes: list[int]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
    for path in paths:
        start = time.perf_counter()
        writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        length = int(re.search(rb"content-length: (\d+)", head)[1])
        await reader.readexactly(length)
        elapsed_ms.append((time.perf_counter() - start) * 1e3)
        sizes.append(length)
    writer.close()


def load(address: str, paths: Sequence[str]) -> Load:
    """All paths, dealt to the clients in turn."""

    async def run() -> Load:
        elapsed_ms: list[float] = []
        sizes: list[int] = []
        port = urlsplit(address).port
        start = time.perf_counter()
        await asyncio.gather(*(_client(port, paths[i::CLIENTS], elapsed_ms, sizes) for i in range(CLIENTS)))
        seconds = time.perf_counter() - start
        return Load(len(paths) / seconds, *np.percentile(elapsed_ms, [50, 95]), int(np.mean(sizes)))

    return asyncio.run(run())


class Served:
    """`maskprism serve` on a free port, with one thread per processor."""

    def __init__(self, folder: Path, *options: object) -> None:
        command = [sys.executable, "-m", "maskprism", "serve", str(folder), "--port", "0", *map(str, options)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.address = re.search(r"http://[^ ]+", self.process.stdout.readline())[0]

    def __enter__(self) -> str:
        """The address, once the background work is done: it would take its share of the processors."""
        while True:
            with urllib.request.urlopen(f"{self.address}api/progress") as answer:
                progress = json.load(answer)
            if progress["examined"] == progress["total"]:
                return self.address
            time.sleep(0.2)

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()


def bare(port: int, answers: dict[str, bytes]) -> None:
    """The least that Starlette and uvicorn can do: bytes from memory."""

    async def answer(request: Request) -> Response:
        return Response(answers[request.url.path], media_type="application/octet-stream")

    app = Starlette(routes=[Route(path, answer) for path in answers])
    uvicorn.run(app, port=port, log_level="warning", access_log=False)


def wait_until(port: int) -> None:
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)


def predictions_per_s(folder: Path) -> float:
    model = maskprism.load("sample", threads=1)
    images = sorted(folder.rglob("*.png"))
    start = time.perf_counter()
    for path in images:
        model.predict(read_image(path))
    return len(images) / (time.perf_counter() - start)


def measure(folder: Path) -> tuple[dict[str, Load], dict[str, Load], float, Load]:
    """Cached answers, those of the bare application, predictions per second without a server, uncached scenes."""
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.png"))]
    paths = {
        "scene": [f"/api/scenes/{name}" for name in names[:20]],
        "thumbnail": [f"/api/thumbnails/{name}?masks=1" for name in names],
        "list": ["/api/images?class=2&score=0.5-1&sort=score"],
    }
    with Served(folder) as address:
        for asked in paths.values():
            load(address, asked)
        cached = {kind: load(address, asked * (REQUESTS // len(asked))) for kind, asked in paths.items()}
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    answers = {f"/{kind}": bytes(found.size) for kind, found in cached.items()}
    process = multiprocessing.get_context("spawn").Process(target=bare, args=(port, answers), daemon=True)
    process.start()
    wait_until(port)
    baseline = {kind: load(f"http://127.0.0.1:{port}", [f"/{kind}"] * REQUESTS) for kind in cached}
    process.terminate()
    alone = predictions_per_s(folder)
    with Served(folder, "--cache-mb", 1) as address:  # room for no more than one scene: every one is computed
        uncached = load(address, [f"/api/scenes/{name}" for name in names])
    return cached, baseline, alone, uncached


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_dataset(folder, IMAGES, validation_share=1.0)
        cached, baseline, alone, uncached = measure(Path(folder) / "images")
    table = Table(title=f"{CLIENTS} clients at once, {IMAGES} images of 320 x 320, {os.cpu_count()} processors")
    for column in ("answer", "size", "requests/s", "median", "95 %", "baseline", "baseline/s", "ratio"):
        table.add_column(column, justify="left" if column in ("answer", "baseline") else "right")
    rows = [
        (f"{kind}, cached", found, "bare Starlette", baseline[kind].requests_per_s) for kind, found in cached.items()
    ]
    for name, found, against, rate in [*rows, ("scene, uncached", uncached, "predict, no server", alone)]:
        table.add_row(
            name,
            f"{found.size / 1024:.0f} kB",
            f"{found.requests_per_s:.0f}",
            f"{found.median_ms:.0f} ms",
            f"{found.p95_ms:.0f} ms",
            against,
            f"{rate:.0f}",
            f"{found.requests_per_s / rate:.2f}",
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
