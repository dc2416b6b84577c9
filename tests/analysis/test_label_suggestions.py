"""What is suggested for labels: masks of the image, as JSON has them."""

from __future__ import annotations

import pytest

from maskprism.analysis.labels.study import _as_text


@pytest.mark.parametrize("counts", [b"4", b"40", b""])
def test_a_mask_without_a_pixel_is_no_suggestion(counts: bytes) -> None:
    assert _as_text({"size": [2, 2], "counts": counts}) is None


def test_a_suggestion_is_text() -> None:
    assert _as_text({"size": [2, 2], "counts": b"121"}) == {"size": [2, 2], "counts": "121"}
