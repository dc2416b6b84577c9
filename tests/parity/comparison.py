"""Ask Ultralytics and maskprism the same question, pair their instances and measure the difference."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple
from unittest import mock

import numpy as np

TIE = 1e-5
CONF = 0.25
SIDE = 160
WIDE = (192, 320)


class Answer(NamedTuple):
    """What Ultralytics said about one image.

    The first group has every detection, the second only those left in its Results.
    """

    canvas_boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    coefficients: np.ndarray
    prototypes: np.ndarray
    kept: np.ndarray

    image_boxes: np.ndarray
    masks: np.ndarray


def ask(yolo, images, *, retina: bool, **settings) -> list[Answer]:
    """Run Ultralytics' own predict and keep what its predictor had in hand when it made its Results."""
    from ultralytics.models.yolo.segment import SegmentationPredictor

    answers = []
    construct_result = SegmentationPredictor.construct_result

    def spy(self, pred, img, orig_img, img_path, proto):
        detections, prototypes = pred.clone().numpy(), proto.float().clone().numpy()
        results = construct_result(self, pred, img, orig_img, img_path, proto)
        scaled, left = pred[:, :6].numpy(), results.boxes.data.numpy()  # pred is scaled in place
        kept = np.zeros(len(scaled), dtype=bool)
        for row in left:
            kept[next(i for i in range(len(scaled)) if not kept[i] and np.array_equal(scaled[i], row))] = True
        answers.append(
            Answer(
                canvas_boxes=detections[:, :4],
                scores=detections[:, 4],
                classes=detections[:, 5].astype(int),
                coefficients=detections[:, 6:],
                prototypes=prototypes,
                kept=kept,
                image_boxes=left[:, :4],
                masks=results.masks.data.numpy().astype(bool) if len(left) else np.zeros((0, 1, 1), dtype=bool),
            )
        )
        return results

    with mock.patch.object(SegmentationPredictor, "construct_result", spy):
        yolo.predict(images, retina_masks=retina, verbose=False, **settings)
    return answers


def ask_both(yolo, images, **settings) -> dict[bool, list[Answer]]:
    """Both answers, by retina, from one run of the model: what they differ in comes after it."""
    import torch
    from ultralytics.models.yolo.segment import SegmentationPredictor

    runs = []
    inference = SegmentationPredictor.inference

    def once(self, im, *args, **kwargs):
        for batch, outputs in runs:
            if torch.equal(batch, im):
                return cloned(outputs)
        outputs = inference(self, im, *args, **kwargs)
        runs.append((im.clone(), cloned(outputs)))
        return outputs

    with mock.patch.object(SegmentationPredictor, "inference", once):
        answers = {retina: ask(yolo, images, retina=retina, **settings) for retina in (False, True)}
    assert len(runs) <= 1
    return answers


def cloned(outputs):
    """Tensors, however they are nested, that nothing shares."""
    if isinstance(outputs, list | tuple):
        return type(outputs)(map(cloned, outputs))
    if isinstance(outputs, dict):
        return {name: cloned(output) for name, output in outputs.items()}
    return outputs.clone() if hasattr(outputs, "clone") else outputs


def pair(prediction, answer: Answer) -> np.ndarray:
    """For each instance of the answer the instance of the prediction, one to one.

    Pairs are of one class with corners within half a pixel or boxes of IoU above 0.98, closest first.
    """
    ours, theirs = prediction.canvas_boxes, answer.canvas_boxes
    corners = np.abs(theirs[:, None] - ours[None]).max(axis=2)
    wide = np.minimum(theirs[:, None, 2:], ours[None, :, 2:]) - np.maximum(theirs[:, None, :2], ours[None, :, :2])
    overlap = np.clip(wide, 0, None).prod(axis=2)
    areas = (np.clip(b[:, 2:] - b[:, :2], 0, None).prod(axis=1) for b in (theirs, ours))
    area_theirs, area_ours = areas
    union = area_theirs[:, None] + area_ours[None] - overlap
    iou = np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)
    possible = (answer.classes[:, None] == prediction.classes[None]) & ((iou > 0.98) | (corners < 0.5))
    distance = corners + np.abs(answer.scores[:, None] - prediction.scores[None])
    matched_with = np.full(len(theirs), -1)
    taken = np.zeros(len(ours), dtype=bool)
    for i, j in zip(*np.unravel_index(np.argsort(distance, axis=None, kind="stable"), distance.shape), strict=True):
        if possible[i, j] and matched_with[i] < 0 and not taken[j]:
            matched_with[i], taken[j] = j, True
    return matched_with


