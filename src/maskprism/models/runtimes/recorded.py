"""Outputs that a device recorded, in the place of a runtime that computes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from maskprism._common.choices import RawLayout
from maskprism._common.text import counted
from maskprism.core.archive import MAX_BYTES
from maskprism.errors import InputError, ModelError
from maskprism.io.untrusted import DAMAGED_ZIP, size_of_regular
from maskprism.models.families.raw_outputs import Assembled, assemble
from maskprism.models.runtimes import NetworkInput, hash_files

if TYPE_CHECKING:
    from jaxtyping import Float32

_SETTINGS = ("layout", "images", "names", "canvas_hw", "class_logits")
_EXPECTED = "a dump of raw outputs: layout, images, and for image I and each output an array called I/OUTPUT"


class RecordedRuntime:
    """What was recorded for one image, whatever image is asked for.

    Parameters
    ----------
    recorded
        Outputs in the form of a YOLO-seg export.
    names
        Class names by class id; may be empty.
    name
        What the outputs are called in messages.
    """

    threadsafe = True
    sha256 = "0" * 64

    def __init__(self, recorded: Assembled, names: Mapping[int, str], name: str) -> None:
        self.name = name
        self.input = NetworkInput(1, *recorded.canvas_hw)
        self.metadata: dict[str, Any] = {"task": "segment"} | ({"names": dict(names)} if names else {})
        self._recorded = recorded

    def __call__(self, batch: Float32[np.ndarray, "B ..."]) -> list[Float32[np.ndarray, "..."]]:
        """Return the recorded outputs."""
        return [self._recorded.table, self._recorded.prototypes]


class DumpRuntime(RecordedRuntime):
    """A `.npz` with the raw outputs of a device for several images; see `docs/decoding.md` for its arrays.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    ModelError
        If it is no such file, or its outputs are not those of its layout.
    """

    threadsafe = False  # it gives the outputs of the image that was selected last

    def __init__(self, path: Path) -> None:
        self._path = path
        size_of_regular(path, ModelError)
        self._settings = self._arrays(*(f"{name}.npy" for name in _SETTINGS), "scale/", "zero_point/")
        if missing := [name for name in ("layout", "images") if name not in self._settings]:
            raise ModelError(f"{path}: {' and '.join(missing)} missing; expected {_EXPECTED}")
        images = [str(name) for name in self._settings["images"].reshape(-1)]
        self._layout: RawLayout = str(self._settings["layout"][()])  # type: ignore[assignment]
        if not images:
            raise ModelError(f"{path}: holds no images; expected {_EXPECTED}")
        self._numbers = _numbers_by_name(images)
        self._images = images
        self._selected: int | None = None
        super().__init__(self._read(0), dict(enumerate(self._names())), f"raw outputs ({self._layout})")
        self.sha256 = hash_files([path])

    def select(self, image: str | None) -> None:
        """Say of which image the outputs are asked for next, by its path or its name.

        Raises
        ------
        ModelError
            If the image has no name, or the dump does not hold it.
        """
        if image is None:
            raise ModelError(f"{self._path.name}: holds recorded outputs; expected images by their paths, not arrays")
        path = PurePosixPath(image.replace("\\", "/"))
        tails = ("/".join(path.parts[start:]) for start in range(len(path.parts)))
        number = next((self._numbers[tail] for tail in (image, *tails) if tail in self._numbers), None)
        if number is None:
            raise ModelError(
                f"{self._path.name}: holds no outputs for this image; it has {counted(len(self._images), 'image')}: "
                f"{', '.join(self._images[:3])}{', ...' if len(self._images) > 3 else ''}"
            )
        if number != self._selected:
            self._recorded, self._selected = self._read(number), number

    def _names(self) -> Sequence[str]:
        return [str(name) for name in self._settings.get("names", np.zeros(0)).reshape(-1)]

    def _arrays(self, *starts: str) -> dict[str, np.ndarray[Any, Any]]:
        """Read the arrays whose member of the file begins with one of these."""
        try:
            with np.load(self._path, allow_pickle=False) as file:
                members = [one for one in file.zip.infolist() if one.filename.startswith(starts)]
                if sum(one.file_size for one in members) > MAX_BYTES:
                    raise ValueError(f"the arrays of an image are larger than {MAX_BYTES / 2**30:.0f} GiB")
                return {name: file[name] for name in (one.filename.removesuffix(".npy") for one in members)}
        except DAMAGED_ZIP as error:
            reason = " ".join(str(error).split())[:120] or type(error).__name__
            raise ModelError(f"{self._path}: cannot be read ({reason}); expected {_EXPECTED}") from None

    def _read(self, number: int) -> Assembled:
        prefix, settings = f"{number}/", self._settings
        outputs = {name.removeprefix(prefix): array for name, array in self._arrays(prefix).items()}
        scale, zero_point = (
            {name: settings[f"{kind}/{name}"][()] for name in outputs if f"{kind}/{name}" in settings}
            for kind in ("scale", "zero_point")
        )
        canvas_hw, logits = settings.get("canvas_hw"), settings.get("class_logits")
        try:
            if canvas_hw is not None and (canvas_hw.shape != (2,) or canvas_hw.dtype.kind not in "iu"):
                raise InputError(
                    f"canvas_hw holds {canvas_hw.dtype} of shape {canvas_hw.shape}; expected height and width, integers"
                )
            if logits is not None and (logits.size != 1 or logits.dtype.kind not in "biu"):
                raise InputError(
                    f"class_logits holds {logits.dtype} of shape {logits.shape}; expected one value, true or false"
                )
            return assemble(
                outputs,
                self._layout,
                scale=scale,
                zero_point=zero_point,
                canvas_hw=None if canvas_hw is None else (int(canvas_hw[0]), int(canvas_hw[1])),
                n_classes=len(self._names()) or None,
                class_logits=None if logits is None else bool(logits.item()),
            )
        except InputError as error:
            raise ModelError(f"{self._path.name}: image {number}, {self._images[number]}: {error}") from None


def _numbers_by_name(images: Sequence[str]) -> dict[str, int]:
    """Of each image by its name, and by the end of its path where only one image ends so."""
    numbers = {name: number for number, name in enumerate(images)}
    ends: dict[str, set[int]] = {}
    for number, name in enumerate(images):
        parts = PurePosixPath(name.replace("\\", "/")).parts
        for start in range(1, len(parts)):
            ends.setdefault("/".join(parts[start:]), set()).add(number)
    return {end: next(iter(found)) for end, found in ends.items() if len(found) == 1} | numbers
