"""Random models of further families, and exports other than ONNX, through Ultralytics' own classes."""

from __future__ import annotations

from parity.networks import small_scenes, spread_head


def random_yoloe(yaml: str, *, seed: int = 0, classes: int = 5):
    """A `YOLOE` with random weights, whose class names came with random embeddings instead of a text model's."""
    import torch
    from ultralytics import YOLOE

    torch.manual_seed(seed)
    yolo = YOLOE(yaml, verbose=False)
    network, head = yolo.model, yolo.model.model[-1]
    batch = small_scenes()
    width = head.embed if hasattr(head, "embed") else 512
    names = [f"kind{i}" for i in range(classes)]
    yolo.set_classes(names, torch.nn.functional.normalize(torch.randn(1, classes, width), dim=-1))
    head.cv4.apply(_make_certain)
    for branch in getattr(head, "one2one_cv4", None) or ():
        branch.apply(_make_certain)
    spread_head(network, head, batch, {"cv5": (0.0, 1.0)})
    return yolo


def _make_certain(module) -> None:
    """Scores of a contrastive head that go up and down."""
    if hasattr(module, "logit_scale"):
        module.logit_scale.data.fill_(-1.0)
        module.bias.data.fill_(-1.6)
