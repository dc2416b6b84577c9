"""Faults in the input of a model, recognised by running them: which change of A's input gives what B says?

Where the whole output of B differs from that of A, the difference lies before the head. The usual suspects are then
tried on A, one after the other: channels exchanged, another scale, a stretched image, blur, a shift. The prototypes are
what is compared, because every image has them, whether or not something is detected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np

from maskprism.analysis.comparison.relations import RESTORED
from maskprism.errors import MaskprismError

if TYPE_CHECKING:
    from jaxtyping import Float32, UInt8

    from maskprism.core.preprocessing import Preprocessing
    from maskprism.models import Model

    Tensor = Float32[np.ndarray, "3 H W"]

_SAME = 1e-3
_EDGE = 8
"""This part of the prototypes is left out at each edge, where a fault may repeat, wrap or blacken what is not known."""
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class InputFault:
    """A change of A's input that gives B's prototypes.

    Attributes
    ----------
    name
        The change of the input of B.
    before, after
        How far B's prototypes are from A's without and with it, root mean square over their spread.
    """

    name: str
    before: float
    after: float

    @property
    def exact(self) -> bool:
        """Whether nothing but rounding is left."""
        return self.after < _SAME

    def sentence(self) -> str:
        """Return what is wrong, and how that is known."""
        if self.exact:
            return f"In the input of B {self.name}: A says the same as B if its input is changed in that way."
        share = 1 - self.after / self.before
        return (
            f"In the input of B {self.name}: that change of A's input takes away {share * 100:.0f} % of the "
            "difference of the prototypes."
        )


@dataclass(frozen=True)
class Seen:
    """An image, BGR, and the prototypes that B computed for it."""

    image: UInt8[np.ndarray, "H W 3"]
    prototypes: Float32[np.ndarray, "K h w"]


def find_input_fault(model: Model, seen: Sequence[Seen], shift_xy: Sequence[float] | None = None) -> InputFault | None:
    """Return the change of the input of `model` after which its prototypes are those of B.

    Parameters
    ----------
    model
        A, on the same canvas as B.
    seen
        Images with B's prototypes. All suspects are tried on the first one; the best is confirmed on the others.
    shift_xy
        How far B's boxes lie from A's, in pixels of the letterboxed input: one suspect more.

    Returns
    -------
    InputFault or None
        None if no suspect leaves less than a quarter of the difference.
    """
    nothing_changed = _apart(model, seen[:1], None)
    least, best = nothing_changed, None
    for suspect in _suspects(model, shift_xy):
        left = _apart(model, seen[:1], suspect[1])
        if left < least:
            least, best = left, suspect
        if least < _SAME / 10:
            break
    if best is None or least > RESTORED * nothing_changed:
        return None
    name, prepare = best
    before, after = _apart(model, seen, None), _apart(model, seen, prepare)
    return InputFault(name, before, after) if after <= RESTORED * before else None


class _GivenInput:
    """A runtime that computes the same tensor whatever it is given."""

    def __init__(self, runtime: Any, tensor: Float32[np.ndarray, "1 C H W"]) -> None:
        self._runtime, self._tensor = runtime, tensor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runtime, name)

    def __call__(self, batch: Float32[np.ndarray, "B ..."]) -> Any:
        tensor = self._tensor.transpose(0, 2, 3, 1) if self._runtime.input.channels_last else self._tensor
        return self._runtime(np.ascontiguousarray(np.repeat(tensor, len(batch), axis=0)))


_Prepare = Callable[["UInt8[np.ndarray, 'H W 3']"], "Tensor"]


def _apart(model: Model, seen: Sequence[Seen], prepare: _Prepare | None) -> float:
    """Return how far B's prototypes are from those of the model, over their spread.

    Infinite where they are not numbers.
    """
    squares = sizes = 0.0
    for one in seen:
        asked = model
        if prepare is not None:
            asked = replace(model, runtime=_GivenInput(model.runtime, prepare(one.image)[None]))
        theirs = one.prototypes.astype(np.float64)
        try:
            ours = asked.predict(one.image).prototypes
        except MaskprismError:  # what it computes for such an input can be no prediction
            return float("inf")
        if ours.shape != theirs.shape:
            return float("inf")
        rows, columns = (slice(side // _EDGE, side - side // _EDGE) for side in theirs.shape[1:])
        ours, theirs = ours[:, rows, columns], theirs[:, rows, columns]
        squares += float(np.square(ours - theirs).sum())
        sizes += float(np.square(theirs - theirs.mean(axis=(1, 2), keepdims=True)).sum())
    found = float(np.sqrt(squares / sizes)) if sizes else float("inf")
    return found if np.isfinite(found) else float("inf")


def _suspects(model: Model, shift_xy: Sequence[float] | None) -> Iterator[tuple[str, _Prepare]]:
    """Names of faults and what they make of an image; the most usual ones first."""
    plain = model.spec.preprocessing

    def prepared(image: UInt8[np.ndarray, "H W 3"], prepare: Preprocessing = plain) -> Tensor:
        own = model.letterbox((image.shape[0], image.shape[1]))
        box = own if prepare.resize == plain.resize else prepare.letterbox(own.image_hw, own.canvas_hw)
        return prepare.tensor([prepare.canvas(image, box)], [box])[0]

    def settings(**changes: Any) -> _Prepare:
        return lambda image: prepared(image, replace(plain, **changes))

    def tensor(change: Callable[[Any], Any]) -> _Prepare:
        return lambda image: np.ascontiguousarray(change(prepared(image)), dtype=np.float32)

    def planes(change: Callable[[Any], Any]) -> _Prepare:
        return tensor(lambda values: np.stack([change(plane) for plane in values]))

    colour = plain.depth == 3
    if colour:
        others = {"rgb": ("bgr", "BGR instead of RGB"), "bgr": ("rgb", "RGB instead of BGR")}
        channels, words = others[plain.channels]
        plain_values = len(plain.mean) == len(plain.std) == 1
        exchanged = settings(channels=channels) if plain_values else tensor(lambda values: values[::-1])
        yield f"red and blue are exchanged ({words})", exchanged
        for order in ((0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1)):
            letters = "".join(plain.channels.upper()[place] for place in order)
            yield (
                f"channels are in another order ({letters} instead of {plain.channels.upper()})",
                tensor(partial(np.take, indices=order, axis=0)),
            )
    yield "values are 255 times too large (the division by 255 is missing)", tensor(lambda values: values * 255)
    yield "values are divided by 255 once more than needed", tensor(lambda values: values / 255)
    for resize, words in (
        ("stretch", "the image is stretched over the whole input instead of being letterboxed"),
        ("corner", "the image lies at the top left instead of in the middle of its padding"),
        ("letterbox", "the image is letterboxed"),
    ):
        if resize != plain.resize:
            yield words, settings(resize=resize)
    for padding, colour_name in ((0, "black"), (255, "white"), (128, "grey of 128"), (114, "grey of 114")):
        if padding != plain.padding:
            yield f"the padding is {colour_name}", settings(padding=padding)
    yield "values are scaled to −1 to 1", tensor(lambda values: 2 * values - 1)
    if colour:
        mean, std = (np.array(one, np.float32)[:, None, None] for one in _IMAGENET)
        yield "values are normalised by the mean and deviation of ImageNet", tensor(lambda v: (v - mean) / std)
    if any(plain.mean) or plain.std != (1.0,):
        yield "mean and deviation are not taken off", settings(mean=(0.0,), std=(1.0,))
    yield "the image is resized with antialiasing", settings(antialias=not plain.antialias)
    for way, words in ((cv2.INTER_NEAREST, "nearest neighbour"), (cv2.INTER_AREA, "area"), (cv2.INTER_CUBIC, "cubic")):
        yield f"the image is resized by another interpolation ({words})", _resized(model, plain, way)
    if shift_xy is not None and np.max(np.abs(shift_xy)) >= 0.25:
        right, down = (round(2 * float(step)) / 2 for step in shift_xy)
        for edge in ("constant", "edge", "wrap"):
            yield _shift(down, right), planes(partial(_shifted, down=down, right=right, edge=edge))
    for step in (0.5, 1.0):
        for down, right in ((step, step), (-step, -step), (step, 0), (-step, 0), (0, step), (0, -step)):
            yield _shift(down, right), planes(partial(_shifted, down=down, right=right))
    for sigma in (0.5, 0.3, 0.7, 1.0, 1.5, 2.0, 3.0):
        yield (
            f"the image is blurred (as by a Gaussian of {sigma:g} pixels)",
            planes(partial(cv2.GaussianBlur, ksize=(0, 0), sigmaX=sigma)),
        )
    for side in (2, 3, 5):
        yield (
            f"the image is blurred (as by a mean of {side} x {side} pixels)",
            planes(partial(cv2.blur, ksize=(side, side))),
        )
    if colour:
        for grey in ((0.299, 0.587, 0.114), (0.114, 0.587, 0.299), (1 / 3, 1 / 3, 1 / 3)):
            yield "colours are missing (a grey image)", tensor(partial(_grey, weights=grey))
    yield "the image is mirrored left to right", tensor(lambda values: values[:, :, ::-1])
    yield "the image is upside down", tensor(lambda values: values[:, ::-1])
    yield "the image is rotated by 180°", tensor(lambda values: values[:, ::-1, ::-1])
    yield "height and width are exchanged", tensor(lambda v: v.transpose(0, 2, 1).reshape(v.shape))
    yield (
        "memory in the order height, width, channels is read as channels, height, width",
        tensor(lambda values: values.transpose(1, 2, 0).reshape(values.shape)),
    )
    yield "light and dark are exchanged", tensor(lambda values: 1 - values)


def _grey(values: Tensor, weights: Sequence[float]) -> Tensor:
    return np.tensordot(np.array(weights, np.float32), values, 1)[None].repeat(3, 0)


def _shift(down: float, right: float) -> str:
    parts = [
        f"{abs(step):g} {way[step < 0]}" for step, way in ((down, ("down", "up")), (right, ("right", "left"))) if step
    ]
    return f"the image is shifted (by pixels: {', '.join(parts)})"


def _shifted(
    plane: Float32[np.ndarray, "H W"], down: float, right: float, edge: Literal["constant", "edge", "wrap"] = "constant"
) -> Float32[np.ndarray, "H W"]:
    """Content moved down and right, bilinearly; what enters at the edge is plain, or repeats, or wraps around."""
    height, width = plane.shape
    margin = int(np.ceil(max(abs(down), abs(right)))) + 1
    settings = {"constant_values": np.median(plane)} if edge == "constant" else {}
    wide = np.pad(plane, margin, mode=edge, **settings)
    for axis, step in ((0, down), (1, right)):
        low = int(np.floor(step))
        share = np.float32(step - low)
        wide = np.roll(wide, low, axis) * (1 - share) + np.roll(wide, low + 1, axis) * share
    return wide[margin : margin + height, margin : margin + width]


def _resized(model: Model, plain: Preprocessing, way: int) -> _Prepare:
    def prepare(image: UInt8[np.ndarray, "H W 3"]) -> Tensor:
        box = model.letterbox((image.shape[0], image.shape[1]))
        height, width = box.content_hw
        small = image if image.shape[:2] == box.content_hw else cv2.resize(image, (width, height), interpolation=way)
        return plain.tensor([plain.canvas(small, box)], [box])[0]

    return prepare
