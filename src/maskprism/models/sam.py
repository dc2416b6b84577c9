"""SAM and SAM 2 of Hugging Face transformers: prompts in, masks as sums of upscaled feature maps out.

Kirillov et al., "Segment Anything" (ICCV 2023), Ravi et al., "SAM 2" (2024): every mask token becomes a vector of
K = 32 by a small model of its own, and the mask is that vector times the upscaled image embedding. The prompt changes
the embedding, too: every prompt has prototypes of its own, which its masks share. Extra `transformers`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from maskprism._common.extras import require
from maskprism.core.masks import NO_CROP
from maskprism.core.prediction import Prediction
from maskprism.core.preprocessing import IMAGENET, SAM
from maskprism.errors import InputError, ModelError
from maskprism.io.images import read_image, source_name
from maskprism.models.runtimes.pytorch import on_host, torch_device

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from maskprism.core.geometry import Letterbox
    from maskprism.core.preprocessing import Preprocessing
    from maskprism.io.images import ImageLike
    from maskprism.models.runtimes.products import Product

_TOLERANCE = 1e-4
"""Largest deviation of the product from the model's own logits, as a share of the largest."""


class Sam:
    """A `SamModel` or `Sam2Model`.

    The model itself stays unchanged; a copy is run.

    Raises
    ------
    ModelError
        For another model.
    InputError
        For a device that is not there.
    """

    def __init__(self, network: Any, *, device: str = "cpu") -> None:
        require("transformers", "asking SAM")  # what the model is made of
        torch = require("torch", "asking SAM", extra="transformers")
        decoder = getattr(network, "mask_decoder", None)
        tokens = getattr(decoder, "output_hypernetworks_mlps", None)
        if tokens is None or not hasattr(network, "get_image_embeddings"):
            raise ModelError(
                f"{type(network).__name__}: expected a SamModel or a Sam2Model of transformers, with a mask decoder of "
                "hypernetworks. Hand over the arrays of other models to maskprism.from_arrays"
            )
        self.name = type(network).__name__
        self._device = torch.device(torch_device(device))
        self._network = copy.deepcopy(network).float().eval().to(self._device)
        self.tokens = len(tokens)
        vision = network.config.vision_config
        encoder = network.config.prompt_encoder_config
        side = int(getattr(encoder, "image_size", None) or vision.image_size)
        self.canvas_hw = (side, side)
        # SAM keeps the shape of images and puts them into the corner, SAM 2 stretches them.
        self.preprocessing: Preprocessing = SAM if self.name.startswith("SamModel") else IMAGENET

    def see(self, image: ImageLike) -> SeenImage:
        """Return the slow step, once per image: compute its embedding.

        Raises
        ------
        ImageError
            For one that cannot be read.
        """
        import torch

        pixels = read_image(image)
        letterbox = self.preprocessing.letterbox((pixels.shape[0], pixels.shape[1]), self.canvas_hw)
        tensor = self.preprocessing.tensor([self.preprocessing.exact_canvas(pixels, letterbox)], [letterbox])
        with torch.inference_mode():
            embedding = self._network.get_image_embeddings(torch.from_numpy(tensor).to(self._device))
        return SeenImage(self, embedding, letterbox, source_name(image))

    def _ask(self, embedding: Any, prompt: dict[str, Any]) -> tuple[Product, Any, Any]:
        """The product of all mask tokens with the embedding, the masks that the model chose, and their quality."""
        import torch

        from maskprism.models.runtimes.products import LastProduct

        def is_of_tokens(product: Product) -> bool:
            left, right = product.left, product.right
            return bool(
                product.equation is None and left.ndim == 4 and left.shape[2] == self.tokens and right.shape[3] > 4
            )

        placed = {key: torch.as_tensor(value, device=self._device) for key, value in prompt.items()}
        with torch.inference_mode(), LastProduct(is_of_tokens) as products:
            given = self._network(image_embeddings=embedding, **placed)
        if products.found is None:
            raise ModelError(
                f"{self.name}: no product of mask tokens and an upscaled embedding was seen on the way to its masks; "
                "hand over its factors to maskprism.from_arrays"
            )
        return products.found, given.pred_masks, given.iou_scores


