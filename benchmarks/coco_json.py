"""Opening a large COCO json: time and memory, against reading it with Python's own `json`.

    python benchmarks/coco_json.py --megabytes 500

Each reader runs in a process of its own on the same file, which is as `instances_train2017.json` is: polygons of some
30 points, 7 instances per image. The memory is the peak of the process, interpreter and libraries included.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from cyclopts import run
from rich.console import Console
from rich.table import Table

INSTANCES = 7
READERS = {
    "json.loads alone": "import json; json.loads(open({file!r}, 'rb').read())",
    "open_dataset": "from maskprism.datasets import open_dataset; open_dataset({file!r})",
    "open_dataset, and the ground truth of 1000 images": (
        "from itertools import islice; from maskprism.datasets import open_dataset; "
        "[sample.truth((480, 640)) for sample in islice(open_dataset({file!r}), 1000)]"
    ),
}


def entries(count: int) -> Iterator[tuple[dict[str, object], list[dict[str, object]]]]:
    """Images with their annotations."""
    rng = np.random.default_rng(0)
    for image in range(count):
        points = (rng.random((INSTANCES, 60)) * 480).round(2).tolist()
        yield (
            {"id": image, "file_name": f"{image:012d}.png", "height": 480, "width": 640},
            [
                {"id": image * INSTANCES + i, "image_id": image, "category_id": i + 1, "iscrowd": 0,
                 "segmentation": [polygon], "area": 702.1, "bbox": [473.07, 395.93, 38.65, 28.67]}
                for i, polygon in enumerate(points)
            ],
        )  # fmt: skip


def write(file: Path, megabytes: float) -> None:
    """A json of about this size beside the one image that has to be there."""
    count = max(1, round(megabytes * 2**20 / 4_540))
    images, annotations = [], []
    for image, instances in entries(count):
        images.append(image)
        annotations.append(json.dumps(instances)[1:-1])
    (file.parent / images[0]["file_name"]).write_bytes(b"")
    head = {"images": images, "categories": [{"id": i + 1, "name": f"class {i}"} for i in range(INSTANCES)]}
    file.write_text(f'{json.dumps(head)[:-1]}, "annotations": [{", ".join(annotations)}]}}', encoding="utf-8")


def measured(code: str) -> tuple[float, float]:
    """Seconds and peak MB of Python code in a process of its own."""
    start = time.perf_counter()
    report = "; import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    done = subprocess.run([sys.executable, "-c", code + report], check=True, capture_output=True, text=True)
    return time.perf_counter() - start, int(done.stdout.split()[-1]) / 2**10


def main(*, megabytes: float = 500) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "instances.json"
        write(file, megabytes)
        found = {name: measured(code.format(file=str(file))) for name, code in READERS.items()}
        size = file.stat().st_size / 2**20
    table = Table(title=f"a COCO json of {size:.0f} MB")
    for column in ("", "seconds", "peak MB", "times json.loads"):
        table.add_column(column, justify="right" if column else "left")
    baseline = found["json.loads alone"][0]
    for name, (seconds, peak) in found.items():
        table.add_row(name, f"{seconds:.1f}", f"{peak:.0f}", f"{seconds / baseline:.2f}")
    Console().print(table)


if __name__ == "__main__":
    run(main)
