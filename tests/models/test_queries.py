"""ONNX files that hold finished masks: the product is found, its factors come back, and they add up to the masks."""

from __future__ import annotations

import sys
from dataclasses import replace

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import maskprism
from helpers import reference
from helpers.in_process import command
from helpers.tiny_models import Tiny
from helpers.tiny_queries import SIDE, TinyQueries
from maskprism.errors import InputError, MissingExtraError, ModelError
from maskprism.models.families.query import _line, find_queries, has_finished_masks
from maskprism.models.families.rows import Thresholds
from maskprism.models.onnx.mask_branch import MaskBranch, factors, find_mask_branch, reveal, write_revealed
from maskprism.models.rewrite import write_reduced
from maskprism.models.runtimes.onnx import OnnxRuntime

SAM = TinyQueries("sam", queries=4, k=32)
VARIANTS = {
    "Mask2Former": TinyQueries(),
    "Mask2Former, 256 prototypes": TinyQueries(k=256, queries=20),
    "Mask2Former, half": TinyQueries(half=True),
    "Mask2Former, batch of 2": TinyQueries(batch=2),
    "Mask2Former, enlarged, probabilities": TinyQueries(after=("resize", "sigmoid")),
    "RF-DETR": TinyQueries("rf-detr", bias=-0.75),
    "RF-DETR, flat": TinyQueries("rf-detr flat", bias=0.5),
    "RF-DETR, flat and flipped": TinyQueries("rf-detr flat", bias=0.5, flipped=True, queries=5),
    "scaled and shifted": TinyQueries("rf-detr", bias=0.25, gain=0.125),
    "RF-DETR, flat and wide": TinyQueries("rf-detr flat", bias=0.5, width=96),
    "SAM": SAM,
    "SAM, without its first token": replace(SAM, after=("slice",)),
    "SAM, without its first token, enlarged": replace(SAM, after=("slice", "resize")),
    "SAM, flipped": replace(SAM, flipped=True),
}
LOWEST = {"conf": 0.0, "max_det": 10_000}


def picture(width: int = SIDE) -> np.ndarray:
    """Fills the canvas, so that nothing is resampled on the way in."""
    rng = np.random.default_rng(0)
    return cv2.resize(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8), (width, SIDE), interpolation=cv2.INTER_CUBIC)


