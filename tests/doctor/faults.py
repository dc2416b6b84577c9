"""Twelve faults that are put on purpose into a model, or into the labels of a data set."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import yaml
from onnx import numpy_helper

from maskprism.models import Model, load
from maskprism.models.runtimes import FunctionRuntime

Arrays = list[np.ndarray]


@dataclass(frozen=True)
class Columns:
    """Where things are in the outputs of a model; rows are (1, columns, candidates)."""

    objectness: bool
    classes: int

    @classmethod
    def of(cls, model: Model) -> Columns:
        return cls(model.family.objectness, len(model.spec.names))

    @property
    def coefficients(self) -> slice:
        return slice(4 + self.objectness + self.classes, None)


def changed(
    model: Model,
    before: Callable[[np.ndarray], np.ndarray] | None = None,
    after: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]] | None = None,
    **options: object,
) -> Model:
    """The model with something done to its input (B, 3, H, W), or to its rows (B, columns, candidates) and
    prototypes (B, K, h, w)."""
    takes, layout = model.runtime.input, model.layout

    def function(batch: np.ndarray) -> Arrays:
        if before is not None:
            planes = batch.transpose(0, 3, 1, 2) if takes.channels_last else batch
            planes = before(planes)
            batch = np.ascontiguousarray(
                planes.transpose(0, 2, 3, 1) if takes.channels_last else planes, dtype=np.float32
            )
        outputs = [np.array(one) for one in model.runtime(batch)]
        if after is not None:
            places = (layout.rows_output, layout.prototypes_output)
            rows, prototypes = (outputs[place] for place in places)
            rows = rows.transpose(0, 2, 1) if layout.channels_last else rows
            prototypes = prototypes.transpose(0, 3, 1, 2) if layout.prototypes_last else prototypes
            rows, prototypes = after(np.array(rows), prototypes)
            rows = rows.transpose(0, 2, 1) if layout.channels_last else rows
            prototypes = prototypes.transpose(0, 2, 3, 1) if layout.prototypes_last else prototypes
            outputs[places[0]], outputs[places[1]] = (
                np.ascontiguousarray(one, dtype=np.float32) for one in (rows, prototypes)
            )
        return outputs

    runtime = FunctionRuntime(function, takes, model.runtime.metadata)
    names = {} if "names" in options else {"names": model.spec.names}
    return load(runtime, name="B", layout=model.spec.layout, threads=1, **names, **options)


def with_objectness(model: Model) -> Model:
    """The model as a YOLOv5 has its rows: an objectness, and classes that are multiplied by it."""
    if Columns.of(model).objectness:
        return model
    takes, classes = model.runtime.input, len(model.spec.names)

    def function(batch: np.ndarray) -> Arrays:
        outputs = [np.array(one) for one in model.runtime(batch)]
        rows, prototypes = outputs[model.layout.rows_output], outputs[model.layout.prototypes_output]
        own = rows[:, 4 : 4 + classes]
        objectness = np.sqrt(own.max(axis=1, keepdims=True))
        scores = own / np.maximum(objectness, 1e-6)
        table = np.concatenate([rows[:, :4], objectness, scores, rows[:, 4 + classes :]], axis=1)
        nothing = np.zeros_like(table)  # a YOLOv5 has three candidates per cell
        return [np.concatenate([table, nothing, nothing], axis=2), prototypes]

    metadata = {"task": "segment", "names": model.spec.names}
    return load(FunctionRuntime(function, takes, metadata), name="A", layout="yolov5", rule="yolov5", threads=1)


def letterbox_off_by_one(model: Model) -> Model:
    """Content one pixel to the right and down."""
    return changed(model, before=lambda planes: np.roll(planes, (1, 1), (2, 3)))


def bgr(model: Model) -> Model:
    return changed(model, before=lambda planes: planes[:, ::-1])


def crop_too_tight(model: Model) -> Model:
    def after(rows: np.ndarray, prototypes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows[:, 2:4] *= 0.88
        return rows, prototypes

    return changed(model, after=after)


def one_int8_tensor(model: Model) -> Model:
    """Boxes and coefficients rounded with one scale and zero point; scores are another tensor."""
    columns, canvas = Columns.of(model), max(model.spec.input_hw)

    def after(rows: np.ndarray, prototypes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        both = np.concatenate([rows[:, :4], rows[:, columns.coefficients]], axis=1)
        low, high = -4.0, max(4.0, canvas * (rows[:, :4].max() > 2))
        scale = (high - low) / 255
        zero = round(-low / scale)
        rounded = (np.clip(np.round(both / scale) + zero, 0, 255) - zero) * scale
        rows[:, :4], rows[:, columns.coefficients] = rounded[:, :4], rounded[:, 4:]
        return rows, prototypes

    return changed(model, after=after)


def prototypes_in_the_wrong_order(model: Model) -> Model:
    """In memory (h, w, K), read as (K, h, w)."""
    return changed(
        model, after=lambda rows, prototypes: (rows, prototypes.transpose(0, 2, 3, 1).reshape(prototypes.shape))
    )


def objectness_missing(model: Model) -> Model:
    def after(rows: np.ndarray, prototypes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows[:, 4] = 1
        return rows, prototypes

    return changed(model, after=after, rule=model.spec.rule)


def sigmoid_twice(model: Model) -> Model:
    columns = Columns.of(model)

    def after(rows: np.ndarray, prototypes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scores = slice(4, 4 + columns.objectness + columns.classes)
        rows[:, scores] = 1 / (1 + np.exp(-rows[:, scores]))
        return rows, prototypes

    return changed(model, after=after)


def wrong_rule(model: Model) -> Model:
    return changed(model, rule="no-crop")


def half_grid(model: Model) -> Model:
    def after(rows: np.ndarray, prototypes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        count, k, height, width = prototypes.shape
        return rows, prototypes.reshape(count, k, height // 2, 2, width // 2, 2).mean(axis=(3, 5))

    return changed(model, after=after)


def one_conv_in_int4(source: Path, target: Path) -> str:
    """Write the file with one convolution in the backbone rounded to 4 bits; gives its name."""
    model = onnx.load(str(source))
    by_name = {one.name: one for one in model.graph.initializer}
    casts = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Cast"}
    weights_of = [node.input[1] for node in model.graph.node if node.op_type == "Conv"]
    convolutions = [name for name in (casts.get(name, name) for name in weights_of) if name in by_name]
    name = convolutions[len(convolutions) // 3]
    weights = numpy_helper.to_array(by_name[name])
    scale = np.abs(weights).max() / 7
    rounded = (np.clip(np.round(weights / scale), -8, 7) * scale).astype(weights.dtype)
    by_name[name].CopyFrom(numpy_helper.from_array(rounded, name))
    onnx.save(model, str(target))
    return name


# --- faults of labels


def rewritten(
    data: Path, target: Path, change: Callable[[list[tuple[str, np.ndarray]]], list[tuple[str, np.ndarray]]]
) -> Path:
    """Copy a data set of Ultralytics with its labels changed, as (class, polygon in shares of the image)."""
    described = yaml.safe_load(data.read_text(encoding="utf-8"))
    root = Path(described.get("path", data.parent))
    root = root if root.is_absolute() else data.parent / root
    for file in sorted((root / "labels").rglob("*.txt")):
        rows = [line.split() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        labels = [(row[0], np.array(row[1:], dtype=np.float64).reshape(-1, 2)) for row in rows]
        lines = (" ".join([name, *(f"{v:.6f}" for v in polygon.ravel())]) for name, polygon in change(labels))
        copy = target / file.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text("\n".join(lines), encoding="utf-8")
    shutil.copytree(root / "images", target / "images")
    path = target / "data.yaml"
    path.write_text(yaml.safe_dump(described | {"path": str(target)}), encoding="utf-8")
    return path


def shifted_labels(labels: list[tuple[str, np.ndarray]]) -> list[tuple[str, np.ndarray]]:
    """To the right and down by 2 and 1 % of the image."""
    return [(name, np.clip(polygon + np.array([0.02, 0.01]), 0, 1)) for name, polygon in labels]


def merged_labels(labels: list[tuple[str, np.ndarray]]) -> list[tuple[str, np.ndarray]]:
    """Each label and the nearest one of its class become one, joined by a line."""
    left, found = list(labels), []
    while left:
        name, polygon = left.pop(0)
        twins = [i for i, one in enumerate(left) if one[0] == name]
        if twins:
            nearest = min(twins, key=lambda i: np.linalg.norm(left[i][1].mean(axis=0) - polygon.mean(axis=0)))
            other = left.pop(nearest)[1]
            polygon = np.concatenate([polygon, polygon[:1], other, other[:1]])
        found.append((name, polygon))
    return found
