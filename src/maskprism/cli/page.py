"""maskprism page."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Literal

from maskprism.cli.options import (
    Crowds,
    Detections,
    Images,
    Labels,
    Limit,
    ModelFile,
    Out,
    Reading,
    Replace,
    check_out,
    load_model,
    named_by,
)
from maskprism.cli.output import Outcome, Output, command, failures, listed
from maskprism.errors import MaskprismError


@command(
    group="Look",
    order=20,
    page="page.md",
    example="page photos --model best.onnx --out page.html",
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
    data: Labels = None,
    crowds: Crowds = "left-out",
    reading: Reading = Reading(),
    detections: Detections = Detections(),
    output: Output = Output(),
) -> Outcome:
    """Write one HTML file: move a coefficient, watch the mask.

    The file opens from disk, without a network, and can be sent to others as it is.

    Parameters
    ----------
    out
        The page: PAGE.html.
    bits
        How exactly prototypes are kept. With 8, an image of 640 pixels takes about a megabyte; with 16 about twice
        that. What it changes in the masks is printed, and written on the page.
    """
    from dataclasses import replace

    from maskprism.analysis.truth.labels import open_labels
    from maskprism.io.sources import open_sources
    from maskprism.viewer.page import LARGE_BYTES, Page

    check_out(out, overwrite=overwrite, suffix=".html")
    items = open_sources(images, limit=limit)
    network = load_model(model, reading, detections)
    labels = (
        None
        if data is None
        else open_labels(data, items.files, network.spec.names, kept=network.keep.classes, crowds=crowds)
    )
    network = named_by(labels, network, output)
    shown, counts = Page(bits=bits), Counter[str]()
    with output.bar("predicting", items.count()) as bar:
        for item in items:
            try:
                image = item.read()
                prediction, untuned = network.predict_untuned(image)
                prediction = replace(prediction, source=item.name)
                found = labels.match(prediction, item.image) if labels and isinstance(item.image, Path) else None
                truth, matches = found or (None, None)
                shown.add(image, prediction, truth, matches, untuned)
                if matches is not None:
                    counts.update(found=len(matches), missed=len(matches.missed))
                    counts.update(false_positives=len(matches.false_positives))
            except MaskprismError as error:
                bar.fail(item.name, error)
            bar.step()
    failed = len(bar.failures)
    if not len(shown):
        raise MaskprismError(f"none of the {failed} images could be shown; nothing is written")
    if shown.scene_bytes > LARGE_BYTES:
        output.note(
            f"{out} will have {shown.scene_bytes / 1e6:.0f} MB, which browsers take seconds to read; "
            "`maskprism serve FOLDER` shows a folder of any size without a file, and --limit writes fewer images"
        )
    size = shown.write(out).stat().st_size
    noun = "image" if len(shown) == 1 else "images"
    print(f"{len(shown)} {noun} in {out}, {size / 1e6:.1f} MB" + failures(failed))
    print(f"prototypes in {bits} bits: {shown.exactness}")
    outcome = None if labels is None else {name: counts[name] for name in ("found", "missed", "false_positives")}
    if outcome is not None:
        print("labels: {found} found, {missed} missed, {false_positives} false positives".format(**outcome))
    return Outcome(
        {
            "files": [out],
            "images": len(shown),
            "bytes": size,
            "bits": bits,
            "exactness": shown.exactness,
            "labels": outcome,
            "failures": listed(bar.failures),
        }
    )