def own_answer(path, tiny: TinyQueries, image: np.ndarray) -> dict[str, np.ndarray]:
    """What the file itself gives for an image."""
    runtime = OnnxRuntime(path, device="cpu", precision="f32", threads=1)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    tensor = ((image[:, :, ::-1] / 255 - mean) / std).transpose(2, 0, 1).astype(np.float32)
    outputs = runtime(np.stack([tensor] * tiny.batch))
    return {name: output[0] for name, output in zip(runtime.output_names, outputs, strict=True)}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_factors_come_back_and_add_up_to_the_files_own_masks(variant, tmp_path):
    tiny = VARIANTS[variant]
    path = tiny.save(tmp_path / "net.onnx")
    model = maskprism.load(path, conf=0.0, multi_label=True, max_det=10_000)
    spec = model.spec
    assert (spec.layout, spec.rule.name, spec.preprocessing.name) == ("query", "no-crop", "imagenet")
    grid_hw = (16, tiny.width // 4)
    assert (spec.grid_hw, spec.stride, spec.prototypes) == (grid_hw, 4, tiny.k + (tiny.bias != 0))
    image = picture(tiny.width)
    prediction, own = model.predict(image), own_answer(path, tiny, image)
    assert prediction.prototypes.shape == (spec.prototypes, *grid_hw)
    kept = len(own["masks"])
    queries = [_query(row, tiny, model, image) for row in prediction.coefficients]
    assert set(queries) == set(range(tiny.queries - kept, tiny.queries))
    # Sum of terms, one after the other, through what the file does after it.
    for query, row in dict(zip(queries, prediction.coefficients, strict=True)).items():
        logits = reference.summed_terms(row, prediction.prototypes)
        if "resize" in tiny.after:
            logits = reference.resized(logits, 32, 32)
        if "sigmoid" in tiny.after:
            logits = 1 / (1 + np.exp(-logits))
        size = np.abs(own["masks"]).max()
        np.testing.assert_allclose(
            logits, own["masks"][query - tiny.queries + kept], atol=(2e-3 if tiny.half else 1e-5) * size
        )


def _query(row, tiny, model, image) -> int:
    """Which query a row of coefficients is."""
    mean = model.spec.preprocessing.tensor([image], [model.letterbox(image.shape[:2])]).mean()
    vectors = (tiny.vectors() + mean) * tiny.gain
    apart = np.abs(vectors - row[: tiny.k]).max(axis=1)
    assert apart.min() < 1e-2
    return int(apart.argmin())


def test_scores_of_mask2former_are_class_times_certainty(tmp_path):
    tiny = TinyQueries()
    model = maskprism.load(tiny.save(tmp_path / "net.onnx"), conf=0.0)
    prediction, own = model.predict(picture()), own_answer(tmp_path / "net.onnx", tiny, picture())
    expected = []
    for query in range(tiny.queries):
        exponentials = np.exp(own["labels"][query].astype(float))
        shares = exponentials[:-1] / exponentials.sum()
        inside = own["masks"][query] > 0
        certain = (1 / (1 + np.exp(-own["masks"][query][inside]))).mean() if inside.any() else 0.0
        if shares.max() * certain > 0:
            expected.append((shares.max() * certain, int(shares.argmax())))
    expected.sort(reverse=True)
    np.testing.assert_allclose(prediction.scores, [score for score, _ in expected], atol=1e-5)
    assert prediction.classes.tolist() == [class_id for _, class_id in expected]
    assert prediction.canvas_boxes is None
    assert model.spec.names == {i: f"class{i}" for i in range(tiny.classes)}
    assert model.keep == Thresholds(0.0, 0.7, 100)


def test_detections_of_rf_detr_are_queries_and_classes_above_the_threshold(tmp_path):
    tiny = TinyQueries("rf-detr", bias=-0.75)
    model = maskprism.load(tiny.save(tmp_path / "net.onnx"))
    prediction = model.predict(np.zeros((30, 90, 3), dtype=np.uint8))
    scores = 1 / (1 + np.exp(-tiny.table().astype(float)))
    expected = sorted(((s, q, c) for (q, c), s in np.ndenumerate(scores) if s > 0.5), reverse=True)
    np.testing.assert_allclose(prediction.scores, [s for s, _, _ in expected], atol=1e-6)
    assert prediction.classes.tolist() == [c for _, _, c in expected]
    cx, cy, w, h = tiny.boxes()[[q for _, q, _ in expected]].T * 64
    np.testing.assert_allclose(
        prediction.canvas_boxes, np.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], axis=1), atol=1e-4
    )
    assert prediction.coefficients[:, -1].tolist() == [-0.75] * len(expected)
    np.testing.assert_array_equal(prediction.prototypes[-1], 1)
    assert set(maskprism.load(tmp_path / "net.onnx", classes=[2]).predict(picture()).classes) == {2}


def test_scores_of_sam_are_the_quality_of_masks(tmp_path):
    model = maskprism.load(replace(SAM, after=("slice",)).save(tmp_path / "net.onnx"))
    prediction = model.predict(picture())
    np.testing.assert_allclose(prediction.scores, SAM.qualities()[1:][SAM.qualities()[1:] > 0.5], atol=1e-6)
    assert prediction.classes.tolist() == [0] * len(prediction)


def test_info_says_what_was_found(tmp_path):
    TinyQueries("rf-detr", bias=-0.75).save(tmp_path / "net.onnx")
    result = command("info", "net.onnx", cwd=tmp_path)
    said = " ".join(result.stdout.split())
    assert result.returncode == 0, result.stderr
    assert "taken apart at Einsum bqc,bchw->bqhw of 'queries' and 'embedding', 16 prototypes" in said
    assert "bias: -0.75, kept as prototype 16, which is 1 everywhere" in said
    assert "scores: sigmoid of the classes" in said


