"""Models of transformers, small and with random weights: the sum of terms is their own mask logits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import maskprism
from maskprism.errors import InputError, ModelError
from parity.networks import scenes

torch = pytest.importorskip("torch")
transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed: pip install 'maskprism[transformers]'"
)

from maskprism.models.onnx.mask_branch import factors, write_revealed  # noqa: E402
from maskprism.models.sam import Sam  # noqa: E402

SIDE = 128
WITHIN = 1e-4


def backbone():
    return transformers.SwinConfig(
        image_size=SIDE,
        embed_dim=16,
        depths=[1, 1, 1, 1],
        num_heads=[1, 2, 2, 4],
        window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )


def mask2former(classes: int = 5):
    torch.manual_seed(0)
    config = transformers.Mask2FormerConfig(
        backbone_config=backbone(),
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=32,
        dim_feedforward=32,
        encoder_layers=1,
        decoder_layers=3,
        num_attention_heads=4,
        num_queries=12,
        id2label={i: f"kind {i}" for i in range(classes)},
    )
    return lively(transformers.Mask2FormerForUniversalSegmentation(config))


def maskformer(auxiliary: bool = False):
    torch.manual_seed(1)
    decoder = transformers.DetrConfig(
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        num_queries=10,
    )
    config = transformers.MaskFormerConfig(
        backbone_config=backbone(),
        decoder_config=decoder,
        fpn_feature_size=32,
        mask_feature_size=24,
        use_auxiliary_loss=auxiliary,
        num_labels=4,
    )
    return lively(transformers.MaskFormerForInstanceSegmentation(config))


def lively(network):
    """Scores that go up and down."""
    with torch.no_grad():
        network.class_predictor.weight.mul_(60)
    return network.eval()


NETWORKS = {
    "Mask2Former": (mask2former, 32),
    "MaskFormer": (maskformer, 24),
    "MaskFormer, all layers at once": (lambda: maskformer(auxiliary=True), 24),
}


@pytest.mark.parametrize("which", NETWORKS)
def test_the_sum_of_terms_is_the_networks_own_logits(which):
    build, k = NETWORKS[which]
    network = build()
    model = maskprism.load(network, imgsz=SIDE, conf=0.0, multi_label=True, max_det=10_000)
    assert (model.spec.layout, model.spec.prototypes, model.spec.rule.name) == ("query", k, "no-crop")
    classes = len(model.spec.names)
    for image in scenes():
        prediction = model.predict(image)
        letterbox = model.letterbox(image.shape[:2])
        prepare = model.spec.preprocessing
        tensor = torch.from_numpy(prepare.tensor([prepare.canvas(image, letterbox)], [letterbox]))
        with torch.no_grad():
            own = network(pixel_values=tensor, output_hidden_states=True)
        logits, shares = own.masks_queries_logits[0].numpy(), own.class_queries_logits[0].softmax(-1).numpy()[:, :-1]
        inside = logits > 0
        probabilities = 1 / (1 + np.exp(-logits))
        certain = (probabilities * inside).sum(axis=(1, 2)) / np.maximum(inside.sum(axis=(1, 2)), 1)
        expected = shares * certain[:, None]
        # With every class of every query, best first, rows are identified by their score.
        assert len(prediction) == int((expected > 0).sum())
        order = np.argsort(-expected.ravel(), kind="stable")[: len(prediction)]
        np.testing.assert_allclose(prediction.scores, expected.ravel()[order], atol=1e-5)
        queries = np.abs(prediction.logits()[:, None] - logits[None]).max(axis=(2, 3))
        assert (queries.min(axis=1) <= WITHIN).all()
        assert (expected[queries.argmin(axis=1), prediction.classes] - prediction.scores < 1e-5).all()
        assert set(prediction.classes) <= set(range(classes))


def rf_detr(bias: float):
    torch.manual_seed(2)
    parts = pytest.importorskip(
        "transformers.models.rf_detr.configuration_rf_detr", reason="this transformers has no RF-DETR"
    )
    config = parts.RfDetrConfig(
        backbone_config=parts.RfDetrDinov2Config(
            hidden_size=32,
            num_hidden_layers=4,
            num_attention_heads=2,
            image_size=SIDE,
            patch_size=16,
            num_windows=2,
            out_indices=[2, 4],
            use_mask_token=False,
        ),
        d_model=32,
        decoder_ffn_dim=32,
        decoder_layers=2,
        decoder_self_attention_heads=2,
        decoder_cross_attention_heads=2,
        num_queries=12,
        group_detr=1,
        id2label={i: f"kind {i}" for i in range(5)},
    )
    network = transformers.RfDetrForInstanceSegmentation(config).eval()
    with torch.no_grad():
        network.segmentation_bias.fill_(bias)
    return network


@pytest.mark.parametrize("bias", [0.0, -0.3])
def test_rf_detr_is_taken_apart_with_its_boxes(bias):
    network = rf_detr(bias)
    model = maskprism.load(network, conf=0.0, multi_label=True, max_det=10_000)
    assert (model.spec.layout, model.spec.input_hw, model.spec.names[4]) == ("query", (SIDE, SIDE), "kind 4")
    assert model.spec.prototypes == 32 + (bias != 0)
    for image in scenes():
        prediction = model.predict(image)
        letterbox = model.letterbox(image.shape[:2])
        prepare = model.spec.preprocessing
        with torch.no_grad():
            own = network(
                pixel_values=torch.from_numpy(prepare.tensor([prepare.canvas(image, letterbox)], [letterbox]))
            )
        scores, boxes = own.logits[0].sigmoid().numpy(), own.pred_boxes[0].numpy()
        assert len(prediction) == scores.size  # every query once for each class
        for instance in prediction:
            query = np.abs(scores[:, instance.class_id] - instance.score).argmin()
            assert abs(scores[query, instance.class_id] - instance.score) < 1e-5
            assert np.abs(instance.logits() - own.pred_masks[0, query].numpy()).max() <= WITHIN
            x, y, width, height = boxes[query] * SIDE
            corners = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
            np.testing.assert_allclose(instance.canvas_box, corners, atol=1e-3)


def test_names_are_those_of_the_configuration():
    assert maskprism.load(mask2former(3), imgsz=SIDE).spec.names == {0: "kind 0", 1: "kind 1", 2: "kind 2"}
    assert maskprism.load(maskformer(), imgsz=SIDE).spec.names == {i: f"class{i}" for i in range(4)}


def test_images_in_the_corner_are_cut_to_a_rectangle():
    """To the next multiple of 32."""
    model = maskprism.load(mask2former(), imgsz=256, preprocessing="mask2former", conf=0.0)
    prediction = model.predict(scenes()[0])  # 120 x 200
    assert (prediction.letterbox.content_hw, prediction.letterbox.canvas_hw) == ((154, 256), (160, 256))
    assert prediction.letterbox.offset_yx == (0, 0)
    assert prediction.masks("image").shape[1:] == (120, 200)


def test_a_batch_is_predicted_as_one_by_one():
    model = maskprism.load(mask2former(), imgsz=SIDE, conf=0.0)
    model = replace(model, batch=3)
    images = scenes()[:3]
    for together, image in zip(model.predict(images), images, strict=True):
        np.testing.assert_allclose(together.logits(), model.predict(image).logits(), atol=1e-3)


def test_the_network_is_left_as_it_was():
    network = mask2former()
    network.train()
    maskprism.load(network, imgsz=SIDE).predict(scenes()[0])
    assert network.training
    assert not network._forward_hooks


def test_other_networks_are_refused():
    torch.manual_seed(0)
    vit = transformers.ViTModel(
        transformers.ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=64, patch_size=16)
    )
    with pytest.raises(ModelError, match=r"ViTModel: gives no masks_queries_logits .*maskprism\.models\.sam"):
        maskprism.load(vit, imgsz=64)
    with pytest.raises(InputError, match="precision 'bf16' is not available with transformers"):
        maskprism.load(vit, precision="bf16")
    with pytest.raises(ModelError, match="ViTModel: expected a SamModel or a Sam2Model"):
        Sam(vit)


# --- SAM ------------------------------------------------------------------------------------------


def sam():
    torch.manual_seed(2)
    config = transformers.SamConfig(
        vision_config={
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 128,
            "output_channels": 32,
            "global_attn_indexes": [1],
            "window_size": 4,
            "mlp_dim": 32,
            "num_pos_feats": 16,
        },
        prompt_encoder_config={
            "hidden_size": 32,
            "image_size": 128,
            "image_embedding_size": 8,
            "mask_input_channels": 8,
        },
        mask_decoder_config={
            "hidden_size": 32,
            "mlp_dim": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "iou_head_hidden_dim": 32,
        },
    )
    return transformers.SamModel(config).eval()


def sam2():
    torch.manual_seed(3)
    config = transformers.Sam2Config(
        vision_config={
            "backbone_config": {
                "model_type": "sam2_hiera_det_model",
                "hidden_size": 8,
                "num_attention_heads": 1,
                "image_size": [128, 128],
                "blocks_per_stage": [1, 1, 2, 1],
                "embed_dim_per_stage": [8, 16, 32, 64],
                "num_attention_heads_per_stage": [1, 1, 2, 4],
                "window_size_per_stage": [4, 4, 4, 2],
                "global_attention_blocks": [3],
            },
            "backbone_channel_list": [64, 32, 16, 8],
            "fpn_hidden_size": 32,
            "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
        },
        prompt_encoder_config={"hidden_size": 32, "image_size": 128, "mask_input_channels": 8},
        mask_decoder_config={
            "hidden_size": 32,
            "mlp_dim": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "iou_head_hidden_dim": 32,
        },
    )
    return transformers.Sam2Model(config).eval()


PROMPTS = {
    "a point": {"points": [[40, 60]]},
    "two points": {"points": [[40, 60], [90, 20]], "labels": [1, 0]},
    "a box": {"box": [10, 20, 90, 100]},
    "both": {"points": [[40, 60]], "box": [10, 20, 90, 100]},
}


@pytest.mark.parametrize("build", [sam, sam2])
@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("several", [True, False])
def test_the_sum_of_terms_is_sams_own_logits(build, prompt, several):
    network, asked = build(), PROMPTS[prompt]
    image = scenes()[0]  # 120 x 200
    seen = Sam(network).see(image)
    prediction = seen.predict(**asked, several=several)

    corner = build is sam
    assert seen.letterbox.content_hw == ((77, 128) if corner else (128, 128))
    scale = np.array([128 / 200, 77 / 120] if corner else [128 / 200, 128 / 120], dtype=np.float32)
    given = {}
    if "points" in asked:
        given["input_points"] = torch.tensor(np.array(asked["points"], dtype=np.float32) * scale)[None, None]
        given["input_labels"] = torch.tensor(asked.get("labels", [1] * len(asked["points"])))[None, None]
    if "box" in asked:
        given["input_boxes"] = torch.tensor(np.array(asked["box"], dtype=np.float32) * np.tile(scale, 2))[None, None]
    prepare = seen.sam.preprocessing
    tensor = torch.from_numpy(prepare.tensor([prepare.canvas(image, seen.letterbox)], [seen.letterbox]))
    with torch.no_grad():
        own = network(pixel_values=tensor, multimask_output=several, **given)
    order = np.argsort(-own.iou_scores[0, 0].clip(0, 1).numpy(), kind="stable")
    assert len(prediction) == (3 if several else 1)
    assert prediction.prototypes.shape == (4, 32, 32)  # K is an eighth of the width: 32 of SAM's 256
    np.testing.assert_allclose(prediction.logits(), own.pred_masks[0, 0].numpy()[order], atol=WITHIN)
    np.testing.assert_allclose(prediction.scores, own.iou_scores[0, 0].clip(0, 1).numpy()[order], atol=1e-6)
    assert prediction.masks("image").shape == (len(prediction), 120, 200)
    assert prediction.canvas_boxes is None
    terms = maskprism.Decomposition(prediction[0]).terms
    np.testing.assert_allclose(terms.sum(axis=0), prediction[0].logits(), atol=WITHIN)


def test_sam_has_32_prototypes_at_its_own_width():
    torch.manual_seed(4)
    config = transformers.SamConfig(
        vision_config={
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 64,
            "global_attn_indexes": [0],
            "mlp_dim": 32,
        },
        prompt_encoder_config={"image_size": 64, "image_embedding_size": 4},
    )
    prediction = Sam(transformers.SamModel(config)).see(scenes()[2]).predict(points=[[50, 50]])
    assert prediction.prototypes.shape == (32, 16, 16)


def test_prompts_are_checked():
    seen = Sam(sam()).see(scenes()[0])
    for prompt, words in (
        ({}, "a prompt needs points, a box, or both"),
        ({"points": [1, 2]}, r"points has shape \(2,\); expected finite numbers: x and y"),
        ({"points": [[1, np.nan]]}, "points has shape"),
        ({"points": "here"}, "points is 'here'; expected numbers"),
        ({"points": [[1, 2]], "labels": [2]}, r"labels are \[2\]; expected 0 or 1 for each of 1 points"),
        ({"points": [[1, 2]], "labels": [1, 1]}, "expected 0 or 1 for each of 1 points"),
        ({"labels": [1], "box": [1, 2, 3, 4]}, "labels are given without points"),
        ({"box": [1, 2, 3]}, r"box has shape \(3,\); expected finite numbers: x1, y1, x2, y2"),
        ({"box": [3, 2, 1, 4]}, r"box is .*; expected x1, y1, x2, y2 with x1 < x2"),
    ):
        with pytest.raises(InputError, match=words):
            seen.predict(**prompt)


def test_sam_is_left_as_it_was_and_needs_a_prompt_to_be_loaded():
    network = sam()
    network.train()
    Sam(network).see(scenes()[0]).predict(points=[[5, 5]])
    assert network.training
    with pytest.raises(InputError, match="device 'cuda:77' is not available"):
        Sam(network, device="cuda:77")


# --- what becomes of an image ---------------------------------------------------------------------


class Given(torch.nn.Module):
    """Some of what a model gives, for the exporter."""

    def __init__(self, network, names, inputs=("pixel_values",)):
        super().__init__()
        self.network, self.names, self.inputs = network, names, inputs

    def forward(self, *tensors):
        found = self.network(**dict(zip(self.inputs, tensors, strict=True)))
        return tuple(getattr(found, name) for name in self.names)


def exported(path, network, tensors, outputs):
    names = {"output_names": outputs, "input_names": list(network.inputs)}
    torch.onnx.export(network.eval(), tensors, path, dynamo=False, opset_version=17, **names)
    return path


def test_an_export_of_maskformer_is_taken_apart_as_the_live_network_is(tmp_path):
    pytest.importorskip("onnx")
    network = Given(maskformer(), ("masks_queries_logits", "class_queries_logits"))
    path = exported(tmp_path / "mf.onnx", network, (torch.rand(1, 3, SIDE, SIDE),), ["masks", "classes"])
    options = {"conf": 0.0, "multi_label": True, "max_det": 10_000}
    file, live = maskprism.load(path, **options), maskprism.load(network.network, imgsz=SIDE, **options)
    assert (file.spec.layout, file.spec.prototypes) == ("query", live.spec.prototypes)
    for image in scenes():
        ours, theirs = file.predict(image), live.predict(image)
        np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-4)
        np.testing.assert_allclose(ours.logits(), theirs.logits(), atol=1e-3)


def test_the_decoder_of_an_exported_sam_is_revealed(tmp_path):
    """Its prompts stand before its masks, of which it gives the last three of four."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    network = Given(sam(), ("pred_masks", "iou_scores"), ("image_embeddings", "input_points", "input_labels"))
    with torch.no_grad():
        seen = network.network.get_image_embeddings(torch.rand(1, 3, SIDE, SIDE))
    prompts = (seen, torch.tensor([[[[30.0, 40.0]]]]), torch.ones(1, 1, 1, dtype=torch.long))
    path = exported(tmp_path / "sam.onnx", network, prompts, ["masks", "iou"])
    with pytest.raises(ModelError, match=r"expected one image tensor .*write_revealed"):
        maskprism.load(path)
    branch = write_revealed(path, tmp_path / "open.onnx")
    assert (branch.axis, branch.rows[0]) == (2, 1)
    session = onnxruntime.InferenceSession(tmp_path / "open.onnx")
    given = {name: tensor.numpy() for name, tensor in zip(network.inputs, prompts, strict=True)}
    masks, left, right = session.run(["masks", branch.left, branch.right], given)
    coefficients, prototypes = factors(branch, left, right, 4, 1)
    kept = coefficients[0][slice(*branch.rows)]
    assert kept.shape == (3, prototypes.shape[1])
    grid = prototypes[0].reshape(-1, *masks.shape[-2:])
    prediction = maskprism.from_arrays((SIDE, SIDE), kept, grid)
    np.testing.assert_allclose(prediction.logits(), masks[0, 0], atol=WITHIN)


