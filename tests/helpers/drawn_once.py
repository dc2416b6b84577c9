"""Drawn scenes, which hundreds of tests look at: each is drawn once in a process. No test changes one."""

from __future__ import annotations

from functools import lru_cache, wraps

from maskprism.datasets import scenes
from maskprism.datasets.scenes import Scene


def draw_once() -> None:
    """Have `draw_scene` keep its latest scenes; before a test module imports it."""
    draw = scenes.draw_scene

    @lru_cache(maxsize=128)
    def kept(seed: int, size_hw: tuple[int, int], kind: scenes.SceneKind) -> Scene:
        scene = draw(seed, size_hw, kind=kind)
        for array in (scene.image, scene.classes, scene.owners):
            array.flags.writeable = False
        return scene

    @wraps(draw)
    def draw_scene(
        seed: int,
        size_hw: tuple[int, int] = (scenes.REFERENCE_SIDE,) * 2,
        *,
        kind: scenes.SceneKind = "shapes",
    ) -> Scene:
        return kept(seed, tuple(size_hw), kind)

    scenes.draw_scene = draw_scene