def test_everything_behind_works_on_query_masks(tmp_path):
    """Terms, roles, pictures and pages do not know the family."""
    from maskprism.reports.explanation import write_explanation
    from maskprism.viewer.page import write_page

    model = maskprism.load(TinyQueries(k=256).save(tmp_path / "net.onnx"), conf=0.05)
    cv2.imwrite(str(tmp_path / "photo.png"), picture())
    prediction = model.predict(tmp_path / "photo.png")
    assert len(prediction)
    np.testing.assert_allclose(
        maskprism.Decomposition(prediction[0]).terms.sum(axis=0), prediction[0].logits(), rtol=1e-3, atol=1e-3
    )
    written = write_explanation(tmp_path / "photo.png", prediction, tmp_path / "pictures", instances=[0])
    assert written
    write_page(tmp_path / "page.html", [(tmp_path / "photo.png", prediction)])
    assert (tmp_path / "page.html").stat().st_size < 3_000_000


# --- the graph ------------------------------------------------------------------------------------


def test_the_branch_is_named_by_its_tensors():
    assert find_mask_branch(TinyQueries("rf-detr", bias=1.0, after=("resize",)).model()) == MaskBranch(
        "Einsum", "masks", "queries", "embedding", "shifted", "bqc,bchw->bqhw"
    )
    assert find_mask_branch(replace(SAM, after=("slice", "resize")).model()) == MaskBranch(
        "MatMul", "masks", "queries", "embedding flat", "product square", rows=(1, 1 << 62)
    )


def test_revealing_leaves_the_network_as_it_is():
    model = TinyQueries().model()
    before = model.SerializeToString()
    revealed = reveal(model, find_mask_branch(model))
    assert model.SerializeToString() == before
    assert [one.name for one in revealed.graph.output] == ["masks", "labels", "queries", "embedding"]
    del revealed.graph.output[2:]
    assert revealed.SerializeToString() == before
    onnx.checker.check_model(model)


def test_a_constant_factor_is_a_layer_and_no_query():
    assert find_mask_branch(TinyQueries(constant=True).model()) is None
    assert find_mask_branch(Tiny().model()) is None


@pytest.mark.parametrize(
    ("equation", "left", "right"),
    [
        ("bqc,bchw->bqhw", (2, 5, 3), (2, 3, 4, 6)),
        ("qc,chw->qhw", (5, 3), (3, 4, 6)),
        ("bqc,bhwc->bqhw", (2, 5, 3), (2, 4, 6, 3)),
        ("bcq,bchw->bqhw", (2, 3, 5), (2, 3, 4, 6)),
        ("bchw,bqc->bqhw", (2, 3, 4, 6), (2, 5, 3)),
    ],
)
def test_equations_say_which_factor_is_which(equation, left, right):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=left), rng.normal(size=right)
    batch = 2 if "b" in equation else 1
    expected = np.einsum(equation, a, b).reshape(batch, 5, -1)
    coefficients, prototypes = factors(MaskBranch("Einsum", "m", "a", "b", "m", equation), a, b, 5, batch)
    assert (coefficients.shape, prototypes.shape) == ((batch, 5, 3), (batch, 3, 24))
    np.testing.assert_allclose(coefficients @ prototypes, expected)


@pytest.mark.parametrize(
    "equation", ["bqc,bchw->bqwh", "bqc,bqhw->bqhw", "bqcd,bcdhw->bqhw", "bdqc,bdchw->bdqhw", "qc,chw"]
)
def test_other_equations_are_no_masks(equation):
    sizes = {"b": 2, "q": 5, "c": 3, "d": 2, "h": 4, "w": 6}
    a, b = (np.ones([sizes[letter] for letter in part]) for part in equation.split("->")[0].split(","))
    assert factors(MaskBranch("Einsum", "m", "a", "b", "m", equation), a, b, 5, 2) is None


