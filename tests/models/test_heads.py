"""Models whose masks are no sums of shared prototypes are refused with the reason."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import maskprism
from helpers.tiny_models import Tiny
from maskprism.errors import ModelError
from maskprism.models.families.unsupported import refusal

LEVELS = (80, 40, 20)


def per_level(*channels: int) -> list[tuple[int, ...]]:
    return [(1, count, side, side) for count in channels for side in LEVELS]


CONDINST = [*per_level(80, 4, 1, 169), (1, 8, 80, 80)]
RTMDET = [*per_level(80, 4, 169), (1, 8, 80, 80)]
SOLO_GRIDS = (40, 36, 24, 16, 12)
SOLO = [*((1, c, s, s) for s in SOLO_GRIDS for c in (80, 256)), (1, 256, 160, 160)]
SOLO_3X3 = [*((1, c, s, s) for s in SOLO_GRIDS for c in (80, 2304)), (1, 256, 160, 160)]
MASK_RCNN = [(7, 4), (7,), (7,), (7, 1, 28, 28)]


@pytest.mark.parametrize(
    ("shapes", "names", "words"),
    [
        (CONDINST, (), r"looks like CondInst: 169 weights of dynamic convolutions .* three layers of its own"),
        (RTMDET, (), r"looks like RTMDet-Ins: 169 weights .* no weighted sum"),
        ([(1, 8400, 80), (1, 8400, 4), (1, 8400, 169), (1, 8, 80, 80)], (), "looks like RTMDet-Ins"),
        ([(1, 100, 5), (1, 100, 169)], ("dets", "kernel_pred"), "looks like RTMDet-Ins"),
        ([(1, 100, 5), (1, 100, 169)], ("dets", "controllers"), "looks like CondInst"),
        (SOLO, (), r"looks like SOLOv2: 256 kernel parameters for each cell of 5 grids.*1 x 1.*from_arrays"),
        (SOLO_3X3, (), r"looks like SOLOv2: 2304 kernel parameters .*3 x 3 mix"),
        (MASK_RCNN, (), r"looks like Mask R-CNN: masks of 28 x 28 pixels, each drawn .* inside its own box"),
        ([(None, 4), (None,), (None,), (None, 1, 28, 28)], (), "looks like Mask R-CNN"),
        ([(1, 100, 5), (1, 100), (1, 100, 28, 28)], (), "looks like Mask R-CNN"),
        ([(0, 5), (0,), (0, 80, 14, 14)], (), "masks of 14 x 14"),
        ([(9, 5), (9,), (9, 56, 56)], (), "masks of 56 x 56"),
    ],
)
def test_heads_are_known_by_their_outputs(shapes, names, words):
    import re

    assert re.search(words, refusal(shapes, names))


@pytest.mark.parametrize(
    "shapes",
    [
        [(1, 116, 8400), (1, 32, 160, 160)],
        [(1, 1000)],
        [(1, 84, 8400)],
        [(1, 100, 4), (1, 100, 91), (1, 100, 160, 160)],
        [(1, 256, 80, 80), (1, 256, 40, 40), (1, 256, 20, 20)],  # a pyramid
        [(1, 169, 84), (1, 3, 160, 160)],  # 169 candidates
        [(5, 169), (1, 8, 80, 80)],
        [(1, c, side, 2 * side) for side in (40, 36, 24) for c in (80, 256)],  # grids that are not square
        [(1, c, side, side) for side in (40, 36, 24) for c in (256, 2304)],  # kernels without classes
        [(7, 4), (7,), (7, 1, 28, 30)],
        [(7, 4), (7, 1, 28, 28)],
        [(7,), (7, 1, 28, 28)],
        [(7, 4), (7,), (1, 32, 160, 160)],
        [(7, 4), (7,), (7, 1, 30, 28)],
        [],
    ],
)
def test_others_are_not(shapes):
    assert refusal(shapes) is None


def save(path, outputs, sides=(1, 3, 64, 64)):
    """A model that gives zeros of these shapes by name, whatever it sees."""
    zero = helper.make_node("ReduceMean", ["images"], ["mean"], axes=list(range(len(sides))), keepdims=0)
    nodes, weights = [zero], []
    for name, shape in outputs.items():
        weights.append(numpy_helper.from_array(np.zeros(shape, dtype=np.float32), f"{name} zeros"))
        nodes.append(helper.make_node("Mul", [f"{name} zeros", "mean"], [name]))
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()]
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, sides)
    graph = helper.make_graph(nodes, "zeros", [images], values, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


@pytest.mark.parametrize(
    ("outputs", "who"),
    [
        ({"cls": (1, 3, 8, 8), "box": (1, 4, 8, 8), "kernel": (1, 169, 8, 8), "mask_feat": (1, 8, 8, 8)}, "RTMDet-Ins"),
        # Flattened, with a side of the maps that is the number of classes: nearly the shapes of a YOLACT.
        ({"cls": (1, 90, 80), "box": (1, 90, 4), "kernel": (1, 90, 169), "mask_feat": (1, 8, 80, 80)}, "RTMDet-Ins"),
        (
            {
                "cate_0": (1, 3, 12, 12),
                "kernel_0": (1, 256, 12, 12),
                "cate_1": (1, 3, 8, 8),
                "kernel_1": (1, 256, 8, 8),
                "feature": (1, 256, 16, 16),
            },
            "SOLOv2",
        ),
        ({"boxes": (5, 4), "labels": (5,), "scores": (5,), "masks": (5, 1, 28, 28)}, "Mask R-CNN"),
    ],
)
def test_files_are_refused_with_the_reason(outputs, who, tmp_path):
    path = save(tmp_path / "net.onnx", outputs)
    with pytest.raises(ModelError, match=rf"net.onnx: looks like {who}: "):
        maskprism.load(path)
    with pytest.raises(ModelError, match=rf"net.onnx: looks like {who}: "):
        maskprism.load(path, layout="yolov8")


@pytest.mark.parametrize(
    "shapes",
    [
        [(39, 84), (32, 16, 16)],
        [(1, 39, 84), (32, 16, 16)],
        [(39, 84), (1, 32, 16, 16)],
        [(1, 84, 39), (16, 16, 32)],
    ],
)
def test_a_missing_batch_axis_is_named_whichever_output_lacks_it(shapes: list[tuple[int, ...]]) -> None:
    assert "a YOLO-seg without a batch axis" in (refusal(shapes, (), (64, 64)) or "")
    assert refusal([(1, 39, 84), (1, 32, 16, 16)], (), (64, 64)) is None


def test_mask_rcnn_is_known_by_an_image_without_a_batch_too(tmp_path):
    outputs = {"boxes": (5, 4), "labels": (5,), "scores": (5,), "masks": (5, 1, 28, 28)}
    with pytest.raises(ModelError, match="looks like Mask R-CNN"):
        maskprism.load(save(tmp_path / "net.onnx", outputs, (3, 64, 64)))
    with pytest.raises(ModelError, match="expected one image tensor of 4 axes"):
        maskprism.load(save(tmp_path / "net.onnx", {"boxes": (5, 4)}, (3, 64, 64)))


def test_prototypes_of_28_cells_are_read_all_the_same(tmp_path):
    model = maskprism.load(Tiny(canvas_hw=(112, 112), rows=245).save(tmp_path / "tiny.onnx"), layout="yolov8")
    assert model.spec.grid_hw == (28, 28)
