"""Effective ranks, redundant and dead prototypes, the canonical basis, and changes of basis."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow.csv
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from helpers import in_process
from helpers import reference_basis as slow
from helpers.strategies import letterboxes, predictions, seeds
from helpers.tiny_models import Tiny
from maskprism import CoefficientTable, Letterbox, Prediction, load
from maskprism.analysis.prototypes.basis import CanonicalBasis, Usage, change_basis, content_samples
from maskprism.analysis.prototypes.covariance import RunningCovariance, effective_rank
from maskprism.core.masks import RULES
from maskprism.datasets.scenes import draw_scene
from maskprism.drawing import basis as views
from maskprism.errors import InputError


def made(seed: int, k: int = 5, n: int = 6, grid: tuple[int, int] = (12, 16), objectness: bool = False) -> Prediction:
    """A prediction whose boxes are inside the image."""
    rng = np.random.default_rng(seed)
    letterbox = Letterbox.fit((48, 64), (48, 64)).with_grid(grid)
    corners = rng.integers(0, 20, (n, 2))
    boxes = np.concatenate([corners, corners + rng.integers(9, 25, (n, 2))], axis=1).astype(np.float32)
    return Prediction(
        canvas_boxes=boxes,
        scores=np.linspace(0.9, 0.3, n).astype(np.float32),
        classes=rng.integers(0, 3, n),
        coefficients=rng.normal(0, 1, (n, k)).astype(np.float32),
        prototypes=(rng.normal(0, 1, (k, *grid)) + rng.normal(0, 0.5, (k, 1, 1))).astype(np.float32),
        letterbox=letterbox,
        rule=RULES["yolov5"] if objectness else RULES["ultralytics"],
        objectness=rng.uniform(0.3, 1, n).astype(np.float32) if objectness else None,
    )


def orthogonal(k: int, seed: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(k, k)))[0]


def well_conditioned(k: int, seed: int) -> np.ndarray:
    stretch = np.random.default_rng(seed).uniform(0.3, 3, k)
    return orthogonal(k, seed) @ np.diag(stretch) @ orthogonal(k, seed + 1)


@given(seeds, st.integers(1, 12), st.integers(1, 6))
def test_effective_rank_equals_its_definition(seed: int, rows: int, columns: int) -> None:
    samples = np.random.default_rng(seed).normal(0.5, 1, (rows, columns))
    shifted = samples - samples.mean(axis=0)
    assume(np.linalg.norm(shifted) > 1e-6)
    assert RunningCovariance.of(samples).effective_rank() == pytest.approx(slow.effective_rank(shifted), rel=1e-5)


def test_moments_of_what_is_not_finite_are_refused() -> None:
    found = RunningCovariance(2)
    for value in (np.nan, np.inf):
        with pytest.raises(InputError, match="NaN or infinity"):
            found.update(np.array([[1.0, 2.0], [value, 0.0]]))
    assert found.weight == 0


def test_effective_rank_of_known_spectra() -> None:
    assert effective_rank(np.ones(7)) == pytest.approx(7)
    assert effective_rank(np.array([3.0, 0, 0])) == pytest.approx(1)
    assert effective_rank(np.zeros(3)) == 0
    with pytest.raises(InputError, match="at least 0"):
        effective_rank(np.array([1.0, -1.0]))


@given(seeds, st.integers(2, 5))
def test_moments_add_up_batch_by_batch(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    samples, weights = rng.normal(1, 2, (30, k)), rng.integers(1, 4, 30).astype(float)
    repeated = np.repeat(samples, weights.astype(int), axis=0)
    parts = RunningCovariance(k)
    for chunk in range(0, 30, 7):
        parts.update(samples[chunk : chunk + 7], weights[chunk : chunk + 7])
    np.testing.assert_allclose(parts.mean, repeated.mean(axis=0))
    np.testing.assert_allclose(parts.covariance, np.cov(repeated.T, bias=True), atol=1e-12)
    np.testing.assert_allclose(parts.correlation, np.corrcoef(repeated.T), atol=1e-12)
    for a in range(k):
        for b in range(k):
            twin = slow.correlation(repeated[:, a].tolist(), repeated[:, b].tolist())
            assert parts.correlation[a, b] == pytest.approx(twin)


def test_moments_know_what_is_constant() -> None:
    moments = RunningCovariance.of(np.array([[0.1, 1.0], [0.1, 2.0], [0.1, 4.0]]))
    assert np.isnan(moments.correlation[0]).all()
    assert moments.covariance[0, 0] == 0
    assert np.isnan(moments.explained([0], [1])).all()
    assert moments.explained([1], [0]) == 0
    with pytest.raises(InputError, match="no samples"):
        _ = RunningCovariance(2).mean


@given(seeds, st.integers(1, 3))
def test_explained_variance_equals_least_squares(seed: int, regressors: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(2, 3, (40, regressors))
    y = x @ rng.normal(size=(regressors, 2)) + rng.normal(0, 2, (40, 2))
    found = RunningCovariance.of(np.concatenate([y, x], axis=1)).explained([0, 1], range(2, 2 + regressors))
    for target, share in zip(y.T, found, strict=True):
        design = np.concatenate([np.ones((40, 1)), x], axis=1)
        residual = target - design @ np.linalg.lstsq(design, target, rcond=None)[0]
        assert share == pytest.approx(1 - residual.var() / target.var(), abs=1e-9)


@given(letterboxes())
def test_content_cells_are_those_that_the_image_touches(letterbox: Letterbox) -> None:
    height, width = letterbox.grid_hw
    prototypes = np.arange(height * width, dtype=np.float32).reshape(1, height, width)
    empty = np.zeros((0, 4), dtype=np.float32)
    prediction = Prediction(
        empty, empty[:, 0], np.zeros(0, np.int64), empty[:, :1], prototypes, letterbox, RULES["ultralytics"]
    )
    cells = slow.cells_of_image(prediction)
    np.testing.assert_array_equal(content_samples(prediction)[:, 0], [prototypes[0, y, x] for y, x in cells])


@settings(max_examples=40)
@given(predictions(), seeds)
def test_a_change_of_basis_changes_no_mask(prediction: Prediction, seed: int) -> None:
    changed = change_basis(prediction, well_conditioned(len(prediction.prototypes), seed))
    np.testing.assert_allclose(changed.logits(), prediction.logits(), atol=2e-4)
    values, others = prediction.probabilities("canvas"), changed.probabilities("canvas")
    np.testing.assert_allclose(others, values, atol=2e-4)
    tie = np.abs(values - 0.5) < 2e-4
    assert np.array_equal(changed.masks("canvas") | tie, prediction.masks("canvas") | tie)


def test_matrices_that_cannot_be_inverted_are_refused() -> None:
    prediction = made(0, k=3)
    with pytest.raises(InputError, match=r"condition number is .*, the limit 8.39e\+06"):
        change_basis(prediction, np.ones((3, 3)))
    with pytest.raises(InputError, match="condition number is inf"):
        change_basis(prediction, np.diag([1.0, 0, 1]))
    with pytest.raises(InputError, match=r"shape \(2, 2\); expected \(3, 3\)"):
        change_basis(prediction, np.eye(2))
    with pytest.raises(InputError, match="not finite"):
        change_basis(prediction, np.full((3, 3), np.nan))
    # Scale alone is no defect.
    scaled = change_basis(prediction, np.diag([1e-6, 1, 1e6]))
    np.testing.assert_allclose(scaled.logits(), prediction.logits(), atol=1e-4)


@settings(max_examples=25)
@given(seeds, st.sampled_from(["boxes", "image"]), st.booleans())
def test_the_canonical_basis_keeps_its_promises(seed: int, region: str, objectness: bool) -> None:
    batch = [made(seed + i, n=4, objectness=objectness) for i in range(3)]
    basis = CanonicalBasis.of(Usage.of(batch), region)
    np.testing.assert_allclose(basis.matrix @ basis.inverse, np.eye(5), atol=1e-9)
    assert np.all(np.diff(basis.energies) <= 1e-9)
    assert basis.energies.sum() == pytest.approx(slow.mean_square_logit(batch, region), rel=1e-5)
    changed = Usage.of([basis.apply(one) for one in batch])
    np.testing.assert_allclose(changed.prototypes(region).gram, np.eye(5), atol=1e-5)
    np.testing.assert_allclose(changed.coefficients.gram, np.diag(basis.energies), atol=1e-4)
    assert np.all(changed.coefficients.mean >= -1e-6)
    for one in batch:
        np.testing.assert_allclose(basis.apply(one).logits(), one.logits(), atol=1e-4)


@settings(max_examples=25)
@given(seeds)
def test_the_canonical_basis_is_the_same_from_any_basis(seed: int) -> None:
    batch = [made(seed + i) for i in range(2)]
    basis = CanonicalBasis.of(Usage.of(batch))
    turned = [change_basis(one, well_conditioned(5, seed)) for one in batch]
    other = CanonicalBasis.of(Usage.of(turned))
    np.testing.assert_allclose(other.energies, basis.energies, rtol=1e-3, atol=1e-5)
    assert other.effective_rank == pytest.approx(basis.effective_rank, rel=1e-3)
    distinct = np.min(np.abs(np.diff(np.log(basis.energies)))) > 0.05
    steady = np.all(np.abs(Usage.of(batch).coefficients.mean @ basis.inverse) > 0.01)
    if distinct and steady:
        for one, twin in zip(batch, turned, strict=True):
            ours, theirs = basis.apply(one).prototypes, other.apply(twin).prototypes
            np.testing.assert_allclose(theirs, ours, atol=0.02)


def test_the_first_components_are_the_best_approximation() -> None:
    """No other two prototypes come closer to the logits: random ones of the same span do not."""
    batch = [made(7, k=4, n=30)]
    usage = Usage.of(batch)
    basis = CanonicalBasis.of(usage, "image")
    exact = batch[0].logits()

    def loss(matrix: np.ndarray) -> float:
        gram, second = usage.image.gram, usage.coefficients.gram
        rest = np.eye(4) - matrix
        return float(np.trace(second @ rest @ gram @ rest.T))

    kept = basis.inverse[:, :2] @ basis.matrix[:2]
    assert loss(kept) == pytest.approx(basis.energies[2:].sum())
    logits = basis.apply(batch[0], 2).logits()
    assert np.mean((logits - exact) ** 2) == pytest.approx(basis.energies[2:].sum(), rel=1e-3)
    rng = np.random.default_rng(0)
    for _ in range(200):
        nudged = (basis.inverse[:, :2] + rng.normal(0, 0.1, (4, 2))) @ (basis.matrix[:2] + rng.normal(0, 0.1, (2, 4)))
        assert loss(nudged) >= loss(kept)
    assert basis.components_for(1.0) == 4
    assert basis.components_for(basis.shares[0]) == 1
    with pytest.raises(InputError, match="expected 1 to 4"):
        basis.apply(batch[0], 5)


@settings(max_examples=25)
@given(seeds)
def test_rescaling_changes_nothing_that_matters(seed: int) -> None:
    batch = [made(seed + i) for i in range(2)]
    scale = np.random.default_rng(seed).uniform(0.2, 5, 5) * np.array([1, -1, 1, -1, 1])
    rescaled = [change_basis(one, np.diag(scale)) for one in batch]
    usage, other = Usage.of(batch), Usage.of(rescaled)
    for region in ("boxes", "image"):
        np.testing.assert_allclose(other.rms_contributions(region), usage.rms_contributions(region), rtol=1e-4)
        np.testing.assert_allclose(other.pattern_shares(region), usage.pattern_shares(region), atol=1e-5)
    assert [pair[:2] for pair in other.redundant_pairs(0.2)] == [pair[:2] for pair in usage.redundant_pairs(0.2)]
    assert np.array_equal(other.dead(0.4), usage.dead(0.4))


def test_dead_and_redundant_prototypes_are_found() -> None:
    prediction = made(1, k=6, n=40)
    prototypes, coefficients = prediction.prototypes.copy(), prediction.coefficients.copy()
    prototypes[1] = 0
    coefficients[:, 2] *= 1e-4
    prototypes[4] = 1 - 3 * prototypes[0]  # the same picture, turned over
    coefficients[:, 5] = 2 * coefficients[:, 3]  # always used together
    usage = Usage.of([replace(prediction, prototypes=prototypes, coefficients=coefficients)])
    assert np.flatnonzero(usage.dead()).tolist() == [1, 2]
    rms = [np.sqrt(np.mean(coefficients[:, k] ** 2) * usage.prototypes().gram[k, k]) for k in range(6)]
    share = 0.9 * max(rms) / np.linalg.norm(rms)
    assert usage.dead(share).tolist() == [one < 0.9 * max(rms) for one in rms]
    pairs = {pair[:2]: pair for pair in usage.redundant_pairs()}
    assert set(pairs) == {(0, 4), (3, 5)}
    assert pairs[0, 4].prototypes == pytest.approx(-1, abs=1e-5)
    assert pairs[3, 5].coefficients == pytest.approx(1, abs=1e-5)
    basis = CanonicalBasis.of(usage)
    assert np.all(np.isfinite(basis.matrix))
    np.testing.assert_allclose(basis.matrix @ basis.inverse, np.eye(6), atol=1e-6)
    assert basis.components_for(0.9999) <= 3  # 6 minus the dead ones and one of the twins
    with pytest.raises(InputError, match="threshold"):
        usage.redundant_pairs(0)
    black = CanonicalBasis.of(Usage.of([replace(prediction, prototypes=np.zeros_like(prototypes))]))
    assert black.energies.sum() < 1e-9
    np.testing.assert_allclose(black.matrix @ black.inverse, np.eye(6), atol=1e-9)


@pytest.mark.parametrize("what", ["prototypes", "coefficients"])
def test_predictions_that_are_not_finite_are_refused_whole(what: str) -> None:
    prediction = made(0)
    broken = getattr(prediction, what).copy()
    broken.flat[3] = np.nan
    usage = Usage.of([prediction])
    before = (usage.image.weight, usage.boxes.weight, usage.coefficients.weight, usage.images)
    with pytest.raises(InputError, match="NaN or infinity"):
        usage.update(replace(prediction, **{what: broken}))
    assert (usage.image.weight, usage.boxes.weight, usage.coefficients.weight, usage.images) == before


def test_usage_refuses_what_does_not_fit() -> None:
    usage = Usage.of([made(0, k=5)])
    with pytest.raises(InputError, match="one model"):
        usage.update(made(0, k=4))
    with pytest.raises(InputError, match="no predictions"):
        Usage.of([])
    empty = Usage.of([made(0)[[]]])
    assert empty.images == 1
    assert empty.image.effective_rank() > 1
    assert empty.redundant_pairs(0.9) == []
    with pytest.raises(InputError, match="no instance in 1 images"):
        CanonicalBasis.of(empty)
    with pytest.raises(InputError, match="region"):
        usage.prototypes("moon")


def test_a_basis_is_kept_in_a_file(tmp_path: Path) -> None:
    basis = replace(CanonicalBasis.of(Usage.of([made(0)]), "image"), model_sha256="abc")
    basis.save(tmp_path / "basis.npz")
    found = CanonicalBasis.load(tmp_path / "basis.npz")
    assert (found.region, found.model_sha256) == ("image", "abc")
    np.testing.assert_array_equal(found.apply(made(1)).prototypes, basis.apply(made(1)).prototypes)
    (tmp_path / "text.npz").write_text("nothing")
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "basis.npz").read_bytes()[:700])
    np.save(tmp_path / "array.npy", np.zeros(3))
    replace(basis, inverse=basis.inverse[:-1]).save(tmp_path / "narrow.npz")
    replace(basis, matrix=basis.matrix * np.nan).save(tmp_path / "nan.npz")
    for name in ("text.npz", "empty.npz", "cut.npz", "array.npy", "narrow.npz", "nan.npz"):
        with pytest.raises(InputError, match="is not a canonical basis"):
            CanonicalBasis.load(tmp_path / name)
    with pytest.raises(InputError, match=r"missing\.npz: there is no such file"):
        CanonicalBasis.load(tmp_path / "missing.npz")


def test_pictures_show_contributions_on_one_scale() -> None:
    prediction = made(3, k=5, n=20)
    usage = Usage.of([prediction])
    basis = CanonicalBasis.of(usage)
    image = np.full((48, 64, 3), 90, np.uint8)
    raw, canonical = views.sheets(image, prediction, usage, basis)
    assert len(raw.panels) == 5
    assert len(canonical.panels) == 6
    assert len({panel.limit for panel in (*raw.panels, *canonical.panels[1:])}) == 1
    sizes = usage.rms_contributions()
    assert [int(panel.title.split()[0]) for panel in raw.panels] == np.argsort(-sizes).tolist()
    rms = np.sqrt(np.mean(prediction.coefficients.astype(float) ** 2, axis=0))
    first = int(raw.panels[0].title.split()[0])
    shown = raw.panels[0].values
    np.testing.assert_allclose(shown, prediction.prototypes[first] * rms[first], rtol=1e-5)
    each, _ = views.sheets(image, prediction, usage, basis, scale="each")
    assert len({panel.limit for panel in each.panels}) > 1
    picture, photos = views.raw_and_canonical(image, prediction, usage, basis)
    (x1, y1, x2, y2) = photos[0]  # the image itself stands among the canonical ones
    assert len(photos) == 1
    assert (picture[y1:y2, x1:x2][1:-1, 1:-1] == 90).all()  # within its frame
    assert x1 > picture.shape[1] // 2
    with pytest.raises(InputError, match="scale is 'none'"):
        views.sheets(image, prediction, usage, basis, scale="none")  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Tiny(prototypes=4).save(tmp_path_factory.mktemp("model") / "tiny.onnx")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for number in range(3):
        picture = cv2.resize(draw_scene(number).image, (96, 72))
        (folder / f"{number} ü.png").write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    (folder / "bad.png").write_text("no image")
    return folder


run = in_process.command


def test_the_command_measures_and_draws(model: Path, images: Path, tmp_path: Path) -> None:
    result = run("basis", images, "--model", model, "--out", tmp_path, "--overwrite", "--pictures", "2")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "4 prototypes, 9 instances in 3 images, 1 failed" in result.stdout
    assert "bad.png: failed:" in result.stderr
    assert "dead, redundant pairs: not said of fewer than 20 images" in result.stdout
    names = {"basis.json", "basis.npz", "spectrum.png", "redundancy.png", "prototypes-00.png", "prototypes-01.png"}
    names |= {"prototypes.csv", "components.csv", "basis.manifest.json"}
    assert {path.name for path in tmp_path.iterdir()} == names
    numbers = json.loads((tmp_path / "basis.json").read_text(encoding="utf-8"))
    network = load(model)
    usage = Usage.of(network.predict(str(path)) for path in sorted(images.glob("?*ü.png")))
    assert numbers["too_few_images"]
    assert numbers["dead"] == numbers["redundant_pairs"] == []
    assert numbers["effective_rank"]["coefficients"] == pytest.approx(usage.coefficients.effective_rank())
    assert numbers["component_shares"] == pytest.approx(CanonicalBasis.of(usage).shares.tolist(), abs=1e-9)
    basis = CanonicalBasis.load(tmp_path / "basis.npz")
    np.testing.assert_allclose(basis.energies, CanonicalBasis.of(usage).energies, rtol=1e-6, atol=1e-9)
    of_prototypes, of_components = (
        pyarrow.csv.read_csv(tmp_path / name).to_pandas() for name in ("prototypes.csv", "components.csv")
    )
    assert of_prototypes["rms_contribution"].tolist() == pytest.approx(numbers["rms_contributions"])
    assert np.flatnonzero(of_prototypes["dead"]).tolist() == numbers["dead"]
    found = usage.image.correlation
    for row in of_prototypes.itertuples():
        others = np.delete(np.abs(found[row.prototype]), row.prototype)
        assert abs(found[row.prototype, row.most_alike]) == pytest.approx(others.max())
        assert row.correlation == pytest.approx(found[row.prototype, row.most_alike])
    assert of_components["share_so_far"].iloc[-1] == pytest.approx(1)
    np.testing.assert_allclose(of_components.filter(like="prototype_"), basis.matrix, rtol=1e-6)
    assert basis.model_sha256 == network.spec.sha256


def test_the_command_takes_a_table(model: Path, images: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    assert run("extract", images, "--model", model, "--out", table).returncode == 0
    result = run("basis", "--table", table, "--out", tmp_path / "out")
    assert result.returncode == 0, result.stdout + result.stderr
    numbers = json.loads((tmp_path / "out" / "basis.json").read_text(encoding="utf-8"))
    matrix = CoefficientTable.read(table).coefficients.astype(float)
    matrix -= matrix.mean(axis=0)
    assert numbers["effective_rank"]["coefficients"] == pytest.approx(slow.effective_rank(matrix), rel=1e-5)
    assert (tmp_path / "out" / "coefficients.png").exists()


def test_the_command_says_what_is_wrong(model: Path, images: Path, tmp_path: Path) -> None:
    for arguments, text in (
        (["--out", tmp_path], "give either images"),
        ([images, "--pictures", -1, "--out", tmp_path], "--pictures is -1; expected 0 or more"),
        ([images / "bad.png", "--model", model, "--out", tmp_path], "no instance in 0 images"),
    ):
        result = run("basis", *arguments)
        assert result.returncode == 1
        assert text in result.stderr, result.stderr
        assert "Traceback" not in result.stderr
