"""What the interactive viewer is given: a header of plain values and one buffer of bytes.

All hosts of the viewer (one-file page, notebook widget, server) send the same two things. The header is JSON: frames,
rule, instances, and where the sections of the buffer lie. The buffer holds the image as an encoded image, the
prototypes as numbers of 8, 16 or 32 bits, and ground-truth masks as RLE.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import cv2
import numpy as np
from PIL import Image

from maskprism.analysis.instance.prototype_roles import roles
from maskprism.analysis.truth.matching import MATCHING_RULE, MEANING, match_masks
from maskprism.core.archive import header_of
from maskprism.drawing.mask_style import instance_colours
from maskprism.errors import InputError
from maskprism.io.images import read_image

if TYPE_CHECKING:
    from jaxtyping import Bool, Float32, Float64, UInt8, UInt16, UInt32

    from maskprism.analysis.truth.matching import Matches
    from maskprism.core.prediction import Prediction
    from maskprism.datasets import GroundTruth
    from maskprism.io.images import ImageLike

Bits = Literal[8, 16, 32]
VERSION = 1
MAGIC = b"MPRISM\x00\x01"
IMAGE_SIDE = 1280
"""Images are shown with at most this many pixels a side; masks keep the image's own size."""
_QUALITY = 85


class ViewerScene(NamedTuple):
    """One image and its prediction as the viewer takes them."""

    header: dict[str, Any]
    buffer: bytes

    def pack(self) -> bytes:
        """Header and buffer as one binary message; see `pack`."""
        return pack(self.header, self.buffer)


class Quantised(NamedTuple):
    """Prototypes as whole numbers: `low + step * levels`, each prototype with its own range.

    No value is further than half a step from what it was.
    """

    levels: UInt8[np.ndarray, "K h w"] | UInt16[np.ndarray, "K h w"]
    low: Float64[np.ndarray, " K"]
    step: Float64[np.ndarray, " K"]

    def values(self) -> Float32[np.ndarray, "K h w"]:
        """Return the numbers that the viewer reckons with."""
        return (self.low[:, None, None] + self.step[:, None, None] * self.levels).astype(np.float32)


def viewer_scene(
    image: ImageLike,
    prediction: Prediction,
    *,
    bits: Bits = 8,
    truth: GroundTruth | None = None,
    matches: Matches | None = None,
    untuned: Float32[np.ndarray, "N K"] | None = None,
    image_side: int = IMAGE_SIDE,
) -> ViewerScene:
    """Everything the viewer needs of one image.

    `bits` is how exact prototypes are kept: 32 keeps them unchanged; 8 and 16 quantise each over its own range, and
    `logit_error` of every instance in the header bounds what that can change. `truth` is what is labelled in the image;
    `matches` says which instance found what, default: `matching.match_masks`. `untuned` are coefficients as they were
    before a correction, to look at the masks before it.

    Raises
    ------
    InputError
        For other shapes or bits, and for predictions with values that are not finite.
    """
    picture = read_image(image)
    _check(picture, prediction, bits)
    if untuned is not None and (untuned.shape != prediction.coefficients.shape or not np.isfinite(untuned).all()):
        raise InputError(
            f"untuned has shape {untuned.shape}; expected finite numbers for all coefficients, of shape "
            f"{prediction.coefficients.shape}"
        )
    sections: list[bytes] = []

    def section(data: bytes) -> dict[str, int]:
        sections.append(data)
        return {"offset": sum(map(len, sections[:-1])), "length": len(data)}

    encoded, size_hw = encode_webp(picture, image_side)
    prototypes, error = _prototypes(prediction, bits)
    plain = header_of(prediction)
    header: dict[str, Any] = {
        "version": VERSION,
        "source": plain["source"] or "",
        "boxes": prediction.has_boxes,
        "letterbox": plain["letterbox"],
        "rule": {**plain["rule"], "threshold": prediction.rule.threshold},
        "image": {**section(encoded), "type": "image/webp", "size_hw": size_hw},
        "prototypes": {**section(prototypes.pop("data")), **prototypes},
    }
    if truth is not None:
        matches = match_masks(prediction, truth) if matches is None else matches
        header["matching"] = {"rule": MATCHING_RULE, "errors": MEANING}
    named, colours = [roles(instance) for instance in prediction], instance_colours(picture, prediction)
    header["instances"] = [
        {
            "class": instance.class_id,
            "name": instance.name,
            "score": instance.score,
            "box": instance.box.tolist(),
            "canvas_box": instance.canvas_box.tolist(),
            "coefficients": instance.coefficients.tolist(),
            "untuned": None if untuned is None else untuned[instance.index].tolist(),
            "objectness": None if prediction.objectness is None else float(prediction.objectness[instance.index]),
            "logit_error": float(np.abs(instance.weights, dtype=np.float64) @ error),
            "roles": named[instance.index].named,
            "colour": bytes(colours[instance.index]).hex(),
            "truth": None if mask is None else {**section(_runs(mask).tobytes()), "area": int(np.count_nonzero(mask))},
            **({} if matches is None else outcome(matches, instance.index)),
        }
        for instance, mask in zip(prediction, masks_of_pairs(truth, matches, len(prediction)), strict=True)
    ]
    header["missed"] = [
        {
            "class": class_id,
            "name": name,
            **section(_runs(mask).tobytes()),
            "area": int(np.count_nonzero(mask)),
            "box": _box_of(mask),
        }
        for class_id, name, mask in _missed(prediction, truth, matches)
    ]
    return ViewerScene(header, b"".join(sections))


