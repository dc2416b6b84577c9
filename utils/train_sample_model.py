"""Train, export and judge the model that the package brings along, on drawn scenes alone.

    pip install -e ".[train]"
    python utils/train_sample_model.py --output src/maskprism/data/sample.onnx

A compact one-stage model after published methods: prototypes and coefficients as in YOLACT
(Bolya et al. 2019), an anchor-free head as in FCOS (Tian et al. 2019), task-aligned assignment as
in TOOD (Feng et al. 2021), CIoU (Zheng et al. 2020), mask loss of cross-entropy and Dice
(Milletari et al. 2016) within boxes. Its outputs are packed like those of YOLOv8-seg exports.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import math
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, distributed, nn

from maskprism.datasets.scenes import NAMES, draw_scene

if TYPE_CHECKING:
    import onnx

SIDE = 320
STRIDES = (8, 16, 32)
PROTOTYPES = 32
MOST_OBJECTS = 12
TRAINING_SEED = 1_000_000
"""Seeds of scenes from here on are for training; those below are for judging."""
JUDGING_SEED = 500_000

# --- model --------------------------------------------------------------------------------------


class Conv(nn.Module):
    """Convolution, batch normalisation, SiLU."""

    def __init__(self, inputs: int, outputs: int, size: int = 3, stride: int = 1, padding: int | None = None) -> None:
        super().__init__()
        padding = size // 2 if padding is None else padding
        self.conv = nn.Conv2d(inputs, outputs, size, stride, padding, bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.03)

    def forward(self, x: Tensor) -> Tensor:
        """Also after `fold`, when the normalisation is part of the convolution."""
        return F.silu(self.norm(self.conv(x)))

    def fold(self) -> None:
        """Put the normalisation into the convolution, for export; once is enough."""
        if isinstance(self.norm, nn.Identity):
            return
        self.conv = nn.utils.fusion.fuse_conv_bn_eval(self.conv.eval(), self.norm.eval())
        self.norm = nn.Identity()


class Split(nn.Module):
    """Half of the channels go through residual blocks, the other half past them."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        half = width // 2
        self.enter, self.leave = Conv(width, width, 1), Conv(half * (2 + depth), width, 1)
        self.blocks = nn.ModuleList(nn.Sequential(Conv(half, half), Conv(half, half)) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as `x`."""
        parts = list(self.enter(x).chunk(2, 1))
        for block in self.blocks:
            parts.append(parts[-1] + block(parts[-1]))
        return self.leave(torch.cat(parts, 1))


class Raw(NamedTuple):
    """What the model gives before it is packed: A locations over all strides."""

    distances: Tensor  # [B, A, 4] to left, top, right, bottom, in strides
    logits: Tensor  # [B, A, classes]
    coefficients: Tensor  # [B, A, K]
    prototypes: Tensor  # [B, K, h, w]


class Network(nn.Module):
    """Backbone to stride 32, a feature pyramid there and back, heads, and the prototype branch."""

    def __init__(self, classes: int, widths: tuple[int, int, int, int] = (32, 64, 96, 128), neck: int = 64) -> None:
        super().__init__()
        w4, w8, w16, w32 = widths
        self.stem = nn.Sequential(Conv(3, w4, 8, 4, 2), Split(w4, 1))
        self.to8 = nn.Sequential(Conv(w4, w8, 3, 2), Split(w8, 2))
        self.to16 = nn.Sequential(Conv(w8, w16, 3, 2), Split(w16, 2))
        self.to32 = nn.Sequential(Conv(w16, w32, 3, 2), Split(w32, 2))
        self.side16, self.side32 = Conv(w16, neck, 1), Conv(w32, neck, 1)
        self.side8 = Conv(w8, neck, 1)
        self.down16, self.down8 = Split(neck, 1), Split(neck, 1)
        self.up16, self.up32 = Conv(neck, neck, 3, 2), Conv(neck, neck, 3, 2)
        self.out16, self.out32 = Split(neck, 1), Split(neck, 1)
        self.place = nn.ModuleList(Conv(neck, neck) for _ in STRIDES)
        self.name = nn.ModuleList(Conv(neck, neck) for _ in STRIDES)
        self.box = nn.ModuleList(nn.Conv2d(neck, 4, 1) for _ in STRIDES)
        self.mix = nn.ModuleList(nn.Conv2d(neck, PROTOTYPES, 1) for _ in STRIDES)
        self.score = nn.ModuleList(nn.Conv2d(neck, classes, 1) for _ in STRIDES)
        self.wide, self.fine = Conv(neck, 48), Conv(w4, 48, 1)
        self.merge, self.basis = Conv(48, 48), Conv(48, PROTOTYPES, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        for box, mix, score in zip(self.box, self.mix, self.score, strict=True):
            nn.init.normal_(box.weight, std=0.01)
            nn.init.constant_(box.bias, 2.5)
            nn.init.normal_(mix.weight, std=0.05)
            nn.init.normal_(score.weight, std=0.01)
            nn.init.constant_(score.bias, math.log(0.01 / 0.99))

    def forward(self, images: Tensor) -> Raw:
        """`images` are RGB in 0..1, [B, 3, H, W]."""
        c4 = self.stem(images)
        c8 = self.to8(c4)
        c16 = self.to16(c8)
        c32 = self.to32(c16)
        p32 = self.side32(c32)
        p16 = self.down16(self.side16(c16) + _double(p32))
        p8 = self.down8(self.side8(c8) + _double(p16))
        n16 = self.out16(p16 + self.up16(p8))
        n32 = self.out32(p32 + self.up32(n16))
        prototypes = self.basis(self.merge(self.fine(c4) + _double(self.wide(p8))))
        distances, logits, coefficients = [], [], []
        for i, level in enumerate((p8, n16, n32)):
            placed, named = self.place[i](level), self.name[i](level)
            distances.append(F.softplus(self.box[i](placed)).flatten(2))
            coefficients.append(self.mix[i](placed).flatten(2))
            logits.append(self.score[i](named).flatten(2))
        return Raw(
            torch.cat(distances, 2).transpose(1, 2),
            torch.cat(logits, 2).transpose(1, 2),
            torch.cat(coefficients, 2).transpose(1, 2),
            prototypes,
        )


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def locations(side: int = SIDE) -> tuple[Tensor, Tensor]:
    """Centres [A, 2] in canvas pixels and strides [A, 1] of all locations."""
    centres, strides = [], []
    for stride in STRIDES:
        axis = (torch.arange(side // stride) + 0.5) * stride
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        centres.append(torch.stack([x, y], -1).reshape(-1, 2))
        strides.append(torch.full((len(centres[-1]), 1), float(stride)))
    return torch.cat(centres), torch.cat(strides)


class Packed(nn.Module):
    """The model with its outputs packed as YOLOv8-seg exports do."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        centres, strides = locations()
        self.register_buffer("centres", centres)
        self.register_buffer("strides", strides)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Rows [B, 4 + classes + K, A] of box (centre, size), scores, coefficients; prototypes."""
        raw = self.network(images)
        near, far = raw.distances[..., :2] * self.strides, raw.distances[..., 2:] * self.strides
        boxes = torch.cat([self.centres + (far - near) / 2, near + far], -1)
        return torch.cat([boxes, raw.logits.sigmoid(), raw.coefficients], -1).transpose(1, 2), raw.prototypes


# --- scenes ---------------------------------------------------------------------------------------


class Truth(NamedTuple):
    """What is true about a batch: M objects at most, `present` where there is one."""

    classes: Tensor  # [B, M]
    boxes: Tensor  # [B, M, 4] xyxy in canvas pixels
    present: Tensor  # [B, M]
    masks: Tensor  # [B, M, h, w] share of every grid cell that is the object


def _draw_range(folder: str, start: int, stop: int, count: int) -> None:
    cv2.setNumThreads(1)
    pictures, owners, classes = _open(Path(folder), count, "r+")
    for i in range(start, stop):
        scene = draw_scene(TRAINING_SEED + i)
        pictures[i], owners[i] = scene.image, scene.owners
        classes[i, : len(scene)] = scene.classes


def _open(folder: Path, count: int, mode: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    pictures = np.memmap(folder / "pictures", np.uint8, mode, shape=(count, SIDE, SIDE, 3))
    owners = np.memmap(folder / "owners", np.uint8, mode, shape=(count, SIDE, SIDE))
    classes = np.memmap(folder / "classes", np.int8, mode, shape=(count, MOST_OBJECTS))
    return pictures, owners, classes


def draw_all(folder: Path, count: int, workers: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw the training scenes into files once, so that no epoch waits for them."""
    if not (folder / "classes").exists() or (folder / "classes").stat().st_size != count * MOST_OBJECTS:
        _open(folder, count, "w+")[2][:] = -1
        bounds = np.linspace(0, count, workers * 8 + 1).astype(int)
        with ProcessPoolExecutor(workers) as pool:
            for job in [pool.submit(_draw_range, str(folder), a, b, count) for a, b in pairwise(bounds)]:
                job.result()
    return _open(folder, count, "r")


def batches(
    scenes: tuple[np.ndarray, np.ndarray, np.ndarray], size: int, steps: int, seed: int
) -> Iterator[tuple[Tensor, Truth]]:
    """Batches in random order, every scene turned, mirrored and recoloured at random."""
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(len(scenes[0])) for _ in range(steps * size // len(scenes[0]) + 1)])
    for step in range(steps):
        pictures, owners = [], []
        chosen = order[step * size : (step + 1) * size]
        for i in chosen:
            picture, owner = scenes[0][i], scenes[1][i]
            turns, mirror = int(rng.integers(4)), rng.random() < 0.5
            picture, owner = np.rot90(picture, turns), np.rot90(owner, turns)
            if mirror:
                picture, owner = picture[:, ::-1], owner[:, ::-1]
            pictures.append(torch.from_numpy(np.array(picture[..., rng.permutation(3)])))
            owners.append(torch.from_numpy(np.array(owner)))
        images = torch.stack(pictures).permute(0, 3, 1, 2).float().div_(255)
        yield images, _truth(torch.stack(owners), torch.from_numpy(scenes[2][chosen].astype(np.int64)))


def _truth(owners: Tensor, classes: Tensor) -> Truth:
    return truth_of(
        owners[:, None] == torch.arange(1, MOST_OBJECTS + 1, dtype=torch.uint8)[None, :, None, None], classes
    )


def truth_of(masks: Tensor, classes: Tensor) -> Truth:
    """The truth of a batch from masks [B, M, H, W] at full size, empty where there is no object."""
    rows, columns = masks.any(3), masks.any(2)
    present = rows.any(2)
    first = [axis.to(torch.uint8).argmax(2) for axis in (columns, rows)]
    last = [SIDE - axis.flip(2).to(torch.uint8).argmax(2) for axis in (columns, rows)]
    boxes = torch.stack([*first, *last], -1).float() * present[..., None]
    return Truth(classes, boxes, present, F.avg_pool2d(masks.float(), 4))


# --- losses ---------------------------------------------------------------------------------------


def iou(a: Tensor, b: Tensor, *, complete: bool = False) -> Tensor:
    """IoU of xyxy boxes along the last axis; with `complete` CIoU."""
    inner = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    (aw, ah), (bw, bh) = (a[..., 2:] - a[..., :2]).unbind(-1), (b[..., 2:] - b[..., :2]).unbind(-1)
    found = inner / (aw * ah + bw * bh - inner + 1e-7)
    if not complete:
        return found
    hull = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    apart = ((a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2).square().sum(-1)
    shape = 4 / math.pi**2 * (torch.atan(bw / (bh + 1e-7)) - torch.atan(aw / (ah + 1e-7))).square()
    with torch.no_grad():
        weight = shape / (1 - found + shape + 1e-7)
    return found - apart / (hull.square().sum(-1) + 1e-7) - weight * shape


@torch.no_grad()
def assign(scores: Tensor, boxes: Tensor, centres: Tensor, truth: Truth, most: int = 10) -> tuple[Tensor, Tensor]:
    """Task-aligned assignment: the object of every location (-1 for none) and its soft score [B, A]."""
    overlaps = iou(boxes[:, None], truth.boxes[:, :, None])
    index = truth.classes.clamp(min=0)[..., None].expand(-1, -1, scores.shape[1])
    aligned = scores.transpose(1, 2).gather(1, index).sqrt() * overlaps.pow(6)
    x, y = centres.unbind(-1)
    x1, y1, x2, y2 = (edge[..., None] for edge in truth.boxes.unbind(-1))
    inside = (x > x1) & (x < x2) & (y > y1) & (y < y2) & truth.present[..., None]
    aligned = torch.where(inside, aligned + 1e-9, 0)  # so that there is an order before anything overlaps
    best = aligned.topk(most, dim=2)
    chosen = torch.zeros_like(inside).scatter_(2, best.indices, best.values > 0)
    owner = torch.where(chosen, overlaps + 1e-6, 0).max(1)
    owners = torch.where(owner.values > 0, owner.indices, -1)
    mine = chosen & (owners[:, None] == torch.arange(chosen.shape[1])[:, None])
    aligned, overlaps = aligned * mine, overlaps * mine
    soft = aligned / (aligned.amax(2, keepdim=True) + 1e-9) * overlaps.amax(2, keepdim=True)
    return owners, soft.amax(1)


def losses(raw: Raw, truth: Truth, centres: Tensor, strides: Tensor, masks_per_image: int = 20) -> dict[str, Tensor]:
    """Class, box and mask losses of a batch."""
    raw = Raw(*(part.float() for part in raw))
    boxes = torch.cat([centres - raw.distances[..., :2] * strides, centres + raw.distances[..., 2:] * strides], -1)
    owners, soft = assign(raw.logits.detach().sigmoid(), boxes.detach(), centres, truth)
    image, place = torch.nonzero(owners >= 0, as_tuple=True)
    mine = owners[image, place]
    weight = soft[image, place]
    total = weight.sum().clamp(min=1)
    target = torch.zeros_like(raw.logits)
    target[image, place, truth.classes[image, mine]] = weight
    found = {"class": F.binary_cross_entropy_with_logits(raw.logits, target, reduction="sum") / total}
    fit = iou(boxes[image, place], truth.boxes[image, mine], complete=True)
    found["box"] = ((1 - fit) * weight).sum() / total

    keep = torch.randperm(len(image))[: masks_per_image * len(owners)]
    keep = keep[image[keep].argsort(stable=True)]
    image, place, mine = image[keep], place[keep], mine[keep]
    h, w = raw.prototypes.shape[2:]
    per_image = torch.bincount(image, minlength=len(owners)).tolist()
    mixed = [
        c @ p.flatten(1) for c, p in zip(raw.coefficients[image, place].split(per_image), raw.prototypes, strict=True)
    ]
    logits = torch.cat(mixed).reshape(-1, h, w)
    truths = truth.masks[image, mine]
    x1, y1, x2, y2 = ((edge / 4)[:, None, None] for edge in truth.boxes[image, mine].unbind(-1))
    x, y = torch.arange(w) + 0.5, torch.arange(h)[:, None] + 0.5
    inside = ((x > x1 - 0.5) & (x < x2 + 0.5) & (y > y1 - 0.5) & (y < y2 + 0.5)).float()
    area = inside.sum((1, 2)).clamp(min=1)
    cross = F.binary_cross_entropy_with_logits(logits, truths, reduction="none") * inside
    found["mask"] = (cross.sum((1, 2)) / area).mean()
    shown = logits.sigmoid() * inside
    overlap = 2 * (shown * truths).sum((1, 2)) + 1
    found["dice"] = (1 - overlap / (shown.square().sum((1, 2)) + truths.square().sum((1, 2)) + 1)).mean()
    return found


GAINS = {"class": 1.0, "box": 5.0, "mask": 4.0, "dice": 2.0}

# --- training -------------------------------------------------------------------------------------


def train(options: argparse.Namespace, folder: Path) -> Network:
    """Train for a fixed number of steps; returns the running average of the weights.

    Every worker is a process of one thread with its own batches; gradients are averaged at every step.
    """
    started = time.monotonic()
    draw_all(folder, options.scenes, options.workers)
    print(f"{options.scenes} scenes drawn in {time.monotonic() - started:.0f} s", flush=True)
    checkpoint = options.checkpoint or folder / "average.pt"
    (folder / "meeting").unlink(missing_ok=True)
    torch.multiprocessing.spawn(_work, (options, folder, checkpoint), options.workers)
    network = Network(len(NAMES))
    network.load_state_dict(torch.load(checkpoint, weights_only=True))
    return network


def _work(rank: int, options: argparse.Namespace, folder: Path, checkpoint: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder.resolve()}/meeting", rank=rank, world_size=options.workers
    )
    torch.manual_seed(options.seed)  # the same weights everywhere
    network = Network(len(NAMES)).to(memory_format=torch.channels_last)
    if options.resume:
        network.load_state_dict(torch.load(options.resume, weights_only=True))
    torch.manual_seed(options.seed + rank)
    average = copy.deepcopy(network).eval()
    parameters = list(network.parameters())
    if rank == 0:
        print(f"{sum(p.numel() for p in parameters) / 1e6:.2f} M parameters", flush=True)
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.02},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=options.rate)
    centres, strides = locations()
    scenes = _open(folder, options.scenes, "r")
    started, step, share, sums = time.monotonic(), 0, 0.0, dict.fromkeys(GAINS, 0.0)
    for images, truth in batches(scenes, options.batch // options.workers, options.steps, options.seed + rank):
        # The rate rises, then falls as a cosine over the steps, or over the clock with --minutes.
        rate = options.rate * min((step + 1) / 300, 0.5 * (1 + math.cos(math.pi * share)) + 0.005)
        for group in optimiser.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16, enabled=not options.full_precision):
            raw = network(images.contiguous(memory_format=torch.channels_last))
        parts = losses(raw, truth, centres, strides)
        loss = sum(GAINS[name] * part for name, part in parts.items())
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        step += 1
        clock = (time.monotonic() - started) / (60 * options.minutes) if options.minutes else 0.0
        share = _average_gradients(parameters, max(step / options.steps, clock))
        nn.utils.clip_grad_norm_(parameters, 10.0)
        optimiser.step()
        _follow(average, network, 0.998 * (1 - math.exp(-step / 400)))
        for name, part in parts.items():
            sums[name] += part.item()
        if rank == 0 and step % 50 == 0:
            text = "  ".join(f"{name} {value / 50:.3f}" for name, value in sums.items())
            minutes = (time.monotonic() - started) / 60
            print(f"step {step:6d}  {minutes:6.1f} min  rate {rate:.5f}  {text}", flush=True)
            sums = dict.fromkeys(GAINS, 0.0)
        if rank == 0 and (step % 250 == 0 or share >= 1):
            torch.save(average.state_dict(), checkpoint)
        if share >= 1:
            break
    if rank == 0:
        print(f"{step} steps of {options.batch} in {(time.monotonic() - started) / 60:.1f} minutes", flush=True)
    distributed.destroy_process_group()


