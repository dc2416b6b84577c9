"""Several sources as one, and a limited number of their images."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.fake_network import fake_model
from helpers.written_tables import images_of, write_video
from maskprism.errors import ImageError, InputError
from maskprism.io.sources import open_source, open_sources, spread
from maskprism.tables.extraction import extract


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Two folders, of 5 and of 3 images."""
    for folder, count in (("a", 5), ("b", 3)):
        (tmp_path / folder).mkdir()
        for number in range(count):
            picture = np.full((48, 64, 3), 40 * number, dtype=np.uint8)
            (tmp_path / folder / f"{folder}{number}.png").write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    return [tmp_path / "a", tmp_path / "b"]


@given(count=st.integers(0, 200), limit=st.integers(1, 250))
def test_positions_are_spread_evenly(count: int, limit: int) -> None:
    found = spread(count, limit)
    assert len(found) == len(set(found)) == min(count, limit)
    assert found == sorted(found)
    assert set(found) <= set(range(count))
    steps = np.diff(found)
    if len(found) > 1:
        assert (found[0], found[-1]) == (0, count - 1)
        assert steps.max() - steps.min() <= 1


def test_no_limit_takes_all_and_none_is_refused() -> None:
    assert spread(4, None) == [0, 1, 2, 3]
    with pytest.raises(InputError, match="limit is 0; expected at least 1"):
        spread(4, 0)


def test_several_sources_are_one(folders: list[Path], tmp_path: Path) -> None:
    every = open_sources(folders)
    names = [item.name for item in every]
    assert names == [*(f"a{number}.png" for number in range(5)), *(f"b{number}.png" for number in range(3))]
    assert every.count() == 8
    assert [file.name for file in every.files] == names
    assert all(file.is_relative_to(tmp_path.resolve()) for file in every.files)
    assert [item.name for item in open_sources(folders, limit=3)] == ["a0.png", "a4.png", "b2.png"]
    assert [item.name for item in open_sources(folders, limit=1)] == ["a0.png"]
    assert [item.name for item in open_sources(folders, without=folders[1] / "x", limit=8)] == names
    with pytest.raises(ImageError, match="where the results go"):
        open_sources(folders, without=tmp_path, limit=1)
    with pytest.raises(InputError, match="limit is -1"):
        open_sources(folders, limit=-1)


def test_frames_are_spread_too(folders: list[Path], tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.avi", 9)
    few = open_source(clip, limit=3)
    assert few.count() == 3
    names = [f"clip.avi#{number:06d}" for number in (0, 4, 8)]
    assert [item.name for item in few.pending(frozenset())] == names
    assert [item.name for item in few.pending({names[1]})] == [names[0], names[2]]
    assert few.count_done({names[1], "clip.avi#000001"}) == 1
    whole = {item.name: item.read() for item in open_source(clip).pending(frozenset())}
    for item in few.pending(frozenset()):
        np.testing.assert_array_equal(item.read(), whole[item.name])
    mixed = open_sources([folders[1], clip], limit=4)
    assert [item.name for item in mixed] == ["b0.png", "clip.avi#000001", "clip.avi#000004", "clip.avi#000008"]


def test_a_video_that_does_not_tell_its_length_gives_the_first_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = write_video(tmp_path / "clip.avi", 9)
    monkeypatch.setattr("maskprism.io.sources.VideoFile._claimed", lambda video: None)
    assert [item.name for item in open_source(clip, limit=2).pending(frozenset())] == [
        "clip.avi#000000",
        "clip.avi#000001",
    ]


def test_a_video_that_is_cut_short_is_told_with_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = write_video(tmp_path / "clip.avi", 9)
    monkeypatch.setattr("maskprism.io.sources.VideoFile._claimed", lambda video: 100)
    *_, last = open_source(clip, limit=3).pending(frozenset())
    assert isinstance(last.image, ImageError)
    assert "ends after 9 of 100 frames" in str(last.image)
    first = list(open_source(clip, limit=1).pending(frozenset()))  # all that was asked for is there
    assert [item.name for item in first] == ["clip.avi#000000"]


def test_an_extraction_grows_with_its_limit(folders: list[Path], tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    few = extract(folders[0], fake_model(), table, limit=2)
    assert (few.images, few.skipped) == (2, 0)
    rest = extract(folders[0], fake_model(), table)
    assert (rest.images, rest.skipped) == (3, 2)
    assert set(images_of(table)) == {f"a{number}.png" for number in range(5)}
