"""A miniature YOLACT after the paper (Bolya et al., 2019), its loss, and its own detection, in PyTorch."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from maskprism.datasets.scenes import draw_scene

SIDE = 140
"""Of the canvas. Strides round up, as with 550: levels of 18, 9, 5, 3 and 2 cells, and prototypes of 36."""
KNOWN = 12
"""These few scenes are memorised: seconds are not enough to find objects in others."""
MEANS, DEVIATIONS = (123.68, 116.78, 103.94), (58.40, 57.12, 57.38)


class Pyramid(nn.Module):
    """C3 to C5 from a small backbone, P3 to P7 from top-down sums and two strides."""

    def __init__(self, width: int) -> None:
        super().__init__()

        def down(before: int, after: int) -> nn.Sequential:
            layers = [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
            layers += [nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
            return nn.Sequential(*layers)

        sides = (16, 32, width, width, width)
        self.steps = nn.ModuleList(down(*pair) for pair in zip((3, *sides), sides, strict=False))
        self.lateral = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(3))
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, 1, 1) for _ in range(3))
        self.coarser = nn.ModuleList(nn.Conv2d(width, width, 3, 2, 1) for _ in range(2))

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        features = []
        for step in self.steps:
            images = step(images)
            features.append(images)
        tops: list[torch.Tensor] = []
        for feature, lateral in zip(features[:1:-1], self.lateral, strict=True):
            here = lateral(feature)
            if tops:
                here = here + functional.interpolate(tops[-1], here.shape[2:], mode="bilinear", align_corners=False)
            tops.append(here)
        levels = [functional.relu(smooth(top)) for smooth, top in zip(self.smooth, tops[::-1], strict=True)]
        for coarser in self.coarser:
            levels.append(coarser(levels[-1]))
        return levels


class Detect:
    """The last step of the public model: no module, a call with the parts and the model."""

    def __call__(self, parts: dict[str, torch.Tensor], network: nn.Module) -> list[dict]:
        return [{"detection": detect(parts, index, conf=0.05), "net": network} for index in range(len(parts["loc"]))]


class Yolact(nn.Module):
    """K prototypes from P3; a head shared by all levels for boxes, classes and coefficients of three priors a cell."""

    def __init__(self, classes: int = 1, k: int = 8, width: int = 48) -> None:
        super().__init__()
        self.pyramid = Pyramid(width)
        self.before = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1), nn.ReLU(), nn.Conv2d(width, width, 3, 1, 1))
        self.after = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1), nn.ReLU(), nn.Conv2d(width, k, 1))
        self.head = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1), nn.ReLU())
        self.loc, self.conf, self.mask = (nn.Conv2d(width, 3 * size, 3, 1, 1) for size in (4, 1 + classes, k))
        self.classes, self.k = classes, k
        self.detect = Detect()

    def forward(self, images: torch.Tensor):
        levels = self.pyramid(images)
        heads = [self.head(level) for level in levels]
        parts = {
            name: torch.cat([layer(head).permute(0, 2, 3, 1).reshape(len(images), -1, size) for head in heads], dim=1)
            for name, layer, size in (
                ("loc", self.loc, 4),
                ("conf", self.conf, 1 + self.classes),
                ("mask", self.mask, self.k),
            )
        }
        parts["mask"] = torch.tanh(parts["mask"])
        large = functional.interpolate(
            functional.relu(self.before(levels[0])), scale_factor=2, mode="bilinear", align_corners=False
        )
        parts["proto"] = functional.relu(self.after(large)).permute(0, 2, 3, 1)
        parts["priors"] = torch.cat([priors_of(level, images, index) for index, level in enumerate(levels)])
        if self.training:
            return parts
        parts["conf"] = torch.softmax(parts["conf"], dim=-1)
        return self.detect(parts, self)


def priors_of(level: torch.Tensor, images: torch.Tensor, index: int) -> torch.Tensor:
    """Squares around the middle of every cell, as wide as ratios of 1, 1/2 and 2 say."""
    height, width = level.shape[2:]
    side = images.shape[2]
    scale = int(24 * 2**index / 550 * side)
    y, x = torch.meshgrid((torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij")
    sides = torch.tensor([1.0, 0.5, 2.0]).sqrt() * scale / side
    found = torch.stack([x[..., None].expand(-1, -1, 3), y[..., None].expand(-1, -1, 3)], dim=-1)
    wide = sides.expand(height, width, 3)
    return torch.cat([found, wide[..., None], wide[..., None]], dim=-1).reshape(-1, 4)


def corners(loc: torch.Tensor, priors: torch.Tensor) -> torch.Tensor:
    """Boxes as shares of the canvas."""
    centre = priors[:, :2] + loc[..., :2] * 0.1 * priors[:, 2:]
    size = priors[:, 2:] * torch.exp(0.2 * loc[..., 2:])
    return torch.cat([centre - size / 2, centre + size / 2], dim=-1)


def overlaps(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """IoU of every pair."""
    low, high = torch.maximum(a[:, None, :2], b[None, :, :2]), torch.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(dim=2)
    area_a, area_b = ((one[:, 2:] - one[:, :2]).prod(dim=1) for one in (a, b))
    return shared / (area_a[:, None] + area_b[None] - shared).clamp(min=1e-9)


def detect(parts: dict[str, torch.Tensor], index: int, *, conf: float, iou: float = 0.5, most: int = 100) -> dict:
    """Boxes, coefficients, classes and scores of one image: Fast NMS class by class, then the best of all."""
    boxes = corners(parts["loc"][index], parts["priors"])
    scores = parts["conf"][index][:, 1:].T
    found = []
    for class_id, of_class in enumerate(scores):
        order = of_class.argsort(descending=True, stable=True)[:200]
        order = order[of_class[order] > conf]
        table = overlaps(boxes[order], boxes[order]).triu(diagonal=1)
        kept = order[table.amax(dim=0) <= iou] if len(order) else order
        found += [(float(of_class[i]), class_id, int(i)) for i in kept]
    found.sort(key=lambda one: -one[0])
    chosen = [i for _, _, i in found[:most]]
    return {
        "box": boxes[chosen],
        "mask": parts["mask"][index][chosen],
        "class": torch.tensor([class_id for _, class_id, _ in found[:most]], dtype=torch.long),
        "score": torch.tensor([score for score, _, _ in found[:most]]),
        "proto": parts["proto"][index],
    }


def draw(found: dict, image_hw: tuple[int, int]) -> torch.Tensor:
    """Masks at the size of the image: product, sigmoid, crop with a cell around, enlarge, above a half."""
    probabilities = torch.sigmoid(found["proto"] @ found["mask"].T)
    height, width, _ = probabilities.shape
    y, x = torch.arange(height)[:, None, None], torch.arange(width)[None, :, None]
    x1, y1, x2, y2 = found["box"].T * torch.tensor([width, height, width, height])[:, None]
    inside = (
        (x >= (x1 - 1).clamp(min=0))
        & (x < (x2 + 1).clamp(max=width))
        & (y >= (y1 - 1).clamp(min=0))
        & (y < (y2 + 1).clamp(max=height))
    )
    cropped = (probabilities * inside).permute(2, 0, 1)[None]
    return functional.interpolate(cropped, image_hw, mode="bilinear", align_corners=False)[0] > 0.5


def tensor_of(images: list[np.ndarray]) -> torch.Tensor:
    """BGR images stretched to the canvas by PyTorch, not rounded, as RGB without mean and deviation."""
    stretched = []
    for image in images:
        planes = torch.from_numpy(image[..., ::-1].astype(np.float32)).permute(2, 0, 1)[None]
        stretched.append(functional.interpolate(planes, (SIDE, SIDE), mode="bilinear", align_corners=False))
    means, deviations = (torch.tensor(one)[:, None, None] for one in (MEANS, DEVIATIONS))
    return (torch.cat(stretched) - means) / deviations


def loss_of(parts: dict[str, torch.Tensor], scenes: list) -> torch.Tensor:
    """Classes with three negatives for every positive, smooth L1 of boxes, cross entropy of masks inside boxes."""
    total = torch.zeros(())
    priors = parts["priors"]
    placed = torch.cat([priors[:, :2] - priors[:, 2:] / 2, priors[:, :2] + priors[:, 2:] / 2], dim=1)
    for index, scene in enumerate(scenes):
        true = torch.from_numpy(scene.boxes / SIDE)
        table = overlaps(placed, true)
        best, which = table.max(dim=1)
        most = table.argmax(dim=0)  # every object has a prior
        best[most], which[most] = 2.0, torch.arange(len(true))
        positive, negative = best >= 0.5, best < 0.4
        conf = functional.log_softmax(parts["conf"][index], dim=-1)
        hard = (-conf[negative, 0]).topk(min(3 * int(positive.sum()), int(negative.sum())))[0]
        total = total + ((-conf[positive, 1]).sum() + hard.sum()) / positive.sum()

        own, of_own = priors[positive], true[which[positive]]
        centre = ((of_own[:, :2] + of_own[:, 2:]) / 2 - own[:, :2]) / (0.1 * own[:, 2:])
        size = torch.log((of_own[:, 2:] - of_own[:, :2]) / own[:, 2:]) / 0.2
        wanted = torch.cat([centre, size], dim=1)
        boxes = functional.smooth_l1_loss(parts["loc"][index][positive], wanted, reduction="sum")
        total = total + 1.5 * boxes / len(own)

        proto = parts["proto"][index]
        height, width, _ = proto.shape
        masks = torch.from_numpy(scene.masks.astype(np.float32))[None]
        masks = (functional.interpolate(masks, (height, width), mode="area")[0] > 0.5).float()[which[positive]]
        logits = (proto @ parts["mask"][index][positive].T).permute(2, 0, 1)
        x1, y1, x2, y2 = (of_own * torch.tensor([width, height, width, height])).T[..., None, None]
        y, x = torch.arange(height)[:, None], torch.arange(width)[None]
        inside = (x >= x1 - 1) & (x < x2 + 1) & (y >= y1 - 1) & (y < y2 + 1)
        pixels = functional.binary_cross_entropy_with_logits(logits, masks, reduction="none") * inside
        areas = ((x2 - x1) * (y2 - y1)).reshape(-1).clamp(min=1)
        total = total + 6.125 * (pixels.sum(dim=(1, 2)) / areas).mean()
    return total / len(scenes)


def plain_scenes(count: int, *, first: int) -> list:
    """Drawn scenes of at most five objects."""
    numbered = (draw_scene(number, (SIDE, SIDE)) for number in itertools.count(first))
    return list(itertools.islice((scene for scene in numbered if len(scene) <= 5), count))


def trained(steps: int, *, batch: int = 8, seed: int = 0) -> Yolact:
    """A model that finds the objects of drawn scenes, whatever they are."""
    torch.manual_seed(seed)
    network = Yolact()
    network.train()
    fast = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(fast, 5e-3, total_steps=steps, pct_start=0.15)
    scenes = plain_scenes(KNOWN, first=0)
    images = tensor_of([scene.image for scene in scenes])
    order = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        chosen = torch.randint(len(scenes), (batch,), generator=order)
        loss = loss_of(network(images[chosen]), [scenes[int(i)] for i in chosen])
        fast.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 10)
        fast.step()
        schedule.step()
    return network.eval()
