"""Figures that are not drawn, for tests of what stands around them: drawing takes most of the time of a report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from maskprism.drawing import raster
from maskprism.drawing.figures import LiteralFigure

PNG = cv2.imencode(".png", np.zeros((9, 16, 3), np.uint8))[1].tobytes()
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="16pt" height="9pt" viewBox="0 0 16 9"></svg>'


def without_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have figures and sheets made, and saved as small black pictures or empty SVGs."""

    def savefig(figure: LiteralFigure, target: Any, **settings: Any) -> None:
        data = SVG if settings.get("format") == "svg" else PNG
        if hasattr(target, "write"):
            target.write(data)
        else:
            Path(target).write_bytes(data)

    monkeypatch.setattr(LiteralFigure, "savefig", savefig)
    monkeypatch.setattr(raster, "draw_with_photos", lambda sheet: (np.zeros((9, 16, 3), np.uint8), []))
    monkeypatch.setattr(raster, "encode_png", lambda picture, photos=(): PNG)
