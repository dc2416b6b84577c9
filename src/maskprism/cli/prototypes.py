"""maskprism prototypes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from maskprism._common.text import counted, in_brief
from maskprism.cli.options import (
    DetectionOptions,
    Images,
    Limit,
    ModelFile,
    Out,
    ReadingOptions,
    Replace,
    Work,
    check_out,
    load_model,
)
from maskprism.cli.output import Outcome, Output, command, failures, listed

_ALL = "All prototypes: their mean, and what they depend on."
_ROWS = (
    "A row for each prototype: its tags, the shares of its variance by what explains them, whether it follows an image "
    "that is shifted, mirrored or padded or stays in place, and where it is strongest."
)
_HEADINGS = {
    "spread": "standard deviation",
    "half_plane_angle": "angle of the half-plane, °",
    "half_plane_offset": "offset of the half-plane",
    "half_plane": "half-plane",
    "shift_follows": "follows a shift",
    "shift_stays": "stays under a shift",
    "flip_follows": "follows a mirror",
    "flip_stays": "stays under a mirror",
    "pad_follows": "follows padding",
    "pad_stays": "stays under padding",
    "strongest": "strongest in",
}


@command(
    group="Explain masks",
    order=10,
    page="prototypes.md",
    examples=(
        "prototypes photos --model best.onnx --out prototypes",
        "prototypes photos --model best.onnx --cards 8 --out prototypes",
    ),
    answer="`files`, `images`, `instances`, `tags`, `prototypes` (a row of the table for each), `failures`",
)
def prototypes(
    images: Images,
    /,
    *,
    model: ModelFile = None,
    out: Out,
    overwrite: Replace = False,
    limit: Limit = None,
    basis: Path | None = None,
    moved: int = 20,
    cards: Annotated[list[int] | None, Parameter(consume_multiple=True, negative=())] = None,
    reading: ReadingOptions = ReadingOptions(),
    detections: DetectionOptions = DetectionOptions(),
    work: Work = Work(),
    output: Output = Output(),
) -> Outcome:
    """Tell positional prototypes from semantic ones, over many images.

    Writes one card per prototype (`prototype-07.png`): its mean by position, the images that
    activate it most, what explains its variance, whether it follows a moved image, and its
    mean inside each class; `prototypes.png`, all of them with their tags; and `prototypes.csv`,
    every number. It takes at least two images.

    Parameters
    ----------
    out
        Folder for the results.
    basis
        Study the components of this canonical basis, the `basis.npz` of `maskprism basis`. Default: the
        prototypes.
    moved
        How many images are also shifted, flipped and padded; 0 for none. Fewer than 20 are too few for the tags "fixed"
        and "handed".
    cards
        Draw the cards of these prototypes only. Default: of all.
    """
    from maskprism.analysis.intervals import MIN_IMAGES, too_few
    from maskprism.analysis.prototypes.basis import CanonicalBasis, CanonicalModel
    from maskprism.analysis.prototypes.positional import TAG_RULES, study_prototypes
    from maskprism.core.decomposition import check_indices
    from maskprism.drawing.cards import write_cards
    from maskprism.io.sources import open_sources
    from maskprism.reports.manifest import (
        Number,
        PictureFile,
        ResultManifest,
        TableFile,
        withdraw_manifest,
        write_manifest,
    )

    check_out(out, overwrite=overwrite, folder=True)
    network = load_model(model, reading, detections, threads=work.threads)
    studied = network if basis is None else CanonicalModel(network, CanonicalBasis.load(basis))
    if isinstance(studied, CanonicalModel) and studied.basis.model_sha256 not in ("", network.spec.sha256):
        output.note(
            f"note: {basis} was not measured with {network.spec.name}; a basis fits only the model that it is of, "
            "in whatever format"
        )
    label = network.spec.name + (" in the canonical basis" if basis else "")
    if cards is not None:
        check_indices(cards, network.spec.prototypes)
    items = open_sources(images, without=out, limit=limit)
    with output.bar("studying", items.count()) as bar, work.open(reading) as engine:
        study, movement = study_prototypes(items, studied, moved=moved, engine=engine, on_progress=bar.at)
    drawn, files = len(study) if cards is None else len(cards), []
    withdraw_manifest(out, "prototypes")
    with output.bar("drawing", drawn + 2) as drawing:
        for path in write_cards(study, movement, out, prototypes=cards, model=label):
            files.append(path)
            drawing.step()
    if too_few(study.images):
        output.note(
            f"note: {counted(study.images, 'image')}: with fewer than {MIN_IMAGES} no prototype is tagged, since what "
            "few images have in common is often chance"
        )
    elif movement is not None and too_few(movement.images):
        output.note(f"note: --moved {movement.images}: with fewer than {MIN_IMAGES} nothing is tagged fixed or handed")
    tagged = {tag: [k for k in range(len(study)) if tag in study.tags(k, movement)] for tag in TAG_RULES}
    manifest = ResultManifest(
        command="prototypes",
        about="what every prototype depends on: position, classes, edges, light",
        models=[label],
        numbers=[
            Number("prototypes", len(study), ","),
            *(Number(tag, len(which), ",") for tag, which in tagged.items() if which),
        ],
        pictures=[
            PictureFile(path.name, _ALL if path.stem == "prototypes" else "One prototype in detail.", wide=True)
            for path in files
            if path.suffix == ".png"
        ],
        tables=[TableFile("prototypes.csv", _ROWS, "", _HEADINGS)],
    )
    files += write_manifest(out, manifest)
    failed = failures(len(bar.failures))
    print(f"{len(study)} prototypes over {study.images} images with {study.instances} masks{failed}")
    for tag, which in tagged.items():
        print(f"  {tag:<11}{len(which):>3}   {in_brief(which):<40}  ({TAG_RULES[tag]})")
    print(f"{counted(drawn, 'card')}, prototypes.png and prototypes.csv in {out}")
    return Outcome(
        {
            "files": files,
            "images": study.images,
            "instances": study.instances,
            "tags": tagged,
            "prototypes": [study.record(k, movement) for k in range(len(study))],
            "failures": listed(bar.failures),
        }
    )
