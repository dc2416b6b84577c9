"""Draw the before and after of the symptom pages: docs/images/symptom-*.webp.

python utils/symptom_pictures.py

All of them show drawn scenes and the bundled model, so that no photo is part of the project.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import cv2
import matplotlib
import numpy as np
from matplotlib.figure import Figure

import maskprism
from maskprism.analysis.truth import counterfactuals_of
from maskprism.datasets import open_dataset
from maskprism.datasets.scenes import draw_scene, write_dataset

if TYPE_CHECKING:
    from maskprism.analysis.truth.overlaps import Region
    from maskprism.core.prediction import Instance, Prediction

matplotlib.use("agg")
IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
COLOURS = ("#ff7f0e", "#1f9de0", "#e0389a", "#8fd14f", "#f7d038", "#9b6bd3", "#20c0a8", "#ff5a4e")
Window = tuple[slice, slice]
EVERYTHING = (slice(None), slice(None))


def draw(name: str, image: np.ndarray[Any, Any], panels: dict[str, Any], window: Window = EVERYTHING) -> None:
    """Write one picture: the same window of the image in each panel, with filled masks or lines, titles above."""
    height, width = image[window].shape[:2]
    figure = Figure(figsize=(9, 9 / len(panels) * height / width + 0.4), layout="constrained")
    for axes, (title, shapes) in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels.items(), strict=True):
        axes.imshow(cv2.cvtColor(image[window], cv2.COLOR_BGR2RGB), interpolation="nearest")
        top, left = window[0].start or 0, window[1].start or 0
        for number, shape in enumerate(shapes):
            colour = COLOURS[number % len(COLOURS)]
            if shape.dtype == bool:
                mask = shape[window]
                fill = np.zeros((*mask.shape, 4))
                fill[mask] = (*matplotlib.colors.to_rgb(colour), 0.4)
                axes.imshow(fill, interpolation="nearest")
                axes.contour(mask, [0.5], colors=[colour], linewidths=1.6)
            else:
                ring = np.vstack([shape, shape[:1]]) - (left + 0.5, top + 0.5)
                axes.plot(*ring.T, color=colour, marker="o", markersize=3, linewidth=1.4)
        axes.set(title=title, xticks=[], yticks=[], xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
        axes.title.set_fontsize(11)
    figure.savefig(IMAGES / f"symptom-{name}.webp", dpi=100, pil_kwargs={"quality": 82, "method": 6})


def around(instance: Instance, margin: int = 18) -> Window:
    """Return the window of the image around an instance."""
    left, top, right, bottom = instance.box.astype(int)
    return slice(max(top - margin, 0), bottom + margin), slice(max(left - margin, 0), right + margin)


def masks_of(prediction: Prediction) -> Iterable[np.ndarray[Any, Any]]:
    """Return the masks of a prediction at the size of its image."""
    return prediction.masks("image")


def whole(region: Region, image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return a region as a mask of the size of the image, which is that of the letterboxed input here."""
    mask = np.zeros(image.shape[:2], dtype=bool)
    mask[region.rows, region.columns] = region.inside
    return mask


def cut_off() -> None:
    """A box that is too small cuts its mask; a margin around the box gives the rest back."""
    image = draw_scene(5).image
    prediction = maskprism.load("sample").predict(image)
    index = int(prediction.areas("image").argmax())
    left, _, right, _ = prediction.boxes[index]
    inset = np.array([0.12 * (right - left), 0, -0.12 * (right - left), 0], dtype=np.float32)
    assert prediction.canvas_boxes is not None
    tight = replace(prediction, canvas_boxes=prediction.canvas_boxes + inset)[[index]]
    wide = tight.with_rule(replace(tight.rule, crop_margin=0.15))
    panels = {"cut off by a box that is too small": masks_of(tight), "crop_margin=0.15": masks_of(wide)}
    draw("cut-off", image, panels, around(prediction[index]))


def jagged() -> None:
    """The same logits, thresholded on the prototype grid and at the size of the image."""
    image = draw_scene(9, (960, 960)).image
    prediction = maskprism.load("sample").predict(image)
    index = int(np.argsort(prediction.areas("image"))[-3])
    grid = cv2.resize(prediction[index].mask("grid").astype(np.uint8), (960, 960), interpolation=cv2.INTER_NEAREST)
    panels = {
        "thresholded on the grid, then resized": [grid.astype(bool)],
        "resized, then thresholded (retina_masks)": [prediction[index].mask("image")],
    }
    draw("jagged", image, panels, around(prediction[index], 30))


def shifted() -> None:
    """Masks of the letterboxed input, stretched over the image without removing the padding, and with it removed."""
    image = draw_scene(7, (320, 480)).image
    prediction = maskprism.load("sample").predict(image)
    height, width = prediction.image_size
    stretched = [cv2.resize(mask.astype(np.uint8), (width, height)).astype(bool) for mask in prediction.masks("canvas")]
    draw("shifted", image, {"padding not removed": stretched, "padding removed": masks_of(prediction)})


