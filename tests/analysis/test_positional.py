"""Positional or semantic: shares of variance, half-planes, moved images, cards and the command."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import in_process
from helpers import reference_positional as slow
from helpers.strategies import seeds
from helpers.tiny_models import Tiny
from maskprism import Letterbox, Prediction, load
from maskprism.analysis.intervals import MIN_IMAGES
from maskprism.analysis.prototypes.basis import CanonicalBasis, CanonicalModel, Usage, content_samples
from maskprism.analysis.prototypes.position_maps import PLACES, best_half_plane, place_means, ramp_variance
from maskprism.analysis.prototypes.positional import (
    TAG_RULES,
    Dependence,
    DependenceStudy,
    appearance,
    study_prototypes,
)
from maskprism.analysis.prototypes.translation import (
    CHANGES,
    Movement,
    MovementTest,
    changed_canvas,
    changed_maps,
    move,
)
from maskprism.cli.prototypes import prototypes as prototypes_command
from maskprism.core.masks import RULES
from maskprism.datasets.scenes import draw_scene
from maskprism.datasets.visit import Failure
from maskprism.drawing import cards, raster
from maskprism.errors import InputError
from maskprism.io.sources import open_source

GRID = (48, 64)
NAMES = {0: "cat", 1: "dog", 2: "fish"}


def made(rng: np.random.Generator, prototypes: np.ndarray, n: int = 5) -> Prediction:
    """A prediction over the whole canvas, whose masks are random."""
    letterbox = Letterbox.fit((192, 256), (192, 256)).with_grid(GRID)
    corners = rng.integers(0, 120, (n, 2))
    return Prediction(
        canvas_boxes=np.concatenate([corners, corners + rng.integers(20, 70, (n, 2))], axis=1).astype(np.float32),
        scores=np.linspace(0.9, 0.3, n).astype(np.float32),
        classes=rng.integers(0, 3, n),
        coefficients=rng.normal(0, 1, (n, len(prototypes))).astype(np.float32),
        prototypes=prototypes.astype(np.float32),
        letterbox=letterbox,
        rule=RULES["ultralytics"],
        names=NAMES,
    )


def batch(seed: int, images: int = 4, k: int = 3) -> list[tuple[np.ndarray, Prediction]]:
    rng = np.random.default_rng(seed)
    common = rng.normal(0, 1, (k, *GRID))
    found = []
    for _ in range(images):
        own = np.array([cv2.GaussianBlur(one, (0, 0), 3) * 4 for one in rng.normal(0, 1, (k, *GRID))])
        image = cv2.GaussianBlur(rng.integers(0, 256, (192, 256, 3), dtype=np.uint8), (0, 0), 4)
        found.append((image, made(rng, common * 0.4 + own + 1)))
    return found


def studied(pairs: list[tuple[np.ndarray, Prediction]]) -> Dependence:
    study = DependenceStudy(len(pairs[0][1].prototypes), NAMES)
    for number, (image, prediction) in enumerate(pairs):
        study.update(image, prediction, f"{number}.jpg")
    return study.compute()


@settings(max_examples=5)
@given(seeds, st.sampled_from([GRID, (32, 32), (33, 40)]))
def test_places_equal_their_twin(seed: int, size: tuple[int, int]) -> None:
    values = np.random.default_rng(seed).normal(0, 1, (2, *size)).astype(np.float32)
    for one, twin in zip(place_means(values), values, strict=True):
        np.testing.assert_allclose(one, slow.place_means(twin, PLACES), atol=1e-5)


@settings(max_examples=2)
@given(seeds)
def test_shares_equal_their_twins(seed: int) -> None:
    pairs = batch(seed, images=3, k=2)
    found = studied(pairs)
    for k in range(len(found)):
        values = [prediction.prototypes[k].astype(float) for _, prediction in pairs]
        maps = [slow.place_means(one, PLACES) for one in values]
        assert found.position[k] == pytest.approx(max(slow.position(maps, values), 0), abs=1e-5)
        flat = np.concatenate([one.reshape(-1) for one in values])
        covariates = [appearance(image, GRID) for image, _ in pairs]
        for row, share in enumerate((found.luminance, found.edges)):
            by = np.concatenate([one[row].astype(float).reshape(-1) for one in covariates])
            assert share[k] == pytest.approx(slow.explained_by(flat, by), abs=1e-6)
        inside = np.concatenate([prediction.masks("grid").any(axis=0).reshape(-1) for _, prediction in pairs])
        assert found.foreground[k] == pytest.approx(slow.explained_by(flat, inside.astype(float)), abs=1e-6)
        assert found.appearance[k] >= max(found.luminance[k], found.edges[k]) - 1e-9
        means, classes = [], []
        for _, prediction in pairs:
            for instance, mask in zip(prediction, prediction.masks("grid"), strict=True):
                if mask.any():
                    means.append(float(prediction.prototypes[k][mask].astype(float).mean()))
                    classes.append(instance.class_id)
        assert found.class_share[k] == pytest.approx(slow.epsilon_squared(means, classes), abs=1e-5)
        for c, class_id in enumerate(found.class_ids):
            own = [mean for mean, one in zip(means, classes, strict=True) if one == class_id]
            assert found.class_counts[c] == len(own)
            assert found.class_means[k, c] == pytest.approx(np.mean(own), abs=1e-5)


@settings(max_examples=10)
@given(seeds)
def test_neither_scale_nor_sign_matters(seed: int) -> None:
    pairs = batch(seed, images=3)
    scale = np.random.default_rng(seed).uniform(0.1, 10, 3).astype(np.float32) * np.array([1, -1, -1], np.float32)
    other_pairs = [
        (
            image,
            replace(one, prototypes=one.prototypes * scale[:, None, None], coefficients=one.coefficients / scale),
        )
        for image, one in pairs
    ]
    found, other = studied(pairs), studied(other_pairs)
    for name in ("position", "ramp", "luminance", "edges", "appearance", "foreground", "class_share"):
        np.testing.assert_allclose(getattr(other, name), getattr(found, name), atol=1e-3, err_msg=name)
    for k in range(3):
        plane, twin = found.half_planes[k], other.half_planes[k]
        assert twin.explained == pytest.approx(plane.explained, abs=1e-4)
        assert other.side[k] == found.side[k] * np.sign(scale[k])
        assert [one.name for one in other.strongest[k]] == [one.name for one in found.strongest[k]]
        np.testing.assert_allclose(
            [abs(one.score) for one in other.strongest[k]], [abs(one.score) for one in found.strongest[k]], rtol=1e-3
        )


def test_few_images_do_not_look_alike_by_chance() -> None:
    """The naive share of the mean map of three independent images would be a third."""
    rng = np.random.default_rng(0)
    own = [rng.normal(0, 1, (12, PLACES, PLACES)) for _ in range(3)]
    pairs = [
        (np.zeros((192, 256, 3), np.uint8), made(rng, np.array([cv2.resize(o, GRID[::-1]) for o in one])))
        for one in own
    ]
    found = studied(pairs)
    assert found.position.mean() < 0.03
    naive = found.place_means.var(axis=(1, 2)) / found.spread**2
    assert naive.mean() > 0.2


def test_what_depends_on_one_thing_is_found_to() -> None:
    rng = np.random.default_rng(5)
    pairs = []
    y, x = np.mgrid[: GRID[0], : GRID[1]]
    for image, prediction in batch(1, images=MIN_IMAGES):
        luminance, edges = appearance(image, GRID)
        prediction = replace(
            prediction,
            prototypes=np.repeat(prediction.prototypes, 2, axis=0),
            coefficients=np.repeat(prediction.coefficients, 2, axis=1),
        )
        inside = prediction.masks("grid").any(axis=0)
        # The prototypes are replaced and keep the masks: coefficients only count for the first three.
        fields = [0.3 * x - 0.1 * y, (x >= 32) * 2.0, luminance, edges, inside, rng.normal(0, 1, GRID)]
        pairs.append((image, prediction, np.array(fields, dtype=np.float32)))
    study = DependenceStudy(6, NAMES)
    for image, prediction, fields in pairs:
        study.update(image, _Painted.of(prediction, fields), "")
    found = study.compute()
    assert found.position[0] > 0.99
    assert found.ramp[0] > 0.99
    assert found.position[1] > 0.99
    assert found.half_planes[1].explained == pytest.approx(1, abs=1e-6)
    assert found.half_planes[1].angle == 0
    assert found.half_planes[1].offset == pytest.approx(0.5, abs=0.02)
    assert found.luminance[2] == pytest.approx(1)
    assert found.edges[3] == pytest.approx(1)
    assert found.foreground[4] == pytest.approx(1)
    assert found.tags(0) == ("positional", "half-plane")
    assert found.tags(2) == ("luminance",)
    assert "edges" in found.tags(3)
    assert "semantic" in found.tags(4)
    assert found.tags(5) == ()
    few = DependenceStudy(6, NAMES)
    for image, prediction, fields in pairs[:-1]:
        few.update(image, _Painted.of(prediction, fields), "")
    assert [few.compute().tags(k) for k in range(6)] == [()] * 6


class _Painted(Prediction):
    """A prediction that shows other prototypes than those its masks were made of."""

    @classmethod
    def of(cls, prediction: Prediction, fields: np.ndarray) -> _Painted:
        masks = prediction.masks("grid")
        painted = cls(**{**vars_of(prediction), "prototypes": fields})
        object.__setattr__(painted, "masks", lambda size: masks)
        return painted


def vars_of(prediction: Prediction) -> dict[str, object]:
    return {name: getattr(prediction, name) for name in Prediction.__dataclass_fields__}


@settings(max_examples=3)
@given(seeds)
def test_the_best_half_plane_is_the_best(seed: int) -> None:
    values = cv2.GaussianBlur(np.random.default_rng(seed).normal(0, 1, (6, 6)), (0, 0), 1)
    found = best_half_plane(values, float(values.var()))
    assert found.explained == pytest.approx(slow.half_plane(values, float(values.var()), 36), abs=1e-9)
    angle = np.radians(found.angle)
    centres = (np.arange(6) + 0.5) / 6
    high = np.cos(angle) * centres + np.sin(angle) * centres[:, None] > found.offset
    assert values[high].mean() > values[~high].mean()
    share = high.mean()
    between = share * (1 - share) * (values[high].mean() - values[~high].mean()) ** 2
    assert between / values.var() == pytest.approx(found.explained, abs=1e-9)


def test_ramps() -> None:
    centres = (np.arange(8) + 0.5) / 8
    ramp = 3 * centres - 2 * centres[:, None] + 7
    assert ramp_variance(ramp[None])[0] == pytest.approx(ramp.var())
    design = np.stack([np.ones(64), np.tile(centres, 8), np.repeat(centres, 8)], axis=1)
    values = np.random.default_rng(0).normal(0, 1, (8, 8))
    fitted = design @ np.linalg.lstsq(design, values.reshape(-1), rcond=None)[0]
    assert ramp_variance(values[None])[0] == pytest.approx(fitted.var())


def test_appearance_is_that_of_the_sobel_operator() -> None:
    image = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    luminance, edges = appearance(image, (12, 16))
    np.testing.assert_allclose(edges, slow.sobel_size(luminance.astype(float)), atol=1e-5)
    assert 0 <= luminance.min() <= luminance.max() <= 1


def test_studies_refuse_what_does_not_fit() -> None:
    (image, prediction), *_ = batch(0)
    study = DependenceStudy(3, NAMES)
    study.update(image, prediction)
    with pytest.raises(InputError, match="at least 2"):
        study.compute()
    with pytest.raises(InputError, match="the prediction is about one of 256 x 192"):
        study.update(image[:-1], prediction)
    with pytest.raises(InputError, match="the ones before had 3"):
        study.update(image, made(np.random.default_rng(0), np.zeros((2, *GRID))))
    broken = prediction.prototypes.copy()
    broken[1, 2, 3] = np.nan
    with pytest.raises(InputError, match="NaN or infinity"):
        study.update(image, _Painted.of(prediction, broken))


def test_constant_prototypes_and_no_instances_are_undefined_not_wrong() -> None:
    still = [
        (image, _Painted.of(prediction, np.full_like(prediction.prototypes, 0.1)))
        for image, prediction in batch(0, images=2)
    ]
    assert studied(still).instances > 5
    assert np.isnan(studied(still).class_share).all()
    assert studied(still).tags(0) == ()
    pairs = [
        (image, replace(prediction, prototypes=np.ones_like(prediction.prototypes))[[]])
        for image, prediction in batch(0, images=2)
    ]
    found = studied(pairs)
    assert np.isnan(found.position).all()
    assert np.isnan(found.class_share).all()
    assert found.instances == 0
    assert found.tags(0) == ()
    assert found.record(0)["position"] is None
    assert cards.card(found, 0).get_axes()


class Positional:
    """A model that answers the same to every picture."""

    def __init__(self, prediction: Prediction) -> None:
        self.prediction = prediction

    def predict(self, images: list[np.ndarray]) -> list[Prediction]:
        return [self.prediction for _ in images]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Tiny(prototypes=3).save(tmp_path_factory.mktemp("model") / "tiny.onnx")


def test_pointwise_prototypes_follow_and_constant_ones_stay(tiny: Path) -> None:
    image = cv2.resize(draw_scene(1).image, (128, 96))
    moved = move(load(tiny), image)
    np.testing.assert_allclose(moved.follows[[0, 1]], 1, atol=1e-6)  # shift and flip: whole cells
    assert np.all(moved.follows[2] > 0.9)
    assert np.all(moved.stays < 0.9)
    still = move(Positional(load(tiny).predict(image)), image)  # type: ignore[arg-type]
    np.testing.assert_allclose(still.stays, 1, atol=1e-9)
    assert np.all(still.follows < 0.9)
    assert [MovementTest.of([one]).verdict(0) for one in (moved, still)] == ["follows", "stays"]


def test_canvas_and_maps_are_changed_alike() -> None:
    canvas = cv2.GaussianBlur(cv2.resize(draw_scene(2).image, (96, 64)), (0, 0), 4)
    mean = np.mean(canvas.reshape(16, 4, 24, 4, 3), axis=(1, 3)).transpose(2, 0, 1).astype(np.float32)
    for change in CHANGES:
        changed = changed_canvas(canvas, change, (16, 24), (114, 114, 114))
        cells = np.mean(changed.reshape(16, 4, 24, 4, 3), axis=(1, 3)).transpose(2, 0, 1)
        covered = changed_maps(np.ones((1, 16, 24), np.float32), change)[0] > 0
        expected = changed_maps(mean, change)
        np.testing.assert_allclose(cells[:, covered], expected[:, covered], atol=8 if change == "pad" else 1e-3)
        assert np.all(cells[:, ~covered] == 114)


def test_movements_are_averaged_with_their_errors() -> None:
    rng = np.random.default_rng(0)
    samples = rng.uniform(-1, 1, (5, 2, 3, 4))
    samples[2, 0, 1, 3] = np.nan
    test = MovementTest.of([Movement(*one) for one in samples])
    np.testing.assert_allclose(test.follows, np.nanmean(samples[:, 0], axis=0))
    counts = np.isfinite(samples).sum(axis=0)
    np.testing.assert_allclose(test.standard_errors, np.nanstd(samples, axis=0, ddof=1) / np.sqrt(counts))
    assert test.handedness(1) == pytest.approx(test.follows[0, 1] - test.follows[1, 1])
    with pytest.raises(InputError, match="at least one"):
        MovementTest.of([])


def test_verdicts_are_about_shifts_and_paddings() -> None:
    """A mirrored image is another picture: what it does decides nothing about places."""
    follows = np.array([[0.9, 0.1, 0.5], [-1, 1, 0], [0.7, 0.0, 0.4]])  # shift, flip, pad
    stays = np.array([[0.1, 0.6, 0.4], [1, -1, 1], [0.2, 0.5, 0.45]])
    test = MovementTest.of([Movement(follows, stays)])
    assert [test.verdict(k) for k in range(3)] == ["follows", "stays", "unclear"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for number in range(5):
        picture = cv2.resize(draw_scene(number).image, (96, 72))
        (folder / f"{number} ü 木.png").write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    (folder / "bad.png").write_text("no image")
    return folder


def test_a_study_goes_on_after_failures_and_moves_evenly(tiny: Path, images: Path) -> None:
    seen: list[Failure | None] = []
    items = list(open_source(images).pending(frozenset()))
    found, movement = study_prototypes(
        items, load(tiny), moved=2, on_progress=lambda done, total, failure: seen.append(failure)
    )
    assert [failure.name for failure in seen if failure is not None] == ["bad.png"]
    assert len(seen) == 6
    assert found.images == 5
    assert movement is not None
    assert movement.images == 2
    assert study_prototypes(items, load(tiny), moved=0)[1] is None
    with pytest.raises(InputError, match="moved is -1"):
        study_prototypes(items, load(tiny), moved=-1)


def test_sheet_and_overlay() -> None:
    found = studied(batch(3))
    sheet = cards.sheet_of_all(found, model="some.onnx")
    assert len(sheet.panels) == 3
    assert raster.draw(sheet).shape[2] == 3
    for k in range(3):
        assert tuple(label.text for label in sheet.panels[k].labels) == tuple(reversed(found.tags(k)))
    first = found.strongest[0][0]
    picture = cards.overlay(first, float(found.mean[0]), float(found.spread[0]))
    assert picture.shape == first.picture.shape
    flat = cards.overlay(first, float(found.mean[0]), 0.0)
    assert np.ptp(flat.astype(int), axis=2).max() <= 1  # nothing but the grey image


run = partial(in_process.command, "prototypes")


def test_the_command_writes_cards_and_a_table(tiny: Path, images: Path, tmp_path: Path) -> None:
    result = run(images, "--model", tiny, "--out", tmp_path / "out", "--moved", "2", "--cards", "0", "2")
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"3 prototypes over 5 images with \d+ masks, 1 failed", result.stdout)
    assert "bad.png: failed:" in result.stderr
    assert all(tag in result.stdout for tag in TAG_RULES)
    assert "5 images: with fewer than 20 no prototype is tagged" in result.stderr
    written = {path.name for path in (tmp_path / "out").iterdir()}
    pictures = {"prototypes.png", "prototype-00.png", "prototype-02.png"}
    assert written == {"prototypes.csv", "prototypes.manifest.json"} | pictures
    with (tmp_path / "out" / "prototypes.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["prototype"] for row in rows] == ["0", "1", "2"]
    assert float(rows[0]["shift_follows"]) > 0.99
    assert rows[0]["strongest"].endswith("ü 木.png")
    assert "Glyph" not in result.stderr  # letters without a font are no reason for warnings


def test_the_components_of_a_basis_are_studied_in_place_of_prototypes(tiny: Path, images: Path) -> None:
    network = load(tiny)
    items = [item for item in open_source(images).pending(frozenset()) if item.name != "bad.png"]
    predictions = [network.predict(item.read()) for item in items]
    basis = CanonicalBasis.of(Usage.of(predictions))
    found, movement = study_prototypes(items, CanonicalModel(network, basis), moved=1)
    first = [content_samples(basis.apply(one))[:, 0] for one in predictions]
    assert found.mean[0] == pytest.approx(np.concatenate(first).mean(), abs=1e-4)
    assert movement is not None
    with pytest.raises(InputError, match="the basis is of 3 prototypes; the model has 32"):
        CanonicalModel(load("sample"), basis)
    with pytest.raises(InputError, match="the basis is of 3 prototypes; the prediction has 2"):
        basis.apply(made(np.random.default_rng(0), np.zeros((2, *GRID))))


def test_a_basis_of_another_network_is_noticed(
    tiny: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predictions = [load(tiny).predict(item.read()) for item in list(open_source(images).pending(frozenset()))[:2]]
    basis = CanonicalBasis.of(Usage.of(predictions))
    for sha256, noted in ((load(tiny).spec.sha256, False), ("0" * 64, True)):
        replace(basis, model_sha256=sha256).save(tmp_path / "basis.npz")
        out = tmp_path / f"out-{noted}"
        prototypes_command([str(images)], model=tiny, out=out, basis=tmp_path / "basis.npz", moved=0, cards=[])
        assert ("a basis fits only the model that it is of" in capsys.readouterr().err) == noted


def test_the_command_needs_two_images(tiny: Path, images: Path, tmp_path: Path) -> None:
    result = run(images / "0 ü 木.png", "--model", tiny, "--out", tmp_path / "out")
    assert result.returncode == 1
    assert "there are 1 images; expected at least 2" in result.stderr
    wrong = run(images, "--model", tiny, "--out", tmp_path / "out", "--cards", "3")
    assert wrong.returncode == 1
    assert "coefficient index 3 is out of range: the model has 3 prototypes (0..2)" in wrong.stderr
    assert "Traceback" not in result.stderr
