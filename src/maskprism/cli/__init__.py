"""The command line: thin over the package; one module per command, which imports nothing heavy before it is called.

A command is a function of the name of its module under `output.command`, which declares all that others need to know
about it: no list of commands has to be edited.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from importlib import import_module
from pkgutil import iter_modules
from typing import get_args

from cyclopts import App, CycloptsError, CycloptsPanel, Group, MissingArgumentError

from maskprism import __version__
from maskprism._common.process import run_command
from maskprism._common.text import single_line
from maskprism.cli.habits import answer
from maskprism.cli.output import DECLARATIONS, DONE, WRONG_USAGE, CommandGroup, command

GROUPS: tuple[CommandGroup, ...] = get_args(CommandGroup)


def find_commands() -> dict[Callable[..., int], command]:
    """Find the commands in the modules of this package, in the order of `--help`.

    Returns
    -------
    dict
        Each command, which is the function of its name in the module of its name, with its declaration.
    """
    names = [module.name for module in iter_modules(__path__) if not (module.ispkg or module.name.startswith("_"))]
    functions = [vars(import_module(f"{__name__}.{name}")).get(name) for name in names]
    commands = [function for function in functions if callable(function) and function in DECLARATIONS]
    commands.sort(key=lambda one: (GROUPS.index(DECLARATIONS[one].group), DECLARATIONS[one].order, one.__name__))
    return {function: DECLARATIONS[function] for function in commands}


def make_app() -> App:
    """Make the command line of all commands that are there."""
    app = App(
        name="maskprism",
        help="Take YOLO-seg instance masks apart: prototypes, coefficients, and how they add up.",
        help_epilogue="Exit codes: 0 done, 1 not done, 2 wrong usage, 3 different, 130 interrupted",
        version=__version__,
        help_format="plaintext",
        suppress_keyboard_interrupt=False,
    )
    *groups, options = (Group(title, sort_key=place) for place, title in enumerate((*GROUPS, "Options")))
    for order, (function, declared) in enumerate(find_commands().items()):
        examples = "\n\n".join(f"Example: maskprism {example}" for example in declared.examples)
        group = groups[GROUPS.index(declared.group)]
        app.command(function, group=group, sort_key=order, help_format="markdown", help_epilogue=examples)
    app["--help"].group = app["--version"].group = options
    app.register_install_completion_command(group=options, help="Let the shell complete commands, options and paths.")
    return app


app = make_app()
COMMANDS = {function.__name__: declared for function, declared in find_commands().items()}
"""All commands in the order of `--help`, with their declarations."""


def main() -> None:
    """Run the command; whatever goes wrong ends in one line and a non-zero exit code."""
    resumes = any(name in sys.argv[1:2] and declared.resumes for name, declared in COMMANDS.items())
    status = run_command("maskprism", _status, resumes="the same command goes on where it stopped" if resumes else "")
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python now waits for threads: another Ctrl-C ends it
    sys.exit(status)


def _status() -> int:
    from rich.text import Text

    from maskprism.cli.terminal import TerminalConsole

    app.console, app.error_console = TerminalConsole(), TerminalConsole(stderr=True)
    if (hint := answer(sys.argv[1:], COMMANDS)) is not None:
        print(f"maskprism: {single_line(hint)}", file=sys.stderr)
        return WRONG_USAGE
    try:
        status = app(sys.argv[1:], result_action="return_value", exit_on_error=False, print_error=False)
    except CycloptsError as error:
        app.error_console.print(CycloptsPanel(Text(_told(error))))
        return WRONG_USAGE
    return status if isinstance(status, int) else DONE


def _told(error: CycloptsError) -> str:
    """Return what is wrong with the arguments; an option that is missing is not told as one without its value."""
    if not isinstance(error, MissingArgumentError) or error.argument is None or error.argument.tokens:
        return str(error)
    name = error.argument.name
    option = name.startswith("-") and not error.keyword
    command = " ".join(error.command_chain or ())
    return f"{name} is missing; `maskprism {command} --help` says what it is" if option else str(error)
