"""YOLOE, FastSAM, OpenVINO and TorchScript with seeded random weights, against Ultralytics on the same file."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import maskprism
from maskprism.errors import InputError, ModelError, ModelWarning
from parity.comparison import CONF, SIDE, WIDE, Tally, ask, compare, pair
from parity.networks import scenes

pytestmark = pytest.mark.filterwarnings("ignore")


def each():
    return [[scene] for scene in scenes()]


# --- YOLOE ----------------------------------------------------------------------------------------

PROMPTED = ("yoloe-11n-seg", "yoloe-v8n-seg", "yoloe-26n-seg")


@pytest.mark.parametrize("name", PROMPTED)
def test_yoloe_with_its_own_classes(name, checkpoint):
    from ultralytics import YOLOE

    path = checkpoint(name)
    model = maskprism.load(path, imgsz=SIDE, conf=CONF)
    assert (model.spec.layout, model.spec.prototypes, len(model.spec.names)) == ("yolov8", 32, 5)
    assert (model.spec.names[4], model.keep.agnostic) == ("kind4", True)
    compare(YOLOE(path), model, each(), SIDE)
    by_class = maskprism.load(path, imgsz=SIDE, conf=CONF, agnostic=False)
    assert sum(map(len, by_class.predict(scenes()))) > sum(map(len, model.predict(scenes())))
    compare(YOLOE(path), by_class, each(), SIDE, agnostic_nms=False)
    assert maskprism.load(path, multi_label=True).keep.agnostic is False


@pytest.mark.parametrize("name", PROMPTED)
@pytest.mark.parametrize("dynamic", [False, True])
def test_yoloe_as_onnx(name, dynamic, checkpoint, export):
    from ultralytics import YOLO

    path = export(checkpoint(name), "YOLOE", imgsz=SIDE, format="onnx", dynamic=dynamic, simplify=not dynamic)
    model = maskprism.load(path, imgsz=SIDE, conf=CONF)
    assert (model.spec.rectangular, len(model.spec.names)) == (dynamic, 5)
    compare(YOLO(path, task="segment"), model, each(), SIDE)


# --- FastSAM --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fastsam(checkpoint, tmp_path_factory):
    """A checkpoint of one class under the name by which Ultralytics knows the model."""
    return Path(shutil.copy(checkpoint("yolov8n-seg", 1), tmp_path_factory.mktemp("fastsam") / "FastSAM-s.pt"))


def test_fastsam(fastsam):
    from ultralytics import FastSAM

    path = fastsam
    model = maskprism.load(path, imgsz=SIDE, conf=CONF)
    assert (len(model.spec.names), model.spec.prototypes) == (1, 32)
    tally = Tally()
    for scene in scenes():
        answer = ask(FastSAM(path), scene, retina=False, imgsz=SIDE, conf=CONF)[0]
        prediction = model.predict(scene)
        tally.add(prediction, snapped(answer, prediction))
    tally.check(at_least=24)


def snapped(answer, prediction):
    """The answer with the boxes of its masks: FastSAM's Results have edges near the border, within 20 pixels, on it."""
    own = prediction[pair(prediction, answer)][answer.kept].boxes
    moved = np.abs(own - answer.image_boxes) > 0.01
    height, width = prediction.image_size
    border = np.where(own > 20, [width, height, width, height], 0)
    assert (answer.image_boxes[moved] == border[moved]).all()
    assert (np.abs(own - answer.image_boxes) <= 20.01).all()
    return answer._replace(image_boxes=own)


def test_fastsam_as_onnx_at_its_own_size(fastsam, export):
    from ultralytics import FastSAM

    path = export(fastsam, "FastSAM", imgsz=1024, format="onnx")
    model = maskprism.load(path, conf=0.4, iou=0.9, max_det=20)
    assert (model.spec.input_hw, model.spec.grid_hw) == ((1024, 1024), (256, 256))
    yolo = FastSAM(path)
    tally = Tally()
    for scene in scenes()[:2]:
        answer = ask(yolo, scene, retina=False, imgsz=1024, conf=0.4, iou=0.9, max_det=20)[0]
        prediction = model.predict(scene)
        tally.add(prediction, snapped(answer, prediction))
    tally.check(at_least=24)


