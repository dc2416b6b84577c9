"""Files named `.pt` that are no segmentation checkpoint: one clear sentence, nothing installed, no network access."""

from __future__ import annotations

import pickle
import socket
import subprocess
import sys

import pytest

import maskprism
from helpers.in_process import command
from maskprism.errors import ModelError


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    """Fail on any attempt to install or download, even where the user has switched Ultralytics' installing on."""
    from ultralytics.utils import checks, downloads

    def refuse(*arguments, **_settings):
        pytest.fail(f"tried to reach out: {arguments}")

    monkeypatch.setattr(checks, "AUTOINSTALL", True)
    monkeypatch.setattr(checks, "ONLINE", True)
    monkeypatch.setattr(subprocess, "check_output", refuse)
    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(downloads, "safe_download", refuse)
    yield
    assert checks.AUTOINSTALL is True  # the user's own setting is put back


class FromElsewhere:
    """Pickled under the name of a module that is not there."""


def write(path, kind):
    import torch

    if kind == "text":
        path.write_text("this is no checkpoint\n")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "pickled dict":
        path.write_bytes(pickle.dumps({"weights": [1, 2, 3]}))
    elif kind == "saved dict":
        torch.save({"epoch": 3}, path)
    elif kind == "saved tensor":
        torch.save(torch.zeros(3), path)
    elif kind == "truncated":
        torch.save({"model": torch.zeros(10_000)}, path)
        path.write_bytes(path.read_bytes()[:2000])
    elif kind == "missing package":
        module = type(sys)("a_package_that_is_not_installed")
        module.FromElsewhere, FromElsewhere.__module__ = FromElsewhere, module.__name__
        sys.modules[module.__name__] = module
        try:
            torch.save({"model": FromElsewhere()}, path)
        finally:
            del sys.modules[module.__name__]
    elif kind == "YOLOv5 checkpoint":
        for name in ("models", "models.yolo"):
            sys.modules[name] = type(sys)(name)
        sys.modules["models.yolo"].FromElsewhere, FromElsewhere.__module__ = FromElsewhere, "models.yolo"
        try:
            torch.save({"model": FromElsewhere()}, path)
        finally:
            del sys.modules["models.yolo"], sys.modules["models"]
    elif kind == "TorchScript":
        torch.jit.trace(torch.nn.Conv2d(3, 3, 1), torch.zeros(1, 3, 8, 8)).save(str(path))
    return path


KINDS = [
    "text",
    "empty",
    "pickled dict",
    "saved dict",
    "saved tensor",
    "truncated",
    "missing package",
    "YOLOv5 checkpoint",
    "TorchScript",
]


@pytest.mark.parametrize("name", ["own.pt", "yolo11n-seg.pt"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_no_checkpoint(tmp_path, kind, name, capfd, monkeypatch):
    path = write(tmp_path / name, kind)
    before = path.read_bytes()
    for given in (path, path.name):  # by its bare name, too: the tests run in its folder
        with pytest.raises(ModelError, match=r"Ultralytics cannot read this file") as caught:
            maskprism.load(given)
        message = str(caught.value)
        assert message.startswith(f"{given}: ")
        assert "\n" not in message
        assert len(message.removeprefix(str(given))) < 450  # what the temporary folder is called does not count
    assert path.read_bytes() == before
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("key", [None, "model", "state_dict"])
def test_weights_without_their_network(checkpoint, tmp_path, key):
    import torch

    weights = torch.load(checkpoint("yolov8n-seg"), weights_only=False)["model"].state_dict()
    torch.save(weights if key is None else {key: weights, "epoch": 3}, tmp_path / "weights.pt")
    with pytest.raises(ModelError, match=r"weights\.pt: holds weights alone \(a state_dict\)"):
        maskprism.load(tmp_path / "weights.pt")


@pytest.mark.parametrize("wrapped", [False, True], ids=["alone", "in DataParallel"])
def test_a_network_saved_without_its_dict(checkpoint, tmp_path, wrapped):
    import torch

    network = torch.load(checkpoint("yolov8n-seg"), weights_only=False)["model"]
    torch.save(torch.nn.DataParallel(network) if wrapped else network, tmp_path / "bare.pt")
    with pytest.raises(ModelError, match=r"bare\.pt: .*a dict (with the network )?as 'model'"):
        maskprism.load(tmp_path / "bare.pt")


@pytest.mark.parametrize(
    ("yaml", "task"),
    [("yolo11n.yaml", "detect"), ("yolo11n-cls.yaml", "classify"), ("yolo11n-pose.yaml", "pose")],
)
def test_a_checkpoint_of_another_task(tmp_path, yaml, task):
    from ultralytics import YOLO

    path = tmp_path / "net.pt"
    YOLO(yaml, verbose=False).save(path)
    for model in (path, YOLO(path)):
        for layout in (None, "yolov8", "end2end"):
            with pytest.raises(ModelError, match=f"is a {task} model; masks come from a segmentation model"):
                maskprism.load(model, layout=layout)


def test_reading_a_good_checkpoint_reaches_out_for_nothing(checkpoint):
    assert maskprism.load(checkpoint("yolov8n-seg"), imgsz=160).spec.prototypes == 32


def test_an_object_that_is_no_model():
    with pytest.raises(maskprism.MaskprismError, match="cannot load a model from dict"):
        maskprism.load({"model": 1})


def test_a_sentence_and_no_traceback_from_the_command_line(tmp_path):
    done = command("info", write(tmp_path / "own.pt", "text"))
    assert done.returncode not in (0, None)
    assert "Traceback" not in done.stdout + done.stderr
    assert "Ultralytics cannot read this file" in " ".join(done.stderr.split())
