"""What runtimes in PyTorch share: devices, fingerprints, tensors that come back."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from maskprism._common.text import first_line
from maskprism.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float32


def torch_device(device: str) -> str:
    """Return the name of a device for PyTorch.

    Raises
    ------
    InputError
        For one that is not there.
    """
    import torch

    name = f"cuda:{device}" if device.isdigit() else device
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"device {device!r} is not available to PyTorch here; use cpu ({first_line(error)})") from None
    return name


def unwrapped(network: Any) -> Any:
    """Return the model inside DataParallel and its kin, in which training on several GPUs leaves it.

    Others unchanged.
    """
    import torch

    while isinstance(network, torch.nn.DataParallel | torch.nn.parallel.DistributedDataParallel):
        network = network.module
    return network


def hash_weights(network: Any) -> str:
    """sha256 over the weights of a model, by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def on_host(tensor: Any) -> Float32[np.ndarray, "..."]:
    """Return a tensor as an array; from a GPU through pinned memory, which takes a third of the time."""
    import torch

    if tensor.device.type != "cuda":
        return tensor.cpu().numpy()
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor).numpy().copy()
