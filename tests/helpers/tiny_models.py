"""Tiny ONNX files that speak the layouts of YOLO-seg models; they take milliseconds to build and run.

Prototypes are averages of colour planes over cells of 4 x 4 pixels, mixed with fixed weights, through SiLU.
Detections are fixed; their scores grow with the brightness of the whole image, from half on black to
their full value on white.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

NAMES = {0: "cat", 1: "dog", 2: "fish"}
STRIDES = (8, 16, 32)
OBJECTNESS = 0.9

# Box as a part of the canvas (x1, y1, x2, y2), class, score on white.
DETECTIONS = (
    ((0.125, 0.125, 0.5, 0.625), 0, 0.9),
    ((0.5, 0.375, 0.9375, 0.875), 1, 0.8),
    ((0.5, 0.375, 0.9375, 0.84375), 1, 0.7),  # overlaps the second one; falls to NMS
    ((0.125, 0.125, 0.5, 0.625), 2, 0.6),  # the box of the first one, of another class
)
KEPT = (0, 1, 3)
"""Which of DETECTIONS are left after NMS."""


@dataclass(frozen=True)
class Tiny:
    """What a tiny model is like; `save` writes it."""

    family: Literal["yolov8", "yolov5", "end2end", "nms", "detect", "classify"] = "yolov8"
    classes: int = 3
    prototypes: int = 8
    canvas_hw: tuple[int, int] = (64, 64)
    batch: int | None = 1
    dynamic: bool = False
    channels: int = 3
    channels_last: bool = False
    rows_last: bool = False
    normalised: bool = False
    reverse_outputs: bool = False
    half: bool = False
    rows: int | None = None
    metadata: dict[str, str] = field(default_factory=dict)

    def save(self, path: Path) -> Path:
        """Write the model and give its path back."""
        onnx.save(self.model(), path)
        return path

    @property
    def anchors(self) -> int:
        """How many candidates a model for this canvas has, or finished rows."""
        if self.rows is not None:
            return self.rows
        height, width = self.canvas_hw
        count = sum((height // stride) * (width // stride) for stride in STRIDES)
        return {"yolov5": 3 * count, "end2end": 20, "nms": 20}.get(self.family, count)

    def coefficients(self) -> np.ndarray:
        """Of each of DETECTIONS."""
        return (
            np.random.default_rng(self.prototypes).normal(0, 1, (len(DETECTIONS), self.prototypes)).astype(np.float32)
        )

    def canvas_boxes(self) -> np.ndarray:
        """Of each of DETECTIONS, in canvas pixels."""
        height, width = self.canvas_hw
        parts = np.array([box for box, _, _ in DETECTIONS], dtype=np.float32)
        return parts * np.array([width, height, width, height], dtype=np.float32)

    def mixing(self) -> tuple[np.ndarray, np.ndarray]:
        """Weights `[K, channels]` and biases `[K]` of the prototypes."""
        rng = np.random.default_rng(100 + self.prototypes)
        weights = rng.normal(0, 2, (self.prototypes, self.channels)).astype(np.float32)
        return weights, rng.normal(0, 0.5, self.prototypes).astype(np.float32)

    def prototypes_of(self, canvas_rgb: np.ndarray) -> np.ndarray:
        """The prototypes of an RGB canvas `[H, W, channels]` in 0..1, computed with numpy."""
        height, width = canvas_rgb.shape[0] // 4, canvas_rgb.shape[1] // 4
        cells = canvas_rgb.reshape(height, 4, width, 4, -1).mean(axis=(1, 3))
        weights, biases = self.mixing()
        mixed = np.einsum("kc,hwc->khw", weights, cells) + biases[:, None, None]
        return mixed / (1 + np.exp(-mixed))

    def table(self) -> tuple[np.ndarray, np.ndarray]:
        """Detections as `[columns, anchors]`, and which of them are scores (1) that follow the brightness."""
        height, width = self.canvas_hw
        coefficients = self.coefficients()
        finished = self.family in ("end2end", "nms")
        first_class = 5 if self.family == "yolov5" else 4
        columns = 6 + self.prototypes if finished else first_class + self.classes + self.prototypes
        if self.family == "detect":
            columns -= self.prototypes
        table = np.zeros((columns, self.anchors), dtype=np.float32)
        scores = np.zeros_like(table)
        if self.family != "nms":  # background: boxes all over the canvas with scores of next to nothing
            rng = np.random.default_rng(0)
            table[0:2] = rng.uniform(0, 1, (2, self.anchors))
            table[2:4] = rng.uniform(0.1, 0.3, (2, self.anchors))
            table[4] = 0.02
            table[6 if finished else first_class + self.classes :] = rng.normal(0, 1, self.anchors)
        which = KEPT if finished else range(len(DETECTIONS))
        # Candidates lie anywhere among the anchors; finished rows come first, best first.
        places = range(len(which)) if finished else np.linspace(3, self.anchors - 2, len(DETECTIONS)).astype(int)
        for place, index in zip(places, which, strict=True):
            (x1, y1, x2, y2), class_id, score = DETECTIONS[index]
            if finished:
                table[:6, place] = x1, y1, x2, y2, score, class_id
                scores[4, place] = 1
                table[6:, place] = coefficients[index]
                continue
            table[:4, place] = (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
            if self.family == "yolov5":
                table[4, place] = OBJECTNESS
                scores[4, place] = 1
                table[5 + class_id % self.classes, place] = score
            else:
                table[4 + class_id % self.classes, place] = score
                scores[4 + class_id % self.classes, place] = 1
            if self.family != "detect":
                table[-self.prototypes :, place] = coefficients[index]
        if not self.normalised:
            table[:4] *= np.array([width, height, width, height], dtype=np.float32)[:, None]
        return table, scores

    def model(self) -> onnx.ModelProto:
        """The graph."""
        graph = _Graph()
        height, width = ("height", "width") if self.dynamic else self.canvas_hw
        batch = "batch" if self.dynamic or self.batch is None else self.batch
        sides = [batch, height, width, self.channels] if self.channels_last else [batch, self.channels, height, width]
        kind = TensorProto.FLOAT16 if self.half else TensorProto.FLOAT
        images = "images"
        if self.half:
            images = graph.add("Cast", images, to=TensorProto.FLOAT)
        if self.channels_last:
            images = graph.add("Transpose", images, perm=[0, 3, 1, 2])
        brightness = graph.add("ReduceMean", images, axes=[1, 2, 3], keepdims=1)
        outputs: list[tuple[str, list[Any]]] = []
        if self.family == "classify":
            outputs.append((graph.add("Flatten", graph.add("GlobalAveragePool", images)), [batch, self.channels]))
        else:
            outputs.append(self._rows(graph, images, brightness, batch))
        if self.family not in ("classify", "detect"):
            outputs.append(self._prototypes(graph, images, batch))
        if self.reverse_outputs:
            outputs.reverse()
        values = []
        for index, (name, shape) in enumerate(outputs):
            graph.add("Cast", name, output=f"output{index}", to=kind)
            values.append(helper.make_tensor_value_info(f"output{index}", kind, shape))
        model = helper.make_model(
            helper.make_graph(
                graph.nodes,
                "tiny",
                [helper.make_tensor_value_info("images", kind, sides)],
                values,
                graph.constants,
            ),
            opset_imports=[helper.make_opsetid("", 17)],
            ir_version=9,
        )
        helper.set_model_props(model, self.metadata)
        return model

    def _prototypes(self, graph: _Graph, images: str, batch: Any) -> tuple[str, list[Any]]:
        weights, biases = self.mixing()
        cells = graph.add("AveragePool", images, kernel_shape=[4, 4], strides=[4, 4])
        mixed = graph.add("Conv", cells, graph.constant(weights[:, :, None, None]), graph.constant(biases))
        found = graph.add("Mul", mixed, graph.add("Sigmoid", mixed))
        height, width = ("h", "w") if self.dynamic else (side // 4 for side in self.canvas_hw)
        if self.channels_last:
            return graph.add("Transpose", found, perm=[0, 2, 3, 1]), [batch, height, width, self.prototypes]
        return found, [batch, self.prototypes, height, width]

    def _rows(self, graph: _Graph, images: str, brightness: str, batch: Any) -> tuple[str, list[Any]]:
        half = graph.constant(np.array(0.5, dtype=np.float32))
        factor = graph.add("Add", graph.add("Mul", brightness, half), half)
        factor = graph.add("Squeeze", factor, graph.constant(np.array([3], dtype=np.int64)))  # [B, 1, 1]
        if self.dynamic:
            found, columns, anchors = self._rows_of_any_size(graph, images, factor)
        else:
            table, scores = self.table()
            columns, anchors = table.shape
            fixed, moving = graph.constant((table * (1 - scores))[None]), graph.constant((table * scores)[None])
            found = graph.add("Add", graph.add("Mul", factor, moving), fixed)
        if self.family in ("yolov5", "end2end", "nms") or self.rows_last:
            return graph.add("Transpose", found, perm=[0, 2, 1]), [batch, anchors, columns]
        return found, [batch, columns, anchors]

    def _rows_of_any_size(self, graph: _Graph, images: str, factor: str) -> tuple[str, int, str]:
        """Every anchor says the same: the first of DETECTIONS, in pixels of `canvas_hw`."""
        table, scores = self.table()
        places = [int(np.flatnonzero(scores.max(axis=0))[0])]
        column, moving = table[:, places], scores[:, places]
        parts = []
        for stride in STRIDES:
            cells = graph.add("AveragePool", images, kernel_shape=[stride, stride], strides=[stride, stride])
            nothing = np.zeros((len(column), self.channels, 1, 1), dtype=np.float32)
            constant = graph.add("Conv", cells, graph.constant(nothing), graph.constant(column[:, 0]))
            shape = graph.constant(np.array([0, len(column), -1], dtype=np.int64))
            parts.append(graph.add("Reshape", constant, shape))
        found = graph.add("Concat", *parts * (3 if self.family == "yolov5" else 1), axis=2)
        follows = graph.constant(moving[None])
        stays = graph.constant((1 - moving)[None])
        return (
            graph.add("Mul", found, graph.add("Add", graph.add("Mul", factor, follows), stays)),
            len(column),
            "anchors",
        )


class _Graph:
    """Nodes and constants with names of their own."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, values: np.ndarray) -> str:
        name = f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def add(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        output = output or f"value{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output


def ultralytics_metadata(
    names: dict[int, str] | None = None,
    *,
    canvas_hw: tuple[int, int] = (64, 64),
    version: str = "8.4.190",
    task: str = "segment",
    end2end: bool | None = False,
    nms: bool = False,
    **changes: str,
) -> dict[str, str]:
    """The entries that Ultralytics writes into an export."""
    found = {
        "description": "Tiny segmentation model",
        "version": version,
        "task": task,
        "stride": "32",
        "batch": "1",
        "imgsz": str(list(canvas_hw)),
        "names": str(NAMES if names is None else names),
        "args": str({"batch": 1, "half": False, "nms": nms}),
        "channels": "3",
    }
    if end2end is not None:
        found["end2end"] = str(end2end)
    return found | changes


def save_tiny_tflite(path: Path, *, first: Literal["float32", "int8", "edge tpu"] | None = None) -> Path:
    """Write a YOLOv8 in TFLite: 3 prototypes, averages of colour planes over 4 x 4 pixels; fixed rows of 2 classes.

    first: what the image goes through before: a depthwise convolution with weights of that type, or what the compiler
    for the Edge TPU makes of a model.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    rows = np.zeros((1, 4 + 2 + 3, 84), dtype=np.float32)
    rows[0, :, 40] = [0.5, 0.5, 0.6, 0.6, 0.9, 0.1, 2, -1, 0.5]
    tensors = [("images", (1, 64, 64, 3), 0), ("rows", rows.shape, 1), ("zero", (1,), 2)]
    tensors += [("output0", rows.shape, 0), ("output1", (1, 16, 16, 3), 0)]
    graph, model = schema.SubGraphT(), schema.ModelT()
    graph.tensors, graph.operators = [], []
    for name, shape, buffer in tensors:
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer, tensor.type = name, list(shape), buffer, schema.TensorType.FLOAT32
        graph.tensors.append(tensor)
    model.buffers = [schema.BufferT(), schema.BufferT(), schema.BufferT()]
    model.buffers[1].data, model.buffers[2].data = list(rows.tobytes()), list(bytes(4))
    image = 0
    if first is not None:
        image = 5
        weights = np.ones((1, 3, 3, 3), np.int8 if first == "int8" else np.float32)
        types = schema.TensorType
        for name, shape, kind, values in (
            ("filtered", (1, 64, 64, 3), types.FLOAT32, None),
            ("weights", weights.shape, types.INT8 if first == "int8" else types.FLOAT32, weights),
            ("bias", (3,), types.FLOAT32, np.zeros(3, np.float32)),
        ):
            tensor = schema.TensorT()
            tensor.name, tensor.shape, tensor.type, tensor.buffer = name, list(shape), kind, 0
            if values is not None:
                tensor.buffer = len(model.buffers)
                model.buffers.append(schema.BufferT())
                model.buffers[-1].data = list(values.tobytes())
            if kind == types.INT8:
                tensor.quantization = schema.QuantizationParametersT()
                tensor.quantization.scale, tensor.quantization.zeroPoint = [0.1] * 3, [0] * 3
                tensor.quantization.quantizedDimension = 3
            graph.tensors.append(tensor)
    pool = schema.Pool2DOptionsT()
    pool.strideH = pool.strideW = pool.filterHeight = pool.filterWidth = 4
    builtin, options = schema.BuiltinOperator, schema.BuiltinOptions
    model.operatorCodes = []
    steps = [
        (builtin.ADD, [1, 2], 3, options.AddOptions, schema.AddOptionsT()),
        (builtin.AVERAGE_POOL_2D, [image], 4, options.Pool2DOptions, pool),
    ]
    if first == "edge tpu":
        steps.insert(0, (builtin.CUSTOM, [0], 5, options.NONE, None))
    elif first is not None:
        depthwise = schema.DepthwiseConv2DOptionsT()
        depthwise.strideH = depthwise.strideW = depthwise.depthMultiplier = 1
        depthwise.dilationHFactor = depthwise.dilationWFactor = 1
        steps.insert(0, (builtin.DEPTHWISE_CONV_2D, [0, 6, 7], 5, options.DepthwiseConv2DOptions, depthwise))
    for index, (code, inputs, output, kind, chosen) in enumerate(steps):
        known, operator = schema.OperatorCodeT(), schema.OperatorT()
        known.builtinCode = known.deprecatedBuiltinCode = code
        known.version = 1
        if code == builtin.CUSTOM:
            known.customCode = "edgetpu-custom-op"
        if code == builtin.DEPTHWISE_CONV_2D and first == "int8":
            known.version = 6
        model.operatorCodes.append(known)
        operator.opcodeIndex, operator.inputs, operator.outputs = index, inputs, [output]
        operator.builtinOptionsType, operator.builtinOptions = kind, chosen
        graph.operators.append(operator)
    graph.inputs, graph.outputs = [0], [3, 4]
    model.version, model.subgraphs = 3, [graph]
    builder = flatbuffers.Builder(1 << 14)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path
