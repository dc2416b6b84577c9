"""The table of cases that the Python and the JavaScript tests of the viewer share: tests/helpers/viewer_cases.json.

    python tests/helpers/viewer_cases.py    # writes it anew, after a change that is meant

Every case is a scene as the viewer gets it, and what maskprism says about it: decoded values and masks in every frame,
effects, terms at a pixel, the smallest change that flips it, and all of it again after an edit. And the colours
of maps and masks.
"""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from maskprism import Decomposition, Edit, Letterbox, Prediction
from maskprism.analysis.instance.prototype_roles import roles
from maskprism.analysis.truth.matching import Matches
from maskprism.core.geometry import SIZES
from maskprism.core.masks import RETINA, RULES, ULTRALYTICS, YOLACT
from maskprism.datasets import GroundTruth
from maskprism.drawing import mask_style, palette
from maskprism.viewer.payload import as_shown, viewer_scene

if TYPE_CHECKING:
    from maskprism.core.geometry import Size

PATH = Path(__file__).with_name("viewer_cases.json")
TUNED = {
    "wide crop": replace(ULTRALYTICS, name="wide crop", crop_margin=0.07),
    "other threshold": replace(RETINA, name="other threshold", crop_margin=0.02, logit_threshold=0.35),
    "both, of probabilities": replace(YOLACT, name="both, of probabilities", crop_margin=0.1, logit_threshold=-0.5),
}
LETTERBOXES = {
    "fit": Letterbox.fit((22, 30), (32, 32)).with_grid((8, 8)),
    "tall, odd padding": Letterbox.fit((29, 11), (32, 32)).with_grid((16, 16)),
    "rectangle": Letterbox.fit((19, 30), (32, 32), rectangle_stride=8).with_grid((6, 8)),
    "stretch": Letterbox.stretch((13, 26), (24, 24)).with_grid((8, 8)),
    "shrunk": Letterbox.fit((40, 33), (16, 16)).with_grid((8, 8)),
    "corner": Letterbox.fit((33, 21), (32, 32), corner=True).with_grid((8, 8)),
    "stretch, cells of no whole size": Letterbox.stretch((20, 14), (22, 34)).with_grid((6, 9)),
}


def prediction_of(rule: str, letterbox: Letterbox, seed: int, *, boxed: bool = True) -> Prediction:
    """Two instances over five prototypes of both signs: one inside, one cut by the border; or masks alone."""
    rng = np.random.default_rng(seed)
    height, width = letterbox.canvas_hw
    boxes = rng.uniform([-3, -3, 9, 9], [6, 6, width + 3, height + 3], (2, 4))
    raw = rng.normal(0, 2, (5, *letterbox.grid_hw))
    return Prediction(
        canvas_boxes=boxes.astype(np.float32) if boxed else None,
        scores=np.array([0.9, 0.4], np.float32),
        classes=np.array([0, 7]),
        coefficients=rng.normal(0, 1, (2, 5)).astype(np.float32),
        prototypes=(raw / (1 + np.exp(-raw))).astype(np.float32),
        letterbox=letterbox,
        rule=(RULES | TUNED)[rule],
        names={0: "cat"},
        objectness=np.array([0.8, 0.35], np.float32),
        source=f"{rule}.png",
    )


def case(rule: str, name: str, bits: Any, seed: int, *, boxed: bool = True) -> dict[str, Any]:
    """One scene, and what maskprism says about it."""
    prediction = prediction_of(rule, LETTERBOXES[name], seed, boxed=boxed)
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (*prediction.image_size, 3), dtype=np.uint8)
    truth = rng.random(prediction.image_size) < 0.5
    labelled, pair = GroundTruth.of_masks([truth], [0]), Matches.given([0], [0], [1], count=2)
    shown = as_shown(prediction, bits)
    edits = {1: 0.0, 3: float(np.float32(rng.normal()))}
    edited = Edit(set=edits).apply(shown)
    return {
        "name": f"{rule}, {name}, {bits} bits" + ("" if boxed else ", masks alone"),
        "scene": _base64(viewer_scene(image, prediction, bits=bits, truth=labelled, matches=pair).pack()),
        "truth": _base64(np.packbits(truth)),
        "edits": edits,
        "original": _said(shown, SIZES),
        "edited": _said(edited, (prediction.rule.size,)),
    }


def _said(prediction: Prediction, sizes: tuple[Size, ...]) -> list[dict[str, Any]]:
    patches = {size: list(prediction.patches(size)) for size in sizes}
    uncropped = list(prediction.patches("canvas", crop="none", squash=False))
    said = []
    for i, instance in enumerate(prediction):
        parts = Decomposition(instance)
        y, x = 9, 11  # a pixel of the canvas
        at = np.array([prediction.letterbox.resample(p, "canvas")[y, x] for p in prediction.prototypes])
        changes = (prediction.rule.logit_threshold - instance.weights @ at) / at
        nearest = int(np.argmin(np.abs(changes)))
        said.append(
            {
                "patches": {size: _patch(patches[size][i]) for size in sizes},
                "uncropped": _patch(uncropped[i]),
                "positive": _base64(parts.positive),
                "negative": _base64(parts.negative),
                "weights": instance.weights.tolist(),
                "effects": parts.effects.tolist(),
                "order": parts.order().tolist(),
                "roles": roles(instance).named,
                "pixel": {"y": y, "x": x, "terms": (instance.weights * at).tolist()},
                "flip": None if prediction.rule.squash else {"k": nearest, "change": float(changes[nearest])},
            }
        )
    return said


