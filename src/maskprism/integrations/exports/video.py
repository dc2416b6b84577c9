"""An annotated video, one piece per call that worked on it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import cv2

from maskprism._common.files import make_folder, reporting_write_errors
from maskprism.errors import MaskprismError

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import UInt8

_USUAL_FPS = 25.0


class VideoPiece:
    """Writes frames to a video, which appears under its name when it is closed.

    An interrupted call closes its piece; the next call writes the frames that are left to another one.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self.path, self._fps = path, fps
        self._partial = path.with_name(f".{path.stem}.partial{path.suffix}")
        self._writer: cv2.VideoWriter | None = None
        self._n_frames = 0

    def add(self, frame: UInt8[np.ndarray, "H W 3"]) -> None:
        """Add a frame; one of odd height or width gets its last row or column twice, as the encoder asks for.

        Raises
        ------
        MaskprismError
            If the video cannot be written.
        """
        height, width = frame.shape[:2]
        even = cv2.copyMakeBorder(frame, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        if self._writer is None:
            make_folder(self.path.parent)
            size_wh = (even.shape[1], even.shape[0])
            self._writer = cv2.VideoWriter(str(self._partial), cv2.VideoWriter.fourcc(*"mp4v"), self._fps, size_wh)
            if not self._writer.isOpened():
                raise MaskprismError(f"{self.path}: cannot be written; OpenCV has no encoder for .mp4 here")
        self._writer.write(even)
        self._n_frames += 1

    def close(self) -> bool:
        """Finish the video; gives whether there is one.

        Raises
        ------
        MaskprismError
            If the video cannot be written, or lacks frames: the encoder does not say that a disk is full.
        """
        if self._writer is None:
            return False
        self._writer.release()
        written = cv2.VideoCapture(str(self._partial))
        n_written = int(written.get(cv2.CAP_PROP_FRAME_COUNT))
        written.release()
        if n_written != self._n_frames:
            self._partial.unlink(missing_ok=True)
            raise MaskprismError(
                f"{self.path}: cannot be written ({max(n_written, 0)} of {self._n_frames} frames were; is the disk "
                "full?); the same command begins again with these frames"
            )
        with reporting_write_errors(self.path):
            self._partial.replace(self.path)
        return True


def frames_per_second(address: str | int) -> float:
    """Return how fast a video or stream plays, as it claims, or else 25."""
    video = cv2.VideoCapture(address)
    claimed = float(video.get(cv2.CAP_PROP_FPS))
    video.release()
    return claimed if math.isfinite(claimed) and 0 < claimed <= 240 else _USUAL_FPS
