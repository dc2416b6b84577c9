"""The questions about the mask of an instance, and which instance is meant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from maskprism.analysis.instance.mask_window import box_pixels, mask_in_frame
from maskprism.analysis.instance.regions import pixel_query
from maskprism.core.decoding import each_crop
from maskprism.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Bool

    from maskprism.analysis.instance.prototype_roles import RoleOrder
    from maskprism.analysis.instance.shapley_values import Baseline
    from maskprism.analysis.instance.subset_masks import Metric
    from maskprism.core.prediction import Prediction


@dataclass(frozen=True, eq=False)
class Questions:
    """What else to find out about an instance, besides how its mask is made.

    Attributes
    ----------
    at
        A pixel (x, y) of the image: why it is, or is not, in the mask.
    region
        A boolean mask of the image's size: which prototypes act there.
    truth
        The ground-truth mask, of the image's size: which prototypes cause false positives and false negatives; scores
        are then against it.
    attribution
        Knock-outs, sufficient sets, Shapley values and sensitivities too.
    permutations, seed, metric
        Of the Shapley values.
    baseline
        What an absent prototype is there, nothing ("zero") or its mean over the image ("mean").
    rank
        The order of the prototypes in the table and the picture of roles.
    """

    at: tuple[int, int] | None = None
    region: Bool[np.ndarray, "H W"] | None = None
    truth: Bool[np.ndarray, "H W"] | None = None
    attribution: bool = False
    permutations: int = 256
    seed: int = 0
    metric: Metric = "iou"
    baseline: Baseline = "zero"
    rank: RoleOrder = "effect"

    def __bool__(self) -> bool:
        """Whether anything is asked."""
        return self.attribution or any(one is not None for one in (self.at, self.region, self.truth))


def asked_about(prediction: Prediction, questions: Questions) -> int | None:
    """Return the instance that is asked about; None where the questions fit any.

    It is the one with the pixel in its mask, with the largest IoU with the ground-truth mask, or with most of the
    region in its mask; where no mask has any of it, the box decides; of equals, the most confident one. Raises
    InputError where no box has any of it.
    """
    asked = _fits(prediction, questions)
    if asked is None:
        return None
    what, fits = asked
    best = max(range(len(prediction)), key=lambda index: (fits[index], float(prediction.scores[index])), default=None)
    if best is None or not any(fits[best]):
        raise InputError(
            f"{prediction.source or 'image'}: {what} lies in the box of no instance; "
            "choose one with --instance, as numbered in overview.png"
        )
    return best


def _fits(prediction: Prediction, questions: Questions) -> tuple[str, list[tuple[float, float]]] | None:
    """Return the pixel or region of the questions, as text.

    And how much of it every instance has in its mask and box.
    """
    if questions.at is not None:
        queries = [pixel_query(one, *questions.at) for one in prediction]
        return "pixel {},{}".format(*questions.at), [(float(one.in_mask), float(one.in_crop)) for one in queries]
    image, name = (questions.region, "region") if questions.truth is None else (questions.truth, "truth")
    if image is None or not np.any(image):
        return None
    wanted, fits = mask_in_frame(image, prediction.letterbox, "canvas", name), []
    for one, patch in zip(prediction, each_crop(prediction, "canvas"), strict=True):
        mask, part = patch.values, wanted[patch.rows, patch.columns]
        shared = float(np.count_nonzero(mask & part))
        union = np.count_nonzero(mask) + np.count_nonzero(wanted) - shared
        in_box = float(np.count_nonzero(part & box_pixels(one, "canvas", mask.shape)))
        fits.append((shared / union if name == "truth" and union else shared, in_box))
    return "the region" if name == "region" else "the ground-truth mask", fits
