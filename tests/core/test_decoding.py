"""Masks out, compiled and pure: every output equals the reference rule, pixel for pixel."""

from __future__ import annotations

import importlib.util
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
import types
from functools import lru_cache
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import maskprism
from helpers.strategies import boxes, letterboxes, predictions
from maskprism import RULES, Letterbox, Prediction
from maskprism.core import decoding
from maskprism.core.decoding import engine as engine_module
from maskprism.core.decoding import outlines, outputs, pure
from maskprism.core.decoding.job import KINDS, decode_job
from maskprism.core.masks import decode as reference_decode
from maskprism.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "src" / "maskprism" / "core" / "decoding"
SIZES = ("grid", "canvas", "image")
ENGINES = ("compiled", "pure")
CC = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


@lru_cache
def engine_named(name: str) -> types.ModuleType:
    """The implementation of that name; the extension is compiled where the checkout has none that is current."""
    if name == "pure":
        return pure
    qualified = "maskprism.core.decoding._compiled"
    sources = [FOLDER / "_compiled.c", FOLDER / "maskprism_decode.h"]
    built = [path for pattern in ("_compiled*.so", "_compiled*.pyd") for path in FOLDER.glob(pattern)]
    stale = any(path.stat().st_mtime < source.stat().st_mtime for path in built for source in sources)
    if qualified not in sys.modules and (stale or not built):
        if CC is None:
            pytest.skip("no C compiler: the extension cannot be built")
        folder = Path(tempfile.mkdtemp())
        path = runpy.run_path(str(ROOT / "hatch_build.py"))["compile_extension"](folder)
        spec = importlib.util.spec_from_file_location(qualified, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules[qualified] = decoding._compiled = module
    return importlib.import_module("maskprism.core.decoding.compiled")


def using(name: str):
    """A context in which that implementation decodes."""
    chosen = engine_named(name)
    return mock.patch.multiple(outputs, engine=chosen), mock.patch.object(outlines, "engine", chosen)


def decoded(name: str, *arguments, **options):
    first, second = using(name)
    with first, second:
        return maskprism.core.decoding.decode(*arguments, **options)


def of_prediction(name: str, function: str, prediction: Prediction, *arguments, **options):
    first, second = using(name)
    with first, second:
        return getattr(outputs, function)(prediction, *arguments, **options)


def full(patch, hw) -> np.ndarray:
    frame = np.zeros(hw, dtype=patch.values.dtype)
    frame[patch.rows, patch.columns] = patch.values
    return frame


def one_map(values: np.ndarray, letterbox: Letterbox | None = None, box=None, rule: str = "no-crop", **options):
    """A job whose grid logits are exactly these values."""
    values = np.asarray(values, dtype=np.float32)
    h, w = values.shape
    letterbox = letterbox or Letterbox.stretch((4 * h, 4 * w), (4 * h, 4 * w)).with_grid((h, w))
    corners = None if box is None else np.array([box], dtype=np.float32)
    return (np.ones((1, 1), dtype=np.float32), values[None], corners, letterbox), {"rule": rule, **options}


@pytest.mark.parametrize("rule", list(RULES))
@pytest.mark.parametrize("size", SIZES)
def test_bitmaps_equal_the_reference_rule(rule, size, record_property):
    """Ties, pixels whose value is within 1e-6 of the threshold, are counted: BLAS adds terms in another order."""
    ties = pixels = 0

    @settings(max_examples=40)
    @given(data=st.data())
    def compare(data):
        nonlocal ties, pixels
        prediction = data.draw(predictions(rule=RULES[rule]))
        expected = list(prediction.patches(size))
        stacks = {name: of_prediction(name, "masks", prediction, size) for name in ENGINES}
        np.testing.assert_array_equal(stacks["compiled"], stacks["pure"])
        for mask, patch in zip(stacks["pure"], expected, strict=True):
            reference = full(patch, mask.shape) > RULES[rule].threshold
            distance = np.full(mask.shape, np.inf)
            distance[patch.rows, patch.columns] = np.abs(patch.values - RULES[rule].threshold)
            differ = mask != reference
            scale = max(1.0, float(np.abs(patch.values).max(initial=0)))
            assert not (differ & (distance > 1e-6 * scale)).any()
            ties += np.count_nonzero(differ)
            pixels += mask.size

    compare()
    record_property("ties", int(ties))
    print(f"{rule}, {size}: {ties} ties among {pixels:,} pixels")
    assert ties <= pixels / 10_000


@pytest.mark.parametrize("size", SIZES)
@settings(max_examples=60)
@given(data=st.data())
def test_every_output_of_both_implementations_is_equal_to_the_last_bit(size, data):
    prediction = data.draw(predictions())
    job = decode_job(
        prediction.weights, prediction.prototypes, prediction.canvas_boxes, prediction.letterbox, prediction.rule, size
    )
    compiled = engine_named("compiled")
    windows = compiled.windows(job)
    np.testing.assert_array_equal(windows, pure.windows(job))
    np.testing.assert_array_equal(compiled.areas(job), pure.areas(job))
    for compressed in (True, False):
        assert compiled.encode(job, compressed=compressed) == pure.encode(job, compressed=compressed)
    for kind in KINDS:
        corner = 4 if kind == "grid" else 0
        heights, widths = windows[:, corner + 1] - windows[:, corner], windows[:, corner + 3] - windows[:, corner + 2]
        ends = np.cumsum(heights.astype(np.int64) * widths)
        filled = []
        for implementation in (compiled, pure):
            out = np.zeros(int(ends[-1]), dtype=np.uint8 if kind == "bitmap" else np.float32)
            implementation.fill(job, out, ends - heights * widths, widths.astype(np.int64), kind)
            filled.append(out)
        np.testing.assert_array_equal(*filled)


@pytest.mark.parametrize("name", ENGINES)
@settings(max_examples=60)
@given(data=st.data())
def test_all_outputs_tell_of_the_same_masks(name, data):
    from faster_coco_eval.core import mask as faster
    from pycocotools import mask as coco

    prediction, size = data.draw(predictions()), data.draw(st.sampled_from(SIZES))
    masks = of_prediction(name, "masks", prediction, size)
    assert of_prediction(name, "areas", prediction, size).tolist() == masks.sum(axis=(1, 2)).tolist()
    crops = of_prediction(name, "crops", prediction, size)
    for mask, crop, patch in zip(masks, crops, prediction.patches(size), strict=True):
        np.testing.assert_array_equal(full(crop, mask.shape), mask)
        assert crop.values.shape == patch.values.shape
        assert patch.values.size == 0 or crop[:2] == patch[:2]
    compressed = of_prediction(name, "rle", prediction, size)
    plain = of_prediction(name, "rle", prediction, size, compressed=False)
    for mask, text, counts in zip(masks, compressed, plain, strict=True):
        expected = coco.encode(np.asfortranarray(mask.view(np.uint8)))
        assert text == expected
        assert faster.encode(np.asfortranarray(mask.view(np.uint8)))["counts"] == text["counts"]
        np.testing.assert_array_equal(coco.decode(text), mask)
        assert coco.frPyObjects(counts, *mask.shape)["counts"] == text["counts"]
    soft = of_prediction(name, "soft", prediction, size)
    for patch, expected in zip(soft, prediction.probabilities(size), strict=True):
        np.testing.assert_allclose(full(patch, expected.shape), expected, atol=2e-6)


@pytest.mark.parametrize("name", ENGINES)
@settings(max_examples=60)
@given(data=st.data())
def test_int8_prototypes_and_channels_last_give_the_bits_of_the_floats(name, data):
    letterbox = data.draw(letterboxes())
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    n, k = data.draw(st.integers(0, 3)), data.draw(st.integers(1, 9))
    raw = rng.integers(-128, 128, (*letterbox.grid_hw, k), dtype=np.int8)
    scale, zero_point = float(np.float32(rng.uniform(0.001, 0.1))), int(rng.integers(-128, 128))
    floats = (raw.astype(np.int32) - zero_point).astype(np.float32) * np.float32(scale)
    weights = rng.normal(size=(n, k)).astype(np.float32)
    corners = data.draw(boxes(letterbox.canvas_hw, n))
    options = {"rule": data.draw(st.sampled_from(list(RULES))), "size": data.draw(st.sampled_from(SIZES))}
    expected = decoded("pure", weights, np.moveaxis(floats, -1, 0).copy(), corners, letterbox, output="rle", **options)
    quantised = {"scale": scale, "zero_point": zero_point}
    for prototypes, extra in ((raw, quantised), (floats, {})):
        for layout in (np.moveaxis(prototypes, -1, 0), np.moveaxis(prototypes, -1, 0).copy()):
            found = decoded(name, weights, layout, corners, letterbox, output="rle", **options, **extra)
            assert found == expected


@pytest.mark.parametrize("rule", ["no-crop", "yolact", "ultralytics-8.2", "ultralytics-8.4.83", "ultralytics"])
@settings(max_examples=60)
@given(data=st.data())
def test_nan_and_infinity_are_read_as_the_reference_reads_them(rule, data):
    letterbox, size = data.draw(letterboxes()), data.draw(st.sampled_from(SIZES))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    values = rng.normal(size=letterbox.grid_hw).astype(np.float32)
    odd = rng.choice(np.array([np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-40, 0], dtype=np.float32), values.shape)
    values = np.where(rng.random(values.shape) < 0.1, odd, values)
    box = None if rule == "no-crop" else data.draw(boxes(letterbox.canvas_hw, 1))[0]
    arguments, options = one_map(values, letterbox, box, rule, size=size)
    masks = [decoded(name, *arguments, **options)[0] for name in ENGINES]
    np.testing.assert_array_equal(*masks)
    for name in ENGINES:
        counts = decoded(name, *arguments, **options, output="counts")[0]["counts"]
        runs = np.repeat(np.arange(len(counts)) % 2, counts).reshape(masks[0].shape[::-1]).T
        np.testing.assert_array_equal(runs, masks[0])
    if min(letterbox.grid_hw) > 1:  # OpenCV has other code for one row or column
        with np.errstate(all="ignore"):
            patch = reference_decode(values, box, letterbox, RULES[rule], size)
        reference = full(patch, masks[0].shape) > RULES[rule].threshold
        finite = full(patch._replace(values=np.isfinite(patch.values)), masks[0].shape)
        np.testing.assert_array_equal(masks[0][finite], reference[finite])


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_pixels_that_read_nan_or_infinity_are_in_no_mask_and_no_others_change(name, bad):
    values = np.ones((6, 7), dtype=np.float32)
    values[2, 3] = bad
    arguments, options = one_map(values)
    mask = decoded(name, *arguments, **options, size="canvas")[0]
    expected = np.ones((24, 28), dtype=bool)
    expected[6:14, 10:18] = False  # within one cell of the centre of the cell, at 10, 14
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("output", decoding.OUTPUTS)
def test_no_instances(name, output):
    letterbox = Letterbox.fit((30, 40), (32, 32))
    found = decoded(name, np.zeros((0, 3)), np.ones((3, 8, 8)), np.zeros((0, 4)), letterbox, output=output)
    assert len(found) == 0
    assert output != "bitmap" or found.shape == (0, 32, 32)


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("value", [1.0, -1.0, 0.0])
def test_a_grid_of_one_cell_fills_the_frame_or_nothing(name, value):
    arguments, options = one_map(np.full((1, 1), value), Letterbox.stretch((5, 7), (4, 4)).with_grid((1, 1)))
    for size in SIZES:
        mask = decoded(name, *arguments, **options, size=size)[0]
        assert mask.all() if value > 0 else not mask.any()
    (polygon,) = decoded(name, *arguments, **options, size="image", output="polygons")
    assert polygon.area == pytest.approx(35 if value > 0 else 0)


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize(
    "box",
    [
        [40, 40, 60, 60], [-9, -9, -1, -1], [5, 5, 5, 20], [20, 20, 5, 5], [5.1, 5.1, 5.9, 5.9],
        [np.nan, 0, 9, 9], [0, 0, 9, np.nan],
    ],
)  # fmt: skip
def test_windows_without_a_pixel_give_empty_masks(name, box):
    for rule in ("ultralytics", "ultralytics-8.3"):
        arguments, options = one_map(np.ones((8, 8)), Letterbox.fit((32, 32), (32, 32)), box, rule, size="canvas")
        if rule == "ultralytics-8.3" and box[0] == 5.1:
            continue  # 1.3..1.5 cells: the same
        assert not decoded(name, *arguments, **options).any()
        assert decoded(name, *arguments, **options, output="counts")[0]["counts"] == [32 * 32]
        assert decoded(name, *arguments, **options, output="crop")[0].values.size == 0
        (polygon,) = decoded(name, *arguments, **options, output="polygons")
        assert (polygon.outlines, polygon.area, polygon.iou()) == ([], 0, 1)


def test_cells_of_more_than_255_pixels_are_decoded_alike():
    """The compiled decoder notes in a byte where a mask changes within a band of rows."""
    letterbox = Letterbox.stretch((2000, 30), (8, 8)).with_grid((2, 2))
    for values in ([[1, -1], [-1, 1]], [[-9, 1], [1, -1]], [[0.1, 5], [-7, -1]]):
        arguments, options = one_map(values, letterbox)
        masks = [decoded(name, *arguments, **options, size="image") for name in ENGINES]
        np.testing.assert_array_equal(*masks)
        assert 0 < masks[0].sum() < masks[0].size


@pytest.mark.parametrize("name", ENGINES)
def test_bitmaps_are_written_to_the_array_that_is_given(name):
    arguments, options = one_map(np.ones((4, 4)), Letterbox.fit((16, 16), (16, 16)), [4, 4, 12, 16], "ultralytics")
    out = np.ones((1, 16, 16), dtype=np.bool_)
    assert decoded(name, *arguments, **options, out=out) is out
    assert out.sum() == 8 * 12


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prototypes": np.ones((4, 8, 8))}, r"coefficients have shape \(2, 3\); expected \(N, 4\) for 4 prototypes"),
        ({"prototypes": np.ones((8, 8, 3))}, r"expected \(K, 8, 8\)\. Prototypes of \(h, w, K\): np\.moveaxis"),
        ({"prototypes": np.ones((3, 8, 8), dtype=np.uint8)}, r"prototypes hold uint8; expected floats, or int8"),
        ({"scale": 0.5}, r"scale and zero_point are given for prototypes of float64; they belong to int8"),
        ({"boxes": np.ones((3, 4))}, r"boxes have shape \(3, 4\); expected \(2, 4\): x1, y1, x2, y2"),
        (
            {"prototypes": np.ones((3, 8, 8), dtype=np.int8), "zero_point": 128},
            r"scale is 1\.0 and zero_point 128; expected a number and -128\.\.127",
        ),
        ({"rule": "yolov9"}, r"there is no mask rule 'yolov9'"),
        ({"size": "full"}, r"size is 'full'; expected one of 'grid', 'canvas', 'image'"),
        ({"output": "png"}, r"output is 'png'; expected one of 'bitmap', 'soft', 'rle'"),
        ({"output": "rle", "out": np.zeros(3)}, r"out is given with output='rle'"),
        ({"out": np.zeros((2, 32, 32), dtype=np.uint8)}, r"out is uint8 of shape .*; expected C-contiguous bool"),
        ({"output": "polygons", "tolerance": -1}, r"tolerance is -1; expected pixels, 0 or more"),
    ],
)
def test_what_cannot_be_decoded_is_refused(change, message):
    arguments = {
        "coefficients": np.ones((2, 3)), "prototypes": np.ones((3, 8, 8)), "boxes": np.zeros((2, 4)),
        "letterbox": Letterbox.fit((30, 40), (32, 32)),
    }  # fmt: skip
    with pytest.raises(InputError, match=message):
        decoding.decode(**(arguments | change))


