"""Query masks of Hugging Face transformers: MaskFormer, Mask2Former, RF-DETR and their kin (extra `transformers`)."""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from maskprism._common.choices import Precision
from maskprism.errors import ModelError
from maskprism.models.onnx.mask_branch import MaskBranch
from maskprism.models.runtimes import NetworkInput, refuse_precision
from maskprism.models.runtimes.pytorch import hash_weights, on_host, torch_device

if TYPE_CHECKING:
    from jaxtyping import Float32

    from maskprism.models.runtimes.products import Product

_EQUATIONS = ("bqc,bchw->bqhw", "lbqc,bchw->lbqhw")
"""How queries meet pixels; with l, for all layers of the decoder at once, of which the last one counts."""


_OF_MASKS = ("masks_queries_logits", "class_queries_logits")
_OF_BOXES = ("pred_boxes", "logits", "pred_masks")
"""What models give, in the order of outputs."""


class TransformersRuntime:
    """A model that gives masks and classes of queries, in evaluation mode: MaskFormer and its kin, or RF-DETR.

    The model itself stays unchanged; a copy is run. Once revealed, the factors of the masks are outputs, too.
    """

    threadsafe = False

    def __init__(self, network: Any, *, device: str, precision: Precision) -> None:
        import torch
        import transformers

        refuse_precision("transformers", precision, "f32")
        self.name = f"transformers {transformers.__version__}"
        self.input = NetworkInput(None, *_fixed_side(network))
        self.sha256 = hash_weights(network)
        # RF-DETR has boxes, which come first, and multiplies matrices; the others have an equation.
        self._with_boxes = getattr(getattr(network, "config", None), "model_type", "") == "rf_detr"
        self.output_names: tuple[str, ...] = ("dets", "labels", "masks") if self._with_boxes else ("masks", "classes")
        names = getattr(getattr(network, "config", None), "id2label", None)
        self.metadata: dict[str, Any] = {}
        if isinstance(names, Mapping) and not all(str(name).startswith("LABEL_") for name in names.values()):
            self.metadata["names"] = {int(key): str(name) for key, name in names.items()}
        self._device = torch.device(torch_device(device))
        self._network = copy.deepcopy(network).float().eval().to(self._device)
        # MaskFormer makes the masks of all layers at once where it was trained so, and then needs what is in between.
        auxiliary = getattr(getattr(network, "config", None), "use_auxiliary_loss", False)
        self._options = {"output_hidden_states": True} if auxiliary else {}
        self._lock = threading.Lock()

    def revealed(self) -> tuple[TransformersRuntime, MaskBranch]:
        """Return the same model with the queries and the pixel embedding as outputs behind its own."""
        changed = copy.copy(self)
        changed.output_names = (*self.output_names, "queries", "pixels")
        operator, equation = ("MatMul", None) if self._with_boxes else ("Einsum", _EQUATIONS[0])
        return changed, MaskBranch(operator, "masks", "queries", "pixels", "masks", equation)

    def __call__(self, batch: Float32[np.ndarray, "B ..."]) -> list[Float32[np.ndarray, "..."]]:
        """Compute masks and classes of one batch, and once revealed what the masks are made of.

        Raises
        ------
        ModelError
            For a model that gives no query masks, or does not make them by such a product.
        """
        import torch

        from maskprism.models.runtimes.products import LastProduct

        wanted = _is_of_matrices if self._with_boxes else _is_of_queries
        with self._lock, torch.inference_mode(), LastProduct(wanted) as products:
            images = torch.from_numpy(np.ascontiguousarray(batch)).to(self._device)
            given = self._network(pixel_values=images, **self._options)
        who = type(self._network).__name__
        kinds = _OF_BOXES if self._with_boxes else _OF_MASKS
        parts: list[Any] = [getattr(given, kind, None) for kind in kinds]
        if any(part is None for part in parts):
            raise ModelError(
                f"{who}: gives no {' and '.join(kinds)}; expected MaskFormer, Mask2Former, RF-DETR for instance "
                "segmentation or another model of query masks. For SAM see maskprism.models.sam, for others "
                "maskprism.from_arrays"
            )
        if len(self.output_names) > len(parts):
            if products.found is None:
                raise ModelError(
                    f"{who}: no product of queries and pixels ({_EQUATIONS[0]}) was seen on the way to its masks; hand "
                    "over its factors to maskprism.from_arrays"
                )
            queries = products.found.left
            parts += [queries[-1] if queries.ndim == 4 else queries, products.found.right]
        return [on_host(part.float()) for part in parts]


def _fixed_side(network: Any) -> tuple[int | None, int | None]:
    """(height, width) of images that RF-DETR was made for; None for models that take any."""
    config = getattr(network, "config", None)
    if getattr(config, "model_type", "") != "rf_detr":
        return None, None
    side = getattr(getattr(config, "backbone_config", None), "image_size", None)
    return (side, side) if isinstance(side, int) else (None, None)


def _is_of_matrices(product: Product) -> bool:
    """Return queries (B, Q, C) times pixels (B, C, h w), the last of which is that of the masks."""
    left, right = product.left, product.right
    return product.equation is None and left.ndim == right.ndim == 3 and right.shape[2] > left.shape[2]


def _is_of_queries(product: Product) -> bool:
    return product.equation in _EQUATIONS
