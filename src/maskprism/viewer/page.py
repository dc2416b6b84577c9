"""The interactive page: images and their predictions in one HTML file that works offline, without a server.

Examples
--------
>>> import maskprism
>>> from maskprism.datasets.scenes import draw_scene
>>> image = draw_scene(3).image
>>> write_page("page.html", [(image, maskprism.load("sample").predict(image))]).name
'page.html'
"""

from __future__ import annotations

import html
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from maskprism._common.files import write_atomically
from maskprism._common.text import readable
from maskprism.core.decoding import each_crop
from maskprism.errors import InputError
from maskprism.io.images import read_image
from maskprism.viewer.markup import base64_text, content_hash, data_url, script_json, static_text
from maskprism.viewer.payload import as_shown, encode_webp, viewer_scene
from maskprism.viewer.prototype_tags import Kinds

if TYPE_CHECKING:
    from jaxtyping import Float32

    from maskprism.analysis.truth.matching import Matches
    from maskprism.core.prediction import Prediction
    from maskprism.datasets import GroundTruth
    from maskprism.io.images import ImageLike

_THUMBNAIL_SIDE = 220
KICKER = '<p class="kicker">'
"""What pages and reports begin with; a link to the index of results stands behind it."""
LARGE_BYTES = 50_000_000
"""A page of more than this is worth a word before it is written."""
MAX_BYTES = 256 << 20
"""A page of more than this is refused: browsers open it slowly, or not at all."""
_STYLE = """
body { margin: 0; }
body, body:has([data-theme="light"]) { background: #fbfaf8; --quiet-text: #666; --link: #1d6fa5; }
@media screen and (prefers-color-scheme: dark) { body { background: #15171a; --quiet-text: #a09d98; --link: #56b4e9; } }
@media screen { body:has([data-theme="dark"]) { background: #15171a; --quiet-text: #a09d98; --link: #56b4e9; } }
.brand { display: flex; align-items: center; gap: 8px; max-width: 1800px; margin: 0 auto; }
.brand { padding: 8px clamp(12px, 2.2vw, 28px) 0; box-sizing: border-box; font: 13px system-ui, sans-serif; }
.brand svg { width: 20px; height: 20px; flex: none; }
.kicker { margin: 0; color: var(--quiet-text); }
:is(.kicker, .site) a { color: var(--link); }
.site { display: flex; flex-wrap: wrap; gap: 4px 16px; padding: 8px 16px 0; font: 14px system-ui, sans-serif; }
.site { color: var(--quiet-text); }
.site details div { display: grid; gap: 6px; padding: 6px 0; }
#maskprism { max-width: 1800px; margin: 0 auto; }
"""


@dataclass(frozen=True)
class Exactness:
    """What keeping prototypes in few bits did: to logits, and to the pixels of masks at the rule's own size.

    Attributes
    ----------
    logit_error
        No logit of any instance is further from the model's than this.
    changed, area
        Pixels in which the masks differ from the model's, and pixels of the masks.
    """

    logit_error: float = 0.0
    changed: int = 0
    area: int = 0

    def __str__(self) -> str:
        if not self.logit_error:
            return "no logit and no mask differs from the model's"
        return (
            f"logits within {self.logit_error:.2g} of the model's, {self.changed:,} of {self.area:,} mask pixels "
            "differ from its masks"
        )


