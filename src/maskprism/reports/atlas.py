"""The statistics of an atlas as one HTML file that explains itself."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from maskprism._common.text import counted
from maskprism.analysis.atlas.clustering import LEAST as CLUSTER_IMAGES
from maskprism.analysis.atlas.clustering import MOST, STEPS, SUBSTANTIAL, VALLEY
from maskprism.analysis.atlas.findings import NOTABLE, STRONG, SURE, findings_of
from maskprism.analysis.atlas.groups import means
from maskprism.analysis.atlas.near_duplicates import NEAR
from maskprism.analysis.intervals import MIN_IMAGES
from maskprism.drawing import atlas as charts
from maskprism.drawing.map_payload import QUALITY_TITLES
from maskprism.drawing.responsive_svg import adaptive
from maskprism.reports.html import Illustration, Section, cell, definitions, figures, findings, number, page, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from maskprism.analysis.atlas.atlas import Atlas

LISTED = 60
METHOD = {
    "the map": (
        "The two directions in which the coefficients vary most (principal components). What lies far apart is "
        "different; what lies together may differ in the other directions."
    ),
    "effective rank": (
        "In how many dimensions the coefficients vary about their means: the exponential of the entropy of their "
        "singular values (Roy and Vetterli, 2007), the same as in maskprism basis. Other definitions, such as the "
        "participation ratio, give two to three times less."
    ),
    "images as the unit": (
        "Instances of one image are not independent. Standard errors, tests and the search for kinds count images, not "
        f"instances, and with fewer than {MIN_IMAGES} images nothing is claimed."
    ),
    "what tells classes apart": (
        "The difference of the means of a class and of all other instances in standard deviations (Hedges' g). Tested "
        "with cluster-robust standard errors over images (CR3), corrected for all classes and coefficients (Benjamini "
        "and Hochberg)."
    ),
    "what goes with what": (
        "Spearman's rank correlation, tested and corrected in the same way; of a sample of 100,000 instances."
    ),
    "where masks are worst": (
        "The mean IoU of a class or kind against that of all other instances, tested in the same way and corrected for "
        "all classes and kinds."
    ),
    "kinds within a class": (
        f"k-means into 2 to {MOST} clusters of one half of the images, one instance of each, with a silhouette of at "
        f"least {SUBSTANTIAL}. They count as kinds if there is a gap between them: in the other half less than "
        f"{VALLEY} of the density of either halfway between their centres, and a gap wider than {STEPS:.0%} of the "
        f"steps within them. In case of doubt, and in fewer than {CLUSTER_IMAGES} images, a class counts as one kind."
    ),
    "outliers": (
        "The distance from the middle of the class in robust standard deviations (Mahalanobis distance with the "
        "minimum covariance determinant, one covariance for all classes). They are ranked, without a threshold: "
        "coefficients have heavy tails."
    ),
    "near duplicates": (
        f"Groups of instances, each of which differs from another one of the group by less than {NEAR:.0%} of what two "
        "random instances differ by (the root of the mean square)."
    ),
    "images and prototypes": (
        "A coefficient says how much of a prototype is taken, and prototypes are made anew for every image: those of "
        "two images mean the same only as far as their prototypes do. Measured by maskprism search --metric mask."
    ),
}


def report_page(atlas: Atlas, title: str, *, map_address: str = "") -> str:
    """Return the whole page.

    Parameters
    ----------
    map_address
        Where the map is, relative to it.
    """
    drawn = {
        name: Illustration(adaptive(draw(atlas)), caption, words(atlas))
        for name, (draw, caption, words) in _figures(atlas).items()
    }
    link = (
        f'<p><a href="{html.escape(map_address)}">Open the map</a>: hover, select with a lasso, compare, export.</p>'
        if map_address
        else ""
    )
    sections = [
        findings([f"<li><p>{html.escape(one)}</p></li>" for one in findings_of(atlas)]),
        Section("figures", "Figures", link + figures(drawn)),
        Section("classes", "Classes", _classes(atlas)),
        Section("coefficients", "Coefficients", _coefficients(atlas)),
        Section("clusters", "Kinds within classes", _clusters(atlas)),
        Section("outliers", "Outliers", _outliers(atlas)),
        Section("duplicates", "Near duplicates", _duplicates(atlas)),
        Section("method", "Method", definitions(METHOD.items())),
    ]
    return page("atlas", title=title, subtitle=_subtitle(atlas), warnings=(), tiles=_tiles(atlas), sections=sections)


def _figures(atlas: Atlas) -> dict[str, tuple[Callable[[Atlas], Figure], str, Callable[[Atlas], str]]]:
    shown: dict[str, tuple[Callable[[Atlas], Figure], str, Callable[[Atlas], str]]] = {
        "map": (
            charts.map_figure,
            "Each dot an instance; the largest classes in colours. Near dots have like coefficients.",
            lambda a: (
                f"The components have {a.components.shares[0]:.0%} and {a.components.shares[1]:.0%} of the variance."
            ),
        )
    }
    if atlas.has_truth and np.isfinite(atlas.points.numbers["iou"]).any():
        shown["truth"] = (
            charts.truth_figure,
            "The mean IoU with the ground truth of what lies there.",
            lambda a: f"The mean over all is {float(np.nanmean(a.points.numbers['iou'])):.3f}.",
        )
    shown |= {
        "values": (
            charts.values_figure,
            "Red builds masks, blue carves them. A coefficient with one narrow row near zero is hardly used.",
            lambda a: f"The standard deviations are {_range(np.sqrt(np.diag(a.moments.covariance)))}.",
        ),
        "spectrum": (
            charts.spectrum_figure,
            "How much of what instances differ in lies in the first n directions.",
            lambda a: f"The effective rank is {a.moments.effective_rank():.1f}.",
        ),
        "correlation": (
            charts.correlation_figure,
            "Red: both are large together; blue: one instead of the other.",
            lambda a: f"Between {_range(a.moments.correlation[~np.eye(len(a.moments), dtype=bool)])}.",
        ),
    }
    if len(atlas.points.class_names) > 1 and np.isfinite(atlas.signatures.mean).any():
        words: Callable[[Atlas], str] = lambda a: "; ".join(  # noqa: E731
            f"{a.points.class_names[row]}: {charts.strongest(a.signatures.effect[row], a.points.labels)}"
            for row in range(min(len(a.points.class_names), charts.MOST_CLASSES))
        )
        shown["signatures"] = (charts.signatures_figure, "Mean coefficients, the largest classes first.", words)
        shown["effects"] = (
            charts.effects_figure,
            f"Large ones ({STRONG} and more) tell a class by one coefficient alone.",
            words,
        )
    if atlas.dependence.names:
        shown["dependence"] = (
            charts.dependence_figure,
            "Coefficients that follow the size or the place of the box, the score, or how good the mask is.",
            lambda a: "; ".join(
                f"{QUALITY_TITLES[name]}: {charts.strongest(a.dependence.rho[row], a.points.labels)}"
                for row, name in enumerate(a.dependence.names)
            ),
        )
    return shown


def _range(values: np.ndarray) -> str:
    return f"{np.nanmin(values, initial=np.inf):.2f} to {np.nanmax(values, initial=-np.inf):.2f}"


def _subtitle(atlas: Atlas) -> str:
    points = atlas.points
    return (
        f"{len(points):,} instances of {counted(len(points.image_names), 'image')}, {len(points.labels)} coefficients"
    )


def _tiles(atlas: Atlas) -> Iterable[tuple[str, str]]:
    points = atlas.points
    yield "instances", f"{len(points):,}"
    yield "classes", f"{len(points.class_names):,}"
    yield "effective rank", f"{atlas.moments.effective_rank():.1f} of {len(points.labels)}"
    yield "classes with several kinds", str(len(atlas.clusters.silhouettes))
    yield "with a near duplicate", f"{atlas.duplicates.instances:,}"
    if atlas.has_truth:
        yield "mean mask IoU", number(float(np.nanmean(_known(points.numbers["iou"]))))


def _known(values: np.ndarray) -> np.ndarray:
    """Return what is known; one NaN where nothing is, of which a mean can be asked for."""
    found = values[np.isfinite(values)]
    return found if len(found) else np.array([np.nan], dtype=np.float32)


def _classes(atlas: Atlas) -> str:
    points, found = atlas.points, atlas.signatures
    kinds = np.bincount([cluster.of_class for cluster in atlas.clusters.found], minlength=len(points.class_names))
    rows = []
    iou = points.numbers.get("iou")
    ious = None if iou is None else means(iou, points.classes, len(points.class_names))
    for row, name in enumerate(points.class_names):
        sure = np.where(found.p[row] < SURE, found.effect[row], np.nan)
        rows.append(
            cell(name, "text")
            + cell(charts.strongest(sure, points.labels) or "–", "text")
            + cell(f"{found.counts[row]}")
            + (cell(number(float(ious.mean[row]))) if ious is not None else "")
            + cell(str(max(int(kinds[row]), 1)))
        )
    headings = ["class", "what tells it", "instances", *(["mean IoU"] if iou is not None else []), "kinds"]
    return (
        '<p class="quiet">What tells it: the coefficients that differ most from those of all others, in standard '
        "deviations.</p>" + _table(headings, rows, text=2)
    )


def _coefficients(atlas: Atlas) -> str:
    points, found, depends = atlas.points, atlas.signatures, atlas.dependence
    spread = np.sqrt(np.diag(atlas.moments.covariance))
    sure = np.where(found.p < SURE, found.effect, np.nan)
    rho = np.where((depends.p < SURE) & (np.abs(depends.rho) >= NOTABLE), depends.rho, np.nan)
    rows = []
    for k, label in enumerate(points.labels):
        names = charts.strongest(sure[:, k], points.class_names, 2)
        follows = charts.strongest(rho[:, k], [QUALITY_TITLES[name] for name in depends.names], 2)
        rows.append(
            cell(label, "text")
            + cell(names or "–", "text")
            + cell(follows or "–", "text")
            + cell(number(float(atlas.moments.mean[k])))
            + cell(number(float(spread[k])))
            + cell(f"{found.shares[k]:.0%}" if np.isfinite(found.shares[k]) else "–")
        )
    return (
        '<p class="quiet">Of classes: the share of its variance that lies between classes. It tells: classes, by how '
        f"many standard deviations. It follows: rank correlations of {NOTABLE} or more.</p>"
        + _table(["coefficient", "it tells", "it follows", "mean", "spread", "of classes"], rows, text=3)
    )


def _clusters(atlas: Atlas) -> str:
    if not atlas.clusters.found:
        return "<p>No class has more than one kind, as far as the data can tell.</p>"
    points = atlas.points
    rows = []
    shown = [name for name in ("size", "iou") if name in points.numbers]
    found = [means(points.numbers[name], atlas.kinds, len(points.class_names) * MOST).mean for name in shown]
    for one in atlas.clusters.found:
        image, instance = points.name_of(one.example)
        difference = (one.centre - atlas.signatures.mean[one.of_class]) / np.sqrt(
            np.diag(atlas.moments.covariance)
        ).clip(1e-9)
        rows.append(
            cell(points.class_names[one.of_class], "text")
            + cell(f"{image} #{instance}", "text name", title=image)
            + cell(charts.strongest(difference, points.labels), "text")
            + cell(str(one.number))
            + cell(str(one.instances))
            + cell(f"{atlas.clusters.silhouettes[one.of_class]:.2f}")
            + "".join(cell(number(float(values[one.of_class * MOST + one.number]))) for values in found)
        )
    numbers = [f"mean {QUALITY_TITLES[name]}" for name in shown]
    headings = ["class", "example", "unlike its class", "kind", "instances", "silhouette", *numbers]
    return _table(headings, rows, text=3)


def _outliers(atlas: Atlas) -> str:
    distances = atlas.outliers
    if not np.isfinite(distances).any():
        return "<p>There are too few different instances to tell.</p>"
    points = atlas.points
    rows = []
    for point in np.argsort(-distances, kind="stable")[:LISTED]:
        image, instance = points.name_of(int(point))
        score, iou = (points.numbers.get(name) for name in ("score", "iou"))
        rows.append(
            cell(points.class_names[points.classes[point]], "text")
            + cell(f"{image} #{instance}", "text name", title=image)
            + cell(f"{distances[point]:.1f}")
            + (cell(number(float(score[point]))) if score is not None else "")
            + (cell(number(float(iou[point]))) if iou is not None else "")
        )
    known = [QUALITY_TITLES[name] for name in ("score", "iou") if name in points.numbers]
    headings = ["class", "instance", "distance", *known]
    return (
        '<p class="quiet">The instances furthest from the middle of their class, in robust standard deviations. There '
        "is no threshold: coefficients have heavy tails.</p>" + _table(headings, rows, text=2)
    )


def _duplicates(atlas: Atlas) -> str:
    points = atlas.points
    if not atlas.duplicates.groups:
        return "<p>There are none.</p>"
    rows = []
    for group in atlas.duplicates.groups[:LISTED]:
        (image, instance), (other, number_there) = points.name_of(group.first), points.name_of(group.second)
        rows.append(
            cell(f"{image} #{instance}", "text name", title=image)
            + cell(f"{other} #{number_there}", "text name", title=other)
            + cell(points.class_names[points.classes[group.first]], "text")
            + cell(f"{group.instances:,}")
            + cell(f"{group.images:,}")
            + cell(f"{group.distance:.2%}")
        )
    left = len(atlas.duplicates.groups) - len(rows)
    more = f'<p class="quiet">and {counted(left, "more group")}; points.parquet has all.</p>' if left else ""
    note = '<p class="quiet">Two instances of each group, and how far apart they are.</p>'
    return note + _table(["instance", "is like", "class", "instances", "images", "distance"], rows, text=3) + more


def _table(headings: Sequence[str], rows: Sequence[str], *, text: int) -> str:
    return table(headings, rows, text=text, sortable=True, tall=True)