def test_a_decoder_with_prompts_is_revealed_into_a_file_of_its_own(tmp_path):
    """SAM's decoders take an embedding and points: the copy is run by hand, and its factors make a prediction."""
    import onnxruntime

    rng = np.random.default_rng(2)
    nodes = [
        helper.make_node("MatMul", ["points", "prompt weights"], ["hyper_in"]),
        helper.make_node("Reshape", ["image_embeddings", "flat"], ["upscaled"]),
        helper.make_node("MatMul", ["hyper_in", "upscaled"], ["product"]),
        helper.make_node("Reshape", ["product", "square"], ["low_res_masks"]),
    ]
    weights = {
        "prompt weights": rng.normal(0, 1, (2, 32)).astype(np.float32),
        "flat": np.array([0, 32, -1], dtype=np.int64),
        "square": np.array([0, 4, 8, 8], dtype=np.int64),
    }
    sides = {"image_embeddings": (1, 32, 8, 8), "points": (1, 4, 2)}
    graph = helper.make_graph(
        nodes,
        "decoder",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in sides.items()],
        [helper.make_tensor_value_info("low_res_masks", TensorProto.FLOAT, (1, 4, 8, 8))],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "sam.onnx"
    )
    branch = write_revealed(tmp_path / "sam.onnx", tmp_path / "revealed.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "revealed.onnx"))
    given = {name: rng.normal(0, 1, shape).astype(np.float32) for name, shape in sides.items()}
    masks, left, right = session.run(["low_res_masks", branch.left, branch.right], given)
    coefficients, prototypes = factors(branch, left, right, 4, 1)
    prediction = maskprism.from_arrays((80, 80), coefficients[0], prototypes[0].reshape(32, 8, 8))
    np.testing.assert_allclose(prediction.logits(), masks[0], atol=1e-4)

    with pytest.raises(ModelError, match="no output is a product of two things that the model computes"):
        write_revealed(Tiny().save(tmp_path / "tiny.onnx"), tmp_path / "new.onnx")
    with pytest.raises(maskprism.MaskprismError, match="cannot be written"):
        write_revealed(tmp_path / "sam.onnx", tmp_path / "sam.onnx" / "new.onnx")


# --- what is refused ------------------------------------------------------------------------------


def test_more_than_a_sum_is_refused(tmp_path):
    path = replace(TinyQueries(), curved=True).save(tmp_path / "net.onnx")
    with pytest.raises(ModelError, match=r"net.onnx: holds finished masks, .* is not all there is: .* off by up to"):
        maskprism.load(path)


def test_masks_without_a_product_are_refused(tmp_path):
    path = TinyQueries(constant=True).save(tmp_path / "net.onnx")
    with pytest.raises(ModelError, match="no detections that fit"):
        maskprism.load(path)
    with pytest.raises(ModelError, match="are not those of layout 'query'; expected finished masks"):
        maskprism.load(path, layout="query")
    with pytest.raises(ModelError, match="are not those of layout 'query'"):
        maskprism.load(Tiny().save(tmp_path / "tiny.onnx"), layout="query")


def test_without_the_package_the_message_says_how_to_install_it(tmp_path, monkeypatch):
    path = TinyQueries().save(tmp_path / "net.onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'maskprism\[reduce\]'"):
        maskprism.load(path)


def test_a_rule_that_crops_needs_boxes(tmp_path):
    path = TinyQueries().save(tmp_path / "net.onnx")
    with pytest.raises(InputError, match="crops masks to their boxes, and this prediction has none"):
        maskprism.load(path, rule="ultralytics", conf=0.01).predict(picture())


def test_such_files_are_not_rewritten(tmp_path):
    path = TinyQueries().save(tmp_path / "net.onnx")
    with pytest.raises(ModelError, match=r"holds finished masks, whose coefficients .* cannot be rewritten"):
        write_reduced(maskprism.load(path), path, tmp_path / "new.onnx", np.eye(16), np.eye(16))
    cv2.imwrite(str(tmp_path / "one.png"), picture())
    result = command("reduce", "net.onnx", "--images", ".", "--keep", "4", "--out", "new.onnx", cwd=tmp_path)
    assert result.returncode != 0
    assert "cannot be rewritten" in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("shapes", "there"),
    [
        ([(1, 100, 160, 160), (1, 100, 81)], True),
        ([(1, 4, 256, 256), (1, 4)], True),
        ([(1, 100, 161, 160), (1, 100, 81)], True),
        ([(1, 116, 8400), (1, 32, 160, 160)], False),
        ([(1, 160, 8400), (1, 160, 160, 32)], False),  # prototypes in the last axis, as high as there are columns
        ([(1, 100, 1, 1), (1, 100, 81)], False),
        ([(1, 100, 81)], False),
    ],
)
def test_finished_masks_share_their_queries_with_another_output(shapes, there):
    assert has_finished_masks(shapes, (640, 640)) is there


