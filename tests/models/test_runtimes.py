"""Runtimes: real models find what is in well known images, and bad files are refused with a reason."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given

import maskprism
from helpers.strategies import seeds
from helpers.tiny_models import NAMES, Tiny, save_tiny_tflite, ultralytics_metadata
from maskprism import Letterbox
from maskprism.core.preprocessing import YOLO
from maskprism.errors import InputError, MissingExtraError, ModelError
from maskprism.models.onnx.external_files import external_data
from maskprism.models.runtimes import FunctionRuntime, NetworkInput
from maskprism.models.runtimes.litert import dequantise, quantise

PERSON, BUS, TIE = 0, 5, 27
WHITE = np.full((64, 64, 3), 255, dtype=np.uint8)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    """A tiny YOLOv8 in ONNX with metadata, for 8.4.190."""
    return Tiny(metadata=ultralytics_metadata()).save(tmp_path_factory.mktemp("models") / "tiny.onnx")


# --- real models ----------------------------------------------------------------------------------


def assert_finds_what_is_there(model: maskprism.Model, real_data: Path) -> None:
    bus = model.predict(real_data / "images" / "bus.jpg")
    classes = bus.classes.tolist()
    assert 3 <= classes.count(PERSON) <= 4
    assert classes.count(BUS) == 1
    the_bus = bus[classes.index(BUS)]
    assert 0.2 < the_bus.mask("image").mean() < 0.4
    assert bus.image_size == (1080, 810)
    assert bus.source == str(real_data / "images" / "bus.jpg")
    assert not bus[bus.classes == PERSON].empty.any()
    zidane = model.predict(real_data / "images" / "zidane.jpg")
    assert sorted(zidane.classes.tolist()) == [PERSON, PERSON, TIE]
    assert zidane.prototypes.shape == (32, 160, 160)


@pytest.mark.parametrize("file", ["yolov8n-seg.onnx", "yolov5n-seg.onnx", "yolov8n-seg_int8.tflite"])
def test_real_models_find_what_is_in_the_images(file, real_data):
    if file.endswith(".tflite"):
        pytest.importorskip("ai_edge_litert")
    model = maskprism.load(real_data / "models" / file)
    assert model.spec.layout == ("yolov5" if "yolov5" in file else "yolov8")
    assert model.spec.prototypes == 32
    assert len(model.spec.names) == 80
    assert_finds_what_is_there(model, real_data)


@pytest.fixture(scope="module")
def through_onnxruntime(real_data) -> maskprism.Prediction:
    return maskprism.load(real_data / "models" / "yolov8n-seg.onnx").predict(real_data / "images" / "bus.jpg")


def assert_close(one: maskprism.Prediction, other: maskprism.Prediction) -> None:
    np.testing.assert_array_equal(one.classes, other.classes)
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)
    np.testing.assert_allclose(one.boxes, other.boxes, atol=0.05)
    np.testing.assert_allclose(one.coefficients, other.coefficients, atol=1e-3)
    assert (one.masks("image") != other.masks("image")).mean() < 1e-5


def test_openvino_computes_what_onnxruntime_computes(real_data, through_onnxruntime):
    pytest.importorskip("openvino")
    model = maskprism.load(real_data / "models" / "yolov8n-seg.onnx", runtime="openvino")
    assert model.spec.names[BUS] == "bus"
    assert model.spec.version == "8.4.190"
    assert model.spec.runtime.startswith("openvino ")
    assert_close(model.predict(real_data / "images" / "bus.jpg"), through_onnxruntime)
    assert_finds_what_is_there(model, real_data)


def test_yolov5_through_openvino(real_data):
    pytest.importorskip("openvino")
    model = maskprism.load(real_data / "models" / "yolov5n-seg.onnx", runtime="openvino")
    assert model.spec.rule.name == "yolov5"
    assert_finds_what_is_there(model, real_data)


@pytest.fixture(scope="module")
def real_ir(real_data, tmp_path_factory) -> Path:
    """The real model as OpenVINO IR, alone in its folder."""
    openvino = pytest.importorskip("openvino")
    folder = tmp_path_factory.mktemp("ir")
    network = openvino.convert_model(str(real_data / "models" / "yolov8n-seg.onnx"))
    openvino.save_model(network, str(folder / "yolov8n-seg.xml"), compress_to_fp16=False)
    return folder


def test_openvino_ir_as_a_file_and_as_a_folder(real_ir, real_data, through_onnxruntime):
    model = maskprism.load(real_ir / "yolov8n-seg.xml")
    assert model.spec.names[BUS] == "bus"  # the IR carries what the .onnx said
    assert model.spec.version == "8.4.190"
    assert_close(model.predict(real_data / "images" / "bus.jpg"), through_onnxruntime)
    of_folder = maskprism.load(real_ir)
    assert of_folder.spec.name == real_ir.name
    assert of_folder.spec.sha256 == model.spec.sha256


def test_yolov5_coefficients_are_raw_and_the_mask_uses_objectness(real_data):
    prediction = maskprism.load(real_data / "models" / "yolov5n-seg.onnx").predict(real_data / "images" / "bus.jpg")
    assert ((prediction.objectness > 0.25) & (prediction.objectness < 1)).all()
    assert (prediction.scores <= prediction.objectness).all()
    expected = prediction.coefficients * prediction.objectness[:, None]
    np.testing.assert_allclose(prediction.weights, expected, rtol=1e-6)
    np.testing.assert_allclose(
        prediction.logits()[0], np.tensordot(expected[0], prediction.prototypes, axes=1), atol=1e-3
    )


# --- metadata -------------------------------------------------------------------------------------


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_metadata_of_an_onnx_file_arrives(runtime, tiny):
    pytest.importorskip(runtime)
    spec = maskprism.load(tiny, runtime=runtime).spec
    assert (spec.names, spec.version, spec.rule.name) == (NAMES, "8.4.190", "ultralytics")
    assert spec.runtime.startswith(runtime)
    assert len(spec.sha256) == 64


def test_metadata_yaml_beside_an_ir_is_read_first(tiny, tmp_path):
    openvino = pytest.importorskip("openvino")
    openvino.save_model(openvino.convert_model(str(tiny)), str(tmp_path / "tiny.xml"))
    assert maskprism.load(tmp_path).spec.names == NAMES
    (tmp_path / "metadata.yaml").write_text(
        "version: 8.2.0\ntask: segment\nstride: 32\nimgsz: [64, 64]\nnames:\n  0: lion\n  1: wolf\n  2: shark\n"
    )
    spec = maskprism.load(tmp_path).spec
    assert spec.names == {0: "lion", 1: "wolf", 2: "shark"}
    assert spec.rule.name == "ultralytics-8.2"
    (tmp_path / "metadata.yaml").write_text("names: [a: b: c")
    with pytest.raises(ModelError, match=r"metadata.yaml: cannot be read as YAML"):
        maskprism.load(tmp_path)


@pytest.mark.parametrize(
    "names", ["['cat', 'dog', 'fish']", '{"0": "cat", "1": "dog", "2": "fish"}', "{0: 'cat', 1: 'dog', 2: 'fish'}"]
)
def test_names_are_read_from_lists_and_from_json(names, tmp_path):
    path = Tiny(metadata=ultralytics_metadata() | {"names": names}).save(tmp_path / "tiny.onnx")
    assert maskprism.load(path).spec.names == NAMES


@pytest.mark.parametrize("key", ["names", "imgsz", "args", "stride"])
def test_code_in_metadata_is_refused_and_not_run(key, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "__import__('os').system('touch HACKED')"
    path = Tiny(metadata=ultralytics_metadata() | {key: code}).save(tmp_path / "tiny.onnx")
    with pytest.raises(ModelError, match=rf"tiny.onnx: the metadata entry '{key}' is not a literal.*never evaluated"):
        maskprism.load(path)
    assert not (tmp_path / "HACKED").exists()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("{0: 'cat', 1: 'dog'}", "the metadata names 2 classes, and the outputs read as 'yolov8' hold 3"),
        ("{}", "metadata: names is {}; expected a list of class names"),
        ("'cat'", "metadata: names is 'cat'; expected a list of class names"),
        ("{'cat': 0}", "expected a list of class names, or a mapping from 0"),
        ("{0: 'cat', 1: 'dog', 3: 'cow'}", "expected a list of class names, or a mapping from 0"),
        ("17", "metadata: names is 17; expected a list of class names"),
    ],
)
def test_names_that_do_not_fit_are_refused(names, message, tmp_path):
    path = Tiny(metadata=ultralytics_metadata() | {"names": names}).save(tmp_path / "tiny.onnx")
    with pytest.raises(ModelError, match=message):
        maskprism.load(path)


# --- bad files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("damage", ["truncated", "corrupt", "text", "empty"])
def test_damaged_onnx_files_are_refused(runtime, damage, tiny, tmp_path):
    pytest.importorskip(runtime)
    data = tiny.read_bytes()
    path = tmp_path / "bad.onnx"
    middle = bytes(byte ^ 0xA5 for byte in data[100:400])
    path.write_bytes(
        {
            "truncated": data[: len(data) // 2],
            "corrupt": data[:100] + middle + data[400:],
            "text": b"this is no model\n" * 20,
            "empty": b"",
        }[damage]
    )
    with pytest.raises(ModelError, match=r"bad\.onnx: .* cannot read this file"):
        maskprism.load(path, runtime=runtime)


@pytest.mark.parametrize("text", [b"Tiny segmentation", b"images"], ids=["metadata", "name of the input"])
def test_an_onnx_file_with_text_that_is_none_is_refused(text, tiny, tmp_path):
    path = tmp_path / "bad.onnx"
    path.write_bytes(tiny.read_bytes().replace(text, b"\xff" * len(text)))
    with pytest.raises(ModelError, match=r"bad\.onnx: ONNX Runtime cannot read this file; .*utf-8"):
        maskprism.load(path)


@pytest.mark.parametrize("keep", [0, 10, 1000, 100_000])
def test_damaged_tflite_files_are_refused(keep, tmp_path, real_data):
    pytest.importorskip("ai_edge_litert")
    path = tmp_path / "bad.tflite"
    path.write_bytes((real_data / "models" / "yolov8n-seg_int8.tflite").read_bytes()[:keep])
    with pytest.raises(ModelError, match=r"bad\.tflite: LiteRT cannot read this file; is it a complete \.tflite\?"):
        maskprism.load(path)


def test_a_tflite_file_with_names_that_are_no_text_is_refused(tmp_path):
    pytest.importorskip("ai_edge_litert")
    path = save_tiny_tflite(tmp_path / "bad.tflite")
    assert maskprism.load(path).spec.prototypes == 3
    path.write_bytes(path.read_bytes().replace(b"images", b"\xff" * 6))
    with pytest.raises(ModelError, match=r"bad\.tflite: LiteRT cannot read this file"):
        maskprism.load(path)


def test_a_text_named_tflite_is_refused(tmp_path):
    pytest.importorskip("ai_edge_litert")
    path = tmp_path / "bad.tflite"
    path.write_text("this is no model\n" * 20)
    with pytest.raises(ModelError, match=r"bad\.tflite: LiteRT cannot read this file"):
        maskprism.load(path)


def test_an_ir_without_its_weights_is_refused(tiny, tmp_path):
    openvino = pytest.importorskip("openvino")
    openvino.save_model(openvino.convert_model(str(tiny)), str(tmp_path / "tiny.xml"))
    (tmp_path / "tiny.bin").unlink()
    with pytest.raises(ModelError, match=r"tiny\.xml: OpenVINO cannot read this file; are the \.xml and the \.bin"):
        maskprism.load(tmp_path)
    (tmp_path / "tiny.xml").write_text("<net>")
    with pytest.raises(ModelError, match="OpenVINO cannot read this file"):
        maskprism.load(tmp_path / "tiny.xml")


def test_external_data(tmp_path):
    model = Tiny(metadata=ultralytics_metadata()).model()
    path = tmp_path / "large.onnx"
    onnx.save_model(model, path, save_as_external_data=True, location="large.onnx.data", size_threshold=200)
    loaded = maskprism.load(path)
    assert len(loaded.predict(WHITE)) == 3
    data = tmp_path / "large.onnx.data"
    changed = bytearray(data.read_bytes())
    changed[-1] ^= 1
    data.write_bytes(changed)
    assert maskprism.load(path).spec.sha256 != loaded.spec.sha256, "the fingerprint must cover the weights"
    data.unlink()
    with pytest.raises(ModelError, match=r"large\.onnx: the weights lie in a second file that is missing or damaged"):
        maskprism.load(path)


def name_weights(model: onnx.ModelProto, location: str) -> onnx.ModelProto:
    """Say of one tensor of a graph that its values are in that file."""
    tensor = next(tensor for tensor in model.graph.initializer if len(tensor.raw_data) > 200)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return model


@pytest.mark.skipif(os.name == "nt", reason="signals are sent differently")
def test_a_network_that_never_ends_is_interrupted(tmp_path):
    """Ctrl-C reaches Python, and Python the run."""
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["still"]),
            helper.make_node("Identity", ["seen"], ["again"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("round", onnx.TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", onnx.TensorProto.BOOL, []),
            helper.make_tensor_value_info("seen", floats, None),
        ],
        [
            helper.make_tensor_value_info("still", onnx.TensorProto.BOOL, []),
            helper.make_tensor_value_info("again", floats, None),
        ],
    )
    model = Tiny().model()
    image = model.graph.input[0].name
    for node in model.graph.node:
        node.input[:] = ["looped" if name == image else name for name in node.input]
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.int64(2**62), "rounds"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.bool_(True), "yes"))
    model.graph.node.insert(0, helper.make_node("Loop", ["rounds", "yes", image], ["looped"], body=body))
    onnx.save(model, tmp_path / "endless.onnx")
    code = (
        "import os, signal, threading, time\n"
        "def interrupt():\n"
        "    while not any(thread.name.startswith('onnxruntime') for thread in threading.enumerate()):\n"
        "        time.sleep(0.05)\n"
        "    time.sleep(0.5)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "threading.Thread(target=interrupt, daemon=True).start()\n"
        "from maskprism.cli import main\n"
        "main()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, "info", str(tmp_path / "endless.onnx")], capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stderr) == (130, "maskprism: interrupted\n")


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_the_fingerprint_covers_weights_in_files_of_any_name(runtime, tmp_path):
    """Else `extract` would go on with the table of another model."""
    pytest.importorskip(runtime)
    path = tmp_path / "model.onnx"
    onnx.save_model(Tiny().model(), path, save_as_external_data=True, location="w.bin", size_threshold=200)
    first = maskprism.load(path, runtime=runtime, layout="yolov8").spec.sha256
    weights = bytearray((tmp_path / "w.bin").read_bytes())
    weights[-1] ^= 1
    (tmp_path / "w.bin").write_bytes(weights)
    assert maskprism.load(path, runtime=runtime, layout="yolov8").spec.sha256 != first


def test_external_data_is_found_wherever_a_graph_may_have_tensors(tmp_path):
    """In nodes, branches of nodes, functions and sparse tensors as well."""

    def tensor(location: str) -> onnx.TensorProto:
        made = onnx.TensorProto(data_location=onnx.TensorProto.EXTERNAL, raw_data=bytes(1000))
        made.external_data.add(key="location", value=location)
        made.external_data.add(key="offset", value="7")
        return made

    branch = onnx.GraphProto(initializer=[tensor("branch")])
    attributes = [
        onnx.AttributeProto(name="t", t=tensor("constant")),
        onnx.AttributeProto(name="ts", tensors=[tensor("list")]),
        onnx.AttributeProto(name="g", g=onnx.GraphProto(node=[onnx.NodeProto(attribute=[{"name": "g", "g": branch}])])),
        onnx.AttributeProto(name="gs", graphs=[onnx.GraphProto(initializer=[tensor("other branch")])]),
        onnx.AttributeProto(name="s", sparse_tensor=onnx.SparseTensorProto(values=tensor("sub/sparse"))),
    ]
    graph = onnx.GraphProto(node=[onnx.NodeProto(attribute=attributes)], initializer=[tensor("plain"), tensor("gone")])
    graph.sparse_initializer.add(values=tensor("plain"), indices=tensor("sub/../indices"))
    model = onnx.ModelProto(graph=graph)
    model.functions.add().node.add().attribute.add(t=tensor("function"))
    (tmp_path / "sub").mkdir()
    names = ("branch", "constant", "function", "indices", "list", "other branch", "plain", "sub/sparse")
    for name in names:
        (tmp_path / name).write_bytes(b"weights")
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    assert sorted(external_data(tmp_path / "model.onnx")) == [tmp_path / name for name in names]


@pytest.mark.parametrize(
    "location", ["../w.bin", "a/../../w.bin", "/etc/passwd", "..\\w.bin", "C:\\w.bin", "\\\\host\\w"]
)
def test_weights_outside_of_the_folder_are_hostile(location, tmp_path):
    (tmp_path / "w.bin").write_bytes(bytes(1 << 16))
    (tmp_path / "folder").mkdir()
    path = tmp_path / "folder" / "model.onnx"
    path.write_bytes(name_weights(Tiny().model(), location).SerializeToString())
    with pytest.raises(ModelError, match=r"model\.onnx: takes weights from .* which is outside of its folder"):
        maskprism.load(path)


@pytest.mark.parametrize(("family", "task"), [("detect", "detection"), ("classify", "classification")])
def test_other_kinds_of_models_are_named(family, task, tmp_path):
    path = Tiny(family=family).save(tmp_path / "other.onnx")
    with pytest.raises(ModelError, match=rf"other\.onnx: .*look like a {task} model"):
        maskprism.load(path)
    path = Tiny(family=family, metadata=ultralytics_metadata(task=family)).save(tmp_path / "other.onnx")
    with pytest.raises(ModelError, match=rf"other\.onnx: is a {family} model; masks come from a segmentation model"):
        maskprism.load(path)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_five_channels_are_refused(runtime, tmp_path):
    pytest.importorskip(runtime)
    path = Tiny(channels=5).save(tmp_path / "five.onnx")
    with pytest.raises(ModelError, match=r"the input has shape \(1, 5, 64, 64\); expected 3 \(or 1\) channels"):
        maskprism.load(path, runtime=runtime)


def test_other_inputs_than_one_image_are_refused(tmp_path):
    model = Tiny().model()
    model.graph.input.append(onnx.helper.make_tensor_value_info("prompt", onnx.TensorProto.FLOAT, [1, 4]))
    onnx.save(model, tmp_path / "prompted.onnx")
    with pytest.raises(ModelError, match=r"takes images \[1, 3, 64, 64\] .*, prompt \[1, 4\] .*; expected one image"):
        maskprism.load(tmp_path / "prompted.onnx")
    flat = onnx.helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, [1, 12])
    same = onnx.helper.make_tensor_value_info("same", onnx.TensorProto.FLOAT, [1, 12])
    identity = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["images"], ["same"])], "flat", [flat], [same])
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(identity, opset_imports=opset, ir_version=9), tmp_path / "flat.onnx")
    with pytest.raises(ModelError, match=r"takes images \[1, 12\] .*; expected one image tensor of 4 axes"):
        maskprism.load(tmp_path / "flat.onnx")
    pytest.importorskip("openvino")
    with pytest.raises(ModelError, match="expected one image input of 4 axes"):
        maskprism.load(tmp_path / "flat.onnx", runtime="openvino")


def test_a_runtime_of_five_channels_is_refused():
    runtime = FunctionRuntime(lambda batch: [], NetworkInput(1, 64, 64, channels=5))
    with pytest.raises(ModelError, match=r"takes images of 5 channels; expected 3 \(colour\) or 1 \(grey\)"):
        maskprism.load(runtime)


def test_a_network_that_does_not_run_is_refused():
    def broken(batch):
        raise RuntimeError("no memory left")

    with pytest.raises(ModelError, match=r"does not run on a canvas of 96 x 64 pixels \(no memory left\)"):
        maskprism.load(FunctionRuntime(broken, NetworkInput(1, 64, 96)))


def test_a_function_is_a_runtime(tiny):
    of_file = maskprism.load(tiny)
    runtime = FunctionRuntime(of_file.runtime, NetworkInput(1, 64, 64), ultralytics_metadata())
    model = maskprism.load(runtime)
    assert (model.spec.name, model.spec.runtime) == ("FunctionRuntime", "function")
    np.testing.assert_array_equal(model.predict(WHITE).coefficients, of_file.predict(WHITE).coefficients)


# --- bad arguments --------------------------------------------------------------------------------


def test_files_that_are_not_there_or_of_no_known_kind(tmp_path, tiny):
    with pytest.raises(ModelError, match=r"missing\.onnx: there is no such model file"):
        maskprism.load(tmp_path / "missing.onnx")
    with pytest.raises(ModelError, match=r": is a folder with 0 \.xml files; expected a model file, or an OpenVINO"):
        maskprism.load(tmp_path)
    unknown = tmp_path / "model.mlmodel"
    unknown.write_bytes(b"x")
    with pytest.raises(ModelError, match=r"reads \.mlmodel; expected \.onnx, \.xml, \.tflite, \.torchscript, \.pt"):
        maskprism.load(unknown)
    bare = tmp_path / "model"
    bare.write_bytes(b"x")
    with pytest.raises(ModelError, match="no runtime reads files without a suffix"):
        maskprism.load(bare)
    with pytest.raises(InputError, match="there is no runtime 'tensorrt'; expected one of onnxruntime, openvino"):
        maskprism.load(tiny, runtime="tensorrt")
    for thing in (17, object()):
        with pytest.raises(InputError, match=f"cannot load a model from {type(thing).__name__}"):
            maskprism.load(thing)


def test_a_model_can_be_named_by_a_string_with_spaces_and_umlauts(tiny, tmp_path):
    folder = tmp_path / "Modelle für später"
    folder.mkdir()
    path = shutil.copy(tiny, folder / "größe n.onnx")
    for runtime in ("onnxruntime", "openvino"):
        pytest.importorskip(runtime)
        model = maskprism.load(str(path), runtime=runtime)
        assert model.spec.name == "größe n.onnx"
        assert len(model.predict(WHITE)) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"conf": -0.1}, "conf is -0.1; expected 0 to 1"),
        ({"conf": 1.1}, "conf is 1.1; expected 0 to 1"),
        ({"conf": float("nan")}, "conf is nan; expected 0 to 1"),
        ({"conf": "high"}, "conf is 'high'; expected 0 to 1"),
        ({"iou": 7}, "iou is 7; expected 0 to 1"),
        ({"iou": "much"}, "iou is 'much'; expected 0 to 1"),
        ({"max_det": 0}, "max_det is 0; expected at least 1"),
        ({"max_det": 1.5}, "max_det is 1.5; expected at least 1"),
        ({"classes": [3]}, r"classes \[3\] are not in the model; it has 3 classes \(0..2\)"),
        ({"classes": [-1]}, r"classes \[-1\] are not in the model"),
        ({"classes": ["cat"]}, r"classes is \['cat'\]; expected a collection of class ids"),
        ({"classes": 1}, r"classes is 1; expected a collection of class ids, such as \[0, 2\]"),
        ({"classes": "1"}, "classes is '1'; expected a collection of class ids"),
        ({"imgsz": 640}, r"imgsz is 640 x 640; tiny.onnx takes exactly 64 x 64 \(height x width\)"),
        ({"imgsz": (64, 96)}, "imgsz is 64 x 96; tiny.onnx takes exactly 64 x 64"),
        ({"imgsz": (64,)}, r"imgsz is \(64,\); expected a side or \(height, width\) in pixels"),
        ({"imgsz": "64"}, "imgsz is '64'; expected a side"),
        ({"imgsz": 64.5}, "imgsz is 64.5; expected a side"),
        ({"device": "tpu"}, "device 'tpu' is unknown to ONNX Runtime; expected cpu, cuda"),
        ({"device": "cuda:x"}, "device 'cuda:x'"),
        ({"precision": "f16"}, "precision 'f16' is not available with ONNX Runtime"),
        ({"layout": "yolact2"}, "there is no layout 'yolact2'"),
        ({"rule": "yolact2"}, "there is no mask rule 'yolact2'"),
        ({"device": "tpu", "runtime": "openvino"}, "device 'tpu' is not one that OpenVINO sees here: CPU"),
    ],
)
def test_bad_arguments_are_refused(arguments, message, tiny):
    if arguments.get("runtime"):
        pytest.importorskip(arguments["runtime"])
    with pytest.raises(InputError, match=message):
        maskprism.load(tiny, **arguments)


@pytest.mark.parametrize("imgsz", [0, -64, 16, (64, 8)])
def test_a_canvas_below_the_stride_is_refused(imgsz, tmp_path):
    path = Tiny(dynamic=True, metadata=ultralytics_metadata()).save(tmp_path / "tiny.onnx")
    with pytest.raises(InputError, match=r"imgsz is -?\d+ x -?\d+; expected at least the stride, 32"):
        maskprism.load(path, imgsz=imgsz)


def test_numpy_numbers_are_numbers(tiny):
    model = maskprism.load(
        tiny, imgsz=np.int64(64), conf=np.float32(0.5), max_det=np.int64(2), classes=np.array([0, 1])
    )
    assert len(model.predict(WHITE)) == 2


@pytest.mark.parametrize(
    ("module", "suffix", "extra", "package"),
    [
        ("openvino", ".xml", "openvino", "openvino"),
        ("ai_edge_litert", ".tflite", "litert", "ai-edge-litert"),
        ("ultralytics", ".pt", "ultralytics", "ultralytics"),
    ],
)
def test_a_missing_extra_says_how_to_install_it(module, suffix, extra, package, tmp_path, monkeypatch):
    for loaded in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, module, None)
    path = tmp_path / f"model{suffix}"
    path.write_bytes(b"x")
    with pytest.raises(MissingExtraError) as caught:
        maskprism.load(path)
    assert str(caught.value) == (
        f"reading model{suffix}{' with OpenVINO' if extra == 'openvino' else ''} needs the package {package}, which "
        f"is not installed; install it with: pip install 'maskprism[{extra}]'"
    )
    assert isinstance(caught.value, ImportError)


# --- TensorFlow Lite ------------------------------------------------------------------------------


def appended(path: Path, text: str) -> Path:
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("metadata.json", text)
    return path


@pytest.mark.parametrize("write", [json.dumps, repr], ids=["json", "literal"])
def test_metadata_appended_to_a_tflite_is_read(write, tmp_path, real_data):
    pytest.importorskip("ai_edge_litert")
    path = Path(shutil.copyfile(real_data / "models" / "yolov8n-seg_int8.tflite", tmp_path / "model.tflite"))
    names = {str(i): f"thing {i}" for i in range(80)}
    appended(path, write({"task": "segment", "version": "8.3.0", "names": names, "stride": 32, "imgsz": [640, 640]}))
    spec = maskprism.load(path).spec
    assert spec.names[5] == "thing 5"
    assert (spec.version, spec.rule.name) == ("8.3.0", "ultralytics-8.3")


@pytest.mark.parametrize("text", ["", "[1, 2]", "__import__('os').system('touch HACKED')", "{" * 500, "\x00\xff"])
def test_other_archives_behind_a_tflite_are_passed_over(text, tmp_path, real_data, monkeypatch):
    pytest.importorskip("ai_edge_litert")
    from maskprism.models.runtimes.litert import _metadata

    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.tflite"
    path.write_bytes(b"\x1c\x00\x00\x00TFL3" + bytes(64))
    assert _metadata(appended(path, text)) == {}
    assert not (tmp_path / "HACKED").exists()


def test_a_damaged_archive_behind_a_tflite_is_a_model_error(tmp_path):
    from maskprism.models.runtimes.litert import _metadata

    path = appended(tmp_path / "model.tflite", json.dumps({"names": ["cat"] * 50}))
    data = path.read_bytes()
    place = data.index(b"cat")
    path.write_bytes(data[:place] + b"dog" + data[place + 3 :])  # the checksum no longer fits
    with pytest.raises(ModelError, match=r"model\.tflite: the metadata archive at its end is damaged"):
        _metadata(path)


def quantised_copy(source: Path, target: Path, like: dict[str, np.ndarray]) -> dict[str, float]:
    """Write the same model with a uint8 image, int16 detections and int8 prototypes; the steps of both outputs."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(source.read_bytes(), 0))
    graph = model.subgraphs[0]

    def operator(builtin: int) -> int:
        code = schema.OperatorCodeT()
        code.builtinCode, code.deprecatedBuiltinCode, code.version = builtin, builtin, 2
        model.operatorCodes.append(code)
        return len(model.operatorCodes) - 1

    def tensor(like_index: int, kind: int, scale: float, zero_point: int) -> int:
        original = graph.tensors[like_index]
        new = schema.TensorT()
        new.shape, new.type, new.buffer, new.name = original.shape, kind, 0, original.name + b"_quantised"
        new.quantization = schema.QuantizationParametersT()
        new.quantization.scale, new.quantization.zeroPoint = [scale], [zero_point]
        graph.tensors.append(new)
        return len(graph.tensors) - 1

    def node(code: int, source_index: int, target_index: int, options_type: int, options: object) -> object:
        new = schema.OperatorT()
        new.opcodeIndex, new.inputs, new.outputs = code, [source_index], [target_index]
        new.builtinOptionsType, new.builtinOptions = options_type, options
        return new

    image = tensor(graph.inputs[0], schema.TensorType.UINT8, 1 / 255, 0)
    rows, prototypes = list(graph.outputs)
    low, high = float(like["prototypes"].min()), float(like["prototypes"].max())
    scale = (high - low) / 255
    cells = tensor(prototypes, schema.TensorType.INT8, scale, round(-128 - low / scale))
    fine = float(np.abs(like["rows"]).max()) / 32767
    finer = tensor(rows, schema.TensorType.INT16, fine, 0)
    options = schema.BuiltinOptions
    dequantise_code, quantise_code = (
        operator(schema.BuiltinOperator.DEQUANTIZE),
        operator(schema.BuiltinOperator.QUANTIZE),
    )
    graph.operators.insert(
        0, node(dequantise_code, image, graph.inputs[0], options.DequantizeOptions, schema.DequantizeOptionsT())
    )
    for real, integers in ((prototypes, cells), (rows, finer)):
        graph.operators.append(node(quantise_code, real, integers, options.QuantizeOptions, schema.QuantizeOptionsT()))
    graph.inputs, graph.outputs = [image], [finer, cells]
    model.signatureDefs = None
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    target.write_bytes(bytes(builder.Output()))
    return {"rows": fine, "prototypes": scale}


