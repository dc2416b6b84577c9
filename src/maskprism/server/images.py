"""The images that a server may show, and nothing else: those of one folder, and uploads in memory.

Requests name images; a name is looked up, never joined to a path, so there is no way to spell
a path out of the folder. Links that lead out of it are not listed, and are refused again when read.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, islice
from pathlib import Path

from maskprism.errors import ImageError, InputError
from maskprism.io.images import IMAGE_SUFFIXES
from maskprism.io.untrusted import is_folder, shortened

_UPLOAD = "upload:"
_MAX_TITLE = 120
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]+")


@dataclass(frozen=True)
class GalleryImage:
    """One entry of the gallery.

    Attributes
    ----------
    name
        POSIX path relative to the folder, or "upload:DIGEST/FILE".
    title
        What people call it.
    stamp
        Another one as soon as the content is another.
    """

    name: str
    title: str
    stamp: str

    @property
    def uploaded(self) -> bool:
        """Whether it came over the network."""
        return self.name.startswith(_UPLOAD)


class GalleryImages:
    """The images of a folder (with its subfolders) by name, and uploads, `upload_bytes` of them at most.

    `refresh` and `read` touch the disk and may run in any thread: what is known is only ever replaced as a whole.

    Raises
    ------
    InputError
        Unless `folder` is a folder that can be listed.
    """

    def __init__(self, folder: str | os.PathLike[str], *, upload_bytes: int) -> None:
        self.root = Path(folder).resolve()
        if not is_folder(self.root):
            raise InputError(f"{shortened(Path(folder))}: is not a folder; expected a folder with images")
        if not os.access(self.root, os.R_OK | os.X_OK):
            raise InputError(f"{folder}: the folder cannot be read; check its permissions")
        self.upload_bytes = upload_bytes
        self.left_out = 0
        """How many images are links out of the folder or no regular files, and how many folders are links."""
        self._files: dict[str, tuple[GalleryImage, Path]] = {}
        self._uploads: dict[str, tuple[GalleryImage, bytes]] = {}  # the latest first
        self.refresh()

    def __len__(self) -> int:
        return len(self._files) + len(self._uploads)

    def __iter__(self) -> Iterator[GalleryImage]:
        """Uploads first, the latest before the others; then the folder, by name."""
        yield from [image for image, _ in self._uploads.values()]
        yield from [image for image, _ in self._files.values()]

    def find(self, name: str) -> GalleryImage | None:
        """Return the image of exactly that name, if there is one."""
        found = self._uploads.get(name) or self._files.get(name)
        return found[0] if found else None

    def refresh(self) -> None:
        """List the folder anew. Folders that cannot be read, and linked ones, are left out."""
        found: dict[str, tuple[GalleryImage, Path]] = {}
        left_out = 0
        for folder, folders, files in os.walk(self.root):
            left_out += sum(Path(folder, one).is_symlink() for one in folders)
            for file in files:
                path = Path(folder, file)
                if path.suffix.lower() not in IMAGE_SUFFIXES:
                    continue
                status = self._status(path)
                if status is None:
                    left_out += 1
                    continue
                relative = path.relative_to(self.root).as_posix()
                name = os.fsencode(relative).decode("utf-8", errors="backslashreplace")
                stamp = f"{status.st_mtime_ns:x}-{status.st_size:x}"
                found[name] = GalleryImage(name, _UNPRINTABLE.sub("\ufffd", name), stamp), path
        self._files = dict(sorted(found.items()))
        self.left_out = left_out

    def read(self, image: GalleryImage) -> bytes:
        """Return the encoded image.

        Raises
        ------
        ImageError
            If it is gone, or has become a link out of the folder.
        """
        upload, file = self._uploads.get(image.name), self._files.get(image.name)
        if upload:
            return upload[1]
        if not file:
            gone = "was dropped for later uploads; upload it again" if image.uploaded else "is gone"
            raise ImageError(f"{image.title}: {gone}")
        path = file[1]
        try:
            if self._status(path) is None:
                raise ImageError(f"{image.title}: is no longer a regular file of the folder")
            return path.read_bytes()
        except OSError as error:
            raise ImageError(f"{image.title}: cannot be read ({error.strerror or error})") from None

    def path(self, image: GalleryImage) -> Path | None:
        """Return where an image of the folder lies; None for uploads."""
        found = self._files.get(image.name)
        return found[1] if found else None

    def add(self, filename: str, data: bytes) -> GalleryImage:
        """Keep an upload, as the latest one."""
        title = _UNPRINTABLE.sub(" ", re.split(r"[/\\]", filename)[-1]).strip()[-_MAX_TITLE:] or "image"
        digest = hashlib.sha256(data).hexdigest()[:16]
        image = GalleryImage(f"{_UPLOAD}{digest}/{title}", title, digest)
        self._uploads = {image.name: (image, data)} | self._uploads
        return image

    def remove(self, image: GalleryImage) -> None:
        """Forget an upload."""
        self._uploads = {name: held for name, held in self._uploads.items() if name != image.name}

    def trim(self) -> None:
        """Forget the oldest uploads where all together take more than `upload_bytes`; the latest one stays."""
        sizes = accumulate(len(data) for _, data in self._uploads.values())
        kept = max(sum(size <= self.upload_bytes for size in sizes), 1)
        self._uploads = dict(islice(self._uploads.items(), kept))

    def _status(self, path: Path) -> os.stat_result | None:
        """Return what the disk says about a regular file inside the folder; None for anything else."""
        try:
            real = Path(os.path.realpath(path))
            status = real.stat()
        except (OSError, ValueError):
            return None
        return status if real.is_relative_to(self.root) and stat.S_ISREG(status.st_mode) else None