# --- OpenVINO -------------------------------------------------------------------------------------

OPENVINO = {
    "v8": ("yolov8n-seg", {}, "yolov8", False),
    "v8, wide": ("yolov8n-seg", {"imgsz": WIDE}, "yolov8", False),
    "11, dynamic": ("yolo11n-seg", {"dynamic": True}, "yolov8", True),
    "11, batch of 4": ("yolo11n-seg", {"batch": 4}, "yolov8", False),
    "11, half": ("yolo11n-seg", {"quantize": 16}, "yolov8", False),
    "26": ("yolo26n-seg", {}, "yolov8", False),
    "26, end to end": ("yolo26n-seg", {"nms": False}, "end2end", False),
    "v8, nms": ("yolov8n-seg", {"nms": True, "conf": CONF, "iou": 0.7}, "end2end", False),
}


@pytest.mark.parametrize("name", OPENVINO)
def test_openvino(name, checkpoint, export, monkeypatch):
    pytest.importorskip("openvino")
    from ultralytics import YOLO

    network, options, layout, rectangular = OPENVINO[name]
    path = export(checkpoint(network), format="openvino", **{"imgsz": SIDE, **options})
    imgsz = options.get("imgsz", SIDE)
    model = maskprism.load(path, imgsz=imgsz, conf=CONF)
    assert (model.spec.layout, model.spec.rectangular, len(model.spec.names)) == (layout, rectangular, 80)
    assert model.spec.runtime.startswith("openvino ")
    _compute_in_float32(monkeypatch)
    batches = [scenes()[:3]] if "batch" in options else each()
    compare(YOLO(path, task="segment"), model, batches, imgsz)


def _compute_in_float32(monkeypatch) -> None:
    """Ultralytics leaves the precision to OpenVINO, which takes bfloat16 where the processor has it."""
    import openvino

    compile_model = openvino.Core.compile_model

    def exact(self, model, device_name="CPU", config=None):
        return compile_model(self, model, "CPU", {**(config or {}), "INFERENCE_PRECISION_HINT": "f32"})

    monkeypatch.setattr(openvino.Core, "compile_model", exact)


# --- TorchScript ----------------------------------------------------------------------------------

TORCHSCRIPT = {
    "v8": ("yolov8n-seg", {}, "yolov8", False),
    "v8, wide": ("yolov8n-seg", {"imgsz": WIDE}, "yolov8", False),
    "v8, nms": ("yolov8n-seg", {"nms": True, "conf": CONF, "iou": 0.7}, "end2end", False),
    "11, dynamic": ("yolo11n-seg", {"dynamic": True}, "yolov8", True),
    "11, batch of 4": ("yolo11n-seg", {"batch": 4}, "yolov8", False),
    "26": ("yolo26n-seg", {}, "yolov8", False),
    "26, end to end": ("yolo26n-seg", {"nms": False}, "end2end", False),
}


@pytest.mark.parametrize("name", TORCHSCRIPT)
def test_torchscript(name, checkpoint, export):
    from ultralytics import YOLO

    network, options, layout, rectangular = TORCHSCRIPT[name]
    path = export(checkpoint(network), format="torchscript", **{"imgsz": SIDE, **options})
    imgsz = options.get("imgsz", SIDE)
    model = maskprism.load(path, imgsz=imgsz, conf=CONF)
    assert (model.spec.layout, model.spec.rectangular, len(model.spec.names)) == (layout, rectangular, 80)
    assert model.spec.runtime.startswith("torchscript ")
    batches = [scenes()[:3]] if "batch" in options else each()
    compare(YOLO(path, task="segment"), model, batches, imgsz)


