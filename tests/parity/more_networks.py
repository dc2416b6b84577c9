"""Random networks of further families, and exports other than ONNX, through Ultralytics' own classes."""

from __future__ import annotations

import cv2
import numpy as np

from parity.networks import _spread, scenes


def random_yoloe(yaml: str, *, seed: int = 0, classes: int = 5):
    """A `YOLOE` with random weights, whose class names came with random embeddings instead of a text model's."""
    import torch
    from ultralytics import YOLOE

    torch.manual_seed(seed)
    yolo = YOLOE(yaml, verbose=False)
    network, head = yolo.model, yolo.model.model[-1]
    seen = np.stack([cv2.resize(scene, (160, 160))[:, :, ::-1].transpose(2, 0, 1) for scene in scenes()])
    batch = torch.from_numpy(seen.astype(np.float32) / 255)
    width = head.embed if hasattr(head, "embed") else 512
    names = [f"kind{i}" for i in range(classes)]
    yolo.set_classes(names, torch.nn.functional.normalize(torch.randn(1, classes, width), dim=-1))
    momentum = {}
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
            momentum[module], module.momentum = module.momentum, None
    head.cv4.apply(_make_certain)
    for branch in getattr(head, "one2one_cv4", None) or ():
        branch.apply(_make_certain)
    network.train()
    with torch.no_grad():
        network(batch)
        for module, value in momentum.items():
            module.momentum = value
        network.eval()
        direct = head.reg_max == 1
        for layers, mean, spread in (
            ("cv2", 3.0 if direct else 0.0, 1.0 if direct else 2.0),
            ("cv5", 0.0, 1.0),
        ):
            for branch in (layers, f"one2one_{layers}"):
                for level in getattr(head, branch, None) or ():
                    _spread(network, level[-1], batch, mean, spread)
    for parameter in network.parameters():
        parameter.requires_grad = True
    return yolo


def _make_certain(module) -> None:
    """Scores of a contrastive head that go up and down."""
    if hasattr(module, "logit_scale"):
        module.logit_scale.data.fill_(-1.0)
        module.bias.data.fill_(-1.6)
