"""maskprism predict."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators

from maskprism._common.choices import ExportName, Segmentation
from maskprism._common.text import counted, readable
from maskprism.cli.options import (
    DetectionOptions,
    Images,
    Limit,
    ModelFile,
    Out,
    Overwrite,
    ReadingOptions,
    Work,
    check_out,
    load_model,
)
from maskprism.cli.output import DONE, FAILED, Outcome, Output, command, listed

if TYPE_CHECKING:
    from maskprism.integrations.exports import ExportSummary
    from maskprism.io.sources import Sources
    from maskprism.models import Model

SHOWN_FAILURES = 10


@command(
    group="Data",
    order=5,
    page="masks-out.md",
    examples=(
        "predict photos --model best.onnx --out masks --format coco",
        "predict photos --model best.onnx --format yolo --classes person --out dataset",
    ),
    answer="`files`, `format`, `images`, `skipped`, `instances`, `classes` (instances by class name), `notes`, "
    "`seconds`, `failures`",
    resumes=True,
)
def predict(
    images: Images,
    /,
    *,
    model: ModelFile = None,
    out: Out,
    format: ExportName,
    overwrite: Overwrite = False,
    limit: Limit = None,
    categories: Path | None = None,
    segmentation: Segmentation | None = None,
    tolerance: Annotated[float | None, Parameter(validator=validators.Number(gte=0))] = None,
    copy_images: Annotated[bool, Parameter(negative=())] = False,
    batch: Annotated[int | None, Parameter(validator=validators.Number(gte=1))] = None,
    work: Work = Work(),
    reading: ReadingOptions = ReadingOptions(),
    detections: DetectionOptions = DetectionOptions(),
    output: Output = Output(),
) -> Outcome:
    """Write the masks of images as COCO, YOLO, LabelMe, PNG or pictures.

    `coco` gives `results.json`, COCO results for evaluation; `coco-annotations` gives
    `annotations.json`, for CVAT, Label Studio and Roboflow; `yolo` text files with polygons
    in `labels`, as Ultralytics trains with; `labelme` a json per image; `png` images of instance and
    class numbers, and one mask per instance; `npz` everything, coefficients and prototypes included;
    `overlay` pictures with masks, boxes and labels, or a video for a video.

    Interrupted and started again with the same command, it goes on where it stopped; images that
    failed are tried again. `images.jsonl` says what became of each image. The number of a camera or
    the URL of a stream (rtsp://) is a source, too, with --limit frames.

    Parameters
    ----------
    out
        Folder for the results.
    format
        What to write.
    overwrite
        Start over: replace what an earlier call wrote, even with another model or other settings.
    categories
        A COCO json, for the COCO formats: category ids are those of its categories with the names of the model's
        classes, and image ids those of its images. Default: the ids of COCO for its 80 classes, otherwise class ids
        (in annotations plus 1).
    segmentation
        How COCO files write masks: rle is exact, polygons are what labelling tools edit. Default: rle for coco,
        polygons for coco-annotations.
    tolerance
        How far in pixels polygons may leave the outline; more needs fewer vertices. Default: 0.1.
    copy_images
        For yolo: copy the images to the folder `images` beside `labels`, and write a data.yaml about both.
    batch
        How many images the model is given at once. Default: 1, with an accelerator 16.
    """
    from maskprism.core.decoding.outlines import TOLERANCE
    from maskprism.integrations.exports import JOURNAL, write_predictions
    from maskprism.io.sources import open_sources

    sources = open_sources(images, without=out, limit=limit)
    if overwrite or not (out / JOURNAL).is_file():
        check_out(out, overwrite=overwrite, folder=True)
    network = load_model(model, reading, detections, threads=1)
    network = network if batch is None else network.in_batches(batch)
    with work.open(reading) as opened, output.bar("predicting", told=False) as bar:
        summary = write_predictions(
            sources,
            network,
            out,
            format,
            categories=categories,
            segmentation=segmentation,
            tolerance=TOLERANCE if tolerance is None else tolerance,
            copy_images=copy_images,
            overwrite=overwrite,
            engine=opened,
            on_progress=bar.at,
        )
    before = f", {summary.skipped} were done before" if summary.skipped else ""
    print(f"{counted(summary.images, 'image')} in {summary.seconds:.1f} s, {len(summary.failures)} failed{before}")
    total = sum(summary.instances.values())
    named = ", ".join(f"{count} {name}" for name, count in list(summary.instances.items())[:10])
    more = ", ..." if len(summary.instances) > 10 else ""
    print(counted(total, "instance") + (f": {named}{more}" if named else ""))
    for name, message, *_ in summary.failures[:SHOWN_FAILURES]:
        print(f"  failed: {name}: {message}")
    if len(summary.failures) > SHOWN_FAILURES:
        print(f"  ... and {len(summary.failures) - SHOWN_FAILURES} more, all in {out / JOURNAL}")
    for note in summary.notes:
        output.note(f"note: {note}")
    files = [*summary.files, *_write_manifest(out, summary, network, sources)]
    for file in files:
        print(file)
    answer = {
        "files": files,
        "format": format,
        "images": summary.images,
        "skipped": summary.skipped,
        "instances": total,
        "classes": dict(summary.instances),
        "notes": [readable(note) for note in summary.notes],
        "seconds": summary.seconds,
        "failures": listed(summary.failures),
    }
    return Outcome(answer, FAILED if summary.all_failed else DONE)


def _write_manifest(out: Path, summary: ExportSummary, model: Model, sources: Sources) -> dict[Path, str]:
    from maskprism.reports.manifest import Number, ResultManifest, file_url, first_masks, write_manifest

    manifest = ResultManifest(
        command="predict",
        about="masks as files",
        page=file_url(summary.files[0], out) if summary.files else "",
        models=[model.spec.name],
        numbers=[
            Number("images", summary.images + summary.skipped, ","),
            Number("instances", sum(summary.instances.values()), ","),
            Number("failed images of the last run", len(summary.failures), ","),
        ],
        thumbnail=first_masks(lambda: (model, sources.parts[0])),
    )
    return write_manifest(out, manifest)
