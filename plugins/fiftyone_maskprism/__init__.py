"""FiftyOne plugin: an operator that diagnoses the masks of a view, and a panel with the numbers and the viewer.

fiftyone plugins download https://github.com/maskprism/maskprism --plugin-names @maskprism/maskprism
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import fiftyone as fo
import fiftyone.operators as foo
import numpy as np
from fiftyone.operators import types

import maskprism
from maskprism.analysis.truth import match_masks
from maskprism.analysis.truth.error_budget import budgets
from maskprism.datasets import GroundTruth
from maskprism.errors import MaskprismError
from maskprism.integrations.fiftyone import to_fiftyone
from maskprism.viewer.page import write_page

PARTS = ("resolution", "box", "prototypes", "coefficients")
RESULT = "maskprism_diagnosis"
"""The key of `dataset.info` that keeps the numbers of the last run for the panel."""


def ground_truth_of(
    labels: Any, size_hw: tuple[int, int], names: dict[int, str]
) -> tuple[GroundTruth | None, list[Any]]:
    """Return the objects with masks as ground truth of an image, and the labels in the same order.

    Parameters
    ----------
    labels
        `fiftyone.Detections` with masks, or None. Classes that the model does not know are left out.
    size_hw, names
        Size of the image; class names of the model.
    """
    height, width = size_hw
    ids = {name: class_id for class_id, name in names.items()}
    kept = [one for one in (labels.detections if labels else ()) if one.label in ids and one.mask is not None]
    masks = []
    for one in kept:
        left, top, box_width, box_height = one.bounding_box
        x, y = round(left * width), round(top * height)
        rows, columns = max(round(box_height * height), 1), max(round(box_width * width), 1)
        at_y = np.minimum((np.arange(rows) + 0.5) / rows * one.mask.shape[0], one.mask.shape[0] - 1).astype(int)
        at_x = np.minimum((np.arange(columns) + 0.5) / columns * one.mask.shape[1], one.mask.shape[1] - 1).astype(int)
        mask = np.zeros((height, width), dtype=bool)
        window = mask[y : y + rows, x : x + columns]
        window[:] = np.asarray(one.mask, dtype=bool)[np.ix_(at_y, at_x)][: window.shape[0], : window.shape[1]]
        masks.append(mask)
    return (GroundTruth.of_masks(masks, [ids[one.label] for one in kept]) if masks else None), kept


def diagnose_samples(
    samples: Iterable[Any], model: maskprism.Model, *, truth_field: str, field: str, page: Path | None = None
) -> dict[str, Any]:
    """Predict every sample, and write what its masks lose into its fields.

    Parameters
    ----------
    samples
        With `filepath`, and labels with masks in `truth_field`.
    model
        Predicts.
    field
        Gets the instances: `outcome`, `error`, `mask_iou` and `lost_in_resolution`, ... of each; objects of
        `truth_field` get `missed`.
    page
        A viewer page of the images that lose most, at most 20.

    Returns
    -------
    dict
        Counts, mean IoU, and means of the losses.
    """
    rows, seen = [], []
    counts = dict.fromkeys(("images", "found", "missed", "false_positives", "failed"), 0)
    for sample in samples:
        try:
            prediction = model.predict(sample.filepath)
        except MaskprismError:
            counts["failed"] += 1
            continue
        counts["images"] += 1
        detections = to_fiftyone(prediction)
        truth, labels = ground_truth_of(sample[truth_field], prediction.image_size, dict(model.spec.names))
        if truth is not None:
            matches = match_masks(prediction, truth)
            counts["found"] += len(matches)
            counts["missed"] += len(matches.missed)
            counts["false_positives"] += len(matches.false_positives)
            for detection, outcome, error in zip(detections.detections, matches.outcomes, matches.errors, strict=True):
                detection["outcome"], detection["error"] = outcome, error
            missed = set(matches.missed.tolist())
            for index, label in enumerate(labels):
                label["missed"] = index in missed
            own = list(budgets(prediction, truth, sample.filepath, matches))
            for row in own:
                detection = detections.detections[row.instance]
                detection["mask_iou"] = float(row.iou)
                for part in PARTS:
                    detection[f"lost_in_{part}"] = float(getattr(row, part))
            rows += own
            loss = 1 - float(np.mean([row.iou for row in own])) if own else 0.0
            seen.append((loss, sample.filepath, prediction, truth))
        sample[field] = detections
    if page is not None and seen:
        worst = sorted(seen, key=lambda one: one[0], reverse=True)[:20]
        write_page(page, [(path, prediction) for _, path, prediction, _ in worst], truth=[one[3] for one in worst])
    means = {part: float(np.mean([getattr(row, part) for row in rows])) for part in PARTS} if rows else {}
    return {
        **counts,
        "mask_iou": float(np.mean([row.iou for row in rows])) if rows else None,
        "lost_in": means,
        "page": str(page) if page is not None and seen else None,
    }


class DiagnoseMasks(foo.Operator):
    """Asks for a model and the field with the labels, and diagnoses the view."""

    @property
    def config(self) -> Any:
        """Name and label in the list of operators."""
        return foo.OperatorConfig(
            name="diagnose_masks", label="maskprism: diagnose masks", dynamic=True, allow_delegated_execution=True
        )

    def resolve_input(self, ctx: Any) -> Any:
        """Make the form."""
        form = types.Object()
        form.str("model", label="Model file (.pt, .onnx, ...)", required=True)
        fields = [
            name
            for name, kind in ctx.dataset.get_field_schema(embedded_doc_type=fo.Detections).items()
            if name != ctx.params.get("field", "maskprism")
        ]
        form.enum("truth_field", fields, label="Labels with masks", required=True)
        form.str("field", label="Field for the predictions", default="maskprism", required=True)
        form.float("conf", label="Score threshold", default=0.25)
        return types.Property(form, view=types.View(label="Diagnose the masks of this view"))

    def execute(self, ctx: Any) -> dict[str, Any]:
        """Diagnose the view, and keep the numbers for the panel."""
        model = maskprism.load(ctx.params["model"], conf=ctx.params.get("conf", 0.25))
        folder = Path(fo.config.default_dataset_dir) / ctx.dataset.name
        folder.mkdir(parents=True, exist_ok=True)
        result = diagnose_samples(
            ctx.view.iter_samples(autosave=True),
            model,
            truth_field=ctx.params["truth_field"],
            field=ctx.params["field"],
            page=folder / "maskprism.html",
        )
        ctx.dataset.info[RESULT] = result
        ctx.dataset.save()
        ctx.trigger("reload_dataset")
        return result

    def resolve_output(self, ctx: Any) -> Any:
        """Show the counts."""
        outputs = types.Object()
        outputs.int("found", label="Found")
        outputs.int("missed", label="Missed")
        outputs.int("false_positives", label="False positives")
        return types.Property(outputs, view=types.View(label="Open the panel maskprism for the rest"))


class MaskprismPanel(foo.Panel):
    """Shows the last diagnosis: counts, the loss by part, and where the viewer page is."""

    @property
    def config(self) -> Any:
        """Name and label of the panel."""
        return foo.PanelConfig(name="maskprism_panel", label="maskprism", surfaces="grid")

    def on_load(self, ctx: Any) -> None:
        """Take the numbers of the last run."""
        result = ctx.dataset.info.get(RESULT) if ctx.dataset else None
        ctx.panel.state.summary = summary_of(result)
        if result and result["lost_in"]:
            parts = result["lost_in"]
            ctx.panel.data.losses = [{"type": "bar", "x": list(parts), "y": list(parts.values())}]

    def render(self, ctx: Any) -> Any:
        """Lay the panel out."""
        panel = types.Object()
        panel.md(summary_of(ctx.dataset.info.get(RESULT) if ctx.dataset else None), name="summary")
        panel.plot("losses", layout={"title": "IoU lost by part of the model"})
        return types.Property(panel, view=types.GridView(orientation="vertical"))


def summary_of(result: dict[str, Any] | None) -> str:
    """Return the numbers of a diagnosis as Markdown."""
    if result is None:
        return "Run the operator *maskprism: diagnose masks* first."
    iou = "none was found" if result["mask_iou"] is None else f"mean mask IoU {result['mask_iou']:.3f}"
    text = (
        f"**{result['images']} images**: {result['found']} found, {result['missed']} missed, "
        f"{result['false_positives']} false positives; {iou}."
    )
    if not result["page"]:
        return text
    address = f"/media?filepath={quote(result['page'])}"  # from the App's server: browsers block file:// on its pages
    return f"{text}\n\n[Open the worst images in the viewer]({address}), the file `{result['page']}`."


def register(plugin: Any) -> None:
    """Tell FiftyOne what there is."""
    plugin.register(DiagnoseMasks)
    plugin.register(MaskprismPanel)
