"""Reduce a model file: find the basis over images, write the file, and say what it costs and saves."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from maskprism._common.files import reporting_write_errors
from maskprism._common.text import counted
from maskprism.analysis.dataset.coco_ap import average_precision
from maskprism.analysis.intervals import MIN_IMAGES, too_few
from maskprism.analysis.reduction.trade_off import Reduction, TradeOff, fit_halves, measure, reductions
from maskprism.analysis.truth.overlaps import Region, mask_overlaps, regions
from maskprism.core.geometry import box_iou
from maskprism.datasets import Dataset
from maskprism.datasets.visit import Asking, Failure, VisitedImage, visit
from maskprism.errors import InputError
from maskprism.io.sources import spread
from maskprism.models import load
from maskprism.models.onnx.file import read_onnx
from maskprism.models.rewrite import check_rewritable, noise_batch, write_reduced

if TYPE_CHECKING:
    from jaxtyping import Float32, UInt8

    from maskprism.analysis.dataset.coco_ap import AveragePrecision
    from maskprism.analysis.reduction.trade_off import Method
    from maskprism.analysis.truth.overlaps import Overlaps
    from maskprism.core.prediction import Prediction
    from maskprism.datasets import GroundTruth
    from maskprism.datasets.visit import Predictor
    from maskprism.io.sources import ImageFiles, VideoFile
    from maskprism.models import Model
    from maskprism.models.rewrite import Rewritten

Said = TypeVar("Said")
Result = TypeVar("Result")
PASSES = 3
"""How often the images are gone through: to fit, to measure the trade-off, to compare the two files."""
AP_CONF = 0.001
"""Average precision takes all detections above this score, as in COCO's evaluation."""
_SAME_BOX = 0.9
_RUNS = 7
_CURVE_POINTS = 16


@dataclass
class CalibrationImages:
    """Images that are gone through several times, with ground truth where the source has it.

    Attributes
    ----------
    failed
        Those that could not be used; they are left out from then on.
    limit
        At most this many, evenly spread over the source; the first ones of a video that does not tell how many it has.
    """

    source: ImageFiles | VideoFile | Dataset
    failed: dict[str, Failure] = field(default_factory=dict)
    limit: int | None = None

    def __post_init__(self) -> None:
        whole = self.count()
        chosen = spread(self.limit or 0 if whole is None else whole, self.limit)
        if self.limit is not None:
            self.source = self.source.take(chosen)

    @property
    def labelled(self) -> bool:
        """Whether there is ground truth."""
        return isinstance(self.source, Dataset)

    def count(self) -> int | None:
        """Return how many there are, as far as the source tells."""
        return len(self.source) if isinstance(self.source, Dataset) else self.source.count()

    def visit(
        self,
        model: Predictor[Said],
        examine: Callable[[VisitedImage[Said]], Result],
        *,
        workers: int | None = None,
        on_image: Callable[[Failure | None], None] = lambda failure: None,
    ) -> Iterator[Result]:
        """Go through all images that have not failed; on_image is called after each, with a failure if it is new."""
        before = set(self.failed)
        with closing(visit(self.source, model, partial(_with_name, examine), workers=workers)) as results:
            for result in results:
                failure: Failure | None = None
                if isinstance(result, Failure):
                    failure = None if result.name in before else self.failed.setdefault(result.name, result)
                elif result[0] not in before:
                    yield result[1]
                on_image(failure)


def _with_name(examine: Callable[[VisitedImage[Said]], Result], visited: VisitedImage[Said]) -> tuple[str, Result]:
    return visited.name, examine(visited)


