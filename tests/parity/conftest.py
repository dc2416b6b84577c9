"""Parity with Ultralytics itself. Everything here is skipped where it is not installed."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from hashlib import sha256
from pathlib import Path

import pytest

HERE = Path(__file__).parent
INSTALLED = importlib.util.find_spec("ultralytics") is not None
WHY = "Ultralytics is not installed: pip install 'maskprism[ultralytics]'"

# Read when Ultralytics is imported: no network access, no installing, no settings in the user's home.
os.environ["YOLO_OFFLINE"] = "true"
os.environ["YOLO_AUTOINSTALL"] = "false"
os.environ["CI"] = "true"  # or OpenVINO reports every conversion, from a copy of the process
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


@pytest.fixture(scope="session", autouse=True)
def _no_waste():
    """Have Ultralytics count no operations, for a line of its log, and ONNX Runtime wait for no second thread."""
    if not INSTALLED:
        yield
        return
    import onnxruntime
    from ultralytics.utils import torch_utils

    class OneThread(onnxruntime.SessionOptions):
        def __init__(self):
            super().__init__()
            self.intra_op_num_threads = 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch_utils, "get_flops", lambda *_: 0.0)
        patch.setattr(onnxruntime, "SessionOptions", OneThread)
        yield


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """Files that several tests read, made once for all processes: `made_once(name, make)`, `make` gets a folder."""
    from filelock import FileLock

    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def made(name, make):
        folder = shared / f"made-{sha256(name.encode()).hexdigest()[:12]}"
        note = folder.with_suffix(".path")
        with FileLock(folder.with_suffix(".lock")):
            if not note.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                note.write_text(str(make(folder)), encoding="utf-8")
        return Path(note.read_text(encoding="utf-8"))

    return made


@pytest.fixture(scope="session")
def checkpoint(made_once):
    """The saved checkpoint of a model with random weights, by its name."""
    from parity.more_networks import random_yoloe
    from parity.networks import random_network, save

    def make(network, classes=80):
        if network.startswith("yoloe"):
            return made_once(network, lambda folder: save(random_yoloe(f"{network}.yaml"), folder / f"{network}.pt"))
        return made_once(
            f"{network} {classes}",
            lambda folder: save(random_network(f"{network}.yaml", classes=classes), folder / f"{network}.pt"),
        )

    return make


@pytest.fixture(scope="session")
def export(made_once):
    """What Ultralytics exports from a checkpoint with these options, by the class that opens it."""
    import ultralytics

    def make(path, kind="YOLO", **options):
        def exported(folder):
            copy = shutil.copy(path, folder / path.name)  # exports are written beside the checkpoint
            return getattr(ultralytics, kind)(copy).export(verbose=False, **options)

        return made_once(f"{path} {kind} {sorted(options.items())}", exported)

    return make


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    """Predictors and exporters write into the working directory."""
    monkeypatch.chdir(tmp_path)
