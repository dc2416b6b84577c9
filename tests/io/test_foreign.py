"""Foreign files: what does not fit a schema is one sentence, whatever it is."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import maskprism
from helpers.small_datasets import TRIANGLE, coco, data_set
from helpers.tiny_models import Tiny, ultralytics_metadata
from maskprism.analysis.prototypes.basis import CanonicalBasis
from maskprism.cli import main
from maskprism.cli.original import _read_masks
from maskprism.datasets import open_dataset
from maskprism.errors import InputError, LabelError, MaskprismError, ModelError, TableError
from maskprism.io import untrusted as foreign
from maskprism.io.class_names import are_placeholders, parse_class_names
from maskprism.io.sources import open_source
from maskprism.models.metadata import MAX_SIDE, Metadata
from maskprism.models.names import read_names
from maskprism.models.rewrite import read_onnx
from maskprism.models.runtimes import FunctionRuntime, NetworkInput
from maskprism.tables.schema import read_settings_text
from maskprism.tables.table import CoefficientTable


class Point(msgspec.Struct):
    x: int
    name: str = ""


def decoded(data: bytes, **options: Any) -> Point:
    return foreign.decode_json(data, Point, "p.json", InputError, "a point", **options)


def test_json_is_read_as_generously_as_python_reads_it():
    assert decoded(b'{"x": 3}') == Point(3)
    assert decoded('\ufeff{"x": "3", "other": NaN, "name": "ü"}'.encode()) == Point(3, "ü")
    assert decoded(b'{"x": 3.0, "z": Infinity}') == Point(3)
    with pytest.raises(InputError, match=r"p\.json: is not as it should be \(expected int, got str at x\)"):
        decoded(b'{"x": "3"}', strict=True)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "cannot be read as JSON"),
        (b'{"x": 1', "cannot be read as JSON"),
        (b"[" * 100_000, "expected object, got array"),
        (b'{"y": ' + b"[" * 100_000, "nested too deep"),
        (b'{"x": 1, "y": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", "nested too deep"),
        (b'{"x": 1e400}', "at x"),
        (b'{"x": Infinity}', "expected int, got null at x"),
        (b'{"x": ' + b"9" * 5_000 + b"}", "at x"),
        (b'{"x": 1.5}', "expected int, got float at x"),
        (b'{"name": "a"}', "missing required field x"),
        (b"[1]", "expected object, got array"),
        (b'{"x": 1, "name": "\\ud800"}', "surrogates not allowed"),
        (b'{"x": 1, "name": "\xff"}', "can't decode byte 0xff"),
        (b"\xff\xfe{\x00}", "cannot be read as JSON"),
    ],
)
def test_json_that_does_not_fit_is_told(data, said):
    with pytest.raises(InputError, match=r"^p\.json: .*; expected a point$") as raised:
        decoded(data)
    assert said in str(raised.value)
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize(
    "text",
    [
        "a: 2020-13-45",
        "a: 0b",
        "a: !!python/object:os.system ls",
        "a: &x [*x]\nb: {*x : 1}",
        "[" * 3_000,
        "{[a]: 1}",
        "a: '\\ud800'\x00",
        "- 1",
        "",
        "a: !!int x",
        "a: !!float {}",
        "<<: 3",
    ],
)
def test_yaml_of_every_kind_is_read_or_told(tmp_path, text):
    file = tmp_path / "data.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=r"data\.yaml: .*expected"):
        foreign.read_yaml(file, Point, InputError, "a point")


def test_yaml_that_unfolds_to_more_than_memory_is_refused_in_a_short_sentence(tmp_path):
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    (tmp_path / "data.yaml").write_text("\n".join([*levels, "names: *a11", "val: *a11"]))
    with pytest.raises(InputError) as raised:
        open_dataset(tmp_path / "data.yaml")
    assert len(str(raised.value)) < 500


def test_only_regular_files_of_a_bounded_size_are_read(tmp_path):
    assert foreign.read_regular(_file(tmp_path, b"abc"), InputError, limit=3) == b"abc"
    with pytest.raises(InputError, match=r"has 2\.0 MB; expected at most 1 MB"):
        foreign.read_regular(_file(tmp_path, bytes(2 << 20)), InputError, limit=1 << 20)
    with pytest.raises(InputError, match="is not a regular file"):
        foreign.read_regular(tmp_path, InputError)
    for path in (tmp_path / "none", tmp_path / ("x" * 5_000), tmp_path / "a\0b"):
        with pytest.raises(LabelError, match=r"none: there is no such file|cannot be read \(") as raised:
            foreign.read_regular(path, LabelError)
        assert len(str(raised.value)) < 300
        assert not foreign.is_file(path)
        assert not foreign.is_folder(path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(InputError, match=r"^[^:]*: cannot be read; it is not a regular file, but a pipe$"):
            foreign.read_regular(tmp_path / "pipe", InputError)


LONG = "x" * 5_000
READERS: dict[str, tuple[Any, str]] = {
    "image": (maskprism.read_image, ".png"),
    "source": (open_source, ".txt"),
    "model": (maskprism.load, ".onnx"),
    "model to rewrite": (read_onnx, ".onnx"),
    "data set": (open_dataset, ".json"),
    "names": (read_names, ".yaml"),
    "names of a model": (read_names, ".onnx"),
    "table": (CoefficientTable.read, ".parquet"),
    "basis": (CanonicalBasis.load, ".npz"),
    "coefficients": (_read_masks, ".csv"),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", READERS)
def test_paths_that_cannot_be_and_pipes_are_told_wherever_a_path_is_taken(kind, tmp_path):
    read, suffix = READERS[kind]
    paths = [tmp_path / f"none{suffix}", tmp_path / f"{LONG}{suffix}", f"{'y' * 252}{suffix}", tmp_path]
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / f"pipe{suffix}")
        paths.append(tmp_path / f"pipe{suffix}")
    for path in paths:
        with pytest.raises(MaskprismError) as raised:
            read(path)
        assert len(str(raised.value)) < 1_000, kind


@pytest.mark.filterwarnings("ignore:Cyclopts application")
def test_what_the_system_says_is_a_sentence_too(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["maskprism", "reduce", "sample", "--images", "images", "--out", f"{LONG}.onnx"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert said.endswith("File name too long\n")
    assert said.count("\n") == 1
    assert len(said) < 300


def _file(folder: Path, data: bytes) -> Path:
    (folder / "file").write_bytes(data)
    return folder / "file"


plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.dates()
anything = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plain, inner, max_size=3), max_leaves=8
)


@given(anything)
def test_names_are_names_or_an_error(found):
    try:
        names = parse_class_names(found, "f", InputError)
    except InputError as error:
        said = str(error)
        assert "expected a list of class names" in said
    else:
        assert list(names) == list(range(len(found)))
        assert all(isinstance(name, str) and name.encode() is not None for name in names.values())


@given(st.dictionaries(st.sampled_from([*Metadata.__dataclass_fields__, "args"]), anything | anything.map(repr)))
def test_metadata_is_read_or_refused(raw):
    try:
        found = Metadata.parse(raw, "m")
    except ModelError as error:
        said = str(error)
        assert said.startswith("m")
    else:
        assert found.stride is None or 1 <= found.stride <= 1024
        assert found.imgsz is None or max(found.imgsz) <= MAX_SIDE


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"stride": ".inf"}, "'stride' is not a literal"),
        ({"stride": float("inf")}, "expected int, got float at stride"),
        ({"stride": "0"}, "expected int >= 1 at stride"),
        ({"stride": "-32"}, "expected int >= 1 at stride"),
        ({"stride": "1.5"}, "expected int, got float at stride"),
        ({"stride": "[8, 16]"}, "at stride"),
        ({"imgsz": "[100000, 100000]"}, "expected int <= 8192 at imgsz[0]"),
        ({"imgsz": "[0, 64]"}, "expected int >= 1 at imgsz[0]"),
        ({"imgsz": "[]"}, "at imgsz"),
        ({"args": "[1]"}, "at args"),
        ({"names": "{0: ['a']}"}, "names is {0: ['a']}"),
        ({"names": "(" * 10_000}, "'names' is not a literal"),
        ({"version": "9" * 5_000 + "'"}, None),
    ],
)
def test_metadata_out_of_range_is_told(tmp_path, entry, said):
    path = Tiny(dynamic=True).save(tmp_path / "tiny.onnx")
    runtime = maskprism.load(path).runtime
    runtime.metadata = ultralytics_metadata() | entry
    if said is None:
        assert maskprism.load(runtime).spec.names
        return
    with pytest.raises(ModelError, match=r"^OnnxRuntime") as raised:
        maskprism.load(runtime)
    assert said in str(raised.value)
    assert len(str(raised.value)) < 400


def test_strides_and_sides_may_be_whole_floats_and_text():
    found = Metadata.parse({"stride": 32.0, "imgsz": ["64", 96.0], "names": "['a', 'b\\ud800']"}, "m")
    assert (found.stride, found.imgsz, found.names) == (32, (64, 96), {0: "a", 1: "b\\ud800"})


@pytest.mark.parametrize("batch", [1, 10**9])
def test_a_canvas_that_would_not_fit_into_memory_is_refused(batch, tmp_path):
    side = 100_000 if batch == 1 else 64
    runtime = FunctionRuntime(lambda batch: pytest.fail("it was run"), NetworkInput(batch, side, side))
    with pytest.raises(InputError, match=r"a batch would have .* pixels .*expected at most 8192 x 8192"):
        maskprism.load(runtime)
    with pytest.raises(InputError, match="expected at most 8192 x 8192"):
        maskprism.load(Tiny(dynamic=True).save(tmp_path / "tiny.onnx"), imgsz=100_000)


def test_labels_of_any_size_are_told_at_once(tmp_path):
    rows = {
        "digits": "0 " + "1" * 3_000_000,
        "large": TRIANGLE + "\n" * (17 << 20),
        "garbage": np.random.default_rng(0).bytes(1 << 20),
        "good": TRIANGLE,
    }
    dataset = open_dataset(data_set(tmp_path, rows))
    said = {}
    for sample in dataset:
        try:
            said[sample.name[-8:-4]] = len(sample.read()[1])
        except LabelError as error:
            said[sample.name[-8:-4]] = str(error)
    assert max(len(str(one)) for one in said.values()) < 500
    assert said["good"] == 1
    assert "is not a number" in said["gits"]
    assert "expected at most 4 MB" in said["arge"]
    assert "is not UTF-8 text" in said["bage"]


def test_a_pipe_for_labels_is_no_file(tmp_path):
    data = data_set(tmp_path, {"a": TRIANGLE, "b": TRIANGLE})
    (tmp_path / "labels" / "val" / "b.txt").unlink()
    os.mkfifo(tmp_path / "labels" / "val" / "b.txt")
    good, bad = open_dataset(data)
    assert len(good.read()[1]) == 1
    with pytest.raises(LabelError, match="is not a regular file"):
        bad.read()


def changed(file: Path, change: Any) -> Path:
    described = json.loads(file.read_text())
    change(described)
    file.write_text(json.dumps(described))
    return file


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d["images"][0].update(id=None), "expected int | float | str, got null at images[0].id"),
        (lambda d: d["images"][0].update(width=float("inf")), None),
        (lambda d: d["images"][0].update(width=60.5), "at images[0].width"),
        (lambda d: d["images"][0].update(file_name=7), "at images[0].file_name"),
        (lambda d: d["images"][0].update(file_name="x" * 5_000), None),
        (lambda d: d["images"][0].update(file_name="a\0b"), None),
        (lambda d: d["images"][1].update(id=d["images"][0]["id"]), "two of its images have"),
        (lambda d: d["images"][1].update(file_name=d["images"][0]["file_name"]), "two of its images have"),
        (lambda d: d["categories"][0].update(id=str(d["categories"][0]["id"])), None),
        (lambda d: d["categories"][0].update(id="x"), None),
        (lambda d: d["categories"][1].update(id=d["categories"][0]["id"]), "two of its categories have"),
        (lambda d: d["categories"][0].update(name={}), "at categories[0].name"),
        (lambda d: d.update(annotations=[{}]), "annotation 0: is not as it should be"),
        (lambda d: d.update(annotations={}), "expected array, got object at annotations"),
        (lambda d: d.update(images=[]), "lists 0 images and 2 categories"),
    ],
)
def test_coco_descriptions_that_do_not_fit(tmp_path, change, said):
    file = changed(coco(tmp_path, []), change)
    if said is None:
        dataset = open_dataset(file)
        assert len(dataset) + len(dataset.notices) == 2  # a missing image is reported
        return
    with pytest.raises(InputError) as raised:
        open_dataset(file)
    assert said in str(raised.value)
    assert len(str(raised.value)) < 1_000


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": [40, 60], "counts": "0"},
        {"size": [40, 60], "counts": ""},
        {"size": [40, 60], "counts": "o" * 50},
        {"size": [40, 60], "counts": "ü€"},
        {"size": [40, 60], "counts": [2**62, 2**62, 2**62, 2**62 + 2400]},
        {"size": [40, 60], "counts": [-1, 2401]},
        {"size": [40.5, 60], "counts": [2400]},
        {"size": [40, 60, 1], "counts": [2400]},
        {"size": [10**9, 10**9], "counts": [10**18]},
        {"counts": [2400]},
        [[0, 0, 1, 1, 1e39, 3]],
        [[0, 0, 1, 1, "x", 3]],
        [[0, 0, 1, 1, 2]],
        [0, 0, 1, 1, 2],
        7,
        [[[[[]]]]],
    ],
)
def test_masks_that_do_not_fit_cost_their_image_alone(tmp_path, segmentation):
    bad, good = open_dataset(coco(tmp_path, [{"category_id": 3, "segmentation": segmentation}]))
    with pytest.raises(LabelError, match="annotation 0"):
        bad.read()
    assert len(good.read()[1]) == 0


SETTINGS = {"format": 2, "prototypes": 8, "objectness": False, "rule": {"name": "x"}, "names": {"0": "a"}, "more": [1]}


def test_settings_are_kept_whole():
    assert read_settings_text(json.dumps(SETTINGS).encode(), "t", "move it") == SETTINGS


@pytest.mark.parametrize(
    "change",
    [
        *({"rule": 7}, {"format": 1}, {"prototypes": 0}, {"prototypes": "8"}, {"prototypes": 1e9}, {"objectness": 0}),
        *({"names": ["a"]}, {"names": {"0": 1}}, {"format": None}),
    ],
)
def test_settings_that_do_not_fit_are_told(change):
    with pytest.raises(TableError, match=r"^t: is not as it should be .*; move it$"):
        read_settings_text(json.dumps(SETTINGS | change).encode(), "t", "move it")


def test_long_values_are_shortened():
    for value in ("x" * 10_000, list(range(10_000)), dict.fromkeys(range(99), "y" * 100), Path("z" * 9_000), 10**1_000):
        assert len(foreign.shortened(value)) <= 120
    assert foreign.shortened("\ud800") == "'\\ud800'"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({}, True),
        ({0: "class0", 1: "class1"}, True),
        ({0: "class_0", 1: "Class 1"}, True),
        ({0: "0", 1: "1"}, True),
        ({0: "class1"}, False),
        ({0: "class0", 1: "dog"}, False),
        ({0: "1", 1: "0"}, False),
    ],
)
def test_placeholders(names, expected):
    assert are_placeholders(names) == expected


def test_the_validator_is_not_imported_with_the_package():
    assert "msgspec" in sys.modules
    import subprocess

    code = "import sys, maskprism; assert 'msgspec' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
