"""PyTorch checkpoints and live `ultralytics.YOLO` objects (extra `ultralytics`).

Ultralytics is AGPL-3.0. It is only called here, when the user has installed it, to turn an image
tensor into the raw output tensors; reading them is ours.
"""

from __future__ import annotations

import atexit
import copy
import logging
import os
import platform
import shutil
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from maskprism._common.choices import Precision
from maskprism._common.extras import require
from maskprism._common.text import first_line
from maskprism.errors import InputError, ModelError
from maskprism.models.metadata import Metadata, refuse_other_tasks
from maskprism.models.runtimes import FileRuntime, NetworkInput, hash_files, refuse_precision
from maskprism.models.runtimes.pytorch import hash_weights, on_host, torch_device, unwrapped

if TYPE_CHECKING:
    from jaxtyping import Float32, Float64

_WHILE_IMPORTED = ("YOLO_OFFLINE", "YOLO_CONFIG_DIR")


class UltralyticsRuntime(FileRuntime):
    """A segmentation model of Ultralytics in PyTorch, fused and in evaluation mode.

    Parameters
    ----------
    end2end
        end2end of a model with two heads (YOLO26), whether to run the one-to-one head, which needs no NMS, or the
        one-to-many head; None for the one that its own predict takes.
    """

    threadsafe = False

    def __init__(self, yolo: Any, sha256: str | None, *, device: str, label: str, end2end: bool | None = None) -> None:
        import torch
        import ultralytics

        self.name = f"ultralytics {ultralytics.__version__}"
        network = unwrapped(getattr(yolo, "model", None))
        if not isinstance(network, torch.nn.Module):
            raise ModelError(
                f"{label}: expected a YOLO object around a PyTorch model, got {type(network).__name__}; "
                "pass the exported file itself to maskprism.load"
            )
        if not isinstance(getattr(network, "model", None), torch.nn.Sequential):
            raise ModelError(
                f"{label}: holds a {type(network).__name__}; expected a model as Ultralytics builds it, with its "
                "layers in .model, saved within a dict as 'model'. Export others to ONNX"
            )
        # Of a model inside DataParallel, Ultralytics guesses the task.
        task = getattr(yolo if network is getattr(yolo, "model", None) else network, "task", None)
        refuse_other_tasks(task, label)
        self.metadata: dict[str, Any] = {
            "task": task,
            "names": getattr(network, "names", None) or {},
            "stride": max(int(max(getattr(network, "stride", [32]))), 32),
            "version": ultralytics.__version__,
            "description": Path(str(getattr(yolo, "ckpt_path", None) or "")).name,
        }
        # Predict of YOLOE has suppressed boxes of all classes together since it came; of its exports, class by class.
        self.metadata["agnostic_nms"] = type(network.model[-1]).__name__.startswith("YOLOE")
        args = getattr(network, "args", None)
        imgsz = args.get("imgsz") if isinstance(args, dict) else getattr(args, "imgsz", None)
        imgsz = imgsz if isinstance(imgsz, int | list | tuple) else None
        self.sha256 = sha256 or hash_weights(network)
        network = copy.deepcopy(network).float().eval()  # fusing would change the caller's model
        self.metadata["end2end"] = _choose_head(network, end2end, ultralytics.__version__, label)
        self._device = torch.device(torch_device(device))
        if hasattr(network, "fuse"):
            network = network.fuse(verbose=False)
        # As Ultralytics computes on x86 since 8.4, so that results agree to the last bit; it is faster, too.
        x86 = self._device.type == "cpu" and platform.machine().lower() in ("x86_64", "amd64")
        layout = torch.channels_last if x86 else torch.contiguous_format
        self._network = network.to(self._device, memory_format=layout)
        channels = getattr(network, "yaml", {}).get("channels", 3)
        trained_hw = Metadata.parse({"imgsz": imgsz}, label).imgsz  # its own predict takes that size
        self.input = NetworkInput(None, None, None, channels=channels, default_hw=trained_hw)
        # Accelerators prepare every new shape of a batch, for each thread anew, for longer than they then compute.
        self._thread = None if self._device.type == "cpu" else ThreadPoolExecutor(1, thread_name_prefix="network")
        self._lock = threading.Lock()

    @classmethod
    def of_file(
        cls, path: Path, *, device: str, precision: Precision, end2end: bool | None = None
    ) -> UltralyticsRuntime:
        """Load a `.pt` checkpoint. Ultralytics unpickles it: load only files that you trust."""
        refuse_precision("Ultralytics", precision, "f32")
        yolo_class = _import_yolo(f"reading {path.name}")
        try:
            with _nothing_installed():
                # By its bare name Ultralytics would delete and download again a damaged yolo11n-seg.pt.
                yolo = yolo_class(str(path.resolve()), verbose=False)
        except Exception as error:  # unpickling raises whatever the file makes it raise
            if _holds_weights_alone(path):
                raise ModelError(
                    f"{path}: holds weights alone (a state_dict); expected a checkpoint as Ultralytics writes it, with "
                    "the network in it. Load the weights into their model, and save that: YOLO(...).save()"
                ) from None
            raise ModelError(
                f"{path}: Ultralytics cannot read this file; expected a checkpoint as it writes them, a dict with the "
                f"network as 'model' ({first_line(error)})"
            ) from None
        opened = cls(yolo, hash_files([path]), device=device, label=str(path), end2end=end2end)
        opened.opening = partial(cls.of_file, path.resolve(), device=device, precision=precision, end2end=end2end)
        return opened

    @classmethod
    def of_object(
        cls, model: Any, *, device: str, precision: Precision, end2end: bool | None = None
    ) -> UltralyticsRuntime:
        """Take a live `ultralytics.YOLO`; the object itself is left unchanged."""
        refuse_precision("Ultralytics", precision, "f32")
        if type(model).__module__.split(".")[0] != "ultralytics":
            raise InputError(
                f"cannot load a model from {type(model).__name__}; expected a path, an ultralytics.YOLO object "
                "or a maskprism.models.runtimes.Runtime"
            )
        return cls(model, None, device=device, label="YOLO object", end2end=end2end)

    def __call__(self, batch: Float32[np.ndarray, "B ..."]) -> list[Float32[np.ndarray, "..."]]:
        """Compute the detections and the prototypes of one batch."""
        if self._thread is not None:
            return self._thread.submit(self._compute, batch, _power_of_two(len(batch))).result()
        with self._lock:
            return self._compute(batch, len(batch))

    def _compute(self, batch: Float32[np.ndarray, "B ..."], size: int) -> list[Float32[np.ndarray, "..."]]:
        """Return the same, in a batch of `size`, at least as many: what fills it up is computed and left there."""
        import torch

        with torch.inference_mode():
            images = torch.from_numpy(np.ascontiguousarray(batch)).to(self._device)
            if size > len(batch):
                images = torch.cat([images, images[:1].expand(size - len(batch), *images.shape[1:])])
            out = self._network(images)
            # ((rows, prototypes), raw) in evaluation mode; (rows, (raw, coefficients, prototypes)) up to 8.3
            pair = out[0] if isinstance(out[0], tuple | list) else out
            prototypes = pair[1] if len(pair) > 1 else None
            while isinstance(prototypes, tuple | list):
                prototypes = prototypes[-1]
            tensors = [t for t in (pair[0], prototypes) if isinstance(t, torch.Tensor)]
            return [on_host(tensor[: len(batch)].float()) for tensor in tensors]


