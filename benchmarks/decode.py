"""Coefficients to masks: this decoder against other ways, on one thread, in CPU time, in one run.

    python benchmarks/decode.py --model yolov8n-seg.onnx --images photos/

The instances are those of the model on the images, at a low confidence, best first; the frame is a square of which the
letterboxed input is a smaller copy. Each number is the median of several runs, per mask, matrix product included.
Ultralytics and supervision are measured where they are installed. Ways:

    dense           product of all, cv2.resize to the frame, crop, pycocotools
    window          product and cv2.warpAffine in the window of the box, pycocotools on the crop alone
    findContours    dense without RLE, cv2.findContours
    Ultralytics     process_mask (at 640) or process_mask_native, masks as uint8, without RLE
    supervision     mask_to_polygons on finished masks
    reference       what masks() was before: product of all, the reference rule (`maskprism.core.masks.decode`) per box

"memory" is how much the peak of a process grows, over what it took before, while 300 masks of 12 megapixels become RLE.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco
from threadpoolctl import threadpool_limits

import maskprism
from maskprism import Letterbox, Prediction
from maskprism.core import decoding
from maskprism.core.masks import decode

SIDES = (640, 1080, 2160, 3464)
COUNTS = (5, 50, 300)
BUDGET_S = 6.0
RUNS = 7


def cpu_ms(decode: Callable[[], Any], n: int) -> float:
    """The median CPU time per mask of up to RUNS runs, fewer for slow ways."""
    times: list[float] = []
    while len(times) < RUNS and sum(times) < BUDGET_S:
        start = time.process_time()
        decode()
        times.append(time.process_time() - start)
    return statistics.median(times[1:] or times) * 1e3 / n


def framed(prediction: Prediction, side: int) -> Prediction:
    """The same prediction, of an image of side x side pixels."""
    letterbox = prediction.letterbox
    return replace(
        prediction,
        letterbox=Letterbox((side, side), letterbox.canvas_hw, letterbox.canvas_hw, (0, 0), letterbox.grid_hw),
    )


class OtherWays:
    """What others do, on the same arrays."""

    def __init__(self, prediction: Prediction, side: int) -> None:
        self.prototypes, self.weights, self.side = prediction.prototypes, prediction.weights, side
        self.h, self.w = self.prototypes.shape[1:]
        self.windows = [tuple(map(int, window)) for window in decoding.outputs.engine.windows(
            decoding.outputs._job_of(prediction, "image"))]  # fmt: skip
        self.boxes = prediction.canvas_boxes
        self.canvas_hw = prediction.letterbox.canvas_hw

    def dense(self) -> Any:
        maps = (self.weights @ self.prototypes.reshape(len(self.prototypes), -1)).reshape(-1, self.h, self.w)
        for logits, (y0, y1, x0, x1, *_) in zip(maps, self.windows, strict=True):
            above = cv2.resize(logits, (self.side, self.side), interpolation=cv2.INTER_LINEAR) > 0
            mask = np.zeros((self.side, self.side), dtype=np.uint8)
            mask[y0:y1, x0:x1] = above[y0:y1, x0:x1]
            yield mask

    def dense_rle(self) -> list[Any]:
        return [coco.encode(np.asfortranarray(mask)) for mask in self.dense()]

    def contours(self) -> list[Any]:
        return [cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)[0] for mask in self.dense()]

    def window_rle(self) -> list[Any]:
        found, scale = [], (self.h / self.side, self.w / self.side)
        for weights, (y0, y1, x0, x1, top, bottom, left, right) in zip(self.weights, self.windows, strict=True):
            if y0 == y1:
                continue
            logits = np.tensordot(weights, self.prototypes[:, top:bottom, left:right], 1)
            shift = ((y0 + 0.5) * scale[0] - 0.5 - top, (x0 + 0.5) * scale[1] - 0.5 - left)
            matrix = np.array([[scale[1], 0, shift[1]], [0, scale[0], shift[0]]])
            flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            values = cv2.warpAffine(logits, matrix, (x1 - x0, y1 - y0), flags=flags, borderMode=cv2.BORDER_REPLICATE)
            found.append(coco.encode(np.asfortranarray((values > 0).view(np.uint8))))
        return found

    def ultralytics(self) -> Callable[[], Any] | None:
        try:
            import torch
            from ultralytics.utils import ops
        except ImportError:
            return None
        torch.set_num_threads(1)
        maps, weights = torch.from_numpy(self.prototypes), torch.from_numpy(self.weights)
        scale = self.side / self.canvas_hw[0]
        boxes = torch.from_numpy(self.boxes * np.float32(scale))
        if self.side == self.canvas_hw[0]:
            return lambda: ops.process_mask(maps, weights, boxes, (self.side, self.side), upsample=True).numpy()
        return lambda: ops.process_mask_native(maps, weights, boxes, (self.side, self.side)).numpy()


def reference_masks(prediction: Prediction) -> Any:
    """The stack of masks by the reference rule: the product on the whole grid, each window resized by cv2."""
    letterbox, rule = prediction.letterbox, prediction.rule
    stack = np.zeros((len(prediction), *letterbox.image_hw), dtype=np.bool_)
    flat = prediction.prototypes.reshape(len(prediction.prototypes), -1)
    for start in range(0, len(prediction), 32):
        maps = (prediction.weights[start : start + 32] @ flat).reshape(-1, *letterbox.grid_hw)
        for index, logits in enumerate(maps, start):
            patch = decode(logits, prediction.canvas_boxes[index], letterbox, rule, "image")
            stack[index, patch.rows, patch.columns] = patch.values > rule.threshold
    return stack


def supervision_polygons() -> Callable[[Any], Any] | None:
    try:
        from supervision.detection.utils.converters import mask_to_polygons
    except ImportError:
        return None
    return mask_to_polygons


def compare(prediction: Prediction, side: int, *, quick: bool) -> None:
    """Print the times of one frame and number of instances."""
    n = len(prediction)
    others = OtherWays(prediction, side)
    ours = {
        "rle": cpu_ms(lambda: decoding.rle(prediction, "image"), n),
        "crops": cpu_ms(lambda: decoding.crops(prediction, "image"), n),
        "areas": cpu_ms(lambda: decoding.areas(prediction, "image"), n),
    }
    print(f"\n{side} x {side}, {n} instances: " + ", ".join(f"{name} {ms:.3f} ms" for name, ms in ours.items()))
    if n * side**2 <= 1 << 30:
        ours["masks"] = cpu_ms(lambda: decoding.masks(prediction, "image"), n)
        row("reference, bitmaps", cpu_ms(lambda: reference_masks(prediction), n), "masks", ours["masks"])
    few = prediction[: min(n, 10)] if quick else prediction
    fewer = OtherWays(few, side)
    row("dense, RLE", cpu_ms(fewer.dense_rle, len(few)), "rle", ours["rle"])
    row("window, RLE of crops", cpu_ms(others.window_rle, n), "rle", ours["rle"])
    if process := fewer.ultralytics():
        row("Ultralytics, masks only", cpu_ms(process, len(few)), "crops", ours["crops"])
    ours["polygons"] = cpu_ms(lambda: decoding.polygons(few, "image"), len(few))
    row("dense, findContours", cpu_ms(fewer.contours, len(few)), "polygons", ours["polygons"])
    if to_polygons := supervision_polygons():
        stack = [mask.view(np.bool_) for mask in fewer.dense()]
        alone = cpu_ms(lambda: [to_polygons(mask) for mask in stack], len(few))
        row("supervision, polygons", alone, "polygons", ours["polygons"])
    polygons = [polygon.n_vertices for polygon in decoding.polygons(few, "image")]
    contours = [sum(map(len, found)) for found in fewer.contours()]
    print(f"  vertices: polygons {np.mean(polygons):.0f}, findContours {np.mean(contours):.0f}")


def row(name: str, theirs: float, output: str, ours: float) -> None:
    print(f"  {name:26} {theirs:9.3f} ms, {theirs / ours:7.1f} x {output} ({ours:.3f} ms)", flush=True)


def peak_bytes() -> int:
    """The peak of this process's memory since it was reset."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def peak_growth(way: str, arrays: tuple[Any, ...], side: int, queue: Any) -> None:
    """In a process of its own: by how many bytes the peak grows, and how many bytes come out."""
    prediction = Prediction(*arrays)
    others, small = OtherWays(prediction, side), framed(prediction[:2], 64)
    decoding.rle(small, "image")  # what is loaded once
    OtherWays(small, 64).dense_rle()
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # resets the peak
    before = peak_bytes()
    found = others.dense_rle() if way == "dense" else decoding.rle(prediction, "image")
    queue.put((peak_bytes() - before, sum(len(mask["counts"]) for mask in found)))


