"""Live YOLACT models in PyTorch: any `nn.Module` of the shape of the public repository's (needs torch)."""

from __future__ import annotations

import copy
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from maskprism._common.choices import Precision
from maskprism.errors import ModelError
from maskprism.models.runtimes import NetworkInput, refuse_precision
from maskprism.models.runtimes.pytorch import hash_weights, on_host, torch_device

if TYPE_CHECKING:
    from jaxtyping import Float32

_PARTS = ("loc", "conf", "mask", "priors", "proto")


class YolactRuntime:
    """A YOLACT whose forward gives a dict of loc, conf, mask, priors and proto, in evaluation mode.

    A model whose last step is called `detect`, as the public one's is, gives that step what we need: it is left out.
    The model itself stays unchanged; a copy is run.
    """

    threadsafe = False
    output_names = _PARTS

    def __init__(self, network: Any, *, device: str, precision: Precision) -> None:
        import torch

        refuse_precision("PyTorch", precision, "f32")
        self.name = f"pytorch {torch.__version__.split('+')[0]}"
        self.metadata: dict[str, Any] = {"stride": 1}
        self.input = NetworkInput(None, None, None, default_hw=(550, 550))
        self.sha256 = hash_weights(network)
        self._device = torch.device(torch_device(device))
        self._network = copy.deepcopy(network)
        for change in (self._network.float, self._network.eval, partial(self._network.to, self._device)):
            change()  # the public one's eval gives None back, and not itself
        if callable(getattr(self._network, "detect", None)):
            self._network._modules.pop("detect", None)  # where it is a module, a function cannot take its place
            self._network.detect = _given
        self._lock = threading.Lock()

    def __call__(self, batch: Float32[np.ndarray, "B ..."]) -> list[Float32[np.ndarray, "..."]]:
        """Compute the five parts for one batch.

        Raises
        ------
        ModelError
            For a model that gives anything else.
        """
        import torch

        with self._lock, torch.inference_mode():
            found = self._network(torch.from_numpy(np.ascontiguousarray(batch)).to(self._device))
            given = found if isinstance(found, dict) else {}
            if any(not isinstance(given.get(part), torch.Tensor) for part in _PARTS):
                keys = f" of {', '.join(map(str, given))}" if given else ""
                raise ModelError(
                    f"{type(self._network).__name__}: gives a {type(found).__name__}{keys} in evaluation mode; "
                    f"expected a dict of the tensors {', '.join(_PARTS)}, as YOLACT has them before detection. Hand "
                    "over the arrays of other models to maskprism.from_arrays"
                )
            return [on_host(given[part].float()) for part in _PARTS]


def _given(outputs: Any, *_: Any) -> Any:
    """Return what takes the place of detection: nothing is done."""
    return outputs
