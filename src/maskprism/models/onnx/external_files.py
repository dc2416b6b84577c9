"""The files beside an ONNX file that hold its weights: those that the graph names.

Read with protobuf alone, on which ONNX Runtime stands; the package onnx is not in the base install.
"""

from __future__ import annotations

import ntpath
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PureWindowsPath
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from maskprism.errors import ModelError
from maskprism.io.untrusted import is_file, shortened

_MESSAGES: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 25: "Function"},
    "Function": {7: "Node"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {13: "Entry"},
    "Entry": {1: "", 2: ""},
}
"""Of each message of ONNX the fields, by their numbers in onnx.proto, through which tensors are reached."""


def external_data(path: Path) -> list[Path]:
    """Return the files that hold weights of an ONNX file, sorted; those that are not there are left out.

    Parameters
    ----------
    path
        The ONNX file.

    Returns
    -------
    list of Path
        Empty also for a file that is not ONNX: the runtime says why it cannot be read.

    Raises
    ------
    ModelError
        If a name leads out of the folder of the file.
    """
    try:
        model = _model_message().FromString(path.read_bytes())
    except (OSError, DecodeError, RecursionError):
        return []
    locations = {
        entry.f2.decode("utf-8", errors="surrogateescape")
        for tensor in _tensors(model)
        for entry in tensor.f13
        if entry.f1 == b"location"
    }
    return [file for location in sorted(locations) if is_file(file := _beside(path, location))]


def _beside(path: Path, location: str) -> Path:
    windows = PureWindowsPath(ntpath.normpath(location))  # which takes both kinds of slashes
    if windows.anchor or ".." in windows.parts:
        raise ModelError(
            f"{path}: takes weights from {shortened(location)}, which is outside of its folder; expected a file beside "
            "it. Do not trust this file, or export the model again"
        )
    return path.parent / os.path.normpath(location)


def _tensors(message: Any) -> Iterator[Any]:
    """Yield all tensors in a message, at any depth."""
    pending = [message]
    while pending:
        one = pending.pop()
        kind = one.DESCRIPTOR.name
        if kind == "Tensor":
            yield one
            continue
        for number in _MESSAGES[kind]:
            pending.extend(getattr(one, f"f{number}"))


@cache
def _model_message() -> Any:
    """Return the class of `Model`.

    A message that has the fields of `_MESSAGES`, all repeated, and keeps no others apart.
    """
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="maskprism/external_data.proto", package="maskprism")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, kind in fields.items():
            added = message.field.add(name=f"f{number}", number=number)
            added.label = field.LABEL_REPEATED if kind else field.LABEL_OPTIONAL
            added.type = field.TYPE_MESSAGE if kind else field.TYPE_BYTES
            if kind:
                added.type_name = f".maskprism.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("maskprism.Model"))
