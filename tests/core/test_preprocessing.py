"""From images to tensors: today's YOLO to the last bit, the others against their definitions."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import maskprism
from helpers.strategies import seeds
from maskprism import Letterbox, Preprocessing
from maskprism.core.preprocessing import IMAGENET, PREPROCESSINGS, YOLACT, YOLO, preprocessing_named
from maskprism.errors import InputError
from maskprism.models.runtimes import FunctionRuntime, NetworkInput


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def by_definition(canvas: np.ndarray, letterbox: Letterbox, rule: Preprocessing) -> np.ndarray:
    """A slow twin: pixel by pixel and channel by channel, in float64."""
    height, width = canvas.shape[:2]
    (top, left), (tall, wide) = letterbox.offset_yx, letterbox.content_hw
    tensor = np.zeros((rule.depth, height, width))
    for y in range(height):
        for x in range(width):
            blue, green, red = (int(value) for value in canvas[y, x])
            grey = int(cv2.cvtColor(canvas[y : y + 1, x : x + 1], cv2.COLOR_BGR2GRAY)[0, 0])
            values = {"rgb": [red, green, blue], "bgr": [blue, green, red], "grey": [grey]}[rule.channels]
            for channel, value in enumerate(values):
                mean, std = (list(one)[channel] if len(one) > 1 else one[0] for one in (rule.mean, rule.std))
                shown = top <= y < top + tall and left <= x < left + wide
                tensor[channel, y, x] = (value / rule.scale - mean) / std if shown or rule.padding is not None else 0
    return tensor


rules = st.builds(
    Preprocessing,
    st.just("any"),
    resize=st.sampled_from(["letterbox", "corner", "stretch"]),
    padding=st.sampled_from([None, 0, 114]),
    channels=st.sampled_from(["rgb", "bgr"]),
    scale=st.sampled_from([1.0, 255.0]),
    mean=st.sampled_from([(0.0,), (0.5,), (103.9, 2.5, -1.0)]),
    std=st.sampled_from([(1.0,), (0.5, 2.0, 58.4)]),
) | st.builds(Preprocessing, st.just("grey"), channels=st.just("grey"), mean=st.sampled_from([(0.0,), (0.5,)]))


@given(rules, st.integers(1, 20), st.integers(1, 20), st.booleans(), seeds)
def test_tensors_match_their_twin(rule, height, width, channels_last, seed):
    image = picture(height, width, seed)
    letterbox = rule.letterbox((height, width), (8, 12))
    canvas = rule.canvas(image, letterbox)
    assert canvas.shape == (8, 12, 3)
    other = replace(letterbox, offset_yx=(0, 0))
    found = rule.tensor([canvas, canvas], [letterbox, other], channels_last=channels_last)
    assert (found.dtype, found.flags.c_contiguous) == (np.float32, True)
    found = np.moveaxis(found, -1, 1) if channels_last else found
    for tensor, box in zip(found, (letterbox, other), strict=True):
        np.testing.assert_allclose(tensor, by_definition(canvas, box, rule), rtol=2e-6, atol=2e-5)


def test_what_yolo_sees_is_what_it_always_saw():
    image = picture(37, 90)
    letterbox = YOLO.letterbox((37, 90), (64, 64))
    assert letterbox == Letterbox.fit((37, 90), (64, 64))
    canvas = YOLO.canvas(image, letterbox)
    assert (canvas[: letterbox.offset_yx[0]] == 114).all()
    content = slice(letterbox.offset_yx[0], letterbox.offset_yx[0] + letterbox.content_hw[0])
    resized = cv2.resize(image, (64, letterbox.content_hw[0]), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(canvas[content], resized)
    expected = (canvas[:, :, ::-1] / np.float32(255)).transpose(2, 0, 1)[None]
    assert YOLO.tensor([canvas], [letterbox]).tobytes() == np.ascontiguousarray(expected).tobytes()


def test_a_canvas_of_the_images_own_size_is_the_image():
    image = picture(16, 24)
    assert (YOLO.canvas(image, YOLO.letterbox((16, 24), (16, 24))) == image).all()


def test_yolact_stretches_and_takes_its_mean_off():
    letterbox = YOLACT.letterbox((100, 50), (550, 550))
    assert letterbox == Letterbox.stretch((100, 50), (550, 550))
    red = np.full((100, 50, 3), (0, 0, 255), dtype=np.uint8)
    tensor = YOLACT.tensor([YOLACT.canvas(red, letterbox)], [letterbox])[0]
    expected = [(255 - 123.68) / 58.40, -116.78 / 57.12, -103.94 / 57.38]
    np.testing.assert_allclose(tensor[:, 300, 20], expected, rtol=1e-6)


@given(seeds, st.tuples(*[st.integers(1, 40)] * 4), st.sampled_from(["bgr", "grey"]))
def test_what_is_not_rounded_is_interpolated_between_four_pixels(seed, sizes, channels):
    (height, width), (tall, wide) = sizes[:2], sizes[2:]
    image = picture(height, width, seed)
    if channels == "grey":
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    rule = replace(YOLACT, channels=channels, mean=(0.0,), std=(1.0,))
    made = rule.exact_canvas(image, rule.letterbox((height, width), (tall, wide)))
    assert made.dtype == np.float32
    twin = np.zeros((tall, wide, 3))
    for i, j in np.ndindex(tall, wide):
        y, x = (np.clip((n + 0.5) * a / b - 0.5, 0, a - 1) for n, a, b in ((i, height, tall), (j, width, wide)))
        for row, col in ((r, c) for r in (int(y), int(y) + 1) for c in (int(x), int(x) + 1)):
            weight = (1 - abs(row - y)) * (1 - abs(col - x))
            twin[i, j] += weight * image[min(row, height - 1), min(col, width - 1)]
    np.testing.assert_allclose(made, twin, atol=2e-3)


def test_padding_with_the_mean_is_zero_in_the_tensor_and_visible_on_the_canvas():
    rule = replace(IMAGENET, resize="corner")
    letterbox = rule.letterbox((10, 20), (32, 32))
    canvas = rule.canvas(picture(10, 20), letterbox)
    assert canvas[-1, -1].tolist() == [104, 116, 124]
    assert list(rule.padding_bgr) == [104, 116, 124]
    tensor = rule.tensor([canvas], [letterbox])[0]
    assert (tensor[:, 16:] == 0).all()
    assert (tensor[:, :16] != 0).any()
    assert replace(rule, channels="bgr").padding_bgr == (124, 116, 104)


def test_a_corner_pads_at_the_right_and_below_only():
    sam = Preprocessing("sam", resize="corner")
    letterbox = sam.letterbox((480, 640), (1024, 1024))
    assert (letterbox.content_hw, letterbox.offset_yx) == ((768, 1024), (0, 0))
    limited = Preprocessing("limited", resize="corner", shortest_side=800)
    for image_hw, content_hw, canvas_hw in (
        ((480, 640), (800, 1067), (800, 1088)),
        ((480, 1600), (403, 1344), (416, 1344)),
    ):
        letterbox = limited.letterbox(image_hw, (1344, 1344), rectangle_stride=32)
        assert (letterbox.content_hw, letterbox.canvas_hw) == (content_hw, canvas_hw)
        assert letterbox.offset_yx == (0, 0)


def test_the_shortest_side_may_be_a_pixel():
    tiny = Preprocessing("tiny", resize="corner", shortest_side=1)
    assert tiny.letterbox((4, 8), (64, 64), rectangle_stride=32).content_hw == (1, 2)


def test_antialiasing_is_that_of_pillow():
    rule = Preprocessing("smooth", resize="stretch", antialias=True)
    image = picture(64, 48)
    expected = Image.fromarray(image[:, :, ::-1]).resize((12, 16), Image.Resampling.BILINEAR)
    canvas = rule.canvas(image, rule.letterbox((64, 48), (16, 12)))
    assert (canvas == np.asarray(expected)[:, :, ::-1]).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"resize": "squeeze"}, "resize is 'squeeze'; expected one of 'letterbox', 'corner', 'stretch'"),
        ({"channels": "RGB"}, "channels is 'RGB'; expected one of 'rgb', 'bgr', 'grey'"),
        ({"padding": 256}, "padding is 256; expected 0 to 255, or None for the mean"),
        ({"padding": -1}, "padding is -1"),
        ({"shortest_side": 0}, "shortest_side is 0; expected at least 1"),
        ({"mean": (1, 2)}, "mean holds 2 numbers; expected 1 or 3"),
        ({"std": (1, 2, 3), "channels": "grey"}, "std holds 3 numbers; expected 1 or 1"),
        ({"std": (0,)}, "scale or std of 0 or below"),
        ({"scale": 0}, "scale or std of 0 or below"),
        ({"mean": (float("nan"),)}, "not finite"),
    ],
)
def test_what_makes_no_tensor_is_refused(fields, message):
    with pytest.raises(InputError, match=message):
        Preprocessing("wrong", **fields)


def test_presets_have_names():
    assert {name: preprocessing_named(name) for name in PREPROCESSINGS} == PREPROCESSINGS
    assert preprocessing_named(YOLACT) is YOLACT
    with pytest.raises(InputError, match="there is no preprocessing 'yolo9'; expected one of yolo, yolact, imagenet"):
        preprocessing_named("yolo9")


# --- a model that sees images in another way ----------------------------------------------------


def seeing(batches: list[np.ndarray], channels: int = 3) -> FunctionRuntime:
    """A model with one instance that keeps what it is given."""

    def network(batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        batches.append(batch)
        rows = np.zeros((len(batch), 4 + 1 + 2, 84), dtype=np.float32)
        rows[:, :, 0] = [32, 16, 64, 32, 0.9, 1, -1]
        return rows, np.stack([batch[:, 0, ::4, ::4], 0 * batch[:, 0, ::4, ::4]], axis=1)

    return FunctionRuntime(network, NetworkInput(None, 64, 64, channels=channels))


def test_a_model_sees_through_its_preprocessing():
    batches: list[np.ndarray] = []
    model = maskprism.load(seeing(batches), preprocessing="yolact")
    image = picture(20, 50)
    prediction = model.predict(image)
    assert model.spec.preprocessing == prediction.preprocessing == YOLACT
    assert prediction.letterbox == Letterbox.stretch((20, 50), (64, 64))
    letterbox = prediction.letterbox
    np.testing.assert_array_equal(batches[-1], YOLACT.tensor([YOLACT.exact_canvas(image, letterbox)], [letterbox]))
    np.testing.assert_allclose(prediction.boxes, [[0, 0, 50, 10]], atol=1e-4)  # the upper half, stretched
    assert prediction.masks("image").shape == (1, 20, 50)


def test_a_grey_network_gets_one_channel():
    batches: list[np.ndarray] = []
    model = maskprism.load(seeing(batches, channels=1))
    model.predict(picture(64, 64))
    assert model.spec.preprocessing == replace(YOLO, channels="grey")
    assert batches[-1].shape == (1, 1, 64, 64)
    np.testing.assert_array_equal(
        batches[-1][0, 0], cv2.cvtColor(picture(64, 64), cv2.COLOR_BGR2GRAY) / np.float32(255)
    )


def test_a_grey_network_sees_pictures_that_lost_their_colours_before_they_were_resized():
    rule, image = replace(YOLO, channels="grey"), picture(20, 50)
    letterbox = rule.letterbox((20, 50), (64, 64))
    resized = cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), letterbox.content_hw[::-1])
    top, height = letterbox.offset_yx[0], letterbox.content_hw[0]
    canvas = rule.canvas(image, letterbox)
    assert (canvas == canvas[:, :, :1]).all()
    np.testing.assert_array_equal(canvas[top : top + height, :, 0], resized)
    np.testing.assert_array_equal(rule.tensor([canvas], [letterbox])[0, 0], canvas[:, :, 0] / np.float32(255))


def test_channels_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match=r"preprocessing 'yolact' makes 3 channels; .* takes images of 1"):
        maskprism.load(seeing([], channels=1), preprocessing="yolact")
    with pytest.raises(InputError, match=r"preprocessing 'yolo' makes 1 channels; .* takes images of 3"):
        maskprism.load(seeing([]), preprocessing=replace(YOLO, channels="grey"))


@pytest.mark.parametrize(
    ("mean", "shown"), [((0.0,), (0, 0, 0)), ((1.0,), (255, 255, 255)), ((-1.0, 2.0, 0.5), (128, 255, 0))]
)
def test_the_mean_around_an_image_is_a_colour(mean, shown):
    assert Preprocessing("any", padding=None, mean=mean).padding_bgr == shown
