"""The one serialiser of predictions: every family comes back without loss, and hostile files end in an error."""

from __future__ import annotations

import io
import json
import math
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.by_hand import assert_equal
from helpers.fake_network import fake_model, v5_model, write_images
from helpers.strategies import predictions, seeds
from maskprism import Letterbox, MaskprismError, Prediction
from maskprism.core import archive
from maskprism.core.masks import NO_CROP
from maskprism.core.preprocessing import PREPROCESSINGS, Preprocessing
from maskprism.errors import InputError
from maskprism.integrations.training import PrototypeCallback, filmstrip, read_records
from maskprism.models.correction import Correction
from maskprism.tables.extraction import extract
from maskprism.tables.stored_predictions import StoredPredictions
from maskprism.tables.stored_prototypes import prototype_columns, restored

ARRAYS = ("canvas_boxes", "scores", "classes", "coefficients", "prototypes", "objectness", "levels")


@st.composite
def of_any_family(draw: st.DrawFn) -> Prediction:
    """With objectness or levels or neither, without boxes, without instances, of 256 prototypes, odd names."""
    found = draw(predictions(min_count=0))
    rng = np.random.default_rng(draw(seeds))
    if draw(st.booleans()):
        found = replace(found, levels=rng.integers(0, 5, len(found)))
    if draw(st.booleans()):
        found = replace(found, objectness=rng.uniform(0.1, 1, len(found)).astype(np.float32))
    elif not found.rule.objectness:
        found = replace(found, objectness=None)
    if draw(st.integers(0, 9)) == 0:
        k = 256
        found = replace(
            found,
            coefficients=rng.normal(0, 1, (len(found), k)).astype(np.float32),
            prototypes=rng.normal(0, 1, (k, *found.letterbox.grid_hw)).astype(np.float32),
        )
    names = st.dictionaries(st.integers(0, 1200), st.text(max_size=8), max_size=4)
    return replace(
        found,
        names=draw(names),
        source=draw(st.none() | st.text(max_size=12) | st.just("odd \udcff.jpg") | st.just("null")),
        preprocessing=draw(
            st.sampled_from([*PREPROCESSINGS.values(), Preprocessing("grey", channels="grey", padding=0)])
        ),
    )


def assert_same(found: Prediction, expected: Prediction) -> None:
    assert_equal(found, expected)
    assert (found.levels is None) == (expected.levels is None)
    if expected.levels is not None:
        np.testing.assert_array_equal(found.levels, expected.levels)
        assert found.levels is not None
        assert found.levels.dtype == np.int64
    assert found.source == expected.source


