"""Names for the classes of a model that has none, from whatever file has them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from maskprism.datasets.coco import read_categories
from maskprism.datasets.yolo import read_description
from maskprism.errors import InputError
from maskprism.io.class_names import parse_class_names
from maskprism.io.untrusted import decoded_text, is_folder, read_regular, shortened
from maskprism.models.metadata import Metadata
from maskprism.models.runtimes import MODEL_SUFFIXES, open_runtime

Names = str | os.PathLike[str] | Mapping[int, str] | Sequence[str]
_MAX_TEXT_BYTES = 1 << 20


def read_names(source: Names) -> dict[int, str]:
    """Class names by class id 0, 1, 2, ...

    Parameters
    ----------
    source
        A `data.yaml` or `metadata.yaml`, a text file with one name per line, a COCO json (ids in the order of its
        category ids), another model file that has names, or the names themselves as a list or a mapping.

    Raises
    ------
    InputError
        For anything else.
    ModelError
        For a model that cannot be read.
    """
    if not isinstance(source, str | os.PathLike):
        return parse_class_names(source, "names=", InputError)
    path = Path(source)
    suffix = path.suffix.lower()
    if suffix in (".yaml", ".yml"):
        return read_description(path).class_names(path)
    if suffix == ".json":
        return read_categories(path)
    if suffix in (".txt", ".names"):
        return _lines(path)
    if suffix in MODEL_SUFFIXES or is_folder(path):
        runtime = open_runtime(path, None, device="cpu", precision="f32", threads=1)
        names = Metadata.parse(runtime.metadata, path.name).names
        if names is None:
            raise InputError(f"{path}: this model has no class names itself; take a data.yaml or a list of names")
        return names
    raise InputError(
        f"{shortened(path)}: expected class names in a data.yaml, a .txt file with one name per line, a COCO json, or "
        f"another model ({', '.join(MODEL_SUFFIXES)})"
    )


def _lines(path: Path) -> dict[int, str]:
    """One name per line; empty lines at the end do not count."""
    try:
        text = decoded_text(read_regular(path, InputError, limit=_MAX_TEXT_BYTES))
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not UTF-8 text; expected one class name per line") from None
    names = [line.strip() for line in text.rstrip().splitlines()]
    if not names or not all(names):
        raise InputError(
            f"{path}: line {names.index('') + 1 if names else 1} is empty; expected one class name per line"
        )
    return dict(enumerate(names))