def test_boxes_in_pixels_are_refused(tmp_path):
    tiny = TinyQueries("rf-detr")
    model = tiny.model()
    next(one for one in model.graph.initializer if one.name == "boxes").CopyFrom(
        numpy_helper.from_array(tiny.boxes()[None] * 64, "boxes")
    )
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(
        ModelError, match=r"boxes of its queries \('dets'\) go from .*; expected cx, cy, w, h as shares"
    ):
        maskprism.load(tmp_path / "net.onnx")


@pytest.mark.parametrize(("name", "told"), [("scores", False), ("more", True)])
def test_two_tables_of_classes_are_told_by_their_names(name, told, tmp_path):
    model = TinyQueries("rf-detr").model()
    model.graph.node.append(helper.make_node("Add", ["labels", "labels"], [name]))
    model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    onnx.save(model, tmp_path / "net.onnx")
    if not told:
        with pytest.raises(ModelError, match=r"'labels', 'dets', 'scores' could each be the boxes or the classes"):
            maskprism.load(tmp_path / "net.onnx")
    else:
        layout = maskprism.load(tmp_path / "net.onnx").layout
        assert (layout.scores_output, layout.boxes_output) == (1, 2)


def test_logits_that_are_all_the_same_are_a_bias():
    assert _line(np.zeros((1, 2, 3, 3)), np.full((1, 2, 3, 3), 0.5)) == (1.0, 0.5)
    assert _line(np.ones((1, 2, 3, 3)), np.ones((1, 2, 3, 3))) == (1.0, 0.0)


def test_boxes_that_fill_the_canvas_are_shares(tmp_path):
    tiny = TinyQueries("rf-detr")
    model = tiny.model()
    whole = np.where(np.arange(4) < 2, 0.5, 1.0).astype(np.float32) * np.ones_like(tiny.boxes()[None])
    boxes = next(one for one in model.graph.initializer if one.name == "boxes")
    boxes.CopyFrom(numpy_helper.from_array(whole, "boxes"))
    onnx.save(model, tmp_path / "net.onnx")
    prediction = maskprism.load(tmp_path / "net.onnx", conf=0.05).predict(picture())
    np.testing.assert_allclose(prediction.canvas_boxes, [[0, 0, SIDE, SIDE]] * len(prediction))


def test_classes_that_are_probabilities_already_are_taken_as_they_are(tmp_path):
    tiny = TinyQueries("rf-detr")
    model = tiny.model()
    table = np.zeros((1, tiny.queries, tiny.classes), dtype=np.float32)
    table[0, 2, 1], table[0, 4, 0] = 1.0, 0.75
    classes = next(one for one in model.graph.initializer if one.name == "table")
    classes.CopyFrom(numpy_helper.from_array(table, "table"))
    onnx.save(model, tmp_path / "net.onnx")
    network = maskprism.load(tmp_path / "net.onnx")
    prediction = network.predict(picture())
    assert prediction.scores.tolist() == [1.0, 0.75]
    assert prediction.classes.tolist() == [1, 0]
    assert "scores: classes as the file gives them" in network.spec.notes


def test_without_classes_every_mask_has_a_score_of_one(tmp_path):
    model = TinyQueries("rf-detr").model()
    del model.graph.output[1]  # labels
    onnx.save(model, tmp_path / "net.onnx")
    network = maskprism.load(tmp_path / "net.onnx")
    prediction = network.predict(picture())
    assert prediction.scores.tolist() == [1.0] * 6
    assert prediction.classes.tolist() == [0] * 6
    assert network.spec.notes[-1] == "scores: none in the file; every mask has 1"


@pytest.mark.parametrize("how", ["node", "weight", "computed from weights"])
def test_weights_in_any_form_are_constants(how):
    """A product with weights is a layer, wherever they are kept."""
    values = numpy_helper.from_array(np.ones((3, 64), dtype=np.float32), "weights")
    nodes = [helper.make_node("MatMul", ["queries", "factor"], ["masks"])]
    kept = []
    if how == "node":
        nodes.insert(0, helper.make_node("Constant", [], ["factor"], value=values))
    else:
        kept.append(values)
        operator = "Identity" if how == "weight" else "Neg"
        nodes.insert(0, helper.make_node(operator, ["weights"], ["factor"]))
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("queries", TensorProto.FLOAT, (1, 5, 3))],
        [helper.make_tensor_value_info("masks", TensorProto.FLOAT, (1, 5, 64))],
        kept,
    )
    assert find_mask_branch(helper.make_model(graph)) is None


