"""TorchScript files, as Ultralytics exports them (needs torch)."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from maskprism._common.choices import Precision
from maskprism._common.extras import require
from maskprism._common.text import first_line
from maskprism.errors import ModelError
from maskprism.io.untrusted import decode_json
from maskprism.models.metadata import Metadata
from maskprism.models.runtimes import FileRuntime, NetworkInput, hash_files, refuse_precision
from maskprism.models.runtimes.pytorch import on_host, torch_device

if TYPE_CHECKING:
    from jaxtyping import Float32

_METADATA = "config.txt"


class TorchScriptRuntime(FileRuntime):
    """One `.torchscript` file.

    It runs what it contains: load only files that you trust.

    The canvas is that of the export, or any where that was dynamic. Weights in half precision get images in half
    precision.
    """

    threadsafe = False

    def __init__(self, path: Path, *, device: str, precision: Precision) -> None:
        torch = require("torch", f"reading {path.name}")
        refuse_precision("TorchScript (the file decides)", precision, "f32")
        self.name = f"torchscript {torch.__version__.split('+')[0]}"
        self.opening = partial(TorchScriptRuntime, path.resolve(), device=device, precision=precision)
        self._device = torch.device(torch_device(device))
        beside = {_METADATA: ""}
        try:
            self._network = torch.jit.load(str(path), map_location=self._device, _extra_files=beside).eval()
        except Exception as error:  # RuntimeError, and whatever unpacking raises
            raise ModelError(
                f"{path}: PyTorch cannot read this file; is it a complete TorchScript export? ({first_line(error)})"
            ) from None
        self.metadata: dict[str, Any] = _read(beside[_METADATA], path)
        said = Metadata.parse(self.metadata, path.name)
        args = self.metadata.get("args")
        dynamic = isinstance(args, dict) and args.get("dynamic") is True
        batch = self.metadata.get("batch")
        channels = self.metadata.get("channels")
        height, width = (None, None) if dynamic or said.imgsz is None else said.imgsz
        self.input = NetworkInput(
            batch if isinstance(batch, int) and batch > 0 and not dynamic else None,
            height,
            width,
            channels=channels if isinstance(channels, int) else 3,
        )
        half = any(one.dtype == torch.float16 for one in self._network.parameters())
        self._dtype = torch.float16 if half else torch.float32
        self.sha256 = hash_files([path])
        self._lock = threading.Lock()

    def __call__(self, batch: Float32[np.ndarray, "B ..."]) -> list[Float32[np.ndarray, "..."]]:
        """Compute every output of one batch."""
        import torch

        with self._lock, torch.inference_mode():
            images = torch.from_numpy(np.ascontiguousarray(batch)).to(self._device, self._dtype)
            found = self._network(images)
            return [on_host(one.float()) for one in _tensors(found)]


def _tensors(found: Any) -> list[Any]:
    """Return all tensors of an answer, however they are nested."""
    import torch

    if isinstance(found, torch.Tensor):
        return [found]
    inner = found.values() if isinstance(found, dict) else found if isinstance(found, tuple | list) else ()
    return [tensor for one in inner for tensor in _tensors(one)]


def _read(text: str | bytes, path: Path) -> dict[str, Any]:
    """Return the JSON that Ultralytics packs beside the model; empty where there is none."""
    if not text:
        return {}
    data = text if isinstance(text, bytes) else text.encode()
    return decode_json(data, dict[str, Any], f"{path}, metadata", ModelError, "what Ultralytics writes into exports")
