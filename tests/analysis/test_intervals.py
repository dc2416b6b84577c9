"""Bootstrap intervals over images, and whole files or none."""

import errno
import math

import numpy as np
import pytest

from maskprism._common.files import write_atomically
from maskprism.analysis import intervals
from maskprism.analysis.intervals import MIN_IMAGES, Interval, bootstrap, bootstraps, interval, too_few
from maskprism.errors import MaskprismError


@pytest.mark.parametrize(("n_images", "comparisons"), [(MIN_IMAGES, 1), (60, 1), (MIN_IMAGES, 10), (60, 10)])
def test_intervals_cover_the_true_mean_as_often_as_they_say(n_images, comparisons):
    rng, missed, rounds = np.random.default_rng(5), 0, 300
    for _ in range(rounds):
        image = rng.integers(0, n_images, 6 * n_images)
        values = rng.exponential(1.0, n_images)[image] + rng.normal(0, 1, len(image))  # correlated within an image
        found = interval(values, image, comparisons=comparisons)
        missed += found.excludes(1.0)
    assert missed / rounds <= 0.10 / comparisons + 0.03  # of skewed values, twenty at a time, a little below the level


def test_interval_is_that_of_a_plain_loop_over_resampled_images():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 40, 200)
    values = rng.normal(size=200) + image / 40
    by_image = [values[image == one] for one in np.unique(image)]
    means = [
        np.concatenate([by_image[one] for one in rng.integers(0, len(by_image), len(by_image))]).mean()
        for _ in range(4000)
    ]
    found = interval(values, image)
    assert found.mean == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx(np.quantile(means, [0.022, 0.978]), abs=0.02)


def test_resamples_that_are_kept_are_those_that_would_be_drawn(monkeypatch):
    rng = np.random.default_rng(3)
    values, image = rng.normal(size=200), rng.integers(0, 40, 200)
    first, again = interval(values, image), interval(values, image)
    monkeypatch.setattr(intervals, "_KEPT", 0)
    monkeypatch.setattr(intervals, "_CHUNK", 1000)
    assert first == again == interval(values, image)


def test_names_of_images_are_as_good_as_numbers_and_order_is_nothing():
    values, image = np.arange(12.0), np.repeat(np.arange(4), 3)
    names = np.array(["a", "b", "c", "d"])[image]
    assert interval(values, names) == interval(values, image)


def test_more_comparisons_make_wider_intervals():
    rng = np.random.default_rng(1)
    values, image = rng.normal(size=300), np.repeat(np.arange(30), 10)
    one, many = (interval(values, image, comparisons=number) for number in (1, 50))
    assert many.low < one.low < one.high < many.high


def test_nothing_and_one_image_exclude_nothing():
    for found in (interval(np.zeros(0), []), interval(np.ones(3), [7, 7, 7])):
        assert math.isnan(found.low)
        assert not found.excludes(0.0)
    assert Interval(1.0, 0.5, 1.5).excludes()
    assert not Interval(1.0, -0.5, 1.5).excludes()
    assert too_few(MIN_IMAGES - 1)
    assert not too_few(MIN_IMAGES)


def test_resamples_without_the_statistic_are_left_out():
    def share(weights):
        with np.errstate(invalid="ignore"):
            return weights[:, 0] / (weights[:, 0] + weights[:, 1])

    found = bootstrap(share, 8)
    assert found.mean == 0.5
    assert 0 <= found.low < found.high <= 1


def test_several_statistics_are_those_of_one_after_the_other():
    rng = np.random.default_rng(2)
    values = rng.normal(size=(30, 2))
    both = bootstraps(lambda weights: weights @ values / 30, 30)
    for found, column in zip(both, values.T, strict=True):
        assert found == pytest.approx(bootstrap(lambda weights, column=column: weights @ column / 30, 30))


def test_a_statistic_that_resamples_raise_can_be_centred():
    values = np.random.default_rng(3).normal(size=40)

    def largest(weights):
        return np.where(weights > 0, values, -np.inf).max(axis=1)[:, None] + weights.max(axis=1)[:, None]

    (raised,), (centred,) = (bootstraps(largest, 40, centred=how) for how in (False, True))
    assert centred.mean == raised.mean < raised.low
    assert centred.low < centred.mean < centred.high
    assert centred.high - centred.low == pytest.approx(raised.high - raised.low)


@pytest.mark.parametrize("n_images", [2, 3, 4])
def test_very_few_images_have_wide_intervals_that_end(n_images):
    values = np.arange(n_images, dtype=np.float64)
    found = interval(values, np.arange(n_images), comparisons=3)
    assert (found.low, found.high) == (0, n_images - 1)  # of every resample


def test_plain_text_has_ends_only_where_there_are_some():
    assert Interval(0.3321, 0.2944, 0.3732).plain() == "0.332 (0.294 to 0.373)"
    assert Interval(-0.0001, -0.0421, math.nan).negated().plain(2) == "0.00"
    assert Interval(0.004, -0.042, 0.051).negated().plain() == "−0.004 (−0.051 to 0.042)"


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    target = tmp_path / "new" / "report.html"
    assert write_atomically(target, "ä\n").read_bytes() == b"\xc3\xa4\n"

    def half(partial):
        assert partial.suffix == ".html"
        partial.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(MaskprismError, match=r"report.html: cannot be written \(No space left on device\)"):
        write_atomically(target, half)
    assert target.read_text(encoding="utf-8") == "ä\n"
    assert [path.name for path in target.parent.iterdir()] == ["report.html"]
    with pytest.raises(MaskprismError, match="cannot be written"):
        write_atomically(target / "below", b"x")
