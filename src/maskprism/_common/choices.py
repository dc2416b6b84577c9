"""Choices that the library and the command line share, each stated once."""

from __future__ import annotations

from typing import Literal

RuntimeName = Literal["onnxruntime", "openvino", "litert", "torchscript", "ultralytics"]
"""What computes a model."""
Family = Literal["yolov5", "yolov8", "end2end", "yolact", "query"]
"""How the outputs of a model are packed."""
EngineName = Literal["threads", "ray"]
"""Where images are worked on: threads of this process, or processes of a cluster that Ray runs."""
Precision = Literal["f32", "bf16", "f16"]
"""Number format of the computation."""
