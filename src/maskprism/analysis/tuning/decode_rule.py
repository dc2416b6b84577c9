"""Which crop margin and logit threshold draw the best masks: chosen on folds, measured on images that took no part."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from maskprism.analysis.truth.best_coefficients import window_of

if TYPE_CHECKING:
    from jaxtyping import Float, Float64, Int64

    from maskprism.analysis.truth.gains import Change, Gains
    from maskprism.analysis.truth.overlaps import Region
    from maskprism.core.masks import MaskRule
    from maskprism.core.prediction import Prediction

MARGINS = (0.0, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12)
"""Parts of the box that are tried as crop margins."""
LOGITS = (0.0, -1.0, -0.6, -0.3, 0.3, 0.6, 1.0)
"""Logit thresholds that are tried."""


class DecodeSetting(NamedTuple):
    """A crop margin, as a part of the box, and a logit threshold."""

    crop_margin: float
    logit_threshold: float

    def of_rule(self, rule: MaskRule) -> MaskRule:
        """Return the rule with this margin and threshold."""
        return replace(rule, **self._asdict())


def settings_of(rule: MaskRule) -> tuple[DecodeSetting, ...]:
    """Return the settings of a rule to try: the unchanged rule first, then with other margins and thresholds."""
    stock = DecodeSetting(rule.crop_margin, rule.logit_threshold)
    margins = MARGINS if rule.crops else (rule.crop_margin,)
    logits = LOGITS if rule.takes_thresholds else (rule.logit_threshold,)
    return tuple(dict.fromkeys([stock, *(DecodeSetting(*pair) for pair in itertools.product(margins, logits))]))


def setting_ious(prediction: Prediction, targets: Sequence[Region], rule: MaskRule) -> Float64[np.ndarray, "S N"]:
    """Return the mask IoU of every instance with its ground truth on the letterboxed input, under each setting."""
    settings = settings_of(rule)
    levels = [setting.of_rule(rule).threshold for setting in settings]
    found = np.zeros((len(settings), len(targets)))
    for margin in dict.fromkeys(setting.crop_margin for setting in settings):
        members = [i for i, setting in enumerate(settings) if setting.crop_margin == margin]
        wide = replace(prediction, rule=replace(rule, crop_margin=margin))
        for column, (patch, target) in enumerate(zip(wide.patches("canvas"), targets, strict=True)):
            within, area = window_of(target, patch.rows, patch.columns), target.area
            for i in members:
                mask = patch.values > levels[i]
                shared = int(np.count_nonzero(mask & within))
                found[i, column] = shared / max(int(np.count_nonzero(mask)) + area - shared, 1)
    return found


@dataclass(frozen=True, eq=False)
class DecodeRuleChoice:
    """The setting that draws the best masks over all folds, and what the choice gains on images that took no part.

    Parameters
    ----------
    rule
        The rule of the model.
    setting
        Chosen on all images.
    of_folds
        Chosen for each fold on the others.
    gains
        Mask IoU under the rule of the model, and under the setting of the fold's others.
    """

    rule: MaskRule
    setting: DecodeSetting
    of_folds: tuple[DecodeSetting, ...]
    gains: Gains

    @property
    def change(self) -> Change:
        """Over all matched instances."""
        return self.gains.change

    @cached_property
    def helps(self) -> bool:
        """Whether another setting was chosen and the interval of its gain lies above zero."""
        return self.setting.of_rule(self.rule) != self.rule and self.change.gain.low > 0

    @property
    def chosen(self) -> MaskRule:
        """The rule that masks should be drawn with: another one only where it helps."""
        return self.setting.of_rule(self.rule) if self.helps else self.rule


def choose_decode_rule(
    rule: MaskRule,
    gains: Gains,
    folds: Int64[np.ndarray, " N"],
    plain: Float[np.ndarray, "S N"],
    corrected: Float[np.ndarray, "S N"],
) -> DecodeRuleChoice:
    """Choose margin and threshold.

    Parameters
    ----------
    rule
        Of the model.
    gains
        The matched instances.
    folds
        The fold of each.
    plain
        Mask IoU under each setting with unchanged coefficients: no fit has a part in them, so they choose.
    corrected
        The same with the correction that was fitted without the instance's fold: these measure.
    """
    settings = settings_of(rule)
    if not len(folds):
        return DecodeRuleChoice(rule, settings[0], (), gains)
    numbers = np.unique(folds)
    rows = [int(_means(plain[:, folds != number]).argmax()) for number in numbers]
    own = np.array(rows)[np.searchsorted(numbers, folds)]
    measured = replace(gains, before=corrected[0], after=corrected[own, np.arange(len(folds))])
    best = settings[int(_means(plain).argmax())]
    return DecodeRuleChoice(rule, best, tuple(settings[row] for row in rows), measured)


def _means(ious: Float[np.ndarray, "S N"]) -> Float[np.ndarray, " S"]:
    """Return the mean of each setting; all alike where there is no instance, so that the rule stays."""
    return ious.mean(axis=1) if ious.shape[1] else np.zeros(len(ious))
