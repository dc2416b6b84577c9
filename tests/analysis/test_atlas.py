"""The atlas: against definitions written out, planted structure, and tables of every kind."""

from __future__ import annotations

import json
import os
import sys
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from helpers import reference_atlas as slow
from helpers.fake_network import fake_model, write_images
from helpers.in_process import command as run
from helpers.undrawn import without_drawing
from maskprism.analysis.atlas.atlas import make_atlas, moments_of
from maskprism.analysis.atlas.class_signatures import false_discovery_rates, signatures
from maskprism.analysis.atlas.clustering import clusters
from maskprism.analysis.atlas.findings import findings_of
from maskprism.analysis.atlas.groups import means
from maskprism.analysis.atlas.mask_quality import judged
from maskprism.analysis.atlas.near_duplicates import NEAR, duplicates
from maskprism.analysis.atlas.outlier_search import outliers
from maskprism.analysis.atlas.points import Points
from maskprism.analysis.atlas.projection import Components
from maskprism.analysis.atlas.rank_correlation import dependence, sample
from maskprism.analysis.truth.error_budget import budgets
from maskprism.analysis.truth.labels import open_labels
from maskprism.datasets.scenes import write_dataset
from maskprism.drawing.atlas import value_counts
from maskprism.drawing.map_payload import UNKNOWN, MapLayout, map_data
from maskprism.errors import MaskprismError, MissingExtraError, TableError
from maskprism.models import load
from maskprism.reports.atlas_files import write_atlas
from maskprism.reports.atlas_map import map_page
from maskprism.reports.map_thumbnails import thumbnails
from maskprism.tables.extraction import extract
from maskprism.tables.instance_rows import LOSSES, InstanceRows
from maskprism.tables.stored_predictions import StoredPredictions
from maskprism.tables.table import CoefficientTable

RNG = np.random.default_rng(7)


