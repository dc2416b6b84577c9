"""The command line: thin over the package; one module per command, which imports nothing heavy before it is called."""

from __future__ import annotations

import sys
from importlib import import_module

from cyclopts import App

from maskprism import __version__
from maskprism.errors import MaskprismError

app = App(
    name="maskprism",
    help="Take YOLO-seg instance masks apart: prototypes, coefficients, and how they add up.",
    version=__version__,
    help_format="markdown",
    suppress_keyboard_interrupt=False,
)
for command in (
    "info",
    "explain",
    "extract",
    "page",
    "basis",
    "diagnose",
    "prototypes",
    "compare",
    "reduce",
    "tune",
    "filmstrip",
    "serve",
    "demo",
):
    app.command(getattr(import_module(f"maskprism.cli.{command}"), command))


def main() -> None:
    """Run the command; a mistake of the user ends in one line and a non-zero exit code."""
    try:
        status = app(result_action="return_value")
    except MaskprismError as error:
        print(f"maskprism: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        resumes = "extract" in sys.argv[1:2]
        print(
            "maskprism: interrupted" + ("; the same command goes on where it stopped" if resumes else ""),
            file=sys.stderr,
        )
        sys.exit(130)
    sys.exit(status if isinstance(status, int) else 0)
