"""Images per second of extraction, against the model alone and against Ultralytics' predict.

Every baseline runs in this process on the same images, interleaved with extraction round by
round, with the same total number of threads; medians and their ratios are printed.

    python benchmarks/extract_throughput.py --model yolov8n-seg.onnx --images photos/

Baselines:

    session.run     a bare loop of the model on ready tensors: no decoding, no reading of outputs
    ultralytics     `predict(stream=True)` on the same ONNX file with ONNX Runtime, if importable
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import maskprism
from maskprism.io.sources import ImageFiles, open_source
from maskprism.tables.extraction import extract


def bare_session(model: Path, threads: int, tensors: np.ndarray[Any, Any], count: int) -> Callable[[], int]:
    """The model alone, with all threads on one image at a time."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run() -> int:
        for index in range(count):
            session.run(None, {name: tensors[index % len(tensors)][None]})
        return count

    return run


def ultralytics_predict(model: Path, threads: int, images: list[Path]) -> Callable[[], int] | None:
    """Ultralytics on the same file; None where it is not installed."""
    try:
        import torch
        from ultralytics import YOLO
    except ImportError:
        return None
    torch.set_num_threads(threads)
    yolo = YOLO(str(model), task="segment")
    sources = [str(path) for path in images]
    next(iter(yolo.predict(sources[:1], stream=True, verbose=False)))

    def run() -> int:
        done = 0
        for results in yolo.predict(sources, stream=True, verbose=False):
            done += 1
            if results.masks is not None:
                results.masks.data.sum(dim=(1, 2)).tolist()
        return done

    return run


def extraction(model: maskprism.Model, images: Path, workers: int) -> Callable[[], int]:
    """Extraction to Parquet, everything included."""

    def run() -> int:
        with tempfile.TemporaryDirectory() as folder:
            return extract(images, model, Path(folder) / "table.parquet", workers=workers).images

    return run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="an .onnx file with a fixed canvas")
    parser.add_argument("--images", type=Path, required=True, help="a folder of images")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2, help="threads of every contender")
    parser.add_argument("--bf16", action="store_true", help="also extract with OpenVINO in bfloat16")
    arguments = parser.parse_args()

    source = open_source(arguments.images)
    assert isinstance(source, ImageFiles)
    images, threads = list(source.paths), arguments.threads
    model = maskprism.load(arguments.model, threads=1)
    height, width = model.spec.input_hw
    tensors = np.random.default_rng(0).random((8, 3, height, width), dtype=np.float32)

    contenders: dict[str, Callable[[], int] | None] = {
        "session.run": bare_session(arguments.model, threads, tensors, len(images)),
        "ultralytics": ultralytics_predict(arguments.model, threads, images),
        "maskprism onnxruntime": extraction(model, arguments.images, threads),
    }
    if arguments.bf16:
        quick = maskprism.load(arguments.model, threads=1, runtime="openvino", precision="bf16")
        contenders["maskprism openvino bf16"] = extraction(quick, arguments.images, threads)

    rates: dict[str, list[float]] = {name: [] for name, run in contenders.items() if run is not None}
    for turn in range(arguments.rounds + 1):  # the first round warms up and is not counted
        for name in rates:
            run = contenders[name]
            assert run is not None
            start = time.perf_counter()
            count = run()
            elapsed_s = time.perf_counter() - start
            if turn:
                rates[name].append(count / elapsed_s)
                print(f"round {turn}  {name:24} {count / elapsed_s:7.2f} images/s", flush=True)

    print(f"\n{len(images)} images, {threads} threads, medians of {arguments.rounds} rounds")
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, rate in medians.items():
        ratios = "  ".join(
            f"{rate / medians[base]:.2f}x {base}" for base in ("session.run", "ultralytics") if base in medians
        )
        print(f"{name:24} {rate:7.2f} images/s   {1000 / rate:6.1f} ms/image   {ratios}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