@dataclass(frozen=True, eq=False)
class SeenImage:
    """An image whose embedding is known: the quick step, `predict`, as often as there are prompts."""

    sam: Sam
    embedding: Any
    letterbox: Letterbox
    source: str | None

    def predict(
        self,
        *,
        points: ArrayLike | None = None,
        labels: Sequence[int] | None = None,
        box: ArrayLike | None = None,
        several: bool = True,
    ) -> Prediction:
        """Return the masks of one prompt.

        Parameters
        ----------
        points
            (n, 2) x and y in pixels of the image.
        labels
            Of each point, 1 where it lies on the object, 0 where it lies beside; default: all 1.
        box
            x1, y1, x2, y2 in pixels of the image.
        several
            All readings of the prompt (three masks), or one. Scores are the quality that the model predicts; there are
            no classes and no boxes.

        Raises
        ------
        InputError
            For a malformed prompt.
        ModelError
            Where the model's masks are no such sums.
        """
        prompt = self._prompt(points, labels, box) | {"multimask_output": several}
        product, masks, quality = self.sam._ask(self.embedding, prompt)
        own = on_host(masks.float())[0, 0]
        vectors, maps = (on_host(one.float())[0, 0] for one in (product.left, product.right))
        prototypes = np.ascontiguousarray(maps.reshape(-1, *own.shape[1:]))
        logits = (vectors @ maps).reshape(-1, *own.shape[1:])
        apart = np.abs(own[:, None] - logits[None]).max(axis=(2, 3))
        chosen = apart.argmin(axis=1)  # the model keeps some of its tokens
        size = max(float(np.abs(own).max(initial=0)), 1e-3)
        if not (apart.min(axis=1) <= _TOLERANCE * size).all():
            raise ModelError(
                f"{self.sam.name}: its masks are off by up to {apart.min(axis=1).max():.3g} from the products of its "
                f"mask tokens, where the largest logit is {size:.3g}; expected them to be equal"
            )
        scores = np.clip(on_host(quality.float())[0, 0], 0, 1)
        best = np.argsort(-scores, kind="stable")
        return Prediction(
            canvas_boxes=None,
            scores=scores[best],
            classes=np.zeros(len(best), dtype=np.int64),
            coefficients=vectors[chosen][best],
            prototypes=prototypes,
            letterbox=self.letterbox.with_grid((own.shape[1], own.shape[2])),
            rule=NO_CROP,
            names={0: "mask"},
            source=self.source,
            preprocessing=self.sam.preprocessing,
        )

    def _prompt(self, points: Any, labels: Any, box: Any) -> dict[str, Any]:
        """As the model takes it: one image, one prompt, pixels of the canvas."""
        if points is None and box is None:
            raise InputError("a prompt needs points, a box, or both")
        prompt: dict[str, Any] = {}
        if points is not None:
            xy = _numbers("points", points, 2)
            marks = np.ones(len(xy), dtype=np.int64) if labels is None else np.asarray(labels)
            if marks.shape != (len(xy),) or not np.isin(marks, (0, 1)).all():
                raise InputError(f"labels are {marks.tolist()}; expected 0 or 1 for each of {len(xy)} points")
            prompt["input_points"] = self.letterbox.to_canvas(xy)[None, None]
            prompt["input_labels"] = marks.astype(np.int64)[None, None]
        elif labels is not None:
            raise InputError("labels are given without points")
        if box is not None:
            corners = _numbers("box", [box], 4)
            if (corners[0, 2:] <= corners[0, :2]).any():
                raise InputError(f"box is {corners[0].tolist()}; expected x1, y1, x2, y2 with x1 < x2 and y1 < y2")
            prompt["input_boxes"] = self.letterbox.to_canvas(corners)[None]
        return prompt


def _numbers(name: str, value: Any, columns: int) -> np.ndarray[Any, Any]:
    try:
        found = np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError):
        raise InputError(f"{name} is {value!r}; expected numbers") from None
    if found.ndim != 2 or found.shape[1] != columns or not len(found) or not np.isfinite(found).all():
        shape = found.shape[1:] if name == "box" else found.shape
        expected = "x1, y1, x2, y2" if name == "box" else "x and y of at least one point, (n, 2)"
        raise InputError(f"{name} has shape {shape}; expected finite numbers: {expected}")
    return found
