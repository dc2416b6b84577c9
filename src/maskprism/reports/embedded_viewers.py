"""Instances of a report that open in the viewer: their images as scenes inside the report's own file, up to a size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from maskprism.viewer.markup import base64_text, script_json
from maskprism.viewer.payload import viewer_scene

if TYPE_CHECKING:
    from maskprism.analysis.dataset.diagnosis import PicturedInstance
    from maskprism.analysis.truth.error_budget import InstanceBudget

EMBEDDED_BYTES = 16_000_000
"""The scenes of a report take no more of its file than this."""


class Place(NamedTuple):
    """Where an instance is: the number of the scene, and of the instance in it."""

    scene: int
    instance: int


class Embedded(NamedTuple):
    """The elements that hold the scenes, and where the instances are, by image and instance of the diagnosis."""

    elements: str
    places: Mapping[tuple[str, int], Place]


def embedded(
    rows: Sequence[InstanceBudget],
    pictured: Iterable[PicturedInstance],
) -> Embedded:
    """Return the scenes of the images of `rows`, in their order, as many as fit."""
    packed = {
        name: _scene(list(found)) for name, found in groupby(pictured, lambda one: one.row.image)
    }  # image by image: none is held longer than its turn
    places: dict[tuple[str, int], Place] = {}
    scenes: list[tuple[str, str]] = []
    used = 0
    for name in dict.fromkeys(row.image for row in rows):
        if name not in packed or used + len(packed[name][0]) > EMBEDDED_BYTES:
            continue
        text, numbers = packed[name]
        used += len(text)
        places |= {(name, number): Place(len(scenes), number) for number in numbers}
        scenes.append((name, text))
    if not scenes:
        return Embedded("", {})
    titles = script_json([name for name, _ in scenes])
    elements = [f'<script type="application/json" id="maskprism-embedded">{titles}</script>']
    elements += [
        f'<script type="application/octet-stream" id="maskprism-scene-{number}">{text}</script>'
        for number, (_, text) in enumerate(scenes)
    ]
    return Embedded("\n".join(elements), places)


def _scene(found: Sequence[PicturedInstance]) -> tuple[str, list[int]]:
    """One image as base64, and the numbers of the instances of `found` in it."""
    first = found[0]
    shown = replace(first.prediction, source=first.row.image)
    scene = viewer_scene(first.image, shown, bits=8, truth=first.truth, matches=first.matches)
    return base64_text(scene.pack()), [one.row.instance for one in found]