def test_quantised_inputs_and_outputs(tmp_path, real_data):
    pytest.importorskip("ai_edge_litert")
    source = real_data / "models" / "yolov8n-seg_int8.tflite"
    real = maskprism.load(source)
    image = maskprism.read_image(real_data / "images" / "bus.jpg")
    canvas = YOLO.canvas(image, Letterbox.fit(image.shape[:2], (640, 640)))
    tensor = canvas[None, :, :, ::-1] * np.float32(1 / 255)  # as DEQUANTIZE computes it: the model amplifies bits
    names = ["rows", "prototypes"]
    expected = dict(zip(names, real.runtime(tensor), strict=True))
    steps = quantised_copy(source, tmp_path / "all_int8.tflite", expected)
    model = maskprism.load(tmp_path / "all_int8.tflite")
    kinds = {np.dtype(detail["dtype"]).name for detail in model.runtime._outs}
    assert (np.dtype(model.runtime._in["dtype"]).name, kinds) == ("uint8", {"int16", "int8"})
    for name, values in zip(names, model.runtime(tensor), strict=True):
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, expected[name], atol=steps[name] * 0.51)
    assert_finds_what_is_there(model, real_data)


@pytest.mark.parametrize(
    ("dtype", "scale", "zero_point"),
    [(np.int8, 1 / 255, -128), (np.uint8, 1 / 255, 0), (np.int16, 1 / 32767, 0), (np.uint8, 0.02, 100)],
)
@given(seed=seeds)
def test_quantising_there_and_back_loses_half_a_step(dtype, scale, zero_point, seed):
    tensor = {"dtype": dtype, "quantization": (scale, zero_point)}
    values = np.random.default_rng(seed).uniform(0, 1, 50).astype(np.float32)
    stored = quantise(values, tensor)
    assert stored.dtype == dtype
    np.testing.assert_allclose(dequantise(stored, tensor), values, atol=scale * 0.501 + 1e-6)


