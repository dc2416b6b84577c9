"""Images of every kind in; damaged, empty, huge and other files refused with the reason."""

from __future__ import annotations

import io
import struct
import sys
import warnings
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import maskprism
from helpers.tiny_models import Tiny
from maskprism import read_image
from maskprism.errors import ImageError, InputError
from maskprism.io.images import IMAGE_SUFFIXES, VIDEO_SUFFIXES, source_name
from maskprism.io.sources import open_source

RNG = np.random.default_rng(11)
IMAGE = cv2.resize(RNG.integers(0, 256, (8, 10, 3), dtype=np.uint8), (100, 80), interpolation=cv2.INTER_CUBIC)
"""BGR, 80 x 100, smooth enough for JPEG."""
RGB = Image.fromarray(np.ascontiguousarray(IMAGE[:, :, ::-1]))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> maskprism.Model:
    return maskprism.load(Tiny().save(tmp_path_factory.mktemp("models") / "tiny.onnx"))


def written(path: Path, image: np.ndarray) -> Path:
    assert cv2.imwrite(str(path), image)
    return path


def saved(path: Path, image: Image.Image, **options) -> Path:
    image.save(path, **options)
    return path


def jpeg(**options) -> bytes:
    stream = io.BytesIO()
    RGB.save(stream, "JPEG", quality=90, **options)
    return stream.getvalue()


def with_thumbnail(data: bytes) -> bytes:
    """The JPEG with a smaller JPEG inside an application segment, as cameras write it."""
    stream = io.BytesIO()
    RGB.resize((32, 24)).save(stream, "JPEG")
    payload = b"Exif\x00\x00" + stream.getvalue()
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload + data[2:]


def predicts(tiny: maskprism.Model, image, hw: tuple[int, int]) -> None:
    prediction = tiny.predict(image)
    assert prediction.image_size == hw
    assert len(prediction) == 3
    assert prediction.masks("image").shape == (3, *hw)
    assert prediction.source == source_name(image)


# --- good files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "ppm", "webp", "jpg", "jp2"])
def test_files_are_read_as_opencv_reads_them(suffix, tmp_path, tiny):
    path = written(tmp_path / f"image.{suffix}", IMAGE)
    found = read_image(path)
    assert (found.dtype, found.shape) == (np.uint8, (80, 100, 3))
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, cv2.imread(str(path)))
    if suffix in ("png", "bmp", "tif", "ppm"):
        np.testing.assert_array_equal(found, IMAGE)
    np.testing.assert_array_equal(read_image(str(path)), found)
    predicts(tiny, path, (80, 100))


def kinds_of_files(folder: Path) -> dict[str, Path]:
    grey, alpha = IMAGE[:, :, 0], IMAGE[:, :, 1]
    deep = IMAGE.astype(np.uint16) * 257
    return {
        "grey png": written(folder / "grey.png", grey),
        "grey jpeg": written(folder / "grey.jpg", grey),
        "grey and alpha": saved(folder / "la.png", Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha)])),
        "colour and alpha": written(folder / "rgba.png", np.dstack([IMAGE, alpha])),
        "palette": saved(folder / "palette.png", RGB.quantize(64)),
        "palette with transparency": saved(folder / "gap.png", RGB.quantize(64), transparency=3),
        "black and white": saved(folder / "bits.png", RGB.convert("1")),
        "16-bit grey png": written(folder / "deep_grey.png", deep[:, :, 0]),
        "16-bit colour png": written(folder / "deep.png", deep),
        "16-bit grey tiff": written(folder / "deep_grey.tif", deep[:, :, 0]),
        "16-bit colour tiff": written(folder / "deep.tif", deep),
        "CMYK jpeg": saved(folder / "cmyk.jpg", RGB.convert("CMYK"), quality=95),
        "progressive jpeg": saved(folder / "progressive.jpg", RGB, progressive=True),
        "interlaced by restart markers": saved(folder / "restart.jpg", RGB, restart_marker_blocks=2),
        "unicode and spaces": written(folder / "größte Katze 猫.png", IMAGE),
        "another suffix": Path(written(folder / "other.png", IMAGE).rename(folder / "other.jpg")),
    }


KINDS = (
    "grey png",
    "grey jpeg",
    "grey and alpha",
    "colour and alpha",
    "palette",
    "palette with transparency",
    "black and white",
    "16-bit grey png",
    "16-bit colour png",
    "16-bit grey tiff",
    "16-bit colour tiff",
    "CMYK jpeg",
    "progressive jpeg",
    "interlaced by restart markers",
    "unicode and spaces",
    "another suffix",
)


