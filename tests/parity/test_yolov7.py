"""The head of YOLOv5-seg and YOLOv7-seg in PyTorch, random: exported, read, and drawn as their tools do."""

from __future__ import annotations

import numpy as np
import pytest

import maskprism
from maskprism.core.preprocessing import YOLO
from parity.networks import scenes

torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
SIDE, CLASSES, K = 160, 4, 8
ANCHORS = (
    ((12, 16), (19, 36), (40, 28)),
    ((36, 75), (76, 55), (72, 146)),
    ((142, 110), (192, 243), (459, 401)),
)  # of YOLOv7


class Head(nn.Module):
    """Rows of centre, size, objectness, classes, coefficients for three anchors a cell; prototypes of the finest."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 6, 4, 1), nn.SiLU(), nn.Conv2d(16, 24, 3, 2, 1), nn.SiLU())
        self.down = nn.ModuleList(nn.Sequential(nn.Conv2d(24, 24, 3, 2, 1), nn.SiLU()) for _ in range(2))
        self.rows = nn.ModuleList(nn.Conv2d(24, 3 * (5 + CLASSES + K), 1) for _ in range(3))
        self.proto = nn.Sequential(nn.Conv2d(24, 24, 3, 1, 1), nn.SiLU(), nn.Upsample(scale_factor=2, mode="nearest"))
        self.last = nn.Sequential(nn.Conv2d(24, K, 1), nn.SiLU())

    def forward(self, images):
        levels = [self.stem(images)]
        for down in self.down:
            levels.append(down(levels[-1]))
        found = []
        for level, rows, anchors, stride in zip(levels, self.rows, ANCHORS, (8, 16, 32), strict=True):
            height, width = SIDE // stride, SIDE // stride
            table = rows(level * 12).reshape(-1, 3, 5 + CLASSES + K, height, width).permute(0, 1, 3, 4, 2)
            y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
            grid = torch.stack([x, y], dim=-1)[None, None].float()
            sides = torch.tensor(anchors).float()[None, :, None, None]
            sure = table[..., : 5 + CLASSES].sigmoid()
            centre, size = (sure[..., :2] * 2 - 0.5 + grid) * stride, (sure[..., 2:4] * 2) ** 2 * sides
            whole = torch.cat([centre, size, sure[..., 4:], table[..., 5 + CLASSES :]], dim=-1)
            found.append(whole.reshape(-1, 3 * height * width, 5 + CLASSES + K))
        return torch.cat(found, dim=1), self.last(self.proto(levels[0] * 6))


def own_answer(network, image, conf, iou):
    """Boxes, scores, classes and masks as predict of YOLOv5 and YOLOv7 have them; coefficients times objectness."""
    letterbox = YOLO.letterbox(image.shape[:2], (SIDE, SIDE))
    canvas = YOLO.canvas(image, letterbox)
    tensor = torch.from_numpy(np.ascontiguousarray(canvas[:, :, ::-1]).astype(np.float32) / 255).permute(2, 0, 1)[None]
    with torch.no_grad():
        rows, prototypes = (one[0] for one in network(tensor))
    rows = rows[rows[:, 4] > conf].clone()
    rows[:, 5:] *= rows[:, 4:5]
    scores, classes = rows[:, 5 : 5 + CLASSES].max(dim=1)
    rows, scores, classes = rows[scores > conf], scores[scores > conf], classes[scores > conf]
    boxes = torch.cat([rows[:, :2] - rows[:, 2:4] / 2, rows[:, :2] + rows[:, 2:4] / 2], dim=1)
    kept = torchvision.ops.nms(boxes + classes[:, None] * 7680, scores, iou)
    boxes, scores, classes, weights = boxes[kept], scores[kept], classes[kept], rows[kept, 5 + CLASSES :]
    masks = (weights @ prototypes.reshape(K, -1)).sigmoid().reshape(-1, *prototypes.shape[1:])
    y, x = torch.arange(masks.shape[1])[:, None], torch.arange(masks.shape[2])[None]
    x1, y1, x2, y2 = (boxes.T / 4)[..., None, None]
    cropped = masks * ((x >= x1) & (x < x2) & (y >= y1) & (y < y2))
    large = functional.interpolate(cropped[None], (SIDE, SIDE), mode="bilinear", align_corners=False)[0] > 0.5
    return boxes.numpy(), scores.numpy(), classes.numpy(), weights.numpy(), large.numpy()


@pytest.mark.parametrize("conf", [0.25, 0.1])
def test_an_export_gives_the_same_instances_and_masks(conf, tmp_path):
    network = Head().eval()
    with torch.no_grad():
        for layer in network.rows:
            layer.weight.mul_(2)
    path = tmp_path / "yolov7-seg.onnx"
    torch.onnx.export(network, torch.zeros(1, 3, SIDE, SIDE), path, dynamo=False)
    model = maskprism.load(path, conf=conf, iou=0.45, max_det=1000)
    assert (model.spec.layout, model.spec.prototypes, model.spec.rule.name) == ("yolov5", K, "yolov5")
    assert model.level_ends == (1200, 1500, 1575)
    count = 0
    for image in scenes():
        prediction = model.predict(image)
        boxes, scores, classes, weights, masks = own_answer(network, image, conf, 0.45)
        count += len(boxes)
        assert prediction.classes.tolist() == classes.tolist()
        np.testing.assert_allclose(prediction.scores, scores, atol=1e-5)
        np.testing.assert_allclose(prediction.canvas_boxes, boxes, atol=1e-2)
        np.testing.assert_allclose(prediction.weights, weights, atol=1e-4)
        ours = prediction.masks("canvas")
        assert (ours != masks).sum() <= 1e-5 * ours.size  # probabilities of a half, in other last bits
        assert ours.any()
    assert count > 40