def channels() -> None:
    """The export is right; its input is not: BGR where the model expects RGB."""
    image = draw_scene(24).image
    model = maskprism.load("sample")
    swapped = model.predict(np.ascontiguousarray(image[..., ::-1]))
    draw("export", image, {"BGR given, RGB expected": masks_of(swapped), "RGB": masks_of(model.predict(image))})


def int8() -> None:
    """Everything in int8 with one scale per tensor, against convolutions only with a scale per channel."""
    from onnxruntime.quantization import quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    from maskprism.models import SAMPLE_MODEL

    image = draw_scene(14).image
    with tempfile.TemporaryDirectory() as scratch:
        plain, coarse, fine = (Path(scratch) / f"{name}.onnx" for name in ("float", "coarse", "fine"))
        quant_pre_process(SAMPLE_MODEL, plain, skip_symbolic_shape=True)
        for path, options in ((coarse, {}), (fine, {"op_types_to_quantize": ["Conv"], "per_channel": True})):
            images = (draw_scene(seed).image[None, ..., ::-1] for seed in range(1000, 1008))
            batches = ({"images": one.transpose(0, 3, 1, 2).astype("f4") / 255} for one in images)
            quantize_static(
                plain, path, SimpleNamespace(get_next=lambda batches=batches: next(batches, None)), **options
            )
        panels = {
            "everything in int8": masks_of(maskprism.load(coarse).predict(image)),
            "convolutions in int8, one scale per channel": masks_of(maskprism.load(fine).predict(image)),
        }
    draw("int8", image, panels)


def small() -> None:
    """A wide image as a whole, and in two tiles, where objects are twice as large for the model."""
    image = draw_scene(35, (320, 640), kind="long").image
    model = maskprism.load("sample")
    tiles = []
    for start in (0, 320):
        for mask in masks_of(model.predict(image[:, start : start + 320])):
            tiles.append(np.zeros(image.shape[:2], dtype=bool))
            tiles[-1][:, start : start + 320] = mask
    panels = {"whole image, 640 x 320, at an input of 320": masks_of(model.predict(image)), "two tiles of 320": tiles}
    draw("small", image, panels)


def best_coefficients() -> None:
    """A mask as predicted, and with the best coefficients of the same prototypes."""
    with tempfile.TemporaryDirectory() as scratch:
        model = maskprism.load("sample")
        dataset = open_dataset(write_dataset(scratch, 24, seed=7000, validation_share=1)).for_model(model.spec.names)
        found = []
        for sample in dataset:
            image, truth = sample.read()
            for pair, masks in counterfactuals_of(model.predict(image), truth):
                gain = masks.best.iou_with(masks.truth) - masks.real.iou_with(masks.truth)
                found.append((gain, image, pair, masks))
    _, image, _, masks = max(found, key=lambda item: item[0])
    panels = {
        f"predicted, IoU {masks.real.iou_with(masks.truth):.2f}": [whole(masks.real, image)],
        f"best coefficients, IoU {masks.best.iou_with(masks.truth):.2f}": [whole(masks.best, image)],
        "ground truth": [whole(masks.truth, image)],
    }
    draw("box-ap", image, panels, around(masks.instance))


def overlap() -> None:
    """Masks that share pixels, and every pixel given to the instance with the largest logit."""
    image = draw_scene(12).image
    prediction = maskprism.load("sample").predict(image).with_rule(maskprism.RULES["no-crop"])
    masks = prediction.masks("image")
    cropped = prediction.with_rule(maskprism.RULES["ultralytics"]).masks("image")
    draw("overlap", image, {"masks leak into other objects": masks, "cropped to their boxes": cropped})


def wrong_label() -> None:
    """A label that was shifted and cut, and the suggestion."""
    scene = draw_scene(21)
    prediction = maskprism.load("sample").predict(scene.image)
    index = int(prediction.areas("image").argmax())
    truth = max(scene.masks, key=lambda mask: int((mask & prediction[index].mask("image")).sum()))
    wrong = np.roll(truth, (9, 14), axis=(0, 1))
    wrong[: int(prediction[index].box[1]) + 22] = False
    panels = {"the label: shifted and cut off": [wrong], "the suggested mask": [prediction[index].mask("image")]}
    draw("label", scene.image, panels, around(prediction[index], 30))


def polygons() -> None:
    """The outline of a mask with all its vertices, and with a tolerance of two pixels."""
    image = draw_scene(9, (640, 640)).image
    prediction = maskprism.load("sample").predict(image)
    index = int(prediction.areas("image").argmax())
    panels = {}
    for tolerance in (0.0, 2.0):
        rings = [outline.exterior for outline in prediction[index].polygons("image", tolerance=tolerance).outlines]
        panels[f"--tolerance {tolerance:g}: {sum(map(len, rings))} vertices"] = rings
    draw("polygons", image, panels, around(prediction[index]))


if __name__ == "__main__":
    for picture in (
        cut_off, jagged, shifted, channels, int8, small, best_coefficients, overlap, wrong_label, polygons,
    ):  # fmt: skip
        picture()