def test_a_slice_that_is_told_by_nodes_is_read_and_one_that_is_computed_is_not():
    for computed in (False, True):
        nodes = [
            helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.array([number]), name))
            for name, number in (("one", 1), ("three", 3))
        ]
        start = "one"
        if computed:
            nodes.append(helper.make_node("ArgMax", ["scores"], ["best"], axis=0, keepdims=1))
            start = "best"
        nodes += [
            helper.make_node("MatMul", ["queries", "pixels"], ["product"]),
            helper.make_node("Slice", ["product", start, "three", "one"], ["masks"]),
        ]
        sides = {"queries": (1, 5, 3), "pixels": (1, 3, 64), "scores": (5,)}
        graph = helper.make_graph(
            nodes,
            "slice",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in sides.items()],
            [helper.make_tensor_value_info("masks", TensorProto.FLOAT, None)],
        )
        branch = find_mask_branch(helper.make_model(graph))
        assert (branch is None) == computed
        assert computed or branch.rows == (1, 3)


@pytest.mark.parametrize(
    ("left", "right", "queries", "batch"),
    [
        ((2, 5, 3), (2, 4, 24), 5, 2),  # nothing to sum over
        ((2, 5, 3), (2, 3, 24), 6, 2),  # other queries
        ((2, 5, 3), (3, 3, 24), 5, 2),  # other images
        ((3, 5, 3), (2, 3, 24), 5, 2),
        ((3,), (3, 24), 5, 1),
    ],
)
def test_factors_that_do_not_fit_are_none(left, right, queries, batch):
    branch = MaskBranch("MatMul", "m", "a", "b", "m")
    assert factors(branch, np.ones(left), np.ones(right), queries, batch) is None


def test_factors_without_a_batch_are_of_every_image():
    branch = MaskBranch("Gemm", "m", "a", "b", "m", turned=(True, True))
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(3, 5)), rng.normal(size=(24, 3))
    coefficients, prototypes = factors(branch, a, b, 5, 2)
    assert (coefficients.shape, prototypes.shape) == ((2, 5, 3), (2, 3, 24))
    np.testing.assert_allclose(coefficients @ prototypes, [a.T @ b.T] * 2)


def test_logits_of_another_size_than_their_factors_are_refused():
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=shape).astype(np.float32) for shape in ((1, 5, 3), (1, 3, 24)))
    branch = MaskBranch("MatMul", "masks", "a", "b", "masks")
    names = ("masks", "a", "b")
    found = find_queries([(a @ b).reshape(1, 5, 4, 6), a, b], names, branch, "net.onnx")
    assert (found.prototypes, found.queries, found.classes, found.gain, found.bias) == (3, 5, 1, 1.0, 0.0)
    with pytest.raises(ModelError, match=r"factors of shape \(1, 5, 3\) and \(1, 3, 24\), which are no queries"):
        find_queries([np.ones((1, 5, 4, 7), dtype=np.float32), a, b], names, branch, "net.onnx")
    with pytest.raises(ModelError, match=r"which are no queries and no pixel embedding"):
        find_queries([np.ones((1, 7, 4, 6), dtype=np.float32), a, b], names, branch, "net.onnx")
    with pytest.raises(ModelError, match=r"gives logits of shape \(1, 5, 24\); expected \(batch, queries"):
        find_queries([a @ b, a, b], names, branch, "net.onnx")


def test_boxes_and_four_classes_in_shares_are_told_by_their_names(tmp_path):
    """A table of four probabilities looks like boxes; what is called dets is them."""
    tiny = TinyQueries("rf-detr", classes=4)
    model = tiny.model()
    table = np.random.default_rng(0).uniform(0, 1, (1, tiny.queries, 4)).astype(np.float32)
    classes = next(one for one in model.graph.initializer if one.name == "table")
    classes.CopyFrom(numpy_helper.from_array(table, "table"))
    onnx.save(model, tmp_path / "net.onnx")
    layout = maskprism.load(tmp_path / "net.onnx").layout
    assert (layout.scores, layout.scores_output, layout.boxes_output, layout.classes) == ("probabilities", 1, 2, 4)


