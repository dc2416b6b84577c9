"""OpenVINO IR (.xml with .bin) and ONNX files through OpenVINO (extra `openvino`)."""

from __future__ import annotations

import sys
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from maskprism._common.choices import Precision
from maskprism._common.extras import require
from maskprism._common.text import first_line
from maskprism.errors import InputError, ModelError
from maskprism.io.untrusted import is_file
from maskprism.models.onnx.external_files import external_data
from maskprism.models.runtimes import FileRuntime, hash_files, read_metadata_yaml
from maskprism.models.runtimes.onnx import network_input

if TYPE_CHECKING:
    from jaxtyping import Float32


class OpenVinoRuntime(FileRuntime):
    """One compiled model; every calling thread gets an inference request of its own.

    Computes in float32 unless another precision is asked for: OpenVINO on its own would pick
    bfloat16 on processors that have it, which moves masks.
    """

    threadsafe = True

    def __init__(self, path: Path, *, device: str, precision: Precision, threads: int | None) -> None:
        # OpenVINO files an id of the user for its telemetry when it is imported; without that package it does not.
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
        openvino = require("openvino", f"reading {path.name} with OpenVINO")
        self.opening = partial(OpenVinoRuntime, path.resolve(), device=device, precision=precision, threads=threads)
        self.name = f"openvino {openvino.__version__.split('-')[0]} ({precision})"
        core = openvino.Core()
        target = device.upper()
        if target.split(".")[0] not in core.available_devices and target not in core.available_devices:
            raise InputError(
                f"device {device!r} is not one that OpenVINO sees here: {', '.join(core.available_devices)}"
            )
        settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": precision}
        if target == "CPU":
            settings["PERFORMANCE_HINT"] = "THROUGHPUT" if threads == 1 else "LATENCY"
            if threads and threads > 1:
                settings["INFERENCE_NUM_THREADS"] = threads
        beside = path.with_suffix(".bin")
        weights = external_data(path) if path.suffix.lower() == ".onnx" else [beside] if is_file(beside) else []
        try:
            network = core.read_model(str(path))
            self._compiled = core.compile_model(network, target, settings)
        except Exception as error:  # OpenVINO raises RuntimeError for everything
            raise ModelError(
                f"{path}: OpenVINO cannot read this file; are the .xml and the .bin beside it complete? "
                f"({first_line(error)})"
            ) from None
        if len(self._compiled.inputs) != 1 or self._compiled.inputs[0].partial_shape.rank.get_length() != 4:
            raise ModelError(f"{path}: expected one image input of 4 axes, got {self._compiled.inputs}")
        shape = [None if side.is_dynamic else side.get_length() for side in self._compiled.inputs[0].partial_shape]
        self.output_names = tuple(next(iter(sorted(one.names)), "") for one in self._compiled.outputs)
        self._dtype = np.dtype(self._compiled.inputs[0].element_type.to_dtype())
        self.input = network_input(shape, path)
        self.metadata = _metadata(network, path)
        self.sha256 = hash_files([path, *weights])
        self._requests = threading.local()

    def __call__(self, batch: Float32[np.ndarray, "B ..."]) -> list[Float32[np.ndarray, "..."]]:
        """Compute every output of one batch."""
        request = getattr(self._requests, "own", None)
        if request is None:
            request = self._requests.own = self._compiled.create_infer_request()
        request.infer([np.ascontiguousarray(batch, dtype=self._dtype)], share_inputs=True)
        return [
            np.array(request.get_output_tensor(i).data, dtype=np.float32) for i in range(len(self._compiled.outputs))
        ]


def _metadata(network: Any, path: Path) -> dict[str, Any]:
    beside = read_metadata_yaml(path.parent)
    # OpenVINO keeps the metadata of an ONNX file under "framework", also in an IR that it was converted to.
    if beside or not network.has_rt_info(["framework"]):
        return beside
    found = network.get_rt_info(["framework"])
    found = found.value if hasattr(found, "value") else found
    return {str(key): getattr(value, "value", value) for key, value in dict(found).items()}