def memory(prediction: Prediction, side: int) -> None:
    """Print the growth of the peak for 300 masks of this decoder, and for one of the dense way."""
    context = multiprocessing.get_context("spawn")
    names = ("canvas_boxes", "scores", "classes", "coefficients", "prototypes", "letterbox", "rule")
    for way, n in (("ours", len(prediction)), ("dense", 1)):
        queue = context.Queue()
        arrays = tuple(getattr(prediction[:n], name) for name in names)
        process = context.Process(target=peak_growth, args=(way, arrays, side, queue))
        process.start()
        grown, returned = queue.get()
        process.join()
        print(f"memory, {side} x {side}, {way}, {n} masks: {grown / 1e6:.1f} MB, of which RLE {returned / 1e6:.1f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = Path(os.environ.get("MASKPRISM_REAL_DATA") or "../shared")
    parser.add_argument("--model", type=Path, default=data / "models" / "yolov8n-seg.onnx")
    parser.add_argument("--images", type=Path, default=data / "datasets" / "coco128-seg" / "images" / "train2017")
    parser.add_argument("--sides", type=int, nargs="+", default=SIDES)
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    threadpool_limits(1)
    model = maskprism.load(options.model, conf=0.001, iou=0.9, max_det=max(options.counts), threads=1)
    for path in sorted(options.images.glob("*.jpg")):
        prediction = model.predict(path)
        if len(prediction) >= max(options.counts):
            break
    else:
        raise SystemExit(f"no image in {options.images} has {max(options.counts)} instances")
    print(f"{path.name}; decoder: {decoding.implementation()}")
    for side in options.sides:
        for count in options.counts:
            compare(framed(prediction[:count], side), side, quick=count * side**2 > 1 << 26)
    memory(framed(prediction, options.sides[-1]), options.sides[-1])


if __name__ == "__main__":
    main()