def some_points(n: int = 300, k: int = 6, classes: int = 3, *, seed: int = 0, **more: Any) -> Points:
    """Instances whose coefficients 0 and 1 know the class and the place, the others nothing."""
    rng = np.random.default_rng(seed)
    of_class = rng.choice(classes, n, p=np.arange(classes, 0, -1) / np.arange(1, classes + 1).sum()).astype(np.int32)
    x = rng.random(n).astype(np.float32)
    matrix = rng.normal(size=(n, k)).astype(np.float32)
    matrix[:, 0] += 4 * of_class
    matrix[:, 1] += 6 * x
    rows = {
        "image": [f"{i // 5}.jpg" for i in range(n)],
        "class_name": [f"class {c}" for c in of_class],
        "score": rng.random(n).astype(np.float32),
        "x1": x * 90,
        "y1": rng.random(n).astype(np.float32) * 50,
        "x2": x * 90 + 10,
        "y2": np.full(n, 60, np.float32),
        "image_width": np.full(n, 100, np.int32),
        "image_height": np.full(n, 60, np.int32),
        "coefficients": pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), k),
    }
    return Points.of(InstanceRows([pa.table(rows | more)], "some"))


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A data set of scenes, and the table of them with prototypes."""
    folder = tmp_path_factory.mktemp("atlas")
    data = write_dataset(folder / "scenes", 6, seed=3, validation_share=1.0)
    extract(folder / "scenes", load("sample", threads=1), folder / "t.parquet", prototypes="fp16")
    return data, folder / "t.parquet"


def test_points_of_a_table_of_extract(extracted: tuple[Path, Path]) -> None:
    points, table = Points.read(extracted[1]), CoefficientTable.read(extracted[1])
    np.testing.assert_array_equal(points.coefficients, table.coefficients)
    rows = table.arrow.to_pylist()
    for i, row in enumerate(rows):
        assert points.name_of(i) == (row["image"], row["instance"])
        assert points.class_names[points.classes[i]] == row["class_name"]
        side = np.sqrt((row["x2"] - row["x1"]) * (row["y2"] - row["y1"]))
        middle = (row["x1"] + row["x2"]) / 2 / row["image_width"]
        shown = [float(points.numbers[name][i]) for name in ("score", "size", "x")]
        np.testing.assert_allclose(shown, [row["score"], side, middle], rtol=1e-5)
    counts = np.bincount(points.classes)
    assert points.relative
    assert list(counts) == sorted(counts, reverse=True)


def test_one_table_in_all_formats_gives_the_same_points(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 7)
    found = []
    for name in ("t.parquet", "t.csv", "folder"):
        extract(tmp_path / "images", fake_model(), tmp_path / name)
        found.append(Points.read(tmp_path / name))
    for one in found:
        np.testing.assert_array_equal(one.coefficients, found[0].coefficients)
        np.testing.assert_array_equal(one.numbers["score"], found[0].numbers["score"])
        assert one.class_names == found[0].class_names
        assert one.image_names == found[0].image_names


def test_points_of_the_csv_of_the_first_commands(tmp_path: Path) -> None:
    (tmp_path / "mask_coefficients.csv").write_text(
        "image_name,type,mask_1,mask_2\na.jpg,x,1,-2\na.jpg,x,3,4\nb.jpg,x,5,0.5\n", encoding="utf-8"
    )
    points = Points.read(tmp_path / "mask_coefficients.csv")
    np.testing.assert_array_equal(points.coefficients, [[1, -2], [3, 4], [5, 0.5]])
    assert points.labels == ("mask_1", "mask_2")
    assert points.class_names == ("all",)
    assert [points.name_of(i) for i in range(3)] == [("a.jpg", 0), ("a.jpg", 1), ("b.jpg", 0)]
    assert not points.numbers


def test_rows_without_coefficients_are_no_points() -> None:
    lists = pa.array([[1.0, 2.0], None, [3.0, float("nan")], [5.0, 6.0]], pa.list_(pa.float64()))
    rows = pa.table({"mask_coefficients": lists, "iou": [0.5, None, 0.1, None], "coefficients": [0.1, None, 0.2, 0.3]})
    points = Points.of(InstanceRows([rows], "rows"))
    np.testing.assert_array_equal(points.coefficients, [[1, 2], [5, 6]])
    np.testing.assert_array_equal(points.numbers["iou"], np.array([0.5, np.nan], np.float32))
    np.testing.assert_allclose(points.numbers["coefficients"], [0.1, 0.3], rtol=1e-6)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"image": ["a"], "score": [0.5]}, "has no coefficients; expected a column of lists"),
        ({"coefficients": pa.array([[1.0], [1.0, 2.0]])}, "has instances with 1, 2 coefficients each"),
        ({"mask_0": ["red"]}, "the column mask_0 holds string; expected numbers"),
        ({"mask_0": [1.0], "score": ["high"]}, "the column score holds string"),
        ({"mask_0": pa.array([None], pa.float32())}, "holds no instance with coefficients"),
        ({"mask_0": pa.array([], pa.float32())}, "holds no instance with coefficients"),
    ],
)
def test_tables_of_something_else_are_refused(columns: dict[str, Any], said: str) -> None:
    with pytest.raises(TableError, match=said):
        Points.of(InstanceRows([pa.table(columns)], "rows"))


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.txt", "folder"])
def test_damaged_and_missing_files_are_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(TableError, match=name):
        Points.read(tmp_path / name)
    if name != "folder":
        (tmp_path / name).write_bytes(b"PAR1\x00\xff,,\n1")
        with pytest.raises(TableError, match=name):
            Points.read(tmp_path / name)


@given(st.integers(12, 60), st.integers(1, 12), st.integers(2, 4), st.integers(0, 99))
def test_signatures_are_those_of_the_definition(n: int, k: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, count, n).astype(np.int32)
    images = rng.integers(0, n // 4, n).astype(np.int32)
    matrix = (rng.normal(size=(n, k)) + classes[:, None] * rng.normal(size=k)).astype(np.float32)
    found = signatures(matrix, classes, count, images)
    raw: list[float] = []
    for c in range(count):
        size, held = int((classes == c).sum()), len(np.unique(images[classes == c]))
        assert (found.counts[c], found.images[c]) == (size, held)
        for j in range(k):
            if size < 5 or n - size < 5:
                assert np.isnan(found.effect[c, j])
                continue
            expected = slow.signature(matrix, classes, images, c, j)
            for name in ("mean", "effect", "error"):
                if name != "error" or np.isfinite(found.p[c, j]):
                    assert getattr(found, name)[c, j] == pytest.approx(expected[name], rel=1e-5, abs=1e-6)
            if np.isfinite(found.p[c, j]):
                raw.append(expected["p"])
            else:
                assert held < 2 or len(np.unique(images[classes != c])) < 2
    np.testing.assert_allclose(found.p[np.isfinite(found.p)], slow.adjusted(raw), rtol=1e-4, atol=1e-12)
    for j in range(k):
        assert found.shares[j] == pytest.approx(slow.share_between(matrix[:, j], classes), abs=1e-6)


def test_constant_coefficients_and_a_single_class_have_no_effects() -> None:
    matrix = np.ones((20, 2), np.float32)
    images = np.arange(20, dtype=np.int32)
    one = signatures(matrix, np.zeros(20, np.int32), 1, images)
    assert np.isnan(one.effect).all()
    assert np.isnan(one.shares).all()
    two = signatures(matrix, np.repeat([0, 1], 10).astype(np.int32), 2, images)
    assert np.isnan(two.effect).all()
    np.testing.assert_allclose(two.mean, 1)
    assert np.isnan(false_discovery_rates(np.full((2, 2), np.nan))).all()


@given(st.lists(st.one_of(st.floats(0, 1), st.just(float("nan"))), max_size=30))
def test_false_discovery_rates_are_those_of_the_paper(p: list[float]) -> None:
    found = false_discovery_rates(np.array(p, dtype=np.float64))
    known = [one for one in p if one == one]
    np.testing.assert_allclose([one for one in found if one == one], slow.adjusted(known), atol=1e-12)
    assert [one != one for one in found] == [one != one for one in p]


def test_dependence_is_spearmans() -> None:
    points = some_points()
    numbers = {**points.numbers, "iou": np.where(RNG.random(300) < 0.3, np.nan, RNG.random(300)).astype(np.float32)}
    numbers["score"] = np.round(numbers["score"], 1)  # with ties
    found = dependence(points.coefficients, numbers, points.images)
    raw = []
    for row, values in enumerate(numbers.values()):
        known = np.isfinite(values)
        for k in range(6):
            expected = stats.spearmanr(values[known], points.coefficients[known, k]).statistic
            rho, p = slow.correlation(values[known], points.coefficients[known, k], points.images[known])
            assert found.rho[row, k] == pytest.approx(expected, abs=1e-9)
            assert rho == pytest.approx(expected, abs=1e-9)
            raw.append(p)
    np.testing.assert_allclose(found.p.reshape(-1), slow.adjusted(raw), rtol=1e-6)
    assert found.names == tuple(numbers)
    few = {"iou": np.full(300, np.nan, np.float32), "x": np.ones(300, np.float32)}
    assert np.isnan(dependence(points.coefficients, few, points.images).rho).all()


def test_samples_are_whole_or_drawn_without_repetition() -> None:
    np.testing.assert_array_equal(sample(5, 9, 0), range(5))
    drawn = sample(1000, 50, 3)
    assert len(set(drawn.tolist())) == 50
    assert (np.diff(drawn) > 0).all()
    np.testing.assert_array_equal(drawn, sample(1000, 50, 3))


def test_planted_kinds_are_found_and_a_class_of_one_kind_stays_whole() -> None:
    rng = np.random.default_rng(1)
    matrix = rng.normal(size=(400, 5)).astype(np.float32)
    classes = np.repeat([0, 1, 2], [250, 120, 30]).astype(np.int32)
    kind = (np.arange(400) % 5 == 0) & (classes == 0)
    matrix[kind] += 9
    matrix[390:] += 30  # of a class that is too small to tell
    found = clusters(matrix, classes, 3, np.arange(400, dtype=np.int32))
    np.testing.assert_array_equal(found.numbers, kind.astype(int))
    assert [(one.of_class, one.number, one.instances) for one in found.found] == [(0, 0, 200), (0, 1, 50)]
    assert set(found.silhouettes) == {0}
    for one in found.found:
        members = matrix[(classes == 0) & (found.numbers == one.number)]
        np.testing.assert_allclose(one.centre, members.mean(axis=0), rtol=1e-5)
        assert (
            np.linalg.norm(matrix[one.example] - one.centre)
            <= np.linalg.norm(members - one.centre, axis=1).min() + 0.05
        )


@pytest.mark.parametrize("matrix", [np.zeros((90, 3)), np.repeat(np.eye(3), 30, axis=0), np.eye(90, 3)])
def test_equal_instances_make_no_kinds(matrix: Any) -> None:
    found = clusters(matrix.astype(np.float32), np.zeros(90, np.int32), 1, np.arange(90, dtype=np.int32))
    assert not found.numbers.any()
    assert not found.found


def continuum(name: str, n: int, k: int, rng: np.random.Generator) -> Any:
    """Instances without groups: one normal distribution, and sizes or directions that go evenly from one to another."""
    matrix, part = rng.normal(size=(n, k)), rng.random(n)
    if name == "cube":
        return rng.random((n, k))
    if name == "heavy tails":
        return rng.standard_t(3, size=(n, k))
    if name == "skewed":
        return np.exp(matrix)
    if name == "line":
        matrix[:, 0] += 30 * part
    elif name == "thin line":
        matrix = 0.01 * matrix
        matrix[:, 0] += part
    elif name == "banana":
        matrix[:, 0] *= 8
        matrix[:, 1] += matrix[:, 0] ** 2 / 6
    elif name != "normal":
        turn = {"arc": np.pi, "ring": 2 * np.pi, "horseshoe": 5.5}[name] * part
        matrix[:, 0] += 15 * np.cos(turn)
        matrix[:, 1] += 15 * np.sin(turn)
    return matrix


@pytest.mark.study
@pytest.mark.parametrize(
    "name", ["normal", "cube", "heavy tails", "skewed", "line", "thin line", "banana", "arc", "ring", "horseshoe"]
)
@pytest.mark.parametrize(("n", "k"), [(120, 2), (300, 32), (1500, 3)])
def test_continua_have_no_kinds(name: str, n: int, k: int) -> None:
    """k-means splits each of them, with silhouettes up to 0.6."""
    for seed in range(4):
        matrix = continuum(name, n, k, np.random.default_rng(seed)).astype(np.float32)
        assert not clusters(matrix, np.zeros(n, np.int32), 1, np.arange(n, dtype=np.int32)).found


@pytest.mark.parametrize(("n", "k"), [(300, 2), (600, 32)])
def test_three_kinds_are_three(n: int, k: int) -> None:
    matrix = np.random.default_rng(1).normal(size=(n, k)).astype(np.float32)
    kind = np.arange(n) % 3
    matrix[kind == 1, 0] += 15
    matrix[kind == 2, 1] += 15
    found = clusters(matrix, np.zeros(n, np.int32), 1, np.arange(n, dtype=np.int32))
    assert len(found.found) == 3
    assert len(set(zip(kind.tolist(), found.numbers.tolist(), strict=True))) == 3


def test_kinds_that_are_images_are_none() -> None:
    """Two images with 150 instances each: they differ as two images do."""
    matrix = np.random.default_rng(1).normal(size=(300, 4)).astype(np.float32)
    images = (np.arange(300) >= 150).astype(np.int32)
    matrix[images == 1] += 20
    assert not clusters(matrix, np.zeros(300, np.int32), 1, images).found


def test_outliers_stand_apart_from_their_own_class() -> None:
    rng = np.random.default_rng(2)
    classes = np.repeat([0, 1], 150).astype(np.int32)
    matrix = rng.normal(size=(300, 4)).astype(np.float32) + 20 * classes[:, None]
    matrix[7] = 20  # in the middle of the other class
    matrix[200, 2] -= 15
    found = outliers(matrix, classes, 2)
    assert set(np.argsort(-found)[:2]) == {7, 200}
    # A distance does not change with the unit of a coefficient.
    scaled = outliers(matrix * np.float32([1, 100, 0.01, -5]), classes, 2)
    np.testing.assert_allclose(scaled, found, rtol=0.02)


def test_outliers_of_too_few_and_of_constant_coefficients() -> None:
    assert np.isnan(outliers(np.ones((5, 4), np.float32), np.zeros(5, np.int32), 1)).all()
    assert np.isnan(outliers(np.ones((60, 4), np.float32), np.zeros(60, np.int32), 1)).all()
    matrix = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    matrix[:, 1] = 4
    found = outliers(matrix, np.zeros(100, np.int32), 1)
    assert np.isfinite(found).all()
    assert 0.5 < np.median(found) < 3


@given(st.integers(2, 60), st.integers(1, 12), st.integers(0, 99))
def test_near_duplicates_are_all_found(n: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(n, k)).astype(np.float32)
    for source, target in rng.integers(0, n, (4, 2)):
        matrix[target] = matrix[source] + rng.choice([0, 1e-4]) * rng.normal(size=k)
    images = rng.integers(0, 5, n).astype(np.int32)
    found = duplicates(matrix, moments_of(matrix), images)
    expected = slow.groups(slow.near_pairs(matrix, NEAR), n)
    assert {frozenset(np.flatnonzero(found.numbers == g).tolist()) for g in range(len(found.groups))} == expected
    assert set(np.flatnonzero(found.numbers >= 0)) == set().union(*expected)
    for number, group in enumerate(found.groups):
        members = np.flatnonzero(found.numbers == number)
        assert {group.first, group.second} <= set(members.tolist())
        assert (group.instances, group.images) == (len(members), len(np.unique(images[members])))
        assert group.first != group.second
        assert (images[group.first] != images[group.second]) == (group.images > 1)


def test_groups_of_video_frames_are_found_whole() -> None:
    """20 groups of 12 frames have 1,320 pairs: each frame has more near duplicates than a few neighbours."""
    rng = np.random.default_rng(3)
    frames = np.repeat(rng.normal(size=(20, 32)), 12, axis=0) + 0.005 * rng.normal(size=(240, 32))
    matrix = np.concatenate([frames, rng.normal(size=(400, 32))]).astype(np.float32)[rng.permutation(640)]
    assert len(slow.near_pairs(matrix, NEAR)) == 1320
    found = duplicates(matrix, moments_of(matrix), np.arange(640, dtype=np.int32))
    assert [(group.instances, group.images) for group in found.groups] == [(12, 12)] * 20
    assert found.instances == 240


def test_a_chain_of_near_duplicates_is_one_group() -> None:
    """Its ends are far apart; leaders of the search are linked by what lies between them."""
    matrix = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)
    matrix[:200] = [5, 5, 5]
    matrix[:200, 0] += np.linspace(0, 2, 200)
    found = duplicates(matrix, moments_of(matrix), np.arange(300, dtype=np.int32))
    assert found.groups[0].instances == 200
    assert {frozenset(np.flatnonzero(found.numbers == g).tolist()) for g in range(len(found.groups))} == slow.groups(
        slow.near_pairs(matrix, NEAR), 300
    )


def test_many_equal_instances_are_one_group() -> None:
    matrix = np.zeros((5000, 3), np.float32)
    matrix[0] = 1
    matrix[1::2] = -0.0  # equals 0
    found = duplicates(matrix, moments_of(matrix), np.zeros(5000, np.int32))
    assert found.groups == ((1, 2, 0.0, 4999, 1),)
    assert found.numbers[0] == -1
    assert set(found.numbers[1:]) == {0}
    ones = np.ones((9, 3), np.float32)
    assert not duplicates(ones, moments_of(ones), np.zeros(9, np.int32)).groups


@given(st.integers(3, 40), st.integers(1, 7), st.integers(0, 99))
def test_components_are_those_of_the_singular_values(n: int, k: int, seed: int) -> None:
    matrix = np.random.default_rng(seed).normal(size=(n, k)).astype(np.float32)
    found = Components.of(moments_of(matrix))
    centred = matrix - matrix.mean(axis=0)
    _, values, directions = np.linalg.svd(centred.astype(float), full_matrices=False)
    places = found.places(matrix)
    np.testing.assert_allclose(found.shares[0], values[0] ** 2 / (values**2).sum(), rtol=1e-4)
    for axis in range(min(2, len(values), k)):
        expected = centred @ directions[axis]
        gap = (
            np.abs(np.diff(np.append(values, 0)))[axis - 1 : axis + 1]
            if axis
            else np.abs(np.diff(np.append(values, 0)))[:1]
        )
        if gap.min() > 0.1:  # else the two may be turned
            np.testing.assert_allclose(np.abs(places[:, axis]), np.abs(expected), atol=2e-3)


@given(st.lists(st.tuples(st.one_of(st.floats(-9, 9), st.just(float("nan"))), st.integers(0, 3)), max_size=30))
def test_means_over_groups(pairs: list[tuple[float, int]]) -> None:
    values = np.array([value for value, _ in pairs], dtype=np.float32)
    groups = np.array([group for _, group in pairs], dtype=np.int32)
    found = means(values, groups, 4)
    for group in range(4):
        own = [value for value in values[groups == group] if value == value]
        assert found.known[group] == len(own)
        np.testing.assert_allclose(found.mean[group], np.mean(own) if own else np.nan, atol=1e-6)


def test_counts_are_those_of_a_histogram() -> None:
    matrix = (np.random.default_rng(4).normal(size=(70_000, 3)) * 2).astype(np.float32)
    found = value_counts(matrix, 3.0)
    edges = np.linspace(-3, 3, found.shape[1] + 1)
    for k in range(3):
        expected = np.histogram(np.clip(matrix[:, k], -3, 3), edges)[0]
        assert np.abs(found[k] - expected).sum() <= 8  # values on an edge
        assert found[k].sum() == 70_000


def test_an_atlas_says_what_is_planted() -> None:
    points = some_points(900)
    atlas = make_atlas(points)
    said = " ".join(findings_of(atlas))
    assert "tells 2 of 3 classes" in said  # the third lies in the middle
    assert "How far right the box is goes with 1 coefficient, most of all 1 (rank correlation +0.88" in said
    assert len(atlas.notable(50)) == 50
    assert len(set(atlas.notable(2000).tolist())) == 900


def test_the_worst_class_and_kind_are_named() -> None:
    rng = np.random.default_rng(0)
    points = some_points(600, iou=rng.uniform(0.8, 1, 600))
    bad = points.classes == 2
    points.numbers["iou"][bad] -= 0.5
    said = " ".join(findings_of(make_atlas(points)))
    assert "Masks are worst in class 2" in said


CLAIMS = ("tells", "goes with", "kinds", "Masks are worst", "drawn worse")


def of_many_classes(seed: int) -> Points:
    """444 instances of 30 classes in 74 images, which differ in light and scene; IoU with a long tail of bad masks."""
    rng = np.random.default_rng(seed)
    images = np.repeat(np.arange(74), 6)
    matrix = rng.standard_t(4, size=(444, 8)) + rng.normal(size=(74, 8))[images]
    box = rng.random((444, 2)) * 40 + 20 * rng.random((74, 2))[images]
    columns = {
        "image": [f"{one}.jpg" for one in images],
        "class_name": [f"class {c}" for c in rng.choice(30, 444, p=np.arange(30, 0, -1) / 465)],
        "iou": 1 - rng.beta(1, 4, 444),
        "coefficients": matrix.tolist(),
        "x1": box[:, 0],
        "y1": box[:, 1],
        "x2": box[:, 0] + 9 + 30 * rng.random(444),
        "y2": box[:, 1] + 20,
    }
    return Points.of(InstanceRows([pa.table(columns)], "many"))


def claims_of_shuffles(shuffle: Any) -> list[str]:
    """What is claimed of 80 data sets in which nothing is to be found."""
    points = of_many_classes(0)
    atlas = make_atlas(points)
    found = []
    for seed in range(80):
        shuffled = shuffle(points, np.random.default_rng(seed))
        count, c = len(shuffled.class_names), shuffled.coefficients
        other = replace(
            atlas,
            points=shuffled,
            signatures=signatures(c, shuffled.classes, count, shuffled.images),
            dependence=dependence(c, shuffled.numbers, shuffled.images),
            clusters=clusters(c, shuffled.classes, count, shuffled.images),
        )
        claims = [one for one in findings_of(other) if any(claim in one for claim in CLAIMS)]
        found += claims[:1]
    return found


def test_shuffled_quality_is_not_claimed_to_depend_on_anything() -> None:
    def shuffle(points: Points, rng: np.random.Generator) -> Points:
        iou = points.numbers["iou"]
        return replace(points, numbers={**points.numbers, "iou": iou[rng.permutation(len(iou))]})

    assert len(claims_of_shuffles(shuffle)) <= 4


def test_classes_dealt_to_whole_images_are_not_told_apart() -> None:
    """Instances of one image are alike: with instances as the unit, classes would seem to differ."""

    def shuffle(points: Points, rng: np.random.Generator) -> Points:
        return replace(
            points, classes=rng.integers(0, 6, 74).astype(np.int32)[points.images], class_names=tuple("abcdef")
        )

    assert len(claims_of_shuffles(shuffle)) <= 4


def test_boxes_of_other_images_go_with_nothing() -> None:
    def shuffle(points: Points, rng: np.random.Generator) -> Points:
        order = np.argsort(rng.permutation(74)[points.images], kind="stable")
        return replace(points, numbers={name: values[order] for name, values in points.numbers.items()})

    assert len(claims_of_shuffles(shuffle)) <= 4


def test_nothing_is_claimed_of_few_images() -> None:
    said = findings_of(make_atlas(some_points(95)))  # 19 images, whose classes differ
    assert "19 images: with fewer than 20 nothing is claimed" in said[1]
    assert not [one for one in said[2:] if any(claim in one for claim in CLAIMS)]


def test_tables_without_variation_say_so(tmp_path: Path) -> None:
    matrix = np.ones((60, 8), np.float32)
    columns = {"image": [f"{i}.jpg" for i in range(60)], "class_name": ["a", "b"] * 30}
    rows = pa.table(columns | {f"mask_{k}": matrix[:, k] for k in range(8)})
    pq.write_table(rows, tmp_path / "t.parquet")
    done = run("atlas", tmp_path / "t.parquet", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "All 60 instances have the same coefficients: there is no variation" in done.stdout
    assert "there is no variation" in (tmp_path / "out" / "atlas.html").read_text(encoding="utf-8")


@pytest.mark.usefixtures("undrawn")
def test_one_table_has_one_effective_rank(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"mask_0": [1.0, 2.0, 4.0, 9.0], "mask_1": [50.0, 51.0, 49.0, 50.0]}), tmp_path / "t.parquet"
    )
    answers = [
        json.loads(run(*command, "--out", tmp_path / command[0], "--json").stdout)["effective_rank"]
        for command in (("atlas", tmp_path / "t.parquet"), ("basis", "--table", tmp_path / "t.parquet"))
    ]
    assert answers[0] == pytest.approx(answers[1]["coefficients"], rel=1e-9)


@pytest.mark.parametrize("seed", [-1, 1 << 32])
def test_a_seed_that_is_none_is_refused_before_any_work(seed: int, tmp_path: Path) -> None:
    with pytest.raises(MaskprismError, match="seed is"):
        make_atlas(some_points(20), seed=seed)
    done = run("atlas", tmp_path / "none.parquet", "--out", tmp_path / "out", "--seed", str(seed))
    assert done.returncode == 2
    assert "--seed" in done.stderr


@pytest.mark.parametrize("n", [1, 2, 3, 12])
@pytest.mark.parametrize("k", [1, 2, 40])
def test_tiny_atlases_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n: int, k: int) -> None:
    if (n, k) not in {(1, 1), (2, 40), (12, 2)}:  # figures have their smallest shapes there
        without_drawing(monkeypatch)
    matrix = np.random.default_rng(0).normal(size=(n, k)).astype(np.float32)
    points = Points.of(InstanceRows([pa.table({f"mask_{j}": matrix[:, j] for j in range(k)})], "tiny"))
    written = write_atlas(make_atlas(points), tmp_path, "tiny")
    assert all(path.is_file() for path in written)
    assert json.loads((tmp_path / "atlas.json").read_text())["instances"] == n


@pytest.mark.usefixtures("undrawn")
def test_files_of_an_atlas_hold_its_numbers(tmp_path: Path) -> None:
    points = some_points(400, iou=np.linspace(0, 1, 400))
    atlas = make_atlas(points)
    write_atlas(atlas, tmp_path, "some <b>table</b>")
    rows = pq.read_table(tmp_path / "points.parquet")
    np.testing.assert_array_equal(rows["pca_1"], atlas.places[:, 0])
    np.testing.assert_array_equal(rows["kind"], atlas.clusters.numbers)
    np.testing.assert_allclose(rows["iou"], np.linspace(0, 1, 400), rtol=1e-6)
    assert rows["image"].to_pylist() == [points.name_of(i)[0] for i in range(400)]
    classes = pq.read_table(tmp_path / "classes.parquet").to_pylist()
    assert len(classes) == 3 * 6
    assert classes[7]["effect"] == pytest.approx(atlas.signatures.effect[1, 1])
    said = json.loads((tmp_path / "atlas.json").read_text(encoding="utf-8"))
    np.testing.assert_allclose(said["coefficients"]["mean"], points.coefficients.mean(axis=0), atol=1e-5)
    assert said["findings"] == findings_of(atlas)
    page = (tmp_path / "atlas.html").read_text(encoding="utf-8")
    assert "some &lt;b&gt;table&lt;/b&gt;" in page
    assert "<b>table" not in page
    for name in ("map", "truth", "values", "spectrum", "correlation", "signatures", "effects", "dependence"):
        assert f'id="figure-{name}"' in page


def test_columns_of_the_map_read_back() -> None:
    points = some_points(200, iou=[None if i % 3 else i / 200 for i in range(200)])
    places = RNG.normal(size=(200, 2)).astype(np.float32) * [3, 1]
    data = map_data(points, [MapLayout("a", "", places)], title="t", clusters=np.arange(200, dtype=np.int32) % 2)

    def column(name: str, kind: str) -> Any:
        return np.frombuffer(zlib.decompress(data.columns[name]), kind)

    x, y = column("x-0", "<u2") / (UNKNOWN - 1), column("y-0", "<u2") / (UNKNOWN - 1)
    reach = np.ptp(places[:, 0])
    np.testing.assert_allclose((x - x[0]) * reach, places[:, 0] - places[0, 0], atol=reach / 30_000)
    np.testing.assert_allclose((y - y[0]) * reach, places[:, 1] - places[0, 1], atol=reach / 30_000)
    np.testing.assert_array_equal(column("class", "<u4"), points.classes)
    np.testing.assert_array_equal(column("instance", "<u4"), points.instances)
    np.testing.assert_array_equal(column("cluster", "u1"), np.arange(200) % 2)
    for quality in data.info["qualities"]:
        packed, values = column(f"quality-{quality['name']}", "<u2"), points.numbers[quality["name"]]
        known = packed != UNKNOWN
        np.testing.assert_array_equal(known, np.isfinite(values))
        read = quality["low"] + packed[known] / (UNKNOWN - 1) * (quality["high"] - quality["low"])
        read = np.exp(read) if quality["log"] else read
        np.testing.assert_allclose(read, values[known], rtol=1e-3, atol=1e-4)
    weights = column("weights", "i1").reshape(200, 6) * np.array(data.info["scales"])
    np.testing.assert_allclose(weights, points.coefficients, atol=max(data.info["scales"]))
    names = json.loads(zlib.decompress(data.columns["names"]))
    assert [names[i] for i in column("image", "<u4")] == [points.name_of(i)[0] for i in range(200)]


def test_names_in_a_map_are_text_only() -> None:
    hostile = "</script><script>alert(1)</script>$policy"
    points = Points.of(
        InstanceRows([pa.table({"mask_0": [1.0, 2.0], "image": [hostile] * 2, "class_name": [hostile] * 2})], "t")
    )
    page = map_page(map_data(points, [MapLayout("a", "", np.zeros((2, 2), np.float32))], title=hostile), viewer='"><b>')
    assert "alert(1)</script>" not in page
    assert "<b>" not in page.split("<script", 1)[0]


def test_thumbnails_are_drawn_from_stored_prototypes(extracted: tuple[Path, Path]) -> None:
    data, table = extracted
    points, stored = Points.read(table), StoredPredictions.open(table)
    chosen = np.arange(len(points))[::-1]
    on_images = thumbnails(points, chosen, stored, data.parent)
    on_grey = thumbnails(points, chosen[:3], stored, None)
    assert on_images.count == len(points)
    assert on_grey.count == 3
    drawn = np.frombuffer(zlib.decompress(on_images.points), "<u4")
    assert set(drawn.tolist()) == set(range(len(points)))
    assert (np.diff(points.images[drawn]) >= 0).all()  # each image is read once
    gone = thumbnails(points, chosen, stored, data.parent / "nowhere")
    assert gone.count == 0
    assert {failure.name for failure in gone.failures} == set(points.image_names)


def test_masks_are_judged_as_the_error_budget_does(extracted: tuple[Path, Path]) -> None:
    data, table = extracted
    points, stored = Points.read(table), StoredPredictions.open(table)
    names = {int(key): name for key, name in stored.table.metadata["names"].items()}
    labels = open_labels(data, data.parent, names)
    found = judged(points, stored, labels, data.parent)
    assert not found.failures
    expected = np.full((len(points), 5), np.nan)
    place = {points.name_of(i): i for i in range(len(points))}
    for name in points.image_names:
        truth = labels.ground_truth(data.parent / name, stored[name].image_size)
        assert truth is not None
        for row in budgets(stored[name], truth, name):
            expected[place[name, row.instance]] = [row.iou, *(getattr(row, loss) for loss in LOSSES)]
    shown = np.stack([found.points.numbers[name] for name in ("iou", *LOSSES)], axis=1)
    np.testing.assert_allclose(shown, expected, atol=1e-6)
    known = np.isfinite(shown[:, 0])
    assert known.sum() > 5
    np.testing.assert_allclose(shown[known].sum(axis=1), 1, atol=1e-5)  # the losses add up to 1 - IoU


def test_the_command_writes_and_tells(
    extracted: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, table = extracted
    done = run("atlas", table, "--out", tmp_path / "a", "--data", data, "--json", "--thumbnails", 20)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["instances"] == len(Points.read(table))
    assert all(Path(path).is_file() for path in answer["files"])
    assert "lost_coefficients" in pq.read_schema(tmp_path / "a" / "points.parquet").names
    without_drawing(monkeypatch)  # the page, which holds the figures, is not compared
    again = run("atlas", table, "--out", tmp_path / "b", "--data", data, "--quiet", "--thumbnails", 20)
    assert again.returncode == 0
    for name in ("map.html", "points.parquet", "atlas.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_mistakes_are_one_sentence(tmp_path: Path, extracted: tuple[Path, Path]) -> None:
    write_images(tmp_path / "images", 2)
    extract(tmp_path / "images", fake_model(), tmp_path / "plain.csv")
    for arguments, said in (
        ((tmp_path / "none.parquet",), "there is no such table"),
        ((tmp_path / "plain.csv", "--data", extracted[0]), "--data needs masks"),
        ((tmp_path / "plain.csv", "--thumbnails", -1), "--thumbnails is -1"),
        ((extracted[1], "--data", extracted[0], "--images", tmp_path), "lists 6 images, and none of them is in"),
        ((tmp_path / "images",), "images"),
    ):
        done = run("atlas", *arguments, "--out", tmp_path / "out")
        assert done.returncode == 1, arguments
        assert said in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("")
    done = run("atlas", tmp_path / "plain.csv", "--out", tmp_path / "file")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)


def test_what_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(MissingExtraError, match=r"this map needs the package umap-learn, .*'maskprism\[umap\]'"):
        make_atlas(some_points(20), umap=True)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingExtraError, match=r"the atlas needs the package scikit-learn, .*'maskprism\[atlas\]'"):
        make_atlas(some_points(20), umap=True)


def test_umap_keeps_neighbours_together() -> None:
    pytest.importorskip("umap", reason="needs umap-learn")
    points = some_points(200, classes=3)
    points.coefficients[:, 0] *= 10
    found = make_atlas(points, umap=True)
    assert found.neighbours is not None
    middles = np.stack([found.neighbours[points.classes == c].mean(axis=0) for c in range(3)])
    nearest = np.argmin(np.linalg.norm(found.neighbours[:, None] - middles, axis=2), axis=1)
    assert (nearest == points.classes).mean() > 0.9
    np.testing.assert_array_equal(make_atlas(points, umap=True).neighbours, found.neighbours)


def test_a_csv_written_by_hand_with_odd_columns(tmp_path: Path) -> None:
    rows = pa.table({"mask_0": [1.0, 2.0, 3.0], "image": ["ä b.jpg", "ä b.jpg", "#?.jpg"], "x1": [0.0, 1.0, 2.0]})
    pa_csv.write_csv(rows, tmp_path / "t.csv")
    points = Points.read(tmp_path / "t.csv")
    assert "size" not in points.numbers  # for there is no whole box
    assert points.name_of(2) == ("#?.jpg", 0)


def test_a_name_that_is_not_unicode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_drawing(monkeypatch)
    rows = pa.table({"mask_0": [1.0, 2.0, 3.0]})
    for suffix, write in ((".csv", pa_csv.write_csv), (".parquet", pq.write_table)):
        write(rows, tmp_path / f"plain{suffix}")
        odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/a\xff<b>" + suffix.encode()))
        try:
            (tmp_path / f"plain{suffix}").rename(odd)
        except OSError:
            pytest.skip("this file system takes no such names")
        done = run("atlas", odd, "--out", tmp_path / "out", "--overwrite")
        assert done.returncode == 0, done.stderr
        assert "a\\udcff&lt;b&gt;" in (tmp_path / "out" / "map.html").read_text(encoding="utf-8")