def _patch(patch: Any) -> dict[str, Any]:
    height, width = patch.values.shape
    rows, columns = patch.rows.start or 0, patch.columns.start or 0
    return {"rows": [rows, rows + height], "columns": [columns, columns + width], "values": _base64(patch.values)}


def _base64(data: bytes | np.ndarray) -> str:
    return base64.b64encode(data if isinstance(data, bytes) else np.ascontiguousarray(data).tobytes()).decode()


def cases() -> list[dict[str, Any]]:
    """Every rule over every kind of letterbox in turn, in 8, 16 and 32 bits; and masks alone."""
    names = list(LETTERBOXES)
    chosen = [(rule, names[i % len(names)], (8, 16, 32)[i % 3]) for i, rule in enumerate(RULES)]
    chosen += [(rule, name, 32) for rule in ("retina", "ultralytics-8.2") for name in names]
    chosen += [(rule, name, 16) for rule, name in zip(TUNED, ("fit", "corner", "rectangle"), strict=True)]
    chosen += [("ultralytics-8.3.215", name, 32) for name in names if "stretch" in name or name == "corner"]
    found = [case(rule, name, bits, seed) for seed, (rule, name, bits) in enumerate(chosen)]
    return found + [case("no-crop", name, 32, 100, boxed=False) for name in ("fit", "corner", "stretch")]


def role_case(rule: str, bits: Any, seed: int) -> dict[str, Any]:
    """A scene like a real one, 32 smooth prototypes of both signs and four instances, and the roles in it."""
    rng = np.random.default_rng(seed)
    letterbox = Letterbox.fit((90, 120), (128, 128)).with_grid((32, 32))
    waves = rng.normal(size=(32, 6, 6))
    raw = np.stack([cv2.resize(wave, (32, 32), interpolation=cv2.INTER_CUBIC) for wave in waves])
    corners = rng.uniform((0, 16), (60, 60), (4, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(8, 60, (4, 2))], axis=1)
    prediction = Prediction(
        canvas_boxes=boxes.astype(np.float32),
        scores=np.array([0.9, 0.8, 0.6, 0.3], np.float32),
        classes=np.zeros(4, np.int64),
        coefficients=rng.normal(0, 0.7, (4, 32)).astype(np.float32),
        prototypes=(2 * raw / (1 + np.exp(-2 * raw))).astype(np.float32),
        letterbox=letterbox,
        rule=RULES[rule],
        objectness=np.full(4, 0.9, np.float32),
    )
    shown = as_shown(prediction, bits)
    scene = viewer_scene(np.zeros((90, 120, 3), np.uint8), prediction, bits=bits)
    found = [roles(instance) for instance in shown]
    return {
        "name": f"{rule}, {bits} bits, {seed}",
        "scene": _base64(scene.pack()),
        "found": [
            {"named": one.named, **{name: _numbers(getattr(one, name)) for name in ("inside", "ring", "edge", "share")}}
            for one in found
        ],
    }


def _numbers(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]


def role_cases() -> list[dict[str, Any]]:
    """Scenes like real ones under rules that crop and that do not, and that decide by logits and by probabilities."""
    chosen = [("ultralytics", 8), ("validation", 16), ("no-crop", 8), ("yolov5", 8), ("retina", 8)]
    return [role_case(rule, bits, seed) for seed, (rule, bits) in enumerate(chosen)]


def colour_case(seed: int) -> dict[str, Any]:
    """Masks on a small grey image, some of them empty, and the colours that are chosen for them."""
    rng = np.random.default_rng(seed)
    height, width, count = 24, 31, 1 + 3 * seed
    grey = cv2.resize(rng.integers(0, 256, (5, 6), dtype=np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    corners = rng.integers(0, 20, (count, 2))
    boxes = np.concatenate([corners, corners + rng.integers(0, 12, (count, 2))], axis=1).astype(np.float64)
    masks = np.zeros((count, height, width), dtype=bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int), strict=True):
        mask[y1:y2, x1:x2] = rng.random(mask[y1:y2, x1:x2].shape) < 0.8
    greys = [mask_style.greys_around(grey, mask) for mask in masks]
    return {
        "width": width,
        "grey": _base64(grey),
        "masks": [_base64(mask) for mask in masks],
        "boxes": boxes.tolist(),
        "greys": greys,
        "colours": [bytes(colour).hex() for colour in mask_style.contrasting_colours(greys, boxes)],
    }


def colour_cases() -> list[dict[str, Any]]:
    """From one mask to more than there are colours."""
    return [colour_case(seed) for seed in range(6)]


def tables() -> dict[str, str]:
    """The colours of the diverging maps, 256 of three bytes, and those of instances."""
    maps = {name: _base64(palette.lookup_table(name)) for name in ("contribution", "prototype")}
    return {**maps, "instances": _base64(np.array(palette.INSTANCE_COLOURS, dtype=np.uint8))}


if __name__ == "__main__":
    lines, role_lines = (",\n".join(json.dumps(one) for one in found) for found in (cases(), role_cases()))
    PATH.write_text(
        f'{{"palette": {json.dumps(tables())},\n"colours": {json.dumps(colour_cases())},\n'
        f'"roles": [\n{role_lines}\n],\n"cases": [\n{lines}\n]}}\n',
        encoding="utf-8",
    )