def masks_of_pairs(
    truth: GroundTruth | None, matches: Matches | None, count: int
) -> list[Bool[np.ndarray, "H W"] | None]:
    """Per instance the mask, of the image's size, of the ground-truth instance that it found, or None."""
    masks: list[Bool[np.ndarray, "H W"] | None] = [None] * count
    if truth is not None and matches is not None:
        true = _masks(truth, matches.objects.tolist())
        for instance, index in zip(matches.instances.tolist(), matches.objects.tolist(), strict=True):
            masks[instance] = true[index]
    return masks


def outcome(matches: Matches, instance: int) -> dict[str, Any]:
    """Return what the matching rule says of one instance, for JSON.

    outcome: "true positive", "false positive" or "excused". error: one of ERROR_TYPES, or None.
    """
    return {
        "outcome": matches.outcomes[instance],
        "error": matches.errors[instance],
    }


def _missed(
    prediction: Prediction, truth: GroundTruth | None, matches: Matches | None
) -> list[tuple[int, str, Bool[np.ndarray, "H W"]]]:
    """Class id, class name and mask of every ground-truth instance that nothing found."""
    if truth is None or matches is None:
        return []
    true = _masks(truth, matches.missed.tolist())
    classes = {index: int(truth.classes[index]) for index in true}
    return [(one, prediction.names.get(one) or truth.name_of(one), true[index]) for index, one in classes.items()]


def _masks(truth: GroundTruth, indices: Sequence[int]) -> dict[int, Bool[np.ndarray, "H W"]]:
    """Masks of the image's size, by index."""
    wanted, found = set(indices), {}
    for index, patch in enumerate(truth.patches("image")):
        if index in wanted:
            found[index] = np.zeros(truth.image_hw, dtype=bool)
            found[index][patch.rows, patch.columns] = patch.values
    return found


def as_shown(prediction: Prediction, bits: Bits = 8) -> Prediction:
    """Return the prediction with the prototypes that a viewer scene of `bits` bits holds."""
    return prediction if bits == 32 else replace(prediction, prototypes=quantise(prediction.prototypes, bits).values())


def quantise(prototypes: Float32[np.ndarray, "K h w"], bits: Literal[8, 16]) -> Quantised:
    """Return every prototype over its own range in 256 or 65,536 even steps; see `Quantised`."""
    flat = prototypes.reshape(len(prototypes), -1).astype(np.float64)
    low, high = flat.min(axis=1), flat.max(axis=1)
    step = (high - low) / (2**bits - 1)
    scale = np.divide(1, step, out=np.zeros_like(step), where=step > 0)
    levels = np.rint((flat - low[:, None]) * scale[:, None]).astype(np.uint8 if bits == 8 else np.uint16)
    return Quantised(levels.reshape(prototypes.shape), low, step)


