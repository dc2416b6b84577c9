"""How commands tell what they did: the outcome on stdout, as text or JSON; progress, notes and failures on stderr."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass, field
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, ParamSpec, TextIO

from cyclopts import Group, Parameter

from maskprism._common.extras import called_command
from maskprism._common.process import FAILED as FAILED
from maskprism._common.process import INTERRUPTED as INTERRUPTED
from maskprism._common.text import json_text, printable, readable, single_line
from maskprism.errors import ModelWarning

if TYPE_CHECKING:
    from pathlib import Path

    from rich.progress import Progress, TaskID

DONE = 0
WRONG_USAGE = 2
DIFFERENT = 3
EXIT_CODES = {
    DONE: "done; of many images, those that failed are told",
    FAILED: "not done: a mistake in what was given, or not one image that could be used; stderr says what",
    WRONG_USAGE: "wrong usage: no such command or option, one that is missing, or a value of the wrong kind",
    DIFFERENT: "`compare` is done, and the networks differ by more than the tolerance",
    INTERRUPTED: "interrupted; `diagnose` reports on the images before, `extract` goes on when it is called again",
}
"""What the exit codes of all commands mean."""

CommandGroup = Literal["Look", "Why is a mask as it is?", "Diagnose", "Data", "Model"]
"""The groups of commands, in the order of `--help`."""

SHOWN_NOTES = 5
"""So many notes of models are printed in full."""
_OUTPUT = Group("Output", sort_key=20)
Command = ParamSpec("Command")


class Outcome(NamedTuple):
    """What a command did, as plain values for JSON (None: it has told it already), and its exit code."""

    answer: Mapping[str, Any] | None
    code: int = DONE


@dataclass
class Bar:
    """A progress bar over images on stderr, and the failures told beside it: (name of the image, why)."""

    progress: Progress
    task: TaskID
    quiet: bool
    failures: list[tuple[str, str]] = field(default_factory=list)

    def step(self, failed: int | None = None) -> None:
        """One more is done; so many failed, if not those told here."""
        count = len(self.failures) if failed is None else failed
        self.progress.update(self.task, advance=1, failed=failures(count))

    def at(self, done: int, total: int | None, failed: int) -> None:
        """So many are done, of so many, and so many of them failed."""
        if not self.progress.tasks[0].visible:  # what was done before the first call is no part of the rate
            self.progress.reset(self.task, completed=done, total=total, visible=True)
        self.progress.update(self.task, completed=done, total=total, failed=failures(failed))

    def fail(self, name: str, why: object, *, said: str | None = None) -> None:
        """One failed: that is said, in other words if they are given."""
        self.failures.append((name, str(why)))
        self._say(f"{name}: failed: {why}" if said is None else said)

    def note(self, text: str) -> None:
        """Say something that is no failure, unless quiet."""
        if not self.quiet:
            self._say(text)

    def _say(self, text: str) -> None:
        self.progress.console.print(single_line(text), markup=False, highlight=False, soft_wrap=True)


@Parameter(name="*")
@dataclass(frozen=True)
class Output:
    """How the outcome is told."""

    json: Annotated[bool, Parameter(group=_OUTPUT, negative=())] = False
    """Print the outcome as one JSON object on stdout, and everything else on stderr."""

    quiet: Annotated[bool, Parameter(group=_OUTPUT, negative=())] = False
    """No progress bar and no notes: only the outcome and what failed."""

    def note(self, text: str) -> None:
        """Say something beside the outcome, on stderr."""
        if not self.quiet:
            print(text, file=sys.stderr)

    @staticmethod
    def list_files(written: Mapping[Path, str]) -> None:
        """Print the files that were written, each with what it holds."""
        width = max(len(str(path)) for path in written)
        for path, what in written.items():
            print(f"  {path!s:<{width}}  {what}")

    @contextmanager
    def bar(self, verb: str, total: int | None, *, visible: bool = True) -> Iterator[Bar]:
        """A progress bar on stderr with rate and remaining time; invisible until its first step unless `visible`."""
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            ProgressColumn,
            Task,
            TextColumn,
            TimeRemainingColumn,
        )
        from rich.text import Text

        from maskprism.cli.terminal import TerminalConsole

        class Rate(ProgressColumn):
            def render(self, task: Task) -> Text:
                return Text(f"{task.speed:.1f} images/s" if task.speed else "", style="cyan")

        class Shown(Progress):
            def stop(self) -> None:
                if any(task.visible for task in self.tasks):
                    super().stop()
                else:  # no line is ended that was not begun
                    self.live.stop()

        with Shown(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            Rate(),
            TimeRemainingColumn(),
            TextColumn("[red]{task.fields[failed]}"),
            console=TerminalConsole(stderr=True),
            disable=self.quiet,
        ) as progress:
            yield Bar(progress, progress.add_task(verb, total=total, failed="", visible=visible), self.quiet)


@dataclass(frozen=True)
class Declaration:
    """What help and documentation need to know about a command, beside its function.

    Parameters
    ----------
    group, order
        The group of `--help` that it stands in, and its position there: smaller numbers first.
    page
        The page of docs/ that tells more.
    example
        A line that shows how it is called, with the files of `tests/test_command_line.py`: best.onnx, photos, ...
    answer
        The keys of its JSON as Markdown: each in backquotes, and what is not obvious about it.
    resumes
        Whether the same command goes on where an interruption stopped it.
    """

    group: CommandGroup
    order: int
    page: str
    example: str
    answer: str
    resumes: bool = False


DECLARATIONS: dict[Callable[..., int], Declaration] = {}
"""The declaration of each function under `command`."""


def command(
    *, group: CommandGroup, order: int, page: str, example: str, answer: str, resumes: bool = False
) -> Callable[[Callable[Command, Outcome]], Callable[Command, int]]:
    """Declare a command of the command line: the function of the name of its module, in a module of `maskprism.cli`.

    Called, it gives the exit code; with --json only its answer is on stdout.

    Parameters
    ----------
    group, order, page, example, answer, resumes
        See `Declaration`.

    Returns
    -------
    Callable
        The decorator.
    """

    def declared(function: Callable[Command, Outcome]) -> Callable[Command, int]:
        @wraps(function)
        def run(*args: Command.args, **kwargs: Command.kwargs) -> int:
            output = kwargs.get("output")
            json, quiet = (output.json, output.quiet) if isinstance(output, Output) else (False, False)
            called_command.set(function.__name__)
            with ExitStack() as stack:
                stack.enter_context(model_warnings_as_notes(quiet))
                if json:
                    stack.enter_context(redirect_stdout(io.StringIO() if quiet else sys.stderr))
                outcome = function(*args, **kwargs)
            if json and outcome.answer is not None:
                print_json(outcome.answer, sys.stdout)
            return outcome.code

        DECLARATIONS[run] = Declaration(group, order, page, example, answer, resumes)
        return run

    return declared


@contextmanager
def model_warnings_as_notes(quiet: bool) -> Iterator[None]:
    """Print each `ModelWarning` as a note on stderr, the first ones in full and then their number; none when quiet."""
    count = 0
    with warnings.catch_warnings():
        warnings.simplefilter("always", ModelWarning)
        others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            nonlocal count
            if not issubclass(category, ModelWarning):
                others(message, category, *where, **more)
                return
            count += 1
            if count <= SHOWN_NOTES and not quiet:
                print(f"note: {message}", file=sys.stderr)

        warnings.showwarning = show
        yield
    if count > SHOWN_NOTES and not quiet:
        print(f"note: and {count - SHOWN_NOTES} more of such notes", file=sys.stderr)


def print_json(answer: Mapping[str, Any], file: TextIO) -> None:
    """Print an answer as JSON: in UTF-8, whatever the encoding of the terminal."""
    if hasattr(file, "reconfigure"):
        file.reconfigure(encoding="utf-8")
    for line in json_text(answer).split("\n"):
        print(printable(line), file=file)
    file.flush()


def failures(count: int) -> str:
    """How many failed, to be written behind a count; nothing for none."""
    return f", {count} failed" if count else ""


def listed(failed: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    """The failures of images for JSON."""
    return [{"image": readable(name), "why": readable(why)} for name, why in failed]
