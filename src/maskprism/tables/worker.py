"""The work of one engine's worker: images in, one Arrow batch out.

Extraction on this machine uses it on threads; any other engine may call it on processes or
machines of its own, because it writes nothing, shows nothing and can be sent anywhere.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from threading import Lock
from typing import TYPE_CHECKING, Any

import cv2

from maskprism._common.text import one_line
from maskprism.errors import InputError, MaskprismError, ModelError
from maskprism.io.sources import SourceImage
from maskprism.tables.schema import (
    ExtractedImage,
    instance_columns,
    instances_of,
    prototypes_of,
    records_of,
    settings_of,
    shard_batch,
    shard_schema,
)
from maskprism.tables.stored_prototypes import Stored, checked_stored, prototype_columns

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from maskprism.io.uris import Location
    from maskprism.models import Model

__all__ = ["Shard", "instances_of", "prototypes_of", "records_of"]

LARGE_PIXELS = 50_000_000
"""Images over this many pixels are worked on one at a time, to bound memory."""
TOLERATED_NETWORK_FAILURES = 8
"""A network that fails on this many images, and on nothing else, is taken for gone."""


class Shard:
    """A network as a function from images to rows.

    Parameters
    ----------
    model
        a function without arguments that opens the model, such as `functools.partial(maskprism.load, "best.onnx")`:
        then the shard can be pickled, and every process opens the model once, when it is first needed. Or an open
        `Model`, which stays in its process.
    root
        the folder that names of images are relative to, for the settings of the table.
    prototypes
        what to keep of the prototypes of images with instances: None, "summary", "fp16" or "fp32".

    Raises
    ------
    InputError
        another word for `prototypes`.
    """

    def __init__(
        self, model: Model | Callable[[], Model], root: Location | str = "", *, prototypes: Stored | None = None
    ) -> None:
        checked_stored(prototypes)
        self._network = None if callable(model) else _Network(model, root, prototypes)
        self._opening = _Opening(uuid.uuid4().hex, model, root, prototypes) if callable(model) else None

    def __call__(self, images: Sequence[SourceImage | tuple[str, Any]]) -> pa.RecordBatch:
        """The rows of images, in their order: a batch of `schema` with one row per image.

        An image is (name, path, URI, bytes of a file, or an HWC uint8 array in BGR). One that cannot be read, or that
        the network fails on, has the status "failed" and a message; `network_failed` tells these two apart.
        `instances_of` and `records_of` make the two tables of a coefficient table of such batches.

        Raises ModelError where the model cannot be opened, or fails on every image, at least eight, that can be read:
        then it is not the images. Raises InputError for an argument of the model that is out of range.
        """
        network = self._open()
        size = network.model.batch
        finished = [
            one for start in range(0, len(images), size) for one in network.extract(images[start : start + size])
        ]
        failed = [one for one in finished if one.network_failed]
        if len(failed) >= TOLERATED_NETWORK_FAILURES and all(one.values is None for one in finished):
            raise network_gone(len(failed), failed[0].name, failed[0].message)
        return shard_batch(finished, network.schema)

    @property
    def schema(self) -> pa.Schema:
        """The columns of a batch: those of the table of images, whether the network failed, a list of instances, and
        what is stored of the prototypes.
        """
        return self._open().schema

    @property
    def settings(self) -> dict[str, Any]:
        """What determines the rows; tables carry it."""
        return self._open().settings

    @property
    def batch(self) -> int:
        """How many images the network takes at once."""
        return self._open().model.batch

    def __getstate__(self) -> dict[str, Any]:
        if self._opening is None:
            raise InputError(
                "a Shard around an open model cannot be sent to another process; give it a function that opens the "
                'model, such as functools.partial(maskprism.load, "best.onnx")'
            )
        return self.__dict__

    def _open(self) -> _Network:
        if self._opening is None:
            assert self._network is not None
            return self._network
        with _ONE_OPENS:
            return _network_of(self._opening)


def in_lists(images: Iterable[SourceImage], size: int) -> Iterator[tuple[SourceImage, ...]]:
    """Images, n at a time."""
    rest = iter(images)
    while found := tuple(islice(rest, size)):
        yield found


def network_gone(count: int, name: str, message: str) -> ModelError:
    """The error for a network that fails on one image after the other."""
    return ModelError(
        f"the network failed on {count} images in a row and the extraction stopped "
        f"({name}: {message}); run the same command again to continue once it works"
    )


@dataclass(frozen=True)
class _Opening:
    """How to open a model; every pickled copy of it is equal to the first."""

    key: str
    model: Callable[[], Model] = field(compare=False)
    root: Location | str = field(compare=False)
    prototypes: Stored | None = field(compare=False)


_ONE_OPENS = Lock()


@lru_cache(maxsize=4)
def _network_of(opening: _Opening) -> _Network:
    return _Network(opening.model(), opening.root, opening.prototypes)


class _Network:
    """An open model, and the columns of its rows."""

    def __init__(self, model: Model, root: Location | str, prototypes: Stored | None) -> None:
        self.model = model
        self.settings = settings_of(model, root, prototypes)
        self.schema = shard_schema(self.settings)
        self._columns = instance_columns(self.settings)
        self._stored = prototype_columns(self.settings)
        self._one_large = Lock()

    def extract(self, images: Sequence[SourceImage | tuple[str, Any]]) -> Iterator[ExtractedImage]:
        """Decode, ask the network, measure the masks; in the order of images."""
        finished: dict[int, ExtractedImage] = {}
        decoded: dict[int, np.ndarray[Any, Any]] = {}
        names = [name for name, _ in images]
        for index, (name, image) in enumerate(images):
            try:
                decoded[index] = SourceImage(name, image).read()
            except (MaskprismError, MemoryError, cv2.error) as error:
                finished[index] = ExtractedImage(name, message=one_line(error).removeprefix(f"{_label(name, image)}: "))
        if sum(image.size // 3 for image in decoded.values()) > LARGE_PIXELS:
            with self._one_large:
                finished |= self._ask(names, decoded)
        elif decoded:
            finished |= self._ask(names, decoded)
        return (finished[index] for index in range(len(images)))

    def _ask(self, names: list[str], decoded: dict[int, np.ndarray[Any, Any]]) -> dict[int, ExtractedImage]:
        try:
            predictions = self.model.predict(list(decoded.values()))
            return {
                index: ExtractedImage(
                    names[index],
                    prediction.image_size,
                    {column.name: column.of(prediction) for column in self._columns},
                    {column.name: column.of(prediction) for column in self._stored}
                    if self._stored and len(prediction)
                    else None,
                )
                for index, prediction in zip(decoded, predictions, strict=True)
            }
        except InputError:  # an argument of the caller, not the image
            raise
        except Exception as error:  # runtimes raise what they like
            if len(decoded) > 1:
                return {
                    key: value
                    for index, image in decoded.items()
                    for key, value in self._ask(names, {index: image}).items()
                }
            ((index, image),) = decoded.items()
            size_hw = (image.shape[0], image.shape[1])
            return {index: ExtractedImage(names[index], size_hw, message=one_line(error), network_failed=True)}


def _label(name: str, image: Any) -> str:
    """What messages about an image begin with."""
    return name if isinstance(image, bytes) or hasattr(image, "dtype") else str(image)