@pytest.mark.parametrize("which", ["sam", "sam2", "mask2former"])
def test_tensors_are_those_of_the_own_processors(which):
    from maskprism.core.preprocessing import preprocessing_named

    build = {
        "sam": lambda: transformers.SamImageProcessor(
            size={"longest_edge": 128}, pad_size={"height": 128, "width": 128}
        ),
        "sam2": lambda: transformers.Sam2ImageProcessor(size={"height": 128, "width": 128}),
        "mask2former": lambda: transformers.Mask2FormerImageProcessor(
            size={"shortest_edge": 800, "longest_edge": 1344}, size_divisor=32
        ),
    }
    ours = preprocessing_named({"sam": "sam", "sam2": "imagenet", "mask2former": "mask2former"}[which])
    side = 1344 if which == "mask2former" else 128
    stride = 32 if which == "mask2former" else None
    for image in scenes():
        letterbox = ours.letterbox(image.shape[:2], (side, side), rectangle_stride=stride)
        tensor = ours.tensor([ours.canvas(image, letterbox)], [letterbox])
        theirs = build[which]()(images=np.ascontiguousarray(image[:, :, ::-1]), return_tensors="pt")["pixel_values"]
        assert tensor.shape == tuple(theirs.shape)
        apart = np.abs(tensor - theirs.numpy())
        # Pillow rounds pixels after each of two passes. SAM 2 averages when it shrinks, the canvas here does not.
        # Mask2Former stretches images to multiples of 32 where the canvas here is padded.
        stretched = which == "mask2former" and letterbox.content_hw != letterbox.canvas_hw
        assert apart.mean() < (0.2 if stretched else 0.15 if which == "sam2" else 0.02)
