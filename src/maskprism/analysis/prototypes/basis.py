"""The basis that prototypes form: how much of it is used, and a canonical one.

Prototypes are only defined up to an invertible change of basis: A on the prototypes and its inverse
on the coefficients change no mask. So what matters is not a prototype alone but the space of
logits that coefficients and prototypes span together.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from maskprism._common.files import write_atomically
from maskprism.analysis.intervals import too_few
from maskprism.analysis.prototypes.covariance import RunningCovariance, effective_rank
from maskprism.core.decomposition import Decomposition
from maskprism.errors import InputError
from maskprism.io.untrusted import size_of_regular

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Float32, Float64

    from maskprism.core.prediction import Prediction
    from maskprism.io.images import ImageLike
    from maskprism.models import Model, ModelSpec

Region = Literal["boxes", "image"]
REGIONS: tuple[Region, ...] = ("boxes", "image")

REDUNDANT = 0.9
"""Two prototypes are redundant if they, or their coefficients, correlate at least this much (absolute value)."""
DEAD = 0.01
"""A prototype is dead if its rms contribution is below this share of that of all prototypes together."""
_LARGEST_CONDITION = 1 / float(np.finfo(np.float32).eps)
_FLOOR = 1e-12


class Usage:
    """How prototypes and coefficients are used over many images, added one prediction after the other.

    Memory does not grow with the images but for a number each.

    Attributes
    ----------
    image
        Moments of the K prototypes over the grid cells that show the images.
    boxes
        The same over the cells inside boxes, each cell once per box: where coefficients were trained.
    coefficients
        Moments of the weights (coefficients, times objectness if the rule says so) over instances.
    image_ranks
        Effective rank of the prototypes of every image.
    """

    def __init__(self, prototypes: int) -> None:
        self.image = RunningCovariance(prototypes)
        self.boxes = RunningCovariance(prototypes)
        self.coefficients = RunningCovariance(prototypes)
        self.image_ranks: list[float] = []

    @classmethod
    def of(cls, predictions: Iterable[Prediction]) -> Usage:
        """Return the usage over predictions of one model.

        Raises
        ------
        InputError
            If there is none.
        """
        found: Usage | None = None
        for prediction in predictions:
            found = found or cls(len(prediction.prototypes))
            found.update(prediction)
        if found is None:
            raise InputError("there are no predictions; expected at least one")
        return found

    def __len__(self) -> int:
        return len(self.coefficients)

    @property
    def images(self) -> int:
        """How many predictions were added."""
        return len(self.image_ranks)

    @property
    def instances(self) -> int:
        """How many instances they had."""
        return round(self.coefficients.weight)

    def update(self, prediction: Prediction) -> None:
        """Add one prediction.

        Raises
        ------
        InputError
            And adds nothing, if it has another number of prototypes, or holds NaN or infinity.
        """
        if len(prediction.prototypes) != len(self):
            raise InputError(
                f"{prediction.source or 'the prediction'} has {len(prediction.prototypes)} prototypes; "
                f"the ones before had {len(self)}: they must come from one model"
            )
        content = prediction.letterbox.content_cells
        samples = content_samples(prediction)
        moments, coefficients = RunningCovariance.of(samples), RunningCovariance.of(prediction.weights)
        self.image.merge(moments)
        covers = np.zeros(prediction.letterbox.grid_hw)
        for instance in prediction:
            covers[Decomposition(instance).box_window] += 1
        weights = covers[content].reshape(-1)
        inside = weights > 0
        self.boxes.update(samples[inside], weights[inside])
        self.coefficients.merge(coefficients)
        self.image_ranks.append(moments.effective_rank())

    def merge(self, other: Usage) -> None:
        """Add all images of another usage; one image each, in order, give what `add` gives to the last bit.

        Raises
        ------
        InputError
            If it has another number of prototypes.
        """
        if len(other) != len(self):
            raise InputError(
                f"the usages are of {len(self)} and {len(other)} prototypes: they must come from one model"
            )
        self.image.merge(other.image)
        self.boxes.merge(other.boxes)
        self.coefficients.merge(other.coefficients)
        self.image_ranks += other.image_ranks

    def prototypes(self, region: Region = "boxes") -> RunningCovariance:
        """Return the covariance of the prototypes over a region.

        Raises
        ------
        InputError
            If it has not a single cell.
        """
        if region not in REGIONS:
            raise InputError(f"region is {region!r}; expected one of {', '.join(map(repr, REGIONS))}")
        found = self.boxes if region == "boxes" else self.image
        if not found.weight or not self.instances:
            raise InputError(
                f"there is no instance in {self.images} images, so nothing says how coefficients use the "
                "prototypes; keep more detections with a lower conf, or take other images"
            )
        return found

    def rms_contributions(self, region: Region = "boxes") -> Float64[np.ndarray, " K"]:
        """Root mean square of weight times prototype, over instances and cells: sqrt(E[c_k^2] E[P_k^2]).

        Rescaling a prototype by s and its coefficients by 1/s changes none.
        """
        gram = self.prototypes(region).gram
        return np.sqrt(np.diag(gram) * np.diag(self.coefficients.gram))

    def pattern_shares(self, region: Region = "boxes") -> Float64[np.ndarray, " K"]:
        """Share of a prototype's mean square that is its pattern, 0 to 1; the rest is its level, which acts as a bias.

        NaN for a prototype of zeros.
        """
        moments = self.prototypes(region)
        square, found = np.diag(moments.gram), np.full(len(self), np.nan)
        np.divide(np.diag(moments.covariance), square, out=found, where=square > 0)
        return found

    def dead(self, below: float = DEAD, region: Region = "boxes") -> Bool[np.ndarray, " K"]:
        """Return which prototypes contribute next to nothing.

        Those whose rms contribution is below the share `below` of sqrt(sum of squares) of all K.
        """
        rms = self.rms_contributions(region)
        return rms < below * np.linalg.norm(rms)

    def redundant_pairs(self, threshold: float = REDUNDANT) -> list[RedundantPair]:
        """Pairs that draw the same (over the images) or are always used together (over instances).

        Those with an absolute correlation of at least `threshold` in either; strongest first.
        """
        if not 0 < threshold <= 1:
            raise InputError(f"threshold is {threshold}; expected a correlation above 0 and up to 1")
        drawn, used = np.nan_to_num(self.image.correlation), np.zeros((len(self), len(self)))
        if self.instances:
            used = np.nan_to_num(self.coefficients.correlation)
        strength = np.triu(np.maximum(np.abs(drawn), np.abs(used)), 1)
        found = np.argwhere(strength >= threshold)
        order = np.argsort(-strength[tuple(found.T)], kind="stable")
        return [RedundantPair(int(a), int(b), float(drawn[a, b]), float(used[a, b])) for a, b in found[order]]


class RedundantPair(NamedTuple):
    """Two prototypes, the correlation of what they draw, and that of their coefficients (0 where undefined)."""

    first: int
    second: int
    prototypes: float
    coefficients: float


@dataclass(frozen=True, eq=False)
class CanonicalBasis:
    """The principal components of what the coefficients really use.

    Among all bases of the same space the one in which prototypes are orthonormal (over the cells of
    `region`: mean square 1, mean product 0) and coefficients uncorrelated about zero (mean product 0
    over instances), ordered by the mean square logit that each component adds. It is the same
    whatever basis the model was given in. The first M components are the best approximation of
    the logits with M prototypes in the mean square, if instances and cells are taken as
    independent of each other.

    Attributes
    ----------
    matrix
        `[K, K]`, components = matrix @ prototypes.
    inverse
        Coefficients @ inverse are the new ones.
    energies
        Mean square logit of each component, largest first; they sum to that of the logits. Signs: the mean coefficient
        of a component is positive, so that it is drawn with the sign of its contribution to the average instance.
    model_sha256
        Model sha256 of the model file that it was measured with, "" where that is not known.
    """

    matrix: Float64[np.ndarray, "K K"]
    inverse: Float64[np.ndarray, "K K"]
    energies: Float64[np.ndarray, " K"]
    region: Region
    model_sha256: str = ""

    @classmethod
    def of(cls, usage: Usage, region: Region = "boxes") -> CanonicalBasis:
        """Return the canonical basis of a usage.

        Raises
        ------
        InputError
            If there was no instance.
        """
        matrix, inverse, energies = canonical_maps(usage.prototypes(region).gram, usage.coefficients.gram)
        signs = np.where(usage.coefficients.mean @ inverse < 0, -1.0, 1.0)
        return cls(matrix * signs[:, None], inverse * signs, energies, region)

    def __len__(self) -> int:
        return len(self.energies)

    @property
    def shares(self) -> Float64[np.ndarray, " K"]:
        """Share of the mean square logit that each component explains; they sum to 1."""
        total = self.energies.sum()
        return self.energies / total if total > 0 else np.zeros(len(self))

    @property
    def effective_rank(self) -> float:
        """Effective rank of the contributions: the same whatever the scale or basis of the prototypes."""
        return effective_rank(np.sqrt(self.energies))

    def components_for(self, share: float) -> int:
        """Return how many components explain at least this share of the mean square logit."""
        if not 0 < share <= 1:
            raise InputError(f"share is {share}; expected a number above 0 and up to 1")
        return min(int(np.searchsorted(np.cumsum(self.shares), share - 1e-12)) + 1, len(self))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the basis into an .npz file."""
        write_atomically(path, lambda partial: np.savez(partial, **vars(self)))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> CanonicalBasis:
        """Read a basis that `save` wrote.

        Raises
        ------
        InputError
            For any other file.
        """
        size_of_regular(path, InputError)
        try:
            with np.load(path, allow_pickle=False) as found:
                region = next(one for one in REGIONS if one == str(found["region"]))
                measured_with = str(found["model_sha256"])
                matrix, inverse, energies = (
                    found[name].astype(np.float64) for name in ("matrix", "inverse", "energies")
                )
                sides = (len(energies), len(energies))
                if not matrix.shape == inverse.shape == sides or not np.isfinite([*matrix, *inverse, energies]).all():
                    raise ValueError
                return cls(matrix, inverse, energies, region, measured_with)
        except Exception as error:  # zip and numpy raise a dozen types for other files
            reason = f" ({error.strerror})" if isinstance(error, OSError) and error.strerror else ""
            raise InputError(f"{path}: is not a canonical basis as `maskprism basis` writes it{reason}") from None

    def apply(self, prediction: Prediction, components: int | None = None) -> Prediction:
        """Return the prediction in the canonical basis; with `components`, only the first n (masks then change)."""
        if len(prediction.prototypes) != len(self):
            raise InputError(f"the basis is of {len(self)} prototypes; the prediction has {len(prediction.prototypes)}")
        if components is not None and not 1 <= components <= len(self):
            raise InputError(f"components is {components}; expected 1 to {len(self)}")
        return _in_basis(prediction, self.matrix[:components], self.inverse[:, :components])