@dataclass(frozen=True, eq=False)
class FileComparison:
    """The reduced file against the full one over the same images, both run.

    Attributes
    ----------
    ious
        Mask IoU at canvas size of every instance of the full one with that of the reduced one at the same box; 0 where
        there is none.
    by_image
        Their mean, by name, of images that have instances.
    precision
        Mask AP at canvas size of the full and the reduced file; None without ground truth.
    network_ms, product_ms, masks_ms
        Medians per image on this machine, full and reduced: computing the model, the weighted sums alone, and masks at
        canvas size with them.
    output_bytes, file_bytes
        Of one image's output tensors, and of the files.
    """

    ious: Float32[np.ndarray, " N"]
    by_image: dict[str, float]
    precision: tuple[AveragePrecision, AveragePrecision] | None
    network_ms: tuple[float, float]
    product_ms: tuple[float, float]
    masks_ms: tuple[float, float]
    output_bytes: tuple[int, int]
    file_bytes: tuple[int, int]

    def summary(self) -> dict[str, Any]:
        """Return the numbers, for `json_text`: NaN without an instance."""
        found: dict[str, Any] = {
            "images": len(self.by_image),
            "too_few_images": too_few(len(self.by_image)),
            "instances": len(self.ious),
            "mask_iou": {
                "mean": self.ious.mean() if len(self.ious) else math.nan,
                "median": np.median(self.ious) if len(self.ious) else math.nan,
                "p5": np.percentile(self.ious, 5) if len(self.ious) else math.nan,
            },
        }
        for name in ("network_ms", "product_ms", "masks_ms", "output_bytes", "file_bytes"):
            full, reduced = getattr(self, name)
            found[name] = {"full": full, "reduced": reduced}
        if self.precision is not None:
            full_ap, reduced_ap = self.precision
            found["mask_ap"] = {
                name: {"full": getattr(full_ap, name), "reduced": getattr(reduced_ap, name)}
                for name in ("ap", "ap50", "ap75")
            }
        return found


class BeforeAfter(NamedTuple):
    """One image (BGR), what the full and the reduced model say of it, and the mean mask IoU between them."""

    image: UInt8[np.ndarray, "H W 3"]
    full: Prediction
    reduced: Prediction
    iou: float


