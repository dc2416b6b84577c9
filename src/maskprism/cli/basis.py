"""maskprism basis."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from maskprism._common.files import write_atomically
from maskprism._common.text import counted, in_brief, json_text
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
from maskprism.errors import InputError

if TYPE_CHECKING:
    from maskprism.analysis.prototypes.basis import Usage
    from maskprism.core.prediction import Prediction
    from maskprism.datasets.visit import VisitedImage


@command(
    group="Explain masks",
    order=20,
    page="basis.md",
    examples=("basis photos --model best.onnx --out basis", "basis --table table.parquet --out basis"),
    answer="`files`, `failures`, and what `basis.json` holds",
)
def basis(
    images: Images | None = None,
    /,
    *,
    table: Path | None = None,
    model: ModelFile = None,
    out: Out,
    overwrite: Replace = False,
    limit: Limit = None,
    region: Literal["boxes", "image"] = "boxes",
    pictures: int = 3,
    scale: Literal["shared", "each"] = "shared",
    reading: ReadingOptions = ReadingOptions(),
    detections: DetectionOptions = DetectionOptions(),
    work: Work = Work(),
    output: Output = Output(),
) -> Outcome:
    """Tell how many prototypes are used, in a basis easier to read.

    Writes `basis.json` (effective ranks, redundant pairs, dead prototypes, shares), `prototypes.csv` and
    `components.csv` (a row for each), `basis.npz` (the canonical basis), `spectrum.png`, `redundancy.png`,
    and for some images the prototypes beside the canonical ones. From a table, only what
    coefficients alone tell.

    Parameters
    ----------
    table
        A coefficient table of `maskprism extract`, in place of images. Default: none.
    out
        Folder for the results.
    region
        Where contributions count: inside boxes (logits elsewhere were never trained), or on whole images.
    pictures
        How many images to draw prototypes of: the first ones with instances.
    scale
        Colour scale of the prototypes: one for all, or one for each.
    """
    from maskprism.analysis.prototypes.basis import CanonicalBasis, Usage, component_rows, prototype_rows, summary
    from maskprism.datasets.visit import Failure, visit
    from maskprism.drawing import basis as views
    from maskprism.drawing.figures import save
    from maskprism.drawing.raster import encode_png
    from maskprism.drawing.text_tables import write_rows
    from maskprism.io.sources import open_sources

    if pictures < 0:
        raise InputError(f"--pictures is {pictures}; expected 0 or more")
    if bool(images) == (table is not None):
        raise InputError("give either images to run the model on, or --table with coefficients of earlier images")
    check_out(out, overwrite=overwrite, folder=True)
    if table is not None:
        return _coefficients_alone(table, out, output)
    network = load_model(model, reading, detections, threads=work.threads)
    usage = Usage(network.spec.prototypes)
    items = open_sources(images or [], without=out, limit=limit)
    pictured: list[str] = []
    with (
        output.bar("measuring", items.count()) as bar,
        work.open(reading) as engine,
        closing(visit(items, network, _used, engine=engine, on_progress=bar.at)) as results,
    ):
        for result in results:
            if not isinstance(result, Failure):
                name, used = result
                usage.merge(used)
                pictured += [name] if used.instances and len(pictured) < pictures else []
    canonical = replace(CanonicalBasis.of(usage, region), model_sha256=network.spec.sha256)
    numbers = {"model": network.spec.name, "model_sha256": network.spec.sha256, **summary(usage, canonical)}
    names = ("basis.json", "prototypes.csv", "components.csv", "basis.npz", "spectrum.png", "redundancy.png")
    _write_json(out, numbers)
    canonical.save(out / "basis.npz")
    write_rows(prototype_rows(usage, region), out / "prototypes.csv")
    write_rows(component_rows(canonical), out / "components.csv")
    save(views.spectrum(usage, canonical, model=network.spec.name), out / "spectrum.png", dpi=120)
    save(views.redundancy(usage, model=network.spec.name), out / "redundancy.png", dpi=120)
    files = [out / name for name in names]
    shown = [item for item in items if item.name in pictured] if pictured else []
    for number, one in enumerate(visit(shown, network)):
        if not isinstance(one, Failure):
            page = views.raw_and_canonical(one.image, one.prediction, usage, canonical, scale=scale)
            files.append(write_atomically(out / f"prototypes-{number:02d}.png", encode_png(*page)))
    files += _write_manifest(out, numbers, files)
    _tell(numbers, len(bar.failures))
    print(f"{', '.join(names)} and {counted(len(shown), 'picture')} of prototypes in {out}")
    return Outcome({"files": files, **numbers, "failures": listed(bar.failures)})


def _used(visited: VisitedImage[Prediction]) -> tuple[str, Usage]:
    """Return what a worker measures of one image."""
    from maskprism.analysis.prototypes.basis import Usage

    return visited.name, Usage.of([visited.prediction])


def _coefficients_alone(table: Path, out: Path, output: Output) -> Outcome:
    from maskprism.analysis.prototypes.covariance import RunningCovariance
    from maskprism.drawing import basis as views
    from maskprism.drawing.figures import save
    from maskprism.tables.instance_rows import InstanceRows
    from maskprism.tables.table import matrix_of

    rows = InstanceRows.read(table)
    batches = [matrix_of(some["weights"]) for some in rows]
    instances = sum(map(len, batches))
    if instances < 2:
        raise InputError(f"{table}: has {counted(instances, 'instance')} with finite coefficients; expected at least 2")
    if rows.note:
        output.note(f"note: {rows.note}")
    moments = RunningCovariance(batches[0].shape[1])
    for weights in batches:
        moments.update(weights)
    rank = moments.effective_rank()
    numbers = {"instances": instances, "prototypes": len(moments), "effective_rank": {"coefficients": rank}}
    _write_json(out, numbers)
    title = f"{instances} instances of {table.name}: coefficients alone"
    save(views.coefficient_spectrum(moments, title=title), out / "coefficients.png", dpi=120)
    files = [out / "basis.json", out / "coefficients.png"]
    files += _write_manifest(out, numbers, files)
    print(f"{instances} instances, {len(moments)} coefficients")
    print(f"  effective rank {rank:.1f}")
    print(f"basis.json and coefficients.png in {out}; images instead of a table also tell about prototypes")
    return Outcome({"files": files, **numbers, "failures": []})


_CAPTIONS = {
    "spectrum": "The share of the contributions that the first n components hold.",
    "redundancy": "Which prototypes are drawn alike, and have alike coefficients.",
    "coefficients": "How many directions the coefficients have.",
    "prototypes": "The prototypes of an image beside the components of the canonical basis.",
}
_TABLES = {
    "prototypes": (
        "A row for each prototype: how much it adds to a logit, how much of that is a pattern, whether it is dead, and "
        "which one is most like it; those that add most come first.",
        "-rms_contribution",
        {
            "rms_contribution": "contribution (RMS)",
            "pattern_share": "share that is a pattern",
            "coefficient_mean": "mean coefficient",
            "coefficient_spread": "standard deviation of the coefficient",
            "most_alike": "most like",
        },
    ),
    "components": (
        "A row for each component of the canonical basis: its share of the contributions, and how much of each "
        "prototype it takes.",
        "",
        {},
    ),
}


def _write_manifest(out: Path, numbers: Mapping[str, Any], files: list[Path]) -> Iterable[Path]:
    from maskprism.reports.manifest import Number, PictureFile, ResultManifest, TableFile, write_manifest

    ranks, components = numbers["effective_rank"], numbers.get("components_for", {})
    pairs = [f"{pair['first']} and {pair['second']}" for pair in numbers.get("redundant_pairs", ())]
    lists = {
        "Redundant: drawn alike, with alike coefficients": pairs,
        "Dead: adds next to nothing": [str(k) for k in numbers.get("dead", ())],
    }
    manifest = ResultManifest(
        command="basis",
        about="how many of the prototypes are used, in a basis easier to read",
        models=[numbers["model"]] if "model" in numbers else [],
        numbers=[
            *(Number(name, numbers.get(name), ",") for name in ("images", "instances", "prototypes")),
            Number("effective rank of contributions", ranks.get("contributions"), ".1f"),
            Number("effective rank of coefficients", ranks["coefficients"], ".1f"),
            Number("components for 90\N{NO-BREAK SPACE}%", components.get("90%"), ","),
            Number("components for 99\N{NO-BREAK SPACE}%", components.get("99%"), ","),
        ],
        findings=[f"{words}: {in_brief(names, 8)}." for words, names in lists.items() if names],
        pictures=[
            PictureFile(path.name, _CAPTIONS[kind], wide=kind == "prototypes")
            for path in files
            if path.suffix == ".png" and (kind := path.stem.partition("-")[0])
        ],
        tables=[TableFile(path.name, *_TABLES[path.stem]) for path in files if path.suffix == ".csv"],
    )
    return write_manifest(out, manifest)


def _write_json(out: Path, numbers: Mapping[str, Any]) -> None:
    from maskprism.reports.manifest import withdraw_manifest

    withdraw_manifest(out, "basis")
    write_atomically(out / "basis.json", json_text(numbers) + "\n")


def _tell(numbers: Mapping[str, Any], failed: int) -> None:
    from maskprism.analysis.intervals import MIN_IMAGES

    ranks = numbers["effective_rank"]
    print(
        f"{numbers['prototypes']} prototypes, {numbers['instances']} instances in {numbers['images']} images"
        + failures(failed)
    )
    print("  effective rank")
    for name, key in (
        ("prototypes of one image", "prototypes_of_one_image"),
        ("prototypes of all", "prototypes_of_all_images"),
        ("coefficients", "coefficients"),
        ("contributions", "contributions"),
    ):
        print(f"    {name:<24}{ranks[key]:>6.1f}")
    told = ", ".join(f"{count} explain {share}" for share, count in numbers["components_for"].items())
    print(f"  canonical components: {told} of the mean square logit")
    if numbers["too_few_images"]:
        print(f"  dead, redundant pairs: not said of fewer than {MIN_IMAGES} images, since others may need a prototype")
        return
    print(f"  dead: {in_brief(numbers['dead']) or 'none'}")
    pairs = [f"{pair['first']}-{pair['second']}" for pair in numbers["redundant_pairs"]]
    print(f"  redundant pairs: {in_brief(pairs) or 'none'}")