def canonical_maps(
    gram: Float64[np.ndarray, "K K"], second: Float64[np.ndarray, "K K"]
) -> tuple[Float64[np.ndarray, "K K"], Float64[np.ndarray, "K K"], Float64[np.ndarray, " K"]]:
    """Matrix, inverse and energies of the canonical basis, up to signs.

    With the Gram matrix G of the prototypes and S of the coefficients: a factor F F^T = G, then the
    eigenvectors U of F^T S F; matrix = U^T F^-1, inverse = F U.
    """
    # Every prototype is brought to a mean square of 1 first, so that its scale decides nothing.
    square = np.diag(gram)
    scale = np.sqrt(np.where(square > 0, square, 1.0))
    values, vectors = np.linalg.eigh(gram / np.outer(scale, scale))
    roots = np.sqrt(np.maximum(values, _FLOOR * values.max() or _FLOOR))
    factor = scale[:, None] * vectors * roots
    unfactor = (vectors / roots).T / scale
    energies, turn = np.linalg.eigh(factor.T @ second @ factor)
    turn = turn[:, ::-1]
    return turn.T @ unfactor, factor @ turn, np.clip(energies[::-1], 0, None)


@dataclass(frozen=True)
class CanonicalModel:
    """A model whose prototypes are those of a canonical basis; its masks are the same.

    Raises
    ------
    InputError
        For a basis of another number of prototypes.
    """

    model: Model
    basis: CanonicalBasis

    def __post_init__(self) -> None:
        if len(self.basis) != self.spec.prototypes:
            raise InputError(f"the basis is of {len(self.basis)} prototypes; the model has {self.spec.prototypes}")

    @property
    def spec(self) -> ModelSpec:
        """That of the model."""
        return self.model.spec

    @property
    def batch(self) -> int:
        """That of the model."""
        return self.model.batch

    @property
    def grey(self) -> bool:
        """That of the model."""
        return self.model.grey

    def predict(self, images: list[ImageLike], /) -> list[Prediction]:
        """Return what the model says about each image, in the canonical basis."""
        return [self.basis.apply(prediction) for prediction in self.model.predict(images)]


