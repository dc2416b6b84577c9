"""Positional or semantic: what the values of every prototype depend on, over many images.

Everything here is a share of variance, so that neither the scale nor the sign of a prototype
matters. Prototypes are looked at on the grid cells that show the image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from maskprism._common.parallel import open_engine
from maskprism.analysis.intervals import MIN_IMAGES, too_few
from maskprism.analysis.prototypes.covariance import RunningCovariance
from maskprism.analysis.prototypes.position_maps import PLACES, HalfPlane, best_half_plane, place_means, ramp_variance
from maskprism.analysis.prototypes.translation import CHANGES, Movement, MovementTest, move
from maskprism.datasets.visit import Failure, OnProgress, VisitedImage, visit
from maskprism.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Float, Float32, Float64, Int64, UInt8

    from maskprism._common.choices import EngineName
    from maskprism._common.parallel import Engine
    from maskprism.analysis.prototypes.basis import CanonicalModel
    from maskprism.core.prediction import Prediction
    from maskprism.io.sources import SourceImage, Sources
    from maskprism.models import Model

_THUMBNAIL = 240

TAG_RULES: dict[str, str] = {
    "positional": "position explains ≥ 25 % of the variance",
    "half-plane": "the best half-plane alone explains ≥ 25 %",
    "semantic": "foreground explains ≥ 25 %, or class ≥ 25 % of the variance between instances",
    "luminance": "luminance explains ≥ 25 %",
    "edges": "edges explain ≥ 10 %",
    "fixed": "stays in place by 0.1 more than it follows, when the image is shifted or padded",
    "handed": "follows a mirrored image by 0.3 less than a shifted one: it tells left from right",
}
"""What every tag means; shown wherever tags are."""
THRESHOLDS: dict[str, float] = {
    "positional": 0.25,
    "half-plane": 0.25,
    "semantic": 0.25,
    "luminance": 0.25,
    "edges": 0.1,
}
"""Shares of variance at which the tags of shares are earned."""
_HANDED = 0.3
_CONSTANT = 1e-12


@dataclass(frozen=True, eq=False)
class Activation:
    """One image that activates a prototype strongly.

    Attributes
    ----------
    score
        Value of its strongest place, in standard deviations above (or below) the mean.
    values
        The prototype where it shows the image.
    picture
        The image, small, BGR.
    """

    name: str
    score: float
    values: Float32[np.ndarray, "h w"]
    picture: UInt8[np.ndarray, "H W 3"]


@dataclass(frozen=True, eq=False)
class Dependence:
    """What the values of K prototypes depend on; every share is of variance, 0 to 1, NaN where undefined.

    Attributes
    ----------
    images, instances
        How many were seen; instances are those whose mask has a cell on the grid.
    mean, spread
        Mean and standard deviation over all grid cells.
    place_means
        Mean at every position of the image; rows from top to bottom.
    position
        Share that two images have in common at the same position.
    ramp
        Share explained by a linear ramp over the image.
    half_planes
        Half planes by the best half-plane.
    luminance, edges
        By the image's luminance, and by the size of its Sobel gradient, alone.
    appearance
        By both together.
    foreground
        By whether a cell is inside any mask of the model.
    class_share
        Share of the variance between instances (of the mean inside the mask) that class explains: epsilon squared of
        Kelley (1935), corrected for the number of classes; 0 where it would be negative.
    class_means
        Mean inside instances of each class of `class_ids`, and class_counts instances.
    strongest
        Images with the strongest places, on the side (`side`, +1 or -1) that goes further from the mean.
    """

    images: int
    instances: int
    mean: Float64[np.ndarray, " K"]
    spread: Float64[np.ndarray, " K"]
    place_means: Float64[np.ndarray, "K P P"]
    position: Float64[np.ndarray, " K"]
    ramp: Float64[np.ndarray, " K"]
    half_planes: tuple[HalfPlane, ...]
    luminance: Float64[np.ndarray, " K"]
    edges: Float64[np.ndarray, " K"]
    appearance: Float64[np.ndarray, " K"]
    foreground: Float64[np.ndarray, " K"]
    class_share: Float64[np.ndarray, " K"]
    class_ids: Int64[np.ndarray, " C"]
    class_counts: Int64[np.ndarray, " C"]
    class_means: Float64[np.ndarray, "K C"]
    names: Mapping[int, str]
    side: Int64[np.ndarray, " K"]
    strongest: tuple[tuple[Activation, ...], ...]

    def __len__(self) -> int:
        return len(self.mean)

    def tags(self, k: int, movement: MovementTest | None = None) -> tuple[str, ...]:
        """Return the tags of `TAG_RULES` that prototype k has earned, without `movement` those of movement left out.

        None for a prototype that nothing here explains, and none where there are too few images: what few images have
        in common is often chance.
        """
        if too_few(self.images):
            return ()
        if movement is not None and too_few(movement.images):
            movement = None
        shares = {
            "positional": self.position[k],
            "half-plane": self.half_planes[k].explained,
            "semantic": np.fmax(self.foreground[k], self.class_share[k]),
            "luminance": self.luminance[k],
            "edges": self.edges[k],
        }
        earned = {tag: share >= THRESHOLDS[tag] for tag, share in shares.items()}
        earned["fixed"] = movement is not None and movement.verdict(k) == "stays"
        earned["handed"] = movement is not None and movement.handedness(k) >= _HANDED
        return tuple(tag for tag in TAG_RULES if earned[tag])

    def record(self, k: int, movement: MovementTest | None = None) -> dict[str, Any]:
        """Return the numbers and tags of prototype k as one row of a table; missing numbers are None."""
        plane = self.half_planes[k]
        numbers = {
            "mean": self.mean[k],
            "standard_deviation": self.spread[k],
            "position": self.position[k],
            "ramp": self.ramp[k],
            "half_plane": plane.explained,
            "half_plane_angle": plane.angle,
            "half_plane_offset": plane.offset,
            "foreground": self.foreground[k],
            "class": self.class_share[k],
            "luminance": self.luminance[k],
            "edges": self.edges[k],
            "luminance_and_edges": self.appearance[k],
        }
        for row, change in enumerate(CHANGES):
            numbers[f"{change}_follows"] = np.nan if movement is None else movement.follows[row, k]
            numbers[f"{change}_stays"] = np.nan if movement is None else movement.stays[row, k]
        known = {name: float(value) if np.isfinite(value) else None for name, value in numbers.items()}
        return {
            "prototype": k,
            "tags": " ".join(self.tags(k, movement)),
            **known,
            "strongest": self.strongest[k][0].name,
        }


class DependenceStudy:
    """Accumulates images and their predictions, one after the other, into a `Dependence`.

    Memory does not grow with the number of images: sums, and the `top` strongest images
    of every prototype as thumbnails.
    """

    def __init__(self, prototypes: int, names: Mapping[int, str], *, top: int = 4) -> None:
        self._names = names
        self._pixels = RunningCovariance(prototypes + 3)
        self._places = np.zeros((prototypes, PLACES, PLACES))
        self._place_squares = np.zeros((prototypes, PLACES, PLACES))
        self._means = RunningCovariance(prototypes)
        self._classes: dict[int, _ClassSums] = {}
        self._strongest = _Strongest(prototypes, top)

    def update(self, image: UInt8[np.ndarray, "H W 3"], prediction: Prediction, name: str = "") -> None:
        """Add one image (BGR) and what the model said about it.

        Raises
        ------
        InputError
            If they do not belong together, or come from another model.
        """
        k = len(self._places)
        if len(prediction.prototypes) != k:
            raise InputError(f"{name}: has {len(prediction.prototypes)} prototypes; the ones before had {k}")
        self.take(Observation.of(image, prediction, name))

    def take(self, seen: Observation) -> None:
        """Add one image by what was observed of it, on another machine perhaps."""
        self._pixels.merge(seen.pixels)
        self._places += seen.places
        self._place_squares += seen.places**2
        self._means.update(seen.places.mean(axis=(1, 2))[None])
        for class_id, means in seen.class_means:
            self._classes.setdefault(class_id, _ClassSums.zero(len(self._places))).update(means)
        self._strongest.update(seen)

    def compute(self) -> Dependence:
        """Return what the prototypes depend on.

        Raises
        ------
        InputError
            For fewer than two images: places need a comparison.
        """
        images, k = round(self._means.weight), len(self._places)
        if images < 2:
            raise InputError(f"there are {images} images; expected at least 2: position is what images have in common")
        total = np.diag(self._pixels.covariance)[:k]
        mean, means = self._pixels.mean[:k], self._places / images
        # Only products of two different images count, so that few images do not look alike by chance.
        pairs = ((self._places**2 - self._place_squares) / (images * (images - 1))).mean(axis=(1, 2))
        pairs -= (self._means.sums**2 - np.diag(self._means.products)) / (images * (images - 1))
        variables = range(k)
        share = {
            name: self._pixels.explained(variables, by)
            for name, by in {"l": [k], "e": [k + 1], "le": [k, k + 1], "f": [k + 2]}.items()
        }
        side, strongest = self._strongest.compute(mean, np.sqrt(total))
        class_ids = np.array(sorted(self._classes), dtype=np.int64)
        groups = [self._classes[class_id] for class_id in class_ids.tolist()]
        return Dependence(
            images=images,
            instances=sum(group.count for group in groups),
            mean=mean,
            spread=np.sqrt(total),
            place_means=means,
            position=_clipped(pairs, total),
            ramp=_clipped(ramp_variance(means), total),
            half_planes=tuple(
                best_half_plane(one, float(variance)) for one, variance in zip(means, total, strict=True)
            ),
            luminance=share["l"],
            edges=share["e"],
            appearance=share["le"],
            foreground=share["f"],
            class_share=_class_share(groups, k),
            class_ids=class_ids,
            class_counts=np.array([group.count for group in groups], dtype=np.int64),
            class_means=np.array([group.sums / group.count for group in groups]).reshape(-1, k).T,
            names=self._names,
            side=side,
            strongest=strongest,
        )


@dataclass(frozen=True, eq=False)
class Observation:
    """What a `DependenceStudy` takes of one image.

    Attributes
    ----------
    pixels
        Moments of prototypes, luminance, edges and foreground over grid cells.
    places
        Means of the prototypes at the positions of the image.
    class_means
        Class means of every mask with a cell, its class and the means inside.
    shown
        The prototypes where they show the image.
    picture
        The image, small, BGR.
    """

    name: str
    pixels: RunningCovariance
    places: Float64[np.ndarray, "K P P"]
    class_means: list[tuple[int, Float32[np.ndarray, " K"]]]
    shown: Float32[np.ndarray, "K h w"]
    picture: UInt8[np.ndarray, "h w 3"]

    @classmethod
    def of(cls, image: UInt8[np.ndarray, "H W 3"], prediction: Prediction, name: str = "") -> Observation:
        """Observe an image (BGR).

        Raises
        ------
        InputError
            If the prediction is about one of another size.
        """
        if image.shape[:2] != prediction.image_size:
            raise InputError(
                f"{name}: the image is {image.shape[1]} x {image.shape[0]} pixels; the prediction is "
                f"about one of {prediction.image_size[1]} x {prediction.image_size[0]}"
            )
        content = prediction.letterbox.content_cells
        shown = np.ascontiguousarray(prediction.prototypes[:, *content])
        luminance, edges = appearance(image, shown.shape[1:])
        masks = prediction.masks("grid")[:, *content]
        covariates = np.stack([luminance, edges, masks.any(axis=0)])
        return cls(
            name=name,
            pixels=RunningCovariance.of(np.concatenate([shown, covariates]).reshape(len(shown) + 3, -1).T),
            places=place_means(shown),
            class_means=[
                (int(class_id), shown[:, mask].mean(axis=1))
                for class_id, mask in zip(prediction.classes, masks, strict=True)
                if mask.any()
            ],
            shown=shown,
            picture=_thumbnail(image),
        )


def study_prototypes(
    items: Sources | Sequence[SourceImage],
    model: Model | CanonicalModel,
    *,
    moved: int = MIN_IMAGES,
    engine: EngineName | Engine = "threads",
    workers: int | None = None,
    on_progress: OnProgress = lambda done, total, failure: None,
) -> tuple[Dependence, MovementTest | None]:
    """Run a model over images, and tell what its prototypes depend on.

    Then `moved` of them, if there are as many, spread evenly over all, are also shifted, flipped and padded.

    Parameters
    ----------
    engine, workers, on_progress
        See `maskprism.datasets.visit.visit`.

    Raises
    ------
    InputError
        If fewer than two images could be read.
    """
    if moved < 0:
        raise InputError(f"moved is {moved}; expected 0 or more images")
    study = DependenceStudy(model.spec.prototypes, model.spec.names)
    observed: list[int] = []
    total = 0
    with open_engine(engine, workers) as opened:
        with closing(visit(items, model, _observed, engine=opened, on_progress=on_progress)) as results:
            for total, result in enumerate(results, 1):
                if not isinstance(result, Failure):
                    study.take(result)
                    observed.append(total - 1)
        chosen: list[int] = []
        for number in observed:
            if len(chosen) < moved and number * moved >= len(chosen) * total:
                chosen.append(number)
        again = [item for number, item in enumerate(items) if number in chosen]
        with closing(visit(again, model, _Mover(model), engine=opened)) as moves:
            movements = [one for one in moves if not isinstance(one, Failure)]
    return study.compute(), MovementTest.of(movements) if movements else None


def _observed(visited: VisitedImage[Prediction]) -> Observation:
    return Observation.of(visited.image, visited.prediction, visited.name)


@dataclass(frozen=True)
class _Mover:
    """What a worker does with one image that is moved."""

    model: Model | CanonicalModel

    def __call__(self, visited: VisitedImage[Prediction]) -> Movement:
        return move(self.model, visited.image, visited.prediction)


def appearance(
    image: UInt8[np.ndarray, "H W 3"], size_hw: tuple[int, ...]
) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
    """Luminance (0 to 1) and size of its Sobel gradient (per cell), both on a grid of (height, width)."""
    height, width = size_hw
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.float32) / 255
    luminance = np.asarray(cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA), dtype=np.float32)
    dx, dy = (cv2.Sobel(luminance, cv2.CV_32F, *order, scale=1 / 8) for order in ((1, 0), (0, 1)))
    return luminance, np.hypot(dx, dy)


@dataclass
class _ClassSums:
    """Means inside the masks of one class: how many, their sums, and the sums of their squares."""

    sums: Float64[np.ndarray, " K"]
    squares: Float64[np.ndarray, " K"]
    count: int = 0

    @classmethod
    def zero(cls, k: int) -> _ClassSums:
        return cls(np.zeros(k), np.zeros(k))

    def update(self, means: Float[np.ndarray, " K"]) -> None:
        exact = means.astype(np.float64)
        self.count += 1
        self.sums += exact
        self.squares += exact**2


def _class_share(groups: list[_ClassSums], k: int) -> Float64[np.ndarray, " K"]:
    count = sum(group.count for group in groups)
    if len(groups) < 2 or count <= len(groups):
        return np.full(k, np.nan)
    grand = np.sum([group.sums for group in groups], axis=0) / count
    between = np.sum([group.count * (group.sums / group.count - grand) ** 2 for group in groups], axis=0)
    squares = np.sum([group.squares for group in groups], axis=0)
    total = squares - count * grand**2
    total[total <= _CONSTANT * squares] = 0  # what rounding leaves of a constant
    within = (total - between) / (count - len(groups))
    return _clipped(between - (len(groups) - 1) * within, total)


def _clipped(part: Float64[np.ndarray, " K"], whole: Float64[np.ndarray, " K"]) -> Float64[np.ndarray, " K"]:
    found = np.full(len(whole), np.nan)
    np.divide(part, whole, out=found, where=whole > 0)
    return np.clip(found, 0, 1)


@dataclass
class _Strongest:
    """The images whose strongest place is highest, and lowest, per prototype."""

    prototypes: int
    top: int
    kept: dict[tuple[int, int], list[Activation]] = field(default_factory=dict)

    def update(self, seen: Observation) -> None:
        places = seen.places.reshape(self.prototypes, -1)
        for sign, extremes in ((1, places.max(axis=1)), (-1, places.min(axis=1))):
            for k, value in enumerate(extremes.tolist()):
                best = self.kept.setdefault((k, sign), [])
                if len(best) == self.top and sign * value <= sign * best[-1].score:
                    continue
                best.append(Activation(seen.name, value, seen.shown[k].copy(), seen.picture))
                best.sort(key=lambda one: -sign * one.score)
                del best[self.top :]

    def compute(
        self, mean: Float64[np.ndarray, " K"], spread: Float64[np.ndarray, " K"]
    ) -> tuple[Int64[np.ndarray, " K"], tuple[tuple[Activation, ...], ...]]:
        sides, chosen = np.ones(self.prototypes, dtype=np.int64), []
        for k in range(self.prototypes):
            reach = {sign: sum(sign * (one.score - mean[k]) for one in self.kept[k, sign]) for sign in (1, -1)}
            sides[k] = 1 if reach[1] >= reach[-1] else -1
            unit = spread[k] if spread[k] > 0 else np.inf
            chosen.append(
                tuple(
                    Activation(one.name, float((one.score - mean[k]) / unit), one.values, one.picture)
                    for one in self.kept[k, int(sides[k])]
                )
            )
        return sides, tuple(chosen)


def _thumbnail(image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
    zoom = _THUMBNAIL / max(image.shape[:2])
    size = (max(round(image.shape[1] * zoom), 1), max(round(image.shape[0] * zoom), 1))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR))
