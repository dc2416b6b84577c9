"""Make the generated parts of the documentation: docs/cli.md and docs/images.

python utils/make_docs.py
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from PIL import Image

from maskprism.cli import app
from maskprism.models import load
from maskprism.scenes import draw_scene
from maskprism.views import raster, sheets

DOCS = Path(__file__).resolve().parent.parent / "docs"
SCENE = 3
HEADER = "<!-- made by utils/make_docs.py; do not edit -->\n\n"


def cli_reference() -> str:
    """The command line as Markdown."""
    return HEADER + app.generate_docs(output_format="markdown", heading_level=1).rstrip() + "\n"


def write_images(folder: Path) -> None:
    """The pictures of the documentation: the bundled model on a scene it has never seen."""
    photograph = draw_scene(SCENE).photograph
    prediction = replace(load().predict(photograph), source=f"scene {SCENE}")
    instance = next(one for one in prediction if one.name == "star")
    pictures = {
        "assembly": sheets.assembly_strip(photograph, instance),
        "contributions": sheets.contribution_grid(instance),
        "crop": sheets.crop_view(photograph, instance),
        "overview": sheets.overview(photograph, prediction),
    }
    folder.mkdir(exist_ok=True)
    for name, sheet in pictures.items():
        picture = Image.fromarray(raster.draw(sheet))
        picture.thumbnail((1600, 1600))
        picture.save(folder / f"{name}.webp", quality=90, method=6)


if __name__ == "__main__":
    (DOCS / "cli.md").write_text(cli_reference(), encoding="utf-8")
    write_images(DOCS / "images")
