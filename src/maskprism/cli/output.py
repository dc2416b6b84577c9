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

    from maskprism.datasets.visit import Failure

DONE = 0
WRONG_USAGE = 2
DIFFERENT = 3
EXIT_CODES = {
    DONE: "done; of many images, those that failed are printed",
    FAILED: "not done: a mistake in what was given, or not one image that could be used; stderr says what",
    WRONG_USAGE: "wrong usage: no such command or option, one that is missing, or a value of the wrong kind",
    DIFFERENT: "`compare` is done, and the models differ by more than the tolerance",
    INTERRUPTED: "interrupted; `diagnose` reports on the images before, `extract` and `predict` go on if called again",
}
"""What the exit codes of all commands mean."""

CommandGroup = Literal["Visualise", "Explain masks", "Diagnose", "Data", "Model"]
"""The groups of commands, in the order of `--help`."""

SHOWN_NOTES = 5
"""The number of notes of models that are printed in full."""
_OUTPUT = Group("Output", sort_key=20)
Command = ParamSpec("Command")


class Outcome(NamedTuple):
    """What a command did, as plain values for JSON (None: it has told it already), and its exit code."""

    answer: Mapping[str, Any] | None
    code: int = DONE


@dataclass
class Bar:
    """A progress bar over images on stderr, and the failures; with `told`, they are printed beside it."""

    progress: Progress
    task: TaskID
    quiet: bool
    told: bool = True
    failures: list[Failure] = field(default_factory=list)

    def step(self) -> None:
        """One more is done."""
        self.progress.update(self.task, advance=1, failed=failures(len(self.failures)))

    def at(self, done: int, total: int | None, failure: Failure | None = None) -> None:
        """Show how many are done, of how many, and count the last one if it is a failure: an `OnProgress`."""
        if failure is not None:
            self.fail(failure)
        if not self.progress.tasks[0].visible:  # images before the first call do not count in the rate
            self.progress.reset(self.task, completed=done, total=total, visible=True)
        self.progress.update(self.task, completed=done, total=total, failed=failures(len(self.failures)))

    def fail(self, failure: Failure) -> None:
        """Count one that failed, and print it if failures are printed."""
        self.failures.append(failure)
        if self.told:
            self._say(f"{failure.name}: failed: {failure.message}")

    def note(self, text: str) -> None:
        """Say something that is no failure, unless quiet."""
        if not self.quiet:
            self._say(text)

    def _say(self, text: str) -> None:
        self.progress.console.print(single_line(text), markup=False, highlight=False, soft_wrap=True)


@Parameter(name="*")
@dataclass(frozen=True)
class Output:
    """How the outcome is printed."""

    json: Annotated[bool, Parameter(group=_OUTPUT, negative=())] = False
    """Print the outcome as one JSON object on stdout, and everything else on stderr."""

    quiet: Annotated[bool, Parameter(group=_OUTPUT, negative=())] = False
    """No progress bar and no notes: only the outcome and what failed."""

    def note(self, text: str) -> None:
        """Say something beside the outcome, on stderr."""
        if not self.quiet:
            print(text, file=sys.stderr)

    def notices(self, notices: Iterable[str]) -> None:
        """Say what there is to know of labels, on stderr."""
        for notice in notices:
            self.note(f"note: {notice}")

    @staticmethod
    def list_files(written: Mapping[Path, str]) -> None:
        """Print the files that were written, each with what it holds."""
        width = max(len(str(path)) for path in written)
        for path, what in written.items():
            print(f"  {path!s:<{width}}  {what}")

    @contextmanager
    def bar(self, verb: str, total: int | None = None, *, visible: bool = True, told: bool = True) -> Iterator[Bar]:
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
            yield Bar(progress, progress.add_task(verb, total=total, failed="", visible=visible), self.quiet, told)


@dataclass(frozen=True, kw_only=True)
class command:  # noqa: N801  (a decorator)
    """Declare a command of the command line: the function of the name of its module, in a module of `maskprism.cli`.

    Called, it gives the exit code; with --json only its answer is on stdout.

    Parameters
    ----------
    group, order
        The group of `--help` that it stands in, and its position there: smaller numbers first.
    page
        The page of docs/ that tells more.
    examples
        Two lines that show how it is called; the first one with the files of `tests/cli/test_command_line.py`:
        best.onnx, photos, ...
    answer
        The keys of its JSON as Markdown: each in backquotes, and what is not obvious about it.
    resumes
        Whether the same command goes on where an interruption stopped it.
    """

    group: CommandGroup
    order: int
    page: str
    examples: tuple[str, str]
    answer: str
    resumes: bool = False

    def __call__(self, function: Callable[Command, Outcome]) -> Callable[Command, int]:
        """Make the function a command."""

        @wraps(function)
        def run(*args: Command.args, **kwargs: Command.kwargs) -> int:
            output = kwargs.get("output")
            json, quiet = (output.json, output.quiet) if isinstance(output, Output) else (False, False)
            with ExitStack() as stack:
                stack.callback(called_command.reset, called_command.set(function.__name__))
                stack.enter_context(model_warnings_as_notes(quiet))
                if json:
                    stack.enter_context(redirect_stdout(io.StringIO() if quiet else sys.stderr))
                outcome = function(*args, **kwargs)
            if json and outcome.answer is not None:
                print_json(outcome.answer, sys.stdout)
            return outcome.code

        DECLARATIONS[run] = self
        return run


DECLARATIONS: dict[Callable[..., int], command] = {}
"""What each command declares."""


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
    """Return how many failed, to be written behind a count; nothing for none."""
    return f", {count} failed" if count else ""


def listed(failed: Iterable[Failure]) -> list[dict[str, str]]:
    """Return the failures of images for JSON."""
    return [{"image": readable(one.name), "why": readable(one.message)} for one in failed]
