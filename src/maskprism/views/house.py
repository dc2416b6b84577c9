"""One address for what was computed: an index over folders of results, and a page for those that have none.

What `diagnose`, `atlas`, `tune` and `page` write is linked; their reports get a link back. `compare`, `basis` and
`prototypes` write pictures and tables: each of their folders gets a page of them in the hand of the reports.
"""

from __future__ import annotations

import csv
import html
import io
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from maskprism.errors import InputError, MaskprismError
from maskprism.foreign import decode_json, read_regular
from maskprism.text import counted, readable
from maskprism.views.markup import data_url
from maskprism.views.report_parts import KICKER, Section, cell, findings, home_link, page, table

PAGE = "report.html"
_MOST_ROWS, _MOST_PICTURES = 400, 60
_HEAD_BYTES = 1 << 20
_MOST_BYTES = 64 << 20
_OURS = b'<meta name="generator" content="maskprism">'


class Number(NamedTuple):
    """A value of a JSON file: what it is called, and the keys that lead to it. style: as format() takes it."""

    title: str
    path: tuple[str, ...]
    style: str = ".3f"


@dataclass(frozen=True)
class Kind:
    """What one command writes.

    marks: files whose presence shows a result. page: the file that shows it. made: whether it is made here. numbers: of
    `json`. captions: of pictures by the begin of their names; others are not shown. wide: those that need the whole
    width. tables: what a row of each CSV file is.
    """

    command: str
    words: str
    marks: tuple[str, ...]
    page: str = PAGE
    json: str = ""
    numbers: tuple[Number, ...] = ()
    captions: Mapping[str, str] = field(default_factory=dict)
    wide: tuple[str, ...] = ()
    tables: Mapping[str, str] = field(default_factory=dict)
    made: bool = False


KINDS = (
    Kind(
        "diagnose",
        "where masks lose: detection or masks, which part of the network, what to work on",
        ("summary.json", PAGE),
        json="summary.json",
        numbers=(
            Number("images", ("data", "images"), ","),
            Number("ground-truth instances", ("objects",), ","),
            Number("mask AP", ("average_precision", "predict", "ap")),
            Number("mask AP50", ("average_precision", "predict", "ap50")),
            Number("box AP", ("average_precision", "boxes", "ap")),
            Number("mean mask IoU of what is found", ("error_budget", "mean", "iou")),
        ),
    ),
    Kind(
        "atlas",
        "all instances at once: a map, and what coefficients say of classes, sizes and places",
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
        "how two networks differ, and which part is to blame",
        ("comparison.json",),
        json="comparison.json",
        numbers=(
            Number("images", ("images",), ","),
            Number("instances in both", ("instances", "matched"), ","),
            Number("without a partner", ("unmatched_share",), ".1%"),
            Number("mean mask IoU", ("mask_iou", "mean")),
            Number("worst mask IoU", ("mask_iou", "worst")),
            Number("mean drift of scores", ("score_drift", "mean")),
            Number("lost in coefficients", ("parts", "coefficients")),
            Number("lost in prototypes", ("parts", "prototypes")),
            Number("lost in boxes", ("parts", "boxes")),
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
            "instances": "a row for every instance of either network: who its partner is, and how both differ",
            "prototypes": "for each prototype of one network the one that is most like it",
        },
        made=True,
    ),
    Kind(
        "basis",
        "how many of the prototypes are used, in a basis easier to read",
        ("basis.json",),
        json="basis.json",
        numbers=(
            Number("images", ("images",), ","),
            Number("instances", ("instances",), ","),
            Number("prototypes", ("prototypes",), ","),
            Number("effective rank of what is drawn", ("effective_rank", "contributions"), ".1f"),
            Number("of coefficients", ("effective_rank", "coefficients"), ".1f"),
            Number("components for 90 %", ("components_for", "90%"), ","),
            Number("components for 99 %", ("components_for", "99%"), ","),
        ),
        captions={
            "spectrum": "How much of what is drawn the first so many components hold.",
            "redundancy": "Which prototypes are drawn alike, and asked for alike.",
            "prototypes": "The prototypes of an image beside the components of the canonical basis.",
        },
        wide=("prototypes",),
        tables={
            "prototypes": "a row for each prototype: how much it adds, whether it is dead, what is most like it",
            "components": "a row for each component: its share, and how much of each prototype it takes",
        },
        made=True,
    ),
    Kind(
        "prototypes",
        "what every prototype depends on: a place, classes, edges, light",
        ("prototypes.csv", "prototypes.png"),
        captions={
            "prototypes": "All prototypes: their mean, and what they depend on.",
            "prototype-": "One prototype in detail.",
        },
        wide=("prototypes", "prototype-"),
        tables={"prototypes": "a row for each prototype: tags, and shares of its variance by what explains them"},
        made=True,
    ),
)
_TUNE = Kind(
    "tune",
    "what a correction of the coefficients gains",
    (),
    numbers=(
        Number("images", ("data", "images"), ","),
        Number("mean mask IoU before", ("mask_iou", "all", "before")),
        Number("and after", ("mask_iou", "all", "after")),
        Number("mask AP before", ("mask_ap", "before", "ap")),
        Number("and after", ("mask_ap", "after", "ap")),
    ),
)
_PAGE = Kind("page", "images and their masks to take apart", ())
_ORDER = ("diagnose", "atlas", "compare", "tune", "basis", "prototypes", "page")


