"""Neighbours of coefficients: against definitions written out, and against masks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import maskprism.tables.similar
from helpers.fake_network import fake_model, v5_model, write_images
from helpers.in_process import command as run
from maskprism.errors import InputError, TableError
from maskprism.tables.extraction import extract
from maskprism.tables.similar import Index, Metric, Space, search, spread_of
from maskprism.tables.stored_predictions import StoredPredictions
from maskprism.tables.stored_prototypes import gram
from maskprism.tables.table import CoefficientTable


def slow_distances(metric: str, query: Any, weights: Any, matrix: Any) -> list[float]:
    """One after the other, from the definitions."""
    found = []
    for row in weights.astype(float):
        if metric == "mask":
            found.append(float(np.sqrt(max((row - query) @ matrix @ (row - query), 0))))
        else:
            lengths = np.linalg.norm(row) * np.linalg.norm(query)
            found.append(1 - float(row @ query / lengths) if lengths else 1.0)
    return found


@given(
    st.integers(0, 60), st.integers(1, 9), st.integers(1, 70), st.sampled_from(["cosine", "mask"]), st.integers(0, 999)
)
def test_neighbours_are_those_of_the_definition(rows: int, k: int, count: int, metric: Metric, seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(rows, k)).round(1).astype(np.float32)
    weights[::7] = 0  # and some that are equal, or have no direction
    query = rng.normal(size=k).astype(np.float32)
    root = rng.normal(size=(k, max(k - 1, 1)))
    matrix = root @ root.T if metric == "mask" else None
    space = Space(metric, matrix)
    expected = np.array(slow_distances(metric, query, weights, matrix))
    np.testing.assert_allclose(space.distances(query, weights), expected, atol=2e-3)
    old = maskprism.tables.similar._BLOCK
    try:
        found = {}
        for block in (4, 1 << 16):
            maskprism.tables.similar._BLOCK = block
            found[block] = space.nearest(query, weights, count)
    finally:
        maskprism.tables.similar._BLOCK = old
    positions, distances = found[4]
    np.testing.assert_allclose(distances, found[1 << 16].distances, atol=1e-5)
    assert len(set(positions.tolist())) == len(positions) == min(count, rows)
    np.testing.assert_allclose(distances, np.sort(expected)[: len(positions)], atol=2e-3)
    np.testing.assert_allclose(expected[positions], distances, atol=2e-3)


@pytest.mark.parametrize("metric", ["cosine", "mask"])
def test_an_index_gives_what_a_search_gives(metric: Metric, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maskprism.tables.similar, "_SPARE", 3)
    rng = np.random.default_rng(2)
    weights = rng.normal(size=(5000, 8)).astype(np.float32)
    root = rng.normal(size=(8, 8))
    space = Space(metric, root @ root.T if metric == "mask" else None)
    index = Index(space, weights)
    for count in (1, 20, 6000):
        for query in weights[:3] + np.float32(0.01):
            found, expected = index.nearest(query, count), space.nearest(query, weights, count)
            np.testing.assert_array_equal(found.positions, expected.positions)
            np.testing.assert_allclose(found.distances, expected.distances, atol=1e-5)
    assert len(Index(space, weights[:0]).nearest(weights[0], 3).positions) == 0


def test_the_distance_of_masks_is_that_of_their_logits() -> None:
    """Within an image it is exact: the root mean square difference over the cells of the image."""
    prediction = fake_model().predict(np.random.default_rng(3).integers(0, 256, (40, 64, 3), dtype=np.uint8))
    rng = np.random.default_rng(1)
    weights = rng.normal(size=(12, 4)).astype(np.float32)
    rows, columns = prediction.letterbox.content_cells
    logits = np.tensordot(weights, prediction.prototypes, 1)[:, rows, columns]
    expected = np.sqrt(np.mean((logits - logits[3]) ** 2, axis=(1, 2)))
    np.testing.assert_allclose(Space("mask", gram(prediction)).distances(weights[3], weights), expected, atol=1e-5)


@pytest.mark.parametrize("out", ["t.parquet", "t.csv", "t"])
@pytest.mark.parametrize("make", [fake_model, v5_model])
def test_a_table_is_searched_a_batch_at_a_time(
    tmp_path: Path, make: Any, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "photos", 25)
    stored: Any = None if out == "t.csv" else "summary"
    extract(tmp_path / "photos", make(), tmp_path / out, prototypes=stored, flush_s=0)
    table = CoefficientTable.read(tmp_path / out)
    weights = table.coefficients
    if make is v5_model:
        weights = weights * table.arrow["objectness"].to_numpy()[:, None]
    monkeypatch.setattr("maskprism.tables.table._ROW_GROUP", 5)
    row = table.arrow.slice(7, 1).to_pylist()[0]
    itself = (row["image"], row["instance"])
    for metric in ("cosine", *(["mask"] if stored else [])):
        found = search(tmp_path / out, itself, metric=metric, count=9)  # type: ignore[arg-type]
        matrix = None
        if metric == "mask":
            matrix = gram(make().predict(tmp_path / "photos" / row["image"])).astype(float)
        expected = np.array(slow_distances(metric, weights[7].astype(float), weights, matrix))
        expected[7] = np.inf
        np.testing.assert_allclose(found.rows["distance"], np.sort(expected)[:9], atol=1e-3)
        assert itself not in list(zip(found.rows["image"].to_pylist(), found.rows["instance"].to_pylist(), strict=True))
        for one in found.rows.to_pylist():  # rows and distances belong together
            place = [
                i
                for i, other in enumerate(table.arrow.to_pylist())
                if (other["image"], other["instance"]) == (one["image"], one["instance"])
            ]
            assert expected[place[0]] == pytest.approx(one["distance"], abs=1e-3)
        assert (found.spread is None) == (metric == "cosine")
        edited = search(tmp_path / out, weights[7] * 2, metric=metric, count=1)  # type: ignore[arg-type]
        assert len(edited.rows) == 1
        if metric == "cosine":
            assert edited.rows["distance"][0].as_py() == pytest.approx(0, abs=1e-5)
    everything = search(tmp_path / out, itself, count=1000)
    assert len(everything.rows) == len(table) - 1


def test_how_far_images_agree() -> None:
    rng = np.random.default_rng(0)
    root = rng.normal(size=(4, 4))
    one = (root @ root.T).astype(np.float32)
    weights = rng.normal(size=(50, 4)).astype(np.float32)
    same = spread_of(np.stack([one] * 3), one, weights)
    assert (same.low, same.median, same.high) == pytest.approx((1, 1, 1), abs=1e-4)
    other = spread_of(np.stack([one, 4 * one]), one, weights)
    assert (other.low, other.high) == pytest.approx((1, 2), abs=1e-4)
    assert spread_of(one[None], one, weights[:1]).median == 1


def test_mistakes_are_named(tmp_path: Path) -> None:
    write_images(tmp_path / "photos", 6)
    out = tmp_path / "t.parquet"
    extract(tmp_path / "photos", fake_model(), out)
    name = CoefficientTable.read(out).arrow["image"][0].as_py()
    for like, metric, count, message in (
        ((name, 99), "cosine", 3, f"there is no instance 99 of '{name}'; that image has "),
        ((name, 1 << 60), "cosine", 3, "there is no instance"),
        (("none.png", 0), "cosine", 3, "no instance of that image is there"),
        (np.zeros(5), "cosine", 3, r"shape \(5,\); expected 4 finite weights"),
        (np.array([0, 1, np.nan, 2]), "cosine", 3, "NaN or infinity; expected finite weights"),
        ((name, 0), "euclid", 3, "metric is 'euclid'; expected one of 'cosine', 'mask'"),
        ((name, -1), "cosine", 3, "there is no instance -1"),
        ((name, 10**30), "cosine", 3, "there is no instance 1000000000000000000000000000000"),
        ((name, 0), "cosine", 0, "count is 0; expected 1 to 100000"),
        ((name, 0), "cosine", 10**12, "count is 1000000000000; expected 1 to 100000"),
    ):
        with pytest.raises(InputError, match=message):
            search(out, like, metric=metric, count=count)  # type: ignore[arg-type]
    with pytest.raises(TableError, match="has no prototypes"):
        search(out, (name, 0), metric="mask")
    with pytest.raises(TableError, match="there is no such table"):
        search(tmp_path / "none.parquet", (name, 0))
    with pytest.raises(InputError, match="needs the Gram matrix"):
        Space("mask")
    for matrix in (np.zeros((2, 3)), np.full((2, 2), np.nan), np.diag([1.0, -1.0])):
        with pytest.raises(InputError, match="a Gram matrix"):
            Space("mask", matrix)


def test_the_command(tmp_path: Path) -> None:
    write_images(tmp_path / "photos", 12)
    out = tmp_path / "t.parquet"
    extract(tmp_path / "photos", fake_model(), out, prototypes="summary")
    name = CoefficientTable.read(out).arrow["image"][0].as_py()
    result = run("search", str(out), "--like", f"{name}#0", "--metric", "mask", "--count", "3", "--json")
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert len(answer["neighbours"]) == 3
    assert [one["distance"] for one in answer["neighbours"]] == sorted(one["distance"] for one in answer["neighbours"])
    assert answer["spread"]["images"] > 1
    assert f"drawn with the prototypes of {name}: exact within that image" in result.stderr
    printed = run("search", str(out), "--like", f"{name}#0", "--count", "4").stdout.splitlines()
    assert printed[0].split()[:4] == ["distance", "score", "class", "instance"]
    assert len(printed) == 5
    for like, said in (
        (name, "expected IMAGE#INSTANCE"),
        (f"{name}#", "expected IMAGE#INSTANCE"),
        (f"{name}#x", "expected IMAGE#INSTANCE"),
        (f"{name}#{'9' * 23}", "expected a number of at most 9 digits"),
        (f"{name}#999999999", "there is no instance 999999999"),
    ):
        refused = run("search", str(out), "--like", like)
        assert refused.returncode == 1
        assert said in refused.stderr
        assert refused.stderr.count("\n") == 1


def test_masks_of_one_image_are_compared_with_its_own_prototypes(tmp_path: Path) -> None:
    """Not with those of all images, which differ: the distance printed is that of the two logit images."""
    write_images(tmp_path / "photos", 12)
    out = tmp_path / "t.parquet"
    extract(tmp_path / "photos", fake_model(conf=0.01), out, prototypes="fp32")
    for name in list(StoredPredictions.open(out))[:4]:
        prediction = StoredPredictions.open(out)[name]
        rows, columns = prediction.letterbox.content_cells
        logits = np.tensordot(prediction.weights, prediction.prototypes, 1)[:, rows, columns].astype(float)
        found = search(out, (name, 0), metric="mask", count=1000).rows
        here = [row for row in found.to_pylist() if row["image"] == name]
        assert len(here) == len(prediction) - 1
        for row in here:
            expected = np.sqrt(np.mean((logits[row["instance"]] - logits[0]) ** 2))
            assert row["distance"] == pytest.approx(expected, rel=1e-4, abs=1e-4)
