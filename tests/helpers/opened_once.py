"""Models that no test changes, opened once in a process: opening takes several times as long as a prediction.

An ONNX file is opened, run and run again to see whether it repeats itself. Of the bundled model and of real models,
the session and what came of these runs are kept; whatever `load` makes of them is made anew each time.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskprism.models import SAMPLE_MODEL, Model, loading
from maskprism.models.families.family import Probe
from maskprism.models.runtimes import FunctionRuntime, Runtime


def remembering(model: Model) -> Model:
    """The model, which computes each batch once, for several questions about the same images."""
    known: dict[bytes, list[np.ndarray]] = {}

    def function(batch: np.ndarray) -> list[np.ndarray]:
        key = sha256(batch).digest()
        if key not in known:
            known[key] = _read_only(model.runtime(batch))
        return known[key]

    return replace(model, runtime=FunctionRuntime(function, model.runtime.input, model.runtime.metadata))


def open_once(monkeypatch: pytest.MonkeyPatch, real_models: Path) -> None:
    """Have `load` open the bundled model, and ONNX files of this folder, once with the same options."""
    opened: dict[Hashable, Runtime] = {}
    kept: dict[Hashable, Any] = {}
    open_runtime, run, is_repeatable = loading.open_runtime, loading._run, loading._is_repeatable

    def runtime_of(model: Any, runtime: Any, **options: Any) -> Runtime:
        if not isinstance(model, str | Path) or not _is_kept(Path(model), real_models):
            return open_runtime(model, runtime, **options)
        key = Path(model), runtime, *options.items()
        if key not in opened:
            opened[key] = open_runtime(model, runtime, **options)
        return opened[key]

    def outputs(runtime: Runtime, *how: Any, **noise: bool) -> Any:
        if not _one_of(runtime, opened):
            return run(runtime, *how, **noise)
        key = id(runtime), *how, *noise.items()
        if key not in kept:
            kept[key] = _read_only(run(runtime, *how, **noise))
        return kept[key]

    def repeats(probe: Probe, *how: Any, **noise: bool) -> bool:
        if not _one_of(probe.runtime, opened):
            return is_repeatable(probe, *how, **noise)
        key = id(probe.runtime), probe.canvas_hw, *how, *noise.items()
        if key not in kept:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(loading, "_run", run)  # runs are compared, not what is kept of them
                kept[key] = is_repeatable(probe, *how, **noise)
        return kept[key]

    monkeypatch.setattr(loading, "open_runtime", runtime_of)
    monkeypatch.setattr(loading, "_run", outputs)
    monkeypatch.setattr(loading, "_is_repeatable", repeats)


def _read_only(outputs: list[np.ndarray]) -> list[np.ndarray]:
    for output in outputs:
        output.flags.writeable = False
    return outputs


def _is_kept(path: Path, real_models: Path) -> bool:
    return path == SAMPLE_MODEL or (path.suffix == ".onnx" and path.parent == real_models)


def _one_of(runtime: Runtime, opened: dict[Hashable, Runtime]) -> bool:
    return any(runtime is one for one in opened.values())
