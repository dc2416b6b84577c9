"""Raw outputs of edge runtimes: cut out of a model in front of its head, they give the model's own predictions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import maskprism
from helpers.in_process import command as run
from helpers.tiny_heads import tensors_of, write_tiny_head
from helpers.tiny_models import Tiny
from maskprism import Prediction, from_raw
from maskprism.analysis.comparison.paired_run import compare
from maskprism.errors import InputError, ModelError
from maskprism.models import Model
from maskprism.models.families.raw_outputs import assemble
from maskprism.models.families.rows import Thresholds

Tensors = dict[str, np.ndarray]
PIECES = ("box", "cls", "coef")
TINY = {piece: [f"{piece}{level}" for level in range(3)] for piece in PIECES} | {
    "flat": ["box", "cls", "coef"],
    "decoded": ["boxes", "scores", "coef"],
    "outputs": ["output0", "output1"],
}
ULTRALYTICS = {
    piece: [f"/model.22/{branch}.{level}/{branch}.{level}.2/Conv_output_0" for level in range(3)]
    for piece, branch in zip(PIECES, ("cv2", "cv3", "cv4"), strict=True)
} | {
    "flat": ["/model.22/Concat_output_0", "/model.22/Concat_1_output_0", "/model.22/Concat_2_output_0"],
    "decoded": ["/model.22/Mul_2_output_0", "/model.22/Sigmoid_output_0", "/model.22/Concat_2_output_0"],
    "outputs": ["output0", "output1"],
}


class Cut:
    """A model, an image, and the tensors inside of the model for that image."""

    def __init__(self, model: Model, path: Any, names: dict[str, list[str]], image: np.ndarray) -> None:
        self.image, self.expected = image, model.predict(image)
        letterbox, prepare = self.expected.letterbox, model.spec.preprocessing
        self.batch = prepare.tensor([prepare.exact_canvas(image, letterbox)], [letterbox])
        found = tensors_of(path, sorted({name for group in names.values() for name in group}), self.batch)
        self.tensors = {group: [found[name] for name in members] for group, members in names.items()}
        self.names = dict(model.spec.names)

    @property
    def prototypes(self) -> np.ndarray:
        return self.tensors["outputs"][1]

    @property
    def levels(self) -> list[tuple[np.ndarray, ...]]:
        return list(zip(*(self.tensors[piece] for piece in PIECES), strict=True))


def logistic(values: np.ndarray) -> np.ndarray:
    return (1 / (1 + np.exp(-values.astype(np.float64)))).astype(np.float32)


def last(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(values, 1, -1))


def rknn(cut: Cut) -> list[np.ndarray]:
    found = []
    for box, classes, coefficients in cut.levels:
        scores = logistic(classes)
        found += [box, scores, np.clip(scores.sum(axis=1, keepdims=True), 0, 1), coefficients]
    return [*found, cut.prototypes]


def hailo(cut: Cut) -> Tensors:
    found = {}
    for level, (box, classes, coefficients) in enumerate(cut.levels):
        found |= {f"net/conv{level}{i}": last(one)[0] for i, one in enumerate((box, logistic(classes), coefficients))}
    return found | {"net/conv48": last(cut.prototypes)[0]}


def ncnn(cut: Cut) -> Tensors:
    box, classes, coefficients = (tensor[0].T for tensor in cut.tensors["flat"])
    return {"out0": np.concatenate([box, classes], axis=1), "out1": coefficients, "out2": cut.prototypes[0]}


def ncnn_with_coefficients_twice(cut: Cut) -> Tensors:
    found = ncnn(cut)
    return found | {"out0": np.concatenate([found["out0"], found["out1"]], axis=1)}


def edgefirst(cut: Cut) -> Tensors:
    boxes, scores, coefficients = cut.tensors["decoded"]
    height, width = cut.expected.letterbox.canvas_hw
    shares = boxes / np.array([width, height, width, height], dtype=np.float32)[:, None]
    return {"boxes": shares, "scores": scores, "masks": coefficients, "protos": last(cut.prototypes)}


LAYOUTS: dict[str, tuple[Any, Callable[[Cut], Any], dict[str, Any]]] = {
    "rknn": ("rknn", rknn, {}),
    "rknn of the RV1106, channels last": ("rknn", lambda cut: [last(one) for one in rknn(cut)], {}),
    "hailo": ("hailo", hailo, {}),
    "hailo, from logits, shuffled": (
        "hailo",
        lambda cut: {
            f"{i}": last(one)
            for i, one in enumerate([cut.prototypes, *(part for level in cut.levels for part in level[::-1])])
        },
        {"class_logits": True},
    ),
    "ncnn in pieces": ("ncnn", ncnn, {}),
    "ncnn, coefficients twice": ("ncnn", ncnn_with_coefficients_twice, {}),
    "ncnn as Ultralytics exports it": ("ncnn", lambda cut: [one[0] for one in cut.tensors["outputs"]], {}),
    "coreml": ("coreml", lambda cut: {"p": cut.prototypes, "var_1289": cut.tensors["outputs"][0]}, {}),
    "tensorrt, flat buffers": (
        "tensorrt",
        lambda cut: {
            name: one.ravel() for name, one in zip(("output0", "output1"), cut.tensors["outputs"], strict=True)
        },
        {"canvas": True},
    ),
    "tensorrt, flattened prototypes": (
        "tensorrt",
        lambda cut: [cut.tensors["outputs"][0], cut.prototypes.reshape(1, cut.prototypes.shape[1], -1)],
        {"canvas": True},
    ),
    "deepstream": ("deepstream", lambda cut: [one[0] for one in cut.tensors["outputs"]], {}),
    "deepstream, a row per candidate": (
        "deepstream",
        lambda cut: [cut.tensors["outputs"][0][0].T, cut.prototypes[0]],
        {},
    ),
    "edgefirst": ("edgefirst", edgefirst, {}),
}


def again(cut: Cut, case: str, **changes: Any) -> Prediction:
    layout, build, options = LAYOUTS[case]
    options = dict(options)
    if options.pop("canvas", False):
        options["canvas_hw"] = cut.expected.letterbox.canvas_hw
    options = {"layout": layout, "names": cut.names} | options | changes
    return from_raw(build(cut), cut.image, **options)


def assert_equal(found: Prediction, expected: Prediction) -> None:
    assert len(found) == len(expected) > 1
    assert found.letterbox == expected.letterbox
    assert found.names == expected.names
    np.testing.assert_array_equal(found.classes, expected.classes)
    np.testing.assert_array_equal(found.levels, expected.levels)
    np.testing.assert_array_equal(found.coefficients, expected.coefficients)
    np.testing.assert_array_equal(found.prototypes, expected.prototypes)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-6)
    largest = max(expected.letterbox.canvas_hw)
    np.testing.assert_allclose(found.canvas_boxes, expected.canvas_boxes, rtol=1e-6, atol=1e-6 * largest)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Cut:
    path = write_tiny_head(tmp_path_factory.mktemp("head") / "head.onnx")
    image = np.random.default_rng(0).integers(0, 256, (100, 120, 3), dtype=np.uint8)
    return Cut(maskprism.load(path), path, TINY, image)


@pytest.fixture(scope="module")
def real(real_data) -> Cut:
    path = real_data / "models" / "yolov8n-seg.onnx"
    return Cut(maskprism.load(path), path, ULTRALYTICS, cv2.imread(str(real_data / "images" / "bus.jpg")))


@pytest.mark.parametrize("case", LAYOUTS)
def test_a_head_that_was_cut_off_gives_the_models_own_prediction(tiny, case):
    found = again(tiny, case)
    assert_equal(found, tiny.expected)
    np.testing.assert_array_equal(found.masks("image"), tiny.expected.masks("image"))


@pytest.mark.parametrize("case", LAYOUTS)
def test_a_real_head_that_was_cut_off_gives_the_models_own_prediction(real, case):
    found = again(real, case)
    assert_equal(found, real.expected)
    np.testing.assert_array_equal(found.masks("image"), real.expected.masks("image"))


def quantised(outputs: Any) -> tuple[Any, Any, Any]:
    """Outputs as int8, with the scale and zero point of each."""
    items = outputs.items() if isinstance(outputs, dict) else enumerate(outputs)
    found: list[tuple[Any, np.ndarray, float, int]] = []
    for key, values in items:
        low, high = min(float(values.min()), 0), max(float(values.max()), 0)
        scale = (high - low) / 255
        zero = round(-128 - low / scale)
        found.append((key, np.clip(np.rint(values / scale) + zero, -128, 127).astype(np.int8), scale, zero))
    if isinstance(outputs, dict):
        return tuple({key: entry[i] for key, *entry in found} for i in range(3))
    return tuple([entry[i] for _, *entry in found] for i in range(3))


@pytest.mark.parametrize("layout", ["rknn", "hailo"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_as_many_classes_as_a_grid_has_rows_and_columns(layout, channels_last):
    """80 classes on the grid of 80 x 80 of a 640 x 640 input: only the other maps say where the channels are."""
    rng = np.random.default_rng(0)
    classes, outputs = [], []
    for side in (8, 4, 2):
        maps = [rng.normal(size=(64, side, side)), rng.random((8, side, side)), rng.normal(size=(4, side, side))]
        classes.append(maps[1].reshape(8, -1))
        if layout == "rknn":
            maps.insert(2, maps[1].sum(axis=0, keepdims=True))
        outputs += maps
    outputs.append(rng.normal(size=(4, 16, 16)))
    arrays = [np.moveaxis(one, 0, -1) if channels_last else one for one in outputs]
    read = assemble([one.astype(np.float32) for one in arrays], layout)
    np.testing.assert_array_equal(read.table[0, 4:12], np.concatenate(classes, axis=1).astype(np.float32))


@pytest.mark.parametrize("case", ["rknn", "hailo", "edgefirst"])
@pytest.mark.parametrize("source", ["tiny", "real"])
def test_int8_outputs_differ_by_no_more_than_their_step(source, case, request):
    cut = request.getfixturevalue(source)
    layout, build, options = LAYOUTS[case]
    outputs, scale, zero_point = quantised(build(cut))
    found = from_raw(outputs, cut.image, layout=layout, names=cut.names, scale=scale, zero_point=zero_point, **options)
    scales = list(scale.values()) if isinstance(scale, dict) else scale
    assert np.abs(found.prototypes - cut.expected.prototypes).max() <= scales[-1] * 0.5001
    sure = np.flatnonzero(cut.expected.scores > 0.6) if source == "real" else []
    step = max(scales[:-1])
    for row in sure:  # is there with its class, and with coefficients and score up to a step
        distances = np.abs(found.coefficients - cut.expected.coefficients[row]).max(axis=1)
        matched_with = int(distances.argmin())
        assert distances[matched_with] <= step
        assert found.classes[matched_with] == cut.expected.classes[row]
        assert abs(found.scores[matched_with] - cut.expected.scores[row]) <= step


def test_names_scales_thresholds_and_frames_can_be_given(tiny):
    outputs = hailo(tiny)
    step = 1 / 64
    whole = {
        name: np.clip(np.rint(values / step), -(2**15), 2**15 - 1).astype(np.int16) for name, values in outputs.items()
    }
    by_number = from_raw(list(whole.values()), tiny.image, layout="hailo", scale=step, zero_point=0)
    by_name = from_raw(
        whole, (100, 120), layout="hailo", scale=dict.fromkeys(whole, step), zero_point=dict.fromkeys(whole, 0)
    )
    np.testing.assert_array_equal(by_number.masks("image"), by_name.masks("image"))
    assert by_number.names == {0: "class0", 1: "class1", 2: "class2"}
    few = again(tiny, "hailo", keep=Thresholds(conf=0.9, max_det=2))
    assert len(few) == 2
    stretched = again(tiny, "hailo", preprocessing="yolact", rule="no-crop")
    assert stretched.letterbox.content_hw == stretched.letterbox.canvas_hw
    assert stretched.rule.name == "no-crop"
    placed = again(tiny, "hailo", letterbox=stretched.letterbox)
    assert placed.letterbox == stretched.letterbox
    with pytest.raises(InputError, match=r"letterbox is of an image of \(100, 120\)"):
        from_raw(outputs, (90, 120), layout="hailo", letterbox=stretched.letterbox)


def test_a_finished_head_and_one_with_objectness_are_read_by_their_tables(tmp_path):
    for family, layout in (("end2end", "tensorrt"), ("yolov5", "coreml")):
        names = {0: "cat", 1: "dog", 2: "fish"}
        tiny = Tiny(family, metadata={"names": str(names), "task": "segment", "end2end": str(family == "end2end")})
        model = maskprism.load(tiny.save(tmp_path / f"{family}.onnx"))
        image = np.full((64, 64, 3), 255, dtype=np.uint8)
        outputs = model.runtime(np.ones((1, 3, 64, 64), dtype=np.float32))
        found = from_raw([one[0] for one in outputs], image, layout=layout, names=names if family != "end2end" else ())
        expected = model.predict(image)
        np.testing.assert_array_equal(found.scores, expected.scores)
        np.testing.assert_array_equal(found.canvas_boxes, expected.canvas_boxes)
        np.testing.assert_array_equal(found.coefficients, expected.coefficients)


def loud(cut: Cut) -> Tensors:
    found = hailo(cut)
    return found | {"net/conv01": found["net/conv01"] * 9}


def three_sides(cut: Cut) -> Tensors:
    found = edgefirst(cut)
    return found | {"boxes": found["boxes"][:, :3]}


def two_images(cut: Cut) -> list[np.ndarray]:
    return [np.concatenate([one] * 2) for one in cut.tensors["outputs"]]


def whole_prototypes(cut: Cut) -> list[np.ndarray]:
    return [*rknn(cut)[:-1], np.zeros((1, 8, 16, 24), dtype=np.int8)]


FINISHED = [np.zeros((1, 7, 6 + 160 * 160), dtype=np.float32)]
NO_SCALES = {"scale": [None] * 2, "zero_point": [None] * 13}
SCALES = {"scale": [0.1] * 13, "zero_point": [0] * 13}


def without(index: int) -> Callable[[Cut], Any]:
    return lambda cut: [one for i, one in enumerate(rknn(cut)) if i != index]


@pytest.mark.parametrize(
    ("layout", "build", "options", "words"),
    [
        ("onnx", rknn, {}, r"there is no layout 'onnx' of raw outputs; expected one of rknn, hailo, "),
        ("rknn", without(3), {}, r"expected boxes \(64, 8, 12\), classes \(3, 8, 12\).*coefficients missing"),
        ("rknn", without(4), {}, r"level of stride 16: .*came channels \[3, 1, 8\] on that grid: boxes missing"),
        ("rknn", without(12), {}, r"layout 'rknn' expects for each level boxes .*; came output 0 \(64, 8, 12\), "),
        ("hailo", rknn, {}, r"level of stride 8: expected boxes .* came channels \[64, 3, 1, 8\]"),
        ("hailo", loud, {}, r"classes go from .*class_logits=True"),
        ("ncnn", lambda cut: list(ncnn(cut).values())[::2], {}, r"tables of \[67\] columns"),
        ("tensorrt", lambda cut: [cut.prototypes[0].ravel()], {}, r"need canvas_hw=\(height, width\)"),
        ("edgefirst", three_sides, {}, r"tables of \[3, 3, 8\] columns are not"),
        ("tensorrt", two_images, {}, r"expected the outputs of one image, a batch of 1"),
        ("rknn", whole_prototypes, {}, r"output 12 holds int8, without a scale"),
        ("rknn", rknn, SCALES, r"output 0 holds float32 .*its scale belongs to integers"),
        ("rknn", rknn, NO_SCALES, r"there are 2 scales or zero points"),
        ("rknn", lambda cut: quantised(rknn(cut))[0], {"scale": -1, "zero_point": 0}, r"scale of output 0 is -1"),
        ("rknn", lambda cut: [np.array(["x"])], {}, r"output 0 holds <U1; expected numbers"),
        ("deepstream", lambda cut: FINISHED, {}, r"for DeepStream: rows of box, score, class and a finished mask"),
        ("rknn", rknn, {"names": ["a", "b"]}, r"classes \(2, 8, 12\).*classes missing"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said(tiny, layout, build, options, words):
    with pytest.raises(InputError, match=words):
        from_raw(build(tiny), tiny.image, **({"layout": layout, "names": tiny.names} | options))


def test_an_ncnn_table_is_not_guessed(tiny):
    outputs = [one[0] for one in tiny.tensors["outputs"]]
    wide = [np.concatenate([outputs[0]] * 6)[:88], outputs[1]]
    with pytest.raises(InputError, match="88 columns can hold boxes of 4 or 64 values; give names="):
        from_raw(wide, tiny.image, layout="ncnn")


def test_broken_prototypes_are_refused(tiny):
    outputs = hailo(tiny)
    outputs["net/conv48"] = outputs["net/conv48"] * np.float32("inf")
    with pytest.raises(ModelError, match="NaN or infinity"):
        from_raw(outputs, tiny.image, layout="hailo")


def write_dump(path: Path, outputs: dict[str, Any], layout: str, **settings: Any) -> Path:
    """Write recorded outputs by image: arrays by name, or a list of them."""
    arrays: dict[str, Any] = {"layout": layout, "images": list(outputs), **settings}
    for number, recorded in enumerate(outputs.values()):
        named = (
            recorded.items() if isinstance(recorded, dict) else ((f"output{i}", one) for i, one in enumerate(recorded))
        )
        arrays |= {f"{number}/{name}": array for name, array in named}
    np.savez_compressed(path, **arrays)
    return path


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A model, a folder of images, and what RKNN would give for them as int8."""
    folder = tmp_path_factory.mktemp("recorded")
    model = write_tiny_head(folder / "head.onnx")
    (folder / "images" / "more").mkdir(parents=True)
    outputs, settings = {}, {}
    for number, name in enumerate(("a.png", "more/b.png", "more/a.png")):
        image = np.random.default_rng(number).integers(0, 256, (100, 120 - number, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / "images" / name), image)
        outputs[name], scales, zeros = quantised(rknn(Cut(maskprism.load(model), model, TINY, image)))
        if not number:
            settings = {f"scale/output{i}": scale for i, scale in enumerate(scales)}
            settings |= {f"zero_point/output{i}": zero for i, zero in enumerate(zeros)}
            fixed = scales, zeros
        else:
            outputs[name] = requantised(rknn(Cut(maskprism.load(model), model, TINY, image)), *fixed)
    names = [f"kind{i}" for i in range(3)]
    return model, folder / "images", write_dump(folder / "dump.npz", outputs, "rknn", names=names, **settings)