@pytest.fixture(scope="module")
def kinds(tmp_path_factory) -> dict[str, Path]:
    found = kinds_of_files(tmp_path_factory.mktemp("kinds of files"))
    assert set(found) == set(KINDS)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_is_read_and_predicted(kind, kinds, tiny):
    path = kinds[kind]
    found = read_image(path)
    assert (found.dtype, found.shape) == (np.uint8, (80, 100, 3))
    expected = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(found, expected)
    if kind.startswith(("grey", "16-bit grey")):
        assert np.abs(found.astype(int) - IMAGE[:, :, :1]).max() <= (10 if "jpeg" in kind else 0)
    else:
        fewer = {"black and white": RGB.convert("1"), "palette": RGB.quantize(64)}
        drawn = fewer.get(kind.removesuffix(" with transparency"), RGB).convert("RGB")
        lossy = path.read_bytes().startswith(b"\xff\xd8")
        assert np.abs(found[:, :, ::-1].astype(int) - np.asarray(drawn)).mean() <= (6 if lossy else 0)
    predicts(tiny, path, (80, 100))


@pytest.mark.parametrize("kind", KINDS)
def test_pil_and_path_give_the_same_pixels(kind, kinds, tiny):
    image = Image.open(kinds[kind])
    found = read_image(image)
    np.testing.assert_allclose(found.astype(int), read_image(kinds[kind]), atol=1)  # rounding of CMYK and 16 bits
    predicts(tiny, image, (80, 100))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation, tmp_path, tiny):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / "turned.jpg", RGB, quality=95, exif=exif)
    found = read_image(path)
    assert found.shape == ((80, 100, 3) if orientation < 5 else (100, 80, 3))
    np.testing.assert_array_equal(found, cv2.imread(str(path)))
    upright = {
        1: IMAGE,
        2: IMAGE[:, ::-1],
        3: IMAGE[::-1, ::-1],
        4: IMAGE[::-1],
        5: IMAGE.transpose(1, 0, 2),
        6: np.rot90(IMAGE, -1),
        7: IMAGE[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(IMAGE),
    }[orientation]
    assert np.abs(found.astype(int) - upright).mean() < 3
    np.testing.assert_allclose(read_image(Image.open(path)).astype(int), found, atol=2)
    predicts(tiny, path, found.shape[:2])


def oriented(folder: Path, suffix: str, orientation: int, mode: str) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"webp": {"lossless": True}, "avif": {"quality": 100}}.get(suffix, {})
    return saved(folder / f"turned.{suffix}", RGB.convert(mode), exif=exif, **lossless)


