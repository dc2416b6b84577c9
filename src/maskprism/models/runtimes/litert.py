"""TensorFlow Lite files through LiteRT (extra `litert`)."""

from __future__ import annotations

import copy
import threading
import zipfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from maskprism._common.choices import Precision
from maskprism._common.extras import require
from maskprism._common.text import first_line
from maskprism.errors import InputError, ModelError
from maskprism.io.untrusted import literal
from maskprism.models.runtimes import FileRuntime, hash_files, read_metadata_yaml, refuse_precision
from maskprism.models.runtimes.onnx import network_input

if TYPE_CHECKING:
    from jaxtyping import Float32

_MAX_METADATA_BYTES = 1 << 20
_EDGE_TPU = "edgetpu-custom-op"
"""The operator that the compiler for the Edge TPU puts everything into."""


class LiteRtRuntime(FileRuntime):
    """One .tflite file; quantised inputs and outputs are converted with the file's own scales."""

    threadsafe = False

    def __init__(self, path: Path, *, device: str, precision: Precision, threads: int | None) -> None:
        ai_edge_litert = require("ai_edge_litert", f"reading {path.name}")
        interpreter = require("ai_edge_litert.interpreter", f"reading {path.name}")
        refuse_precision("LiteRT (the file decides)", precision, "f32")
        if device != "cpu":
            raise InputError(f"device {device!r} is not available with LiteRT; expected cpu")
        self.name = f"litert {getattr(ai_edge_litert, '__version__', '')}".strip()
        self.opening = partial(LiteRtRuntime, path.resolve(), device=device, precision=precision, threads=threads)
        try:
            self._interpreter = interpreter.Interpreter(model_path=str(path), num_threads=threads or None)
            self._interpreter.allocate_tensors()
            inputs, self._outs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
            n_unstable = _hybrid_depthwise_convolutions(path)
        except Exception as error:  # LiteRT raises ValueError and RuntimeError alike, and for names that are no text
            if _EDGE_TPU in str(error):
                raise ModelError(
                    f"{path}: is compiled for the Edge TPU and runs on that chip only; open the .tflite that it was "
                    "compiled from (without _edgetpu in its name)"
                ) from None
            raise ModelError(
                f"{path}: LiteRT cannot read this file; is it a complete .tflite? ({first_line(error)})"
            ) from None
        if n_unstable:
            raise ModelError(
                f"{path}: has {n_unstable} DEPTHWISE_CONV_2D with float input and int8 weights (dynamic-range "
                "quantisation). LiteRT reads uninitialised memory there, so its results change from run to run. "
                "Open the *_integer_quant.tflite or *_full_integer_quant.tflite of the same export, or a float model"
            )
        if len(inputs) != 1 or len(inputs[0]["shape"]) != 4:
            raise ModelError(
                f"{path}: takes inputs of shape {[tuple(i['shape']) for i in inputs]}; "
                "expected one image tensor of 4 axes"
            )
        self._in = inputs[0]
        self.output_names = tuple(str(out["name"]) for out in self._outs)
        self.input = network_input([int(side) for side in self._in["shape"]], path)
        self.metadata = _metadata(path)
        self.sha256 = hash_files([path])
        self._lock = threading.Lock()

    def fresh(self) -> LiteRtRuntime:
        """Return the same model in memory of its own: an interpreter keeps its buffers from run to run."""
        return copy.copy(self)  # which opens the file again

    def __call__(self, batch: Float32[np.ndarray, "B ..."]) -> list[Float32[np.ndarray, "..."]]:
        """Compute every output of one batch."""
        with self._lock:
            self._interpreter.set_tensor(self._in["index"], quantise(batch, self._in))
            self._interpreter.invoke()
            return [dequantise(self._interpreter.get_tensor(out["index"]), out) for out in self._outs]


def _hybrid_depthwise_convolutions(path: Path) -> int:
    """Return how many depthwise convolutions of a file take float input and weights of 8 or 4 bits.

    The file has been read by LiteRT before, which checks it.
    """
    from ai_edge_litert import schema_py_generated as schema

    types = schema.TensorType
    model = schema.Model.GetRootAsModel(path.read_bytes(), 0)
    codes = [model.OperatorCodes(index) for index in range(model.OperatorCodesLength())]
    # Codes above 127 do not fit the old field; the larger of the two is meant.
    builtin = [max(code.BuiltinCode(), code.DeprecatedBuiltinCode()) for code in codes]
    count = 0
    for graph in map(model.Subgraphs, range(model.SubgraphsLength())):
        for operator in map(graph.Operators, range(graph.OperatorsLength())):
            if builtin[operator.OpcodeIndex()] == schema.BuiltinOperator.DEPTHWISE_CONV_2D:
                image, weights = (graph.Tensors(operator.Inputs(which)).Type() for which in (0, 1))
                count += image == types.FLOAT32 and weights in (types.INT8, types.INT4)
    return count


def quantise(values: Float32[np.ndarray, "..."], tensor: dict[str, Any]) -> np.ndarray[Any, Any]:
    """Real values to the integers of a tensor: `q = round(value / scale) + zero_point`."""
    dtype = np.dtype(tensor["dtype"])
    if not np.issubdtype(dtype, np.integer):
        return values.astype(dtype, copy=False)
    scale, zero_point = tensor["quantization"]
    limits = np.iinfo(dtype)
    return np.clip(np.rint(values / scale) + zero_point, limits.min, limits.max).astype(dtype)


def dequantise(stored: np.ndarray[Any, Any], tensor: dict[str, Any]) -> Float32[np.ndarray, "..."]:
    """Return the integers of a tensor to real values: `value = (q - zero_point) * scale`."""
    if not np.issubdtype(stored.dtype, np.integer):
        return stored.astype(np.float32, copy=False)
    scale, zero_point = tensor["quantization"]
    if not scale:  # integers that are not quantised: class ids, counts
        return stored.astype(np.float32)
    return (stored.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)


def _metadata(path: Path) -> dict[str, Any]:
    """Return what Ultralytics appends to the file as a zip archive, or writes beside it."""
    for text in _appended(path):
        try:
            found = literal(text)
        except ValueError:
            continue
        if isinstance(found, dict):
            return found
    return read_metadata_yaml(path.parent)


def _appended(path: Path) -> list[str]:
    """Return the texts in the archive at the end of the file, none where there is no archive.

    Large entries are left out.
    """
    try:
        if not zipfile.is_zipfile(path):
            return []
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if entry.file_size <= _MAX_METADATA_BYTES]
            return [archive.read(entry).decode("utf-8", errors="replace") for entry in entries]
    except Exception as error:  # a dozen types: of zipfile, of four packings, of numbers out of range
        raise ModelError(
            f"{path}: the metadata archive at its end is damaged ({first_line(error)}); export the model again"
        ) from None
