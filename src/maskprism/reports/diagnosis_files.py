"""A diagnosis as files: tables of instances and detections, all numbers, figures, and the page that explains them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from maskprism import __version__
from maskprism._common.files import reporting_write_errors, write_atomically
from maskprism._common.spreadsheet import guarded
from maskprism._common.text import json_text
from maskprism.analysis.dataset.diagnosis import Detection, Diagnosis
from maskprism.analysis.dataset.findings import FigureName, Finding, findings_of
from maskprism.analysis.intervals import too_few
from maskprism.analysis.truth.error_budget import COLUMNS
from maskprism.drawing import diagnosis as figures
from maskprism.drawing import error_budget as budget_figures
from maskprism.drawing.figures import png_bytes
from maskprism.drawing.mask_thumbnails import mask_against_truth
from maskprism.drawing.responsive_svg import adaptive
from maskprism.reports.diagnosis import report_page, verdict_of
from maskprism.reports.embedded_viewers import embedded, packed_scene
from maskprism.reports.error_cards import ErrorCards
from maskprism.reports.html import Illustration
from maskprism.reports.manifest import Number, PictureFile, ResultManifest, TableFile, withdraw_manifest, write_manifest
from maskprism.viewer.markup import data_url
from maskprism.viewer.payload import encode_webp

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.figure import Figure

    from maskprism.analysis.dataset.coco_ap import AveragePrecision
    from maskprism.analysis.dataset.diagnosis import PicturedImage
    from maskprism.analysis.truth.error_budget import InstanceBudget
    from maskprism.models import Model
    from maskprism.reports.html import Section

Suffix = Literal[".parquet", ".csv"]
_OF_OBJECTS = ("image", "object", "class_id", "class_name", "area", "size", "instance")

FIGURES: dict[FigureName, tuple[Callable[[Diagnosis], Figure], str]] = {
    "perfect": (
        figures.perfect_figure,
        "Mask AP if one part after the other were perfect, and if each part alone or detection alone were.",
    ),
    "budget": (
        lambda found: budget_figures.waterfall(found.budget),
        "From the ground-truth mask down to the mean IoU: what each part of the model costs.",
    ),
    "errors": (
        figures.errors_figure,
        "What AP50 would gain if all errors of one kind were fixed, with its interval; localisation by what its masks "
        "lose in.",
    ),
    "decodes": (figures.protocols_figure, "The same model under the three decodes that tools measure it with."),
    "sizes": (figures.sizes_figure, "Average precision by the size of objects (COCO's: 32 and 96 pixels squared)."),
    "score": (figures.score_figure, "Score and mask IoU of every instance found."),
    "classes": (
        lambda found: budget_figures.groups(found.budget),
        "The losses by size and by class, worst class first.",
    ),
}
_OF_BUDGET: frozenset[FigureName] = frozenset(("budget", "classes", "score"))
_OF_MASKS: frozenset[FigureName] = frozenset(("perfect", "errors"))


def write_diagnosis(
    found: Diagnosis,
    out: str | os.PathLike[str],
    *,
    model: Model | None = None,
    worst: int = 48,
    tables: Suffix = ".parquet",
    more: Sequence[Section] = (),
    numbers: Mapping[str, Any] | None = None,
    findings: Sequence[Finding] | None = None,
) -> dict[Path, str]:
    """Write tables, summary.json, figures and report.html into a folder; gives each file with what it holds.

    Parameters
    ----------
    worst
        Instances in the page's table; with the model that was diagnosed they are shown in small pictures.
    more, numbers
        Further sections of the page, and what they say, for summary.json.
    findings
        Those of `findings_of`, where they are known already.

    Raises
    ------
    MaskprismError
        If the folder cannot be written.
    """
    folder = Path(out)
    withdraw_manifest(folder, "diagnose")
    findings = findings_of(found) if findings is None else findings
    written: dict[Path, str] = {folder / "report.html": "all of it on one page, with what it means"}
    drawn: dict[FigureName, Illustration] = {}
    for name, rows, what in (
        (
            "instances",
            object_table(found),
            "one row per ground-truth instance: what found it, what its mask loses where",
        ),
        (
            "detections",
            detection_table(found),
            f"one row per detection above {found.conf:g}: correct, or the error type",
        ),
    ):
        written[_write_table(rows, folder / f"{name}{tables}")] = what
    every = {**summary(found, findings), **(numbers or {})}
    written[write_atomically(folder / "summary.json", json_text(every) + "\n")] = "every number of the page"
    empty = (_OF_BUDGET if not found.budget.rows else frozenset()) | (_OF_MASKS if not found.objects else frozenset())
    with reporting_write_errors(folder, "choose another folder"):
        for name in empty:  # of an earlier run
            (folder / f"{name}.png").unlink(missing_ok=True)
    for name, (draw, caption) in FIGURES.items():
        if name not in empty:
            figure = draw(found)
            written[write_atomically(folder / f"{name}.png", png_bytes(figure))] = caption
            drawn[name] = Illustration(adaptive(figure), caption, figures.words_of(name, found))
    shown = found.budget.worst(worst)
    cards = ErrorCards.of(found)
    small: dict[tuple[str, int], bytes] = {}
    packed = dict.fromkeys(name for turn in zip_longest(shown, cards) for one in turn if one for name in [one.image])
    scenes: dict[str, str] = {}
    for seen in found.pictured(model, packed) if model else ():
        small |= _small_pictures(seen, shown)
        cards.draw(seen)
        scenes[seen.name] = packed_scene(seen)
    inside = embedded({name: scenes[name] for name in packed if name in scenes})
    pictured = [(row, small.get((row.image, row.instance))) for row in shown]
    write_atomically(folder / "report.html", report_page(found, findings, drawn, pictured, cards, inside, more))
    predicted, boxes, mean = found.precision["predict"], found.precision["boxes"], every["error_budget"]["mean"]
    manifest = ResultManifest(
        command="diagnose",
        about="where masks lose: detection or masks, which part of the model, what to work on",
        page="report.html",
        models=[found.spec.name],
        numbers=[
            Number("images", found.images, ","),
            Number("ground-truth instances", len(found.objects), ","),
            Number("mask mAP50-95", predicted.ap),
            Number("mask mAP50", predicted.ap50),
            Number("box mAP50-95", boxes.ap),
            Number("mean mask IoU of TPs", mean["iou"] if mean else None),
        ],
        findings=[finding.says for finding in findings],
        pictures=[PictureFile(f"{name}.png", one.caption) for name, one in drawn.items()],
        tables=[TableFile(path.name, what) for path, what in written.items() if path.suffix == tables],
        verdict=verdict_of(found),
        thumbnail=next((data_url("image/webp", picture) for _, picture in pictured if picture), ""),
    )
    written |= write_manifest(folder, manifest)
    return written


def object_table(found: Diagnosis) -> pa.Table:
    """One row per ground-truth instance; of those found, the whole error budget, else nulls from `score` on."""
    import pyarrow as pa

    of_shape = {"pieces": pa.int64(), "touches_border": pa.bool_(), "thinness": pa.float64(), "held": pa.int64()}
    budgets = {(row.image, row.object): row for row in found.budget.rows}
    rows: list[dict[str, Any]] = []
    for one in found.objects:
        row = budgets.get((one.image, one.object))
        own = dict(zip(("x1", "y1", "x2", "y2"), one.box, strict=True)) | {"found": row is not None}
        own |= {name: getattr(one, name) for name in of_shape}
        known = {name: getattr(one, name) for name in _OF_OBJECTS if name not in ("size", "instance")}
        rows.append(known | own | ({} if row is None else asdict(row)))
    kinds = {"str": pa.string(), "int": pa.int64(), "float": pa.float64()}
    of_budget = {field.name: kinds[str(field.type)] for field in COLUMNS}
    first = {name: of_budget[name] for name in _OF_OBJECTS[:5]}
    own_kinds = {**dict.fromkeys(("x1", "y1", "x2", "y2"), pa.float64()), **of_shape, "found": pa.bool_()}
    return pa.Table.from_pylist(rows, schema=pa.schema([*(first | own_kinds | of_budget).items()]))


def detection_table(found: Diagnosis) -> pa.Table:
    """One row per detection shown; `error` is null for a right or excused one, `object` where none is meant."""
    import pyarrow as pa

    kinds = {
        "image": pa.string(),
        "instance": pa.int64(),
        "class_id": pa.int64(),
        "class_name": pa.string(),
        "score": pa.float64(),
        **dict.fromkeys(("x1", "y1", "x2", "y2"), pa.float64()),
        "outcome": pa.string(),
        "error": pa.string(),
        "object": pa.int64(),
    }
    rows = [_flat(one) for one in found.detections]
    return pa.Table.from_pylist(rows, schema=pa.schema([*kinds.items()]))


def summary(found: Diagnosis, findings: Sequence[Finding]) -> dict[str, Any]:
    """Everything but the rows of the tables; numbers that do not exist are None."""
    spec, sure = found.spec, found.intervals
    return {
        "maskprism": __version__,
        "model": {"name": spec.name, "sha256": spec.sha256, "runtime": spec.runtime, "rule": spec.rule.name},
        "data": {"path": str(found.dataset.path), "split": found.dataset.split, "images": found.images},
        "too_few_images": too_few(found.images),
        "interrupted": found.interrupted,
        "conf": found.conf,
        "objects": len(found.objects),
        "found": len(found.budget),
        "missed": found.missed,
        "false_positives": found.false_positives,
        "doubtful_labels": [
            {"image": label.image, "label_id": label.label_id, "mask_iou": label.mask_iou} for label in found.doubtful
        ],
        "reading": [finding._asdict() for finding in findings],
        "average_precision": {name: _precision(found, one) for name, one in found.precision.items()},
        "if_perfect": {step: _precision(found, one) for step, one in found.perfect.items()},
        "if_perfect_alone": {step: _precision(found, one) for step, one in found.alone.items()},
        "if_detection_perfect": _precision(found, found.perfect_detection),
        "costs": {
            "masks": sure.masks._asdict(),
            "detection": sure.detection._asdict(),
            "difference": sure.difference._asdict(),
        },
        "intervals": {
            "average_precision": {name: one._asdict() for name, one in sure.precision.items()},
            "if_masks_perfect": sure.perfect_masks._asdict(),
            "if_detection_perfect": sure.perfect_detection._asdict(),
            "error_gains": {kind: one._asdict() for kind, one in sure.errors.items()},
        },
        "errors": asdict(found.errors) | {"shown": dict(found.shown)},
        "localisation": {
            "instances": len(found.localisation),
            "mean": found.localisation.mean().as_dict() if len(found.localisation) else None,
        },
        "error_budget": {
            "mean": found.budget.mean().as_dict() if len(found.budget) else None,
            **{
                by: [mean.as_dict() for mean in found.budget.means(by)] if len(found.budget) else []
                for by in ("size", "class_name")
            },
            "beside": found.budget.means_beside(),
            "common_threshold": _common_threshold(found),
            "score_ranking": _ranking(found),
        },
        "unknown_classes": list(found.unknown_classes),
        "failures": [{"image": one.name, "why": one.message} for one in found.failures],
        "remarks": list(found.remarks),
    }


def _small_pictures(seen: PicturedImage, rows: Sequence[InstanceBudget]) -> dict[tuple[str, int], bytes]:
    """Return small pictures, as WebP, of those of the rows that are in an image."""
    small = {}
    for row in rows:
        if row.image == seen.name and row.instance < len(seen.prediction):
            instance = seen.prediction[row.instance]
            truth = seen.truth.masks()[row.object]
            picture = mask_against_truth(seen.image, instance.mask("image"), truth, instance.box)
            small[row.image, row.instance] = encode_webp(picture, max(picture.shape[:2]))[0]
    return small


def _precision(found: Diagnosis, one: AveragePrecision) -> dict[str, Any]:
    names = found.dataset.names
    by_class = [
        {
            "class_id": class_id,
            "class_name": names.get(class_id, f"class{class_id}"),
            "images": found.intervals.class_images[class_id],
            **own._asdict(),
        }
        for class_id, own in one.by_class.items()
    ]
    return asdict(one) | {"by_class": by_class}


def _ranking(found: Diagnosis) -> dict[str, Any] | None:
    if not len(found.budget):
        return None
    ranking = found.budget.ranking()
    return ranking._asdict() | {"bins": [one._asdict() for one in ranking.bins]}


def _common_threshold(found: Diagnosis) -> dict[str, Any] | None:
    if not len(found.budget):
        return None
    probability, iou = found.budget.common_threshold()
    gain = found.budget.common_threshold_gain()
    return {"probability": probability, "mean_iou": iou, "gain": gain._asdict()}


def _flat(one: Detection) -> dict[str, Any]:
    row = one._asdict() | dict(zip(("x1", "y1", "x2", "y2"), one.box, strict=True))
    return row | {"error": one.error or None, "object": None if one.object < 0 else one.object}


def _write_table(rows: pa.Table, path: Path) -> Path:
    import pyarrow.csv
    import pyarrow.parquet

    if path.suffix == ".csv":
        return write_atomically(path, partial(pyarrow.csv.write_csv, guarded(rows)))
    return write_atomically(path, partial(pyarrow.parquet.write_table, rows))
