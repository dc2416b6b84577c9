"""Models whose coefficients and prototypes are folded into: every layout, and the head of Ultralytics alone."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from helpers.tiny_models import Tiny, ultralytics_metadata

LAYOUTS = {
    "yolov8": Tiny(metadata=ultralytics_metadata()),
    "yolov5": Tiny(family="yolov5"),
    "end2end": Tiny(family="end2end"),
    "nms": Tiny(family="nms"),
    "dynamic": Tiny(dynamic=True),
    "dynamic yolov5": Tiny(family="yolov5", dynamic=True),
    "half": Tiny(half=True),
    "channels last": Tiny(channels_last=True),
    "rows last": Tiny(rows_last=True),
    "outputs reversed": Tiny(reverse_outputs=True),
    "normalised": Tiny(normalised=True),
    "fixed batch": Tiny(batch=3),
    "grey": Tiny(channels=1),
    "oblong": Tiny(canvas_hw=(64, 96)),
}


def head(**changes: object) -> onnx.ModelProto:
    """A model that ends as those of Ultralytics do: 1 x 1 convolutions, reshaped and concatenated; SiLU."""
    rng = np.random.default_rng(0)
    weights = {
        "w_boxes": rng.normal(0, 1, (6, 3, 1, 1)),
        "w_first": rng.normal(0, 1, (4, 3, 1, 1)),
        "b_first": rng.normal(0, 1, 4),
        "w_second": rng.normal(0, 1, (4, 3, 1, 1)),
        "b_second": rng.normal(0, 1, 4),
        "w_prototypes": rng.normal(0, 1, (4, 3, 1, 1)),
        "b_prototypes": rng.normal(0, 1, 4),
    }
    constants = [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()]
    shapes = {"six": [1, 6, -1], "four": [1, 4, -1]}
    constants += [numpy_helper.from_array(np.array(v, dtype=np.int64), k) for k, v in shapes.items()]
    nodes = [
        helper.make_node("AveragePool", ["images"], ["small"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("AveragePool", ["images"], ["smaller"], kernel_shape=[16, 16], strides=[16, 16]),
        helper.make_node("AveragePool", ["images"], ["quarter"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Conv", ["small", "w_first", "b_first"], ["first"]),
        helper.make_node("Conv", ["smaller", "w_second", "b_second"], ["second"]),
        helper.make_node("Conv", ["small", "w_boxes"], ["boxes1"]),
        helper.make_node("Conv", ["smaller", "w_boxes"], ["boxes2"]),
        helper.make_node("Reshape", ["boxes1", "six"], ["boxes1_flat"]),
        helper.make_node("Reshape", ["boxes2", "six"], ["boxes2_flat"]),
        helper.make_node("Reshape", ["first", "four"], ["first_flat"]),
        helper.make_node("Reshape", ["second", "four"], ["second_flat"]),
        helper.make_node("Concat", ["boxes1_flat", "boxes2_flat"], ["boxes"], axis=2),
        helper.make_node("Concat", ["first_flat", "second_flat"], ["coefficients"], axis=-1),
        helper.make_node("Concat", ["boxes", "coefficients"], ["output0"], axis=1),
        helper.make_node("Conv", ["quarter", "w_prototypes", "b_prototypes"], ["raw"]),
        helper.make_node("Sigmoid", ["raw"], ["squashed"]),
        helper.make_node("Mul", ["raw", "squashed"], ["output1"]),
    ]
    outputs = {"output0": [1, 10, 80], "output1": [1, 4, 16, 16]}
    if changes.get("reads_inside"):  # another node reads what folding would change
        nodes += [
            helper.make_node("ReduceMean", ["first"], ["mean"], keepdims=0),
            helper.make_node("ReduceMean", ["raw"], ["mean2"], keepdims=0),
            helper.make_node("Add", ["mean", "mean2"], ["output2"]),
        ]
        outputs["output2"] = []
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()]
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 64, 64])
    model = helper.make_model(
        helper.make_graph(nodes, "head", [images], values, constants),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def outputs_of(model: onnx.ModelProto, images: np.ndarray) -> list[np.ndarray]:
    import onnxruntime

    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"images": images})
