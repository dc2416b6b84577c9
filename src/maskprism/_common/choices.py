"""Choices that the library and the command line share, each stated once."""

from __future__ import annotations

from typing import Literal

RuntimeName = Literal["onnxruntime", "openvino", "litert", "torchscript", "ultralytics"]
"""What computes a model."""
EngineName = Literal["threads", "ray"]
"""Where images are worked on: threads of this process, or processes of a cluster that Ray runs."""
Precision = Literal["f32", "bf16", "f16"]
"""Number format of the computation."""
Segmentation = Literal["rle", "polygons"]
"""How COCO files write masks."""
ExportName = Literal["coco", "coco-annotations", "yolo", "labelme", "png", "npz", "overlay"]
"""What predictions of many images are written as."""
RawLayout = Literal["rknn", "hailo", "ncnn", "coreml", "tensorrt", "deepstream", "edgefirst"]
"""Which edge runtime gave raw outputs."""
