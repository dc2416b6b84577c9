"""What is checked before the numbers of a model are used: which model, scores, NaN and infinity, repeatability."""

from __future__ import annotations

import itertools
import subprocess
import sys
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest

import maskprism
from helpers import in_process
from helpers.tiny_models import KEPT, Tiny, save_tiny_tflite
from maskprism.datasets.scenes import write_dataset
from maskprism.errors import InputError, ModelError, ModelWarning
from maskprism.models import SAMPLE_MODEL
from maskprism.models.families.rows import Thresholds, finite_columns
from maskprism.models.families.yolact import YolactLayout
from maskprism.models.runtimes import FunctionRuntime, NetworkInput, fill_heap, litert

WHITE = np.full((64, 64, 3), 255, dtype=np.uint8)
FAMILIES = ("yolov8", "yolov5", "end2end")


def spoiled(family: str, spoil, folder: Path) -> FunctionRuntime:
    """A tiny model whose table of detections (columns, candidates) `spoil` changes."""
    runtime = maskprism.load(Tiny(family=family).save(folder / "tiny.onnx"), layout=family).runtime

    def compute(batch: np.ndarray) -> list[np.ndarray]:
        rows, prototypes = runtime(batch)
        table = rows[0] if family == "yolov8" else rows[0].T
        spoil(table, prototypes)
        return [rows, prototypes]

    return FunctionRuntime(compute, NetworkInput(1, 64, 64))


# --- which model ----------------------------------------------------------------------------------


def test_no_model_is_chosen_silently(tmp_path: Path) -> None:
    """The bundled demo model knows drawn shapes only: of other images its numbers mean nothing."""
    for use in (maskprism.load, lambda: maskprism.show(WHITE)):
        with pytest.raises(InputError, match=r"no model is given; expected .*--model best\.pt.*--model sample"):
            use()
    data = write_dataset(tmp_path, 1, validation_share=1.0)
    images = tmp_path / "images"
    for line in (
        ("info",),
        ("serve", images),
        ("explain", images, "--out", tmp_path / "explained"),
        ("page", images, "--out", tmp_path / "page.html"),
        ("prototypes", images, "--out", tmp_path / "prototypes"),
        ("basis", images, "--out", tmp_path / "basis"),
        ("diagnose", data, "--out", tmp_path / "diagnosis"),
        ("extract", images, "--out", tmp_path / "table.csv"),
        ("tune", "--data", data, "--out", tmp_path / "tuned.onnx"),
        ("reduce", "--images", images, "--keep", 7, "--out", tmp_path / "small.onnx"),
    ):
        result = in_process.command(*line)
        assert result.returncode == 1, line
        assert "no model is given; expected a file, such as --model best.pt" in result.stderr, result.stderr


def test_the_bundled_model_is_there_when_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sha256 = maskprism.load(SAMPLE_MODEL).spec.sha256
    assert maskprism.load("sample").spec.sha256 == sha256
    for arguments in (("--model", "sample"), ("sample",)):
        assert sha256 in in_process.command("info", *arguments).stdout
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="sample: there is no such model file"):
        maskprism.load(Path("sample"))


@pytest.mark.parametrize("address", ["https://example.com/best.onnx", "s3://user:secret@bucket/best.onnx"])
def test_an_address_is_no_file(address: str) -> None:
    for given in (address, Path(address)):
        with pytest.raises(ModelError, match=r"://.*best\.onnx: is an address; download the model first") as raised:
            maskprism.load(given)
        assert "secret" not in str(raised.value)


# --- scores ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_before_the_sigmoid_are_refused(family: str, tmp_path: Path) -> None:
    def logits(table: np.ndarray, _: np.ndarray) -> None:
        last = 5 if family == "end2end" else len(table) - 8
        table[4:last] = np.log(np.maximum(table[4:last], 1e-4)) - np.log1p(-np.minimum(table[4:last], 0.9999))

    with pytest.raises(ModelError, match=r"FunctionRuntime: scores go from -\d.*; expected 0 to 1\. They look like"):
        maskprism.load(spoiled(family, logits, tmp_path), layout=family)


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_out_of_range_on_one_image_cost_that_image(family: str, tmp_path: Path) -> None:
    """A model may behave on the canvas that it is tried with, and not on an image."""
    calls = itertools.count()

    def later(table: np.ndarray, _: np.ndarray) -> None:
        if next(calls) > 2:
            table[4, 0] = 2.2

    model = maskprism.load(spoiled(family, later, tmp_path), layout=family)
    with pytest.raises(
        ModelError, match=r"from 0.* to 2\.2; expected 0 to 1.*logits, divide by 100 if they are in per"
    ):
        model.predict(WHITE)


