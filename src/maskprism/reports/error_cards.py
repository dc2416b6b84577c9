"""What went wrong, in strips of small pictures: missed instances, false positives, and classes that are confused."""

from __future__ import annotations

import html
import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TYPE_CHECKING, Literal, NamedTuple
from urllib.parse import urlencode

import numpy as np

from maskprism._common.text import counted
from maskprism.analysis.intervals import Interval, claimed_interval
from maskprism.drawing.mask_thumbnails import mask_against_truth
from maskprism.reports.html import Section, file_name
from maskprism.viewer.markup import data_url
from maskprism.viewer.payload import encode_webp

if TYPE_CHECKING:
    from maskprism.analysis.dataset.diagnosis import Diagnosis, PicturedImage
    from maskprism.reports.embedded_viewers import Embedded

CardKind = Literal["missed", "false-positives", "class"]
_IN_STRIP, _OF_PAIR, _PAIRS = 12, 4, 6
_SIDE = 168


class ErrorCard(NamedTuple):
    """An instance that went wrong.

    Attributes
    ----------
    instance
        Its number in the prediction; -1 for a missed one.
    object
        The number of the ground-truth instance; -1 without one.
    """

    kind: CardKind
    image: str
    instance: int
    object: int
    title: str


class ConfusedPair(NamedTuple):
    """Instances of one class that have the mask right and another class, with their share of the labelled ones.

    Attributes
    ----------
    n_instances, n_labelled
        How many are confused, of all labelled ones of the class.
    """

    labelled: str
    predicted: str
    share: Interval
    cards: Sequence[ErrorCard]
    n_instances: int
    n_labelled: int

    @property
    def heading(self) -> str:
        """How many of the labelled instances, with the interval of their share."""
        of = f"{self.n_instances} of {counted(self.n_labelled, 'instance')}, {self.share.plain()}"
        rest = ", too few images for an interval" if math.isnan(self.share.low) else ""
        return f"{self.labelled} labelled, {self.predicted} predicted: {of}{rest}"


@dataclass(frozen=True)
class ErrorCards:
    """The cards of a diagnosis: the largest missed instances, the surest false positives, the most confused pairs.

    Attributes
    ----------
    missed_share, false_share
        Of all ground-truth instances, and of all detections shown.
    pictures
        WebP by card, as `draw` adds them.
    missed_places
        The place of a missed card among what was missed in its image, as the viewer counts it.
    """

    missed: Sequence[ErrorCard]
    false_positives: Sequence[ErrorCard]
    pairs: Sequence[ConfusedPair]
    missed_share: Interval
    false_share: Interval
    pictures: dict[ErrorCard, bytes] = field(default_factory=dict)
    missed_places: dict[ErrorCard, int] = field(default_factory=dict)

    @classmethod
    def of(cls, found: Diagnosis) -> ErrorCards:
        """Choose them."""
        missed = sorted((one for one in found.objects if one.instance < 0), key=lambda one: -one.area)
        wrong = [one for one in found.detections if one.outcome == "false positive"]
        false = sorted((one for one in wrong if one.error != "class"), key=lambda one: -one.score)
        return cls(
            missed=[ErrorCard("missed", one.image, -1, one.object, one.class_name) for one in missed[:_IN_STRIP]],
            false_positives=[
                ErrorCard("false-positives", one.image, one.instance, -1, f"{one.class_name} {one.score:.2f}")
                for one in false[:_IN_STRIP]
            ],
            pairs=_pairs(found),
            missed_share=_share([one.instance < 0 for one in found.objects], [one.image for one in found.objects]),
            false_share=_share(
                [one.outcome == "false positive" for one in found.detections], [one.image for one in found.detections]
            ),
        )

    def __iter__(self) -> Iterator[ErrorCard]:
        """Go through the strips in turns, so that the first images are of all of them."""
        strips = (self.missed, self.false_positives, [card for pair in self.pairs for card in pair.cards])
        for turn in zip_longest(*strips):
            yield from (card for card in turn if card is not None)

    def draw(self, pictured: PicturedImage) -> None:
        """Draw the cards of an image."""
        nothing = np.zeros(pictured.image.shape[:2], dtype=bool)
        missed = pictured.matches.missed.tolist()
        for card in self:
            if card.image != pictured.name or card.instance >= len(pictured.prediction):
                continue
            if card.object >= len(pictured.truth):
                continue
            truth = pictured.truth.masks()[card.object] if card.object >= 0 else nothing
            mask = pictured.prediction[card.instance].mask("image") if card.instance >= 0 else nothing
            box = pictured.prediction.boxes[card.instance] if card.instance >= 0 else pictured.truth.boxes[card.object]
            picture = mask_against_truth(pictured.image, mask, truth, box, side=_SIDE)
            self.pictures[card] = encode_webp(picture, _SIDE)[0]
            if card.kind == "missed" and card.object in missed:
                self.missed_places[card] = missed.index(card.object)

    def section(self, found: Diagnosis, embedded: Embedded) -> Section:
        """Return the strips."""
        n_false = found.false_positives
        parts = [
            _strip_heading("missed", "Missed instances", "?show=missed"),
            f"<p>{found.missed} of {len(found.objects)} labelled instances: {self.missed_share.plain()}. The largest "
            "first; blue is the ground truth.</p>",
            self._strip(self.missed, embedded),
            _strip_heading("false-positives", "False positives (no matching label)", "?show=false-positives"),
            f"<p>{n_false} of {len(found.detections)} detections with a score above {found.conf:g}: "
            f"{self.false_share.plain()}. The most confident first, without those that are in the strips of confused "
            "classes; orange is the mask.</p>",
            self._strip(self.false_positives, embedded),
            _strip_heading("confused", "Confused classes", "?show=false-positives"),
            f"<p>The mask is right, the class is wrong.{'' if self.pairs else ' There are none.'}</p>",
        ]
        groups = [
            f"<div><h4>{html.escape(pair.heading)}</h4>{self._strip(pair.cards, embedded)}</div>" for pair in self.pairs
        ]
        parts.append(f'<div class="groups">{"".join(groups)}</div>')
        return Section("errors", "Missed instances, false positives, confused classes", "\n".join(parts))

    def _strip(self, cards: Sequence[ErrorCard], embedded: Embedded) -> str:
        if not cards:
            return '<p class="quiet">There are none.</p>'
        return f'<ul class="strip">{"".join(self._card(card, embedded) for card in cards)}</ul>'

    def _card(self, card: ErrorCard, embedded: Embedded) -> str:
        picture = self.pictures.get(card)
        alt = html.escape(f"{card.title} in {card.image}")
        image = (
            f'<img src="{data_url("image/webp", picture)}" alt="{alt}" loading="lazy">'
            if picture
            else '<span class="nothing">no picture</span>'
        )
        number = self.missed_places.get(card, 0) if card.kind == "missed" else card.instance
        address = embedded.address(card.image, number, missed=card.kind == "missed")
        query = {"image": card.image, **({"missed": number} if card.kind == "missed" else {"i": number})}
        target = f' data-gallery="?{html.escape(urlencode(query))}"'
        shown = f'<a class="open" href="{html.escape(address)}"{target}>{image}</a>' if address else image
        return f"<li>{shown}<span>{html.escape(card.title)}</span>{file_name(card.image)}</li>"


