"""A tiny YOLO-seg that decodes its head inside the file, as Ultralytics exports it, and the tensors before that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

STRIDES = (8, 16, 32)
BINS = 16


def write_tiny_head(path: Path, *, classes: int = 3, k: int = 8, canvas_hw: tuple[int, int] = (64, 96)) -> Path:
    """Write a model whose boxes, scores, coefficients and prototypes are convolutions of the averaged image."""
    rng = np.random.default_rng(classes * 100 + k)
    nodes: list[Any] = []
    weights: list[Any] = []

    def constant(name: str, values: Any) -> str:
        weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def add(kind: str, *inputs: str, output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def convolved(source: str, name: str, channels: int, spread: float, shift: float) -> str:
        weight = rng.normal(0, spread, (channels, 3, 1, 1)).astype(np.float32)
        bias = rng.normal(shift, 1, channels).astype(np.float32)
        if channels == 4 * BINS:  # sides lie within a few cells
            bias -= np.tile(2 * np.arange(BINS, dtype=np.float32), 4)
        return add("Conv", source, constant(f"{name}.w", weight), constant(f"{name}.b", bias), output=name)

    centres, strides = [], []
    flat: dict[str, list[str]] = {"box": [], "cls": [], "coef": []}
    for level, stride in enumerate(STRIDES):
        height, width = canvas_hw[0] // stride, canvas_hw[1] // stride
        cells = add("AveragePool", "images", output=f"cells{level}", kernel_shape=[stride] * 2, strides=[stride] * 2)
        for piece, channels, shift in (("box", 4 * BINS, 0), ("cls", classes, -2.5), ("coef", k, 0)):
            name = convolved(cells, f"{piece}{level}", channels, 2, shift)
            shape = constant(f"{name}.shape", np.array([1, channels, -1]))
            flat[piece].append(add("Reshape", name, shape, output=f"{name}.flat"))
        y, x = np.mgrid[:height, :width].reshape(2, -1) + 0.5
        centres.append(np.stack([x, y]))
        strides.append(np.full(height * width, stride))
    for piece, names in flat.items():
        add("Concat", *names, output=piece, axis=2)
    scores = add("Sigmoid", "cls", output="scores")
    spread = add("Reshape", "box", constant("by_side", np.array([1, 4, BINS, -1])), output="spread")
    spread = add("Softmax", spread, output="shares", axis=2)
    bins = constant("bins", np.arange(BINS, dtype=np.float32)[None, None, :, None])
    add(
        "ReduceSum",
        add("Mul", spread, bins, output="parts"),
        constant("two", np.array([2])),
        output="sides",
        keepdims=0,
    )
    add("Split", "sides", constant("halves", np.array([2, 2])), output="near", axis=1)
    nodes[-1].output.append("far")
    middle = constant("middle", np.concatenate(centres, 1)[None].astype(np.float32))
    first, last = add("Sub", middle, "near", output="first"), add("Add", middle, "far", output="last")
    total = add("Add", first, last, output="total")
    centre = add("Div", total, constant("half", np.float32(2)), output="centre")
    size = add("Sub", last, first, output="size")
    boxes = add("Concat", centre, size, output="cells_xywh", axis=1)
    boxes = add(
        "Mul", boxes, constant("strides", np.concatenate(strides)[None, None].astype(np.float32)), output="boxes"
    )
    add("Concat", boxes, scores, "coef", output="output0", axis=1)
    cells = add("AveragePool", "images", output="cells", kernel_shape=[4, 4], strides=[4, 4])
    mixed = convolved(cells, "mixed", k, 3, 0)
    add("Mul", mixed, add("Sigmoid", mixed, output="gate"), output="output1")
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, *canvas_hw])
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("output0", "output1")]
    graph = helper.make_graph(nodes, "head", [images], outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, {"names": str({i: f"kind{i}" for i in range(classes)}), "task": "segment"})
    onnx.save(model, path)
    return path


def tensors_of(path: Path, names: list[str], batch: np.ndarray) -> dict[str, np.ndarray]:
    """Run a model and return these tensors inside of it."""
    model = onnx.load(path)
    del model.graph.output[:]
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: batch}), strict=True))
