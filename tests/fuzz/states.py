"""What maskprism keeps itself: edits, records of epochs, bases, corrections; and queries to the server."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from starlette.requests import Request

from fuzz.kind import Kind, image
from fuzz.mutate import JSON, Chance, bytes_damage, text_damage
from helpers.fake_network import fake_model, v5_model, write_images
from maskprism.analysis.prototypes.basis import CanonicalBasis, Usage
from maskprism.core import archive
from maskprism.core.masks import NO_CROP
from maskprism.core.prediction import Prediction
from maskprism.integrations.training import read_records
from maskprism.io.sources import SourceImage
from maskprism.models import load
from maskprism.models.correction import Correction
from maskprism.server.app import parse_query
from maskprism.viewer.widget import PrismWidget


def _edits(folder: Path) -> None:
    (folder / "edits.json").write_text(
        json.dumps({"selected": 0, "edits": {"0": [0.5, 1, -2, 0], "1": [0, 0, 0, 1e-3]}})
    )


@cache
def _widget() -> Any:
    grey = np.full((64, 64, 3), 127, np.uint8)  # two instances
    return PrismWidget(grey, fake_model(conf=0.01).predict(grey))


def _use_edits(folder: Path) -> None:
    try:
        state = json.loads((folder / "edits.json").read_bytes())
    except (ValueError, RecursionError, OSError):  # never comes through the channel of a notebook
        return
    widget = _widget()
    state = state if isinstance(state, dict) else {}
    if isinstance(state.get("selected"), int):
        widget.selected = state["selected"]
    if isinstance(state.get("edits"), dict):
        widget.edits = state["edits"]
        widget.edited_prediction.masks()


def _record(folder: Path) -> None:
    write_images(folder / "images", 2)
    predictions = fake_model(conf=0.01).predict(sorted((folder / "images").iterdir()))
    archive.write(folder / "epoch_001.npz", predictions, half=True)
    shutil.rmtree(folder / "images")


def _saved(folder: Path, *, query: bool) -> None:
    """One prediction in a file: of YOLOv5 with objectness and levels, or masks without boxes."""
    (found,) = v5_model().predict([image(40, 56, 1)])
    if query:
        found = replace(found, canvas_boxes=None, objectness=None, levels=None, rule=NO_CROP)
    found.save(folder / "prediction.npz")


def _use_saved(folder: Path) -> None:
    found = Prediction.load(folder / "prediction.npz")
    found.masks("image"), found.areas(), list(map(repr, found)), found.save(folder / "again.npz")


def _dump(folder: Path, *, in_pieces: bool) -> None:
    """Outputs of a device for two images of 64 x 64: a head in pieces as integers, or one table of numbers."""
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {"images": ["0.png", "a/1.png"], "names": ["cat", "dog"]}
    for number in range(2):
        if in_pieces:
            for level, side in enumerate((8, 4, 2)):
                for name, channels in (("box", 64), ("class", 2), ("sum", 1), ("coefficients", 4)):
                    arrays[f"{number}/{name}{level}"] = rng.integers(0, 128, (channels, side, side), dtype=np.int8)
            arrays[f"{number}/prototypes"] = rng.integers(-128, 128, (4, 16, 16), dtype=np.int8)
        else:
            table = rng.uniform(0, 64, (1, 10, 84)).astype(np.float32)
            table[:, 4:6] /= 64
            arrays |= {f"{number}/0": table, f"{number}/1": rng.normal(size=(1, 16 * 16 * 4)).astype(np.float32)}
    integers = {name.partition("/")[2] for name, array in arrays.items() if getattr(array, "dtype", None) == np.int8}
    arrays |= {f"scale/{name}": 1 / 127 for name in integers} | {f"zero_point/{name}": 0 for name in integers}
    layout = "rknn" if in_pieces else "tensorrt"
    np.savez_compressed(folder / "dump.npz", layout=layout, canvas_hw=[64, 64], class_logits=False, **arrays)


def _use_dump(folder: Path) -> None:
    load(folder / "dump.npz").predict(SourceImage("0.png", image()).read()).masks("image")


def _basis(folder: Path) -> None:
    usage = Usage(4)
    for seed in range(3):
        for prediction in fake_model(conf=0.01).predict([image(40, 56, seed)]):
            usage.update(prediction)
    CanonicalBasis.of(usage).save(folder / "basis.npz")


def _use_basis(folder: Path) -> None:
    basis = CanonicalBasis.load(folder / "basis.npz")
    grey = np.full((64, 64, 3), 127, np.uint8)
    basis.apply(fake_model(conf=0.01).predict(grey)).masks()
    _ = basis.shares, basis.effective_rank, basis.components_for(0.9)


def _record_arrays(chance: Chance, data: bytes) -> bytes:
    """Damage to the arrays of a record, or to what it says about itself."""
    with np.load(io.BytesIO(data)) as stored:
        arrays = dict(stored)
    name = chance.choice(sorted(arrays))
    chance.note("array", name)
    if name == "about":
        text = arrays[name].tobytes() if arrays[name].dtype == np.uint8 else str(arrays[name]).encode()
        damaged = JSON(chance, text)
        arrays[name] = (
            np.frombuffer(damaged, np.uint8)
            if arrays[name].dtype == np.uint8
            else np.array(damaged.decode("utf-8", "replace"))
        )
    else:
        array = arrays[name]
        changes = [array.T, array.astype(str), array[..., None], array.ravel(), np.array(3), np.zeros(0)]
        if array.dtype.kind != "U":
            changes += [array * -1, array * 1e6, array * np.nan, array + 1, array.astype(np.uint8)]
        arrays[name] = chance.choice([*changes, array[:-1]] if array.ndim else changes)
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)
    return out.getvalue()


def _use_record(folder: Path) -> None:
    for prediction in read_records(folder, 0).values():
        prediction.masks("image")


def _query(folder: Path) -> None:
    (folder / "query.txt").write_text(
        "class=1&class=0&score=0.5-1&iou=0-0.9&show=all&text=a&sort=name&offset=0&limit=5"
    )


def _use_query(folder: Path) -> None:
    path = folder / "query.txt"
    text = path.read_bytes() if path.is_file() else b""
    parse_query(Request({"type": "http", "query_string": text, "headers": []}))


def _query_words(chance: Chance, data: bytes) -> bytes:
    return text_damage(chance, data.replace(b"=", b",").replace(b"&", b" ")).replace(b",", b"=").replace(b" ", b"&")


def _correction(folder: Path) -> None:
    spec = fake_model().spec
    k = spec.prototypes
    Correction(np.full((1, k, k), 0.1), np.full((1, k), 0.2), spec.sha256).write(folder / "correction.json")


def _use_correction(folder: Path) -> None:
    correction = Correction.read(folder / "correction.json")
    grey = np.full((64, 64, 3), 127, np.uint8)
    fake_model(conf=0.01).with_correction(correction).predict(grey).masks()


KINDS = {
    "correction": Kind((_correction,), {"*": (JSON, bytes_damage)}, _use_correction, 3),
    "record": Kind((_record,), {"*": (_record_arrays, bytes_damage)}, _use_record, 3),
    "prediction": Kind(
        (partial(_saved, query=False), partial(_saved, query=True)),
        {"*": (_record_arrays, bytes_damage)},
        _use_saved,
        3,
    ),
    "dump": Kind(
        (partial(_dump, in_pieces=True), partial(_dump, in_pieces=False)),
        {"*": (_record_arrays, bytes_damage)},
        _use_dump,
        3,
    ),
    "basis": Kind((_basis,), {"*": (_record_arrays, bytes_damage)}, _use_basis, 3),
    "edits": Kind((_edits,), {"*": (JSON,)}, _use_edits, 3),
    "query": Kind((_query,), {"*": (_query_words, bytes_damage)}, _use_query, 3),
}