def test_scores_of_eight_bits_may_miss_the_range_by_a_step(tmp_path: Path) -> None:
    def quantised(table: np.ndarray, _: np.ndarray) -> None:
        table[4:7] = np.where(table[4:7] > 0.5, 1.02, -0.02)

    assert len(maskprism.load(spoiled("yolov8", quantised, tmp_path)).predict(WHITE)) > 0


def test_scores_that_share_eight_bits_with_boxes_are_zero_or_one(tmp_path: Path) -> None:
    def quantised(table: np.ndarray, _: np.ndarray) -> None:
        table[4:7] = np.where(table[4:7] > 0.5, 1.27, 0)

    found = maskprism.load(spoiled("yolov8", quantised, tmp_path)).predict(WHITE)
    assert len(found) > 0
    assert set(found.scores.tolist()) == {1.0}


# --- NaN and infinity -----------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", ["box", "score", "coefficient"])
@pytest.mark.parametrize("family", FAMILIES)
def test_detections_that_are_not_finite_are_counted(family: str, column: str, value: float, tmp_path: Path) -> None:
    if (column, value) == ("score", -np.inf):
        pytest.skip("is below every threshold")
    which = {"box": 1, "score": 4, "coefficient": -1}[column]

    def of_one(table: np.ndarray, _: np.ndarray) -> None:
        best = table[4] if family != "yolov8" else table[4:7].max(axis=0)
        table[which, int(best.argmax())] = value

    def of_all(table: np.ndarray, _: np.ndarray) -> None:
        table[which] = value

    model = maskprism.load(spoiled(family, of_one, tmp_path), layout=family)
    with pytest.warns(ModelWarning, match="image: 1 detection left out: NaN or infinity"):
        prediction = model.predict(WHITE)
    assert len(prediction) > 0
    assert np.isfinite(prediction.canvas_boxes).all()
    with pytest.raises(ModelError, match=r"detections? left out: NaN or infinity, and there are no others; export"):
        maskprism.load(spoiled(family, of_all, tmp_path), layout=family).predict(WHITE)


def test_a_model_that_overflows_is_no_model_without_instances(tmp_path: Path) -> None:
    """An export in half precision may compute NaN everywhere: that is a failure of every image, not an empty table."""
    images = tmp_path / "images"
    images.mkdir()
    for number in range(2):
        cv2.imwrite(str(images / f"{number}.png"), WHITE)
    file = Tiny().model()
    for tensor in file.graph.initializer:
        if tensor.raw_data and tensor.data_type == 1:
            values = np.frombuffer(tensor.raw_data, np.float32)
            tensor.raw_data = np.full_like(values, np.nan).tobytes() if values.size > 100 else tensor.raw_data
    (tmp_path / "broken.onnx").write_bytes(file.SerializeToString())
    done = in_process.command(
        "extract", images, "--model", tmp_path / "broken.onnx", "--out", tmp_path / "table.csv", "--json"
    )
    assert done.returncode == 1
    assert "NaN or infinity, and there are no others" in done.stderr


def test_prototypes_that_are_not_finite_cost_the_image(tmp_path: Path) -> None:
    def spoil(_: np.ndarray, prototypes: np.ndarray) -> None:
        prototypes[0, 3, 5, 7] = np.inf

    with pytest.raises(ModelError, match=r"^prototypes 3 hold NaN or infinity; export the model again, in single"):
        maskprism.load(spoiled("yolov8", spoil, tmp_path)).predict(WHITE)


def test_sums_that_overflow_are_no_reason_to_leave_out(tmp_path: Path) -> None:
    table = np.array([[3e38, 1, np.nan, np.inf], [3e38, 2, 1, -np.inf]], dtype=np.float32)
    assert finite_columns(table).tolist() == [True, True, False, False]

    def large(_: np.ndarray, prototypes: np.ndarray) -> None:
        prototypes[:] = 3e38

    assert len(maskprism.load(spoiled("yolov8", large, tmp_path)).predict(WHITE)) == len(KEPT)


def test_candidates_of_a_yolact_that_are_not_finite_are_counted() -> None:
    priors = np.full((1, 4, 4), 0.5, np.float32)
    scores = np.tile(np.float32([0.1, 0.9]), (1, 4, 1))
    boxes, coefficients = np.zeros((1, 4, 4), np.float32), np.ones((1, 4, 3), np.float32)
    boxes[0, 1, 0], scores[0, 2, 1] = np.nan, np.nan
    layout = YolactLayout("yolact", 2, 4, True, True, 1, 3, 0, 1, 3, None)
    outputs = [boxes, scores, coefficients, priors, np.ones((1, 4, 4, 3), np.float32)]
    assert layout.read_rows(outputs, 0, (64, 64), Thresholds(iou=1)).n_not_finite == 2


