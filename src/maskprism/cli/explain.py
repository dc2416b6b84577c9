"""maskprism explain."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from maskprism.cli.options import Detections, Reading, failures, load_model, progress_bar
from maskprism.errors import MaskprismError


def explain(
    images: list[str],
    /,
    *,
    model: Path | None = None,
    out: Path,
    instance: int | Literal["all"] | None = None,
    order: Literal["index", "weight", "magnitude", "effect"] = "effect",
    scale: Literal["shared", "each"] = "shared",
    reading: Reading = Reading(),
    detections: Detections = Detections(),
) -> int:
    """Draw how the masks of photographs are made of prototypes and coefficients.

    Writes one folder per photograph: `overview.png`, and per chosen instance the prototype grid,
    the contribution grids, the assembly strip and what the crop cuts away.

    Parameters
    ----------
    images
        Images, folders, patterns, videos, or .txt lists of paths.
    model
        Model file: .onnx, .pt, .tflite, or OpenVINO .xml (or its folder); the bundled sample model unless given.
    out
        Folder for the pictures.
    instance
        Number of the instance to explain, as in the overview; "all" for every one. The most
        confident one unless given.
    order
        Order of the panels: by prototype index, weight, size of the weight, or effect in the box.
    scale
        Colour scale of the prototype grid: one for all prototypes, or one for each.
    """
    from maskprism.sources import open_source
    from maskprism.views.explain import explain_photographs

    sources = [open_source(source, without=out) for source in images]
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MaskprismError(f"{out}: cannot be written ({error.strerror or error}); choose another --out") from None
    network = load_model(model, reading, detections)
    total = sum(source.count() or 0 for source in sources) or None
    with progress_bar("explaining", total) as (progress, task):
        items = (item for source in sources for item in source.pending(frozenset()))
        done = failed = pictures = 0
        for explained in explain_photographs(items, network, out, instance, order=order, scale=scale):
            done += 1
            failed += explained.failed
            pictures += len(explained.pictures)
            if explained.message:
                progress.console.print(explained.message, markup=False, highlight=False, soft_wrap=True)
            progress.update(task, completed=done, failed=failures(failed))
    print(f"{pictures} pictures of {done - failed} images in {out}" + failures(failed))
    return 1 if failed == done else 0