@pytest.mark.parametrize("orientation", [1, 2, 3, 5, 6, 8])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
@pytest.mark.parametrize("suffix", ["avif", "png", "webp", "tif"])
def test_orientation_is_applied_to_every_format_and_in_the_same_way_by_pil(suffix, mode, orientation, tmp_path):
    if suffix == "avif":
        pytest.importorskip("PIL._avif", reason="this Pillow reads no AVIF")
    path = oriented(tmp_path, suffix, orientation, mode)
    grey = cv2.cvtColor(cv2.cvtColor(IMAGE, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR) if mode == "L" else IMAGE
    upright = {
        1: grey,
        2: grey[:, ::-1],
        3: grey[::-1, ::-1],
        5: grey.transpose(1, 0, 2),
        6: np.rot90(grey, -1),
        8: np.rot90(grey),
    }[orientation]
    for found in (read_image(path), read_image(Image.open(path))):
        assert found.shape == upright.shape
        assert np.abs(found.astype(int) - upright).mean() < 3
    np.testing.assert_allclose(read_image(Image.open(path)).astype(int), read_image(path), atol=2)


def lab(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    return ImageCms.applyTransform(image, ImageCms.buildTransform(*profiles, "RGB", "LAB"))  # type: ignore[return-value]


FLOATS = Image.fromarray(IMAGE[:, :, 1].astype(np.float32))
TIFFS = {
    "Lab": lambda: lab(RGB),
    "CMYK": lambda: RGB.convert("CMYK"),
    "alpha": lambda: Image.merge("RGBA", [*RGB.split(), Image.fromarray(IMAGE[:, :, 1])]),
    "grey and alpha": lambda: Image.merge("LA", [RGB.convert("L"), Image.fromarray(IMAGE[:, :, 1])]),
    "palette": lambda: RGB.quantize(256),
    "16 bits": lambda: Image.fromarray(IMAGE[:, :, 1].astype(np.uint16) * 257),
    "32 bits": lambda: Image.fromarray(IMAGE[:, :, 1].astype(np.int32)),
    "floats": lambda: FLOATS,
}


@pytest.mark.parametrize("kind", TIFFS)
def test_colours_of_a_tiff_are_the_same_by_path_and_by_pil(kind, tmp_path):
    path = saved(tmp_path / "a.tif", TIFFS[kind]())
    found = read_image(path)
    np.testing.assert_allclose(found.astype(int), read_image(Image.open(path)), atol=1)
    grey = IMAGE[:, :, [1, 1, 1]] if kind in ("16 bits", "32 bits", "floats") else IMAGE
    if kind == "grey and alpha":
        grey = cv2.cvtColor(cv2.cvtColor(IMAGE, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    assert np.abs(found.astype(int) - grey).mean() < (20 if kind == "palette" else 3)


def test_sixteen_bits_that_are_all_dark_stay_dark(tmp_path):
    """A depth map or a dark frame: its numbers below 256 are not those of 8 bits."""
    dark = np.full((20, 30), 200, dtype=np.uint16)
    for name in ("dark.png", "dark.pgm"):
        path = written(tmp_path / name, dark)
        assert read_image(path).max() == 0
        assert read_image(Image.open(path)).max() == 0


@pytest.mark.parametrize("suffix", ["pfm", "tif"])
def test_floats_are_read_as_levels_and_refused_as_fractions(suffix, tmp_path):
    path = saved(tmp_path / f"a.{suffix}", FLOATS)
    np.testing.assert_array_equal(read_image(path), IMAGE[:, :, [1, 1, 1]])
    saved(path, Image.fromarray(np.asarray(FLOATS) / np.float32(255)))
    with pytest.raises(ImageError, match=rf"a\.{suffix}: has pixels between 0 and 1; expected 0 to 255"):
        read_image(path)


def test_a_bitmap_without_its_file_header_is_read(tmp_path):
    path = saved(tmp_path / "a.dib", RGB)
    np.testing.assert_array_equal(read_image(path), IMAGE)


HEIC = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(100)


def test_heic_names_its_extra(tmp_path, monkeypatch):
    path = tmp_path / "a.heic"
    path.write_bytes(HEIC)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(
        ImageError, match=r"a\.heic: is a HEIC image, which needs pillow-heif: pip install 'maskprism\[heic\]'"
    ):
        read_image(path)


@pytest.mark.parametrize("orientation", [1, 6])
def test_heic_is_read_where_its_extra_is_installed(orientation, tmp_path):
    pytest.importorskip("pillow_heif", reason="pillow-heif is not installed").register_heif_opener()
    path = oriented(tmp_path, "heic", orientation, "RGB")
    np.testing.assert_array_equal(read_image(path), read_image(Image.open(path)))


@pytest.mark.parametrize("hw", [(1, 1), (10, 30000), (3000, 2), (1, 640)])
def test_extreme_shapes(hw, tmp_path, tiny):
    image = np.full((*hw, 3), 200, dtype=np.uint8)
    path = written(tmp_path / "extreme.png", image)
    np.testing.assert_array_equal(read_image(path), image)
    predicts(tiny, path, hw)
    for rule in maskprism.RULES.values():
        if not rule.objectness:
            assert tiny.predict(path).with_rule(rule).masks("image").shape == (3, *hw)


# --- JPEG: truncated or not -----------------------------------------------------------------------


@pytest.mark.parametrize("thumbnail", [False, True])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 2}], ids=str)
def test_a_truncated_jpeg_is_refused_wherever_it_is_cut(options, thumbnail, tmp_path):
    data = jpeg(**options)
    if thumbnail:
        data = with_thumbnail(data)
    path = tmp_path / "cut.jpg"
    path.write_bytes(data)
    assert read_image(path).shape == (80, 100, 3)
    cuts = {3, 4, 20, 100, len(data) - 1, len(data) - 2, len(data) - 3}
    cuts |= {int(len(data) * part) for part in np.linspace(0.05, 0.99, 40)}
    for cut in sorted(cuts):
        path.write_bytes(data[:cut])
        with pytest.raises(ImageError, match=r"cut\.jpg: the image is truncated; its end is missing"):
            read_image(path)


@pytest.mark.parametrize(
    "trailing",
    [
        b"garbage",
        b"\x00" * 1000,
        b"\xff\xda\x00\x08 a scan without an end",
        b"\xff\xd8\xff\xda half of another image",
        bytes(range(256)) * 20,
    ],
)
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 2}], ids=str)
def test_what_follows_the_end_of_a_jpeg_does_not_matter(options, trailing, tmp_path, tiny):
    data = jpeg(**options)
    path = tmp_path / "motion.jpg"
    path.write_bytes(with_thumbnail(data) + trailing)
    np.testing.assert_array_equal(read_image(path), cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))
    path.write_bytes(with_thumbnail(data)[:-2] + b"\x00\x00")  # as long, but without its end
    with pytest.raises(ImageError, match="the image is truncated"):
        read_image(path)
    path.write_bytes(with_thumbnail(data) + trailing)
    predicts(tiny, path, (80, 100))