class Page:
    """A page that images are added to, one after the other."""

    def __init__(self, *, bits: Literal[8, 16] = 8) -> None:
        if bits not in (8, 16):
            raise InputError(f"bits is {bits!r}; expected 8 or 16")
        self.bits = bits
        self.models: tuple[str, str] | None = None
        """Names of two models: the page then shows its first two scenes, of one image, side by side."""
        self.exactness = Exactness()
        self._index: list[dict[str, str]] = []
        self._scenes: list[str] = []
        self._kinds = Kinds()

    def __len__(self) -> int:
        return len(self._scenes)

    def add(
        self,
        image: ImageLike,
        prediction: Prediction,
        truth: GroundTruth | None = None,
        matches: Matches | None = None,
        untuned: Float32[np.ndarray, "N K"] | None = None,
    ) -> None:
        """Add an image; see `viewer_scene` for what is expected, and raised; and InputError beyond MAX_BYTES."""
        picture = read_image(image)
        scene = viewer_scene(picture, prediction, bits=self.bits, truth=truth, matches=matches, untuned=untuned)
        packed = base64_text(scene.pack())
        if self.scene_bytes + len(packed) > MAX_BYTES:
            raise InputError(
                f"the page would take more than {MAX_BYTES / 2**20:.0f} MiB with {prediction.source or 'this image'}, "
                f"number {len(self) + 1}; write fewer images into one page"
            )
        self.exactness = _combined(self.exactness, exactness(prediction, self.bits))
        thumbnail, _ = encode_webp(picture, _THUMBNAIL_SIDE)
        count = len(prediction)
        self._index.append(
            {
                "title": prediction.source or f"image {len(self) + 1}",
                "detail": f"{count} {'instance' if count == 1 else 'instances'}",
                "thumbnail": data_url("image/webp", thumbnail),
            }
        )
        self._scenes.append(packed)
        self._kinds.add(picture, prediction)

    @property
    def thumbnail(self) -> str:
        """The first image, small, as a data URL; nothing without one."""
        return self._index[0]["thumbnail"] if self._index else ""

    @property
    def scene_bytes(self) -> int:
        """How many bytes the images take so far, which is nearly all of the file."""
        return sum(map(len, self._scenes))

    def html(self) -> str:
        """Return the whole file.

        Raises
        ------
        InputError
            For a page without images.
        """
        if not self._scenes:
            raise InputError("the page has no image; add at least one")
        script, style = static_text("viewer.js"), static_text("viewer.css") + _STYLE
        logo = static_text("icon.svg").strip().replace("<svg ", '<svg aria-hidden="true" ', 1)
        title = Path(self._index[0]["title"].replace("\\", "/")).name
        if self.models:
            title += f", {self.models[0]} and {self.models[1]}"
        elif len(self) > 1:
            title += f" and {len(self) - 1} more"
        title = readable(title)  # file names need not be Unicode
        policy = (
            f"default-src 'none'; script-src {content_hash(script)}; style-src {content_hash(style)}; "
            "img-src data: blob:; base-uri 'none'; form-action 'none'"
        )
        index = {
            "scenes": self._index,
            "kinds": self._kinds.found(),
            "pair": self.models,
            "note": f"All images of this page, in {self.bits} bits: {self.exactness}.",
        }
        scenes = [
            f'<script type="application/octet-stream" id="maskprism-scene-{i}">{scene}</script>\n'
            for i, scene in enumerate(self._scenes)
        ]
        return (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta name="generator" content="maskprism">\n'
            f"<title>{html.escape(title)} · maskprism</title>\n<style>{style}</style>\n</head>\n<body>\n"
            f'<nav class="brand" aria-label="Reports">{logo}{KICKER}maskprism page</p></nav>\n'
            '<div id="maskprism"></div>\n'
            "<noscript>This page needs JavaScript.</noscript>\n"
            f'<script type="application/json" id="maskprism-scenes">{script_json(index)}</script>\n{scenes[0]}'
            # async: it runs at once and shows the first image while the browser reads the others
            f'<script type="module" async>{script}</script>\n{"".join(scenes[1:])}</body>\n</html>\n'
        )

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write the file; parent folders are made.

        Raises
        ------
        MaskprismError
            If that fails.
        """
        return write_atomically(path, self.html())


def write_page(
    path: str | os.PathLike[str],
    images: Iterable[tuple[ImageLike, Prediction]],
    *,
    truth: Iterable[GroundTruth | None] | None = None,
    bits: Literal[8, 16] = 8,
) -> Path:
    """Write images and their predictions as one interactive HTML file.

    Parameters
    ----------
    truth
        Per image what is labelled in it, or None; `matching.match` says which instance found what.
    bits
        How exact prototypes are kept; the page says what that changes.

    Raises
    ------
    InputError
        For no images or what does not fit together.
    MaskprismError
        If `path` cannot be written.
    """
    page = Page(bits=bits)
    pairs = list(images)
    for (image, prediction), labelled in zip(pairs, truth or [None] * len(pairs), strict=True):
        page.add(image, prediction, labelled)
    return page.write(path)


def write_pair(
    path: str | os.PathLike[str],
    image: ImageLike,
    predictions: Mapping[str, Prediction],
    *,
    bits: Literal[8, 16] = 8,
) -> Path:
    """Write what two models say about one image as a page: side by side, with linked sliders.

    Parameters
    ----------
    predictions
        Two of them, by the names of the models.
    bits
        How exact prototypes are kept.

    Raises
    ------
    InputError
        For another number of predictions, and for those of another image.
    MaskprismError
        If `path` cannot be written.
    """
    if len(predictions) != 2:
        raise InputError(f"a pair has two predictions; {len(predictions)} came")
    page = Page(bits=bits)
    for prediction in predictions.values():
        page.add(image, prediction)
    first, second = predictions
    page.models = first, second
    return page.write(path)


def exactness(prediction: Prediction, bits: Literal[8, 16]) -> Exactness:
    """Return what prototypes of `bits` bits do to the masks of a prediction."""
    shown = as_shown(prediction, bits)
    changed = area = 0
    for exact, kept in zip(each_crop(prediction), each_crop(shown), strict=True):
        changed += int(np.count_nonzero(exact.values != kept.values))
        area += int(np.count_nonzero(exact.values))
    spread = np.ptp(prediction.prototypes.reshape(len(prediction.prototypes), -1).astype(np.float64), axis=1)
    errors = np.abs(prediction.weights) @ (spread / (2**bits - 1) / 2)
    return Exactness(float(errors.max(initial=0.0)), changed, area)


def _combined(a: Exactness, b: Exactness) -> Exactness:
    return Exactness(max(a.logit_error, b.logit_error), a.changed + b.changed, a.area + b.area)