def _holds_weights_alone(path: Path) -> bool:
    """Whether a file that Ultralytics refused is a dict of tensors, itself or under a name in it."""
    import torch

    try:
        with warnings.catch_warnings(action="ignore"):  # PyTorch's on files of TorchScript
            held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # damaged, or of other types: the refusal of Ultralytics says which
        return False
    dicts = [held, *held.values()] if isinstance(held, dict) else []
    return any(
        isinstance(weights, dict) and weights and all(isinstance(value, torch.Tensor) for value in weights.values())
        for weights in dicts
    )


def _power_of_two(count: int) -> int:
    """Return the smallest that is not less."""
    return 1 << (count - 1).bit_length()


def write_corrected_checkpoint(
    path: Path,
    target: Path,
    maps: Float64[np.ndarray, "L K K"],
    offsets: Float64[np.ndarray, "L K"],
    *,
    end2end: bool | None,
) -> None:
    """Write a `.pt` whose coefficients x are `map @ x + offset`, by the last convolution of every level's branch.

    All else stays unchanged, number formats, too.

    Parameters
    ----------
    maps, offsets
        One pair per level, or one for all.
    end2end
        Whether the one-to-one head is meant. The checkpoint is unpickled: only files that you trust.

    Raises
    ------
    ModelError
        Where such branches are not found.
    MissingExtraError
        Without Ultralytics.
    """
    _import_yolo(f"rewriting {path.name}")
    import torch

    try:
        with _nothing_installed():
            checkpoint = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:  # unpickling raises whatever the file makes it raise
        raise ModelError(f"{path}: PyTorch cannot read this file ({first_line(error)})") from None
    networks = [checkpoint.get(key) for key in ("model", "ema")] if isinstance(checkpoint, dict) else []
    networks = [unwrapped(network) for network in networks if isinstance(network, torch.nn.Module)]
    if not networks:
        raise ModelError(f"{path}: holds no model; expected a checkpoint as Ultralytics writes it")
    with torch.no_grad():
        for network in networks:
            for layer, level in _last_convolutions(network, maps, path, end2end):
                weight = layer.weight.double().flatten(1).numpy()
                bias = layer.bias.double().numpy()
                layer.weight.copy_(torch.from_numpy(maps[level] @ weight).reshape(layer.weight.shape))
                layer.bias.copy_(torch.from_numpy(maps[level] @ bias + offsets[level]))
    torch.save(checkpoint, target)


