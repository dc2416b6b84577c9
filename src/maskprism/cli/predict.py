"""maskprism predict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter, validators

from maskprism._common.choices import ExportName, Segmentation
from maskprism._common.text import counted, readable
from maskprism.cli.options import Detections, Images, Limit, ModelFile, Out, Overwrite, Reading, check_out, load_model
from maskprism.cli.output import DONE, FAILED, Outcome, Output, command, listed
from maskprism.core.decoding.outlines import TOLERANCE

SHOWN_FAILURES = 10


@command
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
    tolerance: Annotated[float, Parameter(validator=validators.Number(gte=0))] = TOLERANCE,
    copy_images: Annotated[bool, Parameter(negative=())] = False,
    batch: Annotated[int | None, Parameter(validator=validators.Number(gte=1))] = None,
    engine: Literal["threads", "ray"] = "threads",
    workers: int | None = None,
    gpus: Annotated[float | None, Parameter(name="--gpus")] = None,
    reading: Reading = Reading(),
    detections: Detections = Detections(),
    output: Output = Output(),
) -> Outcome:
    """Write the masks of images as COCO, YOLO, LabelMe, PNG or pictures.

    `coco` gives `results.json`, COCO results for evaluation; `coco-annotations` gives
    `annotations.json`, which CVAT, Label Studio and Roboflow import; `yolo` text files with polygons
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
        How far in pixels polygons may leave the outline; more needs fewer vertices.
    copy_images
        For yolo: copy the images to the folder `images` beside `labels`, and write a data.yaml about both.
    batch
        How many images the model is given at once. Default: 1, with an accelerator 16.
    engine
        Threads of this machine, or a cluster that Ray runs: the one that RAY_ADDRESS names or that was started here,
        or else a new one here.
    workers
        Threads, or processes of the cluster; default: one per processor (or GPU).
    gpus
        Of each process of the cluster; default: 1 with --device cuda.
    """
    from maskprism._common.parallel import open_engine
    from maskprism.integrations.exports import JOURNAL, write_predictions
    from maskprism.io.sources import open_sources

    sources = open_sources(images, without=out, limit=limit)
    if overwrite or not (out / JOURNAL).is_file():
        check_out(out, overwrite=overwrite, folder=True)
    network = load_model(model, reading, detections, threads=1)
    network = network if batch is None else network.in_batches(batch)
    on_gpu = engine == "ray" and (reading.device or "").startswith("cuda")
    with (
        open_engine(engine, workers, float(on_gpu) if gpus is None else gpus) as opened,
        output.bar("predicting", None, visible=False) as bar,
    ):

        def show(done: int, total: int | None, failure: object) -> None:
            n_failed[0] += failure is not None
            bar.at(done, total, n_failed[0])

        n_failed = [0]
        summary = write_predictions(
            sources,
            network,
            out,
            format,
            categories=categories,
            segmentation=segmentation,
            tolerance=tolerance,
            copy_images=copy_images,
            overwrite=overwrite,
            engine=opened,
            on_progress=show,
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
    for file in summary.files:
        print(file)
    answer = {
        "files": list(summary.files),
        "format": format,
        "images": summary.images,
        "skipped": summary.skipped,
        "instances": total,
        "classes": dict(summary.instances),
        "notes": [readable(note) for note in summary.notes],
        "seconds": summary.seconds,
        "failures": listed((name, message) for name, message, *_ in summary.failures),
    }
    return Outcome(answer, FAILED if summary.all_failed else DONE)
