"""Linear maps along the channels of an ONNX graph, put where they cost least (extra `reduce`).

A map is folded into the convolutions in front where the graph allows it: through transposing,
concatenating and reshaping that leave the axis alone and, where the map only selects channels,
through functions of single values such as SiLU. Elsewhere it becomes a node of its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx
from onnx import helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Float
    from onnx import GraphProto, ModelProto, NodeProto

    Map = Float[np.ndarray, "M K"]
    Offset = Float[np.ndarray, " M"]

Place = Literal["folded", "appended"]
_LINEAR = frozenset({"Identity", "Cast"})
_POINTWISE = _LINEAR | frozenset(
    "Clip Elu Gelu HardSigmoid HardSwish LeakyRelu Mish Relu Selu Sigmoid Softplus Swish Tanh".split()
)
_END = np.iinfo(np.int64).max


@dataclass
class _Plan:
    """What folding a map would do: the edits, and the nodes (by their outputs) and tensors that it would change."""

    map: Map
    nodes: set[str]
    offset: Offset | None = None
    tensors: set[str] = field(default_factory=set)
    edits: list[Callable[[], None]] = field(default_factory=list)

    @property
    def selects(self) -> bool:
        """Whether the map picks channels and leaves their values unchanged."""
        picks = bool(np.isin(self.map, (0, 1)).all() and (self.map.sum(axis=1) == 1).all())
        return picks and self.offset is None


class ChannelSurgery:
    """A copy of a model whose outputs can be mapped along an axis. With `fold` False maps are never folded."""

    def __init__(self, original: ModelProto, *, fold: bool = True) -> None:
        self._model = onnx.ModelProto()
        self._model.CopyFrom(original)
        self._fold = fold
        self._nodes = list(self._model.graph.node)
        self._constants = {tensor.name: tensor for tensor in self._model.graph.initializer}
        for node in self._nodes:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self._constants[node.output[0]] = node.attribute[0].t
        self._casts = {n.output[0]: n for n in self._nodes if n.op_type == "Cast" and n.input[0] in self._constants}
        self._producers = {name: node for node in self._nodes for name in node.output}
        self._shapes, self._types = _shapes_and_types(original)
        self._taken = {name for node in self._nodes for name in (node.name, *node.input, *node.output)}
        self._taken |= set(self._constants)
        self.outputs = [output.name for output in self._model.graph.output]

    def map_output(self, name: str, axis: int, map: Map) -> Place:
        """Map all channels of an output along an axis."""
        if self._folds(name, axis, map):
            place: Place = "folded"
        else:
            full = self._rename(name)
            self._insert_map(full, name, axis, map)
            place = "appended"
        self._resize(name, axis, len(map) - map.shape[1])
        return place

    def map_last_channels(self, name: str, axis: int, map: Map) -> Place:
        """Map the last channels of an output of 3 axes, as many as the map takes, and leave the others."""
        found = self._last_part(name, axis, map.shape[1])
        place: Place = "appended"
        if found is None:
            k = map.shape[1]
            self._insert_partial(
                self._rename(name), name, axis, k, lambda full, mapped: self._insert_map(full, mapped, axis, map)
            )
        else:
            tensor, its_axis, consumer = found
            if self._folds(tensor, its_axis, map, consumer):
                place = "folded"
            else:
                self._insert_map(self._rename(tensor), tensor, its_axis, map)
        self._resize(name, axis, len(map) - map.shape[1])
        return place

    def correct_last_channels(
        self, name: str, axis: int, maps: Sequence[Map], offsets: Sequence[Offset], ends: Sequence[int] | None
    ) -> Place | None:
        """Map the last channels x of an output of 3 axes to `map @ x + offset`, with another pair for each level.

        Parameters
        ----------
        ends
            Where each level ends along the other axis; needed for more than one. None for what cannot be: levels that
            lie apart nowhere in front, on an axis of a length that is not known.
        """
        k = maps[0].shape[1]
        found = self._last_part(name, axis, k)
        tensor, its_axis, consumer = found or (name, axis, None)
        if found is not None and self._folds_levels(tensor, its_axis, maps, offsets, consumer):
            return "folded"
        length = (self._shapes.get(tensor) or [None] * 3)[3 - its_axis]
        if len(maps) > 1 and (ends is None or length != ends[-1]):
            return None

        def change(whole: str, corrected: str) -> None:
            self._insert_levels(whole, corrected, its_axis, maps, offsets, ends or ())

        if found is not None:
            change(self._rename(tensor), tensor)
        else:
            self._insert_partial(self._rename(tensor), tensor, its_axis, k, change)
        return "appended"

    def finish(self, notes: Mapping[str, str]) -> ModelProto:
        """Return the model without what nothing uses any more, with entries added to its metadata."""
        graph = self._model.graph
        needed, kept = set(self.outputs), []
        for node in reversed(self._nodes):
            if needed.intersection(node.output):
                kept.append(node)
                needed.update(_inputs(node))
        weights = {tensor.name for tensor in graph.initializer}
        for values in (graph.input, graph.initializer):  # old files list their weights among the inputs, too
            left = [value for value in values if value.name in needed or value.name not in weights]
            del values[:]
            values.extend(left)
        del graph.node[:]
        graph.node.extend(reversed(kept))
        del graph.value_info[:]  # sizes in between have changed; runtimes find them again
        self._model.ir_version = max(self._model.ir_version, 4)  # since then weights need not be inputs
        helper.set_model_props(self._model, {e.key: e.value for e in self._model.metadata_props} | dict(notes))
        return self._model

    # Folding: walk up from a tensor to the convolutions that make it.

    def _folds(
        self, name: str, axis: int, map: Map, consumer: NodeProto | None = None, offset: Offset | None = None
    ) -> bool:
        """Fold the map into what makes the tensor, if everything on the way allows it and nothing else reads it."""
        plan = self._planned(name, axis, map, consumer, offset)
        for edit in [] if plan is None else plan.edits:
            edit()
        return plan is not None

    def _planned(
        self, name: str, axis: int, map: Map, consumer: NodeProto | None, offset: Offset | None = None
    ) -> _Plan | None:
        """Return what folding takes; None where something on the way does not allow it, or something else reads it."""
        plan = _Plan(map, nodes=set() if consumer is None else {consumer.output[0]}, offset=offset)
        if not self._fold or not self._visit(plan, name, axis):
            return None
        readers = {
            node.output[0] for tensor in plan.tensors for node in self._readers(tensor) if node.op_type != "Shape"
        }
        if readers - plan.nodes or plan.tensors.intersection(self.outputs) - {name}:
            return None
        return plan

    def _folds_levels(
        self, name: str, axis: int, maps: Sequence[Map], offsets: Sequence[Offset], consumer: NodeProto | None
    ) -> bool:
        """Fold one map and offset into each of the parts that the tensor is put together from, or one into all."""
        if len(maps) == 1:
            return self._folds(name, axis, maps[0], consumer, offsets[0])
        node = self._producers[name]
        while node.op_type in _LINEAR or node.op_type == "Transpose":
            if node.op_type == "Transpose":
                axis = _attribute(node, "perm", [2, 1, 0])[axis]
            if node.input[0] not in self._producers or len(self._readers(node.input[0])) != 1:
                return False
            node = self._producers[node.input[0]]
        if node.op_type != "Concat" or _attribute(node, "axis", 0) % 3 == axis or len(node.input) != len(maps):
            return False
        plans = [
            self._planned(part, axis, map, node, offset)
            for part, map, offset in zip(node.input, maps, offsets, strict=True)
        ]
        if not all(plans):
            return False
        for plan in plans:
            for edit in [] if plan is None else plan.edits:
                edit()
        return True

    def _visit(self, plan: _Plan, name: str, axis: int) -> bool:
        """Plan to have the map before this tensor; False where that is not known to be possible."""
        if name in plan.tensors:
            return True
        node = self._producers.get(name)
        if node is None or name in self._constants:
            return False
        plan.tensors.add(name)
        plan.nodes.add(node.output[0])
        kind = node.op_type
        if kind in _LINEAR or (kind in _POINTWISE and plan.selects):
            return self._visit(plan, node.input[0], axis)
        if kind in ("Mul", "Add") and plan.selects:
            same = self._shapes.get(node.input[0]) == self._shapes.get(node.input[1]) is not None
            return same and all(self._visit(plan, source, axis) for source in node.input)
        if kind == "Transpose":
            return self._visit(plan, node.input[0], _attribute(node, "perm", [3, 2, 1, 0])[axis])
        if kind == "Concat" and name in self._shapes:
            along = _attribute(node, "axis", 0) % len(self._shapes[name])
            return along != axis and all(self._visit(plan, source, axis) for source in node.input)
        if kind == "Reshape":
            return axis == 1 and self._visit_reshape(plan, node) and self._visit(plan, node.input[0], axis)
        return kind == "Conv" and axis == 1 and self._visit_convolution(plan, node)

    def _visit_reshape(self, plan: _Plan, node: NodeProto) -> bool:
        """From (B, K, h, w) to (B, K, h w): the size that is asked for must follow."""
        old, new = plan.map.shape[1], len(plan.map)
        data, wanted = node.input
        if self._shapes.get(data, [])[1:2] != [old] or self._shapes.get(node.output[0], [])[1:2] != [old]:
            return False
        if wanted in self._constants:
            sizes = numpy_helper.to_array(self._constants[wanted]).copy()
            if sizes[1] == old:
                sizes[1] = new
                plan.edits.append(lambda: self._replace_input(node, wanted, self._constant(sizes)))
            return sizes[1] in (new, 0, -1)
        maker = self._producers.get(wanted)
        if maker is None or maker.op_type != "Concat":
            return False
        position = 0
        for part in maker.input:
            constant = numpy_helper.to_array(self._constants[part]).copy() if part in self._constants else None
            length = len(constant) if constant is not None else (self._shapes.get(part) or [None])[0]
            if length is None or position + length > 1:
                break
            position += length
        if constant is not None and constant[1 - position] == old:
            constant[1 - position] = new
            plan.tensors.add(wanted)  # nothing else may ask for this size
            plan.nodes.add(maker.output[0])
            plan.edits.append(lambda: self._replace_input(maker, part, self._constant(constant)))
            return True
        # A size taken from the tensor itself follows on its own.
        return constant is None or constant[1 - position] in (0, -1)

    def _visit_convolution(self, plan: _Plan, node: NodeProto) -> bool:
        arrays = [self._weights(name) for name in node.input[1:]]
        if _attribute(node, "group", 1) != 1:
            return False
        if any(array is None or array.dtype.kind != "f" or len(array) != plan.map.shape[1] for array in arrays):
            return False

        def edit() -> None:
            mapped = [np.tensordot(plan.map, array.astype(np.float64), axes=1) for array in arrays if array is not None]
            if plan.offset is not None:
                mapped = [mapped[0], plan.offset + (mapped[1] if len(mapped) > 1 else 0)]
            del node.input[1:]
            node.input.extend(self._constant(one.astype(arrays[0].dtype)) for one in mapped)  # type: ignore[union-attr]

        plan.edits.append(edit)
        return True

    def _last_part(self, name: str, axis: int, channels: int) -> tuple[str, int, NodeProto] | None:
        """Return the tensor that an output ends with along an axis, its axis, and the Concat that puts it there."""
        while (node := self._producers.get(name)) is not None:
            if len(self._readers(name)) != (0 if name in self.outputs else 1):  # another node reads it
                return None
            if node.op_type == "Transpose":
                axis = _attribute(node, "perm", [2, 1, 0])[axis]
            elif node.op_type == "Concat" and _attribute(node, "axis", 0) % 3 == axis:
                last = node.input[-1]
                alone = len(self._readers(last)) == 1 and list(node.input).count(last) == 1
                fits = (self._shapes.get(last) or [0, 0, 0])[axis] == channels and last in self._producers
                return (last, axis, node) if alone and fits and last not in self.outputs else None
            elif node.op_type not in _LINEAR:
                return None
            name = node.input[0]
        return None

    # Appending: nodes of their own.

    def _insert_map(self, source: str, target: str, axis: int, map: Map, offset: Offset | None = None) -> None:
        """`target` as the map of `source`, plus the offset, along axis 1 (of 3 or 4), or along the last axis."""
        rank = len(self._shapes.get(target, [0] * 4))
        kind = helper.tensor_dtype_to_np_dtype(self._types.get(target, onnx.TensorProto.FLOAT))
        weights = map.astype(kind)
        mapped = target if offset is None else self._free(f"{target}/mapped")
        if axis == rank - 1:
            self._insert("MatMul", [source, self._constant(weights.T)], mapped)
        elif rank == 3:
            self._insert("MatMul", [self._constant(weights), source], mapped)
        else:
            self._insert("Conv", [source, self._constant(weights[:, :, None, None])], mapped)
        if offset is not None:
            sides = [1] * rank
            sides[axis] = len(offset)
            self._insert("Add", [mapped, self._constant(offset.astype(kind).reshape(sides))], target)

    def _insert_levels(
        self, source: str, target: str, axis: int, maps: Sequence[Map], offsets: Sequence[Offset], ends: Sequence[int]
    ) -> None:
        """`target` as `source`, `[B, K, N]` or `[B, N, K]`, with another map and offset up to each of the ends."""
        if len(maps) == 1:
            return self._insert_map(source, target, axis, maps[0], offsets[0])
        done = []
        for start, end, map, offset in zip((0, *ends), ends, maps, offsets, strict=False):
            part, corrected = (self._like(target, f"{target}/{word}") for word in ("level", "corrected level"))
            self._insert_slice(source, part, start, end, 3 - axis)
            self._insert_map(part, corrected, axis, map, offset)
            done.append(corrected)
        return self._insert("Concat", done, target, axis=3 - axis)

    def _insert_partial(self, source: str, target: str, axis: int, k: int, change: Callable[[str, str], None]) -> None:
        """`target` as `source` with its last k channels as `change(from, to)` makes them."""
        others, full, changed = (
            self._like(target, f"{target}/{part}") for part in ("others", "all coefficients", "coefficients")
        )
        self._insert_slice(source, others, 0, -k, axis)
        self._insert_slice(source, full, -k, _END, axis)
        change(full, changed)
        self._insert("Concat", [others, changed], target, axis=axis)

    def _insert_slice(self, source: str, target: str, start: int, stop: int, axis: int) -> None:
        sizes = [self._constant(np.array([value], dtype=np.int64)) for value in (start, stop, axis)]
        self._insert("Slice", [source, *sizes], target)

    def _like(self, name: str, new: str) -> str:
        """Return a free name for a tensor of 3 axes of the same kind of numbers as another."""
        found = self._free(new)
        self._types[found] = self._types.get(name, onnx.TensorProto.FLOAT)
        self._shapes[found] = [0, 0, 0]
        return found

    def _insert(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> None:
        """A node right behind the last of those that make its inputs."""
        node = helper.make_node(operator, inputs, [output], name=self._free(f"maskprism/{operator}"), **attributes)
        makers = [index for index, other in enumerate(self._nodes) if set(inputs).intersection(other.output)]
        self._nodes.insert(max(makers) + 1, node)
        self._producers[output] = node

    def _rename(self, name: str) -> str:
        """Give a tensor another name, so that its own is free for what takes its place before those who read it.

        Of an output of the model, only the model's reader gets what takes its place.
        """
        node, renamed = self._producers.pop(name), self._free(f"{name}/full")
        node.output[list(node.output).index(name)] = renamed
        self._producers[renamed] = node
        if name in self.outputs:
            for reader in self._readers(name):
                self._replace_input(reader, name, renamed)
        return renamed

    # Small things.

    def _readers(self, name: str) -> list[NodeProto]:
        return [node for node in self._nodes if name in _inputs(node)]

    @staticmethod
    def _replace_input(node: NodeProto, old: str, new: str) -> None:
        for index, name in enumerate(node.input):
            if name == old:
                node.input[index] = new

    def _weights(self, name: str) -> np.ndarray[Any, Any] | None:
        """Return a constant tensor, also one that is kept in half precision and widened when it is used."""
        if name in self._casts:
            cast = self._casts[name]
            kind = helper.tensor_dtype_to_np_dtype(_attribute(cast, "to", onnx.TensorProto.FLOAT))
            return numpy_helper.to_array(self._constants[cast.input[0]]).astype(kind)
        return numpy_helper.to_array(self._constants[name]) if name in self._constants else None

    def _constant(self, values: np.ndarray[Any, Any]) -> str:
        """Return a new weight of the model; its name."""
        tensor = numpy_helper.from_array(np.ascontiguousarray(values), self._free("maskprism/map"))
        self._model.graph.initializer.append(tensor)
        self._constants[tensor.name] = tensor
        return tensor.name

    def _free(self, name: str) -> str:
        """Return the name, numbered where the model has it already, as one does that was reduced before."""
        names = itertools.chain((name,), (f"{name}_{number}" for number in itertools.count(2)))
        found = next(one for one in names if one not in self._taken)
        self._taken.add(found)
        return found

    def _resize(self, name: str, axis: int, more: int) -> None:
        """What the model says about the size of an output."""
        for output in self._model.graph.output:
            sizes = output.type.tensor_type.shape.dim
            if output.name == name and len(sizes) > axis and sizes[axis].HasField("dim_value"):
                sizes[axis].dim_value += more


def is_half(model: ModelProto) -> bool:
    """Return whether a model gives, or computes with, numbers of half precision."""
    half = onnx.TensorProto.FLOAT16
    return any(output.type.tensor_type.elem_type == half for output in model.graph.output) or any(
        tensor.data_type == half for tensor in model.graph.initializer
    )


def _shapes_and_types(model: ModelProto) -> tuple[dict[str, list[int | None]], dict[str, int]]:
    """Of every tensor that shape inference knows; None stands for a free size."""
    with suppress(Exception):  # without inference, what the file says itself has to do
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    values = [*model.graph.value_info, *model.graph.input, *model.graph.output]
    kinds = {value.name: value.type.tensor_type for value in values}
    shapes = {
        name: [size.dim_value if size.HasField("dim_value") else None for size in kind.shape.dim]
        for name, kind in kinds.items()
        if kind.HasField("shape")
    }
    return shapes, {name: kind.elem_type for name, kind in kinds.items() if kind.elem_type}


def _attribute(node: NodeProto, name: str, default: Any) -> Any:
    return next((helper.get_attribute_value(found) for found in node.attribute if found.name == name), default)


def _inputs(node: NodeProto) -> Iterator[str]:
    """Yield what a node reads, also inside its branches and loops."""
    yield from node.input
    for attribute in node.attribute:
        graphs: Iterable[GraphProto] = [attribute.g] if attribute.HasField("g") else attribute.graphs
        for graph in graphs:
            for inner in graph.node:
                yield from _inputs(inner)
