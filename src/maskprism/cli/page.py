"""maskprism page."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from maskprism.cli.options import Detections, Reading, failures, load_model, named_by, progress_bar
from maskprism.errors import InputError, MaskprismError


def page(
    images: list[str],
    /,
    *,
    model: Path | None = None,
    out: Path,
    bits: Literal[8, 16] = 8,
    data: Path | None = None,
    reading: Reading = Reading(),
    detections: Detections = Detections(),
) -> int:
    """Write images into one interactive HTML file: move a coefficient, watch the mask.

    The file opens from disk, without a network, and can be sent to others as it is.

    Parameters
    ----------
    images
        Images, folders, patterns, videos, or .txt lists of paths.
    model
        Model file: .onnx, .pt, .tflite, or OpenVINO .xml (or its folder); the bundled sample model unless given.
    out
        The page: PAGE.html.
    bits
        How exactly prototypes are kept. With 8, an image of 640 pixels takes about a megabyte; with 16 about twice
        that. What it changes in the masks is printed, and written on the page.
    data
        A data set with labels for these images (data.yaml of Ultralytics, or COCO json): the page then shows the
        IoU with the ground truth.
    """
    from dataclasses import replace

    from maskprism.analysis.truth.labels import match, open_labels
    from maskprism.foreign import is_folder
    from maskprism.sources import open_source
    from maskprism.views.page import Page

    if is_folder(out):  # said before the work, not after it
        raise InputError(f"{out}: is a folder; expected the name of the page, such as {out / 'page.html'}")
    sources = [open_source(source) for source in images]
    network = load_model(model, reading, detections)
    roots = [source.root for source in sources]
    if data is not None and any(not isinstance(root, Path) for root in roots):
        raise InputError("--data: the labels of images are only found on this machine; leave images by URI out")
    labels = None if data is None else open_labels(data, os.path.commonpath(map(str, roots)), network.spec.names)
    network = named_by(labels, network)
    total = sum(source.count() or 0 for source in sources) or None
    shown = Page(bits=bits)
    failed = 0
    with progress_bar("predicting", total) as (progress, task):
        for item in (item for source in sources for item in source.pending(frozenset())):
            try:
                image = item.read()
                prediction = replace(network.predict(image), source=item.name)
                truth = labels(item.image, prediction.image_size) if labels and isinstance(item.image, Path) else None
                shown.add(image, prediction, None if truth is None else match(prediction, truth).masks)
            except MaskprismError as error:
                failed += 1
                message = f"{item.name}: failed: {error}"
                progress.console.print(message, markup=False, highlight=False, soft_wrap=True)
            progress.update(task, advance=1, failed=failures(failed))
    if not len(shown):
        raise MaskprismError(f"none of the {failed} images could be shown; nothing is written")
    size = shown.write(out).stat().st_size
    noun = "image" if len(shown) == 1 else "images"
    print(f"{len(shown)} {noun} in {out}, {size / 1e6:.1f} MB" + failures(failed))
    print(f"prototypes in {bits} bits: {shown.exactness}")
    return 0