@dataclass(frozen=True, eq=False)
class ReducedFile:
    """A reduced model: what was kept, why that many, where it was written, and how it compares."""

    path: Path
    source: Path
    reduction: Reduction
    trade_off: TradeOff
    rewritten: Rewritten
    comparison: FileComparison

    def summary(self) -> dict[str, Any]:
        """Return the numbers as plain values, for JSON."""
        return {
            "file": self.path.name,
            "source": self.source.name,
            "method": self.reduction.method,
            "keep": len(self.reduction),
            "of": self.reduction.prototype_map.shape[1],
            "kept": self.reduction.kept,
            "prototypes_are": self.rewritten.prototypes,
            "coefficients_are": self.rewritten.coefficients,
            "files_compared": self.comparison.summary(),
            "trade_off": self.trade_off.summary(),
        }

    def lines(self) -> list[str]:
        """Return the findings, a sentence each."""
        compared, k = self.comparison, self.reduction.prototype_map.shape[1]
        curve = self.trade_off.of(self.reduction.method, len(self.reduction))
        measured = "images it was not fitted to" if self.trade_off.held_out else "the images it was fitted to"
        found = []
        if too_few(len(compared.by_image)):
            found.append(
                f"Only {counted(len(compared.by_image), 'image')} with instances: a basis of fewer than {MIN_IMAGES} "
                "fits these, and masks of others may be much worse than the numbers below; use more images."
            )
        found += [
            f"{len(self.reduction)} of {k} prototypes by {self.reduction.method}: mask IoU with the full model "
            f"{curve.mean():.3f} mean, {np.median(curve):.3f} median, {np.percentile(curve, 5):.3f} 5th percentile, "
            f"over {len(curve)} instances of {measured}."
        ]
        if compared.precision is not None:
            full, reduced = compared.precision
            found.append(
                f"Mask AP at canvas size: {full.ap:.4f} → {reduced.ap:.4f}; AP50: {full.ap50:.4f} → {reduced.ap50:.4f}."
            )
        for what, (before, after), unit in (
            ("Masks of an image", compared.masks_ms, "ms"),
            ("Weighted sums on the whole grid", compared.product_ms, "ms"),
            ("Running the model", compared.network_ms, "ms"),
            ("Outputs", _in_megabytes(compared.output_bytes), "MB"),
            ("File", _in_megabytes(compared.file_bytes), "MB"),
        ):
            change = round(after / before - 1, 2)
            percent = f"{change:+.0%}".replace("-", "−") if change else "0%"
            found.append(f"{what}: {before:.2f} → {after:.2f} {unit} ({percent}).")
        kept = self.reduction.kept
        if kept is not None:
            found.append(f"Kept, most useful first: {', '.join(map(str, kept))}.")
        return found

    def examples(self, images: CalibrationImages, full: Model, reduced: Model) -> list[BeforeAfter]:
        """Return the image whose masks changed most, and one in the middle, with what both models say of them."""
        ious = self.comparison.by_image
        by_iou = sorted(ious, key=lambda name: ious[name])
        wanted = list(dict.fromkeys((by_iou[0], by_iou[len(by_iou) // 2]))) if by_iou else []
        asking = Asking(partial(_under_both, (full, reduced)), full.grey)
        read = {one.name: one for one in images.visit(asking, lambda one: one if one.name in wanted else None) if one}
        found = [(read[name].image, read[name].prediction, ious[name]) for name in wanted if name in read]
        return [BeforeAfter(image, before, after, iou) for image, (before, after), iou in found]


def reduce_file(
    model: Model,
    source: Path,
    images: CalibrationImages,
    out: Path,
    *,
    keep: int | None = None,
    mask_iou: float | None = None,
    method: Method = "projection",
    reopen: Callable[[Path], Model] = load,
    on_image: Callable[[Failure | None], None] = lambda failure: None,
) -> ReducedFile:
    """Write the file `source`, opened as `model`, with fewer prototypes to `out`, and compare the two.

    Parameters
    ----------
    keep
        How many prototypes to keep.
    mask_iou
        Instead, as few as keep the mean mask IoU with the full model at least at this, as measured on images that the
        basis was not fitted to.
    reopen
        Opens the new file, as `model` was opened. on_image is called after each image of each of the `PASSES`, with a
        failure if it is a new one.

    Raises
    ------
    InputError
        Unless exactly one of `keep` and `mask_iou` is given and within range, or where no image has an instance; and
        what `write_reduced` raises.
    """
    k = model.spec.prototypes
    if (keep is None) == (mask_iou is None):
        raise InputError("say either how many prototypes to keep or which mask IoU to keep, not both or neither")
    if mask_iou is not None and not 0 < mask_iou <= 1:
        raise InputError(f"mask IoU is {mask_iou}; expected a number above 0 and up to 1")
    if keep is not None and not 1 <= keep < k:
        raise InputError(f"cannot keep {keep} prototypes of {k}; expected 1 to {k - 1}")

    def predictions() -> Iterator[Prediction]:
        read = False
        for prediction in images.visit(model, lambda visited: visited.prediction, on_image=on_image):
            read = True
            yield prediction
        if not read:
            raise InputError(f"none of the {len(images.failed)} images can be read; take others")

    read_onnx(source)
    check_rewritable(model)
    with reporting_write_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(images.source, Dataset):
        images.source.for_model(model.spec.names)  # both say at once what is wrong
        average_precision([])
    halves = fit_halves(predictions())
    total = halves[0] + halves[1]
    steps = None if keep is None else [keep, *range(1, k, math.ceil(k / _CURVE_POINTS))]
    trade_off = measure(predictions(), halves, steps)
    chosen = keep if mask_iou is None else trade_off.smallest(method, mask_iou)
    assert chosen is not None
    (reduction,) = reductions(total, method, [chosen])
    note = {
        "source": source.name,
        "source_sha256": model.spec.sha256,
        "method": method,
        "prototypes": f"{chosen} of {k}",
        "kept": reduction.kept,
    }
    rewritten = write_reduced(
        model,
        source,
        out,
        reduction.prototype_map,
        reduction.coefficient_map,
        {"maskprism_reduced": json.dumps(note)},
    )
    comparison = compare_files(model, reopen(out), images, (source, out), on_image)
    return ReducedFile(out, source, reduction, trade_off, rewritten, comparison)


def compare_files(
    full: Model,
    reduced: Model,
    images: CalibrationImages,
    files: tuple[Path, Path],
    on_image: Callable[[Failure | None], None] = lambda failure: None,
) -> FileComparison:
    """Run both models on all images; see `FileComparison`."""
    models = (full, reduced)
    wide = [_with_conf(model, AP_CONF) for model in models] if images.labelled else list(models)
    ious: list[Float32[np.ndarray, " N"]] = []
    by_image: dict[str, float] = {}
    overlaps: tuple[list[Overlaps], list[Overlaps]] = ([], [])
    product: tuple[list[float], list[float]] = ([], [])
    masks: tuple[list[float], list[float]] = ([], [])
    if isinstance(images.source, Dataset):
        images = replace(images, source=images.source.for_model(full.spec.names), limit=None)

    def compared(visited: VisitedImage[list[Prediction]]) -> None:
        found = [one[one.scores > full.keep.conf] for one in visited.prediction]
        same = matched_ious(*found)
        ious.append(same)
        if len(same):
            by_image[visited.name] = float(same.mean())
            for side in (0, 1) if len(by_image) % 2 else (1, 0):
                for times, elapsed in zip((product[side], masks[side]), _decode_ms(found[side]), strict=True):
                    times.append(elapsed)
        if visited.truth is not None:
            for one, kept in zip(visited.prediction, overlaps, strict=True):
                kept.append(_against_truth(one, visited.truth))

    asking = Asking(partial(_under_both, wide), full.grey)
    for _ in images.visit(asking, compared, workers=1, on_image=on_image):  # one after the other: times are taken
        pass
    precision = None
    if images.labelled:
        precision = (average_precision(overlaps[0]), average_precision(overlaps[1]))
    network, sizes = _network_ms_and_bytes(models)
    return FileComparison(
        ious=np.concatenate(ious) if ious else np.zeros(0, dtype=np.float32),
        by_image=by_image,
        precision=precision,
        network_ms=network,
        product_ms=(_median(product[0]), _median(product[1])),
        masks_ms=(_median(masks[0]), _median(masks[1])),
        output_bytes=sizes,
        file_bytes=(files[0].stat().st_size, files[1].stat().st_size),
    )


def _under_both(models: Sequence[Model], image: UInt8[np.ndarray, "H W 3"]) -> list[Prediction]:
    return [model.predict(image) for model in models]


def matched_ious(full: Prediction, reduced: Prediction) -> Float32[np.ndarray, " N"]:
    """Mask IoU at canvas size of every instance of `full` with the one of its class at the same box in `reduced`.

    0 where there is none; 1 for two empty masks.
    """
    found = np.zeros(len(full), dtype=np.float32)
    if not len(full) or not len(reduced):
        return found
    same = box_iou(full.extents, reduced.extents) * (full.classes[:, None] == reduced.classes[None, :])
    others = list(regions(reduced, "canvas"))
    for index, region in enumerate(regions(full, "canvas")):
        matched_with = int(same[index].argmax())
        if same[index, matched_with] >= _SAME_BOX:
            found[index] = _region_iou(region, others[matched_with])
    return found


def _region_iou(a: Region, b: Region) -> float:
    shared = a.shared_with(b)
    union = a.area + b.area - shared
    return shared / union if union else 1.0


def _against_truth(prediction: Prediction, truth: GroundTruth) -> Overlaps:
    size_hw = prediction.letterbox.size_hw("canvas")
    true = [Region.of_patch(patch, 0.5, size_hw) for patch in truth.patches("canvas", prediction.letterbox)]
    return mask_overlaps(
        prediction, true, truth.classes, "canvas", crowd=truth.crowd | truth.box_only, least=0.5, same_class=True
    )


def _with_conf(model: Model, conf: float) -> Model:
    """Return the same model, keeping detections above another score, if it is lower."""
    return model.with_thresholds(replace(model.keep, conf=min(conf, model.keep.conf)))


def _network_ms_and_bytes(models: tuple[Model, Model]) -> tuple[tuple[float, float], tuple[int, int]]:
    """Median time of one run on noise, the two taking turns, and the bytes of the outputs of one image."""
    times: tuple[list[float], list[float]] = ([], [])
    sizes = [0, 0]
    for _ in range(_RUNS):
        for side, model in enumerate(models):
            batch = noise_batch(model)
            start = time.perf_counter()
            outputs = model.runtime(batch)
            times[side].append((time.perf_counter() - start) * 1e3)
            sizes[side] = sum(output.nbytes for output in outputs) // len(batch)
    return (median(times[0]), median(times[1])), (sizes[0], sizes[1])


def _in_megabytes(sizes: tuple[int, int]) -> tuple[float, float]:
    return sizes[0] / 1e6, sizes[1] / 1e6


def _decode_ms(prediction: Prediction) -> tuple[float, float]:
    """Return how long the weighted sums take, and all of the masks at canvas size."""
    start = time.perf_counter()
    prediction.logits("grid")
    middle = time.perf_counter()
    prediction.crops("canvas")
    return (middle - start) * 1e3, (time.perf_counter() - middle) * 1e3


def _median(values: list[float]) -> float:
    return median(values) if values else math.nan
