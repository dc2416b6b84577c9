"""Where a PNG shows images: its own text says so, and pages keep their colours where they darken the rest."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Box = tuple[int, int, int, int]

_KEYWORD = b"maskprism-photos\0"
_HEAD = 33
"""Bytes of the signature and of the first chunk, which has the size."""
_MOST_BOXES = 4096


def with_photos(png: bytes, photos: Iterable[Box]) -> bytes:
    """Return the bytes of a PNG, with a text chunk of boxes: x1, y1, x2, y2 in its pixels."""
    body = b"tEXt" + _KEYWORD + b" ".join(b"%d,%d,%d,%d" % box for box in photos)
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return png[:_HEAD] + chunk + png[_HEAD:]


def photos_of(png: bytes) -> list[Box] | None:
    """Return the boxes that `with_photos` wrote into a PNG; None where it wrote none."""
    if png[_HEAD + 4 : _HEAD + 8 + len(_KEYWORD)] != b"tEXt" + _KEYWORD:
        return None
    start, (length,) = _HEAD + 8, struct.unpack(">I", png[_HEAD : _HEAD + 4])
    text = png[start + len(_KEYWORD) : start + length]
    boxes = re.findall(rb"(-?\d{1,7}),(-?\d{1,7}),(-?\d{1,7}),(-?\d{1,7})", text)[:_MOST_BOXES]
    return [(int(x1), int(y1), int(x2), int(y2)) for x1, y1, x2, y2 in boxes]


def size_of(png: bytes) -> tuple[int, int]:
    """Return the width and height of a PNG."""
    width, height = struct.unpack(">II", png[16:24])
    return width, height
