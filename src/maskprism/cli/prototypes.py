"""maskprism prototypes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from maskprism.cli.options import Detections, Reading, failures, load_model, progress_bar
from maskprism.errors import MaskprismError
from maskprism.text import counted


def prototypes(
    images: list[str],
    /,
    *,
    model: Path | None = None,
    out: Path,
    basis: Path | None = None,
    moved: int = 16,
    cards: Annotated[list[int] | None, Parameter(consume_multiple=True, negative=())] = None,
    reading: Reading = Reading(),
    detections: Detections = Detections(),
) -> int:
    """Tell positional prototypes from semantic ones, over many images.

    Writes one card per prototype (`prototype-07.png`): its mean by place, the images that
    activate it most, what explains its variance, whether it follows a moved image, and its
    mean inside each class; `prototypes.png`, all of them with their tags; and `prototypes.csv`,
    every number.

    Parameters
    ----------
    images
        Images, folders, patterns, videos, or .txt lists of paths; at least two images.
    model
        Model file: .onnx, .pt, .tflite, or OpenVINO .xml (or its folder); the bundled sample model unless given.
    out
        Folder for the results.
    basis
        Study the components of this canonical basis, the `basis.npz` of `maskprism basis`, in place of the prototypes.
    moved
        How many images are also shifted, flipped and padded; 0 for none.
    cards
        Draw the cards of these prototypes only.
    """
    from maskprism.analysis.prototypes.basis import CanonicalBasis, CanonicalModel
    from maskprism.analysis.prototypes.positional import TAG_RULES, study_prototypes
    from maskprism.decompose import check_indices
    from maskprism.sources import open_source
    from maskprism.views.prototypes.cards import write_cards

    network = load_model(model, reading, detections)
    studied = network if basis is None else CanonicalModel(network, CanonicalBasis.load(basis))
    if isinstance(studied, CanonicalModel) and studied.basis.model_sha256 not in ("", network.spec.sha256):
        print(f"note: {basis} was not measured with {network.spec.name}; a basis fits only the network that it is of, "
              "in whatever format", file=sys.stderr)  # fmt: skip
    label = network.spec.name + (" in the canonical basis" if basis else "")
    if cards is not None:
        check_indices(cards, network.spec.prototypes)
    sources = [open_source(source, without=out) for source in images]
    counts = [source.count() for source in sources]
    total = None if None in counts else sum(count or 0 for count in counts)
    done = failed = 0
    with progress_bar("studying", total) as (progress, task):

        def show(name: str, error: MaskprismError | None) -> None:
            nonlocal done, failed
            done += 1
            if error is not None:
                failed += 1
                progress.console.print(f"{name}: failed: {error}", markup=False, highlight=False, soft_wrap=True)
            progress.update(task, completed=done, failed=failures(failed))

        items = (item for source in sources for item in source.pending(frozenset()))
        study, movement = study_prototypes(items, studied, moved=moved, total=total, on_image=show)
    drawn = len(study) if cards is None else len(cards)
    with progress_bar("drawing", drawn + 2) as (progress, task):
        for _ in write_cards(study, movement, out, prototypes=cards, model=label):
            progress.advance(task)
    tagged = {tag: [k for k in range(len(study)) if tag in study.tags(k, movement)] for tag in TAG_RULES}
    print(f"{len(study)} prototypes over {study.images} images with {study.instances} masks{failures(failed)}")
    for tag, which in tagged.items():
        print(f"  {tag:<11}{len(which):>3}   {' '.join(map(str, which)):<40}  ({TAG_RULES[tag]})")
    print(f"{counted(drawn, 'card')}, prototypes.png and prototypes.csv in {out}")
    return 0
