"""maskprism explain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from maskprism._common.text import counted, readable, single_line
from maskprism.cli.options import (
    DetectionOptions,
    Images,
    Limit,
    ModelFile,
    Out,
    ReadingOptions,
    Replace,
    Seed,
    check_out,
    load_model,
)
from maskprism.cli.output import DONE, FAILED, Outcome, Output, command, failures, listed
from maskprism.errors import InputError

if TYPE_CHECKING:
    from maskprism.analysis.instance.questions import Questions
    from maskprism.drawing.text_tables import TextTable
    from maskprism.reports.explanation import Explained

_QUESTIONS = Group("Questions about the mask", sort_key=9)


@Parameter(name="*")
@dataclass(frozen=True)
class Asked:
    """What to find out besides how the mask is made."""

    at: Annotated[str | None, Parameter(group=_QUESTIONS)] = None
    """A pixel X,Y of the image: which contributions decide it, and what would flip it. Without --instance, of the
    most confident instance that has it in its mask, or else in its box. Default: no pixel."""

    baseline: Annotated[Literal["zero", "mean"], Parameter(group=_QUESTIONS)] = "zero"
    """What contributions to --at are measured from: nothing, or every prototype's mean over the image. Those means
    make one level, which acts as a bias; what is left says what the patterns do."""

    region: Annotated[Path | None, Parameter(group=_QUESTIONS)] = None
    """A mask of the image's size, bright where you ask: which prototypes act there. Default: none."""

    truth: Annotated[Path | None, Parameter(group=_QUESTIONS)] = None
    """The ground-truth mask, an image file of the image's size, bright on the instance: which prototypes are
    responsible for what the mask has too much or too little. Scores are then against it. Default: none."""

    attribution: Annotated[bool, Parameter(group=_QUESTIONS, negative=())] = False
    """Which prototypes the mask needs: knock-outs, sufficient sets, Shapley values, sensitivity."""

    metric: Annotated[Literal["iou", "dice"], Parameter(group=_QUESTIONS)] = "iou"
    """The score that the Shapley values of --attribution add up to."""

    seed: Annotated[Seed, Parameter(group=_QUESTIONS)] = 0

    rank: Annotated[Literal["effect", "spread", "share", "index"], Parameter(group=_QUESTIONS)] = "effect"
    """Order of the roles: by the effect in the box, by what a prototype distinguishes there (absolute weight times
    spread of the prototype), by its share of the logit margin, or by index."""

    def questions(self) -> Questions:
        """Return the options with their images read."""
        from maskprism.analysis.instance.questions import Questions

        at = None if self.at is None else _pixel(self.at)
        region, truth = (None if path is None else _bright(path) for path in (self.region, self.truth))
        return Questions(
            at=at,
            region=region,
            truth=truth,
            attribution=self.attribution,
            seed=self.seed,
            metric=self.metric,
            baseline=self.baseline,
            rank=self.rank,
        )


@command(
    group="Visualise",
    order=10,
    page="explain.md",
    examples=(
        "explain photos --model best.onnx --out pictures",
        "explain photo.jpg --model best.onnx --at 120,80 --out pictures",
    ),
    answer="`explained`: per image `image`, `files` and a `note`; `failures`",
)
def explain(
    images: Images,
    /,
    *,
    model: ModelFile = None,
    out: Out,
    overwrite: Replace = False,
    limit: Limit = None,
    instance: int | Literal["all"] | None = None,
    order: Literal["index", "weight", "magnitude", "effect"] = "effect",
    scale: Literal["shared", "each"] = "shared",
    top: int = 10,
    asked: Asked = Asked(),
    reading: ReadingOptions = ReadingOptions(),
    detections: DetectionOptions = DetectionOptions(),
    output: Output = Output(),
) -> Outcome:
    """Draw how masks are made of prototypes and coefficients.

    Writes one folder per image: `overview.png`, and per chosen instance the prototype grid,
    the contribution grids, the assembly strip, the logits outside the box, and what role each
    prototype has. Prints the roles, and the answers to your questions.

    Parameters
    ----------
    out
        Folder for the pictures and tables.
    instance
        Number of the instance to explain, as in the overview; "all" for every one. The most
        confident one by default.
    order
        Order of the panels: by prototype index, weight, size of the weight, or effect in the box.
    scale
        Colour scale of the prototype grid: one for all prototypes, or one for each.
    top
        Print this many rows of each table, 0 for none; the CSV files have them all.
    """
    from maskprism.io.sources import open_sources
    from maskprism.reports.explanation import explain_images, remove_explanations, write_explanation_manifest

    questions = asked.questions()
    items = open_sources(images, without=out, limit=limit)
    check_out(out, overwrite=overwrite, folder=True)
    network = load_model(model, reading, detections)
    remove_explanations(out)
    with output.bar("explaining", items.count()) as bar:
        found: list[Explained] = []
        for one in explain_images(
            items, network, out, instance, order=order, scale=scale, questions=questions, on_progress=bar.at
        ):
            found.append(one)
            if one.note:
                bar.note(one.note)
    if any(one.pictures for one in found):
        write_explanation_manifest(found, out, network.spec.name)
    failed, pictures = len(bar.failures), sum(len(one.pictures) for one in found)
    drawn = sum(bool(one.pictures) for one in found)  # an overview, too, where a question has no answer
    if top > 0:
        print_tables([table for one in found for table in one.tables], top)
    print(f"{counted(pictures, 'picture')} of {counted(drawn, 'image')} in {out}" + failures(failed))
    explained = [
        {"image": readable(one.name), "files": one.files, "note": readable(one.note)}
        for one in found
        if one.failure is None
    ]
    return Outcome({"explained": explained, "failures": listed(bar.failures)}, FAILED if failed == len(found) else DONE)


def print_tables(tables: Sequence[TextTable], top: int) -> None:
    """Print at most `top` rows of each table, and what to know about it."""
    from rich import box
    from rich.table import Table

    from maskprism.cli.terminal import TerminalConsole

    console = TerminalConsole(highlight=False)
    for one in tables:
        shown = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
        for column, header in enumerate(one.headers):
            words = [*header.split(), *(row[column] for row in (*one.rows[:top], *one.totals))]
            # Headers may take two lines, but nothing is cut: a table that is too wide for the terminal goes beyond it.
            shown.add_column(header, justify="left" if header == "role" else "right", min_width=max(map(len, words)))
        for row in (*one.rows[:top], *one.totals):
            shown.add_row(*row)
        left = max(len(one.rows) - top, 0)
        more = f"; {left} more rows in the CSV file" if left else ""
        console.print(single_line(one.title), style="bold", markup=False, soft_wrap=True)
        console.print(shown, crop=False)
        console.print(single_line(f"{one.note}{more}") + "\n", markup=False, soft_wrap=True)


def _pixel(text: str) -> tuple[int, int]:
    try:
        x, y = (int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--at is {text!r}; expected a pixel X,Y of the image, such as 120,80") from None
    return x, y


def _bright(path: Path) -> Any:
    """Return where an image is at least half as bright as its brightest pixel, as booleans."""
    from maskprism.io.images import read_image
    from maskprism.io.untrusted import is_file, shortened

    if not is_file(path):
        raise InputError(
            f"{shortened(path)}: there is no such file; expected a mask of the image's size, as an image file"
        )
    brightness = read_image(path).max(axis=2)
    return (brightness > 0) & (brightness * 2.0 >= brightness.max())