def test_notes_of_many_images_are_counted(tmp_path: Path) -> None:
    """The first ones are printed, and how many there were."""

    def spoil(table: np.ndarray, _: np.ndarray) -> None:
        table[0, int(table[4:7].max(axis=0).argmax())] = np.nan

    from maskprism.cli.output import SHOWN_NOTES, model_warnings_as_notes

    model = maskprism.load(spoiled("yolov8", spoil, tmp_path))
    import contextlib
    import io

    for quiet, expected in ((False, SHOWN_NOTES + 1), (True, 0)):
        with contextlib.redirect_stderr(io.StringIO()) as printed, model_warnings_as_notes(quiet):
            for _ in range(SHOWN_NOTES + 3):
                model.predict(WHITE)
        lines = printed.getvalue().splitlines()
        assert len(lines) == expected
        assert quiet or lines[-1] == "note: and 3 more of such notes"


# --- the same answer every time -------------------------------------------------------------------


def test_a_network_that_answers_otherwise_the_second_time_is_told(tmp_path: Path) -> None:
    calls = itertools.count()

    def drifting(table: np.ndarray, _: np.ndarray) -> None:
        table[0, 0] += next(calls)

    with pytest.warns(ModelWarning, match="FunctionRuntime: the same input gave other outputs when it was run again"):
        model = maskprism.load(spoiled("yolov8", drifting, tmp_path))
    assert "results change from run to run" in model.spec.notes[-1]


def test_a_network_that_remembers_the_image_before_is_told(tmp_path: Path) -> None:
    """Scratch memory that is never cleared: the same image twice would not show it."""
    before = [np.float32(0)]

    def leftover(table: np.ndarray, prototypes: np.ndarray) -> None:
        table[0, 0] += before[0]
        before[0] = prototypes.mean()

    with pytest.warns(ModelWarning, match="the same input gave other outputs"):
        maskprism.load(spoiled("yolov8", leftover, tmp_path))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_sound_network_is_run_three_times_and_not_told(family: str, tmp_path: Path) -> None:
    calls = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = maskprism.load(spoiled(family, lambda *_: calls.append(1), tmp_path), layout=family)
    assert (len(calls), model.spec.notes) == (3, ())


def test_memory_is_filled_far_beyond_the_largest_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    full, sizes = np.full, []

    def counted(size: int, *how: object, **options: object) -> np.ndarray:
        sizes.append(size)
        return full(size, *how, **options)

    monkeypatch.setattr(np, "full", counted)
    for largest, expected in ((3 * 64 * 64, 1 << 18), (3 * 640 * 640, 1 << 21)):
        sizes.clear()
        fill_heap(np.nan, largest)
        assert max(sizes) == expected


def test_depthwise_convolutions_of_mixed_numbers_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LiteRT reads uninitialised memory there."""
    pytest.importorskip("ai_edge_litert")
    assert maskprism.load(save_tiny_tflite(tmp_path / "float.tflite", first="float32")).spec.prototypes == 3
    path = save_tiny_tflite(tmp_path / "best_int8.tflite", first="int8")
    with pytest.raises(
        ModelError,
        match=r"best_int8\.tflite: has 1 DEPTHWISE_CONV_2D with float input and int8 weights.*integer_quant",
    ):
        maskprism.load(path)
    monkeypatch.setattr(litert, "_hybrid_depthwise_convolutions", lambda path: 0)
    runtime = maskprism.load(path).runtime
    assert runtime.fresh()._interpreter is not runtime._interpreter


def test_a_file_for_the_edge_tpu_is_named_as_such(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    path = save_tiny_tflite(tmp_path / "best_edgetpu.tflite", first="edge tpu")
    with pytest.raises(
        ModelError, match=r"is compiled for the Edge TPU .* open the \.tflite that it was compiled from"
    ):
        maskprism.load(path)


@pytest.mark.parametrize(
    ("file", "stable"),
    [("yolo11n-seg_cells_int8", False), ("yolo11n-seg_cells_integer_quant", True), ("yolov8n-seg_int8", True)],
)
def test_real_files_of_litert(file: str, stable: bool, real_data: Path) -> None:
    """The probe alone finds the file that is refused, and lets the others pass.

    In a process of its own, as for a command: what memory holds after thousands of tests hides what a kernel reads.
    """
    pytest.importorskip("ai_edge_litert")
    path = real_data / "models" / f"{file}.tflite"
    if not stable:
        with pytest.raises(ModelError, match=r"has 2 DEPTHWISE_CONV_2D"):
            maskprism.load(path)
    probe = (
        "import sys, maskprism; from maskprism.models.runtimes import litert; "
        "litert._hybrid_depthwise_convolutions = lambda path: 0; print(len(maskprism.load(sys.argv[1]).spec.notes))"
    )
    done = subprocess.run([sys.executable, "-c", probe, str(path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) == (not stable)
    assert ("ModelWarning" in done.stderr) == (not stable)