def test_quantising_by_hand():
    int8 = {"dtype": np.int8, "quantization": (0.5, -3)}
    assert quantise(np.array([0, 1, -1.2, 1000, -1000], dtype=np.float32), int8).tolist() == [-3, -1, -5, 127, -128]
    assert dequantise(np.array([-3, -1, 127], dtype=np.int8), int8).tolist() == [0, 1, 65]
    uint8 = {"dtype": np.uint8, "quantization": (0.25, 128)}
    assert quantise(np.array([0, -32, 31.75, 99], dtype=np.float32), uint8).tolist() == [128, 0, 255, 255]
    assert dequantise(np.array([0, 128, 255], dtype=np.uint8), uint8).tolist() == [-32, 0, 31.75]
    real = {"dtype": np.float32, "quantization": (0.0, 0)}
    values = np.array([0.1, 2], dtype=np.float32)
    assert quantise(values, real) is values
    assert dequantise(values, real) is values


def test_integers_without_a_scale_are_themselves():
    plain = {"dtype": np.int64, "quantization": (0.0, 0)}
    assert dequantise(np.array([3, -7]), plain).tolist() == [3, -7]


def test_litert_runs_on_the_cpu_in_the_precision_of_the_file(real_data):
    pytest.importorskip("ai_edge_litert")
    path = real_data / "models" / "yolov8n-seg_int8.tflite"
    with pytest.raises(InputError, match="device 'cuda' is not available with LiteRT; expected cpu"):
        maskprism.load(path, device="cuda")
    with pytest.raises(InputError, match="precision 'bf16' is not available with LiteRT"):
        maskprism.load(path, precision="bf16")
