"""maskprism reduce."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from maskprism._common.files import write_atomically, written_together
from maskprism.cli.options import (
    Crowds,
    DetectionOptions,
    Limit,
    ModelFile,
    Out,
    ReadingOptions,
    Replace,
    Split,
    check_out,
    load_model,
    model_file,
)
from maskprism.cli.output import Outcome, Output, command, listed
from maskprism.errors import InputError

if TYPE_CHECKING:
    from maskprism.analysis.reduction.reduced_file import ReducedFile
    from maskprism.datasets.visit import Failure
    from maskprism.models import Model

_DESCRIPTIONS = (".yaml", ".yml", ".json")


@command(
    group="Model",
    order=30,
    page="reduce.md",
    examples=(
        "reduce best.onnx --images photos --keep 16 --out small.onnx",
        "reduce best.onnx --images photos --mask-iou 0.95 --out small.onnx",
    ),
    answer="`files`, `failures`, and what the .json file beside the new model holds",
)
def reduce(
    model: ModelFile = None,
    *,
    images: Path,
    out: Out,
    keep: int | None = None,
    mask_iou: float | None = None,
    method: Literal["projection", "selection"] = "projection",
    split: Split = None,
    crowds: Crowds = "left-out",
    limit: Limit = None,
    overwrite: Replace = False,
    reading: ReadingOptions = ReadingOptions(),
    detections: DetectionOptions = DetectionOptions(),
    output: Output = Output(),
) -> Outcome:
    """Write a smaller ONNX model, and say what it costs and saves.

    It has fewer prototypes and coefficients. The model is an .onnx file; the new one takes the same input and is
    used like it. The basis is fitted to the masks that the model draws on the images; no labels are needed. Beside
    the file go SMALL.json with all numbers, SMALL.curve.png with mask IoU by the number of prototypes, and
    SMALL.masks.png with masks before and after.

    Parameters
    ----------
    images
        A folder (with its subfolders), a pattern in quotes, an image, a video, or a .txt list of paths; or a data.yaml
        or COCO json, and then the lost mask AP is reported, too.
    out
        The new .onnx file.
    keep
        How many prototypes to keep. Needed without --mask-iou.
    mask_iou
        Instead of --keep: as few as keep the mean mask IoU with the full model at least at this, such as 0.95.
        Default: none.
    method
        "projection" mixes new prototypes from all; "selection" keeps some unchanged and drops the others.
    """
    from maskprism.analysis.reduction.reduced_file import PASSES, CalibrationImages, reduce_file
    from maskprism.datasets import Dataset, open_dataset
    from maskprism.io.sources import open_source
    from maskprism.models.onnx.file import read_onnx
    from maskprism.reports.manifest import withdraw_manifest
    from maskprism.reports.reduction import files_beside, write_reduction, write_reduction_manifest

    source = model_file(model)
    if out.exists() and source.exists() and out.samefile(source):
        raise InputError(f"{out}: is the model itself; choose another --out")
    check_out(out, overwrite=overwrite, suffix=".onnx", beside=lambda path: files_beside(path).values())
    if reading.correction is not None:
        raise InputError("reduce writes the model's own coefficients; tune it to an .onnx first, and reduce that")
    described = images.suffix.lower() in _DESCRIPTIONS
    if split is not None and not described:
        raise InputError(f"--split {split} goes with a data.yaml; {images} is none")
    chosen = CalibrationImages(
        open_dataset(images, split, crowds=crowds) if described else open_source(images), limit=limit
    )
    read_onnx(source)
    network = load_model(source, reading, detections)
    if isinstance(chosen.source, Dataset):
        output.notices(chosen.source.for_model(network.spec.names).notices)

    def reopen(path: Path) -> Model:
        return load_model(path, replace(reading, layout=network.layout.family), detections)

    def step(failure: Failure | None) -> None:
        if failure is not None:
            bar.fail(failure)
        bar.step()

    count = chosen.count()
    results: list[tuple[ReducedFile, Model]] = []

    def write_model(partial: Path) -> None:
        reduced = reduce_file(
            network,
            source,
            chosen,
            partial,
            keep=keep,
            mask_iou=mask_iou,
            method=method,
            reopen=reopen,
            on_image=step,
        )
        results.append((replace(reduced, path=out), reopen(partial)))

    with written_together():  # the model last
        with output.bar("reducing", None if count is None else PASSES * count) as bar:
            write_atomically(out, write_model)
        ((found, reduced),) = results
        files = write_reduction(found, chosen, network, reduced)
        withdraw_manifest(out, "reduce")
    files |= write_reduction_manifest(found, [path for path in files if path.suffix == ".png"])
    for line in found.lines():
        print(line)
    output.list_files(files)
    return Outcome({"files": list(files), **found.summary(), "failures": listed(bar.failures)})