def requantised(outputs: list[np.ndarray], scales: list[float], zeros: list[int]) -> list[np.ndarray]:
    return [
        np.clip(np.rint(values / scale) + zero, -128, 127).astype(np.int8)
        for values, scale, zero in zip(outputs, scales, zeros, strict=True)
    ]


def test_a_dump_stands_in_for_a_model_and_knows_its_images(recorded):
    model_path, images, dump = recorded
    model, device = maskprism.load(model_path), maskprism.load(dump)
    assert (device.spec.names, device.spec.input_hw) == (model.spec.names, model.spec.input_hw)
    predictions = device.predict([images / "a.png", images / "more" / "a.png", images / "more" / "b.png"])
    for name, found in zip(("a.png", "more/a.png", "more/b.png"), predictions, strict=True):
        expected = model.predict(images / name)
        assert found.letterbox == expected.letterbox
        assert np.abs(found.prototypes - expected.prototypes).max() < 0.2
    with pytest.raises(ModelError, match=r"dump.npz: holds no outputs for this image; it has 3 images: a.png, "):
        device.predict(write_image(images.parent / "c.png"))
    with pytest.raises(ModelError, match="expected images by their paths, not arrays"):
        device.predict(cv2.imread(str(images / "a.png")))


def write_image(path: Path) -> Path:
    cv2.imwrite(str(path), np.zeros((8, 8, 3), dtype=np.uint8))
    return path


