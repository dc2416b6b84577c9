"""Tiny ONNX files with the outputs of a YOLACT: boxes against priors, softmax, tanh and ReLU, in milliseconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from helpers import reference_yolact

SIDE = 70
"""Of the canvas: as with 550, no stride divides it."""


@dataclass(frozen=True)
class TinyYolact:
    """What a tiny YOLACT is like. Its offsets, scores and coefficients are drawn; bright images make it surer."""

    classes: int = 3
    prototypes: int = 8
    plus: bool = False
    priors: Literal["flat", "batched", "none"] = "flat"
    softmax: bool = True
    named: bool = True
    prototypes_last: bool = True
    reverse: bool = False
    batch: int | None = 1
    corners: bool = False

    def prior_boxes(self) -> np.ndarray:
        """cx, cy, w, h as shares of the canvas."""
        scales = [
            [24 * 2 ** (level + step / 3) for step in range(3)] if self.plus else [24 * 2**level] for level in range(5)
        ]
        scaled = [[scale / 550 * SIDE for scale in level] for level in scales]
        if not self.plus:
            scaled = [[float(int(scale)) for scale in level] for level in scaled]
        return np.array(reference_yolact.priors((SIDE, SIDE), scaled, square=not self.plus), dtype=np.float32)

    def tables(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Offsets, scores before softmax on a white image, and coefficients of every prior."""
        count = len(self.prior_boxes())
        rng = np.random.default_rng(self.classes)
        offsets = rng.normal(0, 0.4, (count, 4)).astype(np.float32)
        scores = rng.normal(0, 0.3, (count, 1 + self.classes)).astype(np.float32)
        scores[:, 0] += 6
        for place in rng.choice(count, 40, replace=False):
            scores[place, 1 + rng.integers(self.classes)] += rng.uniform(4, 9)
        coefficients = np.tanh(rng.normal(0, 1, (count, self.prototypes))).astype(np.float32)
        return offsets, scores, coefficients

    def mixing(self) -> np.ndarray:
        """`[K, 3]`: the prototypes are mixed colours, above zero."""
        return np.random.default_rng(7).normal(0, 1, (self.prototypes, 3)).astype(np.float32)

    def save(self, path: Path) -> Path:
        """Write the model and give its path back."""
        onnx.save(self.model(), path)
        return path

    def model(self) -> onnx.ModelProto:
        """The graph."""
        offsets, scores, coefficients = self.tables()
        priors, k, columns = self.prior_boxes(), self.prototypes, 1 + self.classes
        count, grid, batch = len(priors), 2 * -(-SIDE // 8), "batch" if self.batch is None else self.batch
        if self.corners:
            offsets = np.array(
                [reference_yolact.decoded(*pair) for pair in zip(offsets.tolist(), priors.tolist(), strict=True)],
                dtype=np.float32,
            )
        nodes: list[onnx.NodeProto] = []
        weights: dict[str, np.ndarray] = {
            "offsets": offsets[None],
            "quiet": np.eye(1, columns, dtype=np.float32)[None] * 6,
            "scores": scores[None],
            "coefficients": coefficients[None],
            "prior boxes": priors if self.priors == "flat" else priors[None],
            "mixing": self.mixing()[:, :, None, None],
            "three": np.array([3], dtype=np.int64),
            "one": np.ones(1, dtype=np.float32),
            "half": np.full(1, 0.5, dtype=np.float32),
        }

        def add(operator: str, *inputs: str, output: str, **attributes: Any) -> str:
            nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
            return output

        add("ReduceMean", "images", output="mean", axes=[1, 2, 3], keepdims=1)
        add("Squeeze", "mean", "three", output="flat mean")
        add("Sigmoid", "flat mean", output="brightness")
        add("Mul", "brightness", "quiet", output="surer background")
        add("Sub", "scores", "surer background", output="logits")
        add("Mul", "flat mean", add("Sub", "one", "one", output="zero"), output="nothing")  # for the batch
        parts = {
            "loc": ("Add", "offsets", "nothing"),
            "conf": ("Softmax" if self.softmax else "Identity", "logits"),
            "mask": ("Add", "coefficients", "nothing"),
        }
        shapes: dict[str, list[Any]] = {
            "loc": [batch, count, 4],
            "conf": [batch, count, columns],
            "mask": [batch, count, k],
        }
        names = {
            role: ("boxes" if role == "loc" and self.corners else role) if self.named else str(700 + number)
            for number, role in enumerate(("loc", "conf", "mask", "priors", "proto"))
        }
        for role, (operator, *inputs) in parts.items():
            add(operator, *inputs, output=names[role])
        if self.priors != "none":
            add("Identity", "prior boxes", output=names["priors"])
            shapes["priors"] = list(weights["prior boxes"].shape)
        add("AveragePool", "images", output="cells", kernel_shape=[4, 4], strides=[4, 4], pads=[1, 1, 1, 1])
        add("Conv", "cells", "mixing", output="mixed")
        proto = names["proto"]
        if self.prototypes_last:
            add("Relu", "mixed", output="first")
            add("Transpose", "first", output=proto, perm=[0, 2, 3, 1])
            shapes["proto"] = [batch, grid, grid, k]
        else:
            add("Relu", "mixed", output=proto)
            shapes["proto"] = [batch, k, grid, grid]
        outputs = [
            helper.make_tensor_value_info(names[role], TensorProto.FLOAT, shape) for role, shape in shapes.items()
        ]
        graph = helper.make_graph(
            nodes,
            "tiny yolact",
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, SIDE, SIDE])],
            outputs[::-1] if self.reverse else outputs,
            [numpy_helper.from_array(values, name) for name, values in weights.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