def _average_gradients(parameters: list[nn.Parameter], share: float) -> float:
    """Average gradients over all workers in place; also the share of training done, which they must agree on."""
    flat = torch.cat([*(p.grad.flatten() for p in parameters), torch.tensor([share])])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    *parts, agreed = flat.split([*(p.numel() for p in parameters), 1])
    for p, part in zip(parameters, parts, strict=True):
        p.grad.copy_(part.view_as(p))
    return agreed.item()


@torch.no_grad()
def _follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    for mean, value in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)


# --- export ---------------------------------------------------------------------------------------


def export(network: Network, path: Path, *, opset: int = 17) -> None:
    """Write ONNX with weights of 16 bits (computation and interface stay at 32) and YOLO metadata."""
    import onnx

    network = copy.deepcopy(network).eval().to(memory_format=torch.contiguous_format)
    for module in network.modules():
        if isinstance(module, Conv):
            module.fold()
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(
        Packed(network).eval(),
        (torch.zeros(1, 3, SIDE, SIDE),),
        str(path),
        input_names=["images"],
        output_names=["output0", "output1"],
        opset_version=opset,
        dynamo=False,
    )
    model = onnx.load(str(path))
    _halve(model)
    described = {
        "description": "Sample model of maskprism: instance segmentation of drawn scenes",
        "author": "The maskprism authors",
        "date": date.today().isoformat(),
        "license": "MIT",
        "task": "segment",
        "stride": str(max(STRIDES)),
        "imgsz": str([SIDE, SIDE]),
        "names": str(NAMES),
    }
    onnx.helper.set_model_props(model, described)
    model.producer_name, model.producer_version, model.doc_string = "maskprism", "", ""
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())


