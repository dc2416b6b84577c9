"""Nothing is sent anywhere, and nothing is filed in the user's home: telemetry of libraries is off."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import maskprism
from maskprism.models import SAMPLE_MODEL

VARIABLES = ("ORT_DISABLE_TELEMETRY", "RAY_USAGE_STATS_ENABLED", "HF_HUB_DISABLE_TELEMETRY")
STRACE = shutil.which("strace")
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
needs_serve = pytest.mark.skipif(importlib.util.find_spec("uvicorn") is None, reason="uvicorn is not installed")
needs_ultralytics = pytest.mark.skipif(
    importlib.util.find_spec("ultralytics") is None, reason="Ultralytics is not installed"
)
needs_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="OpenVINO is not installed")


@pytest.fixture
def watch(tmp_path: Path):
    """Run a command with an empty home; where strace is installed under it, to see whom it talks to."""
    home, photos, log = tmp_path / "home", tmp_path / "photos", tmp_path / "log"
    home.mkdir()
    photos.mkdir()
    for number in range(2):
        picture = np.random.default_rng(number).integers(0, 255, (64, 64, 3), np.uint8)
        cv2.imwrite(str(photos / f"{number}.png"), picture)
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    environment = {name: value for name, value in environment.items() if not name.startswith("XDG_")}
    environment |= {"HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}

    def run(*arguments: object, until: str = "", code: int = 0) -> None:
        trace = [STRACE, "-f", "-qq", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-o", log] if STRACE else []
        command = [*trace, sys.executable, "-m", "maskprism", *arguments]
        with subprocess.Popen(
            list(map(str, command)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            cwd=tmp_path,
            start_new_session=True,
        ) as process:
            assert process.stdout is not None
            lines = []
            while until and until not in (line := process.stdout.readline()):
                lines.append(line)
                assert process.poll() is None, lines
            if until:
                os.killpg(process.pid, signal.SIGINT)
            lines.append(process.communicate(timeout=240)[0])
        assert process.returncode == code, lines
        assert not list(home.rglob("*"))
        if STRACE:
            assert not strangers(log.read_text(errors="replace"))

    run.photos = photos  # type: ignore[attr-defined]
    run.out = tmp_path / "t.parquet"  # type: ignore[attr-defined]
    return run


def strangers(trace: str) -> set[str]:
    """Whom the traced processes talk to, but for this machine.

    Ray and others learn the address of this machine from the route that a datagram to 8.8.8.8 would take; connecting
    such a socket sends nothing.
    """
    found, routes = set(), {}
    for line in trace.splitlines():
        process, _, call = line.partition(" ")
        descriptor = (process, call.strip().partition("(")[2].partition(",")[0])
        addresses = re.findall(r'inet_(?:addr|pton)\((?:AF_INET6, )?"(?:::ffff:)?([^"]+)"', line)
        if "connect(" in call:
            routes.pop(descriptor, None)
        if "connect(" in call and addresses == ["8.8.8.8"] and "htons(53)" in call:
            routes[descriptor] = "8.8.8.8"
        elif descriptor in routes:  # something is sent there
            found.add(routes[descriptor])
        else:
            found |= {one for one in addresses if not one.startswith("127.") and one not in ("::1", *own_addresses())}
    return found


def test_strangers_are_those_to_whom_something_goes() -> None:
    route = '7 connect(3, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("8.8.8.8")}, 16) = 0\n'
    local = '7 connect(3, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("127.0.0.1")}, 16) = 0\n'
    sent = '7 sendto(3, "...", 4, 0, NULL, 0) = 4\n'
    cloud = '7 connect(3, {sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("169.254.169.254")}, 16) = 0\n'
    assert strangers(route + local + sent) == set()
    assert strangers(route + sent) == {"8.8.8.8"}
    assert strangers(route + cloud) == {"169.254.169.254"}


def own_addresses() -> list[str]:
    """Those of this machine, by which the processes of Ray speak with each other."""
    try:
        import psutil
    except ImportError:
        return []
    return [address.address for card in psutil.net_if_addrs().values() for address in card]


def test_info(watch) -> None:
    watch("info", "--model", SAMPLE_MODEL)


@needs_openvino
def test_openvino(watch) -> None:
    watch("info", "--model", SAMPLE_MODEL, "--runtime", "openvino")


@needs_ultralytics
def test_importing_ultralytics(watch) -> None:
    checkpoint = watch.out.with_suffix(".pt")
    checkpoint.write_bytes(b"no checkpoint")
    watch("info", "--model", checkpoint, code=1)


def test_extract(watch) -> None:
    watch("extract", watch.photos, "--model", SAMPLE_MODEL, "--out", watch.out)


@needs_serve
def test_serve(watch) -> None:
    watch("serve", watch.photos, "--model", SAMPLE_MODEL, "--port", 0, until="Ctrl-C stops")


@needs_ray
def test_workers_of_ray(watch) -> None:
    line = ("extract", watch.photos, "--model", SAMPLE_MODEL, "--out", watch.out)
    watch(*line, "--engine", "ray", "--workers", 1)


def test_what_the_user_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    code = f"import os, maskprism; print(*(os.environ[name] for name in {VARIABLES}))"
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["1", "1", "1"]
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["0", "0", "1"]


def test_security_names_the_variables() -> None:
    text = (Path(maskprism.__file__).parents[2] / "SECURITY.md").read_text(encoding="utf-8")
    assert all(f"`{name}" in text for name in VARIABLES)
