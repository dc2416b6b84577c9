"""Tiny ONNX files with finished masks, of the shape of Mask2Former, RF-DETR and SAM exports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE = 64


@dataclass(frozen=True)
class TinyQueries:
    """What a tiny model of query masks is like. Vectors follow the brightness, the embedding follows the pixels."""

    kind: Literal["mask2former", "rf-detr", "rf-detr flat", "sam"] = "mask2former"
    queries: int = 6
    k: int = 16
    classes: int = 3
    bias: float = 0.0
    gain: float = 1.0
    after: tuple[Literal["resize", "sigmoid", "slice"], ...] = ()
    flipped: bool = False
    batch: int = 1
    constant: bool = False
    curved: bool = False
    half: bool = False
    width: int = SIDE

    def vectors(self) -> np.ndarray:
        """(Q, K) on a black image."""
        return np.random.default_rng(self.k).normal(0, 1, (self.queries, self.k)).astype(np.float32)

    def mixing(self) -> np.ndarray:
        """(K, 3): the pixel embedding is mixed from colours."""
        return np.random.default_rng(1 + self.k).normal(0, 1, (self.k, 3)).astype(np.float32)

    def table(self) -> np.ndarray:
        """(Q, classes + 1) logits of classes, the last of them "no object"; RF-DETR has no such column."""
        found = np.random.default_rng(5).normal(0, 3, (self.queries, self.classes + 1)).astype(np.float32)
        return found if self.kind == "mask2former" else found[:, :-1]

    def boxes(self) -> np.ndarray:
        """(Q, 4): cx, cy, w, h as shares."""
        return np.random.default_rng(6).uniform(0.2, 0.7, (self.queries, 4)).astype(np.float32)

    def qualities(self) -> np.ndarray:
        """(Q,): what SAM says of its masks."""
        return np.linspace(0.9, 0.3, self.queries).astype(np.float32)

    def save(self, path: Path) -> Path:
        """Write the model and give its path back."""
        onnx.save(self.model(), path)
        return path

    def model(self) -> onnx.ModelProto:
        """The graph."""
        nodes: list[onnx.NodeProto] = []
        weights: dict[str, np.ndarray] = {
            "vectors": self.vectors()[None],
            "mixing": self.mixing()[:, :, None, None],
            "three": np.array([3], dtype=np.int64),
            "flat": np.array([0, self.k, -1], dtype=np.int64),
            "square": np.array([0, 0, SIDE // 4, self.width // 4], dtype=np.int64),
            "bias": np.array(self.bias, dtype=np.float32),
            "gain": np.array(self.gain, dtype=np.float32),
            "twice": np.array([1, 1, 2, 2], dtype=np.float32),
            "one": np.array([1], dtype=np.int64),
            "end": np.array([1 << 62], dtype=np.int64),
        }
        batch, q, classes = self.batch, self.queries, self.table().shape[1]

        def add(operator: str, *inputs: str, output: str, **attributes: Any) -> str:
            nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
            return output

        kind = TensorProto.FLOAT16 if self.half else TensorProto.FLOAT
        images = add("Cast", "images", output="images 32", to=TensorProto.FLOAT) if self.half else "images"
        add("ReduceMean", images, output="mean", axes=[1, 2, 3], keepdims=1)
        add("Squeeze", "mean", "three", output="brightness")  # (B, 1, 1)
        if self.constant:
            add("Identity", "vectors", output="queries")
        else:
            add("Add", "vectors", "brightness", output="queries")
        add("AveragePool", images, output="cells", kernel_shape=[4, 4], strides=[4, 4])
        add("Conv", "cells", "mixing", output="embedding")
        if self.kind in ("mask2former", "rf-detr"):
            add("Einsum", "queries", "embedding", output="product", equation="bqc,bchw->bqhw")
            logits = "product"
        else:
            add("Reshape", "embedding", "flat", output="embedding flat")
            if self.flipped:
                add("Transpose", "embedding flat", output="pixels", perm=[0, 2, 1])
                add("Transpose", "queries", output="queries last", perm=[0, 2, 1])
                add("MatMul", "pixels", "queries last", output="flipped")
                add("Transpose", "flipped", output="product", perm=[0, 2, 1])
            else:
                add("MatMul", "queries", "embedding flat", output="product")
            logits = add("Reshape", "product", "square", output="product square")
        if self.gain != 1:
            logits = add("Mul", logits, "gain", output="scaled")
        if self.bias:
            logits = add("Add", logits, "bias", output="shifted")
        if self.curved:
            add("Mul", "product square" if "sam" in self.kind else "product", logits, output="curved")
            logits = "curved"
        kept = q
        for step in self.after:
            if step == "resize":
                logits = add("Resize", logits, "", "twice", output="large", mode="linear")
            elif step == "sigmoid":
                logits = add("Sigmoid", logits, output="probable")
            else:
                logits = add("Slice", logits, "one", "end", "one", output="kept")
                kept = q - 1
        height, width = (side // 4 * (2 if "resize" in self.after else 1) for side in (SIDE, self.width))
        outputs: list[tuple[str, str, list[int]]] = [("masks", logits, [batch, kept, height, width])]
        still = add("Sub", "brightness", "brightness", output="nothing")  # (B, 1, 1) for the batch
        if self.kind == "sam":
            weights["qualities"] = self.qualities()[None, q - kept :]
            add("Squeeze", still, "one", output="nothing flat")
            outputs.append(("iou_predictions", add("Add", "qualities", "nothing flat", output="q"), [batch, kept]))
        else:
            weights["table"] = self.table()[None]
            outputs.append(("labels", add("Add", "table", still, output="l"), [batch, q, classes]))
        if self.kind.startswith("rf-detr"):
            weights["boxes"] = self.boxes()[None]
            outputs.append(("dets", add("Add", "boxes", still, output="d"), [batch, q, 4]))
        values = []
        for name, source, shape in outputs:
            add("Cast", source, output=name, to=kind)
            values.append(helper.make_tensor_value_info(name, kind, shape))
        graph = helper.make_graph(
            nodes,
            "tiny queries",
            [helper.make_tensor_value_info("images", kind, [batch, 3, SIDE, self.width])],
            values,
            [numpy_helper.from_array(values, name) for name, values in weights.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
