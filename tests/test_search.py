"""Neighbours of coefficients: against definitions written out, and against masks."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import maskprism.search
from fake_network import fake_model, v5_model, write_images
from maskprism.errors import InputError, MissingExtraError, TableError
from maskprism.extract import extract
from maskprism.search import Index, Metric, Space, search, spread_of
from maskprism.search_index import SearchIndex
from maskprism.stored_prototypes import gram
from maskprism.table import CoefficientTable
from test_cli import run


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
    old = maskprism.search._BLOCK
    try:
        found = {}
        for block in (4, 1 << 16):
            maskprism.search._BLOCK = block
            found[block] = space.nearest(query, weights, count)
    finally:
        maskprism.search._BLOCK = old
    positions, distances = found[4]
    np.testing.assert_allclose(distances, found[1 << 16].distances, atol=1e-5)
    assert len(set(positions.tolist())) == len(positions) == min(count, rows)
    np.testing.assert_allclose(distances, np.sort(expected)[: len(positions)], atol=2e-3)
    np.testing.assert_allclose(expected[positions], distances, atol=2e-3)


@pytest.mark.parametrize("metric", ["cosine", "mask"])
def test_an_index_gives_what_a_search_gives(metric: Metric, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maskprism.search, "_SPARE", 3)
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
    monkeypatch.setattr("maskprism.table._ROW_GROUP", 5)
    row = table.arrow.slice(7, 1).to_pylist()[0]
    itself = (row["image"], row["instance"])
    for metric in ("cosine", *(["mask"] if stored else [])):
        found = search(tmp_path / out, itself, metric=metric, count=9)  # type: ignore[arg-type]
        matrix = None
        if metric == "mask":
            predictions = [make().predict(path) for path in sorted((tmp_path / "photos").iterdir())]
            matrix = np.mean([gram(one).astype(float) for one in predictions if len(one)], axis=0)
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
    same = spread_of(np.stack([one] * 3), weights)
    assert (same.low, same.median, same.high) == pytest.approx((1, 1, 1), abs=1e-4)
    other = spread_of(np.stack([one, 4 * one]), weights)
    assert other.low == pytest.approx(np.sqrt(1 / 2.5), abs=1e-4)
    assert other.high == pytest.approx(np.sqrt(4 / 2.5), abs=1e-4)
    assert spread_of(one[None], weights[:1]).median == 1


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
        (np.array([0, 1, np.nan, 2]), "cosine", 3, "expected 4 finite weights"),
        ((name, 0), "euclid", 3, "metric is 'euclid'; expected one of 'cosine', 'mask'"),
        ((name, 0), "cosine", 0, "count is 0; expected at least 1"),
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
    assert "prototypes differ" in result.stderr
    assert len(run("search", str(out), "--like", f"{name}#0", "--count", "4").stdout.splitlines()) == 4
    for like in (name, f"{name}#", f"{name}#x"):
        refused = run("search", str(out), "--like", like)
        assert refused.returncode == 1
        assert "expected IMAGE#INSTANCE" in refused.stderr


@pytest.fixture
def usearch() -> None:
    pytest.importorskip("usearch", reason="needs usearch")


@pytest.mark.usefixtures("usearch")
@pytest.mark.parametrize("name", ["t.parquet", "parts"])
@pytest.mark.parametrize("metric", ["cosine", "mask"])
def test_an_index_finds_what_the_whole_table_gives(tmp_path: Path, name: str, metric: Metric) -> None:
    write_images(tmp_path / "images", 30)
    extract(tmp_path / "images", fake_model(), tmp_path / name, prototypes="summary")
    row = CoefficientTable.read(tmp_path / name).arrow.to_pylist()[7]
    like = (row["image"], row["instance"])
    expected = search(tmp_path / name, like, metric=metric, count=5).rows
    steps: list[tuple[int, int]] = []
    written = SearchIndex.write(
        tmp_path / name, tmp_path / "i.index", metric=metric, on_progress=lambda *step: steps.append(step)
    )
    assert steps[-1] == (len(written), len(written))
    for index in (written, SearchIndex.open(tmp_path / "i.index")):
        found = index.search(tmp_path / name, like, count=5).rows
        np.testing.assert_allclose(found["distance"], expected["distance"], atol=1e-5)
        assert like not in zip(found["image"].to_pylist(), found["instance"].to_pylist(), strict=True)
        edited = CoefficientTable.read(tmp_path / name).coefficients[7] * np.float32(0.9)
        alike = index.search(tmp_path / name, edited, count=3).rows
        exact = search(tmp_path / name, edited, metric=metric, count=3).rows
        np.testing.assert_allclose(alike["distance"], exact["distance"], atol=1e-5)


@pytest.mark.usefixtures("usearch")
def test_an_index_of_another_table_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 4)
    extract(tmp_path / "images", fake_model(), tmp_path / "t.parquet")
    index = SearchIndex.write(tmp_path / "t.parquet", tmp_path / "i.index")
    write_images(tmp_path / "more", 6)
    extract(tmp_path / "more", fake_model(), tmp_path / "other.parquet")
    with pytest.raises(TableError, match="is the index of another table"):
        index.search(tmp_path / "other.parquet", np.zeros(index._about.prototypes, np.float32))
    with pytest.raises(InputError, match="there is no instance 77"):
        index.search(
            tmp_path / "t.parquet", (CoefficientTable.read(tmp_path / "t.parquet").arrow["image"][0].as_py(), 77)
        )
    extract(tmp_path / "images", fake_model(), tmp_path / "t.csv")
    for table, said in (("t.csv", "is CSV"), ("none.parquet", "there is no such table")):
        with pytest.raises(TableError, match=said):
            SearchIndex.write(tmp_path / table, tmp_path / "j.index")
    for data in (b"", b"usearch", (tmp_path / "i.index").read_bytes()[:99]):
        (tmp_path / "i.index").write_bytes(data)
        with pytest.raises(TableError, match="expected an index that maskprism search wrote"):
            SearchIndex.open(tmp_path / "i.index")
    (tmp_path / "i.index.json").write_text('{"maskprism_index": 1}')
    with pytest.raises(TableError, match=r"i\.index\.json"):
        SearchIndex.open(tmp_path / "i.index")


@pytest.mark.usefixtures("usearch")
def test_the_command_writes_an_index_and_uses_it(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 9)
    extract(tmp_path / "images", fake_model(), tmp_path / "t.parquet", prototypes="summary")
    row = CoefficientTable.read(tmp_path / "t.parquet").arrow.to_pylist()[0]
    line = ("search", tmp_path / "t.parquet", "--like", f"{row['image']}#{row['instance']}", "--json", "--count", 4)
    plain = json.loads(run(*line).stdout)["neighbours"]
    for _ in range(2):
        done = run(*line, "--index", tmp_path / "i.index")
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)["neighbours"]
        np.testing.assert_allclose([one["distance"] for one in found], [one["distance"] for one in plain], atol=1e-5)
    done = run(*line, "--index", tmp_path / "i.index", "--metric", "mask")
    assert done.returncode == 1
    assert "is an index for --metric cosine" in done.stderr


def test_an_index_without_usearch_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "usearch", None)
    monkeypatch.delitem(sys.modules, "usearch.index", raising=False)
    for call in (lambda: SearchIndex.write(tmp_path / "t.parquet", tmp_path / "i"), lambda: SearchIndex.open(tmp_path)):
        with pytest.raises(MissingExtraError, match=r"pip install 'maskprism\[index\]'"):
            call()
