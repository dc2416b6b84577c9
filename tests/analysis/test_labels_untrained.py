"""The labels that diagnose names: ranked without learning."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from maskprism import load
from maskprism.analysis.dataset.diagnosis import ExaminedImage, examine
from maskprism.analysis.labels.untrained import LabelOutline, most_doubtful
from maskprism.datasets import GroundTruth
from maskprism.datasets.scenes import draw_scene


def label(number: int, *doubts: float) -> LabelOutline:
    return LabelOutline("a.png", number, "cat", 0.5, doubts)


def test_labels_of_higher_mean_rank_come_first() -> None:
    labels = [label(number, number % 7, -number) for number in range(40)]
    shown = most_doubtful(labels)
    assert len(shown) == 4
    order = [
        np.mean([np.mean([other.doubts[place] <= one.doubts[place] for other in labels]) for place in range(2)])
        for one in labels
    ]
    assert set(shown) <= {labels[place] for place in np.argsort(order)[-8:]}


@pytest.mark.parametrize(("number", "shown"), [(0, 0), (9, 0), (10, 1), (500, 10)])
def test_one_of_ten_labels_is_shown_and_ten_at_most(number: int, shown: int) -> None:
    assert len(most_doubtful([label(place, float(place)) for place in range(number)])) == shown


def test_what_cannot_be_measured_is_the_middle() -> None:
    labels = [label(place, float(place), np.nan) for place in range(20)]
    assert [one.label_id for one in most_doubtful(labels)] == [19, 18]


@pytest.mark.study
def test_moved_labels_are_among_them() -> None:
    model = load("sample", conf=0.001, threads=1, multi_label=True)
    examined: list[ExaminedImage] = []
    moved = set()
    for number in range(6):
        scene = draw_scene(800 + number)
        masks = scene.masks.copy()
        masks[0] = np.roll(masks[0], (40, 40), axis=(0, 1))
        moved.add((str(number), 0))
        truth = GroundTruth.of_masks(masks, scene.classes.tolist())
        truth = replace(truth, label_ids=tuple(range(len(truth))))
        examined.append(examine(model.predict(scene.image), truth, str(number), image=scene.image))
    outlines = [one for image in examined for one in image.outlines]
    assert len(outlines) == sum(len(draw_scene(800 + number)) for number in range(6))
    shown = most_doubtful(outlines)
    assert len(shown) >= 3
    assert sum((one.image, one.label_id) in moved for one in shown) >= len(shown) - 1
    assert all(one.reason for one in shown)
