"""A bucket of S3, on a server of this machine."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from pyarrow.fs import S3FileSystem


@pytest.fixture(scope="session")
def options() -> Iterator[str]:
    """What a URI needs so that it leads to a server with one bucket, `bucket`."""
    server = pytest.importorskip("moto.server", reason="moto, a server that speaks S3, is not installed")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = server.ThreadedMotoServer("127.0.0.1", 0)
    running.start()
    _, port = running.get_host_and_port()
    S3FileSystem(
        access_key="key",
        secret_key="secret",
        endpoint_override=f"127.0.0.1:{port}",
        scheme="http",
        allow_bucket_creation=True,
    ).create_dir("bucket")
    yield f"region=us-east-1&scheme=http&endpoint_override=127.0.0.1:{port}"
    running.stop()
