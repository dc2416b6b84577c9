"""Runtimes: how tensors are computed. Every one is the same narrow seam, `Runtime`."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, get_args

from maskprism._common.choices import Precision, RuntimeName
from maskprism._common.lazy import lazy_submodules
from maskprism.errors import InputError, ModelError
from maskprism.io.untrusted import is_file, is_folder, read_yaml, shortened
from maskprism.io.uris import shown

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float32

if not TYPE_CHECKING:  # type checkers shall know the names that are here
    __getattr__, __dir__ = lazy_submodules(__name__)

RUNTIMES: tuple[RuntimeName, ...] = get_args(RuntimeName)
MODEL_SUFFIXES: dict[str, RuntimeName] = {
    ".onnx": "onnxruntime",
    ".xml": "openvino",
    ".tflite": "litert",
    ".torchscript": "torchscript",
    ".pt": "ultralytics",
}
DUMP_SUFFIX = ".npz"
"""Of recorded raw outputs, which stand in for a model."""


@dataclass(frozen=True)
class NetworkInput:
    """What a model takes.

    None stands for a side that may vary.

    Attributes
    ----------
    default_hw
        (height, width) that its own tools take unless told otherwise, where sides may vary; None for the default of its
        family.
    """

    batch: int | None
    height: int | None
    width: int | None
    channels: int = 3
    channels_last: bool = False
    default_hw: tuple[int, int] | None = None


class Runtime(Protocol):
    """A model as a function of arrays.

    One that knows how its outputs are called may say so in `output_names`, a tuple of text: it settles what shapes
    and values leave open. One that keeps its buffers from run to run may have a method `fresh`, which opens the same
    model in memory of its own.

    Calling it takes what the model's `Preprocessing` makes of images, float32 RGB in 0..1 unless told otherwise,
    `[B, 3, H, W]` (or `[B, H, W, 3]` where the input is channels_last), and gives every output tensor as a float32
    array.
    """

    @property
    def name(self) -> str:
        """Name and version of the library that computes."""
        ...

    @property
    def input(self) -> NetworkInput:
        """What the model takes."""
        ...

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the file says about itself: task, names, stride, version, ... as far as it does."""
        ...

    @property
    def sha256(self) -> str:
        """Fingerprint of the weights."""
        ...

    @property
    def threadsafe(self) -> bool:
        """Whether several threads may call it at once."""
        ...

    def __call__(self, batch: Float32[np.ndarray, "B ..."]) -> list[Float32[np.ndarray, "..."]]:
        """Compute every output of one batch."""
        ...


class FileRuntime:
    """A runtime of a file: pickled, it opens the file again in the process that it is sent to."""

    sha256: str
    opening: Callable[[], FileRuntime] | None = None
    """Opens the file as it was opened; None for an object that was given, which stays in its process."""

    def __reduce__(self) -> tuple[Any, ...]:
        if self.opening is None:
            raise TypeError(f"{type(self).__name__} around an object, not a file")
        return _opened_again, (self.opening, self.sha256)


def _opened_again(opening: Callable[[], FileRuntime], sha256: str) -> FileRuntime:
    opened = opening()
    if opened.sha256 != sha256:
        raise ModelError("the model file is another one here than where the work began; copy the same to every machine")
    return opened


@dataclass(frozen=True)
class FunctionRuntime:
    """A runtime around a plain function of arrays: for tests, teaching and home-made models."""

    function: Any
    input: NetworkInput = NetworkInput(None, 640, 640)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    name: str = "function"
    sha256: str = "0" * 64
    threadsafe: bool = True

    def __call__(self, batch: Float32[np.ndarray, "B ..."]) -> list[Float32[np.ndarray, "..."]]:
        """Call the function."""
        return list(self.function(batch))


