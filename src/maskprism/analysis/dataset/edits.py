"""What a user can change about a model: arguments of its trainer and of its export, as far as the model allows them."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maskprism.analysis.truth.error_budget import Part
    from maskprism.analysis.truth.matching import ErrorType
    from maskprism.models import ModelSpec

_FORMATS = {".onnx": "onnx", ".torchscript": "torchscript", ".tflite": "litert", ".xml": "openvino"}
_ULTRALYTICS = ("yolov8", "end2end")
_LARGER, _MULTIPLE = 1.5, 32


class Edits:
    """The edits of one model, each as sentences of advice.

    Parameters
    ----------
    spec
        The model.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._ultralytics = spec.layout in _ULTRALYTICS

    @property
    def larger_side(self) -> int:
        """A larger side of the input, a multiple of the stride."""
        return -(-round(max(self._spec.input_hw) * _LARGER) // _MULTIPLE) * _MULTIPLE

    def larger_input(self) -> list[str]:
        """Return how the model gets a larger input, and with it a finer prototype grid."""
        side, spec = self.larger_side, self._spec
        own = f"{spec.input_hw[1]} x {spec.input_hw[0]}"
        if spec.layout not in (*_ULTRALYTICS, "yolov5"):
            return [f"Use a model with a larger input than {own}."]
        if not spec.fixed_size:
            return [f"Try --imgsz {side} here, which needs no training; if AP rises, train with imgsz={side}."]
        file = PurePath(spec.name)
        kind = _FORMATS.get(file.suffix.lower())
        command = f"yolo export model={file.stem}.pt format={kind} imgsz={side}"
        export = f": {command}" if kind and self._ultralytics else ""
        return [f"This file takes inputs of {own} only: re-export with imgsz={side}{export}."]

    def part(self, part: Part) -> list[str]:
        """Return what makes a part of the error budget smaller."""
        if part == "resolution":
            grid = " (mask_ratio= does not change the prototype grid)" if self._ultralytics else ""
            return [*self.larger_input(), f"A model whose prototypes have a smaller stride helps, too{grid}."]
        if part == "prototypes":
            return [
                "Train a larger model (size s or m in place of n): its prototypes are made of more channels.",
                *self._full_masks(),
            ]
        if part == "coefficients":
            return ["Correct a part of it without training: maskprism tune.", *self._mask_loss(), *self._full_masks()]
        return [
            "Widen the crop without training: maskprism tune chooses a margin where that helps.",
            *(["Train with a higher box= (default: 7.5)."] if self._ultralytics else ["Train for better boxes."]),
        ]

    def error(self, kind: ErrorType) -> list[str]:
        """Return what makes a kind of errors rarer."""
        if kind == "class":
            single = " (Ultralytics: single_cls=True for one class)" if self._ultralytics else ""
            return [
                "Look at the classes that are mistaken for each other; if the difference does not matter, train with "
                f"one class for both{single}."
            ]
        if kind == "duplicate":
            return self._suppression()
        if kind == "background":
            return [
                "Look for objects that are there and not labelled (maskprism labels lists them); else train with more "
                "images without objects."
            ]
        if kind == "both":
            return ["Look at these detections: their images may be unlike those that the model was trained on."]
        if kind == "missed":
            pasted = "with copy_paste=0.3, which pastes labelled instances into other images"
            return [*self.larger_input(), f"Train {pasted if self._ultralytics else 'with more objects like these'}."]
        return ["Look at the worst masks of the report, and at where they lose."]

    def pieces(self) -> list[str]:
        """Return what keeps masks in one piece."""
        covered = "otherwise an instance is learned without the pixels that a smaller one covers, in pieces"
        train = [f"Train with overlap_mask=False: {covered}."] if self._ultralytics else []
        return ["Keep only the largest piece of each mask where objects are in one piece.", *train]

    def border(self) -> list[str]:
        """Return what helps objects that the border of the image cuts."""
        train = "Train with translate=0.2 (default: 0.1)" if self._ultralytics else "Train with larger translations"
        return [f"{train}: it shows more objects that the border cuts. Let tiles overlap, where you predict on tiles."]

    def thin(self) -> list[str]:
        """Return what helps long thin objects."""
        return [*self.larger_input(), *self._full_masks()]

    def decode(self) -> list[str]:
        """Return how masks are had at the size of the image."""
        return ["Predict with retina_masks=True: masks are then thresholded at the size of the image."]

    def _mask_loss(self) -> list[str]:
        if self._ultralytics:
            return ["Train with a higher box= (default: 7.5): it is the weight of the mask loss, too."]
        return ["Train longer, or give the mask loss more weight."]

    def _full_masks(self) -> list[str]:
        if not self._ultralytics:
            return ["Train with masks at full resolution."]
        return ["Train with mask_ratio=1: outlines are then learned at full resolution, on the same prototype grid."]

    def _suppression(self) -> list[str]:
        if self._spec.layout == "end2end":
            return [
                "The file suppresses duplicates itself: if it was exported with nms=True, lower iou= of the export."
            ]
        if self._spec.layout in ("query", "solov2"):
            return ["Check for objects that are labelled in parts."]
        arguments = "iou=0.5 in Ultralytics, --iou 0.5 here" if self._ultralytics else "--iou 0.5 here"
        return [f"Lower the IoU of the suppression ({arguments}), or check for objects that are labelled in parts."]