@given(prediction=of_any_family())
@settings(max_examples=80)
def test_a_prediction_of_any_family_comes_back_without_loss(
    prediction: Prediction, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("saved") / "one ü.npz"
    assert prediction.save(path) == path
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    found = Prediction.load(path)
    assert_same(found, prediction)
    for size in ("grid", "canvas", "image"):
        np.testing.assert_array_equal(found.masks(size), prediction.masks(size))
    header = json.loads(json.dumps(archive.header_of(prediction)))
    assert_same(archive.prediction_of(header, archive.arrays_of(prediction), "here"), prediction)


@given(prediction=of_any_family(), stored=st.sampled_from(["fp32", "fp16"]))
@settings(max_examples=60)
def test_a_row_of_a_table_holds_the_same(prediction: Prediction, stored: Any) -> None:
    """What a table stores: instances in columns, everything shared in its settings, the rest in a row per image."""
    header = json.loads(json.dumps(archive.header_of(prediction)))
    settings_ = {
        "prototypes": len(prediction.prototypes),
        "stored": stored,
        "objectness": prediction.objectness is not None,
        **{name: header[name] for name in ("rule", "preprocessing", "names")},
    }
    row = {column.name: column.of(prediction) for column in prototype_columns(settings_)}
    table = pa.table(
        {
            "score": prediction.scores,
            "class_id": prediction.classes.astype(np.int32),
            "coefficients": pa.array(list(prediction.coefficients), pa.list_(pa.float32())),
            **({} if prediction.objectness is None else {"objectness": prediction.objectness}),
        }
    )
    half = prediction.prototypes.astype(np.float16).astype(np.float32)
    expected = prediction if stored == "fp32" else replace(prediction, prototypes=half)
    assert_same(restored(row, table, settings_, "t: a.png"), replace(expected, source="t: a.png"))


@pytest.mark.parametrize("make", [fake_model, v5_model])
def test_a_table_keeps_levels_so_that_a_correction_of_each_can_be_applied(tmp_path: Path, make: Any) -> None:
    paths = write_images(tmp_path / "photos", 9)
    extract(tmp_path / "photos", make(), tmp_path / "t.parquet", prototypes="fp32")
    stored = StoredPredictions.open(tmp_path / "t.parquet")
    rng = np.random.default_rng(0)
    per_level = Correction(rng.normal(0, 0.1, (3, 4, 4)), rng.normal(0, 0.1, (3, 4)))
    for path in paths:
        expected = make().predict(path)
        if len(expected):
            found = stored[path.name]
            assert expected.levels is not None
            np.testing.assert_array_equal(found.levels, expected.levels)
            np.testing.assert_array_equal(
                per_level.apply(found).masks("image"), per_level.apply(expected).masks("image")
            )


def test_records_of_a_training_of_yolov5_can_be_drawn(tmp_path: Path) -> None:
    """They have objectness, without which the rule cannot draw a mask."""
    (path,) = write_images(tmp_path / "photos", 1)
    model = v5_model()
    PrototypeCallback(path, tmp_path / "records").record(0, model)
    expected = model.predict(path)[[0]]
    (found,) = read_records(tmp_path / "records").values()
    assert_same(found, replace(expected, source=str(path)))
    np.testing.assert_array_equal(found.masks("image"), expected.masks("image"))
    assert filmstrip(tmp_path / "records").is_file()


def test_halves_that_overflow_stay_single() -> None:
    prediction = fake_model().predict(np.full((64, 64, 3), 90, np.uint8))
    large = replace(prediction, prototypes=prediction.prototypes + np.float32(1e6))
    assert archive.arrays_of(prediction, half=True)["prototypes"].dtype == np.float16
    np.testing.assert_array_equal(archive.arrays_of(large, half=True)["prototypes"], large.prototypes)


def test_a_stretched_letterbox_without_boxes(tmp_path: Path) -> None:
    box = Letterbox.stretch((37, 91), (64, 64)).with_grid((16, 16))
    rng = np.random.default_rng(0)
    prediction = Prediction(
        canvas_boxes=None,
        scores=np.float32([0.9, 0.2]),
        classes=np.array([3, 1]),
        coefficients=rng.normal(size=(2, 8)).astype(np.float32),
        prototypes=rng.normal(size=(8, 16, 16)).astype(np.float32),
        letterbox=box,
        rule=replace(NO_CROP, name="my own", squash=True),
        names={3: "a", 1: "b"},
        preprocessing=PREPROCESSINGS["mask2former"],
    )
    assert_same(Prediction.load(prediction.save(tmp_path / "deep" / "a.npz")), prediction)


def test_what_cannot_be_written_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    prediction = fake_model().predict(np.full((64, 64, 3), 90, np.uint8))
    with pytest.raises(InputError, match=r"a\.json: expected a file name ending in \.npz"):
        prediction.save(tmp_path / "a.json")
    (tmp_path / "taken").write_text("")
    with pytest.raises(MaskprismError, match="cannot be written"):
        prediction.save(tmp_path / "taken" / "a.npz")
    with pytest.raises(InputError, match="there is no such file"):
        Prediction.load(tmp_path / "none.npz")
    with pytest.raises(InputError, match="no regular file"):
        Prediction.load(tmp_path)
    both = archive.write(tmp_path / "two.npz", [prediction, prediction])
    with pytest.raises(InputError, match="holds 2 predictions; expected one"):
        Prediction.load(both)
    with pytest.raises(InputError, match=r"image 2 is out of range: .* holds 2 \(0\.\.1\)"):
        archive.read(both, 2)


class _Bomb:
    def __reduce__(self) -> Any:
        return (exec, ("raise SystemExit('code of the file was run')",))


def _members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def _put(path: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as opened:
        for name, data in members.items():
            opened.writestr(name, data)


def _npy(head: str, body: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode() + body


def _saved_array(array: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=True)
    return out.getvalue()


HUGE = "{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 64, 64), }\n"


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("scores_0.npy", _saved_array(np.array([_Bomb()], dtype=object)), "scores_0 holds values of type object"),
        ("scores_0.npy", pickle.dumps(_Bomb()), "is damaged"),
        ("scores_0.npy", _saved_array(np.array(["a"])), "values of type <U1"),
        ("scores_0.npy", _saved_array(np.array([1])), "scores holds values of type int64; expected floating-point"),
        ("scores_0.npy", _saved_array(np.zeros(3, np.float32)), r"classes has shape \(\d,\); expected \(3,\)"),
        ("prototypes_0.npy", _npy(HUGE, b"1234"), "has the shape .* and 4 bytes"),
        ("prototypes_0.npy", _npy("{'descr': 'O', 'shape': 3}"), "is damaged"),
        ("prototypes_0.npy", None, "prototypes is missing"),
        ("about.npy", _saved_array(np.frombuffer(b"[" * 100_000, np.uint8)), "is damaged|is not as it should be"),
        ("about.npy", _saved_array(np.frombuffer(b"\xff\xfe", np.uint8)), "is damaged"),
        ("about.npy", _saved_array(np.frombuffer(b'{"format": 7, "predictions": []}', np.uint8)), "format"),
        ("about.npy", _saved_array(np.frombuffer(b'{"format": 1, "predictions": []}', np.uint8)), "holds 0"),
        ("about.npy", None, "is damaged"),
    ],
)
def test_hostile_files_end_in_an_error(tmp_path: Path, name: str, data: bytes | None, words: str) -> None:
    path = fake_model().predict(np.full((64, 64, 3), 90, np.uint8)).save(tmp_path / "a.npz")
    members = _members(path)
    _put(path, {key: value for key, value in (members | {name: data}).items() if value is not None})
    with pytest.raises(InputError, match=words):
        Prediction.load(path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("letterbox", {"image_hw": [0, 3]}),
        ("letterbox", {"image_hw": [10**30, 3]}),
        ("letterbox", {"grid_hw": [3]}),
        ("rule", {"crop": "sideways"}),
        ("rule", {"name": 3.5}),
        ("preprocessing", {"scale": math.nan}),
        ("preprocessing", {"mean": ["x"]}),
        ("names", {"a": "b"}),
    ],
)
def test_a_header_is_checked_against_its_schema(field: str, value: dict[str, Any]) -> None:
    prediction = fake_model().predict(np.full((64, 64, 3), 90, np.uint8))
    header = archive.header_of(prediction)
    header[field] = header[field] | value
    with pytest.raises(InputError, match="here: "):
        archive.prediction_of(header, archive.arrays_of(prediction), "here")


def test_a_file_that_would_unpack_to_more_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fake_model().predict(np.full((64, 64, 3), 90, np.uint8)).save(tmp_path / "a.npz")
    members = _members(path)
    members["prototypes_0.npy"] = _npy(
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2048, 1024), }\n", bytes(8 << 20)
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, data in members.items():
            opened.writestr(name, data)
    assert path.stat().st_size < 1 << 20
    monkeypatch.setattr(archive, "MAX_BYTES", 4 << 20)
    with pytest.raises(InputError, match="larger than"):
        Prediction.load(path)