def test_markers_may_be_padded(tmp_path):
    data = jpeg()
    scan = data.index(b"\xff\xda")
    path = tmp_path / "padded.jpg"
    path.write_bytes(data[:scan] + b"\xff\xff\xff" + data[scan:-2] + b"\xff\xff\xff" + data[-2:])
    assert read_image(path).shape == (80, 100, 3)


@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "bmp", "jp2", "ppm"])
def test_other_truncated_files_are_refused(suffix, tmp_path):
    path = written(tmp_path / f"cut.{suffix}", IMAGE)
    data = path.read_bytes()
    for part in (0.1, 0.5, 0.9):
        path.write_bytes(data[: int(len(data) * part)])
        with pytest.raises(ImageError, match=rf"cut\.{suffix}: "):
            read_image(path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp"])
def test_a_truncated_pil_image_is_refused(suffix, tmp_path):
    path = saved(tmp_path / f"cut.{suffix}", RGB)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError, match=rf"cut\.{suffix}: cannot be decoded"):
        read_image(Image.open(path))


def test_a_png_with_a_damaged_chunk_is_refused_by_pil_and_path_alike(tmp_path):
    path = saved(tmp_path / "damaged.png", RGB)
    data = path.read_bytes()
    place = data.index(b"IDAT") + 200
    path.write_bytes(data[:place] + bytes(byte ^ 0x5A for byte in data[place : place + 60]) + data[place + 60 :])
    with pytest.raises(ImageError, match=r"damaged\.png: cannot be decoded"):
        read_image(Image.open(path))


# --- other bad files ------------------------------------------------------------------------------


def test_a_file_of_zero_bytes(tmp_path):
    path = tmp_path / "empty.jpg"
    path.touch()
    with pytest.raises(ImageError, match=r"empty\.jpg: the file is empty \(0 bytes\)"):
        read_image(path)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_a_text_by_the_name_of_an_image(suffix, tmp_path):
    path = tmp_path / f"notes.{suffix}"
    path.write_text("dear diary")
    with pytest.raises(ImageError, match=rf"notes\.{suffix}: not an image that OpenCV can decode \(10 bytes\)"):
        read_image(path)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(ImageError, match=r"gone\.jpg: there is no such file"):
        read_image(tmp_path / "gone.jpg")
    with pytest.raises(ImageError, match="cannot be read"):
        read_image(tmp_path)
    with pytest.raises(ImageError, match="cannot be read"):
        read_image("a\x00b.jpg")


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims to be so large and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(("width", "height"), [(60000, 60000), (14000, 12500), (2**31 - 1, 1)])
def test_a_decompression_bomb_is_refused_by_its_header(width, height, tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(width, height))
    with pytest.raises(ImageError, match=r"bomb\.png: unpacks to .* million pixels.*; resize it first"):
        read_image(path)


def test_large_images_below_the_limit_are_read_without_a_warning(tmp_path, monkeypatch):
    path = saved(tmp_path / "large.png", RGB)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 80 * 100 - 1)  # from here on Pillow warns
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(path).shape == (80, 100, 3)


# --- PIL ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB", "F", "LA", "PA", "RGBX", "RGBa"]
)
def test_pil_images_of_every_mode_keep_their_meaning(mode, tiny):
    image = {
        "PA": lambda: RGB.convert("P").convert("PA"),
        "RGBa": lambda: RGB.convert("RGBA").convert("RGBa"),
        "LAB": lambda: Image.merge("LAB", [RGB.convert("L"), *[Image.new("L", RGB.size, 128)] * 2]),
    }.get(mode, lambda: RGB.convert(mode))()
    assert image.mode == mode
    found = read_image(image)
    np.testing.assert_array_equal(found[:, :, ::-1], np.asarray(image.convert("RGB")))
    assert found.flags.c_contiguous
    predicts(tiny, image, (80, 100))


def test_pil_images_of_whole_numbers_hold_8_or_16_bits():
    grey = IMAGE[:, :, 0]
    expected = np.dstack([grey] * 3)
    for deep in (
        Image.fromarray(grey.astype(np.uint16) * 257),
        Image.fromarray(grey.astype(np.int32) * 257),
        Image.fromarray(grey.astype(np.int32)),
    ):
        assert deep.mode in ("I", "I;16")
        np.testing.assert_array_equal(read_image(deep), expected)
    beyond = Image.fromarray(np.array([[-5, 70000, 32768]], dtype=np.int32))
    assert read_image(beyond)[0, :, 0].tolist() == [0, 255, 128]


