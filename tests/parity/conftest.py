"""Parity with Ultralytics itself. Everything here is skipped where it is not installed."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from pathlib import Path

import pytest

HERE = Path(__file__).parent
INSTALLED = importlib.util.find_spec("ultralytics") is not None
WHY = "Ultralytics is not installed: pip install 'maskprism[ultralytics]'"

# Read when Ultralytics is imported: no network access, no installing, no settings in the user's home.
os.environ["YOLO_OFFLINE"] = "true"
os.environ["YOLO_AUTOINSTALL"] = "false"
os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.mkdtemp(prefix="maskprism-parity-"))


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in Path(item.path).parents:
            item.add_marker(pytest.mark.ultralytics)
            if not INSTALLED:
                item.add_marker(pytest.mark.skip(reason=WHY))


@pytest.fixture(scope="session")
def images(real_data):
    found = sorted((real_data / "datasets" / "coco128-seg" / "images").rglob("*.jpg"))
    if not found:
        pytest.skip(f"no coco128-seg images in {real_data}")
    return found


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    """Predictors and exporters write into the working directory."""
    monkeypatch.chdir(tmp_path)
