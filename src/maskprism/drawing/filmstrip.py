"""A film strip: how the prototypes, and the mask of the best instance, change from one checkpoint to the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from maskprism.core.decomposition import Decomposition, check_indices
from maskprism.drawing.sheets import Panel, Sheet
from maskprism.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Float32

    from maskprism.core.prediction import Instance, Prediction

MOST_COLUMNS = 10
_PROTOTYPES = 5
_PERCENTILE = 99.5


def filmstrip_sheet(
    frames: Mapping[str, Prediction], *, prototypes: Sequence[int] | None = None, title: str = ""
) -> Sheet:
    """Checkpoints across, prototypes down, all on one colour scale; above them the logits of the best instance.

    Parameters
    ----------
    frames
        By label what each checkpoint says about one image; of more than `MOST_COLUMNS`, evenly chosen ones are
        shown, the first and the last among them.
    prototypes
        0-based indices; those that matter most for the best instance of the last frame by default.

    Raises
    ------
    InputError
        Without a frame, for an index out of range, and for frames of other images or with another number of prototypes.
    """
    _check_alike(frames)
    labels = _evenly(list(frames), MOST_COLUMNS)
    best = {label: _best(frames[label]) for label in labels}
    count = len(frames[labels[-1]].prototypes)
    chosen = (
        _most_telling(frames[labels[-1]], _PROTOTYPES)
        if prototypes is None
        else check_indices(prototypes, count).tolist()
    )
    if not chosen:
        raise InputError("there are no prototypes to show; expected at least one index")
    shown = {label: _content(frames[label].prototypes, frames[label]) for label in labels}
    limit = _limit([shown[label][chosen] for label in labels])
    logits = {label: _content(Decomposition(one).logits, frames[label]) for label, one in best.items() if one}
    logit_limit = _limit(list(logits.values())) if logits else 1.0
    panels = [_logit_panel(label, frames[label], best[label], logits.get(label), logit_limit) for label in labels]
    largest = max((float(np.abs(one.weights[chosen]).max()) for one in best.values() if one), default=0.0) or 1.0
    for k in chosen:
        for label in labels:
            weight = float(one.weights[k]) if (one := best[label]) else None
            panels.append(
                Panel(
                    title=f"{k}" if weight is None else f"{k}   {weight:+.2f}".replace("-", "−"),
                    values=shown[label][k],
                    limit=limit,
                    map="prototype",
                    sign=0 if weight is None else int(np.sign(weight)),
                    bar=None if weight is None else weight / largest,
                )
            )
    height, width = panels[0].size_hw
    column = min(max(2400 // len(labels), 200), 320)
    return Sheet(
        title=title or "Prototypes from checkpoint to checkpoint",
        subtitle=f"{len(frames)} checkpoints" + (f", {len(labels)} of them shown" if len(labels) < len(frames) else ""),
        panels=tuple(panels),
        columns=len(labels),
        notes=(
            f"Top row: logits of the most confident instance (red above zero, ends at {logit_limit:.1f}), its box, and "
            "the edge of its mask. It need not be the same instance in every column.",
            "Below: prototype index and the weight that this instance gives it.",
        ),
        scale=(limit, "prototype", "prototype value"),
        size_wh=(column * len(labels), round((column * height / width + 44) * (len(chosen) + 1))),
    )


def _logit_panel(
    label: str,
    prediction: Prediction,
    best: Instance | None,
    logits: Float32[np.ndarray, "h w"] | None,
    limit: float,
) -> Panel:
    if best is None or logits is None:
        rows, columns = prediction.letterbox.content_cells
        empty = np.zeros((rows.stop - rows.start, columns.stop - columns.start), dtype=np.float32)
        return Panel(title=f"{label}: nothing found", values=empty, limit=1.0)
    rows, columns = prediction.letterbox.content_cells
    x1, y1, x2, y2 = (float(v) for v in prediction.letterbox.to_grid(best.canvas_box))
    return Panel(
        title=f"{label}: {best.name} {best.score:.2f}",
        values=logits,
        limit=limit,
        box=(x1 - columns.start, y1 - rows.start, x2 - columns.start, y2 - rows.start),
        outline=logits,
    )


def _best(prediction: Prediction) -> Instance | None:
    return prediction[int(np.argmax(prediction.scores))] if len(prediction) else None


def _content(values: Float32[np.ndarray, "... h w"], prediction: Prediction) -> Float32[np.ndarray, "... rows columns"]:
    return values[..., *prediction.letterbox.content_cells]


def _most_telling(prediction: Prediction, count: int) -> list[int]:
    """Return the prototypes with the largest effect on the best instance; without one, those that vary most."""
    best = _best(prediction)
    if best is not None:
        order = Decomposition(best).order("effect")
    else:
        order = np.argsort(-prediction.prototypes.reshape(len(prediction.prototypes), -1).std(axis=1), kind="stable")
    return [int(k) for k in order[:count]]


def _limit(values: Sequence[Float32[np.ndarray, "..."]]) -> float:
    """Return the end of a colour scale that all share: the 99.5th percentile of |value|."""
    return float(np.percentile(np.abs(np.concatenate([v.reshape(-1) for v in values])), _PERCENTILE)) or 1.0


def _evenly(labels: list[str], most: int) -> list[str]:
    if len(labels) <= most:
        return labels
    return [labels[round(i)] for i in np.linspace(0, len(labels) - 1, most)]


def _check_alike(frames: Mapping[str, Prediction]) -> None:
    if not frames:
        raise InputError("there are no checkpoints to show; expected at least one")
    (first, model), *others = frames.items()
    for label, other in others:
        if len(other.prototypes) != len(model.prototypes):
            raise InputError(
                f"{label} has {len(other.prototypes)} prototypes and {first} has {len(model.prototypes)}; a film strip "
                "shows checkpoints of one model"
            )
        if other.image_size != model.image_size:
            raise InputError(
                f"{label} is about an image of {other.image_size[1]} x {other.image_size[0]} pixels and {first} "
                f"about one of {model.image_size[1]} x {model.image_size[0]}; expected the same image"
            )