def test_a_pil_image_without_pixels_is_refused():
    with pytest.raises(InputError, match=r"image array has shape \(0, 0, 3\)"):
        read_image(Image.new("RGB", (0, 0)))


# --- arrays ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (IMAGE, IMAGE),
        (IMAGE[:, :, 0], np.dstack([IMAGE[:, :, 0]] * 3)),
        (IMAGE[:, :, :1], np.dstack([IMAGE[:, :, 0]] * 3)),
        (np.dstack([IMAGE, IMAGE[:, :, :1]]), IMAGE),
        (IMAGE.astype(np.uint16) * 257, IMAGE),
        (IMAGE[:, :, 0].astype(np.uint16) * 257, np.dstack([IMAGE[:, :, 0]] * 3)),
        (IMAGE[::2, ::-3], IMAGE[::2, ::-3]),
        (IMAGE.transpose(1, 0, 2), IMAGE.transpose(1, 0, 2)),
        (IMAGE[:, :, ::-1], IMAGE[:, :, ::-1]),
        (IMAGE[::2, ::2, 0], np.dstack([IMAGE[::2, ::2, 0]] * 3)),
        (np.asfortranarray(IMAGE), IMAGE),
    ],
    ids=[
        *("colour", "grey", "grey of 3 axes", "alpha", "16 bits", "16-bit grey", "strided", "transposed", "channels"),
        *("strided grey", "Fortran order"),
    ],
)
def test_arrays_are_bgr(array, expected, tiny):
    before = array.copy()
    found = read_image(array)
    np.testing.assert_array_equal(found, expected)
    assert (found.dtype, found.flags.c_contiguous) == (np.uint8, True)
    predicts(tiny, array, expected.shape[:2])
    np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (IMAGE.astype(np.float32) / 255, r"image array has dtype float32; expected uint8 \(0..255\) or uint16"),
        (IMAGE.astype(np.int64), "image array has dtype int64"),
        (IMAGE > 100, "image array has dtype bool"),
        (np.zeros((0, 10, 3), np.uint8), r"image array has shape \(0, 10, 3\); expected \(H, W\), .*, not empty"),
        (np.zeros((0,), np.uint8), r"image array has shape \(0,\)"),
        (np.zeros((10, 0), np.uint8), r"image array has shape \(10, 0\)"),
        (np.zeros((10, 10, 2), np.uint8), r"image array has shape \(10, 10, 2\)"),
        (np.zeros((3, 10, 10), np.uint8), r"image array has shape \(3, 10, 10\)"),
        (np.zeros((1, 10, 10, 3), np.uint8), r"image array has shape \(1, 10, 10, 3\)"),
        (np.array(7, np.uint8), r"image array has shape \(\)"),
    ],
)
def test_other_arrays_are_refused(array, message, tiny):
    with pytest.raises(InputError, match=message):
        read_image(array)
    with pytest.raises(InputError, match=message):
        tiny.predict([array])


@pytest.mark.parametrize("thing", [None, 17, b"image.jpg", [1, 2], {"path": "a.jpg"}])
def test_other_things_are_refused(thing):
    with pytest.raises(InputError, match=f"cannot read an image from {type(thing).__name__}; expected a path, a PIL"):
        read_image(thing)


def test_the_source_of_an_image(tmp_path):
    path = saved(tmp_path / "a.png", RGB)
    assert source_name(path) == source_name(str(path)) == source_name(Image.open(path)) == str(path)
    assert source_name(RGB) is None
    assert source_name(IMAGE) is None


def test_suffixes_are_either_of_images_or_of_videos():
    assert not IMAGE_SUFFIXES & VIDEO_SUFFIXES
    assert {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp"} <= IMAGE_SUFFIXES
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in IMAGE_SUFFIXES | VIDEO_SUFFIXES)


def test_a_path_of_many_folders_is_named_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What pathlib looks for among all parents of a path takes seconds for thousands of them."""
    monkeypatch.setattr(Path, "is_relative_to", None)
    far = "/".join(["a"] * 5000)
    (tmp_path / "list.txt").write_text(f"{far}/b.png\n/{far}/c.png\nd.png\n")
    names = [item.name for item in open_source(tmp_path / "list.txt").pending(frozenset())]
    assert names == [f"{far}/b.png", f"/{far}/c.png", "d.png"]
