"""Where an ONNX graph multiplies queries with a pixel embedding to get its masks (needs the package onnx).

Models of query masks (MaskFormer, Mask2Former, RF-DETR, SAM) are exported with finished masks. The two factors are
still in the graph, in front of the last product of the mask branch: as outputs they say what the masks are made of.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from maskprism._common.files import write_atomically
from maskprism.errors import ModelError
from maskprism.models.onnx.file import read_onnx

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_SHAPING = frozenset("Identity Cast Reshape Squeeze Unsqueeze Flatten Transpose".split())
_AFFINE = frozenset("Add Sub Mul Div".split())
_AFTER = frozenset("Resize Upsample Sigmoid Slice Greater".split())
"""What becomes of finished logits on the way to an output: it changes nothing of what they are made of."""
_LONGEST = 40


@dataclass(frozen=True)
class MaskBranch:
    """The last product of a mask branch, by the names of its tensors.

    Attributes
    ----------
    output
        The finished masks.
    left, right
        The factors.
    logits
        What they give, after all that only reshapes, scales or shifts it.
    equation
        How the axes of the factors meet, as Einsum has it; None for a matrix product, whose factors may be turned round
        first (turned).
    rows
        (first, last) of the queries that the output keeps.
    axis
        Axis of the output on which they are, 1, or 2 behind the prompts of SAM.
    """

    operator: str
    output: str
    left: str
    right: str
    logits: str
    equation: str | None = None
    turned: tuple[bool, bool] = (False, False)
    rows: tuple[int, int | None] = (0, None)
    axis: int = 1

    @property
    def revealed(self) -> tuple[str, str, str]:
        """The tensors that must be outputs for the masks to be taken apart."""
        return self.left, self.right, self.logits


def find_mask_branch(model: ModelProto) -> MaskBranch | None:
    """Return the mask branch of a model; None where no output is a product of two things that it computes.

    Outputs are tried in their order. A factor that is a constant is a layer, not a query, and no product of the branch.
    """
    graph = _Graph(model)
    return next((found for output in model.graph.output if (found := graph.branch(output.name)) is not None), None)


def reveal(model: ModelProto, branch: MaskBranch) -> ModelProto:
    """Return a copy of a model with the parts of its mask branch as outputs behind its own."""
    import onnx

    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    known = {output.name for output in changed.graph.output}
    for name in dict.fromkeys(branch.revealed):
        if name not in known:
            changed.graph.output.append(onnx.ValueInfoProto(name=name))
    return changed


def write_revealed(source: Path, target: Path) -> MaskBranch:
    """Write a copy of an ONNX file whose mask branch is revealed, for models that take more than an image.

    The decoders of SAM take prompts, too: run the copy yourself, and hand `factors` of what it gives to
    `maskprism.from_arrays`. Returns where the branch is.

    Raises
    ------
    ModelError
        Where there is none, or the file cannot be read.
    MissingExtraError
        Without the package onnx.
    MaskprismError
        If `target` cannot be written.
    """
    model = read_onnx(source)
    branch = find_mask_branch(model)
    if branch is None:
        raise ModelError(
            f"{source}: no output is a product of two things that the model computes; expected masks made of queries "
            "and a pixel embedding"
        )
    write_atomically(target, reveal(model, branch).SerializeToString())
    return branch


class _Rows(NamedTuple):
    """Which queries an output keeps, and on which of its axes they are."""

    first: int
    last: int | None
    axis: int


_ALL = _Rows(0, None, 1)


class _Graph:
    """Who makes which tensor, and which are constants."""

    def __init__(self, model: ModelProto) -> None:
        from onnx import numpy_helper

        self._producers = {name: node for node in model.graph.node for name in node.output}
        self._constants: dict[str, Any] = {tensor.name: tensor for tensor in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
                self._constants[node.output[0]] = node.attribute[0].t
        self._array = numpy_helper.to_array
        self._axes = {output.name: len(output.type.tensor_type.shape.dim) - 3 for output in model.graph.output}

    def branch(self, output: str) -> MaskBranch | None:
        """Return the branch that ends in this output, nearest product first."""
        return self._walk(output, output, output, _ALL, _LONGEST)

    def _walk(self, output: str, name: str, logits: str, rows: _Rows, left: int) -> MaskBranch | None:
        node = self._producers.get(name)
        if node is None or left == 0 or name in self._constants:
            return None
        kind = node.op_type
        if kind in ("Einsum", "MatMul", "Gemm"):
            return self._product(node, output, logits, rows)
        if kind in _SHAPING:
            return self._walk(output, node.input[0], logits, rows, left - 1)
        if kind in _AFFINE:
            computed = [one for one in node.input if not self._is_constant(one)]
            found = (self._walk(output, one, logits, rows, left - 1) for one in computed)
            return next((one for one in found if one is not None), None)
        if kind in _AFTER:
            if kind == "Slice":
                kept = self._kept(node, max(self._axes[output], 1))
                if kept is None or rows != _ALL:
                    return None
                rows = kept
            return self._walk(output, node.input[0], node.input[0], rows, left - 1)
        return None

    def _product(self, node: NodeProto, output: str, logits: str, rows: _Rows) -> MaskBranch | None:
        factors = list(node.input[:2])
        if len(factors) < 2 or any(self._is_constant(one) for one in factors):
            return None
        if len(node.input) > 2 and (node.op_type == "Einsum" or node.input[2]):
            return None
        from onnx import helper

        attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        if attributes.get("alpha", 1.0) != 1.0:
            return None
        equation = attributes["equation"].decode().replace(" ", "") if node.op_type == "Einsum" else None
        return MaskBranch(
            operator=node.op_type,
            output=output,
            left=factors[0],
            right=factors[1],
            logits=logits,
            equation=equation,
            turned=(bool(attributes.get("transA")), bool(attributes.get("transB"))),
            rows=(rows.first, rows.last),
            axis=rows.axis,
        )

    def _is_constant(self, name: str, depth: int = 6) -> bool:
        """Return whether a tensor follows from weights alone."""
        if name in self._constants or not name:
            return True
        node = self._producers.get(name)
        return node is not None and depth > 0 and all(self._is_constant(one, depth - 1) for one in node.input)

    def _kept(self, node: NodeProto, axis: int) -> _Rows | None:
        """Return the queries that a Slice along their axis keeps, if it says so in constants."""
        if len(node.input) < 4 or not all(name in self._constants for name in node.input[1:] if name):
            return None
        values = [np.atleast_1d(self._array(self._constants[name])).tolist() for name in node.input[1:] if name]
        starts, ends, axes, steps = (*values, [1])[:4]
        if axes != [axis] or steps != [1]:
            return None
        return _Rows(int(starts[0]), int(ends[0]), axis)  # an end far behind the last query is all of them


def factors(
    branch: MaskBranch, left: np.ndarray[Any, Any], right: np.ndarray[Any, Any], queries: int, batch: int
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]] | None:
    """Return the two factors as coefficients (B, Q, K) and prototypes (B, K, S), whichever side is which.

    None if neither is.

    Parameters
    ----------
    queries
        Q, as the logits have it.
    batch
        B; factors without a batch are taken for one image.
    """
    if branch.equation is None:
        left, right = (one.T if turned else one for one, turned in zip((left, right), branch.turned, strict=True))
        if left.ndim < 2 or right.ndim < 2:
            return None
        a, b = (one.reshape(-1, *one.shape[-2:]) for one in (left, right))
        if a.shape[2] != b.shape[1]:
            return None
        pair = (a, b) if a.shape[1] == queries else (b.swapaxes(1, 2), a.swapaxes(1, 2))
    else:
        found = _by_letters(branch.equation, left, right)
        if found is None:
            return None
        pair = found if found[0].shape[1] == queries else (found[1].swapaxes(1, 2), found[0].swapaxes(1, 2))
    coefficients, prototypes = (np.broadcast_to(one, (batch, *one.shape[1:])) if len(one) == 1 else one for one in pair)
    if coefficients.shape[:2] != (batch, queries) or len(prototypes) != batch:
        return None
    return coefficients, prototypes


def _by_letters(
    equation: str, left: np.ndarray[Any, Any], right: np.ndarray[Any, Any]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]] | None:
    """Return the factors of an Einsum as (B, own axes of the left, K) and (B, K, own axes of the right)."""
    inputs, _, out = equation.partition("->")
    first, _, second = inputs.partition(",")
    summed = [letter for letter in first if letter in second and letter not in out]
    batch = [letter for letter in first if letter in second and letter in out]
    if not out or len(summed) != 1 or len(batch) > 1 or (len(first), len(second)) != (left.ndim, right.ndim):
        return None
    found = []
    for letters, array, order in ((first, left, "own first"), (second, right, "sum first")):
        own = [letter for letter in letters if letter not in (*summed, *batch)]
        if sorted(own, key=out.index) != own or any(letter not in out for letter in own):
            return None
        wanted = [*batch, *own, *summed] if order == "own first" else [*batch, *summed, *own]
        turned = np.transpose(array, [letters.index(letter) for letter in wanted])
        turned = turned if batch else turned[None]
        k = array.shape[letters.index(summed[0])]
        found.append(turned.reshape(len(turned), -1, k) if order == "own first" else turned.reshape(len(turned), k, -1))
    return found[0], found[1]


def described(branch: MaskBranch) -> str:
    """Return the product in a few words."""
    how = f" {branch.equation}" if branch.equation else ""
    return f"{branch.operator}{how} of {branch.left!r} and {branch.right!r}"
