"""What cleaning the most suspicious labels of a training set is worth: average precision after retraining.

    pip install -e ".[train,labels]"
    python benchmarks/labels_worth.py --out build/labels_worth

For each seed, scenes are drawn and some of their labels made wrong (by a generator other than the one that `maskprism
labels` learns from). The bundled model is retrained on them, judges the labels that it was trained on, and is retrained
from the same start with a part of the labels removed or corrected: drawn by chance, ranked by 1 - mask IoU, or by the
suspicion. Printed is mask AP on other scenes, as a difference to doing nothing, with a t interval over seeds: seeds are
pairs (same scenes, same mistakes, same order of batches). Finished trainings are kept in --out and not repeated.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
import onnx
import torch
from pycocotools import mask as coco_mask
from rich.console import Console
from rich.table import Table
from scipy import stats

from maskprism import load
from maskprism.analysis.labels import LabelStudy, Measuring
from maskprism.analysis.labels.features import MIN_SCORE
from maskprism.datasets import open_dataset
from maskprism.datasets.coco import RunLengths, bitmap_of
from maskprism.datasets.scenes import NAMES, draw_scene
from maskprism.datasets.visit import Failure, visit
from maskprism.models import SAMPLE_MODEL
from maskprism.reports.labels import remedy_of

sys.path.insert(0, str(Path(__file__).parents[1] / "utils"))
import train_sample_model as sample

FIRST_SCENE = 2_000_000
SCENES_PER_SEED = 10_000
LEARNED_ANEW = ("box", "mix", "score")
"""Layers that start from random weights: boxes, coefficients and classes are learned from the labels alone."""
RATE = 1e-3
NOTHING, CLEAN = "nothing", "all labels right"
Ranking = Literal["chance", "1 - mask IoU", "suspicion"]
Treatment = Literal["removed", "corrected by hand", "suggestion accepted"]
ARMS: tuple[tuple[Ranking, Treatment], ...] = (
    ("chance", "removed"),
    ("1 - mask IoU", "removed"),
    ("suspicion", "removed"),
    ("suspicion", "suggestion accepted"),
    ("suspicion", "corrected by hand"),
)


class Label(NamedTuple):
    """A label of a drawn scene; `mistake` is empty for a right one."""

    class_id: int
    mask: np.ndarray
    mistake: str = ""


class Ranked(NamedTuple):
    """One label as it was judged: its scene and position there, and the label that is suggested, None to delete it."""

    scene: int
    position: int
    suspicion: float
    mask_iou: float
    suggested: Label | None


Scenes = list[list[Label]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for scenes and results")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--scenes", type=int, default=70, help="training scenes of each seed")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--held-out", type=int, default=60, help="scenes that AP is measured on")
    parser.add_argument("--wrong", type=float, default=1 / 8, help="share of labels that are made wrong")
    parser.add_argument("--share", type=float, default=0.02, help="share of labels that are removed or corrected")
    parser.add_argument("--workers", type=int, default=2, help="seeds at a time, one thread each")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(options.workers, multiprocessing.get_context("spawn")) as pool:
        report(list(pool.map(run_seed, [options] * options.seeds, range(options.seeds))), options)


def run_seed(options: argparse.Namespace, seed: int) -> dict[str, float]:
    """All trainings of one seed: mask AP by treatment, and how many of the treated labels were wrong."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    size = f"{options.scenes}x{options.epochs}-{options.wrong:.3f}-{options.held_out}"
    folder = options.out / f"{size}-seed{seed}"
    file = folder / "results.json"
    folder.mkdir(exist_ok=True)
    results: dict[str, float] = json.loads(file.read_text()) if file.exists() else {}
    first = FIRST_SCENE + SCENES_PER_SEED * seed
    drawn = [draw_scene(first + number) for number in range(options.scenes)]
    images = [scene.image for scene in drawn]
    right = [[Label(int(c), m) for c, m in zip(scene.classes, scene.masks, strict=True)] for scene in drawn]
    rng = np.random.default_rng([seed, 1])
    given = [[spoil(labels, place, options.wrong, rng) for place in range(len(labels))] for labels in right]

    def measure(name: str, labels: Scenes) -> None:
        model = folder / (f"{name}.onnx" if name == NOTHING else "last.onnx")
        if name in results and (name != NOTHING or model.exists()):
            return
        sample.export(train(images, labels, options.epochs, seed), model)
        results[name] = sample.judge(model, options.held_out, threads=1)["mask"]["AP"]
        print(f"seed {seed}, {name}: AP {results[name]:.4f}", flush=True)
        file.write_text(json.dumps(results, indent=1))

    measure(NOTHING, given)
    measure(CLEAN, right)
    ranked = judge_labels(images, given, folder, seed)
    number = max(1, round(options.share * len(ranked)))
    orders = {
        "chance": [ranked[place] for place in np.random.default_rng([seed, 2]).permutation(len(ranked))],
        "1 - mask IoU": sorted(ranked, key=lambda label: label.mask_iou),
        "suspicion": sorted(ranked, key=lambda label: -label.suspicion),
    }
    for ranking, order in orders.items():
        wrong = np.mean([given[label.scene][label.position].mistake != "" for label in order[:number]])
        results[f"wrong among {options.share:g} by {ranking}"] = float(wrong)
    for ranking, treatment in ARMS:
        name = f"{options.share:g} by {ranking}, {treatment}"
        measure(name, treated(given, right, orders[ranking][:number], treatment))
    file.write_text(json.dumps(results, indent=1))
    return results


