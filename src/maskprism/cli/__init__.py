"""The command line: thin over the package; one module per command, which imports nothing heavy before it is called."""

from __future__ import annotations

import signal
import sys
from importlib import import_module

from cyclopts import App, CycloptsError, CycloptsPanel, Group, MissingArgumentError

from maskprism import __version__
from maskprism._common.process import run_command
from maskprism.cli.output import DONE, WRONG_USAGE

COMMANDS = {
    "Look": ("explain", "page", "serve", "demo"),
    "Why does a mask look like this?": ("prototypes", "basis"),
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
    """Run the command; whatever goes wrong ends in one line and a non-zero exit code."""
    resumes = "the same command goes on where it stopped" if "extract" in sys.argv[1:2] else ""
    status = run_command("maskprism", _status, resumes=resumes)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python now waits for threads: another Ctrl-C ends it
    sys.exit(status)


def _status() -> int:
    from rich.text import Text

    from maskprism.cli.terminal import TerminalConsole

    app.console, app.error_console = TerminalConsole(), TerminalConsole(stderr=True)
    try:
        status = app(sys.argv[1:], result_action="return_value", exit_on_error=False, print_error=False)
    except CycloptsError as error:
        app.error_console.print(CycloptsPanel(Text(_told(error))))
        return WRONG_USAGE
    return status if isinstance(status, int) else DONE


def _told(error: CycloptsError) -> str:
    """What is wrong with the arguments; an option that is missing is not told as one without its value."""
    if not isinstance(error, MissingArgumentError) or error.argument is None or error.argument.tokens:
        return str(error)
    name = error.argument.name
    option = name.startswith("-") and not error.keyword
    command = " ".join(error.command_chain or ())
    return f"{name} is missing; `maskprism {command} --help` says what it is" if option else str(error)
