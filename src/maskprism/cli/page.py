"""maskprism page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from maskprism.cli.options import (
    Crowds,
    DetectionOptions,
    Images,
    Labels,
    Limit,
    ModelFile,
    Out,
    ReadingOptions,
    Replace,
    check_out,
    labels_for,
    load_model,
)
from maskprism.cli.output import Outcome, Output, command, failures, listed
from maskprism.errors import InputError, MaskprismError

if TYPE_CHECKING:
    from maskprism.datasets.visit import VisitedImage


@command(
    group="Visualise",
    order=20,
    page="page.md",
    examples=(
        "page photos --model best.onnx --out page.html",
        "page photos --model best.onnx --data data.yaml --out page.html",
    ),
    answer="`files`, `images`, `bytes`, `bits`, `exactness` (what 8 bits change in the masks), `labels` (with "
    "`--data`: how many instances are found, missed and false positives; else null), `failures`",
)
def page(
    images: Images,
    /,
    *,
    model: ModelFile = None,
    out: Out,
    overwrite: Replace = False,
    limit: Limit = None,
    bits: Literal[8, 16] = 8,
    against: Path | None = None,
    data: Labels = None,
    crowds: Crowds = "left-out",
    reading: ReadingOptions = ReadingOptions(),
    detections: DetectionOptions = DetectionOptions(),
    output: Output = Output(),
) -> Outcome:
    """Write one HTML file: move a coefficient, watch the mask.

    The file opens from disk, offline, and can be sent to others.

    Parameters
    ----------
    out
        The page: PAGE.html.
    bits
        How exactly prototypes are kept. With 8, an image of 640 pixels takes about a megabyte; with 16 about twice
        that. What it changes in the masks is printed, and written on the page.
    against
        A second model: the page shows what both say about one image, side by side, with linked sliders. Default:
        one model.
    """

    from maskprism.datasets.visit import Asking, Failure, visit
    from maskprism.io.sources import open_sources
    from maskprism.reports.manifest import withdraw_manifest
    from maskprism.viewer.page import LARGE_BYTES, Page

    check_out(out, overwrite=overwrite, suffix=".html")
    items = open_sources(images, limit=limit)
    network = load_model(model, reading, detections)
    labels, network = labels_for(network, data, items.files, output, crowds=crowds)
    networks = [network] if against is None else [network, load_model(against, reading, detections)]
    if against is not None and items.count() != 1:
        raise InputError(f"--against compares two models on one image; {items.count()} came, use --limit 1")
    shown, counts = Page(bits=bits), Counter[str]()

    def examine(visited: VisitedImage[Any]) -> tuple[Any, ...]:
        """Return what the page is given of one image; see `Page.add`."""
        (prediction, untuned), path = visited.prediction, visited.item.image
        prediction = replace(prediction, source=visited.name)
        found = labels.match(prediction, path) if labels and isinstance(path, Path) else None
        return visited.image, prediction, *(found or (None, None)), untuned

    failed: list[Failure] = []
    for one in networks:
        asking = Asking(one.predict_untuned, one.grey)
        with (
            output.bar("predicting", items.count()) as bar,
            closing(visit(items, asking, examine, on_progress=bar.at)) as results,
        ):
            for result in results:
                if not isinstance(result, Failure):
                    shown.add(*result)
                    if (matches := result[3]) is not None:
                        counts.update(found=len(matches), missed=len(matches.missed))
                        counts.update(false_positives=len(matches.false_positives))
        failed += bar.failures
    if len(shown) < len(networks):
        raise MaskprismError(f"none of the {len(failed)} images could be shown; nothing is written")
    if against is not None:
        shown.models = network.spec.name, networks[1].spec.name
    if shown.scene_bytes > LARGE_BYTES:
        output.note(
            f"{out} will have {shown.scene_bytes / 1e6:.0f} MB, which browsers take seconds to read; "
            "`maskprism serve FOLDER` shows a folder of any size without a file, and --limit writes fewer images"
        )
    withdraw_manifest(out, "page")
    size = shown.write(out).stat().st_size
    count = len(shown) // len(networks)
    print(f"{count} {'image' if count == 1 else 'images'} in {out}, {size / 1e6:.1f} MB" + failures(len(failed)))
    print(f"prototypes in {bits} bits: {shown.exactness}")
    outcome = None if labels is None else {name: counts[name] for name in ("found", "missed", "false_positives")}
    if outcome is not None:
        print("labels: {found} found, {missed} missed, {false_positives} false positives".format(**outcome))
    files = write_page_manifest(
        out, [one.spec.name for one in networks], shown.thumbnail, images=count, **(outcome or {})
    )
    return Outcome(
        {
            "files": [out, *files],
            "images": count,
            "bytes": size,
            "bits": bits,
            "exactness": shown.exactness,
            "labels": outcome,
            "failures": listed(failed),
        }
    )


def write_page_manifest(out: Path, models: list[str], thumbnail: str, **counts: int) -> Iterable[Path]:
    """Write the manifest of a page, after the page.

    Parameters
    ----------
    models
        The names of the model, or of both.
    thumbnail
        A small picture of the page, as a data URL.
    counts
        Numbers, by what is counted.
    """
    from maskprism.reports.manifest import Number, ResultManifest, file_url, write_manifest

    manifest = ResultManifest(
        command="page",
        about="images and their masks to take apart",
        page=file_url(out, out.parent),
        models=models,
        thumbnail=thumbnail,
        numbers=[Number(name.replace("_", " "), count, ",") for name, count in counts.items()],
    )
    return write_manifest(out, manifest)
