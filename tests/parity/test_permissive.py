"""Models under permissive licences whose masks are sums: lucid-yolo's prototypes, LibreYOLO's query masks.

Skipped where these packages are not installed; random weights, because what is compared is how outputs are read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import maskprism
from maskprism.core.masks import MaskRule

torch = pytest.importorskip("torch")

LUCID = MaskRule("lucid-yolo", squash=True)
"""Sigmoid on the grid, enlarged, cut to the box at the size of the canvas."""


@pytest.fixture
def image() -> np.ndarray[Any, Any]:
    return np.random.default_rng(4).integers(0, 256, (128, 128, 3), dtype=np.uint8)


def tensor_of(image: np.ndarray[Any, Any]) -> Any:
    return torch.from_numpy(np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1)[None])).float() / 255


def test_lucid_yolo(tmp_path: Path, image: np.ndarray[Any, Any]) -> None:
    """The wrapper of docs/families.md; masks are those of its own decoder, but for the line along the box."""
    build = pytest.importorskip("lucid_yolo.models.build", exc_type=ImportError)
    export = pytest.importorskip("lucid_yolo.export", exc_type=ImportError)
    decode = pytest.importorskip("lucid_yolo.eval.segment_decode", exc_type=ImportError)

    class Rows(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self, segmenter: Any, canvas: tuple[int, int]) -> None:
            super().__init__()
            self.graph = export.SegmentExportGraph(segmenter.eval().deploy().eval(), canvas)

        def forward(self, image: Any) -> tuple[Any, Any]:
            graph = self.graph
            classes, boxes, coefficients, prototypes = graph.deployed(image)
            rows, anchors = graph.decoder.decode_with_indices(classes, boxes, graph.anchor_points, graph.strides)
            chosen = anchors.unsqueeze(-1).expand(-1, -1, coefficients.shape[-1])
            return torch.cat([rows, coefficients.gather(1, chosen)], dim=-1), prototypes

    torch.manual_seed(0)
    segmenter = build.Segmenter("n", num_classes=4)
    for name, value in segmenter.named_parameters():
        if "box_stems" in name and name.endswith(".2.bias"):  # boxes of some size
            torch.nn.init.constant_(value, 2.0)
        if "coeff_stems" in name and name.endswith(".2.bias"):
            torch.nn.init.normal_(value)
    for name, value in segmenter.named_parameters():
        if value.ndim == 4 and not name.startswith("head"):  # prototypes that differ from place to place
            torch.nn.init.normal_(value, std=(2 / value[0].numel()) ** 0.5)
    network = Rows(segmenter, (128, 128)).eval()
    torch.onnx.export(network, torch.zeros(1, 3, 128, 128), tmp_path / "lucid.onnx", dynamo=False, opset_version=17)
    model = maskprism.load(tmp_path / "lucid.onnx", rule=LUCID, conf=0)
    prediction = model.predict(image)
    assert model.spec.layout == "end2end"
    assert prediction.coefficients.shape[1] == 32
    # What the file gives: of equal scores it keeps others than PyTorch does.
    session = onnxruntime.InferenceSession(tmp_path / "lucid.onnx")
    rows, prototypes = map(
        torch.from_numpy, session.run(None, {session.get_inputs()[0].name: tensor_of(image).numpy()})
    )
    masks = decode.decode_instance_masks(prototypes, rows[..., 6:], rows[..., :4], image_size=(128, 128))[0].numpy()
    known = np.concatenate([rows[0, :, :4].numpy(), rows[0, :, 6:].numpy()], axis=1)
    compared, seen = 0, set[bool]()
    for mask, instance in zip(prediction.masks("canvas"), prediction, strict=True):
        off = np.abs(known - np.concatenate([instance.canvas_box, instance.coefficients])).max(axis=1)
        assert off.min() < 1e-3
        x1, y1, x2, y2 = (np.ceil(instance.canvas_box) + np.array([1, 1, -2, -2])).astype(int).clip(0)
        theirs = masks[off.argmin()][y1:y2, x1:x2]
        np.testing.assert_array_equal(mask[y1:y2, x1:x2], theirs)
        compared += theirs.size
        seen |= set(np.unique(theirs).tolist())
    assert seen == {False, True}
    assert compared > 1000


def test_libreyolo(tmp_path: Path, image: np.ndarray[Any, Any]) -> None:
    """Its segmenters (GTR, RF-DETR) multiply queries with a pixel embedding, and add a bias."""
    heads = pytest.importorskip("libreyolo.models.gtr.segmentation_head", exc_type=ImportError)

    class Network(torch.nn.Module):  # type: ignore[misc, name-defined]
        """The head behind a stem of one layer and learnt queries."""

        def __init__(self) -> None:
            super().__init__()
            self.stem = torch.nn.Conv2d(3, 16, 8, 8)
            self.queries = torch.nn.Linear(16, 5 * 16)
            self.classes, self.boxes = torch.nn.Linear(16, 3), torch.nn.Linear(16, 4)
            self.head = heads.SegmentationHead(16, 2, image_size=(128, 128))
            torch.nn.init.constant_(self.head.bias, -0.2)

        def forward(self, image: Any) -> tuple[Any, Any, Any]:
            features = self.stem(image)
            queries = self.queries(features.mean(dim=(2, 3))).reshape(-1, 5, 16)
            return self.boxes(queries).sigmoid(), self.classes(queries), self.head(features, [queries])[0]

    torch.manual_seed(1)
    network = Network().eval()
    torch.onnx.export(
        network,
        torch.zeros(1, 3, 128, 128),
        tmp_path / "libre.onnx",
        dynamo=False,
        opset_version=17,
        output_names=["dets", "labels", "masks"],
    )
    model = maskprism.load(tmp_path / "libre.onnx", conf=0)
    prediction = model.predict(image)
    assert (model.spec.layout, model.spec.prototypes) == ("query", 17)
    assert any("bias: -0.2" in note for note in model.spec.notes)
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        logits = network((tensor_of(image) - mean) / std)[2][0].numpy()
    ours = prediction.logits("grid")
    assert len(ours) == 15  # every query once for each of three classes
    for found in ours:
        assert min(np.abs(found - one).max() for one in logits) < 1e-4
