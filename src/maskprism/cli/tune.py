"""maskprism tune."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from maskprism._common.files import write_atomically, written_together
from maskprism.cli.options import (
    Crowds,
    DetectionOptions,
    Limit,
    ModelFile,
    Out,
    ReadingOptions,
    Replace,
    Seed,
    Split,
    Work,
    check_out,
    load_model,
    model_file,
)
from maskprism.cli.output import DONE, FAILED, Outcome, Output, command
from maskprism.errors import InputError, ModelError

if TYPE_CHECKING:
    from maskprism.analysis.tuning import Tuning
    from maskprism.datasets import Dataset
    from maskprism.models import Model

_WRITABLE = (".onnx", ".pt")


@command(
    group="Model",
    order=20,
    page="tune.md",
    examples=(
        "tune best.onnx --data data.yaml --out tuned.onnx",
        "tune int8.onnx --teacher best.onnx --images photos --out tuned.onnx",
    ),
    answer="`files`, and what OUT.tune.json holds: `failures` among it, and `teacher` (null with --data); exit code 1 "
    "where nothing was written",
)
def tune(
    model: ModelFile = None,
    *,
    data: Path | None = None,
    teacher: Path | None = None,
    out: Out,
    split: Split = None,
    crowds: Crowds = "left-out",
    images: str | Path | None = None,
    limit: Limit = None,
    folds: int = 5,
    per_level: bool | None = None,
    seed: Seed = 0,
    force: Annotated[bool, Parameter(negative=())] = False,
    overwrite: Replace = False,
    reading: ReadingOptions = ReadingOptions(),
    detections: DetectionOptions = DetectionOptions(),
    work: Work = Work(),
    output: Output = Output(),
) -> Outcome:
    """Better masks without training, from labels or a teacher.

    Coefficients c become c + A c + b, fitted in a minute, without a GPU and without PyTorch, and folded into the
    last layers that make them: the new file runs wherever the old one did and costs the same; boxes, scores and
    classes stay equal. What it gains is measured on images that took no part, with an interval. If that
    touches zero, or there are too few images for one, no model is written without --force. On the same folds it also
    chooses the crop margin and the logit threshold of the mask rule; where they help, an .onnx keeps them in its
    metadata, and the lines that set them elsewhere are printed. Beside the file go
    OUT.tune.html, one page with what it gains, OUT.tune.json, and OUT.correction.json, the correction alone: with
    --correction, `maskprism page` and `serve` show masks before and after.

    Parameters
    ----------
    data
        A data.yaml of Ultralytics, a COCO json, or a folder that holds just one of them; 60 images or more. Needed
        without --teacher.
    teacher
        In place of --data, a model whose masks are to be had again: the float file that an int8 one was made from.
        Images then need no labels. Default: none.
    out
        The new file: .onnx of an .onnx, .pt of a .pt; or a .json, of any model, for the correction alone.
    images
        With --teacher, the images: a folder, pattern or .txt list. With --data, the folder of the images of a COCO
        json; default: found beside the json.
    folds
        How many parts the images are put into for measuring: each is measured with what the others gave. At least 3,
        and at most as many as there are images.
    per_level
        A correction for each level of the pyramid, or one for all. Default: one for all with --data, since labels
        tell too little of each level, and one for each with --teacher.
    force
        Write the file whatever it gains.
    """
    from maskprism.analysis.tuning.tuning import check_options
    from maskprism.analysis.tuning.tuning import tune as run
    from maskprism.models.rewrite import check_rewritable, write_corrected
    from maskprism.reports.manifest import withdraw_manifest
    from maskprism.reports.tuning import gained, next_steps, recipe, sentences, title_of, warnings_of
    from maskprism.reports.tuning_files import pairs_of, report_files, summary, write_report, write_tuning_manifest

    source = model_file(model)
    check_options(folds=folds, seed=seed, limit=limit)
    if out.exists() and source.exists() and out.samefile(source):
        raise InputError(f"{out}: is the model itself; choose another --out")
    check_out(
        out, overwrite=overwrite, beside=lambda out: (_correction_beside(out), *report_files(out.with_suffix("")))
    )
    _check_target(source, out)
    base, alone = out.with_suffix(""), _correction_beside(out)
    if reading.correction is not None:
        raise InputError("tune fits a correction to the unmodified model; leave out --correction")
    network = load_model(source, reading, detections, threads=1)
    if out.suffix.lower() != ".json":
        check_rewritable(network)
    dataset = _dataset(data, teacher, split, images, crowds, network, reading, detections)
    n_images = len(dataset) if limit is None else min(limit, len(dataset))
    if folds > n_images:
        output.note(f"note: --folds {folds} is more than there are images; each of the {n_images} is a fold")
    with output.bar("tuning") as bar, work.open(reading) as engine:
        found = run(
            dataset,
            network,
            conf=network.keep.conf,
            limit=limit,
            folds=folds,
            per_level=per_level,
            seed=seed,
            engine=engine,
            on_progress=bar.at,
        )
    print(title_of(found))
    for text in (*warnings_of(found), *sentences(found), *next_steps(found)):
        print(f"  {text}")
    for line in recipe(found):
        print(f"    {line}")
    written = found.helps or force
    files: dict[Path, str] = {}

    def write_model(partial: Path) -> None:
        metadata = {"maskprism_tuned": f"{source.name}: {_note(found)}"}
        if found.decode_rule.helps:
            metadata["maskprism_rule"] = str(found.decode_rule.setting._asdict())
        place = write_corrected(network, source, partial, found.correction, metadata).coefficients
        files[out] = f"the tuned model, the correction {place}"
        told.append(f"{out.name} holds the correction, {place}.")

    told: list[str] = []
    pairs = pairs_of(found, network)
    with written_together():  # the model last
        if written and out != alone:
            write_atomically(out, write_model)
        if written:
            files[found.correction.write(alone)] = "the correction alone, for --correction of the other commands"
            told.append(f"{alone.name} holds the correction alone.")
        files |= write_report(found, base, told or ["The model was not written, since no gain is shown."], pairs)
        withdraw_manifest(out, "tune")
    files |= write_tuning_manifest(found, out, pairs)
    output.list_files(files)
    if not written:
        print(
            f"maskprism: {out} was not written: its gain of {gained(found.change.gain)} "
            f"{'is a loss' if found.change.gain.high < 0 else 'may be chance'}; "
            f"{'label' if teacher is None else 'give'} more images, or add --force (and --overwrite, for the report)",
            file=sys.stderr,
        )
    return Outcome({"files": list(files), **summary(found)}, DONE if written else FAILED)


def _correction_beside(out: Path) -> Path:
    return out if out.suffix.lower() == ".json" else out.with_name(f"{out.stem}.correction.json")


def _note(found: Tuning) -> str:
    """Return what the metadata of the tuned model say of its gain."""
    gain = found.change.gain
    ends = "" if math.isnan(gain.low) else f" ({gain.low:+.4f} to {gain.high:+.4f})"
    teacher = "" if found.teacher is None else f", against the teacher {found.teacher.spec.name}"
    return f"gain in mean mask IoU {gain.mean:+.4f}{ends}, {found.images} images{teacher}"


def _dataset(
    data: Path | None,
    teacher: Path | None,
    split: str | None,
    images: str | Path | None,
    crowds: Crowds,
    network: Model,
    reading: ReadingOptions,
    detections: DetectionOptions,
) -> Dataset:
    """Return what is fitted to: images with labels, or with what a teacher finds on them."""
    if (data is None) == (teacher is None):
        raise InputError(
            "say what the masks should be: --data for images with ground truth, or --teacher and --images for a "
            "model that draws them better; one of the two"
        )
    if teacher is None:
        from maskprism.datasets import open_dataset

        assert data is not None
        return open_dataset(data, split, images, crowds=crowds)
    if images is None:
        raise InputError("--teacher needs --images: a folder, pattern or .txt list of images; they need no labels")
    if split is not None:
        raise InputError(f"--split {split} is about --data; leave it out beside --teacher")
    from maskprism.analysis.tuning.teacher import pseudo_labels

    better = load_model(teacher, replace(reading, runtime=None, layout=None, precision="f32"), detections, threads=1)
    return pseudo_labels(better, network, images)


def _check_target(source: Path, out: Path) -> None:
    """Check the file before hours of work."""
    suffix = source.suffix.lower()
    if out.suffix.lower() != ".json":
        if not source.is_file() and not source.is_dir():
            raise ModelError(f"{source}: there is no such model file")
        if suffix not in _WRITABLE:
            kinds = {".tflite": "TFLite files", ".xml": "OpenVINO files", ".torchscript": "TorchScript files"}
            kind = kinds.get(suffix, "such files")
            raise ModelError(
                f"{source}: {kind} cannot be rewritten; tune the .onnx or .pt and export that again, or write the "
                "correction alone with --out FILE.json, for --correction of the other commands"
            )
        if out.suffix.lower() != suffix:
            raise InputError(f"{out}: expected a file name ending in {suffix}, as the model has it, or in .json")
        if suffix == ".onnx":
            from maskprism.models.onnx.file import read_onnx

            read_onnx(source)
