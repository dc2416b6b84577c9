"""Reading an ONNX file as a graph (needs the package onnx; running it does not)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from maskprism._common.extras import require
from maskprism._common.text import first_line
from maskprism.errors import ModelError
from maskprism.io.untrusted import is_file, shortened

if TYPE_CHECKING:
    from onnx import ModelProto

_OLDEST_OPSET = 10


def read_onnx(source: Path) -> ModelProto:
    """Return the model of an ONNX file.

    Raises
    ------
    MissingExtraError
        Without the package onnx.
    ModelError
        For a file that is no ONNX, damaged or too old.
    """
    if not is_file(source):
        raise ModelError(f"{shortened(source)}: there is no such model file")
    if source.suffix.lower() != ".onnx":
        raise ModelError(
            f"{source}: only ONNX files can be rewritten; export the model first, for example with: "
            "yolo export model=best.pt format=onnx"
        )
    onnx = require("onnx", "changing an ONNX file")
    try:
        model = onnx.load(str(source))
    except Exception as error:  # onnx and protobuf raise several unrelated types
        raise ModelError(f"{source}: cannot be read as ONNX ({first_line(error)})") from None
    if not model.graph.node:
        raise ModelError(f"{source}: holds no model; is it a complete .onnx?")
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    if opset < _OLDEST_OPSET:
        raise ModelError(f"{source}: has opset {opset}; expected at least {_OLDEST_OPSET}: export the model again")
    return model
