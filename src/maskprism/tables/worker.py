"""The work of one engine's worker: images in, rows out.

Extraction uses it on threads and on a Ray cluster; any other engine may call it on processes or machines of its own,
because it writes nothing, shows nothing and can be sent anywhere.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Any

from maskprism._common.text import counted
from maskprism.datasets.visit import TOLERATED_MODEL_FAILURES, Failure, VisitedImage, look_at
from maskprism.errors import ModelError
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
    import pyarrow as pa

    from maskprism.core.prediction import Prediction
    from maskprism.io.uris import Location
    from maskprism.models import Model

__all__ = ["Shard", "instances_of", "prototypes_of", "records_of"]


class Shard:
    """A model as a function from images to rows.

    Parameters
    ----------
    model
        A model; or a function without arguments that opens it, such as
        `functools.partial(maskprism.load, "best.onnx")`: then every process opens the model once, when it is first
        needed, and the one that sends the shard need not be able to.
    root
        The folder that names of images are relative to, for the settings of the table.
    prototypes
        What to keep of the prototypes of images with instances: None, "summary", "fp16" or "fp32".

    Raises
    ------
    InputError
        For another word for `prototypes`.
    """

    def __init__(
        self, model: Model | Callable[[], Model], root: Location | str = "", *, prototypes: Stored | None = None
    ) -> None:
        checked_stored(prototypes)
        from maskprism.models import Model

        self._open: Callable[[], _Extractor] = (
            _Opened(_Extractor(model, root, prototypes))
            if isinstance(model, Model)
            else _Opening(uuid.uuid4().hex, model, root, prototypes)
        )
        self._described: tuple[dict[str, Any], int] | None = None

    def __call__(self, images: Sequence[SourceImage | tuple[str, Any]]) -> pa.RecordBatch:
        """The rows of images.

        Parameters
        ----------
        images
            Each as (name, path, URI, bytes of a file, or an HWC uint8 array in BGR).

        Returns
        -------
        pyarrow.RecordBatch
            A batch of `schema` with one row per image, in their order. One that cannot be read, or that the model
            fails on, has the status "failed" and a message; `network_failed` tells these two apart. `instances_of`
            and `records_of` make the two tables of a coefficient table of such batches.

        Raises
        ------
        ModelError
            If the model cannot be opened, or fails on every image, at least eight, that can be read: then it is not
            the images.
        InputError
            If an argument of the model is out of range.
        """
        schema = self.schema
        results = look_at([SourceImage(*image) for image in images], self, self.extracted)
        finished = [ExtractedImage.of(one) if isinstance(one, Failure) else one for one in results]
        failed = [one for one in finished if one.network_failed]
        if len(failed) >= TOLERATED_MODEL_FAILURES and all(one.values is None for one in finished):
            raise model_gone(failed)
        return shard_batch(finished, schema)

    @property
    def schema(self) -> pa.Schema:
        """The columns of a batch.

        Those of the table of images, whether the model failed, a list of instances, and what is stored of the
        prototypes.
        """
        return shard_schema(self.settings)

    @property
    def settings(self) -> dict[str, Any]:
        """What determines the rows; tables carry it."""
        return self.described()[0]

    @property
    def batch(self) -> int:
        """How many images the model takes at once."""
        return self.described()[1]

    @property
    def grey(self) -> bool:
        """Whether the model takes one channel."""
        return self._open().model.grey

    def predict(self, images: list[Any], /) -> list[Prediction]:
        """Return what the model says about each image."""
        return self._open().model.predict(images)

    def extracted(self, visited: VisitedImage[Prediction]) -> ExtractedImage:
        """Return the rows of one image."""
        return self._open().extracted(visited)

    def described(self) -> tuple[dict[str, Any], int]:
        """Settings, and how many images the model takes at once; opens the model unless told by `describe`."""
        return self._described or self._open().described

    def describe(self, described: tuple[dict[str, Any], int]) -> None:
        """Take over what a shard in another process knows of the model, which then need not be opened in this one."""
        self._described = described


def model_gone(failed: Sequence[ExtractedImage]) -> ModelError:
    """Return the error for a model that fails on one image after the other."""
    return ModelError(
        f"the model failed on {counted(len(failed), 'image')} in a row and the extraction stopped "
        f"({failed[0].name}: {failed[0].message}); run the same command again to continue once it works"
    )


class _Extractor:
    """An open model, and the columns of its rows."""

    def __init__(self, model: Model, root: Location | str, prototypes: Stored | None) -> None:
        self.model, self._root, self._prototypes = model, root, prototypes
        settings = settings_of(model, root, prototypes)
        self.described = settings, model.batch
        self._columns, self._stored = instance_columns(settings), prototype_columns(settings)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Extractor, (self.model, self._root, self._prototypes)

    def extracted(self, visited: VisitedImage[Prediction]) -> ExtractedImage:
        prediction = visited.prediction
        stored = self._stored and len(prediction)
        return ExtractedImage(
            visited.name,
            prediction.image_size,
            {column.name: column.of(prediction) for column in self._columns},
            {column.name: column.of(prediction) for column in self._stored} if stored else None,
        )


@dataclass(frozen=True)
class _Opened:
    """A model that is open."""

    extractor: _Extractor

    def __call__(self) -> _Extractor:
        return self.extractor


@dataclass(frozen=True)
class _Opening:
    """How to open a model; every pickled copy of it is equal to the first."""

    key: str
    model: Callable[[], Model] = field(compare=False)
    root: Location | str = field(compare=False)
    prototypes: Stored | None = field(compare=False)

    def __call__(self) -> _Extractor:
        with _ONE_OPENS:
            return _opened(self)


_ONE_OPENS = Lock()


@lru_cache(maxsize=4)
def _opened(opening: _Opening) -> _Extractor:
    return _Extractor(opening.model(), opening.root, opening.prototypes)