def pack(header: dict[str, Any], buffer: bytes) -> bytes:
    """One binary message: magic, length of the header (uint32, little endian), header as JSON, buffer."""
    text = json.dumps(header, allow_nan=False, separators=(",", ":")).encode("ascii")
    return MAGIC + struct.pack("<I", len(text)) + text + buffer


def _prototypes(prediction: Prediction, bits: Bits) -> tuple[dict[str, Any], Float64[np.ndarray, " K"]]:
    """Return the prototypes' part of the header with their bytes as "data"; and how far each may be off."""
    k, h, w = prediction.prototypes.shape
    fields: dict[str, Any] = {"k": k, "h": h, "w": w, "bits": bits}
    if bits == 32:
        data = np.ascontiguousarray(prediction.prototypes, dtype="<f4").tobytes()
        return {**fields, "low": [0.0] * k, "step": [0.0] * k, "encoding": "raw", "data": data}, np.zeros(k)
    found = quantise(prediction.prototypes, bits)
    fields |= {"low": found.low.tolist(), "step": found.step.tolist(), "encoding": "deflate"}
    return {**fields, "data": zlib.compress(_differences(found.levels), 6)}, found.step / 2


def _differences(levels: UInt8[np.ndarray, "K h w"] | UInt16[np.ndarray, "K h w"]) -> bytes:
    """Return each level less its left neighbour, low bytes before high bytes: smooth images pack well that way."""
    step = np.diff(levels, axis=2, prepend=levels.dtype.type(0))  # wraps around, and back again in the viewer
    planes = [step.astype(np.uint8)] if levels.dtype == np.uint8 else [step.astype(np.uint8), (step >> 8)]
    return b"".join(plane.astype(np.uint8).tobytes() for plane in planes)


def _runs(mask: Bool[np.ndarray, "H W"]) -> UInt32[np.ndarray, " R"]:
    """Lengths of runs row by row: first of pixels outside (maybe 0), then inside, and so on."""
    flat = np.concatenate([[False], np.asarray(mask, dtype=bool).reshape(-1)])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    return np.diff(np.concatenate([[0], edges, [mask.size]])).astype("<u4")


def _box_of(mask: Bool[np.ndarray, "H W"]) -> list[int]:
    """x1, y1, x2, y2 around a mask; four zeros around none."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1] if rows.size else [0, 0, 0, 0]


def encode_webp(picture: UInt8[np.ndarray, "H W 3"], side: int) -> tuple[bytes, list[int]]:
    """Return a BGR picture as WebP, shrunk to at most `side` pixels a side; and its (height, width)."""
    zoom = min(1.0, side / max(picture.shape[:2]))
    height, width = (max(round(length * zoom), 1) for length in picture.shape[:2])
    if zoom < 1:
        picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    encoded = BytesIO()
    # OpenCV has no setting for the effort: this takes a quarter of its time for 8 % more bytes.
    Image.fromarray(np.ascontiguousarray(picture[..., ::-1])).save(encoded, "WEBP", quality=_QUALITY, method=0)
    return encoded.getvalue(), [height, width]


def _check(
    picture: UInt8[np.ndarray, "H W 3"],
    prediction: Prediction,
    bits: int,
) -> None:
    height, width = prediction.image_size
    if bits not in (8, 16, 32):
        raise InputError(f"bits is {bits!r}; expected 8, 16 or 32")
    if picture.shape[:2] != (height, width):
        raise InputError(
            f"the image is {picture.shape[1]} x {picture.shape[0]} pixels, and the prediction is of one of "
            f"{width} x {height}; give the image that was predicted"
        )
    for name in ("prototypes", "coefficients", "canvas_boxes", "scores"):
        values = getattr(prediction, name)
        if values is not None and not np.isfinite(values).all():
            raise InputError(f"the prediction's {name} hold values that are not finite; the viewer cannot show them")