def change_basis(prediction: Prediction, matrix: Float[np.ndarray, "K K"]) -> Prediction:
    """Return the same masks from other prototypes: `matrix` @ prototypes, coefficients @ its inverse.

    Raises
    ------
    InputError
        For a matrix of another shape, or one that float32 cannot invert (its condition number, rows scaled to length 1,
        is in the message).
    """
    exact = np.asarray(matrix, dtype=np.float64)
    k = len(prediction.prototypes)
    if exact.shape != (k, k):
        raise InputError(f"the matrix has shape {exact.shape}; expected ({k}, {k}) for {k} prototypes")
    if not np.all(np.isfinite(exact)):
        raise InputError("the matrix holds numbers that are not finite; expected an invertible matrix")
    lengths = np.linalg.norm(exact, axis=1, keepdims=True)
    condition = float(np.linalg.cond(exact / lengths)) if np.all(lengths > 0) else np.inf
    if condition > _LARGEST_CONDITION:
        raise InputError(
            f"the matrix cannot be inverted: its condition number is {condition:.3g}, "
            f"the limit {_LARGEST_CONDITION:.3g}; expected one whose rows are independent"
        )
    return _in_basis(prediction, exact, np.linalg.inv(exact))


def content_samples(prediction: Prediction) -> Float32[np.ndarray, "M K"]:
    """Return the prototypes as samples: one row per grid cell that shows the image, padding left out."""
    return prediction.prototypes[:, *prediction.letterbox.content_cells].reshape(len(prediction.prototypes), -1).T


