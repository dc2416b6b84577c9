"""Run every command and code block of README and docs on real images and a real checkpoint: `make walk`.

python utils/walk.py [PAGE ...]

MASKPRISM_REAL_DATA names the folder with models/yolov8n-seg.pt and .onnx, images/ and datasets/coco128-seg. Each page
runs in a folder of its own that holds what the documentation names: best.pt, best.onnx, yolov8n-seg.onnx, data.yaml (24
images), images/val, photos/, photo.jpg, ... What is not run is listed with the reason.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import cv2
import numpy as np

from maskprism.io.images import read_image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from helpers.tiny_models import Tiny  # noqa: E402

REAL = Path(os.environ.get("MASKPRISM_REAL_DATA", ROOT.parent / "shared")).resolve()
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
IMAGES = 24
LIMIT_S = 900
NOT_RUN = {
    r"^(pip|make|git|docker|cd|fiftyone) ": "installs, builds or downloads; make release-check installs",
    r"^(duckdb|yolo|label-studio|kubectl|ray|gcc|cc|g\+\+|clang) ": "another program",
    r"^python -m pytest|^python (utils|benchmarks)/": "tests, and tools of developers",
    r"--install-completion": "writes into the start-up file of the shell",
    r"s3://|gs://|RAY_ADDRESS|--engine ray": "a bucket or a cluster; tests/tables/test_s3.py and test_ray.py",
    r"rtsp://|predict 0\b": "a camera",
    r"https?://": "the internet",
    r"maskprism serve": "goes on until it is stopped; tests/server and tests/browser",
    r"epoch\*|fold1\.pt|dump\.npz|filmstrip prototypes": "needs a training or a device",
}
"""Lines that are not run, by what they match, and why."""
RESULTS = (("maskprism tune ", 1, "was not written"), ("maskprism compare ", 3, ""))
"""Exit codes that are results, with a part of the message: `tune` does not help, or what `compare` compares differs."""
NOT_PYTHON = {"import ray", "from ultralytics", "import fiftyone", "import supervision", "import hailo", "from rknn"}


class Step(NamedTuple):
    """One command, or the Python of a page."""

    page: str
    text: str
    outcome: str
    seconds: float = 0.0


def prepare(folder: Path) -> None:
    """Make the files that the documentation names."""
    images = sorted((REAL / "datasets" / "coco128-seg" / "images").rglob("*.jpg"))[:IMAGES]
    names = (REAL / "datasets" / "coco128-seg" / "coco128-seg.yaml").read_text(encoding="utf-8")
    names = names[names.index("names:") :].split("\n\n")[0]
    for image in images:
        label = Path(str(image).replace(f"{os.sep}images{os.sep}", f"{os.sep}labels{os.sep}")).with_suffix(".txt")
        for source, target in ((image, "images/val"), (label, "labels/val")):
            (folder / target).mkdir(parents=True, exist_ok=True)
            if source.exists():
                shutil.copy(source, folder / target / source.name)
    described = f"path: .\ntrain: images/val\nval: images/val\n{names}\n"
    (folder / "data.yaml").write_text(described, encoding="utf-8")
    for name in ("best", "yolov8n-seg", "M", "a"):
        for suffix in (".pt", ".onnx"):
            shutil.copy(REAL / "models" / f"yolov8n-seg{suffix}", folder / f"{name}{suffix}")
    quantise(folder / "best.onnx", folder / "best_int8.onnx", images[:4])
    shutil.copy(folder / "best.onnx", folder / "float.onnx")
    shutil.copy(folder / "best_int8.onnx", folder / "int8.onnx")
    Tiny(prototypes=32).save(folder / "foreign.onnx")  # without names, of three classes
    for name in ("best.tflite", "yolov8n-seg_int8.tflite"):
        shutil.copy(REAL / "models" / "yolov8n-seg_int8.tflite", folder / name)
    bus = REAL / "images" / "bus.jpg"
    for name in ("photo.jpg", "bus.jpg", "photos/one.jpg", "photos/more/two.jpg", "data/one.jpg", "val/one.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(bus, folder / name)
    region = np.zeros((1080, 810), np.uint8)  # the size of bus.jpg
    region[450:850, 70:220] = 255  # the person on the left
    for name in ("mask.png", "drawn.png"):
        cv2.imwrite(str(folder / name), region)
    shutil.copy(REAL / "images" / "zidane.jpg", folder / "photos" / "zidane.jpg")
    shutil.copytree(folder / "photos", folder / "others")
    for image in images[:2]:  # those that have labels
        shutil.copy(image, folder / "photos" / image.name)
    (folder / "names.txt").write_text("cat\ndog\nfish", encoding="utf-8")
    header = {"format": 1, "command": "labels", "maskprism": "0.2.0", "data": "data.yaml", "split": "val"}
    (folder / "decisions.json").write_text(json.dumps({**header, "decisions": [deleted_label(folder)]}), "utf-8")
    for name in ("src", "extract_specific_feature.py"):
        (folder / name).symlink_to(ROOT / name)
    for name in ("step10.onnx", "step20.onnx", "epoch10.pt", "epoch20.pt", "epoch30.pt"):
        shutil.copy(folder / f"best{Path(name).suffix}", folder / name)
    for call in (
        "extract photos --model best.onnx --out table.parquet",
        "basis photos --model best.onnx --out results",
    ):
        subprocess.run([sys.executable, "-m", "maskprism", *call.split(), "--quiet"], cwd=folder, check=True)


def deleted_label(folder: Path) -> dict[str, object]:
    """Return the decision, as the page of `labels` exports it, to delete the first label of the first image."""
    labels = sorted((folder / "labels" / "val").glob("*.txt"))[0]
    image = folder / "images" / "val" / f"{labels.stem}.jpg"
    height, width = read_image(image).shape[:2]
    corners = np.array(labels.read_text(encoding="utf-8").split("\n")[0].split()[1:], float).reshape(-1, 2)
    ends = np.concatenate([corners.min(axis=0), corners.max(axis=0)]) * (width, height, width, height)
    return {"image": f"images/val/{image.name}", "label_id": 0, "box": ends.round(1).tolist(), "action": "delete"}


def quantise(source: Path, target: Path, images: list[Path]) -> None:
    """Write an int8 version, convolutions only, calibrated on a few images."""
    from onnxruntime.quantization import quantize_static

    scaled = (cv2.dnn.blobFromImage(read_image(path), 1 / 255, (640, 640), swapRB=True) for path in images)
    batches = ({"images": batch} for batch in scaled)
    reader = SimpleNamespace(get_next=lambda: next(batches, None))
    quantize_static(source, target, reader, op_types_to_quantize=["Conv"], per_channel=True)


def commands_of(page: Path) -> list[str]:
    """Return the lines of shell blocks that can be run: those after `$ `, or whole lines of a block without one."""
    lines = []
    for language, block in FENCE.findall(page.read_text(encoding="utf-8")):
        if language in ("console", "", "text", "sh", "bash"):
            for line in block.replace("\\\n", " ").splitlines():
                command = line.removeprefix("$ ").split("  #")[0].strip()
                if line.startswith("$ ") or (language != "console" and re.match(r"(maskprism|python) \S", command)):
                    lines.append(command)
    return list(dict.fromkeys(lines))


def walk(page: Path, folder: Path, passed: set[str]) -> Iterator[Step]:
    """Run the commands of a page, then its Python, in one folder.

    What passed on an earlier page does not run again where nothing else of the page names what it wrote.
    """
    fences = FENCE.findall(page.read_text(encoding="utf-8"))
    code = " ".join(block for _, block in fences)
    for command in commands_of(page):
        reason = next((why for pattern, why in NOT_RUN.items() if re.search(pattern, command)), "")
        out = re.search(r"--(?:out|write) (\S+)", command)
        if command in passed and out is not None and code.count(out[1]) == command.count(out[1]):
            reason = "passed on an earlier page"
        if reason:
            yield Step(page.name, command, f"not run: {reason}")
            continue
        step = run(page.name, command, ["bash", "-c", replacing(command, folder)], folder)
        if step.outcome.startswith("ok"):
            passed.add(command)
        yield step
    blocks = [block for language, block in fences if language == "python"]
    for block in blocks:
        if any(name in block for name in NOT_PYTHON):
            yield Step(page.name, block.strip().splitlines()[0], "not run: needs another package")
    code = "\n".join(block for block in blocks if not any(name in block for name in NOT_PYTHON))
    if code:
        yield run(page.name, f"{len(blocks)} blocks of Python", [sys.executable, "-c", code], folder)


def replacing(command: str, folder: Path) -> str:
    """Return a command for these files.

    With `--overwrite` where an example before it on the page wrote the same `--out`, and the pixel of an instance.
    """
    command = command.replace("--at 120,80", "--at 120,600")
    out = re.search(r"--out (\S+)", command)
    written = out is not None and any(folder.glob(f"{out[1].removesuffix('.onnx').removesuffix('.pt')}*"))
    return f"{command} --overwrite" if written and "--overwrite" not in command else command


def run(page: str, shown: str, call: list[str], folder: Path) -> Step:
    """Run one call, and say how it ended."""
    scripts = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "MPLBACKEND": "agg"}
    began = time.monotonic()
    try:
        done = subprocess.run(call, cwd=folder, env=environment, capture_output=True, text=True, timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        return Step(page, shown, f"FAILED: more than {LIMIT_S} s", LIMIT_S)
    if done.returncode == 0:
        outcome = "ok"
    elif any(part in shown and code == done.returncode and text in done.stderr for part, code, text in RESULTS):
        outcome = f"ok, exit code {done.returncode}: {(done.stdout + done.stderr).strip().splitlines()[-1]}"
    else:
        outcome = f"FAILED, exit code {done.returncode}:\n{done.stdout[-600:]}{done.stderr[-1500:]}"
    return Step(page, shown, outcome, time.monotonic() - began)


def main(names: list[str]) -> int:
    """Walk through the pages, and give the exit code."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    pages = [page for page in pages if not names or page.name in names]
    failed, passed = 0, set[str]()
    with tempfile.TemporaryDirectory() as scratch:
        template = Path(scratch) / "template"
        template.mkdir()
        prepare(template)
        for page in pages:
            folder = Path(scratch) / page.stem
            shutil.copytree(template, folder, symlinks=True)
            for step in walk(page, folder, passed):
                failed += step.outcome.startswith("FAILED")
                print(f"{step.page:24} {step.seconds:6.1f} s  {step.text}\n{'':34}{step.outcome}", flush=True)
            shutil.rmtree(folder)
    print(f"{failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
