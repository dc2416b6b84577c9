"""Corrupted copies of labels."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskprism.analysis.labels.corruption import CORRUPTIONS, MIN_PIXELS, Corruption, corrupt, halves, jittered
from maskprism.analysis.truth.overlaps import Region

SIDE = 96
CONTENT = (slice(8, 88), slice(0, SIDE))


@st.composite
def labels(draw: st.DrawFn) -> Region:
    """One or two ellipses inside the image, perhaps with a hole."""
    mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
    for _ in range(draw(st.integers(1, 2))):
        centre = draw(st.tuples(st.integers(5, 90), st.integers(12, 84)))
        cv2.ellipse(mask, (centre, draw(st.tuples(*[st.integers(3, 60)] * 2)), draw(st.integers(0, 179))), 1, -1)
    if draw(st.booleans()):
        cv2.circle(mask, centre, 2, 0, -1)
    mask[: CONTENT[0].start] = mask[CONTENT[0].stop :] = 0
    return Region.of(mask > 0)


def whole(region: Region) -> np.ndarray:
    """The mask in its frame."""
    frame = np.zeros((SIDE, SIDE), dtype=bool)
    frame[region.rows, region.columns] = region.inside
    return frame


@settings(max_examples=60)
@given(label=labels(), neighbour=labels(), seed=st.integers(0, 2**32 - 1))
@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_a_corrupted_copy_is_another_mask_of_the_image(
    kind: Corruption, label: Region, neighbour: Region, seed: int
) -> None:
    orders = (label._replace(inside=np.asarray(label.inside, order=order)) for order in ("C", "F"))  # "F": of RLE
    first, again = (corrupt(one, kind, [neighbour], CONTENT, np.random.default_rng(seed)) for one in orders)
    if first is None:
        assert again is None
        return
    assert again is not None
    np.testing.assert_array_equal(whole(first), whole(again))  # the seed decides
    outside = np.ones((SIDE, SIDE), dtype=bool)
    outside[CONTENT] = False
    assert not whole(first)[outside].any()
    assert first.area == np.count_nonzero(whole(first)) >= MIN_PIXELS
    assert (whole(first) != whole(label)).any()
    if kind in ("too large", "merged", "filled box"):
        assert (whole(first) >= whole(label)).all()
    if kind in ("too small", "cut off", "hole"):
        assert (whole(first) <= whole(label)).all()


@settings(max_examples=60)
@given(label=labels(), seed=st.integers(0, 2**32 - 1))
def test_halves_are_a_partition(label: Region, seed: int) -> None:
    both = halves(label, np.random.default_rng(seed))
    if both is not None:
        first, second = map(whole, both)
        assert min(first.sum(), second.sum()) >= MIN_PIXELS
        assert not (first & second).any()
        np.testing.assert_array_equal(first | second, whole(label))


@settings(max_examples=60)
@given(label=labels().filter(lambda label: label.area >= MIN_PIXELS), seed=st.integers(0, 2**32 - 1))
def test_duplicates_overlap(label: Region, seed: int) -> None:
    again = jittered(label, CONTENT, np.random.default_rng(seed))
    assert again is not None
    assert again.iou_with(label) > 0.2


def test_labels_of_few_pixels_have_no_corrupted_copy() -> None:
    tiny = Region(slice(20, 25), slice(20, 25), np.ones((5, 5), dtype=bool))
    assert all(corrupt(tiny, kind, [tiny], CONTENT, np.random.default_rng(0)) is None for kind in CORRUPTIONS)


def test_most_mistakes_can_be_made_in_an_ordinary_label() -> None:
    label = Region.of(cv2.ellipse(np.zeros((SIDE, SIDE), np.uint8), ((40, 45), (40, 24), 30), 1, -1) > 0)
    other = Region.of(cv2.circle(np.zeros((SIDE, SIDE), np.uint8), (75, 60), 9, 1, -1) > 0)
    for kind in CORRUPTIONS:
        assert corrupt(label, kind, [other], CONTENT, np.random.default_rng(3)) is not None, kind
    assert corrupt(label, "merged", [], CONTENT, np.random.default_rng(3)) is None
