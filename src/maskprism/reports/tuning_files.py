"""A tuning as files: all numbers, figures, and the page that explains them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskprism import __version__
from maskprism._common.files import write_atomically
from maskprism._common.text import json_text
from maskprism.drawing.gains import groups_figure
from maskprism.drawing.mask_thumbnails import mask_against_truth
from maskprism.drawing.responsive_svg import adaptive
from maskprism.drawing.tuning import curve_figure
from maskprism.reports.html import Illustration
from maskprism.reports.manifest import Number, ResultManifest, file_url, write_manifest
from maskprism.reports.tuning import MaskPair, gained, recipe, report_page, section, sentences, verdict_of, warnings_of
from maskprism.viewer.markup import data_url
from maskprism.viewer.payload import encode_webp

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from maskprism.analysis.tuning import Tuning
    from maskprism.models import Model, ModelSpec
    from maskprism.reports.html import Section

_PAIRS, _SIDE = 6, 200
FIGURES: dict[str, tuple[Callable[[Tuning], Figure], str]] = {
    "curve": (
        curve_figure,
        "The gain by the number of images that a correction is fitted to, on images that took no part.",
    ),
    "groups": (
        lambda found: groups_figure(found.gains),
        "The gain of all instances, by size, and of the classes with most instances.",
    ),
}


def write_report(found: Tuning, base: Path, written: Sequence[str], pairs: Sequence[MaskPair]) -> dict[Path, str]:
    """Write BASE.tune.json and BASE.tune.html; gives each with what it holds.

    Parameters
    ----------
    written
        What became of the correction, in sentences.
    pairs
        Masks before and after, of `pairs_of`.

    Raises
    ------
    MaskprismError
        Where that fails.
    """
    page, numbers = report_files(base)
    write_atomically(numbers, json_text(summary(found)) + "\n")
    write_atomically(page, report_page(found, written, _drawn(found), pairs))
    return {page: "what it gains, on one page", numbers: "all numbers"}


def pairs_of(found: Tuning, model: Model) -> list[MaskPair]:
    """Draw the instances that gain most, then those that lose most, before and after."""
    rows = sorted(found.rows, key=lambda row: row.before - row.after)
    gaining = [row for row in rows[:_PAIRS] if row.after > row.before]
    losing = [row for row in rows[::-1][:_PAIRS] if row.after < row.before]
    drawn = {}
    for seen in found.pictured(model, [*gaining, *losing]):
        around = seen.before.mask("image") | seen.after.mask("image")
        before, after = (
            encode_webp(mask_against_truth(seen.image, one.mask("image"), seen.truth, one.box, _SIDE, around), _SIDE)[0]
            for one in (seen.before, seen.after)
        )
        drawn[id(seen.row)] = MaskPair(seen.row, seen.before.name, found.names[seen.row.image], before, after)
    return [drawn[id(row)] for row in (*gaining, *losing) if id(row) in drawn]


def write_tuning_manifest(found: Tuning, out: Path, pairs: Sequence[MaskPair]) -> dict[Path, str]:
    """Write the manifest of a tuning, after its other files.

    Parameters
    ----------
    out
        The file that was asked for.
    pairs
        Masks before and after, of `pairs_of`.
    """
    before, after = found.precision
    manifest = ResultManifest(
        command="tune",
        about="what a correction of the coefficients gains",
        page=file_url(report_files(out.with_suffix(""))[0], out.parent),
        models=[found.spec.name],
        numbers=[
            Number("images", found.images, ","),
            Number("mean mask IoU before", found.change.before),
            Number("mean mask IoU after", found.change.after),
            Number("mask AP before", before.ap),
            Number("mask AP after", after.ap),
        ],
        findings=sentences(found),
        verdict=verdict_of(found),
        thumbnail=data_url("image/webp", pairs[0].after) if pairs else "",
    )
    return write_manifest(out, manifest)


def report_files(base: Path) -> tuple[Path, Path]:
    """Return the files of a report: BASE.tune.html and BASE.tune.json."""
    return base.with_name(f"{base.name}.tune.html"), base.with_name(f"{base.name}.tune.json")


def section_of(found: Tuning) -> Section:
    """Return what tuning would gain, as a section of another report."""
    return section(found, _drawn(found))


def summary(found: Tuning) -> dict[str, Any]:
    """Everything but the rows of instances."""
    names = ("before", "after")
    return {
        "maskprism": __version__,
        "model": _named(found.spec),
        "teacher": None if found.teacher is None else _named(found.teacher.spec),
        "data": {"path": str(found.dataset.path), "split": found.dataset.split, "images": found.images},
        "conf": found.conf,
        "evidence": found.evidence,
        "levels": found.correction.levels,
        "helps": found.helps,
        "mask_iou": {
            "all": found.change.as_dict(),
            "by_size": [one.as_dict() for one in found.gains.by_size()],
            "by_class": [one.as_dict() for one in found.gains.by_class()],
        },
        "mask_rule": {
            "rule": found.spec.rule.name,
            "crop_margin": found.decode_rule.setting.crop_margin,
            "logit_threshold": found.decode_rule.setting.logit_threshold,
            "helps": found.decode_rule.helps,
            "mask_iou": found.decode_rule.change.as_dict(),
            "recipe": recipe(found),
        },
        "mask_ap": {name: asdict(one) | {"by_class": None} for name, one in zip(names, found.precision, strict=True)}
        | {"gain": found.ap_gain._asdict(), "ap75_gain": found.ap75_gain._asdict()},
        "curve": [{"images": images} | gain._asdict() for images, gain in found.curve()],
        "ridge": found.fitted.setting.ridge,
        "views": found.fitted.setting.views,
        "ridges": [{"ridge": one.ridge, "views": one.views, "gain": gain} for one, gain in found.fitted.chosen.items()],
        "folds": [
            {"images": fold.stop - fold.first, "ridge": fold.setting.ridge, "views": fold.setting.views}
            for fold in found.fitted.folds
        ],
        "seconds": dict(found.seconds),
        "warnings": warnings_of(found),
        "failures": [{"image": one.name, "why": one.message} for one in found.failures],
    }


def _named(spec: ModelSpec) -> dict[str, str]:
    return {"name": spec.name, "sha256": spec.sha256, "rule": spec.rule.name}


def _drawn(found: Tuning) -> dict[str, Illustration]:
    return {
        name: Illustration(adaptive(draw(found)), caption, _words_of(name, found))
        for name, (draw, caption) in FIGURES.items()
    }


def _words_of(name: str, found: Tuning) -> str:
    """Return the numbers of a figure in a sentence, for those who do not see it."""
    if name == "curve":
        return "; ".join(f"{images} images {gained(gain)}" for images, gain in found.curve()) + "."
    groups = [found.change, *found.gains.by_size(), *found.gains.by_class()]
    return "; ".join(f"{one.group} ({one.instances}) {gained(one.gain)}" for one in groups) + "."
