"""Of which kind prototypes are, over the images of a page."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

import maskprism
from maskprism.analysis.intervals import MIN_IMAGES
from maskprism.analysis.prototypes.positional import DependenceStudy
from maskprism.datasets.scenes import draw_scene
from maskprism.viewer.page import Page
from maskprism.viewer.prototype_tags import Kinds


@pytest.fixture(scope="module")
def seen() -> list[tuple[np.ndarray, maskprism.Prediction]]:
    model = maskprism.load("sample")
    images = [draw_scene(seed).image for seed in range(MIN_IMAGES)]
    return [(image, model.predict(image)) for image in images]


def test_kinds_are_those_of_the_study(seen: list[tuple[np.ndarray, maskprism.Prediction]]) -> None:
    kinds, study = Kinds(), DependenceStudy(32, seen[0][1].names, top=1)
    for image, prediction in seen[:-1]:
        kinds.add(image, prediction)
        study.update(image, prediction)
    assert kinds.found() is None  # too few
    kinds.add(*seen[-1])
    study.update(*seen[-1])
    found, expected = kinds.found(), study.compute()
    assert found is not None
    assert found["images"] == MIN_IMAGES
    assert found["tags"] == [list(expected.tags(k)) for k in range(32)]
    assert any(found["tags"])


def test_pages_say_kinds_of_enough_images(seen: list[tuple[np.ndarray, maskprism.Prediction]]) -> None:
    page = Page()
    for image, prediction in seen:
        page.add(image, prediction)
        index = re.search(r'id="maskprism-scenes">(.*?)</script>', page.html())
        assert index
        kinds = json.loads(index[1])["kinds"]
        assert (kinds is not None) == (len(page) >= MIN_IMAGES)
    other = maskprism.from_arrays(
        seen[0][0], np.ones((1, 3), np.float32), np.ones((3, 20, 20), np.float32), preprocessing="yolo"
    )
    page.add(seen[0][0], other)  # of another model
    assert '"kinds": null' in page.html()