@dataclass
class Tally:
    """Differences over many images.

    A pixel is a tie where its exact logit is 0 to within `TIE` of the largest logit of the instance:
    there the last bits of float32 decide. PyTorch computes sample positions in float32, which moves
    resized logits by up to 5e-6 of their range; OpenCV, 20 times closer to the exact value, does not
    follow it.
    """

    instances: int = 0
    masks: int = 0
    equal: int = 0
    dropped: int = 0
    ties: int = 0
    other_pixels: int = 0
    worst_iou: float = 1.0
    worst_iou_without_ties: float = 1.0
    score: float = 0.0
    coefficient: float = 0.0
    prototype: float = 0.0
    corner: float = 0.0
    problems: list[str] = field(default_factory=list)

    def add(self, prediction, answer: Answer) -> None:
        """Compare one image; `prediction` carries the mask rule that answers to the settings."""
        where = prediction.source or f"image {prediction.image_size}"
        self.instances += len(answer.scores)
        if prediction.prototypes.shape != answer.prototypes.shape:
            self.problems.append(f"{where}: prototypes {prediction.prototypes.shape} {answer.prototypes.shape}")
            return
        self.prototype = max(self.prototype, float(np.abs(prediction.prototypes - answer.prototypes).max()))
        if len(prediction) != len(answer.scores):
            self.problems.append(f"{where}: {len(prediction)} instances, Ultralytics has {len(answer.scores)}")
        matched_with = pair(prediction, answer)
        if (matched_with < 0).any():
            self.problems.append(
                f"{where}: {np.count_nonzero(matched_with < 0)} of {len(matched_with)} instances not found"
            )
            return
        if not len(matched_with):
            return
        ours = prediction[matched_with]
        self.score = max(self.score, float(np.abs(ours.scores - answer.scores).max()))
        self.coefficient = max(self.coefficient, float(np.abs(ours.coefficients - answer.coefficients).max()))
        if not np.array_equal(~ours.empty, answer.kept):
            self.problems.append(
                f"{where}: empty masks at {np.flatnonzero(ours.empty)}, {np.flatnonzero(~answer.kept)}"
            )
            return
        self.dropped += int(np.count_nonzero(~answer.kept))
        if not answer.kept.any():
            return
        ours = ours[answer.kept]
        self.corner = max(self.corner, float(np.abs(ours.boxes - answer.image_boxes).max()))
        for instance, mine, theirs in zip(ours, ours.masks(), answer.masks, strict=True):
            if mine.shape != theirs.shape:
                self.problems.append(f"{where}: masks {mine.shape}, {theirs.shape}")
                return
            self.masks += 1
            self.equal += np.array_equal(mine, theirs)
            if np.array_equal(mine, theirs):
                continue
            different, union = mine != theirs, int(np.count_nonzero(mine | theirs))
            logits = np.abs(instance.logits(instance.rule.size)[different])
            other = int(np.count_nonzero(logits > TIE * np.abs(instance.logits("grid")).max()))
            self.ties += int(np.count_nonzero(different)) - other
            self.other_pixels += other
            self.worst_iou = min(self.worst_iou, 1 - int(np.count_nonzero(different)) / union)
            self.worst_iou_without_ties = min(self.worst_iou_without_ties, 1 - other / union)

    def check(self, at_least: int = 1) -> None:
        """The promise: the same instances, numbers to 1e-3, masks to IoU 0.999 and 95 % of them equal."""
        print(self)
        assert not self.problems
        assert self.masks >= at_least, self
        assert self.score <= 1e-3, self
        assert self.coefficient <= 1e-3, self
        assert self.prototype <= 1e-3, self
        assert self.corner <= 0.01, self
        assert self.worst_iou_without_ties >= 0.999, self
        assert self.equal >= 0.95 * self.masks, self


def compare(yolo, model, batches, imgsz, **settings) -> None:
    """Both answers to every batch, at canvas and at image size."""
    canvas, native = Tally(), Tally()
    for batch in batches:
        source = batch if len(batch) > 1 else batch[0]
        here = ask_both(yolo, source, imgsz=imgsz, conf=CONF, **settings)
        for prediction, flat, full in zip(model.predict(batch), here[False], here[True], strict=True):
            canvas.add(prediction, flat)
            native.add(prediction.with_rule("retina"), full)
    canvas.check(at_least=24)
    native.check(at_least=24)
