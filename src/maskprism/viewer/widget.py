"""The interactive viewer in notebooks: what is chosen and edited there is live in Python, and the other way round.

Built on anywidget, so it works in Jupyter, VS Code, Colab and marimo. Needs the extra `notebook`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from maskprism._common.extras import require
from maskprism.core.decomposition import Edit
from maskprism.core.prediction import Prediction
from maskprism.errors import InputError
from maskprism.io.images import read_image, source_name
from maskprism.viewer.payload import viewer_scene

if require("anywidget", "the notebook widget"):  # says which extra installs it
    import anywidget
    import traitlets

if TYPE_CHECKING:
    from jaxtyping import Float32

    from maskprism.core.prediction import Instance
    from maskprism.datasets import GroundTruth
    from maskprism.io.images import ImageLike
    from maskprism.models import Model

_STATIC = Path(__file__).parent / "static"


class PrismWidget(anywidget.AnyWidget):
    """An image, its prediction, and the viewer that edits coefficients; see `show`.

    `selected` is the number of the chosen instance (-1 where there is none), `edits` the edited
    coefficients by instance number as text; both can be observed: `widget.observe(f, "edits")`.
    Prototypes travel unquantised, so the viewer's masks are those of `edited_prediction`.
    """

    _esm = _STATIC / "viewer.js"
    _css = _STATIC / "viewer.css"

    header = traitlets.Dict().tag(sync=True)
    buffer = traitlets.Bytes().tag(sync=True)
    selected = traitlets.Int(-1).tag(sync=True)
    edits = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        image: ImageLike,
        prediction: Prediction,
        *,
        truth: GroundTruth | None = None,
        untuned: Float32[np.ndarray, "N K"] | None = None,
        selected: int = 0,
    ) -> None:
        scene = viewer_scene(image, prediction, bits=32, truth=truth, untuned=untuned)
        self.prediction = prediction
        super().__init__(
            header=scene.header, buffer=scene.buffer, selected=selected if len(prediction) else -1, edits={}
        )

    @property
    def instance(self) -> Instance | None:
        """The chosen instance as the model gave it; None where there is none."""
        return self.prediction[self.selected] if len(self.prediction) else None

    @property
    def coefficients(self) -> Float32[np.ndarray, " K"]:
        """The current coefficients of the chosen instance, in the units of `Prediction.coefficients`.

        Assigning K numbers edits the instance.

        Raises
        ------
        InputError
            Without instances.
        """
        return self.edited_prediction.coefficients[self._chosen()]

    @coefficients.setter
    def coefficients(self, values: Iterable[float]) -> None:
        chosen = self._chosen()
        self.edits = {**self.edits, str(chosen): list(values)}

    @property
    def edited_prediction(self) -> Prediction:
        """The prediction with all edits of all instances; its masks are those that the viewer shows."""
        if not self.edits:
            return self.prediction
        coefficients = self.prediction.coefficients.copy()
        for instance, values in self.edits.items():
            coefficients[int(instance)] = values
        return replace(self.prediction, coefficients=coefficients)

    @property
    def edited_instance(self) -> Instance | None:
        """The chosen instance with its edits; None where there is none."""
        return self.edited_prediction[self.selected] if len(self.prediction) else None

    def edit(
        self,
        edit: Edit | None = None,
        *,
        keep: Iterable[int] | None = None,
        drop: Iterable[int] = (),
        scale: Mapping[int, float] | None = None,
        set: Mapping[int, float] | None = None,  # the name that Edit gives it
    ) -> None:
        """Change the current coefficients of the chosen instance, or apply an `Edit`.

        The keywords are those of `maskprism.Edit`.

        Raises
        ------
        InputError
            For indices out of range.
        """
        if edit is None:
            edit = Edit(keep=keep, drop=drop, scale=scale or {}, set=set or {}, instances=[self._chosen()])
        edited = edit.apply(self.edited_prediction).coefficients
        changed = np.flatnonzero((edited != self.prediction.coefficients).any(axis=1))
        self.edits = {str(index): edited[index].tolist() for index in changed}

    def reset(self, instance: int | None = None) -> None:
        """Take back the edits of one instance, or all of them."""
        self.edits = {} if instance is None else {k: row for k, row in self.edits.items() if k != str(instance)}

    def _chosen(self) -> int:
        if self.selected < 0:
            raise InputError("the prediction has no instances, so none is chosen; a lower conf= may find some")
        return int(self.selected)

    @traitlets.validate("selected")
    def _check_selected(self, proposal: Any) -> int:
        count = len(self.prediction)
        if not (0 <= proposal["value"] < count or (count == 0 and proposal["value"] == -1)):
            raise InputError(
                f"selected is {proposal['value']}; the prediction has {count} instances"
                + (f" (0..{count - 1})" if count else ", so only -1 fits")
            )
        return int(proposal["value"])

    @traitlets.validate("edits")
    def _check_edits(self, proposal: Any) -> dict[str, list[float]]:
        n, k = self.prediction.coefficients.shape
        numbers = {str(index): index for index in range(n)}
        checked = {}
        for instance, values in proposal["value"].items():
            index = numbers.get(str(instance))
            if index is None:
                raise InputError(f"edits has the key {instance!r}; expected instance numbers, 0 to {n - 1}, as text")
            try:
                row = np.asarray(values, dtype=np.float32)
            except (TypeError, ValueError, OverflowError):  # words, lists of different lengths, 400 digits
                row = np.empty(0, dtype=np.float32)
            if row.shape != (k,) or not np.isfinite(row).all():
                raise InputError(f"the coefficients of instance {instance} are not {k} finite numbers")
            if not np.array_equal(row, self.prediction.coefficients[index]):
                checked[str(index)] = row.tolist()
        return checked


def show(
    image: ImageLike | Prediction,
    prediction: Prediction | ImageLike | None = None,
    *,
    model: Model | str | os.PathLike[str] | None = None,
    truth: GroundTruth | None = None,
    selected: int = 0,
) -> PrismWidget:
    """Return the interactive viewer.

    `show("photo.jpg", model="best.pt")`, `show(prediction)` or `show(image, prediction)`.

    Parameters
    ----------
    image
        the image (a path, a PIL image or a BGR array), or its prediction alone if that was
        made from a file that is still there. The two may come in either order.
    prediction
        what a model said about it; `model` is asked where there is none.
    model
        a `Model`, or what `maskprism.load` takes; needed where no prediction is given.
    truth
        what is labelled in the image, such as `GroundTruth.of_masks(masks, classes)` of `maskprism.datasets`;
        which instance found what is decided by `maskprism.analysis.truth.match`.
    selected
        the instance that is chosen at first.

    Raises
    ------
    InputError
        the image and the prediction do not fit each other, or there is neither a prediction nor a model.
    ImageError
        the image cannot be read.

    Examples
    --------
    >>> import maskprism
    >>> from maskprism.datasets.scenes import draw_scene
    >>> widget = maskprism.show(draw_scene(3).image, model="sample")
    >>> widget.edit(drop=[7])  # of the chosen instance; in a notebook the sliders do it
    >>> float(widget.edited_instance.coefficients[7])
    0.0
    """
    given = [one for one in (image, prediction) if one is not None]
    predictions = [one for one in given if isinstance(one, Prediction)]
    raw = [one for one in given if not isinstance(one, Prediction)]
    if not given or len(predictions) > 1 or len(raw) > 1:
        raise InputError("expected an image, a prediction, or one of each in either order")
    pixels = read_image(raw[0]) if raw else predictions[0].source_image()
    untuned = None
    if not predictions:
        found, untuned = _loaded(model).predict_untuned(pixels)
        predictions = [replace(found, source=source_name(raw[0]))]
    elif model is not None:
        raise InputError("a prediction is given, so model= has nothing to do; leave one of the two out")
    return PrismWidget(pixels, predictions[0], truth=truth, untuned=untuned, selected=selected)


def _loaded(model: Any) -> Model:
    from maskprism.models import Model, load

    return model if isinstance(model, Model) else load(model)
