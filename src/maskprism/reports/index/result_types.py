"""What the commands write: by which files a result is known, and which of its numbers, pictures and tables matter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

REPORT = "report.html"


class Number(NamedTuple):
    """A value of a JSON file: what it is called, and the keys that lead to it. style: as format() takes it."""

    title: str
    path: tuple[str, ...]
    style: str = ".3f"


class Rows(NamedTuple):
    """A CSV file: what one of its rows is, and the column that it is sorted by, with - before it the largest first."""

    words: str
    order: str = ""


@dataclass(frozen=True)
class Kind:
    """What one command writes.

    marks: files whose presence shows a result. page: the file that shows it. made: whether it is made here. numbers and
    networks (their names): of `json`, or of the table that `json` names. captions: of pictures by the begin of their
    names; others are not shown. wide: those that need the whole width. tables: CSV files.
    """

    command: str
    words: str
    marks: tuple[str, ...] = ()
    page: str = REPORT
    made: bool = False
    json: str = ""
    networks: tuple[tuple[str, ...], ...] = ()
    numbers: tuple[Number, ...] = ()
    captions: Mapping[str, str] = field(default_factory=dict)
    wide: tuple[str, ...] = ()
    tables: Mapping[str, Rows] = field(default_factory=dict)


KINDS = (
    Kind(
        "diagnose",
        "where masks lose: detection or masks, which part of the network, what to work on",
        ("summary.json", REPORT),
        json="summary.json",
        networks=(("model", "name"),),
        numbers=(
            Number("images", ("data", "images"), ","),
            Number("ground-truth instances", ("objects",), ","),
            Number("mask AP", ("average_precision", "predict", "ap")),
            Number("mask AP50", ("average_precision", "predict", "ap50")),
            Number("box AP", ("average_precision", "boxes", "ap")),
            Number("mean mask IoU of TP", ("error_budget", "mean", "iou")),
        ),
    ),
    Kind(
        "atlas",
        "all instances at once: a map, and what coefficients say of classes, sizes and positions",
        ("atlas.json", "atlas.html"),
        page="atlas.html",
        json="atlas.json",
        numbers=(
            Number("instances", ("instances",), ","),
            Number("images", ("images",), ","),
            Number("effective rank", ("effective_rank",), ".1f"),
            Number("with a near duplicate", ("duplicates", "instances"), ","),
        ),
    ),
    Kind(
        "compare",
        "how two networks differ, and which part is responsible",
        ("comparison.json",),
        page="compare.html",
        made=True,
        json="comparison.json",
        networks=(("a", "name"), ("b", "name")),
        numbers=(
            Number("images", ("images",), ","),
            Number("instances in both", ("instances", "matched"), ","),
            Number("unmatched", ("unmatched_share",), ".1%"),
            Number("mean mask IoU", ("mask_iou", "mean")),
            Number("worst mask IoU", ("mask_iou", "worst")),
            Number("mean difference of scores", ("score_drift", "mean")),
            Number("IoU lost in coefficients", ("parts", "coefficients")),
            Number("IoU lost in prototypes", ("parts", "prototypes")),
            Number("IoU lost in boxes", ("parts", "boxes")),
            Number("likeness of prototypes (CKA)", ("prototypes", "cka")),
        ),
        captions={
            "parts": "What each part of the network adds to the difference of the masks.",
            "agreement": "How alike the masks of both networks are, instance by instance.",
            "worst": "The pairs of masks that differ most.",
            "correlation": "Which prototypes of one network are like which of the other.",
            "angles": "How far the spaces that the prototypes span are turned against each other.",
            "drift": "What the numbers of the second network drift by.",
        },
        wide=("worst",),
        tables={
            "instances": Rows(
                "a row for every instance of either network: its match, how both masks differ, and how much "
                "of that each part of the network adds; masks that differ most come first",
                "mask_iou",
            ),
            "prototypes": Rows("for each prototype of A the one of B that is most like it", "-correlation"),
        },
    ),
    Kind(
        "basis",
        "how many of the prototypes are used, in a basis easier to read",
        ("basis.json",),
        page="basis.html",
        made=True,
        json="basis.json",
        networks=(("model",),),
        numbers=(
            Number("images", ("images",), ","),
            Number("instances", ("instances",), ","),
            Number("prototypes", ("prototypes",), ","),
            Number("effective rank of contributions", ("effective_rank", "contributions"), ".1f"),
            Number("effective rank of coefficients", ("effective_rank", "coefficients"), ".1f"),
            Number("components for 90\N{NO-BREAK SPACE}%", ("components_for", "90%"), ","),
            Number("components for 99\N{NO-BREAK SPACE}%", ("components_for", "99%"), ","),
        ),
        captions={
            "spectrum": "How much of the contributions the first n components hold.",
            "redundancy": "Which prototypes are drawn alike, and asked for alike.",
            "prototypes": "The prototypes of an image beside the components of the canonical basis.",
        },
        wide=("prototypes",),
        tables={
            "prototypes": Rows(
                "a row for each prototype: how much it adds to a logit, how much of that differs from place to place, "
                "whether it is dead, and which one is most like it; those that add most come first",
                "-rms_contribution",
            ),
            "components": Rows(
                "a row for each component of the canonical basis: its share of the contributions, and how much of each "
                "prototype it takes"
            ),
        },
    ),
    Kind(
        "prototypes",
        "what every prototype depends on: a place, classes, edges, light",
        ("prototypes.csv", "prototypes.png"),
        page="prototypes.html",
        made=True,
        json="prototypes.csv",
        numbers=(
            Number("prototypes", ("prototypes",), ","),
            *(
                Number(tag, (tag,), ",")
                for tag in ("positional", "half-plane", "semantic", "luminance", "edges", "fixed", "handed")
            ),
        ),
        captions={
            "prototypes": "All prototypes: their mean, and what they depend on.",
            "prototype-": "One prototype in detail.",
        },
        wide=("prototypes", "prototype-"),
        tables={
            "prototypes": Rows(
                "a row for each prototype: its tags, the shares of its variance by what explains them, whether it "
                "follows an image that is shifted, mirrored or padded or stays in place, and where it is strongest"
            )
        },
    ),
)
TUNE = Kind(
    "tune",
    "what a correction of the coefficients gains",
    networks=(("model", "name"),),
    numbers=(
        Number("images", ("data", "images"), ","),
        Number("mean mask IoU before", ("mask_iou", "all", "before")),
        Number("mean mask IoU after", ("mask_iou", "all", "after")),
        Number("mask AP before", ("mask_ap", "before", "ap")),
        Number("mask AP after", ("mask_ap", "after", "ap")),
    ),
)
PAGE = Kind("page", "images and their masks to take apart")
ORDER = ("diagnose", "atlas", "compare", "tune", "basis", "prototypes", "page")

HEADINGS = {
    "rms_contribution": "contribution (RMS)",
    "pattern_share": "share that is a pattern",
    "spread": "standard deviation",
    "coefficient_mean": "mean coefficient",
    "coefficient_spread": "standard deviation of the coefficient",
    "most_alike": "most like",
    "coefficients": "lost in coefficients",
    "prototypes": "lost in prototypes",
    "boxes": "lost in boxes",
    "path_coefficients": "one path: coefficients",
    "path_prototypes": "then prototypes",
    "path_boxes": "then boxes",
    "own_canvas_iou": "IoU on a canvas of its own",
    "truth_area": "area of the ground truth",
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
    **{
        f"{what}_{one}": f"{what} in {one.upper()}"
        for what in ("instance", "class", "score", "prototype")
        for one in "ab"
    },
    "box_iou": "box IoU",
    "mask_iou": "mask IoU",
    **{f"truth_iou_{one}": f"IoU of {one.upper()} with the ground truth" for one in "ab"},
}
"""What columns of CSV files are called; others by their names."""
