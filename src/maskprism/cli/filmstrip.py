"""maskprism filmstrip."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from maskprism.cli.options import DetectionOptions, Out, ReadingOptions, Replace, check_out, load_model
from maskprism.cli.output import Outcome, Output, command
from maskprism.errors import InputError


@command(
    group="Model",
    order=40,
    page="training.md",
    examples=(
        "filmstrip step10.onnx step20.onnx --image photo.jpg --out strip.png",
        "filmstrip prototypes --out strip.png",
    ),
    answer="`files`, `checkpoints`",
)
def filmstrip(
    checkpoints: list[Path],
    /,
    *,
    out: Out,
    overwrite: Replace = False,
    image: Path | None = None,
    prototypes: Annotated[list[int] | None, Parameter(consume_multiple=True, negative=())] = None,
    image_index: int = 0,
    reading: ReadingOptions = ReadingOptions(),
    detections: DetectionOptions = DetectionOptions(),
    output: Output = Output(),
) -> Outcome:
    """Draw how prototypes change from checkpoint to checkpoint.

    Checkpoints across, prototypes down, all on one colour scale; above them the logits and the mask edge of the most
    confident instance.

    Parameters
    ----------
    checkpoints
        Model files in order (.pt, .onnx, .tflite, OpenVINO .xml); or one folder that PrototypeCallback wrote during a
        training.
    out
        The picture, a .png file.
    image
        The image; not needed for a folder of records, which has its own.
    prototypes
        Indices of the prototypes to show; default: those that matter most for the best instance of the last
        checkpoint.
    image_index
        Which image of a folder of records, counted from 0.
    """
    from maskprism.drawing import raster
    from maskprism.drawing.filmstrip import filmstrip_sheet
    from maskprism.integrations.training import filmstrip as of_records
    from maskprism.io.untrusted import is_folder

    check_out(out, overwrite=overwrite, suffix=".png")
    if image is None:
        if len(checkpoints) != 1 or not is_folder(checkpoints[0]):
            raise InputError("which image? add --image, or name one folder that PrototypeCallback wrote")
        written = of_records(checkpoints[0], image_index=image_index, prototypes=prototypes, path=out)
        return _written(written, checkpoints)
    frames = {}
    labels = _labels(checkpoints)
    with output.bar("predicting", len(checkpoints)) as bar:
        for path, label in zip(checkpoints, labels, strict=True):
            frames[label] = load_model(path, reading, detections).predict(image)
            bar.step()
    title = f"Prototypes from checkpoint to checkpoint: {image.name}"
    written = raster.save(filmstrip_sheet(frames, prototypes=prototypes, title=title), out)
    return _written(written, checkpoints)


def _written(picture: Path, checkpoints: list[Path]) -> Outcome:
    from maskprism.reports.manifest import PictureFile, ResultManifest, file_url, write_manifest

    caption = "Checkpoints across, prototypes down; above them the logits and the mask edge of one instance."
    manifest = ResultManifest(
        command="filmstrip",
        about="how prototypes change from checkpoint to checkpoint",
        models=[f"{checkpoints[0].name} to {checkpoints[-1].name}" if len(checkpoints) > 1 else checkpoints[0].name],
        pictures=[PictureFile(file_url(picture, picture.parent), caption, wide=True)],
    )
    print(picture)
    return Outcome({"files": [picture, *write_manifest(picture, manifest)], "checkpoints": checkpoints})


def _labels(paths: list[Path]) -> list[str]:
    """Return the names of the files, with as many of their folders as it takes to tell them apart."""
    for parts in range(1, max(len(path.parts) for path in paths) + 1):
        labels = ["/".join(path.with_suffix("").parts[-parts:]) for path in paths]
        if len(set(labels)) == len(labels):
            return labels
    return [f"{number}: {path.stem}" for number, path in enumerate(paths)]