def _halve(model: onnx.ModelProto) -> None:
    """Keep the kernels of convolutions as float16, with a cast to float32 in front of their use."""
    import onnx

    kernels = {node.input[1] for node in model.graph.node if node.op_type == "Conv"}
    casts = []
    for tensor in model.graph.initializer:
        if tensor.name in kernels:
            values = onnx.numpy_helper.to_array(tensor).astype(np.float16)
            name = tensor.name
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, f"{name}.half"))
            casts.append(onnx.helper.make_node("Cast", [f"{name}.half"], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


# --- judgement ------------------------------------------------------------------------------------


def judge(path: Path, count: int = 500, *, threads: int | None = None) -> dict[str, dict[str, float]]:
    """COCO metrics of boxes and of masks at image size on scenes of unseen seeds."""
    from pycocotools import mask as rle
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    from maskprism import load

    model = load(path, conf=0.001, iou=0.7, max_det=100, threads=threads)
    images, truths, found = [], [], []
    for number in range(count):
        scene = draw_scene(JUDGING_SEED + number)
        images.append({"id": number, "height": SIDE, "width": SIDE})
        for class_id, box, mask in zip(scene.classes, scene.boxes, scene.masks, strict=True):
            truth = {"id": len(truths) + 1, "image_id": number, "category_id": int(class_id), "iscrowd": 0}
            code = rle.encode(np.asfortranarray(mask))
            truths.append(truth | {"bbox": _xywh(box), "area": int(mask.sum()), "segmentation": code})
        prediction = model.predict(scene.image)
        for instance, mask in zip(prediction, prediction.masks("image"), strict=True):
            row = {"image_id": number, "category_id": instance.class_id, "score": instance.score}
            code = rle.encode(np.asfortranarray(mask))
            found.append(row | {"bbox": _xywh(instance.box), "segmentation": code})
    with contextlib.redirect_stdout(io.StringIO()):
        truth_set = COCO()
        truth_set.dataset = {
            "images": images,
            "annotations": truths,
            "categories": [{"id": k, "name": v} for k, v in NAMES.items()],
        }
        truth_set.createIndex()
        results: dict[str, dict[str, float]] = {}
        for kind, title in (("bbox", "box"), ("segm", "mask")):
            rows = [row if kind == "segm" else {k: v for k, v in row.items() if k != "segmentation"} for row in found]
            scored = COCOeval(truth_set, truth_set.loadRes(rows), kind)
            scored.evaluate()
            scored.accumulate()
            scored.summarize()
            precision = scored.eval["precision"]  # IoU thresholds, recalls, classes, areas, limits
            results[title] = {"AP": scored.stats[0], "AP50": scored.stats[1], "AP75": scored.stats[2]}
            for i, name in NAMES.items():
                values = precision[:, :, i, 0, -1]
                results[title][f"AP {name}"] = values[values >= 0].mean()
                results[title][f"AP50 {name}"] = values[0][values[0] >= 0].mean()
    return {title: {name: round(float(value), 4) for name, value in rows.items()} for title, rows in results.items()}


def _xywh(box: np.ndarray) -> list[float]:
    x1, y1, x2, y2 = (float(v) for v in box)
    return [x1, y1, x2 - x1, y2 - y1]


# --- command --------------------------------------------------------------------------------------


def main() -> None:
    """Train, export, judge; parts of it with --export or --judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("sample.onnx"), help="ONNX file to write, or to judge")
    parser.add_argument(
        "--export", type=Path, metavar="CHECKPOINT", help="only write this checkpoint as ONNX, judge it"
    )
    parser.add_argument("--judge", action="store_true", help="only judge the file named by --output")
    parser.add_argument("--scenes", type=int, default=6000, help="training scenes to draw")
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--minutes", type=float, help="end after so much training time, with the rate falling to match")
    parser.add_argument("--batch", type=int, default=12, help="scenes a step, over all workers")
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", type=Path, metavar="CHECKPOINT", help="start from these weights")
    parser.add_argument("--workers", type=int, default=2, help="processes that share every batch")
    parser.add_argument("--full-precision", action="store_true", help="train without bfloat16")
    parser.add_argument("--checkpoint", type=Path, help="keep averaged weights here every 500 steps")
    parser.add_argument("--folder", type=Path, help="keep drawn scenes here (2.5 GB); default: a temporary folder")
    options = parser.parse_args()
    if options.export:
        network = Network(len(NAMES))
        network.load_state_dict(torch.load(options.export, weights_only=True))
        export(network, options.output)
    elif not options.judge:
        with tempfile.TemporaryDirectory() as temporary:
            folder = options.folder or Path(temporary)
            folder.mkdir(parents=True, exist_ok=True)
            export(train(options, folder), options.output)
    print(f"{options.output}: {options.output.stat().st_size / 2**20:.2f} MiB")
    print(json.dumps(judge(options.output), indent=2))


if __name__ == "__main__":
    main()