def _last_convolutions(
    network: Any, maps: Float64[np.ndarray, "L K K"], path: Path, end2end: bool | None
) -> Iterator[tuple[Any, int]]:
    """Yield the layers that make the coefficients, finest level first, each with the number of its map."""
    import torch

    layers = getattr(network, "model", None)
    head = layers[-1] if layers is not None and len(layers) else None
    name = ("one2one_" if end2end else "") + ("cv5" if type(head).__name__.startswith("YOLOE") else "cv4")
    branches = getattr(head, name, None)
    lasts = [branch[-1] for branch in branches or () if isinstance(branch, torch.nn.Sequential)]
    fits = [
        isinstance(last, torch.nn.Conv2d) and last.out_channels == maps.shape[1] and last.bias is not None
        for last in lasts
    ]
    if not lasts or not all(fits) or len(maps) not in (1, len(lasts)):
        raise ModelError(
            f"{path}: the branches of its head that make coefficients are not found (a {type(head).__name__} with no "
            f"{name} of {maps.shape[1]} channels); export it to ONNX and tune that"
        )
    return ((last, level if len(maps) > 1 else 0) for level, last in enumerate(lasts))


def _choose_head(network: Any, end2end: bool | None, version: str, label: str) -> bool:
    """Select the head of a model that has two (before fusing drops the other); whether it is the one-to-one head."""
    head = network.model[-1]
    one_to_one = getattr(head, "one2one_cv2", None) is not None
    one_to_many = getattr(head, "cv2", None) is not None
    # Predict of Ultralytics takes the one-to-many head, followed by NMS, since 8.4.142.
    default = one_to_one and (not one_to_many or _release(version) < (8, 4, 142))
    wanted = default if end2end is None else end2end
    if wanted and not one_to_one:
        raise ModelError(
            f"{label}: has no one-to-one head (or lost it when it was fused for predict), so there is no layout "
            "'end2end'; leave layout= out, or load the checkpoint of a YOLO26 model"
        )
    if not wanted and not one_to_many:
        raise ModelError(
            f"{label}: lost its one-to-many head when it was fused for predict; use layout='end2end', or load the "
            "checkpoint again"
        )
    if bool(getattr(network, "end2end", False)) != wanted:
        network.end2end = wanted
    return wanted


@contextmanager
def _nothing_installed() -> Iterator[None]:
    """Ultralytics installs packages that a checkpoint names and the environment lacks; reading a file must not."""
    from ultralytics.utils import LOGGER, checks

    install, level = getattr(checks, "AUTOINSTALL", False), LOGGER.level
    checks.AUTOINSTALL = False
    LOGGER.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        checks.AUTOINSTALL = install
        LOGGER.setLevel(level)


def _import_yolo(what: str) -> Any:
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")  # nor may importing it
    with _nothing_reported():
        return require("ultralytics", what).YOLO


@contextmanager
def _nothing_reported() -> Iterator[None]:
    """Importing Ultralytics resolves hosts to learn whether it may report, and files an id of this machine.

    Settings that the user has made are used; without any, its default ones stay in a folder that goes with this
    process. Whether there is a model is asked again where a user downloads weights with it.
    """
    if "ultralytics.utils" in sys.modules:
        yield
        return
    before, disabled = {name: os.environ.get(name) for name in _WHILE_IMPORTED}, logging.root.manager.disable
    os.environ["YOLO_OFFLINE"] = "true"
    if before["YOLO_CONFIG_DIR"] is None and not _settings_of_user().is_file():
        folder = tempfile.mkdtemp(prefix="maskprism-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ["YOLO_CONFIG_DIR"] = folder
    logging.disable(logging.INFO)  # "Creating new Ultralytics Settings"
    try:
        yield
    finally:
        logging.disable(disabled)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _settings_of_user() -> Path:
    system = platform.system()
    home = {"Darwin": Path.home() / "Library/Application Support", "Windows": Path.home() / "AppData/Roaming"}
    linux = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return home.get(system, linux) / "Ultralytics" / "settings.json"


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
