"""Models that no test changes: opened once in a process, and run once on each input.

Opening takes several times as long as a prediction: an ONNX file is opened, run and run again to see whether it repeats
itself. Of the bundled model and of real models, the session, the answer to that and the outputs are kept; whatever
`load` makes of them is made anew each time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pytest

from maskprism.models import SAMPLE_MODEL, loading
from maskprism.models.families.family import Probe
from maskprism.models.runtimes import Runtime
from maskprism.models.runtimes.onnx import OnnxRuntime

MOST_BYTES = 256 << 20

Outputs = list[np.ndarray]


def open_once(monkeypatch: pytest.MonkeyPatch, real_models: Path) -> None:
    """Have `load` open the bundled model, and ONNX files of this folder, once with the same options."""
    opened: dict[Hashable, Runtime] = {}
    repeatable: dict[Hashable, bool] = {}
    known = _Known()
    open_runtime, is_repeatable, run = loading.open_runtime, loading._is_repeatable, OnnxRuntime.__call__

    def runtime_of(model: Any, runtime: Any, **options: Any) -> Runtime:
        if not isinstance(model, str | Path) or not _is_kept(Path(model), real_models):
            return open_runtime(model, runtime, **options)
        key = Path(model), runtime, *options.items()
        if key not in opened:
            opened[key] = open_runtime(model, runtime, **options)
        return opened[key]

    def outputs(runtime: OnnxRuntime, batch: np.ndarray) -> Outputs:
        if not _is_among(runtime, opened):
            return run(runtime, batch)
        key = id(runtime), batch.shape, sha256(np.ascontiguousarray(batch)).digest()
        return known.get(key) or known.put(key, run(runtime, batch))

    def repeats(probe: Probe, *how: Any, **noise: bool) -> bool:
        if not _is_among(probe.runtime, opened):
            return is_repeatable(probe, *how, **noise)
        key = id(probe.runtime), probe.canvas_hw, *how, *noise.items()
        if key not in repeatable:
            repeatable[key] = is_repeatable(probe, *how, **noise)
        return repeatable[key]

    monkeypatch.setattr(loading, "open_runtime", runtime_of)
    monkeypatch.setattr(loading, "_is_repeatable", repeats)
    monkeypatch.setattr(OnnxRuntime, "__call__", outputs)


class _Known:
    """Outputs of the latest inputs, for threads at once."""

    def __init__(self) -> None:
        self._outputs: OrderedDict[Hashable, Outputs] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def get(self, key: Hashable) -> Outputs | None:
        with self._lock:
            if key not in self._outputs:
                return None
            self._outputs.move_to_end(key)
            return list(self._outputs[key])

    def put(self, key: Hashable, outputs: Outputs) -> Outputs:
        """Keep them, as read-only arrays."""
        for output in outputs:
            output.flags.writeable = False
        with self._lock:
            if key not in self._outputs:
                self._outputs[key] = outputs
                self._bytes += _size(outputs)
            while self._bytes > MOST_BYTES:
                self._bytes -= _size(self._outputs.popitem(last=False)[1])
        return list(outputs)


def _size(outputs: Outputs) -> int:
    return sum(output.nbytes for output in outputs)


def _is_kept(path: Path, real_models: Path) -> bool:
    return path == SAMPLE_MODEL or (path.suffix == ".onnx" and path.parent == real_models)


def _is_among(runtime: Runtime, opened: dict[Hashable, Runtime]) -> bool:
    return any(runtime is one for one in opened.values())
