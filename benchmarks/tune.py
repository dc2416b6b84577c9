"""What tuning costs beside the model passes that it needs, in one run.

    python benchmarks/tune.py
    python benchmarks/tune.py --model yolov8n-seg.onnx --data coco128-seg.yaml

The baseline is prediction alone, as often as gathering (each image, its mirror image, its augmented views) and
measuring need it; printed are the seconds of each part, their ratio to it, and what was gained. By default the bundled
model on drawn scenes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

import maskprism
from maskprism._common.parallel import in_order, one_thread_per_call, processors
from maskprism.analysis.tuning.fitting import FULL_EFFORT
from maskprism.analysis.tuning.tuning import tune
from maskprism.datasets import open_dataset
from maskprism.datasets.scenes import write_dataset

SCENES = 128
PREDICTIONS = 2 + FULL_EFFORT.views + 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--data", type=Path)
    options = parser.parse_args()
    model = maskprism.load(options.model, threads=1)
    with tempfile.TemporaryDirectory() as scratch:
        data = options.data or write_dataset(scratch, SCENES, seed=9000, validation_share=1)
        images = [sample.read()[0] for sample in open_dataset(data)]
        with one_thread_per_call():
            start = time.perf_counter()
            for _ in in_order(model.predict, iter(images * PREDICTIONS), processors()):
                pass
            network = time.perf_counter() - start
        del images
        found = tune(open_dataset(data), model)
    gain = found.change.gain
    table = Table(
        title=f"{model.spec.name}: {found.images} images, {found.evidence} instances; gain in mean mask IoU "
        f"{gain.mean:+.4f} ({gain.low:+.4f} to {gain.high:+.4f})"
    )
    for heading in ("", "seconds", "ratio"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, seconds in {f"{PREDICTIONS} predictions of every image": network, **found.seconds}.items():
        table.add_row(name, f"{seconds:.1f}", f"{seconds / network:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
