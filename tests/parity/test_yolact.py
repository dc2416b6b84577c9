"""A miniature YOLACT in PyTorch, random and trained, against its own detection and drawing."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import maskprism
from maskprism.errors import InputError, ModelError
from parity.networks import scenes

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.timeout(900),  # training on a busy machine
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning"),
]
from parity import yolact  # noqa: E402


@pytest.fixture(scope="module")
def learned():
    """A quarter of a minute of training, on a quiet machine."""
    return yolact.trained(250)


@pytest.fixture(scope="module")
def random_one():
    torch.manual_seed(3)
    network = yolact.Yolact(classes=5, k=16, width=24)
    with torch.no_grad():
        network.conf.weight.mul_(400)  # some are sure of something
        network.loc.weight.mul_(20)
        network.mask.weight.mul_(40)
    return network.eval()


def ask(network, image):
    """What the model itself says: detection and masks."""
    with torch.no_grad():
        found = network(yolact.tensor_of([image]))[0]["detection"]
        return found, yolact.draw(found, image.shape[:2]).numpy()


def assert_same(prediction, found, masks):
    apart = np.abs(prediction.coefficients[:, None] - found["mask"].numpy()[None]).max(axis=2)
    apart += prediction.classes[:, None] != found["class"].numpy()[None]
    order = apart.argmin(axis=1)  # scores that differ in the last bits only may come in another order
    assert sorted(order) == list(range(len(masks)))
    np.testing.assert_array_equal(prediction.classes, found["class"][order])
    np.testing.assert_allclose(prediction.scores, found["score"][order], atol=1e-5)
    np.testing.assert_allclose(prediction.scores, found["score"], atol=1e-5)
    np.testing.assert_allclose(prediction.coefficients, found["mask"][order], atol=1e-4)
    np.testing.assert_allclose(prediction.canvas_boxes, found["box"][order] * yolact.SIDE, atol=1e-2)
    np.testing.assert_allclose(prediction.prototypes, np.moveaxis(found["proto"].numpy(), 2, 0), atol=1e-4)
    ours = prediction.masks()
    assert ours.shape == masks.shape
    # Ties: probabilities of exactly a half, or box edges on a cell, in other last bits.
    assert (ours != masks[order]).mean() < 1e-4
    assert ours.any()


@pytest.mark.parametrize("which", ["random_one", "learned"])
def test_a_live_network_draws_its_own_masks(which, request):
    network = request.getfixturevalue(which)
    model = maskprism.load(network, imgsz=yolact.SIDE, conf=0.05)
    assert (model.spec.layout, model.spec.grid_hw, model.spec.stride) == ("yolact", (36, 36), 4)
    assert model.spec.names == {i: f"class{i}" for i in range(network.classes)}
    count = 0
    for image in scenes():
        prediction = model.predict(image)
        assert_same(prediction, *ask(network, image))
        count += len(prediction)
    assert count > 15


def test_priors_that_are_made_are_those_of_the_network(random_one):
    from maskprism.models.families.yolact import made_priors

    parts = maskprism.load(random_one, imgsz=yolact.SIDE).runtime(yolact.tensor_of(scenes()[:1]).numpy())
    np.testing.assert_allclose(made_priors("base", (yolact.SIDE, yolact.SIDE)), parts[3], atol=1e-7)


def test_the_network_is_left_as_it_was(random_one):
    before = copy.deepcopy(random_one.state_dict())
    random_one.train()
    maskprism.load(random_one, imgsz=yolact.SIDE).predict(scenes()[0])
    assert random_one.training
    assert isinstance(random_one.detect, yolact.Detect)
    assert all(torch.equal(before[key], value) for key, value in random_one.state_dict().items())
    random_one.eval()


def test_the_canvas_is_that_of_the_paper_unless_given(random_one):
    model = maskprism.load(random_one)
    assert (model.spec.input_hw, model.spec.grid_hw) == ((550, 550), (138, 138))
    assert model.level_ends == (14_283, 17_958, 18_930, 19_173, 19_248)


def test_a_detection_step_that_is_a_module_is_left_out_too(random_one):
    class Step(torch.nn.Module):
        def forward(self, parts, network):
            raise AssertionError("detection is not asked")

    network = copy.deepcopy(random_one)
    del network.detect
    network.detect = Step()
    assert len(maskprism.load(network, imgsz=yolact.SIDE, conf=0.05).predict(scenes()[0]))


@pytest.mark.parametrize("wrapped", [False, True], ids=["alone", "in DataParallel"])
def test_a_network_as_its_authors_publish_it(random_one, wrapped):
    """Its `train` gives nothing back, and parts of it are TorchScript."""

    class Published(yolact.Yolact):
        def train(self, mode=True):
            super().train(mode)

    network = copy.deepcopy(random_one)
    network.__class__ = Published
    network.after = torch.jit.script(network.after)
    assert network.train() is None
    model = maskprism.load(torch.nn.DataParallel(network) if wrapped else network, imgsz=yolact.SIDE, conf=0.05)
    for image in scenes():
        assert_same(model.predict(image), *ask(random_one, image))
    assert network.training
    assert isinstance(network.detect, yolact.Detect)


def test_images_are_resized_as_by_its_own_tools(random_one):
    """In floating point: rounding to whole numbers between would be off by half a grey level."""
    model = maskprism.load(random_one, imgsz=yolact.SIDE)
    for image in scenes():
        letterbox = model.letterbox(image.shape[:2])
        prepare = model.spec.preprocessing
        ours = prepare.tensor([prepare.exact_canvas(image, letterbox)], [letterbox])
        # PyTorch's own kernels (one thread, or several) differ in the last bit of a grey level: 3e-5 / 57.
        np.testing.assert_allclose(ours, yolact.tensor_of([image]).numpy(), atol=1e-6, rtol=0)
        rounded = prepare.tensor([prepare.canvas(image, letterbox)], [letterbox])
        assert np.abs(rounded - ours).max() > 5e-3


class Parts(torch.nn.Module):
    """What exports of YOLACT are made of: the parts as they come, one after the other."""

    def __init__(self, network, names, softmax=True):
        super().__init__()
        self.network, self.names, self.softmax = copy.deepcopy(network), names, softmax
        self.network.detect = lambda parts, _: parts

    def forward(self, images):
        parts = self.network(images)
        if not self.softmax:
            parts["conf"] = torch.log(parts["conf"])
        return tuple(parts[name] for name in self.names)


@pytest.mark.parametrize("names", [("loc", "conf", "mask", "priors", "proto"), ("proto", "mask", "conf", "loc")])
@pytest.mark.parametrize("batch", [1, 2])
def test_an_export_says_what_the_network_says(random_one, names, batch, tmp_path):
    path = export(Parts(random_one, names), names, tmp_path, batch)
    model = maskprism.load(path, conf=0.05)
    assert model.spec.input_hw == (yolact.SIDE, yolact.SIDE)
    images = scenes()
    for prediction, image in zip(model.predict(images), images, strict=True):
        assert_same(prediction, *ask(random_one, image))


def test_an_export_before_softmax_is_refused(random_one, tmp_path):
    names = ("loc", "conf", "mask", "priors", "proto")
    with pytest.raises(ModelError, match="softmax over the last axis of conf"):
        maskprism.load(export(Parts(random_one, names, softmax=False), names, tmp_path, 1))


def export(module, names, folder, batch):
    path = folder / "yolact.onnx"
    blank = torch.zeros(batch, 3, yolact.SIDE, yolact.SIDE)
    torch.onnx.export(module.eval(), blank, path, output_names=list(names), dynamo=False)
    return path


def test_another_network_is_refused():
    with pytest.raises(ModelError, match=r"Conv2d: gives a Tensor in evaluation mode; expected a dict of"):
        maskprism.load(torch.nn.Conv2d(3, 4, 1), imgsz=64)

    class Half(torch.nn.Module):
        def forward(self, images):
            return {"loc": images, "conf": images}

    with pytest.raises(ModelError, match=r"Half: gives a dict of loc, conf in evaluation mode; .*from_arrays"):
        maskprism.load(Half(), imgsz=64)
    with pytest.raises(InputError, match="precision 'f16' is not available with PyTorch"):
        maskprism.load(Half(), precision="f16")
    with pytest.raises(InputError, match="device 'cuda:77' is not available"):
        maskprism.load(Half(), device="cuda:77")


def test_what_was_learned_can_be_explained(learned):
    """Objects are found, and their masks change with the prototypes of the largest effect, not with the others."""
    model = maskprism.load(learned, imgsz=yolact.SIDE, conf=0.3)
    found = total = 0
    changed = {0: [], -1: []}
    for scene in yolact.plain_scenes(yolact.KNOWN, first=0):
        prediction = model.predict(scene.image)
        total += len(scene)
        for instance in prediction:
            mask = instance.mask()
            if max(iou(mask, true) for true in scene.masks) < 0.5:
                continue
            found += 1
            ranking = maskprism.Decomposition(instance).order("effect")
            for place, ious in changed.items():
                edited = maskprism.Edit(drop=[int(ranking[place])]).apply(instance.alone)
                ious.append(iou(edited.masks()[0], mask))
    assert found > 0.6 * total
    assert np.mean(changed[0]) < 0.8 < 0.95 < np.mean(changed[-1])


def iou(a, b):
    return (a & b).sum() / max((a | b).sum(), 1)
