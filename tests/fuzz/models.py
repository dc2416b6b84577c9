"""Model files: their metadata, and their bytes."""

from __future__ import annotations

import ast
import io
import json
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import onnx
from onnx import helper

import maskprism
from fuzz.kind import Kind, image
from fuzz.mutate import JSON, YAML, Chance, as_json, as_yaml, bytes_damage, damaged_tree, filled
from helpers.tiny_models import Tiny, save_tiny_tflite, ultralytics_metadata
from helpers.tiny_queries import TinyQueries
from helpers.tiny_yolact import TinyYolact


def _onnx(folder: Path, **options: Any) -> None:
    metadata = ultralytics_metadata(author="Ultralytics", kpt_shape="[17, 3]")
    Tiny(metadata=metadata, **options).save(folder / "tiny.onnx")


def _yolact(folder: Path) -> None:
    TinyYolact().save(folder / "tiny.onnx")


def _queries(folder: Path) -> None:
    TinyQueries("rf-detr", bias=0.5).save(folder / "tiny.onnx")


def _openvino(folder: Path) -> None:
    import openvino

    _onnx(folder)
    network = openvino.convert_model(str(folder / "tiny.onnx"))
    openvino.save_model(network, str(folder / "tiny.xml"), compress_to_fp16=False)
    (folder / "tiny.onnx").unlink()
    tree = {key: _literal(text) for key, text in ultralytics_metadata().items()}
    (folder / "metadata.yaml").write_text(as_yaml(tree))


def _tflite(folder: Path) -> None:
    path = save_tiny_tflite(folder / "tiny.tflite")
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        tree = {key: _literal(text) for key, text in ultralytics_metadata({0: "cat", 1: "dog"}).items()}
        archive.writestr(zipfile.ZipInfo("metadata.json"), json.dumps(tree))  # its date is always the same


def _use_model(folder: Path, name: str) -> None:
    model = maskprism.load(folder / name, threads=1)
    _ = repr(model), model.spec
    prediction = model.predict(image(40, 56))
    prediction.masks("image")
    [prediction.name_of(one) for one in prediction.classes]


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _onnx_metadata(chance: Chance, data: bytes) -> bytes:
    """Damage to the entries of an ONNX file, which are literals as text."""
    model = onnx.load_from_string(data)
    tree = damaged_tree(chance, {entry.key: _literal(entry.value) for entry in model.metadata_props}, as_yaml)
    style = chance.choice((as_json, str))
    entries = tree.items() if isinstance(tree, dict) else {"names": tree}.items()
    del model.metadata_props[:]
    helper.set_model_props(
        model,
        {
            str(key): value if isinstance(value, str) and "«" not in value else _as_text(value, style)
            for key, value in entries
        },
    )
    return model.SerializeToString()


def _as_text(value: Any, style: Callable[[Any], str]) -> str:
    return filled(style(value))


def _tflite_metadata(chance: Chance, data: bytes) -> bytes:
    """Damage to the archive behind a TFLite file: to the JSON in it, or to its bytes."""
    start = data.index(b"PK\x03\x04")
    with zipfile.ZipFile(io.BytesIO(data[start:])) as archive:
        text = archive.read("metadata.json")
    if chance.random() < 0.4:
        return data[:start] + bytes_damage(chance, data[start:])
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo(chance.choice(("metadata.json", "meta.txt", "a/b", ".."))), JSON(chance, text))
    return data[:start] + out.getvalue()


KINDS = {
    "onnx": Kind(
        (_onnx, partial(_onnx, dynamic=True), partial(_onnx, family="end2end"), _yolact, _queries),
        {"*": (_onnx_metadata, _onnx_metadata, bytes_damage)},
        partial(_use_model, name="tiny.onnx"),
        10,
    ),
    "openvino": Kind(
        (_openvino,),
        {"*.yaml": (YAML, YAML, YAML, bytes_damage), "*": (bytes_damage,)},
        partial(_use_model, name="tiny.xml"),
        2,
    ),
    "tflite": Kind(
        (_tflite,),
        {"*": (_tflite_metadata, _tflite_metadata, bytes_damage)},
        partial(_use_model, name="tiny.tflite"),
        5,
    ),
}
