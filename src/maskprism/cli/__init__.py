"""The command line: thin over the package; one module per command, which imports nothing heavy before it is called."""

from __future__ import annotations

import os
import sys
from importlib import import_module

from cyclopts import App, Group

from maskprism import __version__
from maskprism.cli.output import FAILED, INTERRUPTED
from maskprism.errors import MaskprismError

COMMANDS = {
    "Look": ("explain", "page", "serve", "demo"),
    "Why is a mask as it is?": ("prototypes", "basis"),
    "Diagnose": ("diagnose", "compare", "report"),
    "Data": ("extract", "atlas", "search"),
    "Model": ("info", "tune", "reduce", "filmstrip"),
}
"""All commands, in the groups and the order of --help; each is the function of its name in the module of its name."""

app = App(
    name="maskprism",
    help="Take YOLO-seg instance masks apart: prototypes, coefficients, and how they add up.",
    help_epilogue="Exit codes: 0 done, 1 not done, 2 wrong usage, 3 different, 130 interrupted",
    version=__version__,
    help_format="plaintext",
    suppress_keyboard_interrupt=False,
)
for place, (title, names) in enumerate(COMMANDS.items()):
    group = Group(title, sort_key=place)
    for order, name in enumerate(names):
        function = getattr(import_module(f"maskprism.cli.{name}"), name)
        app.command(function, group=group, sort_key=order, help_format="markdown")
options = Group("Options", sort_key=len(COMMANDS))
app["--help"].group = app["--version"].group = options
app.register_install_completion_command(group=options, help="Let the shell complete commands, options and paths.")


def main() -> None:
    """Run the command; a mistake of the user ends in one line and a non-zero exit code."""
    try:
        status = app(sys.argv[1:], result_action="return_value")
        sys.stdout.flush()
    except MaskprismError as error:
        print(f"maskprism: {error}", file=sys.stderr)
        sys.exit(FAILED)
    except BrokenPipeError:  # whoever read the output has seen enough; nothing more is written, not even at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)
    except OSError as error:  # a full disk, a name that is too long, a folder that is not ours
        from maskprism.foreign import said_by_system

        print(f"maskprism: {said_by_system(error)}", file=sys.stderr)
        sys.exit(FAILED)
    except KeyboardInterrupt:
        resumes = "extract" in sys.argv[1:2]
        print(
            "maskprism: interrupted" + ("; the same command goes on where it stopped" if resumes else ""),
            file=sys.stderr,
        )
        sys.exit(INTERRUPTED)
    sys.exit(status if isinstance(status, int) else 0)
