"""Choices that the library and the command line share, each stated once."""

from __future__ import annotations

from typing import Literal

RuntimeName = Literal["onnxruntime", "openvino", "litert", "torchscript", "ultralytics"]
"""What computes a model."""
Family = Literal["yolov5", "yolov8", "end2end", "yolact", "query"]
"""How the outputs of a model are packed."""
Precision = Literal["f32", "bf16", "f16"]
"""Number format of the computation."""
RawLayout = Literal["rknn", "hailo", "ncnn", "coreml", "tensorrt", "deepstream", "edgefirst"]
"""Which edge runtime gave raw outputs."""
