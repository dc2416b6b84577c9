"""The pictures and tables that explain images, as files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from maskprism._common.files import reporting_write_errors
from maskprism._common.text import readable
from maskprism.analysis.instance.attribution import explain
from maskprism.analysis.instance.mask_window import window_bytes
from maskprism.analysis.instance.prototype_roles import roles
from maskprism.analysis.instance.questions import Questions, asked_about
from maskprism.analysis.instance.regions import pixel_query, region_blame, truth_blame
from maskprism.analysis.instance.subset_masks import SubsetMasks
from maskprism.datasets.visit import Failure, OnProgress, VisitedImage, count_of, visit
from maskprism.drawing import instance_tables as tables
from maskprism.drawing import raster, sheets
from maskprism.drawing.roles import roles_sheet
from maskprism.drawing.text_tables import write_rows
from maskprism.errors import InputError, MaskprismError
from maskprism.io.images import read_image
from maskprism.io.sources import DistinctStems
from maskprism.reports.manifest import Number, PictureFile, ResultManifest, file_url, withdraw_manifest, write_manifest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from maskprism.analysis.instance.prototype_roles import RoleOrder
    from maskprism.core.decomposition import Order
    from maskprism.core.geometry import Size
    from maskprism.core.prediction import Instance, Prediction
    from maskprism.datasets.visit import Images
    from maskprism.drawing.sheets import Picture, Scale
    from maskprism.drawing.text_tables import Rows, TextTable
    from maskprism.io.images import ImageLike
    from maskprism.models import Model

_MOST_BYTES = 256 << 20  # of all prototypes in the window of one instance: beyond, masks are measured on the grid


@dataclass
class Explained:
    """What became of one image: its files, its tables, and a note where there is something to say.

    Attributes
    ----------
    failure
        The image could not be read, or a question not be answered; then there is an overview all the same.
    """

    name: str
    files: list[Path] = field(default_factory=list)
    tables: list[TextTable] = field(default_factory=list)
    note: str = ""
    failure: Failure | None = None

    @property
    def pictures(self) -> list[Path]:
        """The files that are pictures."""
        return [path for path in self.files if path.suffix == ".png"]


_CAPTIONS = {
    "overview": "all instances",
    "prototypes": "all prototypes, and their weights for this instance",
    "contributions": "what each prototype adds inside the box",
    "contributions-full": "what each prototype adds everywhere",
    "assembly": "positive and negative evidence, logits, mask",
    "crop": "logits outside the box",
    "roles": "what each prototype does for the mask",
    "region": "which prototypes act in the region",
    "truth": "which prototypes are responsible for what the mask has too much or too little",
    "attribution": "which prototypes the mask needs",
    "pixel": "which contributions decide the pixel",
}
"""What is in a picture, by the begin of its name behind the number of the instance."""
_KINDS = "|".join(name for name in _CAPTIONS if name != "overview").replace("pixel", r"pixel-\d+-\d+")
_OURS = re.compile(rf"\d\d+-({_KINDS})\.(png|csv)")


def explain_images(
    items: Images,
    model: Model,
    out: Path,
    instance: int | Literal["all"] | None = None,
    *,
    order: Order = "effect",
    scale: Scale = "shared",
    questions: Questions = Questions(),
    on_progress: OnProgress = lambda done, total, failure: None,
) -> Iterator[Explained]:
    """Explain one image after the other, each in a folder of `out` of its own.

    `instance` is a number, "all", or None for the one that is asked about, or else the most confident one. An image
    that cannot be read, or has no such instance, is a failure told to `on_progress`, and the rest goes on.
    """
    folders = DistinctStems()
    with closing(visit(items, model)) as results:
        for done, result in enumerate(results, 1):
            folder, explained = out / folders.next(result.name), Explained(result.name)
            try:
                if isinstance(result, Failure):
                    explained.failure = result
                else:
                    _explain_image(result, explained, folder, instance, order, scale, questions)
            except MaskprismError as error:
                explained = Explained(result.name, failure=Failure(result.name, str(error)))
            if not isinstance(result, Failure) and explained.files and not len(result.prediction):
                explained.failure = None
                explained.note = (
                    f"{result.name}: no instance with a score above {model.keep.conf}; only the overview is drawn "
                    "(a lower --conf keeps more)"
                )
            yield explained
            on_progress(done, count_of(items), explained.failure)


def _explain_image(
    visited: VisitedImage[Prediction],
    explained: Explained,
    folder: Path,
    instance: int | Literal["all"] | None,
    order: Order,
    scale: Scale,
    questions: Questions,
) -> None:
    name, image, prediction = visited.name, visited.image, visited.prediction
    explained.files.append(raster.save(sheets.overview(image, prediction), folder / "overview.png"))
    try:
        for index in _chosen(prediction, instance, questions):
            _explain(image, prediction[index], folder, explained, order, scale, questions.rank)
            _answer(image, prediction[index], folder, explained, questions)
    except InputError as error:
        explained.failure = Failure(name, str(error).removeprefix(f"{name}: "))


def write_explanation_manifest(explained: Iterable[Explained], out: Path, model: str) -> None:
    """Write the manifest of explanations, after their files.

    Parameters
    ----------
    model
        Its name.
    """
    images = [one for one in explained if one.pictures]
    kinds = [(path, re.sub(r"^\d\d+-|-\d+-\d+$", "", path.stem)) for one in images for path in one.pictures]
    manifest = ResultManifest(
        command="explain",
        about="how masks are made of prototypes and coefficients",
        models=[model],
        numbers=[Number("images", len(images), ","), Number("pictures", len(kinds), ",")],
        pictures=[
            PictureFile(file_url(path, out), f"{readable(path.parent.name)}: {_CAPTIONS[kind]}.", wide=True)
            for path, kind in kinds
        ],
    )
    write_manifest(out, manifest)


def remove_explanations(out: Path) -> None:
    """Remove what an earlier run of `explain_images` wrote into a folder, and nothing else.

    Raises
    ------
    MaskprismError
        If a file cannot be removed.
    """
    withdraw_manifest(out, "explain")
    with reporting_write_errors(out):
        for overview in list(out.rglob("overview.png")):
            for path in list(overview.parent.iterdir()):
                if path == overview or _OURS.fullmatch(path.name):
                    path.unlink()


def write_explanation(
    image: ImageLike,
    prediction: Prediction,
    folder: Path,
    instances: Iterable[int],
    *,
    order: Order = "effect",
    scale: Scale = "shared",
) -> list[Path]:
    """Write the overview, and six pictures and a table per instance, into the folder; give their paths.

    `00-prototypes.png`: all prototypes and the weights of instance 0. `00-contributions.png`: what
    each adds inside the box; `00-contributions-full.png`: everywhere. `00-assembly.png`: for +
    against = logits -> mask. `00-crop.png`: logits outside the box, if there is one.
    `00-roles.png` and `00-roles.csv`: what each prototype does for the mask.
    """
    pixels = read_image(image)
    findings = Explained("", [raster.save(sheets.overview(pixels, prediction), folder / "overview.png")])
    for index in instances:
        _explain(pixels, prediction[index], folder, findings, order, scale)
    return findings.files


def _explain(
    image: Picture,
    instance: Instance,
    folder: Path,
    findings: Explained,
    order: Order,
    scale: Scale,
    rank: RoleOrder = "effect",
) -> None:
    game = SubsetMasks(instance, size=_frame(instance))
    found, without = roles(instance), game.without_each()
    pictures = {
        "prototypes": sheets.prototype_grid(instance, order=order, scale=scale),
        "contributions": sheets.contribution_grid(instance, order=order),
        "contributions-full": sheets.contribution_grid(instance, order=order, view="full"),
        "assembly": sheets.assembly_strip(image, instance),
        **({"crop": sheets.crop_view(image, instance)} if instance.rule.crops else {}),
        "roles": roles_sheet(image, instance, found, without, order=rank),
    }
    findings.files += [raster.save(sheet, _file(folder, instance, f"{name}.png")) for name, sheet in pictures.items()]
    rows = tables.role_rows(found, without)
    findings.files.append(write_rows(rows, _file(folder, instance, "roles.csv")))
    findings.tables.append(tables.roles_table(instance, found, without, order=rank))


def _answer(image: Picture, instance: Instance, folder: Path, findings: Explained, questions: Questions) -> None:
    """Answer the questions about one instance, each with a figure, a table, and a CSV file."""
    if not questions:
        return
    from maskprism.drawing import attribution_charts as attribution  # matplotlib
    from maskprism.drawing.figures import save

    def add(name: str, figure: Figure, shown: Sequence[TextTable], rows: Rows) -> None:
        path = _file(folder, instance, f"{name}.png")
        save(figure, path, dpi=130)
        findings.files += [path, write_rows(rows, path.with_suffix(".csv"))]
        findings.tables += shown

    if questions.at is not None:
        query = pixel_query(instance, *questions.at, baseline=questions.baseline)
        figure = attribution.waterfall(instance, query, image=image)
        add(f"pixel-{query.x}-{query.y}", figure, [tables.pixel_table(instance, query)], query.rows())
    for name, blames in (
        ("region", () if questions.region is None else (region_blame(instance, questions.region),)),
        ("truth", () if questions.truth is None else truth_blame(instance, questions.truth)),
    ):
        if blames:
            rows = [{"kind": one.kind} | row for one in blames for row in one.rows()]
            figure = attribution.blame(image, instance, blames)
            add(name, figure, [tables.blame_table(instance, one) for one in blames], rows)
    if questions.attribution:
        owed = explain(
            instance,
            target=questions.truth,
            permutations=questions.permutations,
            seed=questions.seed,
            metric=questions.metric,
            size=_frame(instance),
        )
        figure = attribution.attribution(instance, owed)
        add("attribution", figure, [tables.attribution_table(instance, owed)], tables.attribution_rows(owed))


def _chosen(prediction: Prediction, instance: int | Literal["all"] | None, questions: Questions) -> Sequence[int]:
    """Return the instances to explain.

    The given ones, or the one that is asked about, or else the most confident one.
    """
    asked = None if instance is not None or not len(prediction) else asked_about(prediction, questions)
    return sheets.best_instances(prediction, instance) if asked is None else [asked]


def _frame(instance: Instance) -> Size:
    """Return where masks are measured.

    In the frame of the rule, but never at the size of a large image, or out of memory.
    """
    return "grid" if instance.rule.size == "grid" or window_bytes(instance, "canvas") > _MOST_BYTES else "canvas"


def _file(folder: Path, instance: Instance, name: str) -> Path:
    return folder / f"{instance.index:02d}-{name}"
