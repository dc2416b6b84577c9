"""A live `ultralytics.YOLO` gives what its file gives, and is left as it was."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

import maskprism
from parity.networks import random_network, save, scenes

SIDE = 160


@pytest.fixture(scope="module", params=["yolov8n-seg", "yolo26n-seg"])
def checkpoint(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("live")
    return save(random_network(f"{request.param}.yaml"), folder / f"{request.param}.pt")


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
def test_same_as_its_file_and_left_alone(checkpoint, training):
    import torch
    from ultralytics import YOLO

    yolo = YOLO(checkpoint)
    yolo.model.train(training)
    before, kinds, grads = state(yolo), layers(yolo), [p.requires_grad for p in yolo.model.parameters()]
    head = yolo.model.end2end
    from_object, from_file = maskprism.load(yolo, imgsz=SIDE), maskprism.load(checkpoint, imgsz=SIDE)
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
def test_after_it_was_used(checkpoint, use):
    import torch
    from ultralytics import YOLO

    yolo, scene = YOLO(checkpoint), scenes()[0]
    if "fuse" in use:
        yolo.fuse()
        assert "BatchNorm2d" not in layers(yolo)
    if "predict" in use:
        yolo.predict(scene, imgsz=SIDE, verbose=False)
    before, kinds = state(yolo), layers(yolo)
    from_object, from_file = maskprism.load(yolo, imgsz=SIDE), maskprism.load(checkpoint, imgsz=SIDE)
    assert_same(from_object.predict(scene), from_file.predict(scene))
    assert layers(yolo) == kinds
    assert all(torch.equal(tensor, before[name]) for name, tensor in yolo.model.state_dict().items())
    yolo.predict(scene, imgsz=SIDE, verbose=False)  # and it still works


@pytest.mark.parametrize(("end2end", "kept", "lost"), [(False, "yolov8", "end2end"), (True, "end2end", "yolov8")])
def test_a_head_that_fusing_dropped_is_asked_for_in_vain(tmp_path, end2end, kept, lost):
    from ultralytics import YOLO

    yolo = YOLO(save(random_network("yolo26n-seg.yaml"), tmp_path / "net.pt"))
    yolo.model.end2end = end2end
    yolo.fuse()
    assert maskprism.load(yolo, imgsz=SIDE).spec.layout == kept
    with pytest.raises(maskprism.MaskprismError, match="lost"):
        maskprism.load(yolo, layout=lost)


def test_fingerprint_of_an_object_is_that_of_its_weights(checkpoint):
    from ultralytics import YOLO

    first, second = (maskprism.load(YOLO(checkpoint), imgsz=SIDE).spec.sha256 for _ in range(2))
    assert first == second
    changed = YOLO(checkpoint)
    next(changed.model.parameters()).data += 1
    assert maskprism.load(changed, imgsz=SIDE).spec.sha256 != first


def test_an_object_around_an_exported_file_is_refused(tmp_path):
    from ultralytics import YOLO

    path = save(random_network("yolov8n-seg.yaml"), tmp_path / "net.pt")
    yolo = YOLO(YOLO(path).export(format="onnx", imgsz=SIDE, verbose=False), task="segment")
    with pytest.raises(maskprism.MaskprismError, match="pass the exported file itself"):
        maskprism.load(yolo)


@pytest.mark.parametrize("count", [1, 3, 4, 5])
def test_a_batch_is_filled_up_for_an_accelerator_and_nothing_of_that_is_seen(checkpoint, count, monkeypatch):
    """On the CPU, by the way that batches go on a GPU."""
    model, pictures = maskprism.load(checkpoint, imgsz=SIDE, conf=0.1), scenes()[:count]
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