def test_torchscript_in_half_precision(checkpoint, export, tmp_path):
    """Weights in half precision give what float32 gives, up to their steps."""
    import torch

    path = export(checkpoint("yolo11n-seg"), format="torchscript", imgsz=SIDE)
    beside = {"config.txt": ""}
    network = torch.jit.load(path, _extra_files=beside)
    half = tmp_path / "half.torchscript"
    torch.jit.save(network.half(), half, _extra_files=beside)
    full, less = maskprism.load(path, conf=CONF), maskprism.load(half, conf=CONF)
    a, b = full.predict(scenes()[0]), less.predict(scenes()[0])
    assert abs(len(a) - len(b)) <= 0.1 * len(a)
    assert 0 < np.abs(a.prototypes - b.prototypes).mean() < 0.05 * np.abs(a.prototypes).mean()


def test_damaged_torchscript_files_are_refused(checkpoint, export, tmp_path):
    import torch

    whole = tmp_path / "cut.torchscript"
    whole.write_bytes(b"PK" + bytes(100))
    with pytest.raises(ModelError, match=r"cut.torchscript: PyTorch cannot read this file; is it a complete"):
        maskprism.load(whole)
    path = export(checkpoint("yolo11n-seg"), format="torchscript", imgsz=SIDE)
    network = torch.jit.load(path)
    torch.jit.save(network, tmp_path / "bad.torchscript", _extra_files={"config.txt": "{names"})
    with pytest.raises(ModelError, match=r"metadata: cannot be read as JSON"):
        maskprism.load(tmp_path / "bad.torchscript")
    torch.jit.save(network, tmp_path / "bare.torchscript")
    assert maskprism.load(tmp_path / "bare.torchscript", imgsz=SIDE).spec.names[79] == "class79"
    with pytest.raises(InputError, match=r"precision 'f16' is not available with TorchScript"):
        maskprism.load(path, precision="f16")


# --- without a size -------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"format": "onnx", "simplify": False}, {"format": "torchscript"}])
def test_an_export_of_any_size_gets_that_of_ultralytics(options, checkpoint, export):
    """Whatever size it was exported with."""
    from ultralytics import YOLO

    path = export(checkpoint("yolov8n-seg"), imgsz=128, dynamic=True, **options)
    with pytest.warns(ModelWarning, match="was exported with 128 x 128; 640 x 640 is used"):
        model = maskprism.load(path, conf=CONF)
    image = scenes()[0]
    network = YOLO(path, task="segment")
    network.predict(image, verbose=False)
    assert tuple(network.predictor.imgsz) == model.spec.input_hw == (640, 640)
    assert maskprism.load(checkpoint("yolov8n-seg")).spec.input_hw == (640, 640)


# --- checkpoints that were saved by hand ----------------------------------------------------------


@pytest.mark.parametrize("spoil", ["names", "DataParallel", "DataParallel in DataParallel"])
def test_checkpoints_that_were_saved_by_hand(spoil, checkpoint, tmp_path):
    """With the model as training on several GPUs left it, or with names as a list."""
    import torch

    path = checkpoint("yolov8n-seg")
    held = torch.load(path, map_location="cpu", weights_only=False)
    if spoil == "names":
        held["model"].names = list(held["model"].names.values())
    for _ in range(spoil.count("DataParallel")):
        held["model"] = torch.nn.DataParallel(held["model"])
    torch.save(held, tmp_path / "by_hand.pt")
    model, plain = (maskprism.load(file, imgsz=SIDE, conf=CONF) for file in (tmp_path / "by_hand.pt", path))
    assert model.spec.names == plain.spec.names
    for image in scenes():
        np.testing.assert_array_equal(model.predict(image).coefficients, plain.predict(image).coefficients)


def test_another_network_in_a_checkpoint_is_named(tmp_path):
    import torch
    from ultralytics import YOLO

    network = YOLO("yolov8n-seg.yaml", verbose=False)
    network.model = torch.nn.Linear(2, 2)
    with pytest.raises(ModelError, match="holds a Linear; expected a model as Ultralytics builds it"):
        maskprism.load(network)
