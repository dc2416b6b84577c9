"""Folders that `maskprism predict` wrote, which the same command goes on with."""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from fuzz.kind import Kind, write_images
from fuzz.mutate import JSON, bytes_damage, text_damage
from helpers.fake_network import fake_model
from maskprism.errors import InputError
from maskprism.integrations.exports import write_predictions
from maskprism.io.sources import open_sources
from maskprism.models import Model


@lru_cache(maxsize=1)
def _model() -> Model:
    return fake_model()


def _records(folder: Path) -> None:
    write_images(folder / "photos")
    write_predictions(open_sources([folder / "photos"]), _model(), folder / "out", "coco-annotations")


def _go_on(folder: Path) -> None:
    write_predictions(open_sources([folder / "photos"]), _model(), folder / "out", "coco-annotations")


def _start_over(folder: Path) -> None:
    write_predictions(open_sources([folder / "photos"]), _model(), folder / "out", "yolo", overwrite=True)


def _use_records(folder: Path) -> None:
    with suppress(InputError):
        _go_on(folder)
    _start_over(folder)


KINDS = {"records": Kind((_records,), {"*.jsonl": (text_damage, bytes_damage, JSON)}, _use_records, 5)}
