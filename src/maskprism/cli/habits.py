"""Answers to what users of Ultralytics type: its modes as commands, and its `model=best.pt` way of options."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Collection, Sequence
from pathlib import PurePath
from typing import NamedTuple

_PAIR = re.compile(r"[a-z_]+=.+", re.DOTALL)
_MODELS = (".pt", ".onnx", ".tflite", ".torchscript", ".xml", ".npz")
_DESCRIPTIONS = (".yaml", ".yml", ".json")
_SHARED = ("imgsz", "conf", "iou", "max_det", "classes", "device", "split")
"""Arguments of Ultralytics that are options here by the same name, with two dashes and hyphens."""
_ARGUMENTS = {
    *_SHARED,
    *(
        "model",
        "source",
        "data",
        "format",
        "project",
        "name",
        "save",
        "save_json",
        "save_txt",
        "show",
        "epochs",
        "batch",
    ),
    *(
        "half",
        "int8",
        "quantize",
        "retina_masks",
        "task",
        "mode",
        "agnostic_nms",
        "stream",
        "verbose",
        "rect",
        "tracker",
    ),
}
_TASKS = ("segment", "detect")


class _Given(NamedTuple):
    """What was typed, as far as it means the same here."""

    model: str | None
    source: str | None
    data: str | None
    options: tuple[str, ...]

    def of(self, *words: str) -> str:
        """Return a command with these words and the options."""
        return shlex.join(["maskprism", *words, *self.options])

    @property
    def model_words(self) -> tuple[str, str]:
        return "--model", self.model or "best.pt"


def _validation(given: _Given) -> str:
    command = given.of("diagnose", given.data or "data.yaml", *given.model_words, "--out", "diagnosis")
    return f"`diagnose` measures mask AP, and says why it is not higher: {command}"


def _segmentation(given: _Given) -> str:
    command = given.of("predict", given.source or "photos", *given.model_words, "--out", "masks", "--format", "coco")
    return f"`predict` writes the masks of images: {command}"


def _export(given: _Given) -> str:
    model = str(PurePath(given.model or "best.pt").with_suffix(".pt"))
    exported = str(PurePath(model).with_suffix(".onnx"))
    check = shlex.join(["maskprism", "compare", model, exported, "--images", given.source or "photos"])
    return (
        f"Ultralytics exports (yolo export model={shlex.quote(model)} format=onnx); `compare` checks the file: {check}"
    )


def _training(given: _Given) -> str:
    model = given.model or "best.pt"
    tuned = f"{PurePath(model).stem}-tuned{PurePath(model).suffix}"
    command = shlex.join(["maskprism", "tune", model, "--data", given.data or "data.yaml", "--out", tuned])
    return f"Ultralytics trains (yolo segment train); `tune` corrects the masks of a trained model: {command}"


def _benchmark(given: _Given) -> str:
    model = given.model or "best.pt"
    other = [str(PurePath(model).with_suffix(".onnx"))]
    other = [model, "--runtime-b", "openvino"] if other == [model] else other
    command = shlex.join(["maskprism", "compare", model, *other, "--images", given.source or "photos"])
    return f"`compare` says how a model in another format or runtime differs: {command}"


def _track(given: _Given) -> str:
    words = ("predict", given.source or "video.mp4", *given.model_words, "--out", "masks", "--format", "coco")
    return f"maskprism does not track; `predict` writes the masks of each frame: {given.of(*words)}"


HINTS: dict[str, Callable[[_Given], str]] = {
    "val": _validation,
    "segment": _segmentation,
    "export": _export,
    "train": _training,
    "benchmark": _benchmark,
    "track": _track,
}
"""Modes of Ultralytics that are no commands here, and the answer to each."""
_FIRST = {"predict": "source", "extract": "source", "explain": "source", "prototypes": "source", "basis": "source"}
_FIRST |= {"page": "source", "diagnose": "data", "labels": "data", "tune": "model", "info": "model"}
"""What the commands take without an option."""
_NEEDED = {"predict": ("--out", "masks", "--format", "coco"), "diagnose": ("--out", "diagnosis")}
_NEEDED |= {"tune": ("--out", "tuned.onnx"), "labels": ("--out", "labels"), "extract": ("--out", "table.parquet")}


def answer(words: Sequence[str], commands: Collection[str]) -> str | None:
    """Return what to type instead; None where the words are those of this command line.

    Parameters
    ----------
    words
        What was typed behind `maskprism`.
    commands
        The names of the commands that there are.
    """
    typed = [*words]
    if len(typed) > 1 and typed[0] in _TASKS and (typed[1] in commands or typed[1] in HINTS):
        typed = typed[1:]  # as in: yolo segment val
    if not typed or {"-h", "--help"} & set(typed):
        return None
    name = typed[0]
    if name in HINTS:
        return f"there is no command {name}: {HINTS[name](_given(typed[1:]))}"
    pairs = [word for place, word in enumerate(typed) if _is_pair(word, typed[place - 1] if place else "")]
    if pairs:
        mode = next((word.partition("=")[2] for word in pairs if word.startswith("mode=")), name)
        if mode in HINTS:
            return f"there is no command {mode}: {HINTS[mode](_given(typed))}"
        command = mode if mode in commands else "predict"
        rest = typed[1:] if name in commands else typed
        return f"options are written with two dashes, not as {pairs[0]}: {_spelled(command, _given(rest))}"
    if typed != [*words] and name in commands:
        return f"there is no task before the command: {shlex.join(['maskprism', *typed])}"
    return None


def _is_pair(word: str, before: str) -> bool:
    """Whether a word is an argument as Ultralytics has it, and no value of an option."""
    return not before.startswith("--") and bool(_PAIR.fullmatch(word)) and word.partition("=")[0] in _ARGUMENTS


def _spelled(command: str, given: _Given) -> str:
    first = _FIRST.get(command)
    values = {"source": given.source or "photos", "data": given.data or "data.yaml", "model": given.model or "best.pt"}
    words = [command, *([values[first]] if first else [])]
    words += given.model_words if first != "model" else ()
    words += ["--data", values["data"]] if first != "data" and given.data is not None else []
    return given.of(*words, *_NEEDED.get(command, ()))


def _given(words: Sequence[str]) -> _Given:
    """Read both ways of writing arguments."""
    values: dict[str, str] = {}
    options: list[str] = []
    place = 0
    while place < len(words):
        word = words[place]
        place += 1
        if word.startswith("--"):
            name, _, value = word[2:].partition("=")
            name = name.replace("-", "_")
            if not value and place < len(words) and not words[place].startswith("--"):
                value, place = words[place], place + 1
        elif _PAIR.fullmatch(word):
            name, _, value = word.partition("=")
        else:
            suffix = PurePath(word).suffix.lower()
            name = "model" if suffix in _MODELS else "data" if suffix in _DESCRIPTIONS else "source"
            value = word
        values.setdefault(name, value)
        if name in _SHARED and value:
            several = re.findall(r"[^\[\],\s]+", value) if name in ("classes", "imgsz") else [value]
            options += [f"--{name.replace('_', '-')}", *several]
    return _Given(values.get("model"), values.get("source"), values.get("data"), tuple(options))
