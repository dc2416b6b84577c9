"""ONNX files through ONNX Runtime."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime

from maskprism._common.choices import Precision
from maskprism._common.process import at_interrupt
from maskprism._common.text import first_line
from maskprism.errors import InputError, ModelError
from maskprism.models.families.unsupported import refusal
from maskprism.models.onnx.external_files import external_data
from maskprism.models.onnx.mask_branch import MaskBranch, find_mask_branch, reveal
from maskprism.models.runtimes import FileRuntime, NetworkInput, hash_files, refuse_precision

if TYPE_CHECKING:
    from jaxtyping import Float32

_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "dml": "DmlExecutionProvider",
    "rocm": "ROCMExecutionProvider",
}


class OnnxRuntime(FileRuntime):
    """One ONNX file, or a changed copy of it in memory (graph).

    Half-precision inputs and outputs are converted from and to float32.
    """

    threadsafe = True

    def __init__(
        self, path: Path, *, device: str, precision: Precision, threads: int | None, graph: bytes | None = None
    ) -> None:
        self._path, self._device, self._threads = path, device, threads
        self.opening = partial(
            OnnxRuntime, path.resolve(), device=device, precision=precision, threads=threads, graph=graph
        )
        self.name = f"onnxruntime {onnxruntime.__version__}"
        refuse_precision("ONNX Runtime (the file decides)", precision, "f32")
        onnxruntime.set_default_logger_severity(4)  # reading a graph logs before the session's own level holds
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        # Spinning threads would hold the cores that decoding and masks need between two runs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if threads:
            options.intra_op_num_threads = threads
        providers = _providers(device)
        weights = external_data(path)  # before it is run: one that leads out of its folder is refused
        try:
            self._session = onnxruntime.InferenceSession(graph or str(path), options, providers=providers)
            inputs = [(one.name, one.shape, one.type) for one in self._session.get_inputs()]
            self.metadata: dict[str, Any] = dict(self._session.get_modelmeta().custom_metadata_map)
        except Exception as error:  # ONNX Runtime raises a dozen unrelated types, for names that are no text as well
            raise ModelError(_explain(path, error)) from None
        if len(inputs) != 1 or len(inputs[0][1]) != 4 or inputs[0][2] not in _DTYPES:
            outputs = self._session.get_outputs()
            shapes = [tuple(n if isinstance(n, int) else None for n in one.shape) for one in outputs]
            if (reason := refusal(shapes, [one.name for one in outputs])) is not None:
                raise ModelError(f"{path}: {reason}")
            prompts = (
                ". A decoder that takes prompts, as SAM's, is made to give its parts by "
                "maskprism.models.onnx.mask_branch.write_revealed"
            )
            raise ModelError(
                f"{path}: takes {', '.join(f'{name} {shape} {kind}' for name, shape, kind in inputs)}; "
                f"expected one image tensor of 4 axes in float or half precision{prompts if len(inputs) > 1 else ''}"
            )
        ((self._input_name, shape, kind),) = inputs
        self.output_names = tuple(one.name for one in self._session.get_outputs())
        self._dtype = _DTYPES[kind]
        self.input = network_input(shape, path)
        self.sha256 = hash_files([path, *weights])

    @property
    def onnx_file(self) -> Path:
        """The file that it runs."""
        return self._path

    def revealed(self) -> tuple[OnnxRuntime, MaskBranch] | None:
        """Return the same model with the factors of its finished masks as outputs; None where it multiplies none.

        Raises
        ------
        MissingExtraError
            Without the package onnx.
        ModelError
            For a file that it cannot read or write.
        """
        from maskprism.models.onnx.file import read_onnx

        model = read_onnx(self._path)
        branch = find_mask_branch(model)
        if branch is None:
            return None
        try:
            graph = reveal(model, branch).SerializeToString()
        except ValueError as error:  # over the 2 GB of protobuf
            raise ModelError(
                f"{self._path}: is too large to be taken apart in memory ({first_line(error)}); export the inputs of "
                "its last product of masks as outputs"
            ) from None
        opened = OnnxRuntime(self._path, device=self._device, precision="f32", threads=self._threads, graph=graph)
        return opened, branch

    def __call__(self, batch: Float32[np.ndarray, "B ..."]) -> list[Float32[np.ndarray, "..."]]:
        """Compute every output of one batch."""
        inputs, options = {self._input_name: batch.astype(self._dtype, copy=False)}, onnxruntime.RunOptions()
        _running.add(options)
        try:
            if threading.current_thread() is not threading.main_thread():
                outputs = self._session.run(None, inputs, options)
            else:  # Python hears of Ctrl-C in its main thread, and not while that is inside of a run
                outputs = _waited_for().submit(self._session.run, None, inputs, options).result()
        except KeyboardInterrupt:
            options.terminate = True
            raise
        except Exception:
            if options.terminate:  # not a failure of the model, so no image is recorded as failed
                raise KeyboardInterrupt from None
            raise
        finally:
            _running.discard(options)
        return [np.asarray(output, dtype=np.float32) for output in outputs]


_running: set[onnxruntime.RunOptions] = set()


def _terminate_runs() -> None:
    """End every run, those of threads included, and of a model that never ends."""
    for options in list(_running):
        options.terminate = True


at_interrupt(_terminate_runs)


@cache
def _waited_for() -> ThreadPoolExecutor:
    """Return the thread in which runs of the main thread are computed."""
    return ThreadPoolExecutor(1, thread_name_prefix="onnxruntime")


def network_input(shape: list[Any] | tuple[Any, ...], path: Path) -> NetworkInput:
    """Read batch, channels, height and width off a 4-axis shape in NCHW or NHWC order."""
    sides = [side if isinstance(side, int) and side > 0 else None for side in shape]
    channel_counts = (1, 3)
    if sides[1] in channel_counts:
        return NetworkInput(sides[0], sides[2], sides[3], channels=sides[1] or 3)
    if sides[3] in channel_counts:
        return NetworkInput(sides[0], sides[1], sides[2], channels=sides[3] or 3, channels_last=True)
    if sides[1] is None and sides[3] is None:
        return NetworkInput(sides[0], sides[2], sides[3])
    raise ModelError(f"{path}: the input has shape {tuple(shape)}; expected 3 (or 1) channels on axis 1 or 3")


def _providers(device: str) -> list[Any]:
    kind, _, index = device.partition(":")
    if kind.isdigit():
        kind, index = "cuda", kind
    if kind not in _PROVIDERS or (index and not index.isdigit()):
        raise InputError(
            f"device {device!r} is unknown to ONNX Runtime; expected {', '.join(_PROVIDERS)}, or cuda:INDEX"
        )
    provider = _PROVIDERS[kind]
    available = onnxruntime.get_available_providers()
    if provider not in available:
        raise InputError(
            f"device {device!r} needs {provider}, and this ONNX Runtime has only {', '.join(available)}; "
            "install the build for your hardware (for NVIDIA: pip install onnxruntime-gpu)"
        )
    return [(provider, {"device_id": index})] if index else [provider]


def _explain(path: Path, error: Exception) -> str:
    message = first_line(error)
    if "external" in str(error).lower() and ("data" in str(error).lower()):
        return (
            f"{path}: the weights lie in a second file that is missing or damaged; keep it beside the .onnx "
            f"under its old name, or export again without external data ({message})"
        )
    return f"{path}: ONNX Runtime cannot read this file; is it a complete .onnx? ({message})"
