"""maskprism info."""

from __future__ import annotations

from collections.abc import Mapping

from maskprism._common.text import single_line
from maskprism.cli.options import DetectionOptions, ModelFile, ReadingOptions, load_model
from maskprism.cli.output import Outcome, Output, command


@command(
    group="Model",
    order=10,
    page="models.md",
    examples=("info best.onnx", "info best.onnx --json"),
    answer="`name`, `layout`, `runtime`, `input_hw`, `rectangular`, `prototypes`, `grid_hw`, `stride`, `names`, "
    "`rule`, `preprocessing`, `version`, `sha256`, `correction`, `notes`, `fixed_size`, `mask_decoder` "
    '("compiled" or "pure")',
)
def info(model: ModelFile = None, *, reading: ReadingOptions = ReadingOptions(), output: Output = Output()) -> Outcome:
    """Print what a model is.

    Family, runtime, input size, prototypes, classes, mask rule, fingerprint.
    """
    import dataclasses

    from rich.table import Table
    from rich.text import Text

    from maskprism.cli.terminal import TerminalConsole
    from maskprism.core.decoding import implementation
    from maskprism.core.decoding.engine import PURE, forced_pure

    why = f"{PURE} is set" if forced_pure() else "not compiled when it was installed: no C compiler"
    spec = load_model(model, reading, DetectionOptions()).spec
    entries = {
        "model": single_line(spec.name),
        "layout": spec.layout,
        "runtime": spec.runtime,
        "input": f"{spec.input_hw[0]} x {spec.input_hw[1]}"
        + (" at most, cut to a rectangle around each image" if spec.rectangular else ""),
        "prototypes": f"{spec.prototypes} of {spec.grid_hw[0]} x {spec.grid_hw[1]} (stride {spec.stride})",
        "mask rule": spec.rule.name,
        "version": f"Ultralytics {spec.version}" if spec.version else "unknown",
        "classes": _classes(spec.names),
        "sha256": spec.sha256,
        "mask decoder": "compiled" if implementation() == "compiled" else f"NumPy ({why})",
        **({} if spec.correction is None else {"correction": spec.correction}),
        **({"notes": "\n".join(map(single_line, spec.notes))} if spec.notes else {}),
    }
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for key, value in entries.items():
        table.add_row(Text(key, style="bold"), Text(value))
    TerminalConsole().print(table)
    return Outcome(dataclasses.asdict(spec) | {"mask_decoder": implementation()})


def _classes(names: Mapping[int, str]) -> str:
    if all(name == f"class{i}" for i, name in names.items()):
        return f"{len(names)}, without names"
    return f"{len(names)}: " + ", ".join(f"{i} {single_line(name)}" for i, name in names.items())
