"""Images and videos, as files and as uploads."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

import maskprism
from fuzz.datasets import use_source
from fuzz.kind import Kind, image, write_images
from fuzz.mutate import bytes_damage
from helpers.fake_network import fake_model
from maskprism.errors import MaskprismError
from maskprism.server.gallery import Gallery, Limits


def _images(folder: Path) -> None:
    for suffix in (".png", ".jpg", ".webp", ".tif", ".bmp", ".ppm"):
        write_images(folder, 1, suffix)
    (folder / "0.jp2").write_bytes(cv2.imencode(".jp2", image(40, 40))[1].tobytes())
    exif = Image.Exif()
    exif[0x0112] = 6  # turned
    rgb = Image.fromarray(image())
    rgb.save(folder / "turned.jpg", exif=exif)
    rgb.convert("P").save(folder / "palette.png", transparency=0)
    rgb.save(folder / "exif.webp", exif=exif)
    Image.fromarray(image()[:, :, 0].astype(np.uint16) * 257).save(folder / "deep.png")


def _use_images(folder: Path) -> None:
    errors = []
    for path in sorted(folder.iterdir()):
        try:
            maskprism.read_image(path)
        except MaskprismError as error:
            errors.append(error)
        try:
            opened = Image.open(path)
        except Exception:  # what a user sees of Pillow before the image comes to us
            continue
        with opened:
            maskprism.read_image(opened)
    if errors:
        raise errors[0]


def _video(folder: Path) -> None:
    writer = cv2.VideoWriter(str(folder / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (32, 24))
    for index in range(3):
        writer.write(image(seed=index))
    writer.release()


def _uploads(folder: Path) -> None:
    write_images(folder, 1, ".png")
    write_images(folder, 1, ".jpg")


def _use_uploads(folder: Path) -> None:
    async def upload() -> None:
        gallery = Gallery(folder, fake_model(), limits=Limits(upload_bytes=1 << 20, upload_pixels=1 << 20))
        errors = []
        for path in sorted(path for path in folder.iterdir() if path.is_file()):
            try:
                image, _ = await gallery.upload(path.name, path.read_bytes())
                await gallery.scene(image)
            except MaskprismError as error:
                errors.append(error)
        await gallery.stop()
        if errors:
            raise errors[0]

    asyncio.run(upload())


KINDS = {
    "upload": Kind((_uploads,), {"*": (bytes_damage,)}, _use_uploads, 3),
    "image": Kind((_images,), {"*": (bytes_damage,)}, _use_images, 10),
    "video": Kind((_video,), {"*": (bytes_damage,)}, partial(use_source, name="clip.avi"), 2),
}
