"""Small, seeded models with random weights that nevertheless say something."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np


def random_network(yaml: str, *, seed: int = 0, classes: int = 80):
    """An `ultralytics.YOLO` with random weights, many instances of many classes, and lively masks.

    Batch statistics come from the `scenes`, and the last layers are scaled to a mean and a spread
    per channel. The two heads of YOLO26 are made different, so that taking the wrong one shows.
    """
    import torch
    from ultralytics import YOLO
    from ultralytics.nn.tasks import SegmentationModel

    torch.manual_seed(seed)
    yolo = YOLO(yaml, verbose=False)
    if classes != yolo.model.model[-1].nc:
        yolo.model = SegmentationModel(yaml, nc=classes, verbose=False)
        yolo.model.names = {i: f"kind{i}" for i in range(classes)}
        yolo.model.task, yolo.model.args = "segment", {"task": "segment"}
    network, head = yolo.model, yolo.model.model[-1]
    batch = small_scenes()
    for name, parameter in head.named_parameters():
        if name.startswith("one2one_"):
            parameter.data += 0.3 * parameter.std().nan_to_num() * torch.randn_like(parameter)
    spread_head(network, head, batch, {"cv3": (-5.0, 1.8), "cv4": (0.0, 1.0)})
    return yolo


def small_scenes():
    """The scenes as a batch, (N, 3, 160, 160), RGB in 0..1."""
    import torch

    seen = np.stack([cv2.resize(scene, (160, 160))[:, :, ::-1].transpose(2, 0, 1) for scene in scenes()])
    return torch.from_numpy(seen.astype(np.float32) / 255)


def spread_head(network, head, batch, branches: dict[str, tuple[float, float]]) -> None:
    """Normalise by a batch, and give the outputs of these branches, and the box sides, a mean and a spread."""
    import torch

    momentum = {}
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
            momentum[module], module.momentum = module.momentum, None
    network.train()
    with torch.no_grad():
        network(batch)
        for module, value in momentum.items():
            module.momentum = value
        network.eval()
        direct = head.reg_max == 1  # box sides in strides, without a distribution
        for layers, (mean, spread) in {"cv2": (3.0, 1.0) if direct else (0.0, 2.0), **branches}.items():
            for branch in (layers, f"one2one_{layers}"):
                for level in getattr(head, branch, None) or ():
                    _spread(network, level[-1], batch, mean, spread)
    for parameter in network.parameters():
        parameter.requires_grad = True


def _spread(network, layer, batch, mean: float, spread: float) -> None:
    """Scale a last convolution to the mean and spread per channel, on a batch."""
    import torch

    seen = []
    hook = layer.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    network(batch)
    hook.remove()
    factor = spread / seen[0].std(dim=(0, 2, 3)).clamp(min=1e-6)
    layer.weight.data *= factor[:, None, None, None]
    layer.bias.data = mean - (seen[0].mean(dim=(0, 2, 3)) - layer.bias) * factor
    assert torch.isfinite(layer.weight).all()


def scenes(sizes: tuple[tuple[int, int], ...] = ((120, 200), (213, 147), (160, 160), (97, 301))) -> list[np.ndarray]:
    """Seeded pictures of (height, width), BGR: coloured shapes on a soft background."""
    rng = np.random.default_rng(7)
    found = []
    for height, width in sizes:
        soft = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        picture = cv2.resize(soft, (width, height), interpolation=cv2.INTER_CUBIC)
        for _ in range(12):
            centre = (int(rng.integers(width)), int(rng.integers(height)))
            colour = tuple(int(c) for c in rng.integers(0, 256, 3))
            axes = (int(rng.integers(4, 40)), int(rng.integers(4, 40)))
            cv2.ellipse(picture, centre, axes, float(rng.integers(180)), 0, 360, colour, -1)
        found.append(picture)
    return found


def save(yolo, path: Path) -> Path:
    """Save as a checkpoint, as training would."""
    yolo.save(path)
    return path