def test_a_dump_is_compared_with_the_model_that_was_exported(recorded, tmp_path):
    model, images, dump = recorded
    done = run("compare", model, dump, "--images", images, "--out", tmp_path / "out")
    assert done.returncode in (0, 3), done.stderr
    assert "3 images" in done.stdout
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert (found["images"], found["failed"]) == (3, {})
    assert found["mask_iou"]["mean"] > 0.9


def test_float_outputs_in_a_dump_leave_no_difference(recorded, tmp_path):
    model, images, _ = recorded
    outputs = {}
    for path in sorted(images.rglob("*.png")):
        cut = Cut(maskprism.load(model), model, TINY, cv2.imread(str(path)))
        outputs[str(path.relative_to(images))] = hailo(cut)
    dump = write_dump(tmp_path / "hailo.npz", outputs, "hailo", canvas_hw=(64, 96))
    found = compare(model, dump, images)
    assert (found.images, found.failed, found.forced) == (3, {}, None)
    assert min(row["mask_iou"] for row in found.instances.to_pylist()) == 1


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"images": ["a.png"]}, "layout missing; expected a dump of raw outputs: layout, images, and for image I"),
        ({"layout": "rknn", "images": []}, "holds no images"),
        ({"layout": "rknn", "images": ["a.png"], "0/x": np.array([None])}, "cannot be read"),
        (
            {"layout": "rknn", "images": ["a.png"], "0/x": np.zeros((1, 2, 3, 4))},
            "image 0, a.png: layout 'rknn'",
        ),
        (
            {"layout": "rknn", "images": ["a.png"], "canvas_hw": 3},
            r"canvas_hw holds int64 of shape \(\)",
        ),
    ],
)
def test_a_dump_that_is_none_is_refused(arrays, words, tmp_path):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(ModelError, match=words):
        maskprism.load(tmp_path / "bad.npz")


def test_what_is_no_dump_is_refused(tmp_path):
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(ModelError, match="cannot be read"):
        maskprism.load(tmp_path / "bad.npz")
