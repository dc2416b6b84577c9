"""Images of a report that open in the viewer: scenes inside the report's own file, up to a size."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from maskprism.viewer.markup import base64_text, script_json
from maskprism.viewer.payload import viewer_scene

if TYPE_CHECKING:
    from maskprism.analysis.dataset.diagnosis import PicturedImage

EMBEDDED_BYTES = 16_000_000
"""The scenes of a report take no more of its file than this."""


class Embedded(NamedTuple):
    """The elements that hold the scenes, and the names of their images."""

    elements: str = ""
    names: Collection[str] = ()

    def address(self, image: str, instance: int, *, missed: bool = False) -> str:
        """Return the address, within the report, of an instance; nothing for one of an image that is not there.

        Parameters
        ----------
        instance
            Its number in the prediction, or among what was missed in the image.
        """
        return f"#view={quote(image, safe='')},{'missed' * missed}{instance}" if image in self.names else ""


def packed_scene(pictured: PicturedImage) -> str:
    """Return an image with its instances and ground truth as base64, for the viewer."""
    shown = replace(pictured.prediction, source=pictured.name)
    return base64_text(
        viewer_scene(pictured.image, shown, bits=8, truth=pictured.truth, matches=pictured.matches).pack()
    )


def embedded(packed: Mapping[str, str]) -> Embedded:
    """Return scenes by the names of their images as elements, the first ones, as many as fit."""
    scenes: dict[str, str] = {}
    used = 0
    for name, text in packed.items():
        if used + len(text) <= EMBEDDED_BYTES:
            used += len(text)
            scenes[name] = text
    if not scenes:
        return Embedded()
    elements = [f'<script type="application/json" id="maskprism-embedded">{script_json([*scenes])}</script>']
    elements += [
        f'<script type="application/octet-stream" id="maskprism-scene-{number}">{text}</script>'
        for number, text in enumerate(scenes.values())
    ]
    return Embedded("\n".join(elements), scenes.keys())
