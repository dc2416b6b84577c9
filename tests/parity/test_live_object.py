"""A live `ultralytics.YOLO` gives what its file gives, and is left as it was."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

import maskprism
from parity.networks import scenes

SIDE = 160


@pytest.fixture(params=["yolov8n-seg", "yolo26n-seg"])
def path(request, checkpoint):
    return checkpoint(request.param)


def state(yolo):
    return {name: tensor.clone() for name, tensor in yolo.model.state_dict().items()}


def layers(yolo):
    return [type(module).__name__ for module in yolo.model.modules()]


def assert_same(a, b) -> None:
    assert len(a) == len(b) > 0
    for name in ("canvas_boxes", "scores", "classes", "coefficients", "prototypes"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    np.testing.assert_array_equal(a.masks(), b.masks())


@pytest.mark.parametrize("training", [True, False])
def test_same_as_its_file_and_left_alone(path, training):
    import torch
    from ultralytics import YOLO

    yolo = YOLO(path)
    yolo.model.train(training)
    before, kinds, grads = state(yolo), layers(yolo), [p.requires_grad for p in yolo.model.parameters()]
    head = yolo.model.end2end
    from_object, from_file = maskprism.load(yolo, imgsz=SIDE), maskprism.load(path, imgsz=SIDE)
    for scene in scenes():
        assert_same(from_object.predict(scene), from_file.predict(scene))
    assert yolo.model.training is training
    assert yolo.model.end2end == head
    assert layers(yolo) == kinds
    assert "BatchNorm2d" in kinds  # it was not fused before, and is not now
    assert [p.requires_grad for p in yolo.model.parameters()] == grads
    after = yolo.model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("use", ["predict", "fuse", "fuse and predict"])
def test_after_it_was_used(path, use):
    import torch
    from ultralytics import YOLO

    yolo, scene = YOLO(path), scenes()[0]
    if "fuse" in use:
        yolo.fuse()
        assert "BatchNorm2d" not in layers(yolo)
    if "predict" in use:
        yolo.predict(scene, imgsz=SIDE, verbose=False)
    before, kinds = state(yolo), layers(yolo)
    from_object, from_file = maskprism.load(yolo, imgsz=SIDE), maskprism.load(path, imgsz=SIDE)
    assert_same(from_object.predict(scene), from_file.predict(scene))
    assert layers(yolo) == kinds
    assert all(torch.equal(tensor, before[name]) for name, tensor in yolo.model.state_dict().items())
    yolo.predict(scene, imgsz=SIDE, verbose=False)  # and it still works


@pytest.mark.parametrize(("end2end", "kept", "lost"), [(False, "yolov8", "end2end"), (True, "end2end", "yolov8")])
def test_a_head_that_fusing_dropped_is_asked_for_in_vain(checkpoint, end2end, kept, lost):
    from ultralytics import YOLO

    yolo = YOLO(checkpoint("yolo26n-seg"))
    yolo.model.end2end = end2end
    yolo.fuse()
    assert maskprism.load(yolo, imgsz=SIDE).spec.layout == kept
    with pytest.raises(maskprism.MaskprismError, match="lost"):
        maskprism.load(yolo, layout=lost)


def test_fingerprint_of_an_object_is_that_of_its_weights(path):
    from ultralytics import YOLO

    first, second = (maskprism.load(YOLO(path), imgsz=SIDE).spec.sha256 for _ in range(2))
    assert first == second
    changed = YOLO(path)
    next(changed.model.parameters()).data += 1
    assert maskprism.load(changed, imgsz=SIDE).spec.sha256 != first


def test_an_object_around_an_exported_file_is_refused(checkpoint, export):
    from ultralytics import YOLO

    yolo = YOLO(export(checkpoint("yolov8n-seg"), format="onnx", imgsz=SIDE), task="segment")
    with pytest.raises(maskprism.MaskprismError, match="pass the exported file itself"):
        maskprism.load(yolo)


@pytest.mark.parametrize("count", [1, 3, 4, 5])
def test_a_batch_is_filled_up_for_an_accelerator_and_nothing_of_that_is_seen(path, count, monkeypatch):
    """On the CPU, by the way that batches go on a GPU."""
    model, pictures = maskprism.load(path, imgsz=SIDE, conf=0.1), scenes()[:count]
    expected, sizes = model.predict(pictures), []
    model = replace(model, batch=16)
    compute = model.runtime._compute

    def counted(batch, size):
        sizes.append((len(batch), size))
        return compute(batch, size)

    with ThreadPoolExecutor(1) as thread:
        monkeypatch.setattr(model.runtime, "_thread", thread)
        monkeypatch.setattr(model.runtime, "_compute", counted)
        found = model.predict(pictures)
    assert all(size >= batch and size & (size - 1) == 0 for batch, size in sizes)
    assert len(found) == len(pictures)
    for one, other in zip(found, expected, strict=True):
        assert len(one) == len(other)
        np.testing.assert_allclose(one.prototypes, other.prototypes, atol=1e-4)
        np.testing.assert_allclose(one.coefficients, other.coefficients, atol=1e-3)