def test_a_stack_that_is_too_large_is_refused_before_it_is_made():
    letterbox = Letterbox.fit((30_000, 40_000), (32, 32))
    with pytest.raises(InputError, match=r"4 masks of 40000 x 30000 would take 4\.5 GiB, over the limit of 4 GiB"):
        decoding.decode(np.ones((4, 1)), np.ones((1, 8, 8)), None, letterbox, rule="no-crop", size="image")


PEAK = """
from pathlib import Path
import numpy as np
from maskprism import Letterbox
from maskprism.core import decoding

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

rng = np.random.default_rng(0)
prototypes = np.kron(rng.normal(size=(8, 16, 16)), np.ones((10, 10))).astype(np.float32)
weights = rng.normal(size=(300, 8)).astype(np.float32)
boxes = np.tile(np.array([[0, 80, 640, 560]], dtype=np.float32), (300, 1))
for side in (3, 3000):
    letterbox = Letterbox.fit((side, side * 4 // 3), (640, 640))
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = peak()
    masks = decoding.decode(weights, prototypes, boxes, letterbox, size="image", output="rle")
print(peak() - before, sum(len(mask["counts"]) for mask in masks), len(masks), decoding.implementation())
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of memory is read as on Linux")
def test_300_masks_of_12_megapixels_as_rle_take_less_than_10_mb():
    if engine_module.implementation() == "pure":
        pytest.skip("NumPy holds the values of one mask, and takes minutes")
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(maskprism.__file__).parents[1]),
    }
    command = [sys.executable, "-c", PEAK]
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    grown, returned, n, implementation = printed.split()
    assert (n, implementation) == ("300", "compiled")
    assert int(grown) < 10_000_000 + int(returned), f"{grown} bytes, of which {returned} are the RLE"


# Polygons


def disc(h: int, w: int, x: float, y: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:h, :w] + 0.5
    return (radius - np.hypot(columns - x, rows - y)).astype(np.float32)


def ring_and_disc() -> np.ndarray:
    """A ring with a hole, a disc within the hole, and a disc beside it."""
    ring = np.minimum(disc(40, 60, 20, 20, 16), -disc(40, 60, 20, 20, 9))
    return np.maximum.reduce([ring, disc(40, 60, 20, 20, 4), disc(40, 60, 48, 20, 8)])


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("tolerance", [0, 0.1, 1])
def test_polygons_keep_holes_and_parts(name, tolerance):
    arguments, options = one_map(ring_and_disc())
    (found,) = decoded(name, *arguments, **options, size="canvas", output="polygons", tolerance=tolerance)
    assert sorted(len(part.holes) for part in found.outlines) == [0, 0, 1]
    assert found.area == pytest.approx(16 * np.pi * (16**2 - 9**2 + 4**2 + 8**2), rel=0.03)
    assert found.iou() > (0.97 if tolerance == 1 else 0.995)


def test_the_text_of_a_polygon_has_its_outlines_and_not_the_prototypes():
    arguments, options = one_map(ring_and_disc())
    (polygon,) = decoding.decode(*arguments, **options, size="canvas", output="polygons")
    assert "exterior" in repr(polygon)
    assert "prototypes" not in repr(polygon)


def test_a_polygon_has_fewer_vertices_than_contours_of_the_bitmap():
    arguments, options = one_map(ring_and_disc())
    mask = decoding.decode(*arguments, **options, size="canvas")[0]
    contours, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    counts = [
        decoding.decode(*arguments, **options, size="canvas", output="polygons", tolerance=t)[0].n_vertices
        for t in (0.1, 0.5, 2)
    ]
    assert sum(map(len, contours)) > counts[0] > counts[1] > counts[2]


@pytest.mark.parametrize("rule", ["ultralytics", "ultralytics-8.3", "yolact", "retina"])
@pytest.mark.parametrize("size", SIZES)
def test_polygons_end_at_the_edges_of_the_crop(rule, size):
    letterbox = Letterbox.fit((90, 160), (160, 160))
    arguments, options = one_map(disc(40, 40, 20, 20, 12), letterbox, [40, 50.5, 83.25, 160], rule, size=size)
    (found,) = decoding.decode(*arguments, **options, output="polygons", tolerance=0)
    mask = decoding.decode(*arguments, **options)[0]
    assert found.iou() > (0.99 if size == "grid" else 0.995)
    vertices = np.concatenate([part.exterior for part in found.outlines])
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    assert (np.abs(vertices.min(axis=0) - (columns[0], rows[0])) < 1).all()
    assert (np.abs(vertices.max(axis=0) - (columns[-1] + 1, rows[-1] + 1)) < 1).all()


@settings(max_examples=60)
@given(data=st.data())
def test_a_polygon_without_tolerance_differs_from_the_bitmap_at_its_border_only(data):
    letterbox, size = data.draw(letterboxes()), data.draw(st.sampled_from(SIZES))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    rule = data.draw(st.sampled_from(["no-crop", "ultralytics", "ultralytics-8.2", "ultralytics-8.3", "yolact"]))
    values = rng.normal(size=letterbox.grid_hw).astype(np.float32)
    box = None if rule == "no-crop" else data.draw(boxes(letterbox.canvas_hw, 1))[0]
    arguments, options = one_map(values, letterbox, box, rule, size=size)
    (found,) = decoding.decode(*arguments, **options, output="polygons", tolerance=0)
    (crop,) = decoding.decode(*arguments, **options, output="crop")
    drawn = found.rasterise()
    assert drawn[:2] == crop[:2]
    (soft,) = decoding.decode(*arguments, **options, output="soft")
    level = soft.values - 0.5
    differ = drawn.values != crop.values
    if differ.any():  # the level passes within a pixel of their centres
        slope = sum(np.abs(np.diff(np.pad(level, 1, mode="edge"), axis=axis)).max() for axis in (0, 1))
        assert np.abs(level[differ]).max() <= 0.3 * slope


def test_positions_that_read_nan_belong_to_no_polygon():
    values = np.ones((8, 8), dtype=np.float32)
    values[3, 4] = np.nan
    arguments, options = one_map(values)
    (found,) = decoding.decode(*arguments, **options, size="canvas", output="polygons")
    assert found.iou() == 1
    assert [len(part.holes) for part in found.outlines] == [1]


def test_polygons_of_a_real_model_cover_its_masks(real_data):
    model = maskprism.load(real_data / "models" / "yolov8n-seg.onnx")
    overlaps, vertices, of_contours = [], 0, 0
    for path in sorted((real_data / "datasets" / "coco128-seg" / "images" / "train2017").glob("*.jpg"))[:24]:
        prediction = model.predict(path)
        prediction = prediction[decoding.areas(prediction, "image") > 32 * 32]
        for mask, polygon in zip(
            decoding.masks(prediction, "image"), decoding.polygons(prediction, "image"), strict=True
        ):
            contours, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
            overlaps.append(polygon.iou())
            vertices += polygon.n_vertices
            of_contours += sum(map(len, contours))
    assert len(overlaps) >= 50
    assert np.mean(overlaps) >= 0.995
    assert np.quantile(overlaps, 0.05) >= 0.985
    assert vertices < of_contours


def test_masks_of_a_real_model_equal_the_reference(real_data, record_property):
    model = maskprism.load(real_data / "models" / "yolov8n-seg.onnx")
    ties = pixels = 0
    for image in ("bus.jpg", "zidane.jpg"):
        prediction = model.predict(real_data / "images" / image)
        for rule in ("ultralytics", "ultralytics-8.2", "ultralytics-8.3"):
            for size in SIZES:
                chosen = prediction.with_rule(rule)
                for mask, patch in zip(decoding.masks(chosen, size), chosen.patches(size), strict=True):
                    differ = full(patch, mask.shape) > chosen.rule.threshold
                    differ ^= mask
                    near = np.abs(full(patch, mask.shape) - chosen.rule.threshold) <= 1e-6 * np.abs(patch.values).max()
                    assert not (differ & ~near).any()
                    ties += np.count_nonzero(differ)
                    pixels += mask.size
    record_property("ties", int(ties))
    print(f"{ties} ties among {pixels:,} pixels")
    assert ties <= 3


# The header alone, and the build


def compiled_program(source: Path, folder: Path, *flags: str) -> Path:
    program = folder / source.stem
    command = [CC, "-std=c99", "-ffp-contract=off", f"-I{FOLDER}", *flags, str(source), "-o", str(program), "-lm"]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode and any("-fsanitize" in flag for flag in flags) and "cannot find" in built.stderr:
        pytest.skip("this compiler has no sanitizers")
    assert built.returncode == 0, built.stderr
    return program


@pytest.mark.skipif(CC is None, reason="no C compiler")
def test_the_c_example_prints_the_golden_masks(tmp_path):
    program = compiled_program(FOLDER / "example.c", tmp_path, "-O2", "-Wall", "-Wextra", "-Werror", "-pedantic")
    printed = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    golden = (ROOT / "tests" / "golden" / "decode_example.txt").read_text(encoding="utf-8")
    assert printed == golden


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
def test_the_header_is_cpp_too(tmp_path):
    flags = ["-std=c++11", "-ffp-contract=off", "-Wall", "-Werror", f"-I{FOLDER}"]
    command = ["c++", *flags, "-x", "c++", str(FOLDER / "example.c"), "-o", str(tmp_path / "example")]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    printed = subprocess.run([tmp_path / "example"], capture_output=True, text=True, check=True).stdout
    assert printed == (ROOT / "tests" / "golden" / "decode_example.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ENGINES)
def test_the_golden_masks_of_the_c_example_are_those_of_the_rule(name):
    rows, columns = np.mgrid[:12, :16]
    data = np.stack([60 - 2 * (columns - 8) ** 2 - 3 * (rows - 6) ** 2, 12 * ((columns + 2 * rows) % 7)])
    prototypes = data.astype(np.int8)  # wraps, as in C
    letterbox = Letterbox((45, 64), (48, 64), (45, 64), (1, 0), (12, 16))
    arguments = ([[1, -0.5]], prototypes, [[9.5, 6, 50, 40.25]], letterbox)
    options = {"scale": 0.25, "zero_point": -3}
    lines = []
    for size in ("image", "grid"):
        (area,) = decoded(name, *arguments, **options, size=size, output="area")
        (rle,) = decoded(name, *arguments, **options, size=size, output="rle")
        lines.append(f"{rle['size'][0]}x{rle['size'][1]} area {area} {rle['counts'].decode()}")
    (mask,) = decoded(name, *arguments, **options, size="grid")
    lines += ["".join(".#"[pixel] for pixel in row) for row in mask.astype(int)]
    golden = (ROOT / "tests" / "golden" / "decode_example.txt").read_text(encoding="utf-8")
    assert golden.splitlines() == lines
    floats = (prototypes.astype(np.float32) + 3) * np.float32(0.25)
    logits = np.float32(1) * floats[0] - np.float32(0.5) * floats[1]
    for size, line in zip(("image", "grid"), lines, strict=False):
        patch = reference_decode(logits, np.array(arguments[2][0], np.float32), letterbox, RULES["ultralytics"], size)
        assert f"area {np.count_nonzero(patch.values > 0)} " in line


@pytest.mark.study
@pytest.mark.skipif(CC is None, reason="no C compiler")
def test_the_decoder_is_clean_under_the_sanitizers():
    command = [sys.executable, str(ROOT / "utils" / "fuzz_decoder.py"), "--cases", "3000"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode == 77:
        pytest.skip(result.stderr)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "3000 cases" in result.stdout


def test_the_environment_forces_numpy():
    environment = {**os.environ, "MASKPRISM_PURE": "1", "PYTHONPATH": str(ROOT / "src")}
    command = "from maskprism.core.decoding import implementation; print(implementation())"
    found = subprocess.run([sys.executable, "-c", command], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "pure"


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [("MASKPRISM_PURE", "1", "MASKPRISM_PURE is set"), ("CC", "/no/such/compiler", "/no/such/compiler")],
)
def test_a_build_without_a_compiler_is_pure_and_says_so(variable, value, reason, tmp_path, monkeypatch):
    pytest.importorskip("setuptools")
    hook_class = runpy.run_path(str(ROOT / "hatch_build.py"))["CustomBuildHook"]
    warnings = []
    monkeypatch.delenv("MASKPRISM_PURE", raising=False)
    monkeypatch.setenv(variable, value)
    hook = type("Hook", (hook_class,), {"app": types.SimpleNamespace(display_warning=warnings.append)})
    assert hook.__new__(hook)._attempt(tmp_path) is None
    assert len(warnings) == 1
    assert "The decoder was not compiled, so NumPy decodes masks" in warnings[0]
    assert reason in warnings[0]