def _in_basis(
    prediction: Prediction, matrix: Float64[np.ndarray, "M K"], inverse: Float64[np.ndarray, "K M"]
) -> Prediction:
    prototypes = np.tensordot(matrix, prediction.prototypes.astype(np.float64), axes=1)
    return replace(
        prediction,
        prototypes=prototypes.astype(np.float32),
        coefficients=(prediction.coefficients.astype(np.float64) @ inverse).astype(np.float32),
    )


def prototype_rows(usage: Usage, region: Region = "boxes") -> list[dict[str, int | float | bool]]:
    """One dictionary per prototype: what it contributes, what its coefficients are like, and which one is most alike.

    rms_contribution, pattern_share, dead: see `Usage`; nan where undefined; of too few images none is dead. mean,
    spread: of its values in the region; coefficient_mean, coefficient_spread: of its coefficients over instances.
    most_alike, correlation: the other prototype with the largest absolute correlation, over the images; -1 and nan
    where none is defined.
    """
    drawn, used = usage.prototypes(region), usage.coefficients
    others = usage.image.correlation.copy()
    np.fill_diagonal(others, np.nan)
    alike = np.nan_to_num(np.abs(others))
    matched_with = np.where(alike.any(axis=1), alike.argmax(axis=1), -1)
    correlation = np.where(matched_with < 0, np.nan, others[np.arange(len(usage)), matched_with])
    columns = {
        "prototype": range(len(usage)),
        "rms_contribution": usage.rms_contributions(region),
        "pattern_share": usage.pattern_shares(region),
        "dead": usage.dead(region=region) & (not too_few(usage.images)),
        "mean": drawn.mean,
        "spread": np.sqrt(np.diag(drawn.covariance)),
        "coefficient_mean": used.mean,
        "coefficient_spread": np.sqrt(np.diag(used.covariance)),
        "most_alike": matched_with,
        "correlation": correlation,
    }
    plain = {name: np.asarray(values).tolist() for name, values in columns.items()}
    return [dict(zip(plain, row, strict=True)) for row in zip(*plain.values(), strict=True)]


def component_rows(basis: CanonicalBasis) -> list[dict[str, int | float]]:
    """One dictionary per canonical component.

    Its share of the mean square logit, alone and with all before it, and how much of each prototype it is made of (a
    row of `CanonicalBasis.matrix`).
    """
    upto = np.cumsum(basis.shares)
    return [
        {"component": m, "share": float(basis.shares[m]), "share_so_far": float(upto[m])}
        | {f"prototype_{k}": float(value) for k, value in enumerate(basis.matrix[m])}
        for m in range(len(basis))
    ]


def summary(usage: Usage, basis: CanonicalBasis) -> dict[str, Any]:
    """Return the numbers of a basis as plain values, for JSON.

    Of too few images no prototype is called dead or redundant: others may need it.
    """
    few = too_few(usage.images)
    contributions = usage.rms_contributions(basis.region)
    return {
        "images": usage.images,
        "instances": usage.instances,
        "prototypes": len(usage),
        "region": basis.region,
        "effective_rank": {
            "prototypes_of_one_image": float(np.median(usage.image_ranks)),
            "prototypes_of_all_images": usage.image.effective_rank(),
            "coefficients": usage.coefficients.effective_rank(),
            "contributions": basis.effective_rank,
        },
        "components_for": {f"{share:.0%}": basis.components_for(share) for share in (0.9, 0.95, 0.99)},
        "component_shares": basis.shares.tolist(),
        "rms_contributions": contributions.tolist(),
        "pattern_shares": [share if np.isfinite(share) else None for share in usage.pattern_shares(basis.region)],
        "too_few_images": few,
        "dead": [] if few else np.flatnonzero(usage.dead(region=basis.region)).tolist(),
        "redundant_pairs": [] if few else [pair._asdict() for pair in usage.redundant_pairs()],
    }