@dataclass(frozen=True)
class Result:
    """What one command wrote. page: the file that shows it. said: the content of its JSON file."""

    kind: Kind
    page: Path
    title: str
    said: Mapping[str, Any] = field(default_factory=dict)

    @property
    def numbers(self) -> list[tuple[str, str]]:
        """Its values that matter, with their names; those that are missing, or no numbers, are left out."""
        found = []
        for number in self.kind.numbers:
            value: Any = self.said
            for key in number.path:
                value = value.get(key) if isinstance(value, Mapping) else None
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
                whole = int(value) if number.style == "," else value
                found.append((number.title, format(whole, number.style).replace("-", "−")))
        return found


def write_house(folders: Sequence[Path], out: Path) -> list[Path]:
    """Write the index over these folders and their subfolders, the pages that were missing, and links back to it.

    Gives all files that were written.
    Raises InputError where nothing is found, MaskprismError where a file is damaged, or cannot be read or written.
    """
    try:
        found = [result for folder in folders for result in _results(folder, out)]
        found = list({result.page.resolve(): result for result in found}.values())
        if not found:
            raise InputError(
                f"{', '.join(map(str, folders))}: holds nothing that maskprism {', '.join(_ORDER)} wrote; expected a "
                "folder with such results"
            )
        pages = {result.page: _page_of(result, out) for result in found if result.kind.made}
        pages |= {result.page: text for result in found if (text := _led_back(result, out))}
        for path, text in pages.items():
            path.write_text(text, encoding="utf-8", newline="\n")
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(_index(found, out), encoding="utf-8", newline="\n")
    except UnicodeDecodeError as error:
        raise MaskprismError(f"a report is no UTF-8 any more ({error}); run the command that wrote it again") from None
    except OSError as error:
        raise MaskprismError(
            f"{error.filename or out}: cannot be read or written ({error.strerror or error})"
        ) from None
    return [out, *pages]


def _results(folder: Path, out: Path) -> Iterator[Result]:
    if not folder.is_dir():
        raise InputError(f"{folder}: is no folder; expected one with results of maskprism")
    for root, folders, names in os.walk(folder):
        folders.sort()
        here, held = Path(root), set(names)
        known = set()
        for kind in KINDS:
            if held.issuperset(kind.marks) and (kind.made or _says(here / kind.page, _OURS)):
                known.add(kind.page)
                yield Result(kind, here / kind.page, readable(here.resolve().name), _json(here, kind.json))
        for name in sorted(held):
            path = here / name
            if name.endswith(".tune.html"):
                beside = f"{name.removesuffix('.html')}.json"
                said = _json(here, beside) if beside in held else {}
                yield Result(_TUNE, path, readable(name.removesuffix(".tune.html")), said)
            elif path.suffix == ".html" and name not in known and _says(path, b'id="maskprism-scenes"'):
                yield Result(_PAGE, path, readable(path.stem))


def _json(folder: Path, name: str) -> dict[str, Any]:
    if not name:
        return {}
    path = folder / name
    expected = "a file of results; run the command that wrote it again, or move it away"
    return decode_json(
        read_regular(path, MaskprismError, limit=_MOST_BYTES), dict[str, Any], str(path), MaskprismError, expected
    )


