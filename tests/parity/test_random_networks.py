"""Every family and export of Ultralytics, with seeded random weights, against Ultralytics on the same file."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

import maskprism
from parity.comparison import CONF, SIDE, WIDE, Tally, ask, compare, pair
from parity.networks import scenes


class Case(NamedTuple):
    """A model, how it is exported (None: the checkpoint itself), and what maskprism should see in it."""

    network: str
    export: dict[str, Any] | None = None
    layout: str = "yolov8"
    rectangular: bool = False
    imgsz: Any = SIDE
    classes: int = 80
    batch: int = 1


AS_TRACED = {"simplify": False}
"""For further sizes, batches and classes: rewriting the graph, as by default, takes a third of an export."""
CASES = {
    "v8.pt": Case("yolov8n-seg", None, rectangular=True),
    "v8.onnx": Case("yolov8n-seg", {}),
    "v8.pt, other side": Case("yolov8n-seg", None, rectangular=True, imgsz=320),
    "v8.pt, wide": Case("yolov8n-seg", None, rectangular=True, imgsz=WIDE),
    "v8.onnx, batch of 4": Case("yolov8n-seg", {**AS_TRACED, "batch": 4}, batch=4),
    "v8.onnx, batch of 4, nms": Case("yolov8n-seg", {**AS_TRACED, "batch": 4, "nms": True}, "end2end", batch=4),
    "v8.onnx, nms": Case("yolov8n-seg", {"nms": True}, "end2end"),
    "v8.onnx, nms=False": Case("yolov8n-seg", {**AS_TRACED, "nms": False}),
    "v8.onnx, half": Case("yolov8n-seg", {"quantize": 16}),
    "v8.onnx, 2 classes": Case("yolov8n-seg", AS_TRACED, classes=2),
    "v8.pt, 2 classes": Case("yolov8n-seg", None, rectangular=True, classes=2),
    "v8.onnx, 2 classes, dynamic": Case("yolov8n-seg", {**AS_TRACED, "dynamic": True}, rectangular=True, classes=2),
    "v8.onnx, 2 classes, nms": Case("yolov8n-seg", {**AS_TRACED, "nms": True}, "end2end", classes=2),
    "v9c.onnx": Case("yolov9c-seg", {}),
    "11.pt": Case("yolo11n-seg", None, rectangular=True),
    "11.onnx": Case("yolo11n-seg", {}),
    "11.onnx, dynamic": Case("yolo11n-seg", {"dynamic": True}, rectangular=True),
    "11.onnx, wide": Case("yolo11n-seg", AS_TRACED, imgsz=WIDE),
    "11.onnx, half, wide": Case("yolo11n-seg", {**AS_TRACED, "quantize": 16}, imgsz=WIDE),
    "11.onnx, dynamic, wide": Case("yolo11n-seg", {**AS_TRACED, "dynamic": True}, rectangular=True, imgsz=WIDE),
    "12.pt": Case("yolo12n-seg", None, rectangular=True),
    "12.onnx": Case("yolo12n-seg", {}),
    "26.pt": Case("yolo26n-seg", None, rectangular=True),
    "26.onnx": Case("yolo26n-seg", {}),
    "26.onnx, dynamic": Case("yolo26n-seg", {**AS_TRACED, "dynamic": True}, rectangular=True),
    "26.onnx, nms=False": Case("yolo26n-seg", {"nms": False}, "end2end"),
    "26.onnx, nms=False, dynamic": Case(
        "yolo26n-seg", {"nms": False, "dynamic": True}, "end2end", rectangular=True, imgsz=320
    ),
    "26.onnx, nms=False, wide": Case("yolo26n-seg", {**AS_TRACED, "nms": False}, "end2end", imgsz=WIDE),
    "26.onnx, nms=False, half": Case("yolo26n-seg", {"nms": False, "quantize": 16}, "end2end"),
    "26.onnx, nms=True": Case("yolo26n-seg", {"nms": True}, "end2end"),
    "26.onnx, 2 classes": Case("yolo26n-seg", AS_TRACED, classes=2),
    "26.onnx, 2 classes, nms=False": Case("yolo26n-seg", {**AS_TRACED, "nms": False}, "end2end", classes=2),
}


def file_of(case: Case, checkpoint, export):
    """The file that the case is about."""
    path = checkpoint(case.network, case.classes)
    if case.export is None:
        return path
    baked = {"conf": CONF, "iou": 0.7} if case.export.get("nms") else {}
    return export(path, format="onnx", imgsz=case.imgsz, **baked, **case.export)


@pytest.mark.parametrize("name", CASES)
def test_same_as_ultralytics(name, checkpoint, export):
    from ultralytics import YOLO

    case = CASES[name]
    path = file_of(case, checkpoint, export)
    model = maskprism.load(path, imgsz=case.imgsz, conf=CONF)
    assert (model.spec.layout, model.spec.rectangular, len(model.spec.names), model.spec.prototypes) == (
        case.layout,
        case.rectangular,
        case.classes,
        32,
    )
    # Models with a fixed batch of 4 are given 3, in one go.
    batches = [scenes()[:3]] if case.batch > 1 else [[scene] for scene in scenes()]
    compare(YOLO(path, task="segment"), model, batches, case.imgsz)


def test_the_one_to_one_head_of_a_checkpoint(checkpoint):
    from ultralytics import YOLO

    path = checkpoint("yolo26n-seg")
    model = maskprism.load(path, imgsz=SIDE, conf=CONF, layout="end2end")
    assert model.spec.layout == "end2end"
    compare(YOLO(path), model, [[scene] for scene in scenes()], SIDE, nms=False)


def test_the_one_to_many_head_is_the_default_of_a_checkpoint_and_can_be_named(checkpoint):
    path = checkpoint("yolo26n-seg")
    scene = scenes()[0]
    by_default, named, other = (
        maskprism.load(path, imgsz=SIDE, layout=layout).predict(scene) for layout in (None, "yolov8", "end2end")
    )
    assert (by_default.coefficients == named.coefficients).all()
    assert len(by_default) != len(other) or (by_default.scores != other.scores).any()


def test_a_checkpoint_without_a_one_to_one_head_has_no_end2end_layout(checkpoint):
    with pytest.raises(maskprism.MaskprismError, match="no one-to-one head"):
        maskprism.load(checkpoint("yolo11n-seg"), layout="end2end")


def test_fewer_classes_and_detections(checkpoint):
    from ultralytics import YOLO

    path = checkpoint("yolo11n-seg")
    wanted = sorted(set(maskprism.load(path, imgsz=SIDE).predict(scenes()[2]).classes.tolist()))[::2]
    model = maskprism.load(path, imgsz=SIDE, conf=CONF, iou=0.4, max_det=20, classes=wanted)
    compare(YOLO(path), model, [[scene] for scene in scenes()], SIDE, iou=0.4, max_det=20, classes=wanted)


def test_half_precision_inputs_and_outputs(checkpoint, export, tmp_path, monkeypatch):
    """As exported on a graphics card: the tensors at both ends are float16 as well.

    Ultralytics turns centres and sizes into corners in float16, whose steps are 1/8 pixel from 128 on; maskprism does
    it in float32. With their corners everything agrees; with ours, corners lie within their steps.
    """
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from ultralytics import YOLO

    def rounded(boxes_cxcywh):
        centre, half = boxes_cxcywh[:, :2].astype("f2"), (boxes_cxcywh[:, 2:4] / 2).astype("f2")
        return np.concatenate([centre - half, centre + half], axis=1).astype("f4")

    path = file_of(CASES["v8.onnx"], checkpoint, export)
    half = tmp_path / "half.onnx"
    onnx.save(convert_float_to_float16(onnx.load(path), keep_io_types=False), half)
    model, yolo = maskprism.load(half, conf=CONF), YOLO(half, task="segment")
    tally = Tally()
    for scene in scenes():
        answer = ask(yolo, scene, retina=False, conf=CONF)[0]
        ours = model.predict(scene)
        matched_with = pair(ours, answer)
        found = matched_with >= 0  # a box more or less, where suppression hangs on the rounding
        assert found.mean() >= 0.99
        assert abs(answer.canvas_boxes[found] - ours[matched_with[found]].canvas_boxes).max() <= 0.25
        with monkeypatch.context() as patched:
            patched.setattr("maskprism.models.families.yolo.corners", rounded)
            prediction = model.predict(scene)
        assert not np.array_equal(prediction.canvas_boxes, ours.canvas_boxes)
        tally.add(prediction, answer)
    tally.check(at_least=24)