def spoil(labels: list[Label], place: int, share: float, rng: np.random.Generator) -> Label:
    """The label, or with probability `share` one with a mistake."""
    label = labels[place]
    if rng.random() >= share:
        return label
    for mistake in rng.permutation(["shifted", "grown", "shrunk", "cut", "merged", "box", "coarse", "hole", "class"]):
        if mistake == "class":
            others = [class_id for class_id in NAMES if class_id != label.class_id]
            return Label(int(rng.choice(others)), label.mask, "class")
        others = [other.mask for other in labels if other is not label]
        mask = wrong_mask(label.mask, str(mistake), others, rng)
        if mask.sum() >= 60 and (mask != label.mask).mean() * mask.size > 0.1 * label.mask.sum():
            return Label(label.class_id, mask, str(mistake))
    return label


def wrong_mask(mask: np.ndarray, mistake: str, others: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """A copy of a mask with a mistake of a fixed size: shares of the diagonal of its box."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    (top, bottom), (left, right) = (rows[0], rows[-1] + 1), (columns[0], columns[-1] + 1)
    diagonal = float(np.hypot(bottom - top, right - left))
    wrong, angle = mask.astype(np.uint8), rng.uniform(0, 2 * np.pi)
    if mistake == "shifted":
        far = diagonal * rng.choice([0.12, 0.35])
        move = np.array([[1, 0, far * np.cos(angle)], [0, 1, far * np.sin(angle)]])
        wrong = cv2.warpAffine(wrong, move, mask.shape[::-1], flags=cv2.INTER_NEAREST)
    elif mistake in ("grown", "shrunk"):
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, [2 * max(1, round(0.06 * diagonal)) + 1] * 2)
        wrong = (cv2.dilate if mistake == "grown" else cv2.erode)(wrong, kernel)
    elif mistake == "cut":
        y, x = np.indices(mask.shape)
        beyond = (x - (left + right) / 2) * np.cos(angle) + (y - (top + bottom) / 2) * np.sin(angle) > 0
        wrong[beyond] = 0
    elif mistake == "merged" and others:
        centre = [np.argwhere(other).mean(axis=0) for other in [mask, *others]]
        nearest = min(range(len(others)), key=lambda place: float(np.hypot(*(centre[place + 1] - centre[0]))))
        wrong |= others[nearest].astype(np.uint8)
    elif mistake == "box":
        wrong[top:bottom, left:right] = 1
    elif mistake == "coarse":
        contours, _ = cv2.findContours(wrong, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        polygon = cv2.approxPolyDP(max(contours, key=cv2.contourArea), 0.12 * diagonal, True)
        wrong = cv2.fillPoly(np.zeros_like(wrong), [polygon], 1)
    elif mistake == "hole":
        y, x = np.argwhere(mask)[rng.integers(int(mask.sum()))].tolist()
        cv2.circle(wrong, (x, y), max(2, round(0.25 * np.sqrt(mask.sum()))), 0, -1)
    return wrong > 0


def start_of_training(seed: int) -> sample.Network:
    """The bundled model with new output layers, its normalisation within the convolutions."""
    torch.manual_seed(seed)
    network = sample.Network(len(NAMES))
    for module in network.modules():
        if isinstance(module, sample.Conv):
            module.fold()
    stored = onnx.load(SAMPLE_MODEL).graph.initializer
    weights = {
        tensor.name.removeprefix("network.").removesuffix(".half"): torch.from_numpy(
            onnx.numpy_helper.to_array(tensor).astype(np.float32)
        )
        for tensor in stored
    }
    fresh = {name: values for name, values in network.state_dict().items() if name.split(".")[0] in LEARNED_ANEW}
    network.load_state_dict({name: weights[name] for name in network.state_dict()} | fresh)
    return network.train().to(memory_format=torch.channels_last)


def train(images: list[np.ndarray], labels: Scenes, epochs: int, seed: int, *, batch: int = 4) -> sample.Network:
    """Retrain all weights; scenes are turned, mirrored and recoloured at random, by the seed alone."""
    network = start_of_training(seed)
    optimiser = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0.02)
    centres, strides = sample.locations()
    rng = np.random.default_rng([seed, 3])
    steps = math.ceil(len(images) / batch) * epochs
    order = np.concatenate([rng.permutation(len(images)) for _ in range(epochs)])
    for step, chosen in enumerate(np.array_split(order, steps)):
        for group in optimiser.param_groups:
            group["lr"] = RATE * min((step + 1) / 20, 0.5 * (1 + math.cos(math.pi * step / steps)))
        views = [(int(rng.integers(4)), bool(rng.random() < 0.5), rng.permutation(3)) for _ in chosen]
        pictures = [turned(images[place], *view[:2])[..., view[2]] for place, view in zip(chosen, views, strict=True)]
        pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float().div_(255)
        masks = np.zeros((len(chosen), sample.MOST_OBJECTS, sample.SIDE, sample.SIDE), dtype=bool)
        classes = np.full(masks.shape[:2], -1, dtype=np.int64)
        for number, (place, view) in enumerate(zip(chosen, views, strict=True)):
            for row, label in enumerate(labels[place]):
                masks[number, row], classes[number, row] = turned(label.mask, *view[:2]), label.class_id
        truth = sample.truth_of(torch.from_numpy(masks), torch.from_numpy(classes))
        with torch.autocast("cpu", torch.bfloat16):
            raw = network(pixels.contiguous(memory_format=torch.channels_last))
        parts = sample.losses(raw, truth, centres, strides)
        optimiser.zero_grad(set_to_none=True)
        sum(sample.GAINS[name] * part for name, part in parts.items()).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        optimiser.step()
    return network


def turned(array: np.ndarray, turns: int, mirror: bool) -> np.ndarray:
    """The first two axes turned, and mirrored."""
    array = np.rot90(array, turns)
    return array[:, ::-1] if mirror else array


def judge_labels(images: list[np.ndarray], labels: Scenes, folder: Path, seed: int) -> list[Ranked]:
    """What `maskprism labels` says about the training set, by the model that was trained on it unchanged."""
    (folder / "images").mkdir(exist_ok=True)
    annotations = []
    for number, (image, own) in enumerate(zip(images, labels, strict=True)):
        cv2.imwrite(str(folder / "images" / f"{number:05d}.png"), image)
        for position, label in enumerate(own):
            code = coco_mask.encode(np.asfortranarray(label.mask.astype(np.uint8)))
            about = {"id": sample.MOST_OBJECTS * number + position, "image_id": number, "category_id": label.class_id}
            mask = {"size": code["size"], "counts": code["counts"].decode()}
            annotations.append({**about, "segmentation": mask, "bbox": coco_mask.toBbox(code).tolist()})
    described = {
        "images": [
            {"id": number, "file_name": f"{number:05d}.png", "height": sample.SIDE, "width": sample.SIDE}
            for number in range(len(images))
        ],
        "annotations": annotations,
        "categories": [{"id": class_id, "name": name} for class_id, name in NAMES.items()],
    }
    (folder / "train.json").write_text(json.dumps(described))
    model = load(folder / f"{NOTHING}.onnx", conf=MIN_SCORE, threads=1)
    dataset = open_dataset(folder / "train.json", images=folder / "images").for_model(model.spec.names)
    study = LabelStudy(dataset.names, seed)
    for result in visit(dataset, model, Measuring(sorted(NAMES), seed=seed), workers=1):
        assert not isinstance(result, Failure), result
        study.update(result)
    ranked = []
    for row in study.compute().rows:
        if row.label_id is None:
            continue
        scene, position = divmod(int(row.label_id), sample.MOST_OBJECTS)
        given, remedy = labels[scene][position], remedy_of(row, dataset)
        suggested: Label | None = given
        if remedy is not None and remedy.action == "delete":
            suggested = None
        elif remedy is not None and remedy.action == "reclassify":
            suggested = given._replace(class_id=int(remedy.category or 0))
        elif remedy is not None and remedy.mask is not None:
            code, size = remedy.mask["counts"], (sample.SIDE, sample.SIDE)
            suggested = given._replace(mask=bitmap_of(RunLengths(size, code), size))
        ranked.append(Ranked(scene, position, row.suspicion, row.features.get("mask_iou", 1.0), suggested))
    return ranked


def treated(given: Scenes, right: Scenes, chosen: list[Ranked], treatment: Treatment) -> Scenes:
    """The labels with the chosen ones removed, or replaced by the right ones or by the suggestions."""
    new: list[list[Label | None]] = [list(labels) for labels in given]
    for label in chosen:
        new[label.scene][label.position] = {
            "removed": None,
            "corrected by hand": right[label.scene][label.position],
            "suggestion accepted": label.suggested,
        }[treatment]
    return [[label for label in labels if label is not None] for labels in new]


def report(results: list[dict[str, float]], options: argparse.Namespace) -> None:
    """Print the means over seeds with t intervals."""
    table = Table(
        title=f"{options.scenes} scenes, {options.wrong:.1%} of the labels wrong, {options.share:.1%} treated, "
        f"{options.epochs} epochs, {len(results)} seeds; mask AP on {options.held_out} other scenes"
    )
    for heading in ("", "mask AP", "difference to doing nothing", "wrong among the treated"):
        table.add_column(heading)
    names = [f"{options.share:g} by {ranking}, {treatment}" for ranking, treatment in ARMS]
    for name in (NOTHING, *names, CLEAN):
        values = [one[name] for one in results]
        ranking = name.removeprefix(f"{options.share:g} by ").partition(",")[0]
        wrong = [one.get(f"wrong among {options.share:g} by {ranking}", math.nan) for one in results]
        gain = "" if name == NOTHING else mean_of([one[name] - one[NOTHING] for one in results])
        table.add_row(name, f"{np.mean(values):.4f}", gain, "" if np.isnan(wrong).all() else f"{np.mean(wrong):.0%}")
    for other in ("chance", "1 - mask IoU"):
        first, second = (f"{options.share:g} by {ranking}, removed" for ranking in ("suspicion", other))
        gains = mean_of([one[first] - one[second] for one in results])
        table.add_row(f"removed: suspicion less {other}", "", gains, "")
    Console(width=120).print(table)


def mean_of(values: list[float]) -> str:
    """The mean with its 95 % t interval."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return f"{mean:+.4f}"
    half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)))
    return f"{mean:+.4f} ({mean - half:+.4f} to {mean + half:+.4f})"


if __name__ == "__main__":
    main()
