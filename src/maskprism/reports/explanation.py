"""The pictures and tables that explain images, as files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from maskprism._common.files import reporting_write_errors
from maskprism.analysis.instance.attribution import explain
from maskprism.analysis.instance.mask_window import window_bytes
from maskprism.analysis.instance.prototype_roles import roles
from maskprism.analysis.instance.questions import Questions, asked_about
from maskprism.analysis.instance.regions import pixel_query, region_blame, truth_blame
from maskprism.analysis.instance.subset_masks import SubsetMasks
from maskprism.drawing import instance_tables as tables
from maskprism.drawing import raster, sheets
from maskprism.drawing.roles import roles_sheet
from maskprism.drawing.text_tables import write_rows
from maskprism.errors import InputError, MaskprismError
from maskprism.io.images import read_image
from maskprism.io.sources import DistinctStems

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from maskprism.analysis.instance.prototype_roles import RoleOrder
    from maskprism.core.decomposition import Order
    from maskprism.core.geometry import Size
    from maskprism.core.prediction import Instance, Prediction
    from maskprism.drawing.sheets import Picture, Scale
    from maskprism.drawing.text_tables import Rows, TextTable
    from maskprism.io.images import ImageLike
    from maskprism.io.sources import SourceImage
    from maskprism.models import Model

_MOST_BYTES = 256 << 20  # of all prototypes in the window of one instance: beyond, masks are measured on the grid


@dataclass(frozen=True)
class Explained:
    """What became of one image: its files, its tables, and a message where there is something to say."""

    name: str
    files: tuple[Path, ...] = ()
    tables: tuple[TextTable, ...] = ()
    message: str = ""
    failed: bool = False

    @property
    def pictures(self) -> tuple[Path, ...]:
        """The files that are pictures."""
        return tuple(path for path in self.files if path.suffix == ".png")


_OURS = re.compile(
    r"\d\d+-(prototypes|contributions|contributions-full|assembly|crop|roles|region|truth|attribution"
    r"|pixel-\d+-\d+)\.(png|csv)"
)


@dataclass
class _Findings:
    """Files and tables, as they come."""

    files: list[Path] = field(default_factory=list)
    tables: list[TextTable] = field(default_factory=list)


def explain_images(
    items: Iterable[SourceImage],
    model: Model,
    out: Path,
    instance: int | Literal["all"] | None = None,
    *,
    order: Order = "effect",
    scale: Scale = "shared",
    questions: Questions = Questions(),
) -> Iterator[Explained]:
    """Explain one image after the other, each in a folder of `out` of its own.

    `instance` is a number, "all", or None for the one that is asked about, or else the most confident one. An image
    that cannot be read, or has no such instance, is told in its message, and the rest goes on.
    """
    folders = DistinctStems()
    for item in items:
        folder = out / folders.next(item.name)
        findings, message = _Findings(), ""
        try:
            image = item.read()
            prediction = replace(model.predict(image), source=item.name)
            findings.files.append(raster.save(sheets.overview(image, prediction), folder / "overview.png"))
            try:
                for index in _chosen(prediction, instance, questions):
                    _explain(image, prediction[index], folder, findings, order, scale, questions.rank)
                    _answer(image, prediction[index], folder, findings, questions)
            except InputError as error:
                message = str(error) if item.name in str(error) else f"{item.name}: {error}"
        except MaskprismError as error:
            yield Explained(item.name, message=f"failed: {error}", failed=True)
            continue
        if not len(prediction):
            message = (
                f"{item.name}: no instance with a score above {model.keep.conf}; only the overview is drawn "
                "(a lower --conf keeps more)"
            )
        yield Explained(
            item.name,
            tuple(findings.files),
            tuple(findings.tables),
            message,
            failed=bool(message) and len(prediction) > 0,
        )


def remove_explanations(out: Path) -> None:
    """Remove what an earlier run of `explain_images` wrote into a folder, and nothing else.

    Raises
    ------
    MaskprismError
        If a file cannot be removed.
    """
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
    against = logits -> mask. `00-crop.png`: what the crop to the box cuts away, if there is one.
    `00-roles.png` and `00-roles.csv`: what each prototype does for the mask.
    """
    pixels = read_image(image)
    findings = _Findings([raster.save(sheets.overview(pixels, prediction), folder / "overview.png")])
    for index in instances:
        _explain(pixels, prediction[index], folder, findings, order, scale)
    return findings.files


def _explain(
    image: Picture,
    instance: Instance,
    folder: Path,
    findings: _Findings,
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


def _answer(image: Picture, instance: Instance, folder: Path, findings: _Findings, questions: Questions) -> None:
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
    """The instances to explain: the given ones, or the one that is asked about, or else the most confident one."""
    asked = None if instance is not None or not len(prediction) else asked_about(prediction, questions)
    return sheets.best_instances(prediction, instance) if asked is None else [asked]


def _frame(instance: Instance) -> Size:
    """Where masks are measured: in the frame of the rule, but never at the size of a large image, or out of memory."""
    return "grid" if instance.rule.size == "grid" or window_bytes(instance, "canvas") > _MOST_BYTES else "canvas"


def _file(folder: Path, instance: Instance, name: str) -> Path:
    return folder / f"{instance.index:02d}-{name}"