@pytest.mark.parametrize("bias", [True, False])
def test_a_gemm_that_adds_something_is_no_product(bias):
    nodes = [helper.make_node("Gemm", ["queries", "pixels", *["more"] * bias], ["masks"])]
    sides = {"queries": (5, 3), "pixels": (3, 64), "more": (64,)}
    graph = helper.make_graph(
        nodes,
        "gemm",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in sides.items()],
        [helper.make_tensor_value_info("masks", TensorProto.FLOAT, (5, 64))],
    )
    assert (find_mask_branch(helper.make_model(graph)) is None) == bias


def test_a_mask_without_a_pixel_is_sure_of_nothing():
    rng = np.random.default_rng(0)
    a, b = np.abs(rng.normal(size=(1, 2, 3))).astype(np.float32), -np.ones((1, 3, 24), dtype=np.float32)
    a[0, 1] *= -1
    classes = np.array([[[9, 0, 0], [0, 9, 0]]], dtype=np.float32)
    outputs = [(a @ b).reshape(1, 2, 4, 6), classes, a, b]
    branch = MaskBranch("MatMul", "masks", "a", "b", "masks")
    layout = find_queries(outputs, ("masks", "labels", "a", "b"), branch, "net.onnx")
    with np.errstate(all="raise"):
        rows = layout.read_rows(outputs, 0, (16, 24), Thresholds(conf=0.0))
    assert rows.classes.tolist() == [1]  # the first query draws nothing
    assert 0.5 < rows.scores[0] < 1


def test_large_logits_of_classes_do_not_overflow(tmp_path):
    model = TinyQueries().model()
    table = np.zeros((1, 6, 4), dtype=np.float32)
    table[0, :, 2] = 5000
    classes = next(one for one in model.graph.initializer if one.name == "table")
    classes.CopyFrom(numpy_helper.from_array(table, "table"))
    onnx.save(model, tmp_path / "net.onnx")
    prediction = maskprism.load(tmp_path / "net.onnx", conf=0.01).predict(picture())
    assert set(prediction.classes) == {2}


@pytest.mark.parametrize(("axis", "step"), [(2, 1), (1, 2)])
def test_slices_of_other_axes_and_every_other_query_are_not_followed(axis, step):
    numbers = {"start": 0, "end": 3, "axis": axis, "step": step}
    nodes = [
        helper.make_node("MatMul", ["queries", "pixels"], ["product"]),
        helper.make_node("Slice", ["product", *numbers], ["masks"]),
    ]
    sides = {"queries": (1, 5, 3), "pixels": (1, 3, 64)}
    graph = helper.make_graph(
        nodes,
        "slice",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in sides.items()],
        [helper.make_tensor_value_info("masks", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.array([number]), name) for name, number in numbers.items()],
    )
    assert find_mask_branch(helper.make_model(graph)) is None


def test_two_outputs_called_boxes_are_refused(tmp_path):
    model = TinyQueries("rf-detr").model()
    model.graph.node.append(helper.make_node("Identity", ["dets"], ["boxes again"]))
    model.graph.output.append(helper.make_tensor_value_info("boxes again", TensorProto.FLOAT, None))
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(ModelError, match=r"'labels', 'dets', 'boxes again' could each be the boxes or the classes"):
        maskprism.load(tmp_path / "net.onnx")


@pytest.mark.parametrize("spoilt", ["labels", "a"])
def test_queries_that_are_no_numbers_are_left_out(spoilt):
    rng = np.random.default_rng(1)
    a, b = (rng.normal(size=shape).astype(np.float32) for shape in ((1, 2, 3), (1, 3, 24)))
    names, branch = ("masks", "labels", "a", "b"), MaskBranch("MatMul", "masks", "a", "b", "masks")
    outputs = [(a @ b).reshape(1, 2, 4, 6), np.array([[[9, 0, 0], [0, 9, 0]]], dtype=np.float32), a, b]
    layout = find_queries(outputs, names, branch, "net.onnx")
    outputs[names.index(spoilt)][0, 0, 0] = np.nan
    assert layout.read_rows(outputs, 0, (16, 24), Thresholds(conf=0.0)).classes.tolist() == [1]