def open_runtime(
    model: Any,
    runtime: RuntimeName | None,
    *,
    device: str,
    precision: Precision,
    threads: int | None,
    end2end: bool | None = None,
) -> Runtime:
    """Return the runtime for a file (by its suffix), a folder with an OpenVINO model, or a live object.

    Live objects are an `ultralytics.YOLO`, a YOLACT in PyTorch, a model of query masks of
    transformers, or a `Runtime` already.

    `end2end` chooses between the two heads of a PyTorch model that has them; files that were
    exported hold only one.

    Raises
    ------
    ModelError
        For a file that is missing, of an unknown kind or damaged.
    MissingExtraError
        Where the runtime's package is not installed.
    """
    if runtime is not None and runtime not in RUNTIMES:
        raise InputError(f"there is no runtime {runtime!r}; expected one of {', '.join(RUNTIMES)}")
    if not isinstance(model, str | Path) and not hasattr(model, "__fspath__"):
        if runtime not in (None, "ultralytics"):
            raise InputError(f"runtime is {runtime!r}; only files can be opened with a runtime of your choice")
        if _is_module(model):
            from maskprism.models.runtimes.pytorch import unwrapped

            model = unwrapped(model)
        if _is_module(model) and type(model).__module__.startswith("transformers."):
            from maskprism.models.runtimes.transformers import TransformersRuntime

            return TransformersRuntime(model, device=device, precision=precision)
        if _is_module(model):
            from maskprism.models.runtimes.yolact import YolactRuntime

            return YolactRuntime(model, device=device, precision=precision)
        if not callable(model) or not hasattr(model, "input"):
            from maskprism.models.runtimes.ultralytics import UltralyticsRuntime

            return UltralyticsRuntime.of_object(model, device=device, precision=precision, end2end=end2end)
        return model  # anything that is a Runtime already
    if is_address(model):
        raise ModelError(f"{shown_address(model)}: is an address; download the model first, and open the file")
    path = _file_of(Path(model))
    if path.suffix.lower() == DUMP_SUFFIX:
        from maskprism.models.runtimes.recorded import DumpRuntime

        return DumpRuntime(path)
    chosen = runtime or _runtime_of(path)
    if chosen == "ultralytics" and path.suffix.lower() != ".pt":
        raise InputError(f"{path}: runtime 'ultralytics' reads .pt files; leave runtime out for {path.suffix} files")
    if chosen == "onnxruntime":
        from maskprism.models.runtimes.onnx import OnnxRuntime

        return OnnxRuntime(path, device=device, precision=precision, threads=threads)
    if chosen == "openvino":
        from maskprism.models.runtimes.openvino import OpenVinoRuntime

        return OpenVinoRuntime(path, device=device, precision=precision, threads=threads)
    if chosen == "litert":
        from maskprism.models.runtimes.litert import LiteRtRuntime

        return LiteRtRuntime(path, device=device, precision=precision, threads=threads)
    if chosen == "torchscript":
        from maskprism.models.runtimes.torchscript import TorchScriptRuntime

        return TorchScriptRuntime(path, device=device, precision=precision)
    from maskprism.models.runtimes.ultralytics import UltralyticsRuntime

    return UltralyticsRuntime.of_file(path, device=device, precision=precision, end2end=end2end)


def fill_heap(value: float, largest: int) -> None:
    """Write a value all over memory and free it, so that what the heap gives out next does not hold zeros.

    Parameters
    ----------
    value
        What float32 numbers there are then.
    largest
        The most numbers in an input or output of the model. What it holds in between may be 16 times as large; blocks
        have at most two million numbers.
    """
    import numpy as np

    sizes = range(4, min(22, largest.bit_length() + 5))
    blocks = [np.full(1 << size, value, dtype=np.float32) for size in sizes for _ in range(3)]
    del blocks


def refuse_precision(name: str, precision: Precision, *supported: Precision) -> None:
    """Raise InputError unless this runtime computes in that precision."""
    if precision not in supported:
        raise InputError(f"precision {precision!r} is not available with {name}; expected {' or '.join(supported)}")


def read_metadata_yaml(folder: Path) -> dict[str, Any]:
    """Return the metadata.yaml that Ultralytics writes beside some exports; empty where there is none."""
    path = folder / "metadata.yaml"
    if not is_file(path):
        return {}
    found = read_yaml(path, dict[Any, Any], ModelError, "keys such as names, stride and imgsz")
    return {str(key): value for key, value in found.items()}


def hash_files(paths: Sequence[Path]) -> str:
    """sha256 over the bytes of the files, in order."""
    import hashlib

    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def is_address(model: Any) -> bool:
    """Whether this names something of another machine, also as a Path, which has lost a slash of ``https://``."""
    return re.match(r"(?!file:)[A-Za-z][A-Za-z0-9+.\-]+:/", os.fspath(model)) is not None


def shown_address(model: Any) -> str:
    """Return an address with both of its slashes, and without a password or a query."""
    return shown(re.sub(r":/+", "://", os.fspath(model), count=1))


def _is_module(model: Any) -> bool:
    """Return whether this is a model in PyTorch; Ultralytics' own have a runtime of theirs."""
    torch = sys.modules.get("torch")
    if torch is None or type(model).__module__.split(".")[0] == "ultralytics":
        return False
    return isinstance(model, torch.nn.Module) and not hasattr(model, "input")


def _file_of(path: Path) -> Path:
    if is_folder(path):
        found = sorted(path.glob("*.xml"))
        if len(found) != 1:
            raise ModelError(
                f"{path}: is a folder with {len(found)} .xml files; expected a model file, or an OpenVINO "
                "export folder with one .xml"
            )
        return found[0]
    if not is_file(path):
        raise ModelError(f"{shortened(path)}: there is no such model file")
    return path


def _runtime_of(path: Path) -> RuntimeName:
    suffix = path.suffix.lower()
    if suffix not in MODEL_SUFFIXES:
        raise ModelError(
            f"{path}: no runtime reads {suffix or 'files without a suffix'}; "
            f"expected {', '.join(MODEL_SUFFIXES)} (export the model to ONNX)"
        )
    return MODEL_SUFFIXES[suffix]