def _says(path: Path, mark: bytes) -> bool:
    """Whether a file says so in its beginning."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return mark in file.read(_HEAD_BYTES)


def _led_back(result: Result, out: Path) -> str:
    """A report of ours with a link to the index, in place of one to another index; nothing for other files."""
    if result.kind.made or result.kind is _PAGE or result.page.stat().st_size > _MOST_BYTES:
        return ""
    text = read_regular(result.page, MaskprismError).decode("utf-8")  # it says that it is ours
    before, kicker, after = text.partition(KICKER)
    if not kicker:
        return ""
    own = f"maskprism {result.kind.command}</p>"
    rest = after[after.find(own) :] if own in after[:4096] else ""
    return before + kicker + home_link(_link(result.page, out)) + rest if rest else ""


def _page_of(result: Result, out: Path) -> str:
    """Pictures and tables of a folder that has no page of its own."""
    folder, kind = result.page.parent, result.kind
    pictures = [(path, name) for path in sorted(folder.glob("*.png")) if (name := _named(path.stem, kind))]
    pictures.sort(key=lambda one: list(kind.captions).index(one[1]))
    shown = "".join(
        _picture(path, kind.captions[name], wide=name in kind.wide) for path, name in pictures[:_MOST_PICTURES]
    )
    left = len(pictures) - _MOST_PICTURES
    more = f'<p class="quiet">and {counted(left, "more picture")} in the folder</p>' if left > 0 else ""
    sections = (
        [findings([f"<li><p>{html.escape(one)}</p></li>" for one in said])] if (said := _sentences(result)) else []
    )
    if pictures:
        sections.append(Section("figures", "Pictures", f'<div class="figures">{shown}</div>{more}'))
    for name, what in kind.tables.items():
        path = folder / f"{name}.csv"
        if path.is_file():
            words = f'<p class="quiet">{html.escape(what[0].upper() + what[1:])}.</p>'
            sections.append(Section(f"table-{name}", name.capitalize(), words + _table_of(path)))
    return page(
        kind.command,
        title=result.title,
        subtitle=f"{kind.words[0].upper()}{kind.words[1:]}",
        warnings=(),
        tiles=result.numbers,
        sections=sections,
        home=_link(result.page, out),
    )


def _sentences(result: Result) -> list[str]:
    """What a comparison or a basis says in words, as far as its file has it."""
    said = result.said
    if result.kind.command == "compare":
        tolerance = said.get("tolerance")
        violations = tolerance.get("violations") if isinstance(tolerance, Mapping) else None
        found = [f"{one[0].upper()}{one[1:]}." for one in _texts(violations)]
        if isinstance(part := said.get("guilty"), str):
            found.append(f"Most of the difference comes from the {part}.")
        return found or ["Both networks are the same within the tolerance."]
    if result.kind.command == "basis" and isinstance(pairs := said.get("redundant_pairs"), list):
        numbers = [(pair.get("first"), pair.get("second")) for pair in pairs if isinstance(pair, Mapping)]
        named = ", ".join(f"{first} and {second}" for first, second in numbers[:8])
        dead = said.get("dead")
        return [
            *([f"Redundant, that is drawn alike and asked for alike: {named}."] if numbers else []),
            *(
                [f"Dead, that is adding next to nothing: {', '.join(map(str, dead))}."]
                if isinstance(dead, list) and dead
                else []
            ),
        ]
    return []


def _some(value: Any) -> bool:
    return isinstance(value, list) and bool(value)


def _texts(value: Any) -> list[str]:
    return [one for one in value if isinstance(one, str) and one] if isinstance(value, list) else []


def _named(stem: str, kind: Kind) -> str:
    """The name in `captions` that a picture goes by, the longest that fits; nothing for one that is not shown."""
    known = [name for name in kind.captions if stem == name or stem.startswith(f"{name.removesuffix('-')}-")]
    return max(known, key=len, default="")


def _picture(path: Path, caption: str, *, wide: bool) -> str:
    name, text = html.escape(readable(path.stem)), html.escape(caption)
    image = data_url("image/png", read_regular(path, MaskprismError, limit=_MOST_BYTES))
    link = f'<a href="{quote(path.name)}" title="The picture alone"><img src="{image}" alt="{text}" loading="lazy"></a>'
    caption = f'<figcaption>{text} <span class="quiet">{name}</span></figcaption>'
    return f"<figure{' class=wide' if wide else ''}>{link}{caption}</figure>"


def _table_of(path: Path) -> str:
    try:
        text = read_regular(path, MaskprismError, limit=_MOST_BYTES).decode("utf-8")
        headings, *rows = list(csv.reader(io.StringIO(text, newline=""), strict=True)) or [[]]
    except (UnicodeDecodeError, csv.Error) as error:
        raise MaskprismError(
            f"{path}: cannot be read as CSV ({error}); run the command that wrote it again, or move it away"
        ) from None
    if not headings:
        return "<p>It is empty.</p>"
    cells = ["".join(cell(_short(value)) for value in row) for row in rows[:_MOST_ROWS]]
    left = len(rows) - _MOST_ROWS
    more = f'<p class="quiet">and {counted(left, "more row")} in {html.escape(path.name)}</p>' if left > 0 else ""
    return table([name.replace("_", " ") for name in headings], cells, sortable=True, tall=True) + more


def _short(value: str) -> str:
    """A number with four digits; any other text as it is."""
    try:
        number = float(value)
    except ValueError:
        return value
    return value if number.is_integer() or not math.isfinite(number) else f"{number:.4g}".replace("-", "−")


def _index(found: Sequence[Result], out: Path) -> str:
    groups = [[result for result in found if result.kind.command == command] for command in _ORDER]
    return page(
        "report",
        title="All that was computed",
        subtitle=counted(len(found), "result"),
        warnings=(),
        tiles=(),
        sections=[_group(group, out) for group in groups if group],
    )


def _group(results: Sequence[Result], out: Path) -> Section:
    kind = results[0].kind
    items = "".join(_entry(result, out) for result in results)
    heading = f"{kind.words[0].upper()}{kind.words[1:]} ({kind.command})"
    return Section(kind.command, heading, f'<ol class="findings">{items}</ol>')


def _entry(result: Result, out: Path) -> str:
    link = f'<a href="{html.escape(_link(out, result.page))}">{html.escape(result.title)}</a>'
    return f'<li><p>{link}</p><p class="advice">{html.escape(_listed(result.numbers))}</p></li>'


def _listed(numbers: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f"{name} {value}" for name, value in numbers)


def _link(start: Path, target: Path) -> str:
    """The address of a file relative to another."""
    return quote(Path(os.path.relpath(target.resolve(), start.resolve().parent)).as_posix())
