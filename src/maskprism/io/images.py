"""Images in: path, URI, PIL image or array in, HWC uint8 in BGR out, with errors that say why not."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from io import BytesIO
from threading import Lock
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from maskprism.errors import ImageError, InputError
from maskprism.io.untrusted import read_regular
from maskprism.io.uris import UriPath, location, shown

if TYPE_CHECKING:
    from jaxtyping import UInt8
    from PIL.Image import Image as PILImage

    ImageLike = str | os.PathLike[str] | UriPath | np.ndarray[Any, Any] | PILImage

IMAGE_SUFFIXES = frozenset(
    ".avif .bmp .dib .dng .heic .heif .jp2 .jpe .jpeg .jpg .mpo .pbm .pfm .pgm .png .pnm .ppm .tif .tiff .webp".split()
)
VIDEO_SUFFIXES = frozenset(".asf .avi .gif .m4v .mkv .mov .mp4 .mpeg .mpg .ts .webm .wmv".split())
_JPEG_MARKER = re.compile(rb"\xff+[^\x00\xff]", re.DOTALL)
_ONE_CATCHES = Lock()  # the filters of warnings are those of the whole process
_HEIF_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"))
MAX_PIXELS = 170_000_000
"""Images that unpack to more pixels than this are refused before they are decoded."""


def read_image(image: ImageLike, *, grey: bool = False) -> UInt8[np.ndarray, "H W 3"]:
    """Return an image as HWC uint8 in BGR; of a path with `grey`, grey in all three channels.

    Paths and URIs (`s3://bucket/a.jpg`) are decoded by OpenCV: EXIF orientation applied, alpha dropped, 16 bits cut to
    8. What it does not read, or gives other colours or another orientation (AVIF, HEIC, TIFF with Lab colours or an
    alpha channel), is decoded by Pillow, so that a path and `PIL.Image.open` of it are the same picture. With `grey`,
    OpenCV decodes to grey, as Ultralytics reads files for a model of one channel: other numbers than colours made grey.
    Arrays and PIL images are not converted. Arrays are taken as BGR, BGRA or grey, as OpenCV and Ultralytics have
    them; PIL images keep their own meaning.

    Raises
    ------
    ImageError
        For a file that is missing, empty, truncated, too large or no image.
    InputError
        For an array of another shape or type.
    """
    if isinstance(image, np.ndarray):
        return _from_array(image)
    if isinstance(image, str | os.PathLike | UriPath):
        return _from_file(image, grey)
    if type(image).__module__.startswith("PIL.") or hasattr(image, "getexif"):
        return _from_pil(image)
    raise InputError(f"cannot read an image from {type(image).__name__}; expected a path, a PIL image or a uint8 array")


def source_name(image: ImageLike) -> str | None:
    """Return the path or URI an image is read from, if it is read from one."""
    if isinstance(image, str | os.PathLike | UriPath):
        return shown(image)
    return getattr(image, "filename", None) or None


class NamedPixels(np.ndarray[Any, Any]):
    """Pixels that know which image they are of, for what is looked up by name."""

    origin: str | None = None


def named_pixels(pixels: np.ndarray[Any, Any], name: str) -> NamedPixels:
    """Return the same pixels, which know the name of their image."""
    named = pixels.view(NamedPixels)
    named.origin = name
    return named


def image_name(image: ImageLike) -> str | None:
    """Return the path or URI of an image, or the name that its pixels have; None where there is neither."""
    return source_name(image) or getattr(image, "origin", None)


def decode_image(
    data: bytes,
    name: str | os.PathLike[str],
    *,
    max_pixels: int = MAX_PIXELS,
    known_size: bool = False,
    grey: bool = False,
) -> UInt8[np.ndarray, "H W 3"]:
    """Return the bytes of an image file as HWC uint8 in BGR, decoded as `read_image` decodes a path.

    Parameters
    ----------
    name
        What the file is called in messages. An image of more than `max_pixels` is refused by its header, before it is
        decoded; with `known_size` so is one whose header does not tell its size.
    grey
        See there.

    Raises
    ------
    ImageError
    """
    if not data:
        raise ImageError(f"{name}: the file is empty (0 bytes)")
    header = _header(name, data, max_pixels, known_size)
    if _is_truncated(data):
        raise ImageError(f"{name}: the image is truncated; its end is missing")
    if header is not None and header[0] in _BY_PILLOW and header[1] in (_BY_PILLOW[header[0]] or header[1:]):
        return _by_pillow(data, name)
    try:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise ImageError(f"{name}: cannot be decoded as an image ({error.err})") from None
    if decoded is None:
        if header is not None:
            return _by_pillow(data, name)
        raise ImageError(f"{name}: not an image that OpenCV can decode ({len(data)} bytes)")
    return cv2.cvtColor(decoded, cv2.COLOR_GRAY2BGR) if grey else np.asarray(decoded, dtype=np.uint8)


def _from_file(place: str | os.PathLike[str] | UriPath, grey: bool) -> UInt8[np.ndarray, "H W 3"]:
    try:
        path = location(place)
    except (OSError, ValueError) as error:  # a URI that no file system opens
        raise ImageError(f"{shown(place)}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    return decode_image(read_regular(path, ImageError), str(path), grey=grey)


_BY_PILLOW = {
    "AVIF": None,  # OpenCV leaves out the orientation
    "HEIF": None,
    "TIFF": ("LAB", "RGBA", "RGBa", "F", "I"),  # colours, colours times alpha, not at all
    "PPM": ("F",),
}
"""Formats that Pillow decodes, and in which of its modes (None: all): what OpenCV gets wrong or does not read."""


def _by_pillow(data: bytes, name: str | os.PathLike[str]) -> UInt8[np.ndarray, "H W 3"]:
    from PIL import Image

    with Image.open(BytesIO(data)) as image:
        return _from_pil(image, str(name))


def _header(name: str | os.PathLike[str], data: bytes, max_pixels: int, known_size: bool) -> tuple[str, str] | None:
    """Format and mode that the header tells, None where Pillow does not know it.

    Raises
    ------
    ImageError
        For one that declares too many pixels, before a decoder allocates for them.
    """
    import warnings

    from PIL import Image

    is_heif = data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS
    if is_heif:
        with suppress(ImportError):
            import pillow_heif

            pillow_heif.register_heif_opener()
    try:
        with _ONE_CATCHES, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # also those of damaged EXIF data
            with Image.open(BytesIO(data)) as header:
                width, height = header.size
                kind = (str(header.format), header.mode)
    except Image.DecompressionBombError:
        raise ImageError(
            f"{name}: unpacks to more than {max_pixels / 1e6:.0f} million pixels; resize it first"
        ) from None
    except Exception:  # a header that Pillow does not know; OpenCV will say whether it is an image
        if is_heif:
            raise ImageError(
                f"{name}: is a HEIC image, which needs pillow-heif: pip install 'maskprism[heic]'"
            ) from None
        if known_size:
            raise ImageError(f"{name}: not an image whose header tells its size ({len(data)} bytes)") from None
        return None
    if width * height > max_pixels:
        raise ImageError(
            f"{name}: unpacks to {width} x {height} = {width * height / 1e6:.0f} million pixels, over the limit of "
            f"{max_pixels / 1e6:.0f}; resize it first"
        )
    return kind


def _is_truncated(data: bytes) -> bool:
    """Return whether a JPEG or PNG stops before its end marker (OpenCV would fill the rest with grey)."""
    if data.startswith(b"\xff\xd8\xff"):
        return _is_truncated_jpeg(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return b"IEND" not in data
    return False


def _is_truncated_jpeg(data: bytes) -> bool:
    """Walk from segment to segment: thumbnails inside and whatever follows the end have markers of their own."""
    if data.endswith(b"\xff\xd9"):  # scan data cannot end like this
        return False
    position = 2
    while marker := _JPEG_MARKER.search(data, position):
        kind = marker[0][-1]
        if kind == 0xD9:  # end of image
            return False
        position = marker.end()
        if kind != 0x01 and not 0xD0 <= kind <= 0xD8:  # all others carry their length
            position += max(int.from_bytes(data[position : position + 2], "big"), 2)
    return True


def _from_pil(image: PILImage, name: str = "") -> UInt8[np.ndarray, "H W 3"]:
    from PIL import ImageOps

    filename = getattr(image, "filename", "")
    name = name or filename or "the PIL image"
    try:
        if filename and image.format == "TIFF":
            image.filename = ""  # type: ignore[attr-defined]  # else Pillow maps the file, and turned ones get scrambled
            image.load()
            image.filename = filename  # type: ignore[attr-defined]
        upright = ImageOps.exif_transpose(image)
        pixels = np.asarray(upright)
        if upright.mode == "F" and 0 < pixels.max(initial=0) <= 1:
            raise ImageError(f"{name}: has pixels between 0 and 1; expected 0 to 255: multiply them by 255")
        # 16-bit files are "I;16" or "I", by the version of Pillow; "I" may also hold 8 bits.
        sixteen = image.format in ("PNG", "PPM") or pixels.max(initial=0) > 255
        deep = upright.mode.startswith("I;16") or (upright.mode == "I" and sixteen)
        if not deep:
            pixels = np.asarray(upright.convert("RGB"))[:, :, ::-1]
    except (OSError, SyntaxError, ValueError) as error:  # Pillow raises all of them for damaged files
        raise ImageError(f"{name}: cannot be decoded ({error})") from None
    return _from_array(np.clip(pixels, 0, 65535).astype(np.uint16) if deep else pixels)


def _from_array(image: np.ndarray[Any, Any]) -> UInt8[np.ndarray, "H W 3"]:
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    if image.dtype != np.uint8:
        raise InputError(f"image array has dtype {image.dtype}; expected uint8 (0..255) or uint16, in BGR order")
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    if image.size == 0 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (3, 4))):
        raise InputError(f"image array has shape {image.shape}; expected (H, W), (H, W, 3) or (H, W, 4), not empty")
    if image.ndim == 2:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    return np.ascontiguousarray(image[:, :, :3])