def _strip_heading(anchor: str, title: str, query: str) -> str:
    link = f'<a class="in-gallery" data-gallery="{query}" hidden>Show them in the gallery</a>'
    return f'<h3 id="{anchor}">{title} {link}</h3>'


def _share(hits: Sequence[bool], images: Sequence[str], comparisons: int = 1) -> Interval:
    share = claimed_interval(np.array(hits, dtype=np.float64), images, comparisons=comparisons)
    return Interval(share.mean, *np.clip(share[1:], 0, 1).tolist())  # far ends are extrapolated, and shares are not


def _pairs(found: Diagnosis) -> list[ConfusedPair]:
    """Return the pairs of classes that are confused most often."""
    labelled = {(one.image, one.object): one.class_name for one in found.objects}
    confused: dict[tuple[str, str], dict[tuple[str, int], ErrorCard]] = {}
    for one in sorted(found.detections, key=lambda one: -one.score):
        if one.error != "class" or (name := labelled.get((one.image, one.object))) is None:
            continue
        card = ErrorCard("class", one.image, one.instance, one.object, f"{one.class_name} {one.score:.2f}")
        # a label that several detections take for another class is one confused label
        confused.setdefault((name, one.class_name), {}).setdefault((one.image, one.object), card)
    pairs = sorted(confused.items(), key=lambda item: (-len(item[1]), item[0]))
    classes = Counter(labelled.values())
    return [
        ConfusedPair(
            *names,
            _share_of(found, labelled, names[0], cards.keys(), len(confused)),
            list(cards.values())[:_OF_PAIR],
            len(cards),
            classes[names[0]],
        )
        for names, cards in pairs[:_PAIRS]
    ]


def _share_of(
    found: Diagnosis,
    labelled: Mapping[tuple[str, int], str],
    name: str,
    taken: Collection[tuple[str, int]],
    n_pairs: int,
) -> Interval:
    own = [key for key, of in labelled.items() if of == name]
    return _share([key in taken for key in own], [image for image, _ in own], n_pairs)
